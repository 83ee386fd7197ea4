//! What can be wrong with TLS files; each error names the file it is about.

use std::{fmt, io, path::PathBuf};

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
    /// The file is far bigger than any chain or key.
    #[error("{}: larger than {limit} bytes, this is no PEM chain or key", file.display())]
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
    #[error("{}: no certificate in it (no BEGIN CERTIFICATE section)", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// The file has content, but no `X509 CRL` section.
    #[error("{}: no revocation list in it (no BEGIN X509 CRL section)", file.display())]
    NoCrl {
        /// The file.
        file: PathBuf,
    },
    /// The file has content, but no private key section.
    #[error("{}: no private key in it (no BEGIN ... PRIVATE KEY section)", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The private key needs a pass phrase, which a server has nobody to ask for.
    #[error(
        "{}: the private key is encrypted; decrypt it first, for example by: openssl pkey -in KEY -out PLAIN_KEY",
        file.display()
    )]
    EncryptedKey {
        /// The file.
        file: PathBuf,
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
    /// The certificate is well-formed, but no server can present it.
    #[error("{}: the certificate cannot be used: {source}", file.display())]
    UnusableCertificate {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The key's algorithm or encoding is not supported.
    #[error("{}: the private key cannot be used: {source}", file.display())]
    UnusableKey {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The key is not the one the first certificate of the chain was issued for.
    #[error(
        "{}: this private key does not belong to the first certificate in {}",
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
