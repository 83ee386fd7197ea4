//! What a file of certificates or lists held when it was read: told apart from another content, and in words.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::Certificate;

/// The content of one file. It has no part of any key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The file.
    pub file: PathBuf,
    /// In words, dates excepted: `shop.test, www.shop.test`, `2 certificates`.
    pub content: String,
    /// The dates of a certificate, the first and the last moment.
    pub dates: Option<(SystemTime, SystemTime)>,
    /// Of all that counts.
    digest: [u8; 32],
}

// === impl Held ===

impl Held {
    pub(super) fn of_authorities(file: &Path, authorities: &[CertificateDer<'_>]) -> Self {
        Self::count(file, authorities.iter().map(AsRef::as_ref), "certificate")
    }

    pub(super) fn of_crls(file: &Path, lists: &[CertificateRevocationListDer<'_>]) -> Self {
        Self::count(file, lists.iter().map(AsRef::as_ref), "revocation list")
    }

    fn count<'a>(file: &Path, items: impl ExactSizeIterator<Item = &'a [u8]>, noun: &str) -> Self {
        let content = match items.len() {
            1 => format!("1 {noun}"),
            count => format!("{count} {noun}s"),
        };
        Self { file: file.to_owned(), content, dates: None, digest: digest(items) }
    }
}

impl From<&Certificate> for Held {
    fn from(certificate: &Certificate) -> Self {
        let mut names: Vec<_> = certificate.names().take(NAMED).collect();
        let more = certificate.names().count() - names.len();
        let and_more = format!("{more} more");
        match names.len() {
            0 => names.push("no DNS name"),
            _ if more > 0 => names.push(&and_more),
            _ => {}
        }
        let public = certificate.certified_key().key.public_key();
        let chain = certificate.certified_key().cert.iter().map(AsRef::as_ref);
        let key = public.iter().map(AsRef::as_ref);
        Self {
            file: certificate.file().to_owned(),
            content: names.join(", "),
            dates: Some((certificate.not_before(), certificate.not_after())),
            digest: digest(chain.chain(key)),
        }
    }
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("32 bytes of SHA-256")
}

/// Names of a certificate that are written out.
const NAMED: usize = 5;
