//! PEM files in, DER out. The only file that knows rustls-pemfile.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls_pemfile::Item;

use super::TlsError;

/// The certificates of `file`, in its order; sections of other kinds are passed over.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, is empty, malformed, or has no certificate.
pub(crate) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let mut chain = Vec::new();
    for_each_item(file, &text, |item| {
        if let Item::X509Certificate(certificate) = item {
            chain.push(certificate);
        }
    })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(chain)
}

/// The certificate revocation lists of `file`; sections of other kinds are passed over.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, is empty, malformed, or has no list.
pub(crate) fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let text = read(file)?;
    let mut lists = Vec::new();
    for_each_item(file, &text, |item| {
        if let Item::Crl(list) = item {
            lists.push(list);
        }
    })?;
    if lists.is_empty() {
        return Err(TlsError::NoCrl { file: file.to_owned() });
    }
    Ok(lists)
}

/// The one private key of `file` (PKCS#8, PKCS#1 or SEC1); sections of other kinds are passed over.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, is empty, malformed, has no key, has several, or has
/// an encrypted one.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(file)?;
    // Before parsing: rustls-pemfile passes over the PKCS#8 kind and calls the other bad base64.
    if text.split(|byte| *byte == b'\n').any(says_encrypted) {
        return Err(TlsError::EncryptedKey { file: file.to_owned() });
    }
    let mut keys: Vec<PrivateKeyDer<'static>> = Vec::new();
    for_each_item(file, &text, |item| match item {
        Item::Pkcs8Key(key) => keys.push(key.into()),
        Item::Pkcs1Key(key) => keys.push(key.into()),
        Item::Sec1Key(key) => keys.push(key.into()),
        _ => {}
    })?;
    match keys.len() {
        0 => Err(TlsError::NoKey { file: file.to_owned() }),
        1 => Ok(keys.remove(0)),
        count => Err(TlsError::SeveralKeys { file: file.to_owned(), count }),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let text = read_bounded(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })?;
    if text.len() as u64 > LIMIT {
        return Err(TlsError::TooLarge { file: file.to_owned(), limit: LIMIT });
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(TlsError::Empty { file: file.to_owned() });
    }
    Ok(text)
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(LIMIT + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// RFC 7468 §11 (`ENCRYPTED PRIVATE KEY`), RFC 1421 §4.6.1.1 (`Proc-Type`).
fn says_encrypted(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
        || (line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED"))
}

fn for_each_item(file: &Path, text: &[u8], mut each: impl FnMut(Item)) -> Result<(), TlsError> {
    let mut rest = text;
    loop {
        match rustls_pemfile::read_one_from_slice(rest) {
            Ok(Some((item, remainder))) => {
                each(item);
                rest = remainder;
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                return Err(TlsError::Malformed { file: file.to_owned(), what: describe(&error).to_owned() });
            }
        }
    }
}

/// In words of our own, since the library's quote what they stumbled over, and that may be a key.
fn describe(error: &rustls_pemfile::Error) -> &'static str {
    match error {
        rustls_pemfile::Error::MissingSectionEnd { .. } => "a section has no END line",
        rustls_pemfile::Error::IllegalSectionStart { .. } => "a BEGIN line is broken",
        rustls_pemfile::Error::Base64Decode(_) => "a section is not base64",
    }
}

/// A chain of a hundred certificates is a tenth of this.
const LIMIT: u64 = 1024 * 1024;

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
    fn an_endless_file_is_not_read_to_its_end() {
        let error = read_chain(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, TlsError::TooLarge { .. }), "{error}");
    }
}
