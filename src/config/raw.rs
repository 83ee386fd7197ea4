//! The file as it is written: each value understood by itself, nothing known yet about how they fit.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    ops::Range,
    path::PathBuf,
    time::Duration,
};

use http::{HeaderName, StatusCode};
use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    access_log::{LogFilter, LogWish, access_log, parse_filter},
    address::{
        BackendUrl, parse_admin_host, parse_authority, parse_backend_url, parse_discover, parse_host_pattern,
        parse_listen, parse_name, parse_network, parse_path_prefix, parse_resolver, parse_target,
    },
    backend_side::{RawPoolLimits, RawPoolTls, parse_server_name},
    close_code::{CloseCode, close_code},
    edge::RawEdge,
    model::{Discover, HostPattern, Leave, SameSite},
    quantity::format_size,
    schema,
    section::{Field, Section, Tables, kind, number, size, text},
    session::{
        parse_balance, parse_instance_header, parse_issued_name, parse_key, parse_leave, parse_on_down,
        parse_on_unknown, parse_same_site, parse_skip, parse_status,
    },
    state::RawState,
    tls::RawTls,
};
use crate::affinity::{Balance, KeySource, OnDown, OnUnknown, PathPattern};

#[derive(Debug, Default)]
pub(super) struct RawConfig {
    pub(super) workers: Field<NonZeroUsize>,
    pub(super) trusted_proxies: Field<Vec<Spanned<IpNet>>>,
    pub(super) via: Field<bool>,
    pub(super) secret_file: Field<PathBuf>,
    pub(super) access_log: Field<LogWish>,
    pub(super) access_log_filter: Field<LogFilter>,
    pub(super) log_query: Field<bool>,
    pub(super) websocket_close: Field<Option<CloseCode>>,
    pub(super) watch: Field<bool>,
    pub(super) resolver: Field<SocketAddr>,
    pub(super) dns_refresh: Field<Duration>,
    pub(super) hsts: Field<Duration>,
    pub(super) listen: RawListen,
    pub(super) admin: RawAdmin,
    pub(super) state: RawState,
    pub(super) certificates: Tables<RawCertificate>,
    pub(super) timeouts: RawTimeouts,
    pub(super) limits: RawLimits,
    pub(super) routes: Tables<RawRoute>,
    pub(super) pools: Tables<RawPool>,
    pub(super) tls: RawTls,
}

/// `None` is a listener that is switched off.
#[derive(Debug, Default)]
pub(super) struct RawListen {
    pub(super) https: Field<SocketAddr>,
    pub(super) http: Field<Option<SocketAddr>>,
    pub(super) redirect_port: Field<NonZeroU16>,
    pub(super) admin: Field<Option<SocketAddr>>,
    pub(super) proxy_protocol: Field<Vec<Spanned<IpNet>>>,
}

#[derive(Debug, Default)]
pub(super) struct RawAdmin {
    pub(super) token_file: Field<PathBuf>,
    pub(super) allow_changes: Field<bool>,
    pub(super) hosts: Field<Vec<Spanned<Box<str>>>>,
    pub(super) socket: Field<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct RawCertificate {
    pub(super) span: Range<usize>,
    pub(super) cert: Field<PathBuf>,
    pub(super) key: Field<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct RawTimeouts {
    pub(super) handshake: Field<Duration>,
    pub(super) head: Field<Duration>,
    pub(super) idle: Field<Duration>,
    pub(super) body: Field<Duration>,
    pub(super) drain: Field<Duration>,
    pub(super) handover_drain: Field<Duration>,
    pub(super) websocket: Field<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct RawLimits {
    pub(super) head_size: Field<u32>,
    pub(super) headers: Field<u32>,
    pub(super) body_size: Field<Option<u64>>,
    pub(super) connections: Field<NonZeroUsize>,
    pub(super) streams: Field<NonZeroU32>,
    pub(super) uri_size: Field<u32>,
    pub(super) edge: RawEdge,
}

#[derive(Debug, Default)]
pub(super) struct RawRoute {
    pub(super) span: Range<usize>,
    pub(super) host: Field<HostPattern>,
    pub(super) path: Field<Box<str>>,
    pub(super) pool: Field<Box<str>>,
    pub(super) body_size: Field<Option<u64>>,
}

#[derive(Debug, Default)]
pub(super) struct RawPool {
    pub(super) span: Range<usize>,
    pub(super) name: Field<Box<str>>,
    pub(super) balance: Field<Balance>,
    pub(super) slow_start: Field<Duration>,
    pub(super) keep_alive: Field<u32>,
    pub(super) instance_header: Field<HeaderName>,
    pub(super) leave: Field<Leave>,
    pub(super) affinity: RawAffinity,
    pub(super) health: RawHealth,
    pub(super) passive: RawPassive,
    pub(super) timeouts: RawPoolTimeouts,
    pub(super) backends: Tables<RawBackend>,
    pub(super) tls: RawPoolTls,
    pub(super) limits: RawPoolLimits,
}

#[derive(Debug, Default)]
pub(super) struct RawAffinity {
    pub(super) key: Field<Vec<Spanned<KeySource>>>,
    pub(super) session_timeout: Field<Duration>,
    pub(super) ttl: Field<Duration>,
    pub(super) max_ttl: Field<Duration>,
    pub(super) max_age: Field<Duration>,
    pub(super) grace: Field<Duration>,
    pub(super) on_down: Field<OnDown>,
    pub(super) on_unknown: Field<OnUnknown>,
    pub(super) max_sessions: Field<NonZeroUsize>,
    pub(super) skip: Field<Vec<Spanned<PathPattern>>>,
    pub(super) issue: RawIssue,
}

#[derive(Debug, Default)]
pub(super) struct RawIssue {
    /// Where the table is, if it is there.
    pub(super) span: Option<Range<usize>>,
    pub(super) cookie: Field<Box<str>>,
    pub(super) key_file: Field<PathBuf>,
    pub(super) same_site: Field<SameSite>,
}

#[derive(Debug, Default)]
pub(super) struct RawHealth {
    /// Where the table is, if it is there.
    pub(super) span: Option<Range<usize>>,
    pub(super) path: Field<Box<str>>,
    pub(super) host: Field<Box<str>>,
    pub(super) interval: Field<Duration>,
    pub(super) timeout: Field<Duration>,
    pub(super) rise: Field<NonZeroU32>,
    pub(super) fall: Field<NonZeroU32>,
    pub(super) expect: Field<Vec<Spanned<(StatusCode, StatusCode)>>>,
}

#[derive(Debug, Default)]
pub(super) struct RawPassive {
    pub(super) fall: Field<NonZeroU32>,
    pub(super) retry: Field<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct RawPoolTimeouts {
    pub(super) connect: Field<Duration>,
    pub(super) head: Field<Duration>,
    pub(super) idle: Field<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct RawBackend {
    pub(super) span: Range<usize>,
    pub(super) name: Field<Box<str>>,
    pub(super) url: Field<BackendUrl>,
    pub(super) weight: Field<NonZeroU32>,
    pub(super) discover: Field<Discover>,
    pub(super) server_name: Field<Box<str>>,
}

// === impl RawConfig ===

impl RawConfig {
    pub(super) fn read(mut root: Section<'_>) -> Self {
        let config = Self {
            workers: root.count_usize("workers", WORKERS_MAX),
            trusted_proxies: root.list("trusted_proxies", |value| text(value, parse_network)),
            via: root.boolean("via"),
            secret_file: root.text("secret_file", path),
            access_log: root.take("access_log", access_log),
            access_log_filter: root.text("access_log_filter", parse_filter),
            log_query: root.boolean("log_query"),
            websocket_close: root.take("websocket_close", close_code),
            watch: root.boolean("watch"),
            resolver: root.text("resolver", parse_resolver),
            dns_refresh: root.positive("dns_refresh"),
            hsts: root.duration("hsts"),
            listen: RawListen::read(root.section("listen", &schema::LISTEN)),
            admin: RawAdmin::read(root.section("admin", &schema::ADMIN)),
            state: RawState::read(root.section("state", &schema::STATE)),
            certificates: root.tables("certificate", &schema::CERTIFICATE, RawCertificate::read),
            timeouts: RawTimeouts::read(root.section("timeouts", &schema::TIMEOUTS)),
            limits: RawLimits::read(root.section("limits", &schema::LIMITS)),
            routes: root.tables("route", &schema::ROUTE, RawRoute::read),
            pools: root.tables("pool", &schema::POOL, RawPool::read),
            tls: RawTls::read(root.section("tls", &schema::TLS)),
        };
        root.finish();
        config
    }
}

impl RawListen {
    fn read(mut section: Section<'_>) -> Self {
        let listen = Self {
            https: section.text("https", parse_listen),
            http: section.take("http", listener),
            redirect_port: section.take("redirect_port", port),
            admin: section.take("admin", listener),
            proxy_protocol: section.list("proxy_protocol", |value| text(value, parse_network)),
        };
        section.finish();
        listen
    }
}

impl RawAdmin {
    fn read(mut section: Section<'_>) -> Self {
        let admin = Self {
            token_file: section.text("token_file", path),
            allow_changes: section.boolean("allow_changes"),
            hosts: section.list("hosts", |value| text(value, parse_admin_host)),
            socket: section.text("socket", socket_path),
        };
        section.finish();
        admin
    }
}

impl RawCertificate {
    fn read(mut section: Section<'_>) -> Self {
        let certificate =
            Self { span: section.span(), cert: section.text("cert", path), key: section.text("key", path) };
        section.finish();
        certificate
    }
}

impl RawTimeouts {
    fn read(mut section: Section<'_>) -> Self {
        let timeouts = Self {
            handshake: section.positive("handshake"),
            head: section.positive("head"),
            idle: section.positive("idle"),
            body: section.positive("body"),
            drain: section.duration("drain"),
            handover_drain: section.duration("handover_drain"),
            websocket: section.positive("websocket"),
        };
        section.finish();
        timeouts
    }
}

impl RawLimits {
    fn read(mut section: Section<'_>) -> Self {
        let limits = Self {
            head_size: section.take("head_size", head_size),
            headers: section.number("headers", 1..=HEADERS_MAX),
            body_size: section.take("body_size", body_size),
            connections: section.count_usize("connections", CONNECTIONS_MAX),
            streams: section.count("streams", STREAMS_MAX),
            uri_size: section.take("uri_size", uri_size),
            edge: RawEdge::read(&mut section),
        };
        section.finish();
        limits
    }
}

impl RawRoute {
    fn read(mut section: Section<'_>) -> Self {
        let route = Self {
            span: section.span(),
            host: section.text("host", parse_host_pattern),
            path: section.text("path", parse_path_prefix),
            pool: section.text("pool", |text| Ok(text.into())),
            body_size: section.take("body_size", body_size),
        };
        section.finish();
        route
    }
}

impl RawPool {
    fn read(mut section: Section<'_>) -> Self {
        let pool = Self {
            span: section.span(),
            name: section.text("name", parse_name),
            balance: section.text("balance", parse_balance),
            slow_start: section.duration("slow_start"),
            keep_alive: section.number("keep_alive", 0..=KEEP_ALIVE_MAX),
            instance_header: section.text("instance_header", parse_instance_header),
            leave: section.text("leave", parse_leave),
            affinity: RawAffinity::read(section.section("affinity", &schema::AFFINITY)),
            health: RawHealth::read(section.section("health", &schema::HEALTH)),
            passive: RawPassive::read(section.section("passive", &schema::PASSIVE)),
            timeouts: RawPoolTimeouts::read(section.section("timeouts", &schema::POOL_TIMEOUTS)),
            backends: section.tables("backend", &schema::BACKEND, RawBackend::read),
            tls: RawPoolTls::read(section.section("tls", &schema::POOL_TLS)),
            limits: RawPoolLimits::read(section.section("limits", &schema::POOL_LIMITS)),
        };
        section.finish();
        pool
    }
}

impl RawAffinity {
    fn read(mut section: Section<'_>) -> Self {
        let affinity = Self {
            key: section.list("key", |value| text(value, parse_key)),
            session_timeout: section.positive("session_timeout"),
            ttl: section.positive("ttl"),
            max_ttl: section.positive("max_ttl"),
            max_age: section.positive("max_age"),
            grace: section.duration("grace"),
            on_down: section.text("on_down", parse_on_down),
            on_unknown: section.text("on_unknown", parse_on_unknown),
            max_sessions: section.count_usize("max_sessions", MAX_SESSIONS_MAX),
            skip: section.list("skip", |value| text(value, parse_skip)),
            issue: RawIssue::read(section.section("issue", &schema::ISSUE)),
        };
        section.finish();
        affinity
    }
}

impl RawIssue {
    fn read(mut section: Section<'_>) -> Self {
        let issue = Self {
            span: section.is_present().then(|| section.span()),
            cookie: section.text("cookie", parse_issued_name),
            key_file: section.text("key_file", path),
            same_site: section.text("same_site", parse_same_site),
        };
        section.finish();
        issue
    }
}

impl RawHealth {
    fn read(mut section: Section<'_>) -> Self {
        let health = Self {
            span: section.is_present().then(|| section.span()),
            path: section.text("path", parse_target),
            host: section.text("host", parse_authority),
            interval: section.positive("interval"),
            timeout: section.positive("timeout"),
            rise: section.count("rise", CHECKS_MAX),
            fall: section.count("fall", CHECKS_MAX),
            expect: section.list("expect", status),
        };
        section.finish();
        health
    }
}

impl RawPassive {
    fn read(mut section: Section<'_>) -> Self {
        let passive = Self { fall: section.count("fall", CHECKS_MAX), retry: section.positive("retry") };
        section.finish();
        passive
    }
}

impl RawPoolTimeouts {
    fn read(mut section: Section<'_>) -> Self {
        let timeouts = Self {
            connect: section.positive("connect"),
            head: section.positive("head"),
            idle: section.positive("idle"),
        };
        section.finish();
        timeouts
    }
}

impl RawBackend {
    fn read(mut section: Section<'_>) -> Self {
        let backend = Self {
            span: section.span(),
            name: section.text("name", parse_name),
            url: section.text("url", parse_backend_url),
            weight: section.count("weight", WEIGHT_MAX),
            discover: section.text("discover", parse_discover),
            server_name: section.text("server_name", parse_server_name),
        };
        section.finish();
        backend
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        Err("a path is missing".to_owned())
    } else {
        Ok(PathBuf::from(text))
    }
}

pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_MAX {
        return Err(format!(
            "a socket's path has at most {SOCKET_PATH_MAX} bytes, this one has {}",
            text.len()
        ));
    }
    path(text)
}

fn listener(value: &DeValue<'_>) -> Result<Option<SocketAddr>, String> {
    match value {
        DeValue::Boolean(false) => Ok(None),
        DeValue::String(text) => parse_listen(text).map(Some),
        other => Err(format!("expected an address in quotes or false, found {}", kind(other))),
    }
}

fn port(value: &DeValue<'_>) -> Result<NonZeroU16, String> {
    let port = number(value, &(1..=u16::MAX.into()))?;
    u16::try_from(port).ok().and_then(NonZeroU16::new).ok_or_else(|| "a port is 1 to 65535".to_owned())
}

fn head_size(value: &DeValue<'_>) -> Result<u32, String> {
    size_within(value, HEAD_SIZE_MIN, HEAD_SIZE_MAX)
}

fn uri_size(value: &DeValue<'_>) -> Result<u32, String> {
    size_within(value, URI_SIZE_MIN, URI_SIZE_MAX)
}

fn size_within(value: &DeValue<'_>, min: u32, max: u32) -> Result<u32, String> {
    let size = size(value)?;
    u32::try_from(size).ok().filter(|size| (min..=max).contains(size)).ok_or_else(|| {
        let (min, max) = (format_size(min.into()), format_size(max.into()));
        format!("{} is not between {min} and {max}", format_size(size))
    })
}

fn body_size(value: &DeValue<'_>) -> Result<Option<u64>, String> {
    match value {
        DeValue::String(text) if text == "unlimited" => Ok(None),
        value => size(value).map(Some),
    }
}

fn status(value: &DeValue<'_>) -> Result<(StatusCode, StatusCode), String> {
    match value {
        DeValue::Integer(_) => number(value, &(200..=599)).and_then(|code| parse_status(&code.to_string())),
        value => text(value, parse_status),
    }
}

/// Less than the 107 bytes of `sun_path` in unix(7), since the socket is made under a longer name.
const SOCKET_PATH_MAX: usize = 80;
const WORKERS_MAX: u32 = 1024;
/// What a browser with many cookies sends has to fit.
const HEAD_SIZE_MIN: u32 = 8 << 10;
const HEAD_SIZE_MAX: u32 = 1 << 20;
const URI_SIZE_MIN: u32 = 1 << 10;
/// The http crate takes no URI of 64 KiB.
const URI_SIZE_MAX: u32 = 60 << 10;
const HEADERS_MAX: u32 = 10_000;
const CONNECTIONS_MAX: u32 = 10_000_000;
const STREAMS_MAX: u32 = 10_000;
const KEEP_ALIVE_MAX: u32 = 10_000;
const MAX_SESSIONS_MAX: u32 = 1_000_000_000;
const CHECKS_MAX: u32 = 1000;
const WEIGHT_MAX: u32 = 1000;
