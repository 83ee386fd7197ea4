//! The rustls configuration of the front door.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ProducesTickets},
    version::{TLS12, TLS13},
};

use super::{
    Certificate, Mark, TlsError, TlsErrors, Vetting,
    resolver::{Resolver, warn_of_never_chosen},
};
use crate::{
    clock,
    config::{CertificateFiles, Tls, TlsVersion},
};

/// The keys of session tickets, drawn at random and rotated every six hours; a ticket resumes a
/// session for six to twelve hours.
///
/// Made once per process and shared by all workers and all configs, so that a client may resume on
/// another worker and after a reload. Resumption needs no memory here: the state is in the ticket.
#[derive(Clone)]
pub struct Ticketer(pub(super) Arc<dyn ProducesTickets>);

/// The front door as handshakes and requests see it: built aside, replaced whole.
#[derive(Clone)]
pub struct Front {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    strict: bool,
    vetting: Mark,
}

/// Reads and checks all `files`.
///
/// # Errors
/// Every fault of every file, or that there is none.
pub fn load_certificates(files: &[CertificateFiles]) -> Result<Vec<Certificate>, TlsErrors> {
    if files.is_empty() {
        return Err(TlsError::NoneConfigured.into());
    }
    let provider = provider();
    let mut certificates = Vec::with_capacity(files.len());
    let mut faults = Vec::new();
    for files in files {
        match Certificate::load(files, &provider) {
            Ok(certificate) => certificates.push(certificate),
            Err(errors) => faults.extend(errors.into_vec()),
        }
    }
    if !faults.is_empty() {
        return Err(TlsErrors::of(faults));
    }
    warn_of_never_chosen(&certificates, clock::wall());
    Ok(certificates)
}

// === impl Front ===

impl Front {
    /// TLS 1.2 and 1.3 as `settings` say, HTTP/2 and HTTP/1.1, the certificate chosen by server name.
    ///
    /// # Errors
    /// [`TlsError::NoneConfigured`] when there is no certificate.
    pub fn new(
        certificates: &[Certificate],
        tickets: &Ticketer,
        vetting: &Vetting,
        settings: &Tls,
    ) -> Result<Self, TlsError> {
        let resolver = Arc::new(Resolver::new(certificates).ok_or(TlsError::NoneConfigured)?);
        let config = server_config(&resolver, tickets, vetting, settings.min_version);
        Ok(Self { config, resolver, strict: settings.strict_sni, vetting: vetting.mark() })
    }

    /// What a handshake needs.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// How clients are vetted.
    pub fn vetting(&self) -> Mark {
        self.vetting
    }

    /// Whether clients have to name a host that a certificate has.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether a certificate was issued for this name.
    pub fn knows(&self, name: &str) -> bool {
        self.resolver.knows(name)
    }

    /// Whether requests for `host` may come over a connection whose handshake named `server_name`: always, unless
    /// names are strict. Then both need to have the same certificate, so that whoever got in by one name does not
    /// reach what is served under another (RFC 9110 §7.4).
    pub fn serves(&self, server_name: Option<&str>, host: &str) -> bool {
        !self.strict
            || server_name
                .is_some_and(|name| name.eq_ignore_ascii_case(host) || self.resolver.is_same(name, host))
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("strict", &self.strict).finish_non_exhaustive()
    }
}

fn server_config(
    resolver: &Arc<Resolver>,
    tickets: &Ticketer,
    vetting: &Vetting,
    oldest: TlsVersion,
) -> Arc<ServerConfig> {
    let versions: &[_] = match oldest {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("aws-lc-rs has cipher suites for both versions")
        .with_client_cert_verifier(Arc::clone(&vetting.verifier))
        .with_cert_resolver(Arc::clone(resolver) as _);
    // The last one is what old clients offer that speak nothing newer.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    config.ticketer = vetting.tickets(tickets);
    // Tickets alone: a server-side cache would be one lock for all workers, and memory per client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is enough to resume, and halves what follows every handshake.
    config.send_tls13_tickets = 1;
    // No 0-RTT: a replayed request would be served twice (RFC 8446 §8).
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// The cryptography used everywhere; passed explicitly, never installed as the process default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

// === impl Ticketer ===

impl Ticketer {
    /// Draws the first keys.
    ///
    /// # Errors
    /// [`TlsError::Ticketer`] when the system gives no random bytes.
    pub fn new() -> Result<Self, TlsError> {
        aws_lc_rs::Ticketer::new().map(Self).map_err(TlsError::Ticketer)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection,
        SupportedProtocolVersion, pki_types::CertificateDer,
    };
    use tempfile::TempDir;

    use super::*;

    fn server_config(files: &[CertificateFiles], tickets: &Ticketer) -> Result<Arc<ServerConfig>, TlsErrors> {
        let vetting = Vetting::load(None)?;
        let front = Front::new(&load_certificates(files)?, tickets, &vetting, &Tls::default())?;
        Ok(Arc::clone(front.config()))
    }

    struct Made {
        _dir: TempDir,
        files: CertificateFiles,
        der: CertificateDer<'static>,
    }

    fn made() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        let made = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).unwrap();
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        Made { _dir: dir, files, der: made.cert.der().clone() }
    }

    fn client(made: &Made, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(made.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        Arc::new(config)
    }

    /// A handshake in memory, with one answer after it so that TLS 1.3 tickets arrive.
    fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> ServerConnection {
        let mut client = ClientConnection::new(Arc::clone(client), "shop.test".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        for _ in 0..8 {
            pass(&mut |w| client.write_tls(w), &mut |r| server.read_tls(r));
            server.process_new_packets().unwrap();
            pass(&mut |w| server.write_tls(w), &mut |r| client.read_tls(r));
            client.process_new_packets().unwrap();
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        server
    }

    fn pass(
        write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<usize>,
        read: &mut dyn FnMut(&mut dyn io::Read) -> io::Result<usize>,
    ) {
        let mut wire = Vec::new();
        while write(&mut wire).unwrap() > 0 {}
        let mut rest = &wire[..];
        while !rest.is_empty() {
            read(&mut rest).unwrap();
        }
    }

    #[test]
    fn both_versions_are_spoken_and_http2_is_preferred() {
        let made = made();
        let config = server_config(std::slice::from_ref(&made.files), &Ticketer::new().unwrap()).unwrap();
        for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            let server = shake(&client(&made, version), &config);
            assert_eq!(server.protocol_version(), Some(expected));
            assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        }
    }

    #[test]
    fn a_session_resumes_after_a_reload() {
        for version in [&TLS12, &TLS13] {
            let made = made();
            let tickets = Ticketer::new().unwrap();
            let load = || server_config(std::slice::from_ref(&made.files), &tickets).unwrap();
            let client = client(&made, version);
            assert_eq!(shake(&client, &load()).handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(shake(&client, &load()).handshake_kind(), Some(HandshakeKind::Resumed));
        }
    }

    #[test]
    fn all_faults_of_all_certificates_are_reported() {
        let made = made();
        let missing = CertificateFiles { cert: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
        let exchanged = CertificateFiles { cert: made.files.key.clone(), key: made.files.cert.clone() };
        let errors = load_certificates(&[missing, made.files, exchanged]).unwrap_err();
        let faults: Vec<_> = errors.iter().collect();
        assert!(
            matches!(
                faults[..],
                [
                    TlsError::Read { .. },
                    TlsError::Read { .. },
                    TlsError::NoCertificate { .. },
                    TlsError::NoKey { .. }
                ]
            ),
            "{errors}"
        );
        assert_eq!(errors.to_string().lines().count(), 4);
    }

    #[test]
    fn a_front_door_without_certificates_is_an_error() {
        let error = server_config(&[], &Ticketer::new().unwrap()).unwrap_err();
        assert!(matches!(error.iter().next(), Some(TlsError::NoneConfigured)));
    }
}
