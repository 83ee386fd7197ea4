//! What one request left behind: counted and logged exactly once, however it ends.
//!
//! A [`Record`] travels with its request and then with the answer's body; its drop writes it. Whatever
//! drops it early (a client that goes away, a panic) thereby leaves a record that says so.

use std::{net::IpAddr, rc::Rc, time::Duration};

use http::{HeaderValue, Method, Request};
use serde::Serialize;
use tokio::time::Instant;

use super::{Worker, activity::Busy, metrics::Protocol, redact, request_body::Tally};
use crate::{
    admission::RequestPermit,
    affinity::{Reason, SessionKey, Verdict},
    clock,
    config::Config,
    error::{Blame, Fault},
    tls::Identity,
};

/// One request's record.
#[derive(Debug)]
pub(super) struct Record {
    worker: Rc<Worker>,
    protocol: Protocol,
    status: Option<u16>,
    /// Whether the whole answer has been handed on.
    complete: bool,
    started: Instant,
    /// Only when the access log is on.
    detail: Option<Box<Detail>>,
    /// Its place among the requests under way, once it has one.
    permit: Option<RequestPermit>,
    /// The connection is not idle while this lives.
    _busy: Busy,
}

/// What only the access log wants to know.
#[derive(Debug, Default)]
struct Detail {
    request_id: Option<HeaderValue>,
    client: Option<IpAddr>,
    subject: Option<HeaderValue>,
    method: String,
    host: String,
    path: String,
    bytes_in: Option<Rc<Tally>>,
    /// What came over a WebSocket.
    received: u64,
    bytes_out: u64,
    pool: String,
    backend: String,
    /// The session that the request belonged to, or has begun.
    session: Option<SessionKey>,
    verdict: Option<Verdict>,
    reason: Option<Reason>,
    fault: Option<Fault>,
    websocket: bool,
    attempts: u32,
    queue: Duration,
    connect: Duration,
    head: Duration,
}

/// One line of the access log.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_subject: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    protocol: &'static str,
    status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    pool: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    backend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    attempts: u32,
    queue_ms: f64,
    connect_ms: f64,
    head_ms: f64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    websocket: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    aborted: bool,
}

// === impl Record ===

impl Record {
    /// A request has come.
    pub(super) fn begin<B>(worker: &Rc<Worker>, busy: Busy, request: &Request<B>, config: &Config) -> Self {
        let detail = worker.log.is_some().then(|| {
            Box::new(Detail {
                method: request.method().to_string(),
                path: redact::target(request.uri(), config.log_query, &config.pools).into_owned(),
                ..Detail::default()
            })
        });
        Self {
            worker: Rc::clone(worker),
            protocol: request.version().into(),
            status: None,
            complete: false,
            started: clock::now(),
            detail,
            permit: None,
            _busy: busy,
        }
    }

    pub(super) fn client(
        &mut self,
        client: IpAddr,
        host: &str,
        request_id: &HeaderValue,
        identity: Option<&Identity>,
    ) {
        if let Some(detail) = &mut self.detail {
            detail.client = Some(client);
            host.clone_into(&mut detail.host);
            detail.request_id = Some(request_id.clone());
            detail.subject = identity.map(|identity| identity.subject.clone());
        }
    }

    /// It is one of the requests under way.
    pub(super) fn admitted(&mut self, permit: RequestPermit) {
        self.permit = Some(permit);
    }

    pub(super) fn body(&mut self, tally: &Rc<Tally>) {
        if let Some(detail) = &mut self.detail {
            detail.bytes_in = Some(Rc::clone(tally));
        }
    }

    pub(super) fn decided(&mut self, pool: &str, verdict: Verdict, reason: Reason) {
        if let Some(detail) = &mut self.detail {
            pool.clone_into(&mut detail.pool);
            detail.verdict = Some(verdict);
            detail.reason = Some(reason);
        }
    }

    /// It belongs to this session. By now: an answer may begin another one.
    pub(super) fn session(&mut self, key: SessionKey) {
        if let Some(detail) = &mut self.detail {
            detail.session = Some(key);
        }
    }

    /// It asks for a WebSocket, which is a GET and opened by 101 in either protocol's records.
    pub(super) fn websocket(&mut self) {
        if let Some(detail) = &mut self.detail {
            detail.websocket = true;
            Method::GET.as_str().clone_into(&mut detail.method);
        }
    }

    /// The request is sent to a backend.
    pub(super) fn attempt(&mut self, backend: &str) {
        if let Some(detail) = &mut self.detail {
            detail.attempts += 1;
            backend.clone_into(&mut detail.backend);
        }
    }

    /// It waited until this backend had room, or in vain.
    pub(super) fn queued(&mut self, backend: &str, took: Duration) {
        if let Some(detail) = &mut self.detail {
            detail.queue += took;
            backend.clone_into(&mut detail.backend);
        }
    }

    pub(super) fn connected(&mut self, took: Duration) {
        if let Some(detail) = &mut self.detail {
            detail.connect += took;
        }
    }

    /// The answer's head is known.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = Some(status);
        if let Some(detail) = &mut self.detail {
            detail.head = clock::now().duration_since(self.started);
        }
    }

    /// The proxy answers by itself.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.answered(fault.status().as_u16());
        self.broken(fault);
    }

    /// Something went wrong on the way.
    pub(super) fn broken(&mut self, fault: Fault) {
        if let Some(detail) = &mut self.detail {
            detail.fault = Some(fault);
        }
    }

    /// So many bytes came over a WebSocket.
    pub(super) fn received(&mut self, bytes: u64) {
        if let Some(detail) = &mut self.detail {
            detail.received += bytes;
        }
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        if let Some(detail) = &mut self.detail {
            detail.bytes_out += bytes;
        }
    }

    /// The whole answer has been handed on.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.worker.metrics.request(self.protocol, self.status);
        let (Some(detail), Some(log)) = (&self.detail, &self.worker.log) else { return };
        let took = clock::now().duration_since(self.started);
        // Dropped before an answer was begun: nobody was there to get it.
        let fault = detail.fault.or_else(|| self.status.is_none().then_some(Fault::ClientGone));
        let broken = fault.is_some_and(|fault| fault.blame() != Blame::Client);
        let failed = broken || detail.attempts > 1 || self.status.is_some_and(|status| status >= 500);
        if !log.wants(failed) {
            return;
        }
        let line = Line {
            time: humantime::format_rfc3339_millis(clock::wall()).to_string(),
            request_id: detail.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
            client: detail.client,
            client_subject: detail.subject.as_ref().and_then(|subject| subject.to_str().ok()),
            method: &detail.method,
            host: &detail.host,
            path: &detail.path,
            protocol: self.protocol.as_str(),
            status: self.status,
            bytes_in: detail.received + detail.bytes_in.as_ref().map_or(0, |tally| tally.bytes()),
            bytes_out: detail.bytes_out,
            pool: &detail.pool,
            backend: &detail.backend,
            session: detail.session.map(|key| key.fingerprint().to_string()),
            verdict: detail.verdict.map(Verdict::as_str),
            reason: detail.reason.map(Reason::as_str),
            error: fault.map(Fault::label),
            attempts: detail.attempts,
            queue_ms: milliseconds(detail.queue),
            connect_ms: milliseconds(detail.connect),
            head_ms: milliseconds(detail.head),
            duration_ms: milliseconds(took),
            websocket: detail.websocket,
            aborted: !self.complete,
        };
        log.write(&line);
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are as fine as anybody reads them.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
