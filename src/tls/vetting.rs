//! Whose certificates clients may show, and what binds a session ticket to that.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer},
    server::{NoClientAuth, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::{
    Held, Ticketer, TlsError, TlsErrors,
    certificate::system_time,
    pem::{read_authorities, read_crls},
    provider,
};
use crate::{clock, config::ClientAuth};

/// How clients are vetted: whether they are asked for a certificate, and who vouches for it.
#[derive(Clone)]
pub struct Vetting {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    mark: Mark,
    /// What the files of authorities and of revocation lists hold.
    held: (Option<Held>, Option<Held>),
}

/// Stands for one way of vetting: another authority, revocation list or duty gives another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; 16]);

/// Tickets of which those made under another way of vetting are worth nothing.
///
/// rustls takes the client's certificate out of a ticket without looking at it again: a client that was let in
/// before its authority was replaced, or before certificates were required at all, would come back by its ticket.
#[derive(Debug)]
struct Marked {
    inner: Arc<dyn ProducesTickets>,
    mark: Mark,
}

// === impl Vetting ===

impl Vetting {
    /// Reads and checks the files; without any, nobody is asked for a certificate.
    ///
    /// # Errors
    /// Every fault of the files.
    pub fn load(clients: Option<&ClientAuth>) -> Result<Self, TlsErrors> {
        let Some(clients) = clients else {
            return Ok(Self {
                verifier: Arc::new(NoClientAuth),
                mark: Mark::of(&[b"nobody"]),
                held: (None, None),
            });
        };
        let crls = clients.crl.as_deref().map_or(Ok(Vec::new()), read_crls);
        let (chain, crls) = match (read_authorities(&clients.ca, clients.crl.is_some()), crls) {
            (Ok(chain), Ok(crls)) => (chain, crls),
            (chain, crls) => return Err(TlsErrors::of([chain.err(), crls.err()].into_iter().flatten())),
        };
        let held = (
            Some(Held::of_authorities(&clients.ca, &chain)),
            clients.crl.as_deref().map(|file| Held::of_crls(file, &crls)),
        );
        let mark = Mark::new(clients.optional, &chain, &crls);
        if let Some(file) = &clients.crl {
            crls.iter().try_for_each(|crl| warn_if_old(file, crl))?;
        }
        let roots = roots(&clients.ca, chain)?;
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).with_crls(crls);
        if clients.optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| TlsError::Malformed {
            // What else there is to build from has been checked.
            file: clients.crl.clone().unwrap_or_else(|| clients.ca.clone()),
            what: format!("{error}; a list has to be of X.509 version 2 (with `crl_extensions` or `crlnumber`, for openssl)"),
        })?;
        Ok(Self { verifier, mark, held })
    }

    /// What stands for it.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// What the files of authorities and of revocation lists hold.
    pub fn held(&self) -> (Option<&Held>, Option<&Held>) {
        (self.held.0.as_ref(), self.held.1.as_ref())
    }

    /// Tickets that are worth nothing under another way of vetting.
    pub(super) fn tickets(&self, tickets: &Ticketer) -> Arc<dyn ProducesTickets> {
        Arc::new(Marked { inner: Arc::clone(&tickets.0), mark: self.mark })
    }
}

/// These authorities, which are all of `file`.
pub(super) fn roots(
    file: &Path,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in authorities.into_iter().enumerate() {
        let unusable =
            |source| TlsError::UnusableCertificate { file: file.to_owned(), number: index + 1, source };
        roots.add(authority).map_err(unusable)?;
    }
    Ok(roots)
}

impl fmt::Debug for Vetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vetting").field("mark", &self.mark).finish_non_exhaustive()
    }
}

/// A list that is out of date still tells of those revoked before; the others are let in, with a warning.
fn warn_if_old(file: &Path, crl: &CertificateRevocationListDer<'_>) -> Result<(), TlsError> {
    let malformed = |what: &str| TlsError::Malformed { file: file.to_owned(), what: what.to_owned() };
    let (_, crl) = CertificateRevocationList::from_der(crl)
        .map_err(|_| malformed("a revocation list is not X.509 in DER"))?;
    if let Some(next) = crl.next_update().map(|time| system_time(&time))
        && next < clock::wall()
    {
        let (file, next_update) = (file.display(), humantime::format_rfc3339_seconds(next));
        tracing::warn!(%file, issuer = %crl.issuer(), %next_update, "REVOCATION LIST IS OUT OF DATE; it is used all the same");
    }
    Ok(())
}

// === impl Mark ===

impl Mark {
    fn new(optional: bool, chain: &[CertificateDer<'_>], crls: &[CertificateRevocationListDer<'_>]) -> Self {
        let duty: &[u8] = if optional { b"optional" } else { b"required" };
        let chain = chain.iter().map(AsRef::as_ref);
        let crls = crls.iter().map(AsRef::as_ref);
        Self::of(&std::iter::once(duty).chain(chain).chain([&b"revoked"[..]]).chain(crls).collect::<Vec<_>>())
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let digest = context.finish();
        Self(std::array::from_fn(|index| digest.as_ref()[index]))
    }
}

// === impl Marked ===

impl ProducesTickets for Marked {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&[&self.mark.0, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut plain = self.inner.decrypt(cipher)?;
        plain.starts_with(&self.mark.0).then(|| plain.split_off(self.mark.0.len()))
    }
}

/// When a certificate ends, as far as a client's goes; the first moment of 1970 if it cannot be read.
pub(super) fn not_after(certificate: &x509_parser::certificate::X509Certificate<'_>) -> SystemTime {
    system_time(&certificate.validity().not_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_worth_nothing_under_another_way_of_vetting() {
        let tickets = Ticketer::new().unwrap();
        let ways: Vec<_> = [Mark::of(&[b"nobody"]), Mark::new(false, &[], &[]), Mark::new(true, &[], &[])]
            .map(|mark| Marked { inner: Arc::clone(&tickets.0), mark })
            .into();
        for (made, way) in ways.iter().enumerate() {
            let ticket = way.encrypt(b"state").unwrap();
            for (shown, way) in ways.iter().enumerate() {
                assert_eq!(way.decrypt(&ticket), (made == shown).then(|| b"state".to_vec()));
            }
        }
    }
}
