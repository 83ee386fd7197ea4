//! Files of certificates, keys and revocation lists in, DER out. The only file that knows rustls-pemfile.
//!
//! Every section of a file is read, is known to be of no use here, or is an error.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls_pemfile::Item;

use super::{
    TlsError,
    foreign::{self, Kind},
    sections::{Section, sections},
};

/// The certificates of `file`, in its order. Keys beside them are passed over.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, is empty, malformed, has no certificate, or something that is not
/// read.
pub(crate) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(file, false)
}

/// The authorities of `file`. Revocation lists beside them are passed over if they are read `elsewhere`.
///
/// # Errors
/// As for [`read_chain`].
pub(super) fn read_authorities(
    file: &Path,
    elsewhere: bool,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(file, elsewhere)
}

/// The certificate revocation lists of `file`. Certificates beside them are passed over.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, is empty, malformed, or has no list.
pub(crate) fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = match read(file, CRL_LIMIT)? {
        Content::Pem(sections) => sections,
        Content::Other(Kind::Crl, der) => return Ok(vec![der.into()]),
        Content::Other(kind, _) => return Err(TlsError::foreign(file, "revocation list", kind)),
    };
    let mut lists = Vec::new();
    for section in &text {
        if let Some(Item::Crl(list)) = section.item(file)? {
            lists.push(list);
        }
    }
    if lists.is_empty() {
        return Err(TlsError::NoCrl { file: file.to_owned(), instead: instead(&text) });
    }
    Ok(lists)
}

/// The one private key of `file` (PKCS#8, PKCS#1 or SEC1). Certificates beside it are passed over.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, is empty, malformed, has no key, has several, or has
/// an encrypted one.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unusable = || TlsError::Malformed { file: file.to_owned(), what: "it is no private key".to_owned() };
    let text = match read(file, LIMIT)? {
        Content::Pem(sections) => sections,
        Content::Other(Kind::Key, der) => return PrivateKeyDer::try_from(der).map_err(|_| unusable()),
        Content::Other(Kind::EncryptedKey, _) => {
            return Err(TlsError::EncryptedKey { file: file.to_owned(), der: true });
        }
        Content::Other(kind, _) => return Err(TlsError::foreign(file, "private key", kind)),
    };
    let mut keys: Vec<PrivateKeyDer<'static>> = Vec::new();
    for section in &text {
        if section.label == "ENCRYPTED PRIVATE KEY" || (section.is_key() && section.has_headers()) {
            return Err(TlsError::EncryptedKey { file: file.to_owned(), der: false });
        }
        let key = match section.item(file)? {
            Some(Item::Pkcs8Key(key)) => key.into(),
            Some(Item::Pkcs1Key(key)) => key.into(),
            Some(Item::Sec1Key(key)) => key.into(),
            _ if section.is_key() => return Err(section.unknown(file)),
            _ => continue,
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    match keys.len() {
        0 => Err(TlsError::NoKey { file: file.to_owned(), instead: instead(&text) }),
        1 => Ok(keys.remove(0)),
        count => Err(TlsError::SeveralKeys { file: file.to_owned(), count }),
    }
}

fn certificates(file: &Path, lists_elsewhere: bool) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = match read(file, LIMIT)? {
        Content::Pem(sections) => sections,
        Content::Other(Kind::Certificate, der) => return Ok(vec![der.into()]),
        Content::Other(kind, _) => return Err(TlsError::foreign(file, "certificate", kind)),
    };
    let mut chain = Vec::new();
    for section in &text {
        if section.is_key() && section.has_headers() {
            continue;
        }
        match section.item(file)? {
            Some(Item::X509Certificate(certificate)) => chain.push(certificate),
            Some(Item::Crl(_)) if !lists_elsewhere => {
                let what = format!(
                    "a revocation list in line {}, which is read from `client_crl` only",
                    section.line
                );
                return Err(TlsError::Malformed { file: file.to_owned(), what });
            }
            Some(_) => {}
            None if PASSED_OVER.contains(&&*section.label) => {}
            None => return Err(section.unknown(file)),
        }
    }
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned(), instead: instead(&text) });
    }
    Ok(chain)
}

enum Content {
    /// At least one section.
    Pem(Vec<Section>),
    Other(Kind, Vec<u8>),
}

fn read(file: &Path, limit: u64) -> Result<Content, TlsError> {
    let bytes = read_bounded(file, limit).map_err(|source| match source.kind() {
        io::ErrorKind::IsADirectory => TlsError::Folder { file: file.to_owned() },
        _ => TlsError::Read { file: file.to_owned(), source },
    })?;
    if bytes.len() as u64 > limit {
        return Err(TlsError::TooLarge { file: file.to_owned(), limit });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(TlsError::Empty { file: file.to_owned() });
    }
    let kind = Kind::of(&bytes);
    if kind != Kind::Unknown {
        return Ok(Content::Other(kind, bytes));
    }
    let malformed = |what| TlsError::Malformed { file: file.to_owned(), what };
    let sections = sections(&bytes).map_err(malformed)?;
    Ok(if sections.is_empty() { Content::Other(kind, bytes) } else { Content::Pem(sections) })
}

fn read_bounded(file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(limit + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// What a file has whose sections are not what is wanted, in words.
fn instead(sections: &[Section]) -> String {
    let mut names: Vec<&str> = sections.iter().map(|section| &*section.label).collect();
    names.dedup();
    names.truncate(MENTIONED);
    names.join(", ")
}

// === impl Section ===

impl Section {
    /// Decodes it; none if it is of a kind without items.
    fn item(&self, file: &Path) -> Result<Option<Item>, TlsError> {
        // As openssl's own tools take it.
        let label = if self.label == "X509 CERTIFICATE" { "CERTIFICATE" } else { &self.label };
        match rustls_pemfile::read_one_from_slice(&self.as_pem(label)) {
            Ok(item) => Ok(item.map(|(item, _)| item)),
            // In words of our own, since the library's quote what they stumbled over, and that may be a key.
            Err(_) => {
                let what = format!("the section of line {} is not base64", self.line);
                Err(TlsError::Malformed { file: file.to_owned(), what })
            }
        }
    }

    fn is_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    /// The error that it is nothing that is read here.
    fn unknown(&self, file: &Path) -> TlsError {
        let (what, remedy) = foreign::section(&self.label, file).map_or_else(
            || (format!("a section `{}`", self.label), "remove it, or convert it".to_owned()),
            |(what, remedy)| (format!("{what} (`{}`)", self.label), remedy),
        );
        let what = format!("line {} begins {what}, which is not read; {remedy}", self.line);
        TlsError::Malformed { file: file.to_owned(), what }
    }
}

/// A chain of a hundred certificates, or all public authorities, are less than a third of this.
const LIMIT: u64 = 1024 * 1024;
/// Authorities that revoke much have lists of many megabytes.
const CRL_LIMIT: u64 = 64 * 1024 * 1024;
/// Sections of a kind that stand beside certificates and say nothing about them.
const PASSED_OVER: [&str; 7] = [
    "ENCRYPTED PRIVATE KEY",
    "EC PARAMETERS",
    "DH PARAMETERS",
    "X9.42 DH PARAMETERS",
    "DSA PARAMETERS",
    "NEW CERTIFICATE REQUEST",
    "OPENSSH PRIVATE KEY",
];
/// Kinds of sections that an error names.
const MENTIONED: usize = 4;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, text: impl AsRef<[u8]>) -> PathBuf {
            let file = self.0.path().join("file.pem");
            std::fs::write(&file, text).unwrap();
            file
        }
    }

    fn key() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_chain(Path::new("/nowhere/chain.pem")).unwrap_err();
        assert!(matches!(error, TlsError::Read { .. }));
        assert!(error.to_string().starts_with("/nowhere/chain.pem: cannot read it"), "{error}");
    }

    #[test]
    fn an_empty_file_is_called_empty() {
        let files = Files::new();
        let file = files.file(" \n\n");
        assert!(matches!(read_chain(&file), Err(TlsError::Empty { .. })));
        assert!(matches!(read_key(&file), Err(TlsError::Empty { .. })));
    }

    #[test]
    fn a_key_in_place_of_a_chain_is_no_certificate() {
        let files = Files::new();
        assert!(matches!(read_chain(&files.file(key())), Err(TlsError::NoCertificate { .. })));
    }

    #[test]
    fn a_chain_in_place_of_a_key_is_no_key() {
        let files = Files::new();
        assert!(matches!(read_key(&files.file(certificate())), Err(TlsError::NoKey { .. })));
    }

    #[test]
    fn a_file_with_key_and_chain_serves_as_both() {
        let files = Files::new();
        let file = files.file(format!("{}{}{}", key(), certificate(), certificate()));
        assert_eq!(read_chain(&file).unwrap().len(), 2);
        assert!(matches!(read_key(&file), Ok(PrivateKeyDer::Pkcs8(_))));
    }

    #[test]
    fn pkcs1_and_sec1_keys_are_read() {
        let files = Files::new();
        let section = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        assert!(matches!(read_key(&files.file(section("RSA PRIVATE KEY"))), Ok(PrivateKeyDer::Pkcs1(_))));
        let with_parameters = section("EC PARAMETERS") + &section("EC PRIVATE KEY");
        assert!(matches!(read_key(&files.file(with_parameters)), Ok(PrivateKeyDer::Sec1(_))));
    }

    #[test]
    fn an_encrypted_pkcs8_key_is_called_encrypted() {
        let files = Files::new();
        let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\r\nMAA=\r\n-----END ENCRYPTED PRIVATE KEY-----\r\n";
        assert!(matches!(read_key(&files.file(text)), Err(TlsError::EncryptedKey { .. })));
    }

    #[test]
    fn an_encrypted_traditional_key_is_called_encrypted() {
        let files = Files::new();
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n-----END RSA PRIVATE KEY-----\n";
        assert!(matches!(read_key(&files.file(text)), Err(TlsError::EncryptedKey { .. })));
    }

    #[test]
    fn two_keys_are_one_too_many() {
        let files = Files::new();
        let error = read_key(&files.file(key() + &key())).unwrap_err();
        assert!(matches!(error, TlsError::SeveralKeys { count: 2, .. }), "{error}");
    }

    #[test]
    fn a_cut_file_is_malformed_and_its_content_stays_secret() {
        let files = Files::new();
        let text = key();
        let (cut, _) = text.split_once("-----END").unwrap();
        let error = read_key(&files.file(cut)).unwrap_err();
        assert!(matches!(error, TlsError::Malformed { .. }), "{error}");
        let secret = cut.lines().nth(1).unwrap();
        assert!(!format!("{error} {error:?}").contains(secret));
    }

    #[test]
    fn broken_base64_is_malformed() {
        let files = Files::new();
        let text = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(read_chain(&files.file(text)), Err(TlsError::Malformed { .. })));
    }

    #[test]
    fn glued_certificates_are_both_read() {
        let files = Files::new();
        let file = files.file(format!("{}{}", certificate().trim_end(), certificate()));
        assert_eq!(read_chain(&file).unwrap().len(), 2);
    }

    #[test]
    fn der_is_read() {
        let files = Files::new();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        assert_eq!(read_chain(&files.file(made.cert.der())).unwrap(), [made.cert.der().clone()]);
        let key = read_key(&files.file(made.signing_key.serialize_der())).unwrap();
        assert_eq!(key.secret_der(), made.signing_key.serialize_der());
    }

    #[test]
    fn what_is_not_read_is_refused_with_what_it_is() {
        let files = Files::new();
        let section = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        let leaf = certificate();
        for (text, words) in [
            (section("TRUSTED CERTIFICATE"), "openssl x509 -in"),
            (leaf.clone() + &section("PKCS7"), "openssl pkcs7 -in"),
            (leaf.clone() + &section("SOMETHING NEW"), "`SOMETHING NEW`"),
            (leaf.clone() + &section("X509 CRL"), "client_crl"),
            (section("CERTIFICATE REQUEST"), "it has CERTIFICATE REQUEST"),
            (key(), "it has PRIVATE KEY"),
            ("LS0tLS1CRUdJTiBDRVJU".to_owned(), "base64 -d"),
            ("<html>".to_owned(), "an HTML"),
        ] {
            let error = read_chain(&files.file(&text)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}\n{text}");
        }
        let pkcs12 = [0x30, 0x82, 9, 9, 2, 1, 3, 0x30, 0x82];
        let file = files.file(pkcs12);
        for error in [read_chain(&file).unwrap_err(), read_key(&file).unwrap_err()] {
            assert!(error.to_string().contains("openssl pkcs12 -in"), "{error}");
        }
        for (text, words) in [
            (section("OPENSSH PRIVATE KEY"), "ssh-keygen"),
            (key() + &section("DSA PRIVATE KEY"), "DSA"),
            (leaf, "it has CERTIFICATE"),
        ] {
            let error = read_key(&files.file(&text)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}\n{text}");
        }
    }

    #[test]
    fn lists_beside_authorities_are_passed_over_only_where_they_are_read_elsewhere() {
        let files = Files::new();
        let list = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
        let file = files.file(certificate() + list);
        assert!(read_authorities(&file, false).is_err());
        assert_eq!(read_authorities(&file, true).unwrap().len(), 1);
        assert_eq!(read_crls(&file).unwrap().len(), 1);
    }

    #[test]
    fn a_second_section_that_cannot_be_decoded_is_an_error() {
        let files = Files::new();
        let text = certificate() + "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let error = read_chain(&files.file(text)).unwrap_err().to_string();
        assert!(error.contains("not base64"), "{error}");
    }

    #[test]
    fn the_same_key_twice_is_one_key() {
        let files = Files::new();
        let key = key();
        assert!(read_key(&files.file(format!("{key}{key}"))).is_ok());
    }

    #[test]
    fn a_folder_is_called_one() {
        let files = Files::new();
        let error = read_chain(files.0.path()).unwrap_err();
        assert!(matches!(error, TlsError::Folder { .. }), "{error}");
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let error = read_chain(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, TlsError::TooLarge { .. }), "{error}");
    }
}
