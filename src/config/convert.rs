//! From what is written to what is meant: fills in defaults and checks how the values fit together.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use toml::Spanned;

use super::{
    access_log,
    address::format_host_pattern,
    close_code::CloseCode,
    convert_issue, convert_pool,
    errors::Report,
    excerpt::shown,
    model::{Admin, CertificateFiles, Config, HostPattern, Limits, Listen, Pool, Route, Timeouts},
    raw::{RawAdmin, RawCertificate, RawConfig, RawLimits, RawListen, RawPool, RawRoute, RawTimeouts},
    section::{Field, Tables},
    suggest::instead,
};

/// Converts a whole configuration; relative paths are taken from `base`. What it returns is valid only
/// if `report` is empty afterwards.
pub(super) fn config(mut raw: RawConfig, base: &Path, report: &Report) -> Config {
    if raw.certificates.is_missing() && report.source().numbered {
        report.add_whole(
            "there is no [[certificate]]: HTTPS needs at least one",
            Some("`homing demo` makes one for localhost"),
        );
    }
    if raw.pools.is_missing() {
        report.add_whole("there is no [[pool]]: requests have nowhere to go", None);
    }
    let edge = std::mem::take(&mut raw.limits.edge).convert(report);
    let limits = limits(raw.limits);
    let routes = routes(raw.routes, &raw.pools, limits.body_size, report);
    let issues = raw.pools.list.iter().map(|pool| pool.affinity.issue.place()).collect::<Vec<_>>();
    let state = raw.state.convert(base, !raw.secret_file.is_absent(), report);
    // Bindings that outlive the process are of no use under a secret that dies with it.
    let beside = state.file.as_ref().map(|file| key_beside(file));
    let (access_log, access_log_filter) =
        access_log::convert(raw.access_log, raw.access_log_filter, base, report);
    let config = Config {
        listen: listen(raw.listen, report),
        admin: admin(raw.admin, base),
        workers: raw.workers.or_else(default_workers),
        certificates: certificates(raw.certificates.list, base, report),
        trusted_proxies: plain(raw.trusted_proxies.or_else(Vec::new)),
        via: raw.via.or(false),
        state,
        secret_file: raw.secret_file.value().map(|path| base.join(path)).or(beside),
        access_log,
        access_log_filter,
        log_query: raw.log_query.or(false),
        websocket_close: raw.websocket_close.or(Some(CloseCode::SERVICE_RESTART)),
        watch: raw.watch.or(false),
        resolver: raw.resolver.value(),
        dns_refresh: dns_refresh(raw.dns_refresh, report),
        timeouts: timeouts(raw.timeouts, report),
        limits,
        edge,
        hsts: raw.hsts.value(),
        routes,
        pools: pools(raw.pools.list, base, report),
        tls: raw.tls.convert(base, report),
    };
    convert_issue::check_clashes(&config, &issues, report);
    config
}

/// The values of a list, without their places.
pub(super) fn plain<T>(list: Vec<Spanned<T>>) -> Vec<T> {
    list.into_iter().map(Spanned::into_inner).collect()
}

fn dns_refresh(field: Field<Duration>, report: &Report) -> Duration {
    const LEAST: Duration = Duration::from_secs(1);
    if let (Some(span), Some(time)) = (field.span(), field.get())
        && *time < LEAST
    {
        report.add(span, "names are looked up once a second at most: `dns_refresh` is at least \"1s\"");
    }
    field.or(Duration::from_mins(1))
}

impl Config {
    /// Whether what this peer says about the clients that it forwards is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// The state file, where `secret_file` is the key file beside it: nobody named that.
    pub fn key_is_of_state(&self) -> Option<&Path> {
        let state = self.state.file.as_deref()?;
        (self.secret_file.as_deref() == Some(&*key_beside(state))).then_some(state)
    }
}

/// Where the secret of a state file is unless it is said otherwise.
fn key_beside(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

fn listen(raw: RawListen, report: &Report) -> Listen {
    let given = [
        ("https", raw.https.get().copied(), raw.https.span()),
        ("http", raw.http.get().copied().flatten(), raw.http.span()),
        ("admin", raw.admin.get().copied().flatten(), raw.admin.span()),
    ];
    for (index, (name, address, span)) in given.iter().enumerate() {
        let earlier = given[..index].iter().find(|(_, other, _)| other.is_some() && other == address);
        if let (Some((other, ..)), Some(address), Some(span)) = (earlier, address, span)
            && address.port() != 0
        {
            report.add(span.clone(), format!("`{name}` has the same address as `{other}`"));
        }
    }
    Listen {
        https: raw.https.or(DEFAULT_HTTPS),
        http: raw.http.or(None),
        redirect_port: raw.redirect_port.value(),
        admin: raw.admin.or(Some(DEFAULT_ADMIN)),
        proxy_protocol: plain(raw.proxy_protocol.or_else(Vec::new)),
    }
}

fn admin(raw: RawAdmin, base: &Path) -> Admin {
    Admin {
        token_file: raw.token_file.value().map(|file| base.join(file)),
        allow_changes: raw.allow_changes.or(false),
        hosts: plain(raw.hosts.or_else(Vec::new)),
        socket: raw.socket.value().map(|file| base.join(file)),
    }
}

fn certificates(raw: Vec<RawCertificate>, base: &Path, report: &Report) -> Vec<CertificateFiles> {
    let mut certificates = Vec::with_capacity(raw.len());
    for certificate in raw {
        for (name, field) in [("cert", &certificate.cert), ("key", &certificate.key)] {
            if field.is_absent() {
                report.add(certificate.span.clone(), format!("[[certificate]] has no `{name}`"));
            }
        }
        if let (Some(cert), Some(key)) = (certificate.cert.value(), certificate.key.value()) {
            certificates.push(CertificateFiles { cert: base.join(cert), key: base.join(key) });
        }
    }
    certificates
}

fn timeouts(raw: RawTimeouts, report: &Report) -> Timeouts {
    if let (Some(span), Some(time)) = (raw.handshake.span(), raw.handshake.get())
        && *time > HANDSHAKE_MAX
    {
        report.add(
            span,
            "`handshake` is at most \"30s\": until its end nobody knows who takes up the connection",
        );
    }
    Timeouts {
        handshake: raw.handshake.or(Duration::from_secs(10)),
        head: raw.head.or(Duration::from_secs(15)),
        idle: raw.idle.or(Duration::from_secs(75)),
        body: raw.body.or(Duration::from_secs(60)),
        drain: raw.drain.or(Duration::from_secs(30)),
        handover_drain: raw.handover_drain.or(Duration::from_hours(1)),
        websocket: raw.websocket.or(Duration::from_hours(1)),
    }
}

fn limits(raw: RawLimits) -> Limits {
    let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
    Limits {
        head_size: size(raw.head_size.or(64 << 10)),
        headers: size(raw.headers.or(100)),
        body_size: raw.body_size.or(None),
        connections: raw.connections.or(const { NonZeroUsize::new(10_000).unwrap() }),
        streams: raw.streams.or(const { NonZeroU32::new(100).unwrap() }),
        uri_size: size(raw.uri_size.or(16 << 10)),
    }
}

/// Resolves the names of pools, and makes the one route of a file that has one pool and no routes.
fn routes(
    raw: Tables<RawRoute>,
    pools: &Tables<RawPool>,
    body_size: Option<u64>,
    report: &Report,
) -> Vec<Route> {
    let pools_are_known = !pools.bad;
    let pools = &pools.list;
    if raw.is_missing() {
        if pools.len() > 1 {
            report.add_whole(
                format!("there are {} pools, but no [[route]] says which requests go where", pools.len()),
                None,
            );
        }
        return vec![Route { host: HostPattern::Any, path: "/".into(), pool: 0, body_size }];
    }
    let names: Vec<&str> = pools.iter().filter_map(|pool| pool.name.get()).map(|name| &**name).collect();
    let mut reached = vec![false; pools.len()];
    let mut all_known = !raw.bad && pools_are_known;
    let mut seen = HashMap::new();
    let mut routes = Vec::with_capacity(raw.list.len());
    for route in raw.list {
        let pool = route_pool(&route, pools, &names, report);
        match pool {
            Some(pool) => reached[pool] = true,
            None => all_known = false,
        }
        if route.host.is_bad() || route.path.is_bad() {
            continue;
        }
        let span = route.host.span().or_else(|| route.path.span()).unwrap_or_else(|| route.span.clone());
        let host = route.host.or(HostPattern::Any);
        let path = route.path.or_else(|| "/".into());
        let body_size = route.body_size.or(body_size);
        let key = (format_host_pattern(&host), path.clone());
        if let Some(first) = seen.get(&key) {
            let (host, path) = key;
            let place = report.place(first);
            report.add(span, format!("host `{host}` and path `{path}` already have a route {place}"));
        } else {
            seen.insert(key, span);
        }
        routes.extend(pool.map(|pool| Route { host, path, pool, body_size }));
    }
    // A misspelt name may be meant for any of the pools, so none is called unreached then.
    if all_known {
        for (pool, _) in pools.iter().zip(reached).filter(|(_, reached)| !reached) {
            if let Some(name) = pool.name.get() {
                let span = pool.name.span().unwrap_or_else(|| pool.span.clone());
                report.add(span, format!("no [[route]] leads to pool `{name}`"));
            }
        }
    }
    routes
}

fn route_pool(route: &RawRoute, pools: &[RawPool], names: &[&str], report: &Report) -> Option<usize> {
    if route.pool.is_absent() {
        report.add(route.span.clone(), "[[route]] has no `pool`");
    }
    let (name, span) = (route.pool.get()?, route.pool.span()?);
    let found = pools.iter().position(|pool| pool.name.get() == Some(name));
    if found.is_none() {
        let mut message = format!("there is no pool `{}`", shown(name));
        if !names.is_empty() {
            message.push_str(&instead(name, names));
        }
        report.add(span, message);
    }
    found
}

fn pools(raw: Vec<RawPool>, base: &Path, report: &Report) -> Vec<Pool> {
    let mut seen = HashMap::new();
    for pool in &raw {
        let (Some(name), Some(span)) = (pool.name.get(), pool.name.span()) else { continue };
        if let Some(first) = seen.get(name) {
            report.add(span, format!("there is already a pool `{name}` {}", report.place(first)));
        } else {
            seen.insert(name.clone(), span);
        }
    }
    raw.into_iter().filter_map(|pool| convert_pool::pool(pool, base, report)).collect()
}

fn default_workers() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
const DEFAULT_HTTPS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8443);
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
