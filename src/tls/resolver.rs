//! Which certificate a client gets.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Certificate;

/// Chooses by server name: exact, then a wildcard of one label, then the first certificate.
///
/// The default goes to clients that send no name (they asked for an IP address) or an unknown one:
/// they see whom they reached and may refuse, where an alert would only say that something failed.
#[derive(Debug)]
pub(crate) struct Resolver {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

// === impl Resolver ===

impl Resolver {
    /// Of two certificates with the same name the earlier one is used. None when `certificates` is
    /// empty.
    pub(crate) fn new(certificates: &[Certificate]) -> Option<Self> {
        let default = Arc::clone(certificates.first()?.certified_key());
        let mut resolver = Self { exact: HashMap::new(), wildcard: HashMap::new(), default };
        for certificate in certificates {
            for name in certificate.names() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut resolver.wildcard, parent),
                    None => (&mut resolver.exact, name),
                };
                map.entry(name.into()).or_insert_with(|| Arc::clone(certificate.certified_key()));
            }
        }
        Some(resolver)
    }

    /// Whether a certificate was issued for this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.find(&lower_case(name)).is_some()
    }

    /// Whether both names, which have to be known, have the same certificate.
    pub(crate) fn is_same(&self, one: &str, other: &str) -> bool {
        match (self.find(&lower_case(one)), self.find(&lower_case(other))) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn choose(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        server_name.and_then(|name| self.find(&lower_case(name))).unwrap_or(&self.default)
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        // RFC 9525 §6.3: a wildcard stands for exactly one label, the leftmost.
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())))
    }
}

fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::CertificateFiles, tls::provider};

    /// One certificate for each list of names.
    fn certificates(names: &[&[&str]]) -> Vec<Certificate> {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { cert: dir.path().join("c"), key: dir.path().join("k") };
        let one = |names: &&[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            std::fs::write(&files.cert, made.cert.pem()).unwrap();
            std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
            Certificate::load(&files, &provider()).unwrap()
        };
        names.iter().map(one).collect()
    }

    /// The index of the certificate chosen for `name`.
    fn chosen(certificates: &[Certificate], name: Option<&str>) -> Option<usize> {
        let resolver = Resolver::new(certificates).unwrap();
        let key = resolver.choose(name);
        certificates.iter().position(|certificate| Arc::ptr_eq(certificate.certified_key(), key))
    }

    #[test]
    fn an_exact_name_wins_over_a_wildcard() {
        let certificates = certificates(&[&["z.test"], &["*.a.test"], &["www.a.test"]]);
        assert_eq!(chosen(&certificates, Some("www.a.test")), Some(2));
        assert_eq!(chosen(&certificates, Some("api.a.test")), Some(1));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let certificates = certificates(&[&["z.test"], &["*.a.test"]]);
        assert_eq!(chosen(&certificates, Some("x.y.a.test")), Some(0));
        assert_eq!(chosen(&certificates, Some("a.test")), Some(0));
    }

    #[test]
    fn case_does_not_matter() {
        let certificates = certificates(&[&["z.test"], &["Shop.A.test"]]);
        assert_eq!(chosen(&certificates, Some("sHOP.a.TEST")), Some(1));
    }

    #[test]
    fn the_first_certificate_serves_whoever_names_no_known_host() {
        let certificates = certificates(&[&["a.test"], &["b.test"]]);
        assert_eq!(chosen(&certificates, None), Some(0));
        assert_eq!(chosen(&certificates, Some("c.test")), Some(0));
        assert_eq!(chosen(&certificates, Some("b.test")), Some(1));
    }

    #[test]
    fn the_earlier_of_two_certificates_for_one_name_is_used() {
        let certificates = certificates(&[&["z.test"], &["a.test"], &["a.test"]]);
        assert_eq!(chosen(&certificates, Some("a.test")), Some(1));
    }

    #[test]
    fn no_certificate_makes_no_resolver() {
        assert!(Resolver::new(&[]).is_none());
    }
}
