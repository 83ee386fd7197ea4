//! The proxy's own cookie: from what is written to what is meant.

use std::{ops::Range, path::Path};

use super::{
    errors::{Problem, Report},
    model::{Config, HostPattern, Issue, Pool, SameSite},
    raw::{RawAffinity, RawIssue},
};
use crate::affinity::KeySource;

/// Converts the cookie of one pool; none when it has none. A relative path is taken from `base`.
pub(super) fn issue(raw: RawIssue, base: &Path) -> Option<Issue> {
    raw.span?;
    Some(Issue {
        cookie: raw.cookie.or_else(|| DEFAULT_COOKIE.into()),
        key_file: raw.key_file.value().map(|file| base.join(file)),
        same_site: raw.same_site.or(SameSite::Lax),
    })
}

impl RawIssue {
    /// Where the cookie is configured, if it is, and rightly.
    pub(super) fn place(&self) -> Option<Range<usize>> {
        let table = self.span.clone().filter(|_| !self.cookie.is_bad())?;
        Some(self.cookie.span().unwrap_or(table))
    }
}

/// The proxy's cookie is for applications that have none of their own.
pub(super) fn check_exclusive(raw: &RawAffinity, report: &Report) {
    if let (Some(span), Some(_)) = (raw.on_unknown.span(), &raw.issue.span) {
        report.add(
            span,
            "`on_unknown` does nothing with `issue`: the proxy's own cookie names the backend of its session",
        );
    }
    if let (Some(span), Some(_)) = (raw.key.span(), &raw.issue.span) {
        report.push(Problem {
            span: Some(span),
            message: "`key` and `issue` exclude each other: with `issue`, the proxy's own cookie is the key"
                .to_owned(),
            help: Some(
                "`issue` is for applications without a session cookie: drop one of the two".to_owned(),
            ),
        });
    }
}

/// On one host, a browser has one cookie of a name: were it two pools', each would take the other's away.
/// `places` tells where each pool's cookie is configured.
pub(super) fn check_clashes(config: &Config, places: &[Option<Range<usize>>], report: &Report) {
    // Pools that are wrong in themselves are left out, and then places belong to others.
    if places.len() != config.pools.len() {
        return;
    }
    for (at, (pool, place)) in config.pools.iter().zip(places).enumerate() {
        let (Some(issue), Some(place)) = (&pool.issue, place) else { continue };
        let clash = config.pools.iter().enumerate().find(|(other_at, other)| {
            // Of two that issue, the later one is told.
            let told = *other_at < at || (*other_at > at && other.issue.is_none());
            told && has_cookie(other, &issue.cookie) && share_a_host(config, at, *other_at)
        });
        if let Some((_, other)) = clash {
            let (name, cookie) = (&other.name, &issue.cookie);
            report.push(Problem {
                span: Some(place.clone()),
                message: format!("pool `{name}` uses the cookie `{cookie}` on the same host already"),
                help: Some("give this one another name: `cookie = \"__Host-homing-2\"`".to_owned()),
            });
        }
    }
}

fn has_cookie(pool: &Pool, name: &str) -> bool {
    let issues = pool.issue.as_ref().is_some_and(|issue| &*issue.cookie == name);
    let reads = |key: &KeySource| matches!(key, KeySource::Cookie(cookie) if &**cookie == name);
    issues || pool.affinity.keys.iter().any(reads)
}

fn share_a_host(config: &Config, one: usize, other: usize) -> bool {
    let hosts = |pool| config.routes.iter().filter(move |route| route.pool == pool).map(|route| &route.host);
    hosts(one).any(|host| hosts(other).any(|other| overlap(host, other)))
}

fn overlap(one: &HostPattern, other: &HostPattern) -> bool {
    match (one, other) {
        (HostPattern::Any, _) | (_, HostPattern::Any) => true,
        (HostPattern::Exact(one), HostPattern::Exact(other)) => one == other,
        (HostPattern::Wildcard(suffix), HostPattern::Exact(name))
        | (HostPattern::Exact(name), HostPattern::Wildcard(suffix)) => name.ends_with(&**suffix),
        (HostPattern::Wildcard(one), HostPattern::Wildcard(other)) => {
            one.ends_with(&**other) || other.ends_with(&**one)
        }
    }
}

/// The prefix makes browsers hold us to `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3.2), so that
/// neither plain HTTP nor another host of the domain can set it.
const DEFAULT_COOKIE: &str = "__Host-homing";
