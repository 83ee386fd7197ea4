//! `[state]`: where bindings are kept and shared beyond the process.

use std::{fmt, path::Path, path::PathBuf, time::Duration};

use super::{
    address::parse_name,
    errors::Report,
    model::{Redis, State},
    raw::{path, socket_path},
    section::{Field, Section},
};

#[derive(Debug, Default)]
pub(super) struct RawState {
    file: Field<PathBuf>,
    redis: Field<RedisUrl>,
    redis_password_file: Field<PathBuf>,
    redis_ca: Field<PathBuf>,
    redis_timeout: Field<Duration>,
    redis_prefix: Field<Box<str>>,
    replica: Field<Box<str>>,
    handover: Field<PathBuf>,
}

/// The address of a Redis or Valkey server, of a cluster of them, or of Sentinels; may hold a password, and so
/// does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Box<str>);

// === impl RawState ===

impl RawState {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let state = Self {
            file: section.text("file", path),
            redis: section.text("redis", RedisUrl::parse),
            redis_password_file: section.text("redis_password_file", path),
            redis_ca: section.text("redis_ca", path),
            redis_timeout: section.positive("redis_timeout"),
            redis_prefix: section.text("redis_prefix", parse_name),
            replica: section.text("replica", parse_name),
            handover: section.text("handover", socket_path),
        };
        section.finish();
        state
    }

    pub(super) fn convert(self, base: &Path, has_secret: bool, report: &Report) -> State {
        if let (Some(span), false) = (self.redis.span(), has_secret) {
            report.add(
                span,
                "`redis` needs `secret_file`, the same on all replicas: under different secrets none would know \
                 the others' sessions",
            );
        }
        if self.redis.is_absent() {
            for (name, span) in [
                ("redis_password_file", self.redis_password_file.span()),
                ("redis_ca", self.redis_ca.span()),
                ("redis_timeout", self.redis_timeout.span()),
                ("redis_prefix", self.redis_prefix.span()),
            ] {
                if let Some(span) = span {
                    report.add(span, format!("`{name}` does nothing without `redis`"));
                }
            }
        }
        let file = |field: Field<PathBuf>| field.value().map(|file| base.join(file));
        State {
            file: file(self.file),
            handover: file(self.handover),
            replica: self.replica.value(),
            redis: self.redis.value().map(|url| Redis {
                url,
                password_file: file(self.redis_password_file),
                ca: file(self.redis_ca),
                timeout: self.redis_timeout.or(DEFAULT_TIMEOUT),
                prefix: self.redis_prefix.or_else(|| "homing".into()),
            }),
        }
    }
}

// === impl RedisUrl ===

impl RedisUrl {
    /// The schemes, and what they mean.
    pub const SCHEMES: [&'static str; 6] =
        ["redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"];

    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// What is wrong, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        if !Self::SCHEMES.contains(&scheme) {
            return Err(format!(
                "a Redis URL begins with one of {}",
                Self::SCHEMES.map(|s| format!("{s}://")).join(", ")
            ));
        }
        let hosts = rest.split('/').next().unwrap_or_default();
        let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
        if hosts.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("a Redis URL is scheme://user:password@host:port/database".to_owned());
        }
        Ok(Self(text.into()))
    }

    /// All of it, password included: for the client library only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    /// Without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let Some((login, hosts)) = rest.rsplit_once('@') else { return f.write_str(&self.0) };
        match login.split_once(':') {
            Some((user, _)) => write!(f, "{scheme}://{user}:***@{hosts}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url = RedisUrl::parse("rediss://app:s3cret@db.example:6380/0").unwrap();
        assert_eq!(format!("{url} {url:?}").matches("s3cret").count(), 0);
        assert_eq!(url.to_string(), "rediss://app:***@db.example:6380/0");
        let error = RedisUrl::parse("http://app:s3cret@db").unwrap_err();
        assert!(error.contains("redis+sentinel://") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn every_kind_of_server_has_a_scheme() {
        for text in ["redis://h", "redis+cluster://a:1,b:2", "rediss+sentinel://u:p@a:1,b:2/mymaster"] {
            assert_eq!(RedisUrl::parse(text).unwrap().reveal(), text);
        }
        for text in ["", "redis", "redis://", "redis://u:p@", "redis://a b"] {
            assert!(RedisUrl::parse(text).is_err(), "{text}");
        }
    }
}
