//! A certificate authority of the test process, and leaves on request.

use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
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
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "homing test authority");
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

    /// One that expired long ago.
    pub(crate) fn expired_leaf(&self, names: &[&str]) -> Leaf {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    fn sign(&self, names: &[&str], adapt: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        adapt(&mut params);
        let key = KeyPair::generate().expect("a P-256 key");
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
