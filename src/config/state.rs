//! `[state]`: where bindings are kept and shared beyond the process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    address::parse_name,
    errors::Report,
    model::{Redis, State},
    quantity::format_duration,
    raw::{path, socket_path},
    redis_url::RedisUrl,
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

// === impl RawState ===

impl RawState {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let state = Self {
            file: section.text("file", path),
            redis: section.text("redis", redis_url),
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
        if let Field::Set(timeout) = &self.redis_timeout
            && *timeout.get_ref() > MAX_TIMEOUT
        {
            report.add(
                timeout.span(),
                format!(
                    "`redis_timeout` must be at most {}: requests wait so long while redis hangs",
                    format_duration(MAX_TIMEOUT)
                ),
            );
        }
        if let Field::Set(url) = &self.redis {
            if let (Some(_), Some(span)) = (&url.get_ref().password, self.redis_password_file.span()) {
                report.add(span, "the URL of `redis` has a password already: leave it out there, or this");
            }
            if let (false, Some(span)) = (url.get_ref().tls, self.redis_ca.span()) {
                report.add(span, "`redis_ca` does nothing without TLS: `redis` must begin with `rediss`");
            }
        }
        if self.redis.is_absent() {
            for (name, span) in [
                ("redis_password_file", self.redis_password_file.span()),
                ("redis_ca", self.redis_ca.span()),
                ("redis_timeout", self.redis_timeout.span()),
                ("redis_prefix", self.redis_prefix.span()),
                ("replica", self.replica.span()),
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

fn redis_url(text: &str) -> Result<RedisUrl, String> {
    text.parse().map_err(|error| format!("this URL {error}"))
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
/// Clients give up not much later.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
