//! Who a client is, by the certificate that it has shown and that was verified.

use std::{fmt::Write as _, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64, HEXLOWER};
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, x509::X509Name};

use super::vetting::not_after;

/// A client's certificate as backends and the access log learn of it; made once per connection.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The subject's distinguished name (RFC 4514), printable ASCII.
    pub subject: HeaderValue,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: HeaderValue,
    /// The certificate as a byte sequence (RFC 9440 §2.1).
    pub certificate: HeaderValue,
    /// Its last moment.
    pub not_after: SystemTime,
}

// === impl Identity ===

impl Identity {
    /// Of the certificate that a client has shown. None when it cannot be read, which verification rules out.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let bytes = certificate.as_ref();
        Some(Self {
            subject: HeaderValue::try_from(distinguished_name(parsed.subject())).ok()?,
            fingerprint: HeaderValue::try_from(HEXLOWER.encode(digest(&SHA256, bytes).as_ref())).ok()?,
            certificate: HeaderValue::try_from(format!(":{}:", BASE64.encode(bytes))).ok()?,
            not_after: not_after(&parsed),
        })
    }
}

/// RFC 4514, the most specific part first. What is not printable ASCII is escaped byte by byte, so that no reader can
/// take a part of a value for another part of the name.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, part) in parts.into_iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            let kind = attribute.attr_type().to_id_string();
            match (short(&kind), attribute.as_str()) {
                (Some(short), Ok(value)) => {
                    text.push_str(short);
                    text.push('=');
                    escape(value, &mut text);
                }
                // RFC 4514 §2.4: the value's bytes.
                (short, _) => {
                    let value = attribute.attr_value();
                    let _ = write!(text, "{}=#{}", short.unwrap_or(&kind), HEXLOWER.encode(value.data));
                }
            }
        }
    }
    text
}

/// Names of attributes: RFC 4514 §3, RFC 4519, and that of mail addresses.
fn short(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "givenName",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => text.extend(['\\', byte.into()]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(byte.into()),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity::of(certificate.der()).unwrap().subject.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_most_specific_part_comes_first() {
        let parts =
            [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Homing"), (DnType::CommonName, "anna")];
        assert_eq!(subject(&parts), "CN=anna,O=Homing,C=DE");
    }

    #[test]
    fn no_value_can_pass_for_another_part_of_the_name() {
        assert_eq!(subject(&[(DnType::CommonName, "x,O=Admins+UID=root")]), "CN=x\\,O\\=Admins\\+UID\\=root");
        assert_eq!(subject(&[(DnType::CommonName, "a\"b\\c")]), "CN=a\\\"b\\\\c");
        assert_eq!(subject(&[(DnType::CommonName, " #x ")]), "CN=\\ #x\\ ");
    }

    #[test]
    fn what_is_not_printable_is_escaped() {
        assert_eq!(
            subject(&[(DnType::CommonName, "J\u{fc}rgen\r\nX: y\u{0}")]),
            "CN=J\\C3\\BCrgen\\0D\\0AX: y\\00"
        );
    }

    #[test]
    fn an_unknown_kind_of_attribute_is_shown_as_bytes() {
        let parts = [(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999]), "x,CN=root")];
        assert_eq!(subject(&parts), "1.3.6.1.4.1.99999=#782c434e3d726f6f74");
    }

    #[test]
    fn the_certificate_is_a_byte_sequence_and_its_fingerprint_in_hexadecimal() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let identity = Identity::of(certificate.der()).unwrap();
        assert_eq!(identity.fingerprint.len(), 64);
        let text = identity.certificate.to_str().unwrap();
        let inner = text.strip_prefix(':').and_then(|text| text.strip_suffix(':')).unwrap();
        assert_eq!(BASE64.decode(inner.as_bytes()).unwrap(), certificate.der().as_ref());
    }
}
