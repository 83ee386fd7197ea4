//! The all-in-one demo: certificates, three shops, and the configuration that puts the proxy in
//! front of them.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, StatusCode};

use super::{
    certs::{self, CertsError, DevelopmentCertificates},
    guide::Guide,
    shop::{Shop, ShopOptions, run},
};
use crate::{
    affinity::{Balance, KeySource, OnDown, Settings},
    clock,
    config::{
        AccessLog, Backend, Config, HealthCheck, HostPattern, Limits, Listen, PassiveHealth, Pool,
        PoolTimeouts, Route, Timeouts,
    },
};

/// Everything the demo needs, made and bound before anything runs.
#[derive(Debug)]
pub struct Demo {
    certificates: DevelopmentCertificates,
    apps: Vec<DemoApp>,
}

/// One shop and the socket it will be served on.
#[derive(Debug)]
pub struct DemoApp {
    shop: Arc<Shop>,
    listener: TcpListener,
    address: SocketAddr,
}

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No certificates.
    #[error(transparent)]
    Certificates(#[from] CertsError),
    /// A port is taken or not allowed.
    #[error("{address}: cannot listen: {source}; choose other ports by --app-port PORT")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The shops' ports would pass the last one there is.
    #[error("{APPS} ports from {0} on do not exist; choose a lower one by --app-port PORT")]
    NoSuchPort(u16),
}

// === impl Demo ===

impl Demo {
    /// Makes or reuses the certificates in `certs` and binds the shops to the loopback address, from
    /// `first_port` on, or to any free ports if that is 0. Nothing runs yet; dropping the value
    /// frees the ports.
    ///
    /// # Errors
    /// When a port is taken or the certificates cannot be made; each names the flag that helps.
    pub fn prepare(certs: &Path, first_port: u16) -> Result<Self, DemoError> {
        let ports = match first_port {
            0 => [0; APPS as usize],
            first if first > u16::MAX - (APPS - 1) => return Err(DemoError::NoSuchPort(first)),
            first => std::array::from_fn(|index| first + index as u16),
        };
        // Ports first: a second demo fails before it touches a file.
        let apps = (1..).zip(ports).map(|(number, port)| DemoApp::bind(number, port));
        let apps = apps.collect::<Result<_, _>>()?;
        Ok(Self { certificates: certs::prepare(certs, clock::wall())?, apps })
    }

    /// The certificates in use.
    pub fn certificates(&self) -> &DevelopmentCertificates {
        &self.certificates
    }

    /// The shops, in the order of their names.
    pub fn apps(&self) -> &[DemoApp] {
        &self.apps
    }

    /// Takes the shops out, to be run.
    pub fn into_apps(self) -> Vec<DemoApp> {
        self.apps
    }

    /// The configuration of the proxy in front: one pool `shop` for every host and path.
    pub fn config(&self, listen: Listen, workers: NonZeroUsize) -> Config {
        Config {
            listen,
            admin: crate::config::Admin { allow_changes: true, ..Default::default() },
            workers,
            certificates: vec![self.certificates.files.clone()],
            trusted_proxies: Vec::new(),
            access_log: AccessLog::Off,
            log_query: false,
            watch: false,
            timeouts: Timeouts {
                handshake: Duration::from_secs(10),
                head: Duration::from_secs(15),
                idle: Duration::from_secs(75),
                body: Duration::from_secs(60),
                drain: Duration::from_secs(10),
            },
            limits: Limits {
                head_size: 64 * 1024,
                headers: 100,
                body_size: None,
                connections: non_zero_usize(10_000),
                streams: non_zero(128),
            },
            hsts: None,
            routes: vec![Route { host: HostPattern::Any, path: "/".into(), pool: 0 }],
            pools: vec![self.pool()],
        }
    }

    /// What a person can try now, with commands that work as printed; the addresses are the bound
    /// ones.
    pub fn what_to_try(
        &self,
        https: SocketAddr,
        http: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> String {
        let apps = self.apps.iter().map(|app| (app.shop.name(), app.address)).collect();
        Guide { https, http, admin, ca: &self.certificates.ca, apps, session_timeout: SESSION_TIMEOUT }
            .to_string()
    }

    fn pool(&self) -> Pool {
        Pool {
            name: "shop".into(),
            affinity: Settings {
                keys: vec![KeySource::Cookie("session".into())],
                session_timeout: SESSION_TIMEOUT,
                ttl: TTL,
                max_ttl: Duration::from_hours(24),
                max_age: None,
                grace: Duration::from_secs(5),
                on_down: OnDown::Move,
                max_sessions: non_zero_usize(100_000),
                skip: Vec::new(),
                balance: Balance::LeastSessions,
                slow_start: Duration::ZERO,
            },
            health: Some(HealthCheck {
                path: "/healthz".into(),
                host: None,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: non_zero(2),
                fall: non_zero(3),
                expect: vec![(StatusCode::OK, StatusCode::OK)],
            }),
            passive: PassiveHealth { fall: non_zero(3), retry: Duration::from_secs(1) },
            timeouts: PoolTimeouts {
                connect: Duration::from_secs(2),
                head: Duration::from_secs(90),
                idle: Duration::from_secs(30),
            },
            keep_alive: 64,
            instance_header: Some(HeaderName::from_static("x-instance")),
            backends: self.apps.iter().map(DemoApp::backend).collect(),
        }
    }
}

// === impl DemoApp ===

impl DemoApp {
    /// Its address; the port is the bound one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The shop.
    pub fn shop(&self) -> &Arc<Shop> {
        &self.shop
    }

    /// Serves the shop until `shutdown`; see [`run`].
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        run(listener, self.shop, shutdown).await;
        Ok(())
    }

    fn bind(number: u16, port: u16) -> Result<Self, DemoError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| DemoError::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let options =
            ShopOptions { session_timeout: SESSION_TIMEOUT, ..ShopOptions::named(format!("app-{number}")) };
        let shop = Shop::new(options).expect("the demo's own options make sense");
        Ok(Self { shop: Arc::new(shop), listener, address })
    }

    fn backend(&self) -> Backend {
        Backend {
            name: self.shop.name().into(),
            host: self.address.ip().to_string().into(),
            port: self.address.port(),
            weight: NonZeroU32::MIN,
        }
    }
}

fn non_zero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("the demo's own numbers are not zero")
}

fn non_zero_usize(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("the demo's own numbers are not zero")
}

const APPS: u16 = 3;
/// Short, so that one can watch a session end.
const SESSION_TIMEOUT: Duration = Duration::from_mins(10);
const TTL: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn listen() -> Listen {
        Listen { https: ([127, 0, 0, 1], 0).into(), http: None, admin: None }
    }

    #[test]
    fn the_configuration_names_the_bound_shops() {
        let dir = tempfile::tempdir().unwrap();
        let demo = Demo::prepare(dir.path(), 0).unwrap();
        let config = demo.config(listen(), NonZeroUsize::MIN);
        let backends = &config.pools[0].backends;
        assert_eq!(backends.iter().map(|b| &*b.name).collect::<Vec<_>>(), ["app-1", "app-2", "app-3"]);
        for (backend, app) in backends.iter().zip(demo.apps()) {
            assert_eq!((&*backend.host, backend.port), ("127.0.0.1", app.address().port()));
        }
    }

    #[test]
    fn a_busy_port_is_named_with_the_flag_and_no_certificate_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = busy.local_addr().unwrap().port();
        let error = Demo::prepare(dir.path(), port).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:") && error.contains("--app-port"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn ports_beyond_the_last_one_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Demo::prepare(dir.path(), u16::MAX).unwrap_err();
        assert!(matches!(error, DemoError::NoSuchPort(u16::MAX)), "{error}");
    }
}
