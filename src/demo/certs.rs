//! Development certificates: a certification authority of one's own and a certificate for
//! localhost that it signed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{ServerName, UnixTime},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{config::CertificateFiles, tls};

/// Certificates for localhost, ready to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevelopmentCertificates {
    /// The authority's certificate: what a client has to trust.
    pub ca: PathBuf,
    /// Chain and key for localhost.
    pub files: CertificateFiles,
    /// What had to be made.
    pub made: Made,
}

/// What [`prepare`] had to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Nothing: all files were good.
    Nothing,
    /// The certificate for localhost; the authority, and the trust put in it, stayed.
    Leaf,
    /// Both.
    All,
}

/// Why there are no development certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The directory or a file in it cannot be made.
    #[error("{}: cannot write: {error}; choose another directory by --certs DIR", path.display())]
    Write {
        /// What was to be made.
        path: PathBuf,
        /// Why it could not.
        error: io::Error,
    },
    /// Key or certificate generation failed.
    #[error("development certificates cannot be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Reuses the certificates in `dir` if they are good for [`MARGIN`] from `now`, and otherwise makes
/// what is missing: the one for localhost alone if the authority is still good.
///
/// Good means what a client would check: the certificate for localhost is signed by the authority,
/// within its dates, names localhost, and its key is the one beside it.
///
/// # Errors
/// When something has to be made and cannot.
pub fn prepare(dir: &Path, now: SystemTime) -> Result<DevelopmentCertificates, CertsError> {
    let place = Place::of(dir);
    // Without the lock first: good files in a directory that cannot be written are good files.
    let made = if place.leaf_is_good(now) { Made::Nothing } else { place.make(now)? };
    let files = CertificateFiles { cert: place.leaf, key: place.leaf_key };
    Ok(DevelopmentCertificates { ca: place.ca, files, made })
}

/// The files of one directory.
struct Place {
    dir: PathBuf,
    ca: PathBuf,
    ca_key: PathBuf,
    leaf: PathBuf,
    leaf_key: PathBuf,
}

/// An authority that can sign.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
}

// === impl Place ===

impl Place {
    fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            leaf: dir.join("localhost.pem"),
            leaf_key: dir.join("localhost.key"),
        }
    }

    fn make(&self, now: SystemTime) -> Result<Made, CertsError> {
        let failed = |error| CertsError::Write { path: self.dir.clone(), error };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        // Two processes that start together must not mix their files; the lock ends with the file.
        let lock = File::create(self.dir.join(".lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if self.leaf_is_good(now) {
            return Ok(Made::Nothing);
        }
        if let Some(authority) = self.authority(now) {
            self.make_leaf(&authority, now)?;
            return Ok(Made::Leaf);
        }
        let authority = self.make_authority(now)?;
        self.make_leaf(&authority, now)?;
        Ok(Made::All)
    }

    /// Whether a client that trusts `ca.pem` accepts what stands here, now and for a while.
    fn leaf_is_good(&self, now: SystemTime) -> bool {
        let (Ok(ca), Ok(chain), Ok(key)) =
            (tls::read_chain(&self.ca), tls::read_chain(&self.leaf), tls::read_key(&self.leaf_key))
        else {
            return false;
        };
        let provider = tls::provider();
        let mut roots = RootCertStore::empty();
        if roots.add(ca[0].clone()).is_err() || CertifiedKey::from_der(chain.clone(), key, &provider).is_err()
        {
            return false;
        }
        let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build() else {
            return false;
        };
        NAMES_CHECKED.iter().all(|name| {
            let name = ServerName::try_from(*name).expect("the names checked are well-formed");
            [now, now + MARGIN].into_iter().all(|at| {
                verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], unix_time(at)).is_ok()
            })
        })
    }

    /// The authority that stands here, if it is ours and good for a while.
    fn authority(&self, now: SystemTime) -> Option<Authority> {
        let key = KeyPair::from_pem(&fs::read_to_string(&self.ca_key).ok()?).ok()?;
        let pem = fs::read_to_string(&self.ca).ok()?;
        let der = tls::read_chain(&self.ca).ok()?.swap_remove(0);
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        let dates = validity.not_before.timestamp()..=validity.not_after.timestamp();
        let good = certificate.is_ca()
            && certificate.subject().to_string() == format!("CN={CA_NAME}")
            && certificate.public_key().raw == key.subject_public_key_info()
            && [now, now + MARGIN].iter().all(|at| dates.contains(&date(*at).unix_timestamp()));
        let not_after = OffsetDateTime::from_unix_timestamp(*dates.end()).ok()?;
        good.then(|| Authority { pem, issuer: Issuer::new(authority_params(), key), not_after })
    }

    fn make_authority(&self, now: SystemTime) -> Result<Authority, CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority_params();
        params.not_before = date(now - CLOCK_SKEW);
        params.not_after = date(now + CA_LIFE);
        let pem = params.self_signed(&key)?.pem();
        write(&self.ca_key, &key.serialize_pem(), SECRET)?;
        write(&self.ca, &pem, PUBLIC)?;
        Ok(Authority { pem, not_after: params.not_after, issuer: Issuer::new(params, key) })
    }

    fn make_leaf(&self, authority: &Authority, now: SystemTime) -> Result<(), CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.distinguished_name = common_name("localhost");
        params.not_before = date(now - CLOCK_SKEW);
        params.not_after = date(now - CLOCK_SKEW + LEAF_LIFE).min(authority.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let chain = params.signed_by(&key, &authority.issuer)?.pem() + &authority.pem;
        write(&self.leaf_key, &key.serialize_pem(), SECRET)?;
        write(&self.leaf, &chain, PUBLIC)
    }
}

/// The same at every start, so that an authority kept from an earlier one can sign again.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(CA_NAME);
    // Path length 0: it signs servers, not further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn date(at: SystemTime) -> OffsetDateTime {
    at.into()
}

fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Writes beside the target and renames, so that nobody ever reads half a file, and creates with
/// the final mode, so that nobody ever reads a key either.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.tmp", fastrand::u64(..)));
    let temporary = PathBuf::from(temporary);
    write_new(&temporary, text, mode).and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
        // Best effort: what failed above is what the caller has to hear.
        let _ = fs::remove_file(&temporary);
        CertsError::Write { path: path.to_owned(), error }
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

const CA_NAME: &str = "homing development CA";
const NAMES: [&str; 4] = ["localhost", "*.localhost", "127.0.0.1", "::1"];
/// Without the wildcard, which not every client accepts below a top-level domain.
const NAMES_CHECKED: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_hours(24);
/// Certificates that end earlier than this are made anew.
pub const MARGIN: Duration = DAY.saturating_mul(7);
/// Browsers refuse server certificates that live longer than 398 days.
const LEAF_LIFE: Duration = DAY.saturating_mul(397);
const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// Clients' clocks may be behind by this.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{clock, tls::Certificate};

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn read(dir: &Path, name: &str) -> Vec<u8> {
        fs::read(dir.join(name)).unwrap()
    }

    #[test]
    fn fresh_certificates_can_be_served_for_less_than_398_days() {
        let dir = dir();
        let made = prepare(dir.path(), clock::wall()).unwrap();
        assert_eq!(made.made, Made::All);
        let certificate = Certificate::load(&made.files, &tls::provider()).unwrap();
        assert_eq!(certificate.names().collect::<Vec<_>>(), ["localhost", "*.localhost"]);
        let life = certificate.not_after().duration_since(certificate.not_before()).unwrap();
        assert_eq!(life, LEAF_LIFE);
    }

    #[test]
    fn only_the_owner_reads_the_keys() {
        let dir = dir();
        prepare(dir.path(), clock::wall()).unwrap();
        for name in ["ca.key", "localhost.key"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn good_certificates_are_kept() {
        let dir = dir();
        prepare(dir.path(), clock::wall()).unwrap();
        let before = read(dir.path(), "localhost.pem");
        // Without the authority's key, which a careful owner may have taken away.
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert_eq!(prepare(dir.path(), clock::wall()).unwrap().made, Made::Nothing);
        assert_eq!(read(dir.path(), "localhost.pem"), before);
    }

    #[test]
    fn a_certificate_near_its_end_is_made_anew_under_the_same_authority() {
        let dir = dir();
        let start = clock::wall();
        prepare(dir.path(), start).unwrap();
        let ca = read(dir.path(), "ca.pem");
        let early = start + LEAF_LIFE - MARGIN - 2 * CLOCK_SKEW;
        assert_eq!(prepare(dir.path(), early).unwrap().made, Made::Nothing);
        let late = start + LEAF_LIFE - MARGIN;
        assert_eq!(prepare(dir.path(), late).unwrap().made, Made::Leaf);
        assert_eq!(prepare(dir.path(), late).unwrap().made, Made::Nothing);
        assert_eq!(read(dir.path(), "ca.pem"), ca);
    }

    #[test]
    fn an_authority_near_its_end_is_made_anew() {
        let dir = dir();
        let start = clock::wall();
        prepare(dir.path(), start).unwrap();
        assert_eq!(prepare(dir.path(), start + CA_LIFE - MARGIN / 2).unwrap().made, Made::All);
    }

    #[test]
    fn a_certificate_of_another_authority_is_made_anew() {
        let (dir, other) = (dir(), dir());
        prepare(dir.path(), clock::wall()).unwrap();
        prepare(other.path(), clock::wall()).unwrap();
        for name in ["ca.pem", "ca.key"] {
            fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
        }
        assert_eq!(prepare(dir.path(), clock::wall()).unwrap().made, Made::Leaf);
        assert_eq!(prepare(dir.path(), clock::wall()).unwrap().made, Made::Nothing);
    }

    #[test]
    fn a_key_that_does_not_match_is_made_anew() {
        let (dir, other) = (dir(), dir());
        prepare(dir.path(), clock::wall()).unwrap();
        prepare(other.path(), clock::wall()).unwrap();
        fs::copy(other.path().join("localhost.key"), dir.path().join("localhost.key")).unwrap();
        assert_eq!(prepare(dir.path(), clock::wall()).unwrap().made, Made::Leaf);
        fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
        fs::remove_file(dir.path().join("localhost.pem")).unwrap();
        assert_eq!(prepare(dir.path(), clock::wall()).unwrap().made, Made::All);
    }

    #[test]
    fn garbage_is_replaced() {
        let dir = dir();
        for name in ["ca.pem", "ca.key", "localhost.pem", "localhost.key"] {
            fs::write(dir.path().join(name), "garbage").unwrap();
        }
        assert_eq!(prepare(dir.path(), clock::wall()).unwrap().made, Made::All);
    }

    #[test]
    fn processes_that_start_together_end_up_with_the_same_files() {
        let dir = dir();
        let all: Vec<_> = std::thread::scope(|scope| {
            let one = || scope.spawn(|| prepare(dir.path(), clock::wall()).unwrap().made);
            let threads: Vec<_> = (0..4).map(|_| one()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.iter().filter(|made| **made != Made::Nothing).count(), 1, "{all:?}");
    }

    #[test]
    fn no_temporary_file_is_left() {
        let dir = dir();
        prepare(dir.path(), clock::wall()).unwrap();
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".lock", "ca.key", "ca.pem", "localhost.key", "localhost.pem"]);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_the_flag() {
        let dir = dir();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&file.join("certs"), clock::wall()).unwrap_err().to_string();
        assert!(error.contains("file/certs") && error.contains("--certs DIR"), "{error}");
    }
}
