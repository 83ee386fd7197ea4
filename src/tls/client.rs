//! TLS to the backends of one pool: whom we believe, and who we say we are.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use super::{
    Certificate, Held, TlsError, TlsErrors, Validity, provider, read_chain, read_key, vetting::roots,
};
use crate::{
    clock,
    config::{CertificateFiles, PoolTls},
};

/// What the files of a pool's `[pool.tls]` hold, ready for handshakes.
///
/// There is no way to switch verification off: a backend whose certificate nobody signed is vouched for by that
/// very certificate (`ca`), one that has another name by `server_name`, and whatever is left would be encryption
/// towards anybody who answers.
#[derive(Clone)]
pub struct ClientTls {
    config: ClientConfig,
    /// Digest of all that the configuration was made of.
    identity: [u8; 32],
    /// What the files of authorities and of the client's certificate hold.
    held: (Option<Held>, Option<Held>),
}

/// TLS to one backend.
#[derive(Clone)]
pub struct BackendTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    identity: [u8; 32],
}

/// Tickets kept for resumption per backend, each good for one connection (RFC 8446 §C.4).
const TICKETS: usize = 8;

// === impl ClientTls ===

impl ClientTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(files: &PoolTls) -> Result<Self, TlsErrors> {
        let mut digest = Context::new(&SHA256);
        let roots = files.ca.as_deref().map_or_else(
            || Ok((public_roots(), None)),
            |ca| own_roots(ca, &mut digest).map(|(roots, held)| (roots, Some(held))),
        );
        let certificate =
            files.certificate.as_ref().map(|files| client_certificate(files, &mut digest)).transpose();
        let (roots, certificate) = match (roots, certificate) {
            (Ok(roots), Ok(certificate)) => (roots, certificate),
            (roots, certificate) => {
                let roots = roots.err().into_iter();
                let certificate = certificate.err().into_iter().flat_map(TlsErrors::into_vec);
                return Err(TlsErrors::of(roots.chain(certificate)));
            }
        };
        let (roots, held) = roots;
        let held = (held, certificate.as_ref().map(Held::from));
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("aws-lc-rs has cipher suites for both versions")
            .with_root_certificates(roots);
        let mut config = match certificate {
            Some(certificate) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
                Arc::clone(certificate.certified_key()),
            ))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let identity = digest.finish().as_ref().try_into().expect("32 bytes of SHA-256");
        Ok(Self { config, identity, held })
    }

    /// What the files of authorities and of the client's certificate hold.
    pub fn held(&self) -> (Option<&Held>, Option<&Held>) {
        (self.held.0.as_ref(), self.held.1.as_ref())
    }

    /// For the backend whose certificate has this name. It resumes its own sessions only: another one behind the
    /// same name would not know them.
    pub fn for_backend(&self, name: &str) -> BackendTls {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        BackendTls {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned()).expect("a name that the configuration checked"),
            identity: self.identity,
        }
    }

    /// Whether this is what `tls` was made of, and for this name.
    pub fn made(&self, tls: &BackendTls, name: &str) -> bool {
        self.identity == tls.identity && tls.name.to_str() == name
    }
}

/// Without the key.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

// === impl BackendTls ===

impl BackendTls {
    /// What a handshake goes by; shared by all workers, with the sessions that can be resumed.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name that the certificate must have.
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }
}

impl fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendTls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn own_roots(file: &Path, digest: &mut Context) -> Result<(RootCertStore, Held), TlsError> {
    digest.update(b"ca");
    let authorities = read_chain(file)?;
    authorities.iter().for_each(|certificate| update(digest, certificate));
    let held = Held::of_authorities(file, &authorities);
    Ok((roots(file, authorities)?, held))
}

fn client_certificate(files: &CertificateFiles, digest: &mut Context) -> Result<Certificate, TlsErrors> {
    let (chain, key) = match (read_chain(&files.cert), read_key(&files.key)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(TlsErrors::of([chain.err(), key.err()].into_iter().flatten())),
    };
    digest.update(b"client");
    chain.iter().for_each(|certificate| update(digest, certificate));
    digest.update(key.secret_der());
    let certificate = Certificate::assemble(files, chain, key, &provider())?;
    certificate.warn_of_chain();
    let file = files.cert.display();
    let not_after = humantime::format_rfc3339_seconds(certificate.not_after());
    match certificate.validity(clock::wall()) {
        Validity::Good => {}
        Validity::EndsSoon => tracing::warn!(%file, %not_after, "client certificate expires soon"),
        Validity::NotYet => {
            tracing::warn!(%file, "client certificate is not valid yet; backends will refuse it")
        }
        Validity::Expired => {
            tracing::warn!(%file, %not_after, "client certificate has expired; backends will refuse it");
        }
    }
    Ok(certificate)
}

/// With its length, so that no other list of certificates has the same digest.
fn update(digest: &mut Context, certificate: &CertificateDer<'_>) {
    digest.update(&certificate.len().to_be_bytes());
    digest.update(certificate);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    struct Files {
        dir: TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let file = self.dir.path().join(name);
            fs::write(&file, text).unwrap();
            file
        }

        fn pair(&self) -> CertificateFiles {
            let made = rcgen::generate_simple_self_signed(["proxy.test".to_owned()]).unwrap();
            CertificateFiles {
                cert: self.write("cert.pem", &made.cert.pem()),
                key: self.write("key.pem", &made.signing_key.serialize_pem()),
            }
        }
    }

    #[test]
    fn without_files_the_public_authorities_vouch() {
        let tls = ClientTls::load(&PoolTls::default()).unwrap();
        let backend = tls.for_backend("app.test");
        assert!(tls.made(&backend, "app.test"));
        assert!(!tls.made(&backend, "other.test"));
        assert_eq!(backend.config().alpn_protocols, [b"http/1.1"]);
        assert!(public_roots().len() > 50);
    }

    #[test]
    fn faults_of_all_files_are_reported_together() {
        let files = Files::new();
        let pair = files.pair();
        fs::write(&pair.key, "no key").unwrap();
        let ca = Some(files.write("ca.pem", ""));
        let errors = ClientTls::load(&PoolTls { ca, certificate: Some(pair) }).unwrap_err().into_vec();
        assert!(matches!(errors[..], [TlsError::Empty { .. }, TlsError::Foreign { .. }]), "{errors:?}");
    }

    #[test]
    fn another_key_or_another_authority_is_other_material() {
        let files = Files::new();
        let certificate = Some(files.pair());
        let ca = Some(files.write("ca.pem", &fs::read_to_string(files.pair().cert).unwrap()));
        let load = || ClientTls::load(&PoolTls { ca: ca.clone(), certificate: certificate.clone() }).unwrap();
        let first = load();
        assert_eq!(first, load());
        files.pair();
        let second = load();
        assert_ne!(first, second, "the client certificate was renewed");
        files.write("ca.pem", &fs::read_to_string(files.pair().cert).unwrap());
        assert_ne!(second, load(), "another authority");
    }

    #[test]
    fn each_backend_resumes_its_own_sessions() {
        let tls = ClientTls::load(&PoolTls::default()).unwrap();
        let (one, other) = (tls.for_backend("app.test"), tls.for_backend("app.test"));
        assert!(!Arc::ptr_eq(one.config(), other.config()));
    }
}
