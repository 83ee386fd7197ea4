//! A certificate authority of the test process, and leaves on request.

use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use tokio_rustls::rustls::{RootCertStore, pki_types::CertificateDer};

/// The authority that every client of this process trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    /// Its certificate, for curl's `--cacert`.
    pub(crate) pem: String,
}

/// One certificate chain and its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    /// The certificate.
    pub(crate) cert: String,
    /// Its PKCS#8 key.
    pub(crate) key: String,
    /// The certificate, as a handshake shows it.
    pub(crate) der: CertificateDer<'static>,
}

// === impl Authority ===

impl Authority {
    /// The one of this process, minted at first use.
    pub(crate) fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(Self::mint)
    }

    /// One that nobody trusts unless told to.
    pub(crate) fn mint() -> Self {
        Self::named("homing test authority")
    }

    /// Likewise, of this name.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.self_signed(&key).expect("valid parameters");
        Self { der: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for `names` (host names or addresses).
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        self.sign(names, |_| ())
    }

    /// One with an RSA key.
    pub(crate) fn rsa_leaf(&self, names: &[&str]) -> Leaf {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
        self.sign_key(names, key, |_| ())
    }

    /// One that expired long ago.
    pub(crate) fn expired_leaf(&self, names: &[&str]) -> Leaf {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// What a client of this name shows; the serial number is for [`revoke`](Self::revoke).
    pub(crate) fn client(&self, name: &str, serial: u64) -> Leaf {
        self.sign(&[], |params| {
            params.distinguished_name.push(DnType::OrganizationName, "Homing");
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.serial_number = Some(SerialNumber::from(serial));
        })
    }

    /// Likewise, of one whose time is over.
    pub(crate) fn expired_client(&self, name: &str) -> Leaf {
        self.sign(&[], |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// The list of the certificates it has revoked, by their serial numbers, as PEM.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("valid parameters").pem().expect("PEM")
    }

    fn sign(&self, names: &[&str], adapt: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.sign_key(names, KeyPair::generate().expect("a P-256 key"), adapt)
    }

    fn sign_key(&self, names: &[&str], key: KeyPair, adapt: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("valid names");
        if let Some(name) = names.first() {
            params.distinguished_name.push(DnType::CommonName, name.clone());
        } else {
            params.distinguished_name = DistinguishedName::new();
        }
        adapt(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("valid parameters");
        let der = certificate.der().clone();
        Leaf { cert: certificate.pem(), key: key.serialize_pem(), der }
    }

    /// What a client trusts.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("our own certificate");
        Arc::new(roots)
    }
}

// === impl Leaf ===

impl Leaf {
    /// The certificate of `localhost` that tests use unless they say otherwise; one per process.
    pub(crate) fn localhost() -> &'static Self {
        static LEAF: OnceLock<Leaf> = OnceLock::new();
        LEAF.get_or_init(|| Authority::get().leaf(&["localhost", "127.0.0.1"]))
    }
}
