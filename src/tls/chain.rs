//! The certificates of one file in the order in which clients need them (RFC 5246 §7.4.2): the one that the key
//! belongs to first, after each one that of its issuer.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::TlsError;

/// A chain in order, and what had to be done or is to be known about it, a sentence each.
pub(super) struct Chain {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) notes: Vec<String>,
}

/// Puts the certificates of `file` in order. `key` is the public half of the key, where that is known.
///
/// # Errors
/// [`TlsError::Malformed`] for what is not X.509; [`None`] when the key belongs to none of them.
pub(super) fn arrange(
    file: &Path,
    certificates: &[CertificateDer<'static>],
    key: Option<&[u8]>,
) -> Result<Option<Chain>, TlsError> {
    let mut notes = Vec::new();
    let mut parsed: Vec<(usize, X509Certificate<'_>)> = Vec::with_capacity(certificates.len());
    for (index, certificate) in certificates.iter().enumerate() {
        let number = index + 1;
        let malformed = |what: &str| {
            let what = format!("certificate {number} {what}");
            TlsError::Malformed { file: file.to_owned(), what }
        };
        let (rest, certificate) = X509Certificate::from_der(certificate)
            .map_err(|_| malformed("is not X.509 in DER: it is cut off or damaged"))?;
        if !rest.is_empty() {
            return Err(malformed("has bytes after its end"));
        }
        match certificates[..index].iter().position(|other| *other == certificates[index]) {
            Some(first) => {
                notes.push(format!(
                    "certificate {number} is the same as certificate {}, and is sent once",
                    first + 1
                ));
            }
            None => parsed.push((index, certificate)),
        }
    }
    let leaf = match key {
        Some(key) => parsed.iter().position(|(_, one)| one.public_key().raw == key),
        None => Some(0),
    };
    let Some(leaf) = leaf else { return Ok(None) };
    let mut order = vec![parsed[leaf].0];
    let mut last = leaf;
    let mut rest: Vec<usize> = (0..parsed.len()).filter(|index| *index != leaf).collect();
    while !is_own_issuer(&parsed[last].1) {
        let issues = |index: &usize| parsed[*index].1.subject().as_raw() == parsed[last].1.issuer().as_raw();
        let Some(at) = rest.iter().position(issues) else { break };
        last = rest.remove(at);
        order.push(parsed[last].0);
    }
    for index in rest {
        let (number, certificate) = (parsed[index].0 + 1, &parsed[index].1);
        let issuer_of = |(other, one): &(usize, X509Certificate<'_>)| {
            *other != parsed[index].0 && one.issuer().as_raw() == certificate.subject().as_raw()
        };
        if !parsed.iter().any(issuer_of) {
            notes.push(format!(
                "certificate {number} ({}) has issued none of the others; it is sent, but does not belong to the chain",
                certificate.subject()
            ));
        }
        order.push(parsed[index].0);
    }
    if !order.is_sorted() {
        let numbers: Vec<_> = order.iter().map(|index| (index + 1).to_string()).collect();
        notes.push(format!(
            "certificates are not in the order of a chain; they are sent in this order: {}",
            numbers.join(", ")
        ));
    }
    let certificates = order.into_iter().map(|index| certificates[index].clone()).collect();
    Ok(Some(Chain { certificates, notes }))
}

fn is_own_issuer(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _};

    use super::*;

    /// Root, intermediate, leaf, and the public half of the leaf's key.
    fn three() -> ([CertificateDer<'static>; 3], Vec<u8>) {
        let params = |name: &str| {
            let mut params = CertificateParams::new([format!("{name}.test")]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let spki = keys[2].subject_public_key_info();
        let root = params("root").self_signed(&keys[0]).unwrap();
        let root_params = params("root");
        let middle_params = params("middle");
        let middle = middle_params.signed_by(&keys[1], &Issuer::from_params(&root_params, &keys[0])).unwrap();
        let leaf =
            params("leaf").signed_by(&keys[2], &Issuer::from_params(&middle_params, &keys[1])).unwrap();
        ([root.der().clone(), middle.der().clone(), leaf.der().clone()], spki)
    }

    fn arranged(certificates: &[CertificateDer<'static>], key: &[u8]) -> Chain {
        arrange(Path::new("chain.pem"), certificates, Some(key)).unwrap().unwrap()
    }

    #[test]
    fn a_chain_in_order_stays_as_it_is() {
        let ([root, middle, leaf], key) = three();
        for chain in [vec![leaf.clone()], vec![leaf.clone(), middle.clone()], vec![leaf, middle, root]] {
            let arranged = arranged(&chain, &key);
            assert_eq!(arranged.certificates, chain);
            assert!(arranged.notes.is_empty(), "{:?}", arranged.notes);
        }
    }

    #[test]
    fn a_chain_in_any_order_is_put_in_order_with_a_note() {
        let ([root, middle, leaf], key) = three();
        let right = [leaf.clone(), middle.clone(), root.clone()];
        for chain in [[root.clone(), middle.clone(), leaf.clone()], [middle, leaf.clone(), root.clone()]] {
            let arranged = arranged(&chain, &key);
            assert_eq!(arranged.certificates, right);
            assert!(arranged.notes[0].contains("order"), "{:?}", arranged.notes);
        }
    }

    #[test]
    fn a_certificate_that_is_there_twice_is_sent_once() {
        let ([_, middle, leaf], key) = three();
        let arranged = arranged(&[leaf.clone(), leaf.clone(), middle.clone()], &key);
        assert_eq!(arranged.certificates, [leaf, middle]);
        assert!(arranged.notes[0].contains("certificate 2 is the same"), "{:?}", arranged.notes);
    }

    #[test]
    fn a_certificate_of_another_chain_is_named() {
        let ([_, middle, leaf], key) = three();
        let other = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap().cert.der().clone();
        let arranged = arranged(&[leaf, middle, other], &key);
        assert_eq!(arranged.certificates.len(), 3);
        assert!(arranged.notes[0].starts_with("certificate 3 ("), "{:?}", arranged.notes);
    }

    #[test]
    fn a_key_of_none_of_them_has_no_chain() {
        let ([_, middle, leaf], _) = three();
        let key = KeyPair::generate().unwrap().subject_public_key_info();
        assert!(arrange(Path::new("c"), &[leaf, middle], Some(&key)).unwrap().is_none());
    }

    #[test]
    fn a_damaged_certificate_is_told_by_its_number() {
        let ([_, _, leaf], key) = three();
        let damaged = CertificateDer::from(leaf[..leaf.len() - 9].to_vec());
        let error = arrange(Path::new("c"), &[leaf, damaged], Some(&key)).err().unwrap();
        assert!(error.to_string().contains("certificate 2 is not X.509"), "{error}");
    }
}
