//! Which certificate a client gets.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use rustls::{
    SignatureAlgorithm, SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Certificate, Validity};
use crate::{clock, host::canonical};

/// Chooses among the certificates for the client's server name: exact ones, and those with a wildcard of one label.
/// One whose key the client cannot verify is no choice; of the others, the best is one within its dates, then an exact
/// one, then ECDSA before Ed25519 before RSA, then the first of the configuration.
///
/// Clients that send no name (they asked for an IP address) or an unknown one are served by the first certificate and
/// those that share a name with it, in the same way; they see whom they reached and may refuse, where an alert would
/// only say that something failed.
#[derive(Debug)]
pub(crate) struct Resolver {
    candidates: Box<[Candidate]>,
    exact: HashMap<Box<str>, List>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, List>,
    /// For clients without a known name: certificates that share a name with the first, and others.
    default: (List, List),
}

/// Places in the list of candidates, ascending.
type List = Vec<usize>;

#[derive(Debug)]
struct Candidate {
    key: Arc<CertifiedKey>,
    /// How its key can sign.
    schemes: Box<[SignatureScheme]>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Certificates of one kind that serve clients without a known name, beside those that share a name with the first.
const OTHERS: usize = 4;

// === impl Resolver ===

impl Resolver {
    /// None when `certificates` is empty.
    pub(crate) fn new(certificates: &[Certificate]) -> Option<Self> {
        let first = certificates.first()?;
        let candidates: Box<[Candidate]> = certificates.iter().map(Candidate::of).collect();
        let mut exact: HashMap<Box<str>, List> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, List> = HashMap::new();
        let mut default = (List::new(), List::new());
        for (index, certificate) in certificates.iter().enumerate() {
            for name in certificate.names() {
                let list = match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()).or_default(),
                    None => exact.entry(name.into()).or_default(),
                };
                if list.last() != Some(&index) {
                    list.push(index);
                }
            }
            let shares = index == 0 || certificate.names().any(|name| first.names().any(|one| one == name));
            let of_kind = |other: &&usize| candidates[**other].schemes == candidates[index].schemes;
            if shares {
                default.0.push(index);
            } else if default.1.iter().filter(of_kind).count() < OTHERS {
                default.1.push(index);
            }
        }
        Some(Self { candidates, exact, wildcard, default })
    }

    /// Whether a certificate was issued for this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether both names, which have to be known, have the same certificates, one for each kind of key.
    pub(crate) fn is_same(&self, one: &str, other: &str) -> bool {
        match (self.find(one), self.find(other)) {
            (Some(one), Some(other)) => self.one_of_each_kind(one) == self.one_of_each_kind(other),
            _ => false,
        }
    }

    /// The certificates, by their places in the configuration, that no client gets as long as the dates are as they
    /// are at `now`, each with one that is chosen instead.
    pub(crate) fn never_chosen(&self, certificates: &[Certificate], now: SystemTime) -> Vec<(usize, usize)> {
        let mut chosen = vec![false; certificates.len()];
        let mut instead = vec![None; certificates.len()];
        let names = certificates.iter().flat_map(Certificate::names);
        let lists = names.filter_map(|name| match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.get(parent),
            None => self.exact.get(name),
        });
        for list in lists.chain([&self.default.0]) {
            for &index in list {
                let schemes = &self.candidates[index].schemes;
                let best = self.best((list, &[]), schemes, now).unwrap_or(index);
                chosen[best] = true;
                instead[index].get_or_insert(best);
            }
        }
        (0..chosen.len())
            .filter(|index| !chosen[*index])
            .map(|index| (index, instead[index].unwrap_or(0)))
            .collect()
    }

    /// The certificate for a client that can verify `offered`. If it can verify none, one is returned all the same:
    /// the handshake fails, and says of what.
    fn choose(
        &self,
        server_name: Option<&str>,
        offered: &[SignatureScheme],
        now: SystemTime,
    ) -> &Arc<CertifiedKey> {
        let known = server_name.and_then(|name| self.find(name));
        let lists = known.unwrap_or((&self.default.0, &self.default.1));
        &self.candidates[self.best(lists, offered, now).unwrap_or(0)].key
    }

    /// The best of two lists, of which the first is preferred.
    fn best(
        &self,
        (first, second): (&[usize], &[usize]),
        offered: &[SignatureScheme],
        now: SystemTime,
    ) -> Option<usize> {
        let all = first.iter().map(|index| (false, *index)).chain(second.iter().map(|index| (true, *index)));
        let order = |(second, index): &(bool, usize)| {
            let candidate = &self.candidates[*index];
            (!candidate.fits(offered), !candidate.is_valid(now), *second, candidate.rank(), *index)
        };
        all.min_by_key(order).map(|(_, index)| index)
    }

    /// The certificates of this name, and those of a wildcard that it falls under.
    fn find(&self, name: &str) -> Option<(&[usize], &[usize])> {
        let name = canonical(name);
        let exact = self.exact.get(&*name).map_or(&[][..], Vec::as_slice);
        // RFC 9525 §6.3: a wildcard stands for exactly one label, the leftmost.
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent)).map_or(&[][..], Vec::as_slice);
        (!exact.is_empty() || !wildcard.is_empty()).then_some((exact, wildcard))
    }

    /// Without those that are shadowed by others with the same kind of key.
    fn one_of_each_kind(&self, (exact, wildcard): (&[usize], &[usize])) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        for &index in exact.iter().chain(wildcard) {
            let schemes = &self.candidates[index].schemes;
            if !found.iter().any(|other| self.candidates[*other].schemes == *schemes) {
                found.push(index);
            }
        }
        found.sort_unstable();
        found
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls leaves only those schemes of TLS 1.2 for which the client has a cipher suite.
        Some(Arc::clone(self.choose(hello.server_name(), hello.signature_schemes(), clock::wall())))
    }
}

// === impl Candidate ===

impl Candidate {
    fn of(certificate: &Certificate) -> Self {
        let key = Arc::clone(certificate.certified_key());
        let signs = |scheme: &SignatureScheme| key.key.choose_scheme(&[*scheme]).is_some();
        let schemes = SCHEMES.into_iter().filter(signs).collect();
        Self { schemes, key, not_before: certificate.not_before(), not_after: certificate.not_after() }
    }

    fn fits(&self, offered: &[SignatureScheme]) -> bool {
        offered.iter().any(|scheme| self.schemes.contains(scheme))
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Less is preferred: signing takes ECDSA a tenth of the time of RSA, and few clients know Ed25519.
    fn rank(&self) -> u8 {
        match self.key.key.algorithm() {
            SignatureAlgorithm::ECDSA => 0,
            SignatureAlgorithm::ED25519 => 1,
            _ => 2,
        }
    }
}

/// Warns of every certificate that no client gets.
pub(super) fn warn_of_never_chosen(certificates: &[Certificate], now: SystemTime) {
    let Some(resolver) = Resolver::new(certificates) else { return };
    for (index, instead) in resolver.never_chosen(certificates, now) {
        let (file, instead) = (certificates[index].file().display(), certificates[instead].file().display());
        match certificates[index].validity(now) {
            Validity::Expired | Validity::NotYet => tracing::warn!(
                %file,
                "certificate is never chosen: it is out of its dates, and {instead} has its names and the same kind of key"
            ),
            Validity::Good | Validity::EndsSoon => tracing::warn!(
                %file,
                "certificate is never chosen: {instead} has its names and the same kind of key; remove one of them"
            ),
        }
    }
}

/// Whatever a key of a certificate may sign by.
const SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::{config::CertificateFiles, tls::provider};

    /// A certificate in the making: names, algorithm of the key, the year in which it ends.
    struct Make<'a>(&'a [&'a str], &'static rcgen::SignatureAlgorithm, i32);

    const EC: &rcgen::SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    const RSA: &rcgen::SignatureAlgorithm = &rcgen::PKCS_RSA_SHA256;
    const ED: &rcgen::SignatureAlgorithm = &rcgen::PKCS_ED25519;

    fn make(makes: &[Make<'_>]) -> Vec<Certificate> {
        let dir = tempfile::tempdir().unwrap();
        let one = |(index, Make(names, algorithm, end)): (usize, &Make<'_>)| {
            let files = CertificateFiles {
                cert: dir.path().join(format!("{index}.pem")),
                key: dir.path().join(format!("{index}.key")),
            };
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(*end, 1, 1);
            let key = KeyPair::generate_for(algorithm).unwrap();
            std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
            Certificate::load(&files, &provider()).unwrap()
        };
        makes.iter().enumerate().map(one).collect()
    }

    /// One ECDSA certificate for each list of names.
    fn certificates(names: &[&[&str]]) -> Vec<Certificate> {
        make(&names.iter().map(|names| Make(names, EC, 2100)).collect::<Vec<_>>())
    }

    /// The index of the certificate chosen for `name` when a client can verify `offered`.
    fn chosen_of(
        certificates: &[Certificate],
        name: Option<&str>,
        offered: &[SignatureScheme],
    ) -> Option<usize> {
        let resolver = Resolver::new(certificates).unwrap();
        let key = resolver.choose(name, offered, clock::wall());
        certificates.iter().position(|certificate| Arc::ptr_eq(certificate.certified_key(), key))
    }

    fn chosen(certificates: &[Certificate], name: Option<&str>) -> Option<usize> {
        chosen_of(certificates, name, &SCHEMES)
    }

    const ONLY_RSA: &[SignatureScheme] =
        &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    const ONLY_ED: &[SignatureScheme] = &[SignatureScheme::ED25519];

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
    fn the_kind_of_key_follows_what_the_client_can_verify() {
        let names = &["a.test"][..];
        for order in [[EC, RSA, ED], [RSA, ED, EC]] {
            let certificates = make(&order.map(|algorithm| Make(names, algorithm, 2100)));
            let at = |algorithm| order.iter().position(|other| *other == algorithm);
            for name in [Some("a.test"), Some("A.TEST."), None, Some("unknown.test")] {
                assert_eq!(chosen(&certificates, name), at(EC));
                assert_eq!(chosen_of(&certificates, name, ONLY_RSA), at(RSA));
                assert_eq!(chosen_of(&certificates, name, ONLY_ED), at(ED));
            }
        }
    }

    #[test]
    fn a_curve_that_the_client_does_not_know_is_passed_over() {
        let names = &["a.test"][..];
        let certificates = make(&[Make(names, &rcgen::PKCS_ECDSA_P384_SHA384, 2100), Make(names, EC, 2100)]);
        assert_eq!(chosen(&certificates, Some("a.test")), Some(0));
        let offered = &[SignatureScheme::ECDSA_NISTP256_SHA256];
        assert_eq!(chosen_of(&certificates, Some("a.test"), offered), Some(1));
    }

    #[test]
    fn a_certificate_out_of_its_dates_comes_last() {
        let names = &["a.test"][..];
        let certificates = make(&[Make(names, EC, 2002), Make(names, RSA, 2100), Make(names, EC, 2100)]);
        assert_eq!(chosen(&certificates, Some("a.test")), Some(2));
        assert_eq!(chosen(&certificates, None), Some(2));
        let certificates = make(&[Make(names, EC, 2002), Make(names, RSA, 2100)]);
        assert_eq!(chosen(&certificates, Some("a.test")), Some(1));
        let alone = make(&[Make(names, RSA, 2100), Make(names, EC, 2002)]);
        let ecdsa = &[SignatureScheme::ECDSA_NISTP256_SHA256];
        assert_eq!(chosen_of(&alone, Some("a.test"), ecdsa), Some(1), "better than no handshake");
    }

    #[test]
    fn a_wildcard_of_a_kind_that_fits_is_better_than_no_handshake() {
        let certificates = make(&[
            Make(&["z.test"], RSA, 2100),
            Make(&["*.a.test"], RSA, 2100),
            Make(&["www.a.test"], EC, 2100),
        ]);
        assert_eq!(chosen(&certificates, Some("www.a.test")), Some(2));
        assert_eq!(chosen_of(&certificates, Some("www.a.test"), ONLY_RSA), Some(1));
        let expired = make(&[Make(&["*.a.test"], RSA, 2100), Make(&["www.a.test"], EC, 2002)]);
        assert_eq!(chosen(&expired, Some("www.a.test")), Some(0), "an expired one is refused by clients");
    }

    #[test]
    fn an_exact_name_of_a_slower_kind_wins_over_a_wildcard() {
        let certificates = make(&[Make(&["*.a.test"], EC, 2100), Make(&["www.a.test"], RSA, 2100)]);
        assert_eq!(chosen(&certificates, Some("www.a.test")), Some(1));
    }

    #[test]
    fn without_a_known_name_another_kind_of_the_first_certificates_names_is_preferred() {
        let certificates =
            make(&[Make(&["a.test"], EC, 2100), Make(&["b.test"], RSA, 2100), Make(&["a.test"], RSA, 2100)]);
        assert_eq!(chosen_of(&certificates, None, ONLY_RSA), Some(2));
        assert_eq!(chosen_of(&certificates[..2], None, ONLY_RSA), Some(1), "better than no handshake");
    }

    #[test]
    fn a_final_dot_makes_no_other_name() {
        let certificates = certificates(&[&["z.test"], &["a.test"]]);
        assert_eq!(chosen(&certificates, Some("a.test.")), Some(1));
    }

    #[test]
    fn names_with_the_same_certificates_of_all_kinds_are_the_same() {
        let both = &["a.test", "b.test"][..];
        let same = |makes: &[Make<'_>]| {
            let resolver = Resolver::new(&make(makes)).unwrap();
            resolver.is_same("a.test", "b.test")
        };
        assert!(same(&[Make(both, EC, 2100), Make(both, RSA, 2100)]));
        assert!(same(&[Make(both, EC, 2100), Make(&["a.test"], EC, 2100)]), "the second is shadowed");
        assert!(!same(&[Make(both, EC, 2100), Make(&["a.test"], RSA, 2100)]));
        assert!(!same(&[Make(&["a.test"], EC, 2100), Make(&["b.test"], EC, 2100)]));
    }

    #[test]
    fn certificates_that_no_client_gets_are_known() {
        let dead = |makes: &[Make<'_>]| {
            let certificates = make(makes);
            Resolver::new(&certificates).unwrap().never_chosen(&certificates, clock::wall())
        };
        let (a, b) = (&["a.test"][..], &["a.test", "b.test"][..]);
        assert_eq!(dead(&[Make(a, EC, 2100), Make(a, RSA, 2100), Make(a, ED, 2100)]), []);
        assert_eq!(dead(&[Make(a, EC, 2100), Make(a, EC, 2100)]), [(1, 0)]);
        assert_eq!(dead(&[Make(a, EC, 2002), Make(a, EC, 2100)]), [(0, 1)]);
        assert_eq!(dead(&[Make(b, EC, 2100), Make(a, EC, 2100)]), [(1, 0)]);
        assert_eq!(dead(&[Make(a, EC, 2100), Make(b, EC, 2100)]), [], "b.test is its own");
        assert_eq!(dead(&[Make(a, EC, 2100), Make(&["*.a.test"], EC, 2100)]), []);
        assert_eq!(dead(&[Make(a, EC, 2100), Make(&[], EC, 2100)]), [(1, 0)]);
    }

    #[test]
    fn no_certificate_makes_no_resolver() {
        assert!(Resolver::new(&[]).is_none());
    }
}
