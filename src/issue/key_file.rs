//! Files of sealing keys: one a line, base64 or hexadecimal, `#` begins a comment.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};

use crate::affinity::SealingKey;

/// What is wrong with a key file; never quotes its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error(
        "{0}: there is no such key file; make one: openssl rand -base64 32 > {0} && chmod 600 {0}",
        file.display()
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// It cannot be opened or read.
    #[error("{}: cannot read it: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error(
        "{0}: others than its owner have access to this key file (mode {mode:03o}): chmod 600 {0}",
        file.display()
    )]
    Open {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is far bigger than any key file.
    #[error("{}: larger than {limit} bytes, this is no key file", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Bytes read at most.
        limit: u64,
    },
    /// It has comments at most.
    #[error("{0}: no key in it; make one: openssl rand -base64 32 >> {0}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A line is no key.
    #[error("{}: line {line} is not a key: 32 bytes in base64 or hexadecimal", file.display())]
    NotAKey {
        /// The file.
        file: PathBuf,
        /// Its number, from 1.
        line: usize,
    },
    /// More keys than a rotation needs, each of which costs time for a token that none opens.
    #[error("{}: {count} keys in it, at most {limit} make sense", file.display())]
    TooMany {
        /// The file.
        file: PathBuf,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The system gave no random bytes for a key.
    #[error("no randomness to be had for the key of `issue`")]
    NoRandomness,
}

/// The keys of `file`, in its order; at least one.
///
/// # Errors
/// What is wrong with the file, and what to do about it.
pub(super) fn read(file: &Path) -> Result<Vec<SealingKey>, KeyFileError> {
    let text = read_private(file)?;
    let mut keys = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        match key(line) {
            Some(key) => keys.push(key),
            None => return Err(KeyFileError::NotAKey { file: file.to_owned(), line: index + 1 }),
        }
    }
    match keys.len() {
        0 => Err(KeyFileError::Empty { file: file.to_owned() }),
        1..=KEYS_MAX => Ok(keys),
        count => Err(KeyFileError::TooMany { file: file.to_owned(), count, limit: KEYS_MAX }),
    }
}

fn read_private(file: &Path) -> Result<Vec<u8>, KeyFileError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => KeyFileError::Missing { file: file.to_owned() },
        _ => KeyFileError::Read { file: file.to_owned(), source },
    };
    let opened = File::open(file).map_err(failed)?;
    // Of what was opened, not of what may be there by now.
    let mode = opened.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { file: file.to_owned(), mode });
    }
    let mut text = Vec::new();
    opened.take(SIZE_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(KeyFileError::TooLarge { file: file.to_owned(), limit: SIZE_MAX });
    }
    Ok(text)
}

/// 64 hexadecimal digits, or base64 of either alphabet, with or without padding.
fn key(text: &[u8]) -> Option<SealingKey> {
    let encodings = [HEXLOWER_PERMISSIVE, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD];
    let mut decoded = encodings.iter().filter_map(|encoding| encoding.decode(text).ok());
    decoded.find_map(|bytes| bytes.try_into().ok()).map(SealingKey::new)
}

const SIZE_MAX: u64 = 64 << 10;
const KEYS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use tempfile::TempDir;

    use super::*;

    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn read(&self, text: impl AsRef<[u8]>, mode: u32) -> Result<Vec<SealingKey>, KeyFileError> {
            let file = self.0.path().join("issue.keys");
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            read(&file)
        }

        fn refused(&self, text: impl AsRef<[u8]>) -> String {
            self.read(text, 0o600).unwrap_err().to_string()
        }
    }

    fn key_of(byte: u8) -> SealingKey {
        SealingKey::new([byte; 32])
    }

    #[test]
    fn keys_are_read_in_every_spelling_and_in_their_order() {
        let (one, two) = ([0xfb; 32], [2; 32]);
        let hex = HEXLOWER_PERMISSIVE.encode(&two);
        let text = format!(
            "# new\n{}\r\n\n  {}  # old\n{}\n{hex}\n{}",
            BASE64.encode(&one),
            BASE64URL_NOPAD.encode(&one),
            BASE64URL.encode(&one),
            hex.to_uppercase()
        );
        let keys = Files::new().read(text, 0o600).unwrap();
        assert_eq!(keys, [0xfb, 0xfb, 0xfb, 2, 2].map(key_of));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let files = Files::new();
        let text = BASE64.encode(&[1; 32]);
        for mode in [0o644, 0o640, 0o604, 0o620] {
            let error = files.read(&text, mode).unwrap_err().to_string();
            let file = files.0.path().join("issue.keys").display().to_string();
            assert!(error.starts_with(&file) && error.ends_with(&format!("chmod 600 {file}")), "{error}");
            assert!(error.contains(&format!("{mode:o}")), "{error}");
        }
        assert_eq!(files.read(&text, 0o400).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_file_is_answered_with_how_to_make_one() {
        let error = read(Path::new("/nowhere/issue.keys")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/issue.keys: there is no such key file"), "{error}");
        assert!(
            error.ends_with("openssl rand -base64 32 > /nowhere/issue.keys && chmod 600 /nowhere/issue.keys")
        );
    }

    #[test]
    fn what_is_no_key_is_told_by_its_line_and_never_quoted() {
        let files = Files::new();
        let good = BASE64.encode(&[1; 32]);
        for wrong in ["hunter2", &good[..40], &"ab".repeat(31), &format!("{good}{good}"), "é"] {
            let error = files.refused(format!("# keys\n{good}\n{wrong}\n"));
            assert!(error.contains("line 3 is not a key") && !error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_file_without_keys_or_with_too_much_is_refused() {
        let files = Files::new();
        assert!(files.refused("# none yet\n\n").contains("no key in it"));
        assert!(files.refused("\n".repeat(100_000)).contains("larger than"));
        let many = format!("{}\n", BASE64.encode(&[1; 32])).repeat(KEYS_MAX + 1);
        assert!(files.refused(many).contains("17 keys"));
        let error = read(files.0.path()).unwrap_err();
        assert!(matches!(error, KeyFileError::Read { .. } | KeyFileError::Open { .. }), "a folder: {error}");
    }
}
