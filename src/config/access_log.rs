//! `access_log` and `access_log_filter`: where records of requests go, and which.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use toml::de::DeValue;

use super::{
    errors::Report,
    excerpt::shown,
    section::{Field, kind},
    suggest::{instead, nearest},
};

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// JSON lines on standard output.
    Stdout,
    /// JSON lines on standard error, among the messages of the program.
    Stderr,
    /// JSON lines appended to this file.
    File(PathBuf),
}

/// Which requests the access log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFilter {
    /// All of them.
    #[default]
    All,
    /// Those that failed, or had to be sent more than once.
    Errors,
}

/// What `access_log` says: where, and by the word `errors` also which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWish {
    /// Where.
    pub to: AccessLog,
    /// Which; what `access_log_filter` says when none.
    pub filter: Option<LogFilter>,
}

const OFF: &[&str] = &["off", "none", "false", "no", "/dev/null"];
const STDOUT: &[&str] = &["stdout", "on", "true", "yes", "-", "/dev/stdout"];
const STDERR: &[&str] = &["stderr", "/dev/stderr"];
const ERRORS: &[&str] = &["errors"];

/// Reads the text of `access_log` or `--access-log`: a word in any case, or the path of a file.
///
/// # Errors
///
/// The text is nearly such a word, which would otherwise become the name of a file.
pub fn parse_access_log(text: &str) -> Result<LogWish, String> {
    let wish = |to, filter| Ok(LogWish { to, filter });
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if text.is_empty() || is(OFF) {
        return wish(AccessLog::Off, None);
    }
    if is(STDOUT) {
        return wish(AccessLog::Stdout, None);
    }
    if is(STDERR) {
        return wish(AccessLog::Stderr, None);
    }
    if is(ERRORS) {
        return wish(AccessLog::Stdout, Some(LogFilter::Errors));
    }
    if text.contains('\0') {
        return Err("a path is missing".to_owned());
    }
    let words = ["stdout", "stderr", "errors", "false"];
    if let Some(word) = nearest(text, words).filter(|_| !text.contains(['.', '/'])) {
        return Err(format!("did you mean `{word}`? A file of this name is `./{}`", shown(text)));
    }
    wish(AccessLog::File(PathBuf::from(text)), None)
}

/// Reads `access_log_filter`.
pub(super) fn parse_filter(text: &str) -> Result<LogFilter, String> {
    match text {
        "all" => Ok(LogFilter::All),
        "errors" => Ok(LogFilter::Errors),
        _ => Err(format!("unknown filter `{}`{}", shown(text), instead(text, &["all", "errors"]))),
    }
}

/// Reads `access_log` of a file.
pub(super) fn access_log(value: &DeValue<'_>) -> Result<LogWish, String> {
    match value {
        DeValue::Boolean(true) => Ok(LogWish { to: AccessLog::Stdout, filter: None }),
        DeValue::Boolean(false) => Ok(LogWish { to: AccessLog::Off, filter: None }),
        DeValue::String(text) => parse_access_log(text),
        other => Err(format!(
            "expected true, false, a path, or one of \"stdout\", \"stderr\", \"errors\" and \"off\", found {}",
            kind(other)
        )),
    }
}

/// Where records go, and which.
pub(super) fn convert(
    wish: Field<LogWish>,
    filter: Field<LogFilter>,
    base: &Path,
    report: &Report,
) -> (AccessLog, LogFilter) {
    let LogWish { to, filter: implied } = wish.or(LogWish { to: AccessLog::Off, filter: None });
    let span = filter.span();
    let filter = filter.value();
    if let (Some(LogFilter::Errors), Some(LogFilter::All), Some(span)) = (implied, filter, span) {
        report.add(span, "`access_log = \"errors\"` records errors only, and this says all requests");
    }
    let to = match to {
        AccessLog::File(path) => AccessLog::File(base.join(path)),
        other => other,
    };
    (to, filter.or(implied).unwrap_or_default())
}

// === impl AccessLog ===

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("standard output"),
            Self::Stderr => f.write_str("standard error"),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Errors => "errors",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> AccessLog {
        parse_access_log(text).unwrap().to
    }

    #[test]
    fn words_for_places_mean_what_they_say_in_any_case() {
        for (words, place) in [
            (&["off", "Off", "none", "no", "false", "", "/dev/null"][..], AccessLog::Off),
            (&["stdout", "STDOUT", "on", "true", "-", "/dev/stdout"], AccessLog::Stdout),
            (&["stderr", "/dev/stderr"], AccessLog::Stderr),
        ] {
            for word in words {
                assert_eq!(to(word), place, "{word}");
            }
        }
    }

    #[test]
    fn errors_are_written_to_standard_output() {
        let wish = LogWish { to: AccessLog::Stdout, filter: Some(LogFilter::Errors) };
        assert_eq!(parse_access_log("errors").unwrap(), wish);
    }

    #[test]
    fn everything_else_is_a_file_also_one_with_such_a_name() {
        for path in ["access.log", "./stdout", "/var/log/homing", "logs", "./off"] {
            assert_eq!(to(path), AccessLog::File(path.into()), "{path}");
        }
    }

    #[test]
    fn a_misspelt_word_becomes_no_file() {
        for (text, word) in [("stdot", "stdout"), ("error", "errors"), ("sterr", "stderr")] {
            let error = parse_access_log(text).unwrap_err();
            assert!(
                error.contains(&format!("`{word}`")) && error.contains(&format!("`./{text}`")),
                "{error}"
            );
        }
    }
}
