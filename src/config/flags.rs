//! A configuration from command-line flags alone, for one pool and no file.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{
    access_log::LogWish,
    address::{parse_backend_url, parse_name, parse_target},
    convert,
    errors::{ConfigErrors, Report, Source},
    model::{CertificateFiles, Config},
    quantity::format_duration,
    raw::{RawAffinity, RawBackend, RawCertificate, RawConfig, RawHealth, RawIssue, RawPool},
    section::Field,
    session::{format_balance, parse_cookie_name},
};
use crate::affinity::Balance;

/// What flags can say about a configuration without a file. Everything that is left out has the
/// default of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// Certificates, at least one.
    pub certificates: Vec<CertificateFiles>,
    /// Backends, at least one.
    pub backends: Vec<BackendFlag>,
    /// Name of the application's session cookie.
    pub cookie: Option<String>,
    /// Whether the proxy sets a cookie of its own instead.
    pub issue: bool,
    /// The application's own idle timeout.
    pub session_timeout: Option<Duration>,
    /// Idle time after which a binding is forgotten.
    pub ttl: Option<Duration>,
    /// Path of the active check.
    pub health_path: Option<String>,
    /// How a request without a binding is placed.
    pub balance: Option<Balance>,
    /// Listeners and what else a flag may also change in a file.
    pub overrides: Overrides,
}

/// `URL` or `NAME=URL`, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFlag(String);

/// The flags as a text, one flag a line, so that errors can show where they are.
#[derive(Default)]
struct CommandLine {
    text: String,
    problems: Vec<(Range<usize>, String)>,
}

/// What flags change in a configuration, wherever it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The TLS front door.
    pub https: Option<SocketAddr>,
    /// The plain HTTP listener; `Some(None)` switches it off.
    pub http: Option<Option<SocketAddr>>,
    /// The admin listener; `Some(None)` switches it off.
    pub admin: Option<Option<SocketAddr>>,
    /// Data-plane threads.
    pub workers: Option<NonZeroUsize>,
    /// Where the access log goes.
    pub access_log: Option<LogWish>,
}

impl Config {
    /// Makes a configuration of flags: one pool named `app`, which serves everything.
    ///
    /// # Errors
    /// All errors at once, each showing the flag.
    pub fn from_flags(flags: &Flags) -> Result<Self, ConfigErrors> {
        let mut line = CommandLine::default();
        let raw = raw(flags, &mut line);
        let report =
            Report::new(Source { name: "command line".to_owned(), text: line.text, numbered: false });
        for (span, message) in line.problems {
            report.add(span, message);
        }
        if flags.certificates.is_empty() {
            report.add_whole(
                "there is no certificate: give `--cert` and `--key`",
                Some("`homing demo` makes one for localhost"),
            );
        }
        if flags.backends.is_empty() {
            report.add_whole("there is no backend: give `--backend`", None);
            return report.finish(None);
        }
        let mut config = convert::config(raw, Path::new(""), &report);
        config.override_with(&flags.overrides);
        report.finish(Some(config))
    }

    /// Changes what flags change.
    pub fn override_with(&mut self, overrides: &Overrides) {
        self.listen.https = overrides.https.unwrap_or(self.listen.https);
        self.listen.http = overrides.http.unwrap_or(self.listen.http);
        self.listen.admin = overrides.admin.unwrap_or(self.listen.admin);
        self.workers = overrides.workers.unwrap_or(self.workers);
        if let Some(LogWish { to, filter }) = &overrides.access_log {
            self.access_log = to.clone();
            self.access_log_filter = filter.unwrap_or(self.access_log_filter);
        }
    }
}

// === impl BackendFlag ===

impl From<String> for BackendFlag {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for BackendFlag {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl BackendFlag {
    /// Name, if there is one, and URL.
    fn split(&self) -> (Option<&str>, &str) {
        match self.0.split_once('=') {
            Some((name, url)) if !name.contains("://") => (Some(name), url),
            _ => (None, &self.0),
        }
    }
}

// === impl CommandLine ===

impl CommandLine {
    /// Writes a flag. Returns where its value stands.
    fn write(&mut self, flag: &str, value: &str) -> Range<usize> {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(flag);
        self.text.push(' ');
        let start = self.text.len();
        self.text.push_str(value);
        start..self.text.len()
    }

    /// Writes a flag that is already understood.
    fn known<T>(&mut self, flag: &str, value: Option<T>, written: impl FnOnce(&T) -> String) -> Field<T> {
        match value {
            None => Field::Absent,
            Some(value) => Field::set(self.write(flag, &written(&value)), value),
        }
    }

    /// Writes a flag and reads it.
    fn read<T>(
        &mut self,
        flag: &str,
        value: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Field<T> {
        let Some(value) = value else { return Field::Absent };
        let span = self.write(flag, value);
        self.parsed(span, parse(value))
    }

    fn parsed<T>(&mut self, span: Range<usize>, parsed: Result<T, String>) -> Field<T> {
        match parsed {
            Ok(value) => Field::set(span, value),
            Err(message) => {
                self.problems.push((span, message));
                Field::Bad
            }
        }
    }
}

fn raw(flags: &Flags, line: &mut CommandLine) -> RawConfig {
    let path = |path: &PathBuf| path.display().to_string();
    let certificates = flags.certificates.iter().map(|files| RawCertificate {
        span: 0..0,
        cert: line.known("--cert", Some(files.cert.clone()), path),
        key: line.known("--key", Some(files.key.clone()), path),
    });
    let certificates: Vec<_> = certificates.collect();
    let backends: Vec<_> = flags.backends.iter().map(|flag| backend(flag, line)).collect();
    let zero = |duration: &Duration| duration.is_zero();
    let mut duration = |flag, value: Option<Duration>| match value.filter(zero) {
        Some(_) => line.read(flag, Some("0s"), |_| Err("must be longer than zero".to_owned())),
        None => line.known(flag, value, |value| format_duration(*value)),
    };
    let (session_timeout, ttl) =
        (duration("--session-timeout", flags.session_timeout), duration("--ttl", flags.ttl));
    let cookie = line.read("--cookie", flags.cookie.as_deref(), parse_cookie_name);
    let issue = RawIssue { span: flags.issue.then(|| line.write("--issue", "")), ..RawIssue::default() };
    let path = line.read("--health-path", flags.health_path.as_deref(), parse_target);
    let pool = RawPool {
        name: Field::set(0..0, POOL_NAME.into()),
        balance: line.known("--balance", flags.balance, |balance| format_balance(*balance).to_owned()),
        affinity: RawAffinity {
            key: cookie.map(|cookie| vec![Spanned::new(0..0, cookie)]),
            session_timeout,
            ttl,
            issue,
            ..RawAffinity::default()
        },
        health: RawHealth { span: path.span(), path, ..RawHealth::default() },
        backends: backends.into(),
        ..RawPool::default()
    };
    RawConfig { certificates: certificates.into(), pools: vec![pool].into(), ..RawConfig::default() }
}

fn backend(flag: &BackendFlag, line: &mut CommandLine) -> RawBackend {
    let span = line.write("--backend", &flag.0);
    let (name, url) = flag.split();
    let url_span = span.end - url.len()..span.end;
    RawBackend {
        name: name
            .map_or(Field::Absent, |name| line.parsed(span.start..span.start + name.len(), parse_name(name))),
        url: line.parsed(url_span, parse_backend_url(url)),
        span,
        ..RawBackend::default()
    }
}

/// The name of the pool that flags make.
const POOL_NAME: &str = "app";
