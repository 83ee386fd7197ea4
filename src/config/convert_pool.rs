//! From a pool as it is written to a pool as it is meant.

use std::{
    collections::HashMap,
    mem,
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    ops::Range,
    path::Path,
    time::Duration,
};

use http::StatusCode;
use toml::Spanned;

use super::{
    address::{BackendUrl, PREFIX_MAX, format_backend_url, parse_name},
    backend_side::parse_server_name,
    convert::plain,
    convert_issue,
    errors::Report,
    model::{Backend, HealthCheck, Leave, PassiveHealth, Pool, PoolTimeouts},
    quantity::format_duration,
    raw::{RawAffinity, RawBackend, RawHealth, RawPassive, RawPool, RawPoolTimeouts},
    section::Field,
    session::format_key,
};
use crate::affinity::{Balance, KeySource, KeySources, OnDown, OnUnknown, Settings};

/// Converts one pool; none when its name is missing or wrong, which is reported.
pub(super) fn pool(mut raw: RawPool, base: &Path, report: &Report) -> Option<Pool> {
    if raw.name.is_absent() {
        report.add(raw.span.clone(), "[[pool]] has no `name`");
    }
    if raw.backends.is_missing() {
        let span = raw.name.span().unwrap_or_else(|| raw.span.clone());
        report.add(span, "this pool has no [[pool.backend]]");
    } else if raw.backends.list.len() > BACKENDS_MAX {
        report.add(raw.span, format!("a pool has {BACKENDS_MAX} backends at most"));
    }
    convert_issue::check_exclusive(&raw.affinity, report);
    let issue = convert_issue::issue(mem::take(&mut raw.affinity.issue), base);
    let affinity = affinity(raw.affinity, issue.is_some(), raw.balance, raw.slow_start, report);
    let health = health(raw.health, report);
    // A wrong URL may be meant for TLS.
    let secure =
        |backend: &RawBackend| backend.url.is_bad() || backend.url.get().is_some_and(|url| url.secure);
    let secure = raw.backends.bad || raw.backends.list.iter().any(secure);
    let backends = backends(raw.backends.list, raw.tls.server_name.get().map(|name| &**name), report);
    Some(Pool {
        name: raw.name.value()?,
        affinity,
        issue,
        health,
        passive: passive(raw.passive),
        timeouts: timeouts(raw.timeouts),
        keep_alive: usize::try_from(raw.keep_alive.or(64)).unwrap_or(usize::MAX),
        instance_header: raw.instance_header.value(),
        leave: raw.leave.or(Leave::Drain),
        backends,
        tls: raw.tls.convert(secure, base, report),
        limits: raw.limits.convert(),
    })
}

fn affinity(
    raw: RawAffinity,
    issues: bool,
    balance: Field<Balance>,
    slow_start: Field<Duration>,
    report: &Report,
) -> Settings {
    let timeouts_are_good = !raw.session_timeout.is_bad() && !raw.ttl.is_bad();
    let ttl_span = raw.ttl.span();
    let session_timeout = raw.session_timeout.or(DEFAULT_SESSION_TIMEOUT);
    let ttl = raw.ttl.or(session_timeout * 3 / 2);
    if let Some(span) = ttl_span
        && timeouts_are_good
        && ttl <= session_timeout
    {
        let (ttl, session_timeout) = (format_duration(ttl), format_duration(session_timeout));
        report.add(
            span,
            format!(
                "`ttl` ({ttl}) is not longer than `session_timeout` ({session_timeout}): the proxy would \
                 forget sessions that the application still holds"
            ),
        );
    }
    let max_ttl_span = raw.max_ttl.span();
    let max_ttl = raw.max_ttl.or(ttl.max(DEFAULT_MAX_TTL));
    if let Some(span) = max_ttl_span
        && timeouts_are_good
        && max_ttl < ttl
    {
        let (max_ttl, ttl) = (format_duration(max_ttl), format_duration(ttl));
        report.add(span, format!("`max_ttl` ({max_ttl}) is shorter than `ttl` ({ttl})"));
    }
    check_keys(&raw.key, report);
    let keys = match raw.key.value() {
        Some(keys) => plain(keys).into(),
        None if issues => KeySources::default(),
        None => KeySources::well_known(),
    };
    Settings {
        keys,
        session_timeout,
        ttl,
        max_ttl,
        max_age: raw.max_age.value(),
        grace: raw.grace.or(Duration::from_secs(10)),
        on_down: raw.on_down.or(OnDown::Move),
        on_unknown: raw.on_unknown.or_else(OnUnknown::default),
        max_sessions: raw.max_sessions.or(const { NonZeroUsize::new(1_000_000).unwrap() }),
        skip: plain(raw.skip.or_else(Vec::new)),
        balance: balance.or_else(Balance::default),
        slow_start: slow_start.or(Duration::from_secs(10)),
    }
}

/// A key that is never reached is a mistake: one that stands there twice, or behind the client's
/// address, which every request has.
fn check_keys(keys: &Field<Vec<Spanned<KeySource>>>, report: &Report) {
    let keys = keys.get().map_or(&[][..], Vec::as_slice);
    if let Some(key) = keys.get(KeySources::MAX) {
        report.add(key.span(), format!("more than {} keys", KeySources::MAX));
    }
    for (index, key) in keys.iter().enumerate() {
        let earlier = keys[..index].iter().map(Spanned::get_ref);
        let text = format_key(key.get_ref());
        if earlier.clone().any(|earlier| earlier == key.get_ref()) {
            report.add(key.span(), format!("`{text}` is already in the list"));
        } else if earlier.clone().any(|earlier| matches!(earlier, KeySource::Address { .. })) {
            report.add(
                key.span(),
                format!("`{text}` is never tried: every request has an address, so put `address` last"),
            );
        }
    }
}

fn health(raw: RawHealth, report: &Report) -> Option<HealthCheck> {
    let span = raw.span?;
    if raw.path.is_absent() {
        report.add(span, "[pool.health] has no `path`: without one there are no active checks");
    }
    if let (Some([]), Some(span)) = (raw.expect.get().map(Vec::as_slice), raw.expect.span()) {
        report.add(span, "`expect` is empty: no answer would ever do");
    }
    Some(HealthCheck {
        path: raw.path.value()?,
        host: raw.host.value(),
        interval: raw.interval.or(Duration::from_secs(2)),
        timeout: raw.timeout.or(Duration::from_secs(1)),
        rise: raw.rise.or(const { NonZeroU32::new(2).unwrap() }),
        fall: raw.fall.or(const { NonZeroU32::new(3).unwrap() }),
        expect: plain(raw.expect.or_else(|| vec![Spanned::new(0..0, default_expect())])),
    })
}

fn passive(raw: RawPassive) -> PassiveHealth {
    PassiveHealth {
        fall: raw.fall.or(const { NonZeroU32::new(3).unwrap() }),
        retry: raw.retry.or(Duration::from_secs(1)),
    }
}

fn timeouts(raw: RawPoolTimeouts) -> PoolTimeouts {
    PoolTimeouts {
        connect: raw.connect.or(Duration::from_secs(2)),
        head: raw.head.or(Duration::from_secs(60)),
        idle: raw.idle.or(Duration::from_secs(30)),
    }
}

fn backends(raw: Vec<RawBackend>, server_name: Option<&str>, report: &Report) -> Vec<Backend> {
    let (mut names, mut urls) = (HashMap::new(), HashMap::new());
    let mut backends = Vec::with_capacity(raw.len());
    for backend in raw {
        if backend.url.is_absent() {
            report.add(backend.span.clone(), "[[pool.backend]] has no `url`");
        }
        let (name_span, url_span) = (backend.name.span(), backend.url.span());
        let Some(url) = backend.url.value() else { continue };
        let url_span = url_span.unwrap_or_else(|| backend.span.clone());
        let written = format_backend_url(url.secure, &url.host, url.port);
        let tls = tls_name(&url, &backend.server_name, server_name, &url_span, report);
        let repeated = urls.contains_key(&written);
        if let Some(first) = urls.get(&written) {
            report.add(url_span.clone(), format!("`{written}` is already a backend {}", report.place(first)));
        } else {
            urls.insert(written, url_span.clone());
        }
        if backend.name.is_bad() {
            continue;
        }
        let derived = format!("{}:{}", url.host, url.port);
        let span = name_span.clone().unwrap_or(url_span);
        let discover = backend.discover.get().copied();
        if let (Some(discover), Some(_)) = (backend.discover.span(), address_of(&url.host)) {
            let host = &url.host;
            report.add(discover, format!("`discover` needs a host name in `url`: `{host}` is an address"));
        }
        if name_span.is_none() && parse_name(&derived).is_err() {
            report
                .add(span.clone(), format!("`{derived}` is too long for a name: give this backend a `name`"));
        }
        let name = backend.name.or_else(|| derived.into());
        if discover.is_some() && name.len() > PREFIX_MAX {
            let message = format!(
                "`{name}` is too long for backends that are discovered, whose names are this and an address: \
                 give this one a `name` of at most {PREFIX_MAX}"
            );
            report.add(span.clone(), message);
        }
        if let Some(first) = names.get(&name) {
            // Without a name, a repeated URL has been reported already.
            if name_span.is_some() || !repeated {
                report.add(span, format!("there is already a backend `{name}` {}", report.place(first)));
            }
        } else {
            names.insert(name.clone(), span);
        }
        backends.push(Backend {
            name,
            host: url.host,
            port: url.port,
            weight: backend.weight.or(NonZeroU32::MIN),
            discover,
            tls,
        });
    }
    check_found_names(&backends, &names, report);
    backends
}

/// No written backend may have a name that discovery could give.
fn check_found_names(backends: &[Backend], places: &HashMap<Box<str>, Range<usize>>, report: &Report) {
    for backend in backends.iter().filter(|backend| backend.discover.is_some()) {
        for other in backends {
            let rest = other.name.strip_prefix(&*backend.name).and_then(|rest| rest.strip_prefix('-'));
            if let (Some(_), Some(span)) = (rest.and_then(address_of), places.get(&other.name)) {
                let (name, prefix) = (&other.name, &backend.name);
                report.add(
                    span.clone(),
                    format!("`{name}` is the name of a backend that `{prefix}` may discover: choose another"),
                );
            }
        }
    }
}

/// The name that a backend's certificate must have.
fn tls_name(
    url: &BackendUrl,
    own: &Field<Box<str>>,
    of_pool: Option<&str>,
    url_span: &Range<usize>,
    report: &Report,
) -> Option<Box<str>> {
    if !url.secure {
        if let Some(span) = own.span() {
            report.add(span, "`server_name` does nothing here: the `url` of this backend is not `https://`");
        }
        return None;
    }
    if let Some(name) = own.get().map(|name| &**name).or(of_pool) {
        return Some(name.into());
    }
    parse_server_name(&url.host).map_err(|error| report.add(url_span.clone(), error)).ok()
}

fn address_of(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn default_expect() -> (StatusCode, StatusCode) {
    (StatusCode::OK, StatusCode::from_u16(399).expect("any number of three digits is a status"))
}

const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_mins(30);
const DEFAULT_MAX_TTL: Duration = Duration::from_hours(24);
/// Backends of a pool at most. They have small numbers inside; this many leave room for those that come and go.
pub const BACKENDS_MAX: usize = 4096;
