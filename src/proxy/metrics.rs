//! What the front door counts. Children are resolved once, when the process starts.

use http::Version;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

use super::flood::Kind;
use crate::backend::CLASSES;

/// Counters of the front door; shared by all workers.
#[derive(Debug)]
pub struct Metrics {
    /// Open client connections with TLS.
    pub https: IntGauge,
    /// Open client connections without.
    pub http: IntGauge,
    /// Connections turned away at the limit.
    pub over_limit: IntCounter,
    /// Connections turned away because their address has too many.
    pub over_address: IntCounter,
    /// Accepts that failed for want of a resource (file descriptors, memory).
    pub accept_failed: IntCounter,
    /// Handshakes done with TLS 1.2.
    pub tls12: IntCounter,
    /// Handshakes done with TLS 1.3.
    pub tls13: IntCounter,
    /// Handshakes that broke a rule of TLS.
    pub tls_failed: IntCounter,
    /// Handshakes that were not done in time.
    pub tls_timeout: IntCounter,
    /// Handshakes that the client broke off.
    pub tls_closed: IntCounter,
    /// Requests refused because their address asks too fast.
    pub rate_limited: IntCounter,
    /// Requests refused because too many are under way.
    pub overloaded: IntCounter,
    /// Handshakes that named no host of a certificate and had to.
    pub tls_unknown_name: IntCounter,
    /// Handshakes whose client had no certificate that counts and needed one.
    pub tls_client_certificate: IntCounter,
    /// PROXY headers of balancers.
    pub proxy_headers: ProxyHeaders,
    /// Open WebSockets.
    pub websockets: IntGauge,
    /// Access-log records that were lost because the log could not keep up.
    pub log_lost: IntCounter,
    floods: [IntCounter; Kind::ALL.len()],
    requests: [[IntCounter; CLASSES.len()]; Protocol::ALL.len()],
}

/// What became of connections that have to begin with a PROXY header.
#[derive(Debug)]
pub struct ProxyHeaders {
    /// The header named the client.
    pub client: IntCounter,
    /// The header named nobody: the balancer speaks for itself.
    pub local: IntCounter,
    /// What came was no header.
    pub malformed: IntCounter,
    /// The connection ended before.
    pub closed: IntCounter,
    /// It did not come in time.
    pub timeout: IntCounter,
}

/// The protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

// === impl Metrics ===

impl Metrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let connections =
            IntGaugeVec::new(Opts::new("homing_connections", "Open client connections."), &["listener"])?;
        let refused = IntCounterVec::new(
            Opts::new("homing_connections_refused_total", "Client connections not served."),
            &["reason"],
        )?;
        let handshakes = IntCounterVec::new(
            Opts::new("homing_tls_handshakes_total", "TLS handshakes by version and result."),
            &["version", "result"],
        )?;
        let headers = IntCounterVec::new(
            Opts::new(
                "homing_proxy_headers_total",
                "Connections that have to begin with a PROXY header, by what came.",
            ),
            &["result"],
        )?;
        let requests = IntCounterVec::new(
            Opts::new(
                "homing_http_requests_total",
                "Requests of clients by class of the answer and protocol.",
            ),
            &["code", "protocol"],
        )?;
        let turned_away = IntCounterVec::new(
            Opts::new("homing_http_requests_refused_total", "Requests refused at a limit of the front door."),
            &["reason"],
        )?;
        let floods = IntCounterVec::new(
            Opts::new(
                "homing_http2_floods_total",
                "HTTP/2 connections ended because of too many frames that serve no purpose.",
            ),
            &["frame"],
        )?;
        let websockets = IntGauge::new("homing_websockets", "Open WebSockets.")?;
        let log_lost = IntCounter::new(
            "homing_access_log_lost_total",
            "Access-log records that were lost because the log could not keep up.",
        )?;
        let collectors: [Box<dyn Collector>; 9] = [
            Box::new(connections.clone()),
            Box::new(refused.clone()),
            Box::new(handshakes.clone()),
            Box::new(requests.clone()),
            Box::new(turned_away.clone()),
            Box::new(floods.clone()),
            Box::new(websockets.clone()),
            Box::new(log_lost.clone()),
            Box::new(headers.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(Self {
            https: connections.with_label_values(&["https"]),
            http: connections.with_label_values(&["http"]),
            over_limit: refused.with_label_values(&["limit"]),
            over_address: refused.with_label_values(&["address"]),
            accept_failed: refused.with_label_values(&["resources"]),
            tls12: handshakes.with_label_values(&["1.2", "ok"]),
            tls13: handshakes.with_label_values(&["1.3", "ok"]),
            tls_failed: handshakes.with_label_values(&["", "failed"]),
            tls_timeout: handshakes.with_label_values(&["", "timeout"]),
            tls_closed: handshakes.with_label_values(&["", "closed"]),
            rate_limited: turned_away.with_label_values(&["rate"]),
            overloaded: turned_away.with_label_values(&["overload"]),
            tls_unknown_name: handshakes.with_label_values(&["", "unknown-name"]),
            tls_client_certificate: handshakes.with_label_values(&["", "client-certificate"]),
            proxy_headers: ProxyHeaders {
                client: headers.with_label_values(&["client"]),
                local: headers.with_label_values(&["local"]),
                malformed: headers.with_label_values(&["malformed"]),
                closed: headers.with_label_values(&["closed"]),
                timeout: headers.with_label_values(&["timeout"]),
            },
            websockets,
            log_lost,
            floods: Kind::ALL.map(|kind| floods.with_label_values(&[kind.as_str()])),
            requests: Protocol::ALL
                .map(|protocol| CLASSES.map(|class| requests.with_label_values(&[class, protocol.as_str()]))),
        })
    }

    /// Requests so far.
    pub fn requests_total(&self) -> u64 {
        self.requests.iter().flatten().map(IntCounter::get).sum()
    }

    /// Counts a client that floods.
    pub(super) fn flood(&self, kind: Kind) {
        self.floods[kind as usize].inc();
    }

    /// Counts a request; `status` is none when no answer was begun.
    pub fn request(&self, protocol: Protocol, status: Option<u16>) {
        let class = match status {
            Some(status @ 100..=599) => usize::from(status / 100) - 1,
            _ => CLASSES.len() - 1,
        };
        self.requests[protocol as usize][class].inc();
    }
}

// === impl Protocol ===

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Http10, Self::Http11, Self::Http2];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        match version {
            Version::HTTP_2 => Self::Http2,
            Version::HTTP_11 => Self::Http11,
            _ => Self::Http10,
        }
    }
}
