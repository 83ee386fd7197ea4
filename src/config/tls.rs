//! `[tls]`: who may shake hands at the front door, and what backends learn of them.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use http::HeaderName;

use super::{
    effective::{path as quoted_path, quoted},
    errors::Report,
    excerpt::shown,
    raw::path,
    section::{Field, Section},
};

/// Who may shake hands at the front door, and what backends learn of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether clients that name no host, or none of a certificate, are turned away.
    pub strict_sni: bool,
    /// Who has to show a certificate; nobody is asked for one when none.
    pub clients: Option<ClientAuth>,
    /// Field by which backends learn the subject of a client's certificate. Clients cannot set it, whether or not
    /// they are asked for certificates.
    pub client_header: HeaderName,
    /// Whether backends get the certificate itself, too (RFC 9440).
    pub client_cert: bool,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Authorities that vouch for them, PEM.
    pub ca: PathBuf,
    /// What they have revoked, PEM.
    pub crl: Option<PathBuf>,
    /// Whether a client may do without.
    pub optional: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

#[derive(Debug, Default)]
pub(super) struct RawTls {
    min_version: Field<TlsVersion>,
    strict_sni: Field<bool>,
    client_ca: Field<PathBuf>,
    client_auth: Field<bool>,
    client_crl: Field<PathBuf>,
    client_header: Field<HeaderName>,
    client_cert: Field<bool>,
}

// === impl Tls ===

impl Default for Tls {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::Tls12,
            strict_sni: false,
            clients: None,
            client_header: DEFAULT_CLIENT_HEADER,
            client_cert: false,
        }
    }
}

impl Tls {
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n[tls]")?;
        writeln!(out, "min_version = {}", quoted(self.min_version.as_str()))?;
        writeln!(out, "strict_sni = {}", self.strict_sni)?;
        if let Some(clients) = &self.clients {
            writeln!(out, "client_ca = {}", quoted_path(&clients.ca))?;
            writeln!(out, "client_auth = {}", quoted(clients.word()))?;
            if let Some(crl) = &clients.crl {
                writeln!(out, "client_crl = {}", quoted_path(crl))?;
            }
            writeln!(out, "client_cert = {}", self.client_cert)?;
        }
        writeln!(out, "client_header = {}", quoted(self.client_header.as_str()))
    }
}

// === impl ClientAuth ===

impl ClientAuth {
    /// The value of `client_auth`.
    pub(super) const fn word(&self) -> &'static str {
        if self.optional { "optional" } else { "required" }
    }
}

// === impl TlsVersion ===

impl TlsVersion {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

// === impl RawTls ===

impl RawTls {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let tls = Self {
            min_version: section.text("min_version", version),
            strict_sni: section.boolean("strict_sni"),
            client_ca: section.text("client_ca", path),
            client_auth: section.text("client_auth", client_auth),
            client_crl: section.text("client_crl", path),
            client_header: section.text("client_header", client_header),
            client_cert: section.boolean("client_cert"),
        };
        section.finish();
        tls
    }

    pub(super) fn convert(self, base: &Path, report: &Report) -> Tls {
        if self.client_ca.is_absent() {
            if let Some(span) = self.client_auth.span() {
                report.add(
                    span,
                    "`client_auth` needs `client_ca`: the authorities that vouch for clients. The well-known public \
                     ones do not: they vouch for anybody",
                );
            }
            for (name, span) in [
                ("client_crl", self.client_crl.span()),
                (
                    "client_cert",
                    self.client_cert.get().filter(|set| **set).and_then(|_| self.client_cert.span()),
                ),
            ] {
                if let Some(span) = span {
                    report.add(span, format!("`{name}` does nothing without `client_ca`"));
                }
            }
        }
        let default = Tls::default();
        let optional = self.client_auth.or(false);
        let crl = self.client_crl.value().map(|file| base.join(file));
        Tls {
            min_version: self.min_version.or(default.min_version),
            strict_sni: self.strict_sni.or(default.strict_sni),
            clients: self.client_ca.value().map(|ca| ClientAuth { ca: base.join(ca), crl, optional }),
            client_header: self.client_header.or(default.client_header),
            client_cert: self.client_cert.or(default.client_cert),
        }
    }
}

fn version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        other => Err(format!("`{}` is neither \"1.2\" nor \"1.3\"; older versions are broken", shown(other))),
    }
}

/// Whether it is optional.
fn client_auth(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(false),
        "optional" => Ok(true),
        other => Err(format!("`{}` is neither \"required\" nor \"optional\"", shown(other))),
    }
}

fn client_header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("`{}` cannot be the name of a header field", shown(text)))?;
    // Whatever it is called is removed from every request, so it must be a field that nothing else needs.
    match name.as_str() {
        text if text.starts_with("x-") && !TAKEN.contains(&text) && !text.starts_with("x-forwarded-") => {
            Ok(name)
        }
        text => Err(format!(
            "`{}` may be needed for something else: take a name of your own that begins with `X-`",
            shown(text)
        )),
    }
}

const DEFAULT_CLIENT_HEADER: HeaderName = HeaderName::from_static("x-client-subject");
/// Fields that the proxy itself makes.
const TAKEN: [&str; 3] = ["x-request-id", "x-real-ip", "x-client-cert-sha256"];

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(tls: &str) -> Result<Config, String> {
        let text = format!(
            "certificate = [{{ cert = \"c\", key = \"k\" }}]\n[[pool]]\nname = \"app\"\n\
             backend = [{{ url = \"http://a:1\" }}]\n[tls]\n{tls}"
        );
        Config::parse(&text, "test", std::path::Path::new("/base")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_authority_alone_makes_certificates_required() {
        let clients = parse("client_ca = \"ca.pem\"").unwrap().tls.clients.unwrap();
        assert!(!clients.optional);
        assert_eq!(clients.ca.to_str(), Some("/base/ca.pem"));
        assert!(
            parse("client_ca = \"ca.pem\"\nclient_auth = \"optional\"")
                .unwrap()
                .tls
                .clients
                .unwrap()
                .optional
        );
    }

    #[test]
    fn what_does_nothing_without_an_authority_is_an_error() {
        for line in ["client_auth = \"required\"", "client_crl = \"x\"", "client_cert = true"] {
            assert!(parse(line).unwrap_err().contains("client_ca"), "{line}");
        }
    }

    #[test]
    fn a_field_that_something_else_needs_cannot_carry_the_subject() {
        for name in ["Host", "Cookie", "X-Forwarded-For", "X-Request-Id", "Authorization", "a b"] {
            assert!(parse(&format!("client_header = \"{name}\"")).is_err(), "{name}");
        }
        assert_eq!(parse("client_header = \"X-User\"").unwrap().tls.client_header, "x-user");
    }
}
