//! `[pool.tls]` and `[pool.limits]`: how backends are spoken to, and how much they are asked at a time.

use std::{
    fmt::{self, Write as _},
    num::NonZeroU32,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::{
    effective::{duration, path, quoted},
    errors::Report,
    excerpt::shown,
    model::{CertificateFiles, PoolLimits, PoolTls},
    raw,
    section::{Field, Section, kind, number},
};

#[derive(Debug, Default)]
pub(super) struct RawPoolTls {
    /// Where the table is, if it is there.
    span: Option<Range<usize>>,
    ca: Field<PathBuf>,
    pub(super) server_name: Field<Box<str>>,
    cert: Field<PathBuf>,
    key: Field<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct RawPoolLimits {
    connections: Field<Option<NonZeroU32>>,
    queue: Field<u32>,
    queue_timeout: Field<Duration>,
    retry_budget: Field<Option<u32>>,
}

// === impl RawPoolTls ===

impl RawPoolTls {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let tls = Self {
            span: section.is_present().then(|| section.span()),
            ca: section.text("ca", raw::path),
            server_name: section.text("server_name", parse_server_name),
            cert: section.text("cert", raw::path),
            key: section.text("key", raw::path),
        };
        section.finish();
        tls
    }

    /// `used` is whether any backend of the pool has an `https://` URL.
    pub(super) fn convert(self, used: bool, base: &Path, report: &Report) -> PoolTls {
        if let (Some(span), false) = (self.span, used) {
            report.add(span, "[pool.tls] does nothing in this pool: no backend has an `https://` URL");
        }
        for (given, missing, field) in [("cert", "key", &self.key), ("key", "cert", &self.cert)] {
            let other = if given == "cert" { &self.cert } else { &self.key };
            if let (Some(span), true) = (other.span(), field.is_absent()) {
                report.add(span, format!("`{given}` of a client certificate needs its `{missing}`"));
            }
        }
        let certificate = self.cert.value().zip(self.key.value());
        PoolTls {
            ca: self.ca.value().map(|file| base.join(file)),
            certificate: certificate
                .map(|(cert, key)| CertificateFiles { cert: base.join(cert), key: base.join(key) }),
        }
    }
}

// === impl RawPoolLimits ===

impl RawPoolLimits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let limits = Self {
            connections: section.take("connections", connections),
            queue: section.number("queue", 0..=QUEUE_MAX),
            queue_timeout: section.positive("queue_timeout"),
            retry_budget: section.take("retry_budget", retry_budget),
        };
        section.finish();
        limits
    }

    pub(super) fn convert(self) -> PoolLimits {
        PoolLimits {
            connections: self.connections.or(None),
            queue: self.queue.or(1000),
            queue_timeout: self.queue_timeout.or(Duration::from_secs(5)),
            retry_budget: self.retry_budget.or(Some(20)),
        }
    }
}

/// Reads the name that a certificate must have: a host name or an address.
pub(super) fn parse_server_name(text: &str) -> Result<Box<str>, String> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_ascii_lowercase().into()),
        Err(_) => {
            Err(format!("`{}` is no name that a certificate could have: write a host name", shown(text)))
        }
    }
}

pub(super) fn write_tls(tls: &PoolTls, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.tls]")?;
    if let Some(ca) = &tls.ca {
        writeln!(out, "ca = {}", path(ca))?;
    }
    if let Some(files) = &tls.certificate {
        writeln!(out, "cert = {}", path(&files.cert))?;
        writeln!(out, "key = {}", path(&files.key))?;
    }
    Ok(())
}

pub(super) fn write_limits(limits: &PoolLimits, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.limits]")?;
    match limits.connections {
        Some(connections) => writeln!(out, "connections = {connections}")?,
        None => writeln!(out, "connections = {}", quoted(UNLIMITED))?,
    }
    writeln!(out, "queue = {}", limits.queue)?;
    writeln!(out, "queue_timeout = {}", duration(limits.queue_timeout))?;
    let budget = limits.retry_budget.map_or_else(|| UNLIMITED.to_owned(), |percent| format!("{percent}%"));
    writeln!(out, "retry_budget = {}", quoted(budget))
}

fn connections(value: &DeValue<'_>) -> Result<Option<NonZeroU32>, String> {
    match value {
        DeValue::String(text) if text == UNLIMITED => Ok(None),
        DeValue::Integer(_) => number(value, &(1..=CONNECTIONS_MAX)).map(NonZeroU32::new),
        other => Err(format!("expected a whole number or \"{UNLIMITED}\", found {}", kind(other))),
    }
}

fn retry_budget(value: &DeValue<'_>) -> Result<Option<u32>, String> {
    let wrong =
        |found: &str| format!("expected a share from \"0%\" to \"100%\", or \"{UNLIMITED}\", found {found}");
    let DeValue::String(text) = value else { return Err(wrong(kind(value))) };
    if text == UNLIMITED {
        return Ok(None);
    }
    let digits = text.strip_suffix('%').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let percent = digits.and_then(|text| text.parse().ok()).filter(|percent| *percent <= 100);
    percent.map(Some).ok_or_else(|| wrong(&format!("`{}`", shown(text))))
}

const UNLIMITED: &str = "unlimited";
const CONNECTIONS_MAX: u32 = 1_000_000;
const QUEUE_MAX: u32 = 1_000_000;
