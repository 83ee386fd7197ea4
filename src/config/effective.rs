//! Writes a configuration out again, with everything that was left to defaults.

use std::{
    fmt::{self, Display, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    access_log::AccessLog,
    address::{format_backend_url, format_discover, format_host_pattern},
    backend_side,
    model::{
        Admin, Backend, CertificateFiles, Config, HealthCheck, Issue, Limits, Listen, PassiveHealth, Pool,
        PoolTimeouts, Route, State, Timeouts,
    },
    quantity::{format_duration, format_size},
    session::{
        format_balance, format_key, format_leave, format_on_down, format_on_unknown, format_same_site,
        format_skip, format_status,
    },
};
use crate::affinity::Settings;

impl Config {
    /// The configuration as TOML, all defaults filled in. [`Config::parse`] makes an equal value of it,
    /// as long as its paths are UTF-8 and the base directory is empty.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        write_config(self, &mut text).expect("writing to a String cannot fail");
        text
    }
}

fn write_config(config: &Config, out: &mut String) -> fmt::Result {
    writeln!(out, "workers = {}", config.workers)?;
    writeln!(out, "trusted_proxies = {}", list(&config.trusted_proxies, ToString::to_string))?;
    writeln!(out, "via = {}", config.via)?;
    if let Some(file) = &config.secret_file {
        writeln!(out, "secret_file = {}", path(file))?;
    }
    match &config.access_log {
        AccessLog::Off => writeln!(out, "access_log = false")?,
        AccessLog::Stdout => writeln!(out, "access_log = true")?,
        AccessLog::Stderr => writeln!(out, "access_log = \"stderr\"")?,
        AccessLog::File(file) => writeln!(out, "access_log = {}", path(file))?,
    }
    writeln!(out, "access_log_filter = {}", quoted(config.access_log_filter.as_str()))?;
    writeln!(out, "log_query = {}", config.log_query)?;
    match config.websocket_close {
        Some(code) => writeln!(out, "websocket_close = {}", code.get())?,
        None => writeln!(out, "websocket_close = \"none\"")?,
    }
    writeln!(out, "watch = {}", config.watch)?;
    if let Some(resolver) = config.resolver {
        writeln!(out, "resolver = {}", quoted(resolver))?;
    }
    writeln!(out, "dns_refresh = {}", duration(config.dns_refresh))?;
    if let Some(hsts) = config.hsts {
        writeln!(out, "hsts = {}", duration(hsts))?;
    }
    write_listen(&config.listen, out)?;
    write_admin(&config.admin, out)?;
    write_state(&config.state, out)?;
    for certificate in &config.certificates {
        write_certificate(certificate, out)?;
    }
    write_timeouts(&config.timeouts, out)?;
    write_limits(&config.limits, out)?;
    config.edge.write(out)?;
    for route in &config.routes {
        write_route(route, &config.pools, out)?;
    }
    config.pools.iter().try_for_each(|pool| write_pool(pool, out))?;
    config.tls.write(out)
}

fn write_listen(listen: &Listen, out: &mut String) -> fmt::Result {
    let optional = |address: Option<_>| address.map_or_else(|| "false".to_owned(), quoted);
    writeln!(out, "\n[listen]")?;
    writeln!(out, "https = {}", quoted(listen.https))?;
    writeln!(out, "http = {}", optional(listen.http))?;
    if let Some(port) = listen.redirect_port {
        writeln!(out, "redirect_port = {port}")?;
    }
    writeln!(out, "admin = {}", optional(listen.admin))?;
    writeln!(out, "proxy_protocol = {}", list(&listen.proxy_protocol, ToString::to_string))
}

fn format_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn write_admin(admin: &Admin, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[admin]")?;
    if let Some(file) = &admin.token_file {
        writeln!(out, "token_file = {}", path(file))?;
    }
    writeln!(out, "allow_changes = {}", admin.allow_changes)?;
    writeln!(out, "hosts = {}", list(&admin.hosts, |host| format_host(host)))?;
    if let Some(socket) = &admin.socket {
        writeln!(out, "socket = {}", path(socket))?;
    }
    Ok(())
}

/// The password in a URL is not written: that of a file is the better place for it.
pub(super) fn write_state(state: &State, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[state]")?;
    let mut file = |key: &str, file: &Option<PathBuf>| match file {
        Some(file) => writeln!(out, "{key} = {}", path(file)),
        None => Ok(()),
    };
    file("file", &state.file)?;
    file("handover", &state.handover)?;
    if let Some(redis) = &state.redis {
        file("redis_password_file", &redis.password_file)?;
        file("redis_ca", &redis.ca)?;
        writeln!(out, "redis = {}", quoted(&redis.url))?;
        writeln!(out, "redis_timeout = {}", duration(redis.timeout))?;
        writeln!(out, "redis_prefix = {}", quoted(&redis.prefix))?;
    }
    match &state.replica {
        Some(replica) => writeln!(out, "replica = {}", quoted(replica)),
        None => Ok(()),
    }
}

fn write_certificate(certificate: &CertificateFiles, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[[certificate]]")?;
    writeln!(out, "cert = {}", path(&certificate.cert))?;
    writeln!(out, "key = {}", path(&certificate.key))
}

pub(super) fn write_timeouts(timeouts: &Timeouts, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[timeouts]")?;
    writeln!(out, "handshake = {}", duration(timeouts.handshake))?;
    writeln!(out, "head = {}", duration(timeouts.head))?;
    writeln!(out, "idle = {}", duration(timeouts.idle))?;
    writeln!(out, "body = {}", duration(timeouts.body))?;
    writeln!(out, "drain = {}", duration(timeouts.drain))?;
    writeln!(out, "handover_drain = {}", duration(timeouts.handover_drain))?;
    writeln!(out, "websocket = {}", duration(timeouts.websocket))
}

pub(super) fn write_limits(limits: &Limits, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[limits]")?;
    writeln!(out, "head_size = {}", quoted(format_size(limits.head_size as u64)))?;
    writeln!(out, "headers = {}", limits.headers)?;
    writeln!(out, "body_size = {}", quoted(format_body_size(limits.body_size)))?;
    writeln!(out, "connections = {}", limits.connections)?;
    writeln!(out, "streams = {}", limits.streams)?;
    writeln!(out, "uri_size = {}", quoted(format_size(limits.uri_size as u64)))
}

fn format_body_size(size: Option<u64>) -> String {
    size.map_or_else(|| "unlimited".to_owned(), format_size)
}

fn write_route(route: &Route, pools: &[Pool], out: &mut String) -> fmt::Result {
    let pool = pools.get(route.pool).map_or("", |pool| &*pool.name);
    writeln!(out, "\n[[route]]")?;
    writeln!(out, "host = {}", quoted(format_host_pattern(&route.host)))?;
    writeln!(out, "path = {}", quoted(&route.path))?;
    writeln!(out, "pool = {}", quoted(pool))?;
    writeln!(out, "body_size = {}", quoted(format_body_size(route.body_size)))
}

fn write_pool(pool: &Pool, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[[pool]]")?;
    writeln!(out, "name = {}", quoted(&pool.name))?;
    writeln!(out, "balance = {}", quoted(format_balance(pool.affinity.balance)))?;
    writeln!(out, "slow_start = {}", duration(pool.affinity.slow_start))?;
    writeln!(out, "keep_alive = {}", pool.keep_alive)?;
    if let Some(name) = &pool.instance_header {
        writeln!(out, "instance_header = {}", quoted(name.as_str()))?;
    }
    writeln!(out, "leave = {}", quoted(format_leave(pool.leave)))?;
    write_affinity(&pool.affinity, pool.issue.is_none(), out)?;
    if let Some(issue) = &pool.issue {
        write_issue(issue, out)?;
    }
    if let Some(health) = &pool.health {
        write_health(health, out)?;
    }
    write_passive(&pool.passive, out)?;
    write_pool_timeouts(&pool.timeouts, out)?;
    backend_side::write_limits(&pool.limits, out)?;
    if pool.backends.iter().any(|backend| backend.tls.is_some()) {
        backend_side::write_tls(&pool.tls, out)?;
    }
    pool.backends.iter().try_for_each(|backend| write_backend(backend, out))
}

pub(super) fn write_passive(passive: &PassiveHealth, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.passive]")?;
    writeln!(out, "fall = {}", passive.fall)?;
    writeln!(out, "retry = {}", duration(passive.retry))
}

pub(super) fn write_pool_timeouts(timeouts: &PoolTimeouts, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.timeouts]")?;
    writeln!(out, "connect = {}", duration(timeouts.connect))?;
    writeln!(out, "head = {}", duration(timeouts.head))?;
    writeln!(out, "idle = {}", duration(timeouts.idle))
}

pub(super) fn write_affinity(affinity: &Settings, has_key: bool, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.affinity]")?;
    if has_key {
        writeln!(out, "key = {}", list(&affinity.keys, format_key))?;
    }
    writeln!(out, "session_timeout = {}", duration(affinity.session_timeout))?;
    writeln!(out, "ttl = {}", duration(affinity.ttl))?;
    writeln!(out, "max_ttl = {}", duration(affinity.max_ttl))?;
    if let Some(max_age) = affinity.max_age {
        writeln!(out, "max_age = {}", duration(max_age))?;
    }
    writeln!(out, "grace = {}", duration(affinity.grace))?;
    writeln!(out, "on_down = {}", quoted(format_on_down(affinity.on_down)))?;
    if has_key {
        writeln!(out, "on_unknown = {}", quoted(format_on_unknown(affinity.on_unknown)))?;
    }
    writeln!(out, "max_sessions = {}", affinity.max_sessions)?;
    writeln!(out, "skip = {}", list(&affinity.skip, format_skip))
}

pub(super) fn write_issue(issue: &Issue, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.affinity.issue]")?;
    writeln!(out, "cookie = {}", quoted(&issue.cookie))?;
    if let Some(file) = &issue.key_file {
        writeln!(out, "key_file = {}", path(file))?;
    }
    writeln!(out, "same_site = {}", quoted(format_same_site(issue.same_site)))
}

pub(super) fn write_health(health: &HealthCheck, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.health]")?;
    writeln!(out, "path = {}", quoted(&health.path))?;
    if let Some(host) = &health.host {
        writeln!(out, "host = {}", quoted(host))?;
    }
    writeln!(out, "interval = {}", duration(health.interval))?;
    writeln!(out, "timeout = {}", duration(health.timeout))?;
    writeln!(out, "rise = {}", health.rise)?;
    writeln!(out, "fall = {}", health.fall)?;
    writeln!(out, "expect = {}", list(&health.expect, |range| format_status(*range)))
}

fn write_backend(backend: &Backend, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[[pool.backend]]")?;
    writeln!(out, "name = {}", quoted(&backend.name))?;
    writeln!(
        out,
        "url = {}",
        quoted(format_backend_url(backend.tls.is_some(), &backend.host, backend.port))
    )?;
    writeln!(out, "weight = {}", backend.weight)?;
    if let Some(name) = &backend.tls {
        writeln!(out, "server_name = {}", quoted(name))?;
    }
    match backend.discover {
        Some(discover) => writeln!(out, "discover = {}", quoted(format_discover(discover))),
        None => Ok(()),
    }
}

pub(super) fn duration(duration: Duration) -> String {
    quoted(format_duration(duration))
}

pub(super) fn path(path: &Path) -> String {
    quoted(path.display())
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(text(item))).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string.
pub(super) fn quoted(value: impl Display) -> String {
    let value = value.to_string();
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
