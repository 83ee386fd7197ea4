//! The token that changes through the admin API need.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use http::HeaderValue;
use subtle::ConstantTimeEq as _;

/// A bearer token (RFC 6750). Whoever has it may change things; it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// Why a token cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system does not let us.
    #[error("cannot read the token file {}: {error}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("the token file {} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Others may read it.
    #[error("the token file {} may be read by others than its owner: chmod 600 it", .0.display())]
    Exposed(PathBuf),
    /// Too short to be safe, too long to be a token, or not fit for a header field.
    #[error("the token file {} must hold {MIN} to {MAX} visible ASCII characters, such as those of `openssl rand -hex 32`", .0.display())]
    Unfit(PathBuf),
}

/// Characters that resist guessing.
const MIN: usize = 16;
const MAX: usize = 512;
/// Bytes of a file, whitespace included.
const READ: usize = 4 * MAX;
/// Bits of the mode that let the group and others read.
const OTHERS_READ: u32 = 0o044;

// === impl Token ===

impl Token {
    /// Reads a token file; whitespace around the token is no part of it.
    ///
    /// # Errors
    ///
    /// When the file is not regular, may be read by others, or does not hold a token.
    pub fn load(file: &Path) -> Result<Self, TokenError> {
        let failed = |error| TokenError::Io { file: file.to_owned(), error };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(TokenError::NotAFile(file.to_owned()));
        }
        let open = File::open(file).map_err(failed)?;
        if open.metadata().map_err(failed)?.mode() & OTHERS_READ != 0 {
            return Err(TokenError::Exposed(file.to_owned()));
        }
        let mut text = Vec::new();
        // One more than there may be, so that nothing is cut off unseen.
        open.take(READ as u64 + 1).read_to_end(&mut text).map_err(failed)?;
        let token = text.trim_ascii();
        if text.len() > READ || !(MIN..=MAX).contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic)
        {
            return Err(TokenError::Unfit(file.to_owned()));
        }
        let token = String::from_utf8_lossy(token);
        Ok(Self(token.into()))
    }

    /// Whether this is it. How long that takes tells the length at most.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// The value of an `Authorization` field that presents it.
    pub fn credentials(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0))
            .expect("visible characters are a field value");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn load(content: &str, mode: u32) -> Result<Token, TokenError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        Token::load(&file)
    }

    #[test]
    fn whitespace_around_a_token_is_no_part_of_it() {
        let token = load(&format!("\n {SECRET}\r\n"), 0o600).unwrap();
        assert!(token.matches(SECRET.as_bytes()));
    }

    #[test]
    fn only_the_whole_token_matches() {
        let token = load(SECRET, 0o400).unwrap();
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o644] {
            let error = load(SECRET, mode).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn tokens_that_are_short_long_or_odd_are_refused() {
        for content in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé7", &"a".repeat(513)] {
            assert!(matches!(load(content, 0o600), Err(TokenError::Unfit(_))), "{content}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Token::load(folder.path()), Err(TokenError::NotAFile(_))));
        assert!(matches!(Token::load(&folder.path().join("none")), Err(TokenError::Io { .. })));
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = load(SECRET, 0o600).unwrap();
        assert!(!format!("{token:?} {:?}", token.credentials()).contains(SECRET));
    }
}
