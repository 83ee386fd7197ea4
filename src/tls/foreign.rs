//! Files that are not what they should be: what they are, and the command that makes it of them.

use std::path::Path;

use rustls::pki_types::PrivateKeyDer;
use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest, prelude::FromDer,
    revocation_list::CertificateRevocationList, x509::SubjectPublicKeyInfo,
};

/// What a file without any PEM section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One certificate in DER.
    Certificate,
    /// One private key in DER.
    Key,
    /// One revocation list in DER.
    Crl,
    /// A private key in DER, encrypted.
    EncryptedKey,
    Pkcs12,
    Pkcs7,
    KeyStore,
    Request,
    PublicKey,
    /// DER of another kind, or of one of these kinds, but cut or damaged.
    Der,
    /// Base64 of a PEM file, as in Kubernetes' secrets.
    EncodedPem,
    /// Base64 of DER, without the lines around it.
    EncodedDer,
    Ssh,
    Putty,
    Page,
    Json,
    Archive,
    /// Nothing that is known.
    Unknown,
}

// === impl Kind ===

impl Kind {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
        let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        let is_pem = text.windows(BEGIN.len()).any(|window| window == BEGIN);
        if !is_pem && bytes.starts_with(&[0x30]) && text.iter().any(|byte| !(32..127).contains(byte)) {
            return Self::of_der(bytes);
        }
        match () {
            () if is_pem => Self::Unknown,
            () if starts(&[&[0xfe, 0xed, 0xfe, 0xed], &[0xce; 4]]) => Self::KeyStore,
            () if starts(&[b"PK\x03\x04", &[0x1f, 0x8b]]) => Self::Archive,
            () if starts(&[b"LS0tLS1CRUdJTi"]) => Self::EncodedPem,
            () if starts(&[b"MII"]) && text.iter().all(|byte| is_base64(*byte)) => Self::EncodedDer,
            () if starts(&[b"ssh-", b"ecdsa-sha2-", b"---- BEGIN SSH2"]) => Self::Ssh,
            () if starts(&[b"PuTTY-User-Key-File"]) => Self::Putty,
            () if starts(&[b"<"]) => Self::Page,
            () if starts(&[b"{", b"["]) => Self::Json,
            () => Self::Unknown,
        }
    }

    fn of_der(bytes: &[u8]) -> Self {
        let whole = |rest: &[u8]| rest.is_empty();
        if X509Certificate::from_der(bytes).is_ok_and(|(rest, _)| whole(rest)) {
            return Self::Certificate;
        }
        if CertificateRevocationList::from_der(bytes).is_ok_and(|(rest, _)| whole(rest)) {
            return Self::Crl;
        }
        let Some(inner) = content(bytes) else { return Self::Der };
        if inner.starts_with(&[2, 1, 3, 0x30]) {
            return Self::Pkcs12;
        }
        if inner.starts_with(PKCS7) {
            return Self::Pkcs7;
        }
        if content(inner).is_some_and(|inner| inner.starts_with(PKCS5) || inner.starts_with(PKCS12_CIPHER)) {
            return Self::EncryptedKey;
        }
        if X509CertificationRequest::from_der(bytes).is_ok() {
            return Self::Request;
        }
        if SubjectPublicKeyInfo::from_der(bytes).is_ok_and(|(rest, _)| whole(rest)) {
            return Self::PublicKey;
        }
        let is_key = length(bytes) == Some(bytes.len()) && PrivateKeyDer::try_from(bytes).is_ok();
        if is_key { Self::Key } else { Self::Der }
    }

    /// With its article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate in DER",
            Self::Key => "a private key in DER",
            Self::Crl => "a revocation list in DER",
            Self::EncryptedKey => "an encrypted private key in DER",
            Self::Pkcs12 => "a PKCS#12 file (.p12, .pfx)",
            Self::Pkcs7 => "a PKCS#7 file in DER (.p7b)",
            Self::KeyStore => "a Java key store",
            Self::Request => "a certificate request in DER",
            Self::PublicKey => "a public key in DER",
            Self::Der => "binary data, perhaps DER that is cut off or damaged",
            Self::EncodedPem => "the base64 encoding of a PEM file",
            Self::EncodedDer => "base64 without BEGIN and END lines",
            Self::Ssh => "an SSH key",
            Self::Putty => "a key of PuTTY",
            Self::Page => "an HTML or XML document",
            Self::Json => "a JSON document",
            Self::Archive => "an archive or a compressed file",
            Self::Unknown => "not PEM: it has no BEGIN line",
        }
    }

    /// What to do about it, if `file` holds what is wanted at all.
    pub(super) fn remedy(self, file: &Path) -> Option<String> {
        let file = file.display();
        Some(match self {
            Self::Pkcs12 => format!("convert it: openssl pkcs12 -in {file} -nodes -out new.pem"),
            Self::Pkcs7 => {
                format!("convert it: openssl pkcs7 -inform DER -in {file} -print_certs -out new.pem")
            }
            Self::KeyStore => format!(
                "convert it: keytool -importkeystore -srckeystore {file} -destkeystore new.p12 -deststoretype PKCS12 && openssl pkcs12 -in new.p12 -nodes -out new.pem"
            ),
            Self::EncodedPem => format!("decode it: base64 -d {file} > new.pem"),
            Self::EncodedDer => format!("decode it: base64 -d {file} > new.der"),
            Self::Putty => format!("convert it: puttygen {file} -O private-openssh -o new.pem"),
            Self::Request => "the certification authority makes a certificate of it".to_owned(),
            Self::Archive => "unpack it".to_owned(),
            Self::Certificate
            | Self::Key
            | Self::Crl
            | Self::EncryptedKey
            | Self::PublicKey
            | Self::Der
            | Self::Ssh
            | Self::Page
            | Self::Json
            | Self::Unknown => return None,
        })
    }
}

/// Sections that may hold what is wanted, but that nothing here reads: what they are, and how to convert them.
pub(super) fn section(label: &str, file: &Path) -> Option<(&'static str, String)> {
    let file = file.display();
    Some(match label {
        "TRUSTED CERTIFICATE" => (
            "a certificate with openssl's trust settings",
            format!("convert it: openssl x509 -in {file} -out new.pem"),
        ),
        "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => {
            ("PKCS#7", format!("convert it: openssl pkcs7 -in {file} -print_certs -out new.pem"))
        }
        "OPENSSH PRIVATE KEY" => (
            "a private key of OpenSSH",
            format!("convert a copy of it: cp {file} new.pem && ssh-keygen -p -m PEM -f new.pem"),
        ),
        "DSA PRIVATE KEY" => (
            "a DSA key",
            "TLS has no use for it; make an ECDSA or RSA key and a certificate for it".to_owned(),
        ),
        _ => return None,
    })
}

/// What a private key is that TLS has no use for, as far as its encoding says so, and what to do.
pub(super) fn key(der: &[u8]) -> Option<&'static str> {
    KEYS.iter().find(|(id, _)| memchr::memmem::find(der, id).is_some()).map(|(_, what)| *what)
}

/// How long the sequence is that `bytes` begin with, as its head says.
fn length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x30, length @ 0..=0x7f, ..] => Some(2 + usize::from(*length)),
        [0x30, 0x81, a, ..] => Some(3 + usize::from(*a)),
        [0x30, 0x82, a, b, ..] => Some(4 + usize::from(u16::from_be_bytes([*a, *b]))),
        _ => None,
    }
}

/// What is inside the sequence that `bytes` begin with; also one of indefinite length (X.690 §8.1.3).
fn content(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x30, 0..=0x80, rest @ ..] => Some(rest),
        [0x30, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        _ => None,
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=".contains(&byte)
}

/// Text around a section may begin with anything.
const BEGIN: &[u8] = b"-----BEGIN ";
/// `pkcs7` and its kinds (1.2.840.113549.1.7.x).
const PKCS7: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7];
/// The ways of encryption of PKCS#5 (1.2.840.113549.1.5.x) and PKCS#12 (1.2.840.113549.1.12.1.x).
const PKCS5: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5];
const PKCS12_CIPHER: &[u8] = &[6, 10, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1];

/// Identifiers of algorithms, curves and fields, and what a key is that has one.
const KEYS: [(&[u8], &str); 11] = [
    (&[6, 3, 0x2b, 0x65, 0x6e], "an X25519 key, which cannot sign"),
    (&[6, 3, 0x2b, 0x65, 0x6f], "an X448 key, which cannot sign"),
    (&[6, 3, 0x2b, 0x65, 0x71], "an Ed448 key"),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x0a], "an ECDSA key of the curve secp256k1"),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x21], "an ECDSA key of the curve P-224"),
    (&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1], "an ECDSA key of the curve P-192"),
    (&[6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1], "an ECDSA key of a Brainpool curve"),
    (&[6, 8, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d], "an SM2 key"),
    (&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "a DSA key"),
    (
        &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 1, 1],
        "an ECDSA key that describes its curve instead of naming it (`openssl ec -param_enc named_curve` names it)",
    ),
    (&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a], "a key for RSA-PSS alone"),
];

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    #[test]
    fn der_is_told_apart() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        assert_eq!(Kind::of(made.cert.der()), Kind::Certificate);
        assert_eq!(Kind::of(&made.signing_key.serialize_der()), Kind::Key);
        assert_eq!(Kind::of(&made.signing_key.subject_public_key_info()), Kind::PublicKey);
        assert_eq!(Kind::of(&made.cert.der()[..200]), Kind::Der);
        assert_eq!(Kind::of(&[made.cert.der().as_ref(), made.cert.der()].concat()), Kind::Der);
        assert_eq!(Kind::of(&[0x30, 0x82, 9, 9, 2, 1, 3, 0x30, 0x82]), Kind::Pkcs12);
        assert_eq!(Kind::of(&[0x30, 0x80, 2, 1, 3, 0x30, 0x80]), Kind::Pkcs12);
        assert_eq!(Kind::of(&[&[0x30, 0x82, 9, 9], PKCS7, &[2]].concat()), Kind::Pkcs7);
        assert_eq!(Kind::of(&[&[0x30, 0x81, 9, 0x30, 9], PKCS5, &[13]].concat()), Kind::EncryptedKey);
    }

    #[test]
    fn a_key_with_something_behind_it_is_no_key() {
        let made = rcgen::KeyPair::generate().unwrap().serialize_der();
        assert_eq!(Kind::of(&[&made[..], b"junk"].concat()), Kind::Der);
    }

    #[test]
    fn other_files_are_known_by_how_they_begin() {
        for (text, kind) in [
            (&b"\xfe\xed\xfe\xed\0\0"[..], Kind::KeyStore),
            (b"LS0tLS1CRUdJTiBDRVJU", Kind::EncodedPem),
            (b"MIIBszCCAVmg\nAwIBAgIU\n", Kind::EncodedDer),
            (b"ssh-ed25519 AAAA x", Kind::Ssh),
            (b"<!DOCTYPE html>", Kind::Page),
            (b"{\"certificates\": []}", Kind::Json),
            (b"PK\x03\x04\0", Kind::Archive),
            (b"hello", Kind::Unknown),
            (b"0 s:CN = caf\xc3\xa9\n-----BEGIN CERTIFICATE-----", Kind::Unknown),
            (b"<b>\n-----BEGIN CERTIFICATE-----", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(text), kind);
        }
    }
}
