//! One certificate chain with its key, checked.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    InconsistentKeys,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

use super::{
    TlsError, TlsErrors,
    chain::{Chain, arrange},
    foreign,
    pem::{read_chain, read_key},
};
use crate::{clock, config::CertificateFiles};

/// A chain and its key that belong together and can be presented to a client.
///
/// It may be expired: an outage of every client is worse than a warning, so that is logged, shown
/// in the metrics and left to the operator.
#[derive(Clone)]
pub struct Certificate {
    file: PathBuf,
    key: Arc<CertifiedKey>,
    names: Box<[Box<str>]>,
    not_before: SystemTime,
    not_after: SystemTime,
    /// What is to be known of the chain, a sentence each.
    notes: Vec<String>,
}

/// How a certificate's dates stand at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Valid, and for at least [`Validity::NOTICE`] longer.
    Good,
    /// Valid, but for less than [`Validity::NOTICE`].
    EndsSoon,
    /// Its first day is to come.
    NotYet,
    /// Its last day has passed.
    Expired,
}

// === impl Certificate ===

impl Certificate {
    /// Reads, checks and, where its dates call for it, warns.
    ///
    /// # Errors
    /// Every fault of the two files: of the chain, of the key, or that they do not match.
    pub fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, TlsErrors> {
        let (chain, key) = match (read_chain(&files.cert), read_key(&files.key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(TlsErrors::of([chain.err(), key.err()].into_iter().flatten())),
        };
        let certificate = Self::assemble(files, chain, key, provider)?;
        certificate.warn_of_chain();
        certificate.warn(clock::wall());
        Ok(certificate)
    }

    /// The file of the chain.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The DNS names it was issued for, lower-case; `*.` names included. The subject's common name
    /// is not among them, since no client has looked at it for years (RFC 9525 §2).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Last moment of validity, for the metrics.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// How its dates stand at `now`.
    pub fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            Validity::NotYet
        } else if now > self.not_after {
            Validity::Expired
        } else if now + Validity::NOTICE > self.not_after {
            Validity::EndsSoon
        } else {
            Validity::Good
        }
    }

    /// What a handshake presents.
    pub(crate) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    pub(super) fn assemble(
        files: &CertificateFiles,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let malformed = |what: &str| TlsError::Malformed { file: files.cert.clone(), what: what.to_owned() };
        // Each certificate is looked at, whether or not the key is good.
        let unordered = arrange(&files.cert, &chain, None)?;
        let unusable = |what| TlsError::UnusableKey { file: files.key.clone(), what };
        if let Some(what) = foreign::key(key.secret_der()) {
            return Err(unusable(what));
        }
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| unusable("too short, too long, damaged, or of another kind"))?;
        let mismatch = || TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() };
        let Chain { certificates, notes } = match key.public_key() {
            Some(public) => arrange(&files.cert, &chain, Some(&public))?,
            None => unordered,
        }
        .ok_or_else(mismatch)?;
        let leaf = certificates.first().ok_or_else(|| malformed("it has no certificate"))?;
        let (names, not_before, not_after) = describe(leaf).map_err(malformed)?;
        let key = CertifiedKey::new(certificates, key);
        match key.keys_match() {
            // Unknown: this kind of key cannot tell its public half; the first handshake will.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(mismatch()),
            Err(source) => {
                return Err(TlsError::UnusableCertificate { file: files.cert.clone(), number: 1, source });
            }
        }
        Ok(Self { file: files.cert.clone(), key: Arc::new(key), names, not_before, not_after, notes })
    }

    /// Logs what is odd about the chain.
    pub(super) fn warn_of_chain(&self) {
        for note in &self.notes {
            tracing::warn!(file = %self.file.display(), "{note}");
        }
    }

    fn warn(&self, now: SystemTime) {
        let file = self.file.display();
        let not_before = humantime::format_rfc3339_seconds(self.not_before);
        let not_after = humantime::format_rfc3339_seconds(self.not_after);
        match self.validity(now) {
            Validity::Good => {}
            Validity::EndsSoon => tracing::warn!(%file, %not_after, "certificate expires soon"),
            Validity::NotYet => {
                tracing::warn!(%file, %not_before, "CERTIFICATE IS NOT YET VALID; clients will refuse it");
            }
            Validity::Expired => {
                tracing::warn!(%file, %not_after, "CERTIFICATE HAS EXPIRED; clients will refuse it");
            }
        }
        if self.names.is_empty() {
            tracing::warn!(%file, "certificate has no DNS name; it can only be the default one");
        }
    }
}

/// Without the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("file", &self.file)
            .field("names", &self.names)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

// === impl Validity ===

impl Validity {
    /// Less than this left is worth a warning.
    pub const NOTICE: Duration = Duration::from_hours(14 * 24);
}

type Description = (Box<[Box<str>]>, SystemTime, SystemTime);

/// The DNS names and dates of a certificate.
fn describe(leaf: &CertificateDer<'_>) -> Result<Description, &'static str> {
    let (rest, leaf) =
        X509Certificate::from_der(leaf).map_err(|_| "the first certificate is not X.509 in DER")?;
    if !rest.is_empty() {
        return Err("the first certificate has bytes after its end");
    }
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| "the first certificate's subject alternative names cannot be read")?
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            // A final dot says nothing but that the name is a whole one.
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase().into()),
            _ => None,
        })
        .collect();
    let validity = leaf.validity();
    Ok((names, system_time(&validity.not_before), system_time(&validity.not_after)))
}

/// Dates before 1970 become 1970; no comparison made here can tell.
pub(super) fn system_time(time: &ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use time::OffsetDateTime;

    use super::*;
    use crate::tls::provider;

    struct Pair {
        _dir: TempDir,
        files: CertificateFiles,
    }

    fn pair(params: &CertificateParams, key: &KeyPair, other: Option<&KeyPair>) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { cert: dir.path().join("chain.pem"), key: dir.path().join("key.pem") };
        std::fs::write(&files.cert, params.self_signed(key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, other.unwrap_or(key).serialize_pem()).unwrap();
        Pair { _dir: dir, files }
    }

    fn load(pair: &Pair) -> Result<Certificate, TlsErrors> {
        Certificate::load(&pair.files, &provider())
    }

    fn params(names: &[&str]) -> CertificateParams {
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn names_are_the_dns_names_in_lower_case() {
        let key = KeyPair::generate().unwrap();
        let pair = pair(&params(&["Shop.Test", "*.shop.test", "127.0.0.1"]), &key, None);
        let certificate = load(&pair).unwrap();
        assert_eq!(certificate.names().collect::<Vec<_>>(), ["shop.test", "*.shop.test"]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_both_files_are_named() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pair = pair(&params(&["a.test"]), &key, Some(&other));
        let errors = load(&pair).unwrap_err();
        assert!(matches!(errors.iter().next(), Some(TlsError::Mismatch { .. })), "{errors}");
        let text = errors.to_string();
        assert!(text.contains("chain.pem") && text.contains("key.pem"), "{text}");
    }

    #[test]
    fn faults_of_chain_and_key_are_reported_together() {
        let key = KeyPair::generate().unwrap();
        let pair = pair(&params(&["a.test"]), &key, None);
        std::fs::write(&pair.files.cert, "").unwrap();
        std::fs::write(&pair.files.key, "no key").unwrap();
        let faults = load(&pair).unwrap_err().into_vec();
        assert!(matches!(faults[..], [TlsError::Empty { .. }, TlsError::Foreign { .. }]), "{faults:?}");
    }

    #[test]
    fn a_certificate_that_is_no_x509_is_malformed() {
        let key = KeyPair::generate().unwrap();
        let pair = pair(&params(&["a.test"]), &key, None);
        let section = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        std::fs::write(&pair.files.cert, section).unwrap();
        let faults = load(&pair).unwrap_err().into_vec();
        assert!(matches!(faults[..], [TlsError::Malformed { .. }]), "{faults:?}");
    }

    #[test]
    fn a_key_that_is_no_key_inside_is_unusable() {
        let key = KeyPair::generate().unwrap();
        let pair = pair(&params(&["a.test"]), &key, None);
        let section = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        std::fs::write(&pair.files.key, section).unwrap();
        let faults = load(&pair).unwrap_err().into_vec();
        assert!(matches!(faults[..], [TlsError::UnusableKey { .. }]), "{faults:?}");
    }

    #[test]
    fn a_key_of_an_algorithm_that_is_no_use_is_called_by_its_name() {
        let ed448 = "MEcCAQAwBQYDK2VxBDsEOQBYiVRxEAGGXvQ5zVqVzxXsRf1XUKrAbTz4lmIqrXOC\n\
                     1nyb5AKvuMfqXgZGWZbAHH6jzKrUVI4XaA==";
        let key = KeyPair::generate().unwrap();
        let pair = pair(&params(&["a.test"]), &key, None);
        let section = format!("-----BEGIN PRIVATE KEY-----\n{ed448}\n-----END PRIVATE KEY-----\n");
        std::fs::write(&pair.files.key, section).unwrap();
        let errors = load(&pair).unwrap_err().to_string();
        assert!(errors.contains("it is an Ed448 key; RSA keys"), "{errors}");
    }

    #[test]
    fn an_expired_certificate_is_still_served() {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&["a.test"]);
        params.not_before = OffsetDateTime::UNIX_EPOCH;
        params.not_after = OffsetDateTime::from_unix_timestamp(1_000_000_000).unwrap();
        let pair = pair(&params, &key, None);
        let certificate = load(&pair).unwrap();
        assert_eq!(certificate.validity(clock::wall()), Validity::Expired);
        assert_eq!(certificate.not_after(), at(1_000_000_000));
    }

    #[test]
    fn validity_follows_the_dates() {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&["a.test"]);
        let day = 24 * 3600;
        params.not_before = OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(1_900_000_000 + 100 * 24 * 3600).unwrap();
        let pair = pair(&params, &key, None);
        let certificate = load(&pair).unwrap();
        let start = 1_900_000_000;
        assert_eq!(certificate.validity(at(start - 1)), Validity::NotYet);
        assert_eq!(certificate.validity(at(start)), Validity::Good);
        assert_eq!(certificate.validity(at(start + 86 * day)), Validity::Good);
        assert_eq!(certificate.validity(at(start + 86 * day + 1)), Validity::EndsSoon);
        assert_eq!(certificate.validity(at(start + 100 * day + 1)), Validity::Expired);
    }

    #[test]
    fn the_key_is_not_in_the_debug_output() {
        let key = KeyPair::generate().unwrap();
        let pair = pair(&params(&["a.test"]), &key, None);
        assert!(!format!("{:?}", load(&pair).unwrap()).to_lowercase().contains("key:"));
    }
}
