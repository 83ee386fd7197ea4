//! From a decision to an answer: choose a backend, connect, send, and try again where that is safe.
//!
//! Rules. A request goes to another backend only if it has certainly not been processed: no connection
//! came about, or it is idempotent and bodiless (RFC 9110 §9.2.2). What may have been processed is sent at most once
//! more, whatever connection it went out on: a request that kills its server takes one more along, not all.
//! A session leaves its home only when the home is down; one failure of a living home is tried once more there, then told to the client. Every attempt
//! beyond the first comes out of the pool's retry budget; a kept connection that closed under a request is replaced
//! without, since each is the remainder of an exchange that went well.

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use http::{Method, Response};
use tokio::time::{Instant, timeout_at};

use super::{
    Client,
    interim::Interim,
    queue::Patience,
    record::Record,
    request_body::{RequestBody, Tally},
};
use crate::{
    affinity::{
        Answer, Ask, Claim, Decision, Effects, Keys, OnDown, Reason, SessionKey, Settled, Slot, Verdict,
    },
    backend::{Backend, Evidence, InFlight},
    clock,
    error::Fault,
    upstream::{self, Connection, ExchangeError, Private, Request},
    world::Pool,
};

/// One request on its way to a pool.
pub(super) struct Forward<'a> {
    pub(super) client: &'a Client,
    pub(super) pool: &'a Arc<Pool>,
    pub(super) keys: &'a Keys,
    /// The backend that is home by the proxy's own cookie.
    pub(super) hint: Option<&'a str>,
    pub(super) skip: bool,
    /// Whether the connection is one client's own: then its requests without an id stay together.
    pub(super) alone: bool,
    /// Whether it authenticates the connection on which it is sent.
    pub(super) authenticates: bool,
    pub(super) tally: &'a Rc<Tally>,
    /// Longest time without progress of the request's body.
    pub(super) body_stall: Duration,
    /// Where a backend's interim answers go.
    pub(super) interim: &'a Interim,
}

/// A backend's answer, its body yet to come.
pub(super) struct Answered {
    pub(super) response: Response<Box<upstream::Body<RequestBody>>>,
    pub(super) in_flight: InFlight,
    pub(super) held: Held,
    /// When the attempt that succeeded began.
    pub(super) sent: Instant,
}

/// A claim on a session that is given up unless it is settled.
pub(super) struct Held {
    pool: Arc<Pool>,
    claim: Option<Claim>,
}

/// What is left of a request that got no answer.
struct Failed {
    fault: Fault,
    /// Comes back when it may be sent again.
    request: Option<Request<RequestBody>>,
}

/// Times that one request is sent at most: written to a connection that its backend had accepted.
const MAX_SENDS: usize = 2;
/// Backends that are tried at most for one request.
const MAX_ATTEMPTS: usize = 4;
/// Likewise, while all they do is to refuse the connection, which takes no time.
const MAX_REFUSALS: usize = 16;
/// Failed attempts at a home that is still up before the client is told.
const HOME_ATTEMPTS: usize = 2;

// === impl Forward ===

impl Forward<'_> {
    /// Sends the request; what comes back has not been settled with affinity yet.
    pub(super) async fn run(
        &self,
        mut request: Request<RequestBody>,
        record: &mut Record,
    ) -> Result<Answered, Fault> {
        let mut tried = [Slot::default(); MAX_REFUSALS];
        let mut attempts = 0;
        let mut sends = 0;
        let mut failed = None;
        let mut waited = false;
        let mut revived = false;
        let mut paid = 0;
        let mut patience = Patience::default();
        self.pool.budget.request(clock::now());
        loop {
            let decision = self.choose(&tried[..attempts], waited);
            record.decided(&self.pool.name, decision.verdict, decision.reason);
            if let Some(key) = decision.claim.session().or_else(|| self.away(decision.reason)) {
                record.session(key);
            }
            let held = Held::new(self.pool, decision.claim);
            let Some(slot) = decision.pick else {
                if !revived {
                    revived = true;
                    // Boxed, as all that most requests do without.
                    if Box::pin(self.revive(decision.wait_for, &tried[..attempts])).await {
                        continue;
                    }
                }
                if let Some(home) = decision.wait_for {
                    waited = true;
                    Box::pin(self.wait_for(home)).await;
                    continue;
                }
                self.pool.refused.inc();
                return Err(match decision.reason {
                    Reason::HomeDown => Fault::HomeDown,
                    // Nothing was processed, and there is nobody left: the same answer as to the next.
                    _ => match failed {
                        None | Some((_, Fault::ConnectFailed | Fault::ConnectTimeout)) => Fault::NoBackend,
                        Some((_, fault)) => fault,
                    },
                });
            };
            let Some(backend) = self.pool.roster.index_of(slot).map(|index| &self.pool.backends[index])
            else {
                return Err(Fault::NoBackend);
            };
            if let Some((first, _)) = failed.filter(|_| paid < attempts) {
                if !self.pool.budget.retry(clock::now()) {
                    self.pool.exhausted.inc();
                    backend.metrics.verdict(decision.verdict);
                    return Err(first);
                }
                paid = attempts;
            }
            let in_flight = match self.enter(backend, &mut patience, record).await {
                Ok(Some(in_flight)) => in_flight,
                Ok(None) => continue,
                Err(fault) => {
                    backend.metrics.verdict(decision.verdict);
                    return Err(fault);
                }
            };
            if attempts > 0 {
                backend.metrics.retries.inc();
            }
            record.attempt(backend.name());
            let sent = clock::now();
            match self.attempt(backend, request, &mut sends, record).await {
                Ok(response) => {
                    backend.metrics.verdict(decision.verdict);
                    return Ok(Answered { response, in_flight, held, sent });
                }
                Err(Failed { fault, request: back }) => {
                    tried[attempts] = slot;
                    attempts += 1;
                    let stays = decision.verdict == Verdict::Home && backend.member.is_up();
                    let limit = match fault {
                        _ if stays => HOME_ATTEMPTS,
                        Fault::ConnectFailed => MAX_REFUSALS,
                        _ => MAX_ATTEMPTS,
                    };
                    match back {
                        Some(back) if attempts < limit => request = back,
                        _ => {
                            backend.metrics.verdict(decision.verdict);
                            return Err(fault);
                        }
                    }
                    // The first and the last.
                    failed = Some((failed.map_or(fault, |(first, _)| first), fault));
                }
            }
        }
    }

    fn choose(&self, tried: &[Slot], waited: bool) -> Decision {
        // What has authenticated on a connection of its own goes on there, and only then with its burst.
        let own = self.client.private.get().filter(|_| self.alone);
        let own = own.and_then(|private| private.home(&self.pool.name));
        let burst = || match self.keys.is_empty() {
            true => self.client.burst.joined(&self.pool.affinity),
            false => self.client.burst.slot(&self.pool.affinity),
        };
        let ask = Ask {
            keys: self.keys,
            hint: self.hint,
            skip: self.skip,
            follow: own.or_else(|| if self.alone && !self.skip { burst() } else { None }),
            tried,
            random: fastrand::u64(..),
            now: clock::tick(),
            waited,
            crawls: self.alone && self.client.burst.is_outgrown(&self.pool.affinity),
        };
        let decision = self.pool.affinity.choose(&self.pool.settings, &self.pool.roster, &ask);
        if let (Verdict::Placed, Some(slot)) = (decision.verdict, decision.pick) {
            self.client.burst.follow(&self.pool.affinity, slot);
        }
        decision
    }

    /// The session of a request that is not sent to its home, or that comes after the session's end.
    fn away(&self, reason: Reason) -> Option<SessionKey> {
        let known = matches!(reason, Reason::HomeDown | Reason::Ending);
        self.keys.as_slice().first().filter(|_| known).copied()
    }

    /// `on_down = "wait:…"`: until the home serves again, or for as long as it is worth.
    async fn wait_for(&self, home: Slot) {
        let OnDown::Wait(limit) = self.pool.settings.on_down else { return };
        if let Some(index) = self.pool.roster.index_of(home) {
            let back = async {
                tokio::select! {
                    () = self.pool.backends[index].back() => {}
                    () = self.keep_trying(home) => {}
                }
            };
            // Either way the next choice says what follows.
            let _ = timeout_at(clock::now() + limit, back).await;
        }
    }

    async fn attempt(
        &self,
        backend: &Arc<Backend>,
        mut request: Request<RequestBody>,
        sends: &mut usize,
        record: &mut Record,
    ) -> Result<Response<Box<upstream::Body<RequestBody>>>, Failed> {
        let upstream = &self.client.worker.upstream;
        let mut replay = is_replayable(&request) && *sends + 1 < MAX_SENDS;
        let private = self.private(backend);
        let max_idle = self.pool.timeouts.idle;
        let idle = || match private {
            Some(private) => private.take(backend, max_idle, self.authenticates),
            None => upstream.idle(backend, max_idle),
        };
        while let Some(mut connection) = idle() {
            self.claim(&mut connection, private);
            let copy = replay.then(|| request.copy(RequestBody::Empty));
            // What cannot be sent again must not be sent in vain.
            match (self.exchange(connection, request, !replay).await, copy) {
                (Ok(response), _) => return Ok(response),
                // It was closed, or has bytes that nobody asked for.
                (Err(Exchange::Failed(ExchangeError::Unsent(back))), _) => request = *back,
                // Closed while idle, most likely: no evidence against the backend.
                (Err(Exchange::Failed(ExchangeError::Closed)), Some(copy)) => {
                    request = copy;
                    *sends += 1;
                    replay = *sends + 1 < MAX_SENDS;
                    break;
                }
                (Err(error), _) => return Err(self.conclude(backend, error, None)),
            }
        }
        let started = clock::now();
        // Boxed, as all that most requests do without: what a request may wait for is part of every request's future.
        let connection = Box::pin(upstream.open(backend, self.pool.timeouts.connect)).await;
        record.connected(clock::now().duration_since(started));
        let connection = match connection {
            Ok(mut connection) => {
                self.claim(&mut connection, private);
                connection
            }
            Err(error) => {
                if let Some(evidence) = error.evidence() {
                    backend.told(evidence, &error);
                }
                return Err(Failed { fault: error.fault(), request: Some(request) });
            }
        };
        let copy = replay.then(|| request.copy(RequestBody::Empty));
        match self.exchange(connection, request, true).await {
            Ok(response) => Ok(response),
            Err(Exchange::Failed(ExchangeError::Unsent(back))) => {
                backend.passed(Evidence::Broken);
                Err(Failed { fault: Fault::BackendClosed, request: Some(*back) })
            }
            Err(error) => {
                *sends += 1;
                Err(self.conclude(backend, error, copy))
            }
        }
    }

    /// The client's own connections, if those are to be used.
    fn private(&self, backend: &Arc<Backend>) -> Option<&Rc<Private>> {
        if !self.alone {
            return None;
        }
        if self.authenticates {
            self.client.private().reserve(backend);
        }
        self.client.private.get().filter(|private| private.is_reserved(backend))
    }

    /// A connection that may authenticate its client must not serve another one. A trusted peer forwards for many: what
    /// authenticates for one of them is of no further use.
    fn claim(&self, connection: &mut Connection, private: Option<&Rc<Private>>) {
        if private.is_some() || self.authenticates {
            connection.belongs_to(private);
        }
    }

    /// One exchange, given up when neither the request's body nor the answer moves on.
    async fn exchange(
        &self,
        connection: Connection,
        request: Request<RequestBody>,
        certain: bool,
    ) -> Result<Response<Box<upstream::Body<RequestBody>>>, Exchange> {
        let interim = |status, fields: &_| self.interim.send(status, fields);
        let mut exchange = pin!(connection.exchange(request, certain, interim));
        let mut deadline = clock::now() + self.pool.timeouts.head;
        loop {
            match timeout_at(deadline, exchange.as_mut()).await {
                Ok(result) => return result.map_err(Exchange::Failed),
                Err(_) => match self.next_deadline() {
                    later if later > deadline => deadline = later,
                    _ => return Err(Exchange::Timeout),
                },
            }
        }
    }

    /// The backend's time runs from the end of the request; until then the body must make progress.
    fn next_deadline(&self) -> Instant {
        let limit = if self.tally.ended() { self.pool.timeouts.head } else { self.body_stall };
        self.tally.progress() + limit
    }

    fn conclude(&self, backend: &Backend, error: Exchange, copy: Option<Request<RequestBody>>) -> Failed {
        let (fault, request) = match error {
            // The body's own account comes first: a client that breaks off looks like anything.
            _ if self.tally.fault().is_some() => (self.tally.fault().unwrap_or(Fault::ClientGone), None),
            Exchange::Failed(ExchangeError::Body(fault)) => (fault, None),
            Exchange::Failed(ExchangeError::BadAnswer(_)) => (Fault::BadAnswer, None),
            Exchange::Failed(ExchangeError::Closed | ExchangeError::Unsent(_)) => {
                (Fault::BackendClosed, copy)
            }
            Exchange::Timeout => (Fault::HeadTimeout, None),
        };
        if fault.blame() == crate::error::Blame::Backend {
            backend.passed(Evidence::Broken);
            backend.metrics.answered(None);
        }
        Failed { fault, request }
    }
}

enum Exchange {
    Failed(ExchangeError<RequestBody>),
    Timeout,
}

// === impl Held ===

impl Held {
    fn new(pool: &Arc<Pool>, claim: Claim) -> Self {
        Self { pool: Arc::clone(pool), claim: Some(claim) }
    }

    /// Tells affinity how the answer turned out, before its head goes on to the client.
    pub(super) fn settle(
        mut self,
        slot: Slot,
        status: u16,
        effects: &Effects,
        keys: &Keys,
    ) -> Option<Settled> {
        let claim = self.claim.take()?;
        let answer = Answer { slot, status, effects, keys, now: clock::tick() };
        Some(self.pool.affinity.settle(&self.pool.settings, &self.pool.roster, claim, &answer))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.pool.affinity.abandon(claim);
        }
    }
}

/// Whether a request may be sent again although it may have been processed: idempotent (RFC 9110
/// §9.2.2) and without a body that is gone once sent.
fn is_replayable(request: &Request<RequestBody>) -> bool {
    matches!(request.body(), RequestBody::Empty)
        && matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        )
}
