//! What can be wrong with TLS files; each error names the file it is about.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::foreign::Kind;

/// One fault, in the operator's words.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read it: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is a directory.
    #[error("{}: is a folder, not a file", file.display())]
    Folder {
        /// The folder.
        file: PathBuf,
    },
    /// The file is far bigger than any chain or key.
    #[error("{}: larger than {} MiB, this is no PEM chain or key", file.display(), limit >> 20)]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Bytes read at most.
        limit: u64,
    },
    /// The file has no content but white space.
    #[error("{}: is empty", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// The file has content, but no `CERTIFICATE` section.
    #[error(
        "{}: no certificate in it (no BEGIN CERTIFICATE section); it has {instead}{}",
        file.display(),
        swapped(instead, "PRIVATE KEY")
    )]
    NoCertificate {
        /// The file.
        file: PathBuf,
        /// The sections that it has.
        instead: String,
    },
    /// The file has content, but no `X509 CRL` section.
    #[error("{}: no revocation list in it (no BEGIN X509 CRL section); it has {instead}", file.display())]
    NoCrl {
        /// The file.
        file: PathBuf,
        /// The sections that it has.
        instead: String,
    },
    /// The file has content, but no private key section.
    #[error(
        "{}: no private key in it (no BEGIN ... PRIVATE KEY section); it has {instead}{}",
        file.display(),
        swapped(instead, "CERTIFICATE")
    )]
    NoKey {
        /// The file.
        file: PathBuf,
        /// The sections that it has.
        instead: String,
    },
    /// The file is something else than what is wanted, in another form than PEM.
    #[error("{}: no {wanted} can be read from it: it is {what}{}", file.display(), tail(remedy.as_deref()))]
    Foreign {
        /// The file.
        file: PathBuf,
        /// `certificate`, `private key`.
        wanted: &'static str,
        /// What it is.
        what: &'static str,
        /// What makes it readable.
        remedy: Option<String>,
    },
    /// The private key needs a pass phrase, which a server has nobody to ask for.
    #[error(
        "{0}: the private key is encrypted; decrypt it first: openssl pkey {1}-in {0} -out new.key",
        file.display(),
        if *der { "-inform DER " } else { "" }
    )]
    EncryptedKey {
        /// The file.
        file: PathBuf,
        /// Whether it is DER.
        der: bool,
    },
    /// The file holds several keys, and which one is meant cannot be known.
    #[error("{}: {count} private keys in it, expected one", file.display())]
    SeveralKeys {
        /// The file.
        file: PathBuf,
        /// How many.
        count: usize,
    },
    /// The PEM or DER structure is broken.
    #[error("{}: malformed: {what}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is broken; never the content itself.
        what: String,
    },
    /// The certificate is well-formed, but is of no use where it is wanted.
    #[error("{}: certificate {number} cannot be used: {source}", file.display())]
    UnusableCertificate {
        /// The file.
        file: PathBuf,
        /// Which one of the file, from 1.
        number: usize,
        /// Why.
        source: rustls::Error,
    },
    /// The key's algorithm or encoding is not supported.
    #[error(
        "{}: the private key cannot be used: it is {what}; RSA keys of 2048 to 8192 bits, ECDSA keys of P-256, P-384 or P-521, and Ed25519 keys can be",
        file.display()
    )]
    UnusableKey {
        /// The file.
        file: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// The key is not the one that a certificate of the chain was issued for.
    #[error(
        "{}: this private key does not belong to any certificate in {}",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// There is nothing to present to a client.
    #[error("no certificate is configured")]
    NoneConfigured,
    /// The system gave no random bytes for the ticket keys.
    #[error("no session ticket keys: {0}")]
    Ticketer(rustls::Error),
}

/// Every fault found, never none.
#[derive(Debug)]
pub struct TlsErrors(Vec<TlsError>);

// === impl TlsError ===

impl TlsError {
    /// That `file` is of this kind instead of what is `wanted`.
    pub(super) fn foreign(file: &Path, wanted: &'static str, kind: Kind) -> Self {
        Self::Foreign { file: file.to_owned(), wanted, what: kind.name(), remedy: kind.remedy(file) }
    }
}

fn tail(remedy: Option<&str>) -> String {
    remedy.map_or_else(String::new, |remedy| format!("; {remedy}"))
}

/// What a file that has the other half is probably wrong with.
fn swapped(instead: &str, other: &str) -> &'static str {
    if instead.ends_with(other) { "; perhaps `cert` and `key` are swapped" } else { "" }
}

// === impl TlsErrors ===

impl TlsErrors {
    /// All of `faults`, of which there must be one.
    pub(crate) fn of(faults: impl IntoIterator<Item = TlsError>) -> Self {
        let faults: Vec<_> = faults.into_iter().collect();
        debug_assert!(!faults.is_empty(), "errors without a fault");
        Self(faults)
    }

    /// The faults, in the order of the configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, TlsError> {
        self.0.iter()
    }

    /// The faults themselves.
    pub fn into_vec(self) -> Vec<TlsError> {
        self.0
    }
}

impl From<TlsError> for TlsErrors {
    fn from(fault: TlsError) -> Self {
        Self(vec![fault])
    }
}

/// One fault a line.
impl fmt::Display for TlsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for TlsErrors {}
