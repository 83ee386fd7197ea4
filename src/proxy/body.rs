//! Bodies on their way through: counted, bounded, and given up when nothing moves.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{
    Worker,
    activity::{Activity, Busy},
    answers::Tracked,
    record::Record,
    stream::Holding,
};
use crate::{
    backend::{Evidence, InFlight},
    clock,
    error::Fault,
    upstream::Connection,
};

/// What a request's body has done so far; shared by the body, which hyper owns, and the request.
#[derive(Debug)]
pub(super) struct Tally {
    bytes: Cell<u64>,
    ended: Cell<bool>,
    /// Last time that the backend asked for bytes or the client brought some.
    progress: Cell<Instant>,
    /// Why it broke off, for the answer.
    fault: Cell<Option<Fault>>,
}

/// A request's body on its way to a backend.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// There is none: such a request can be sent again.
    Empty,
    /// The client's.
    Passing(Passing),
}

/// A request's body that may be dropped before its end: then what still comes is thrown away for a while.
#[derive(Debug)]
pub(super) struct Leftover(Option<Incoming>);

/// How long, and how many bytes, an unwanted body is read.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Passing {
    body: Leftover,
    /// Bytes that may still come.
    left: Option<u64>,
    stall: Stall,
    tally: Rc<Tally>,
    /// The connection is not idle while this is under way, also after an early answer.
    _busy: Busy,
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// Made here, or there is none.
    Whole(Option<Bytes>),
    /// The backend's.
    Passing(Box<Answer>),
}

/// A backend's answer on its way to the client, and all that must happen once when it ends.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Incoming,
    /// Goes back to the pool when the whole answer has passed; closed otherwise.
    pub(super) connection: Option<Connection<RequestBody>>,
    pub(super) keep_alive: usize,
    pub(super) tally: Rc<Tally>,
    pub(super) record: Record,
    pub(super) worker: Rc<Worker>,
    pub(super) stall: Stall,
    pub(super) tracked: Tracked,
    pub(super) holding: Holding,
    pub(super) in_flight: Option<InFlight>,
}

/// A deadline that moves with every sign of progress, told at the latest one limit too late.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Option<Duration>,
    /// Made when something first waits, and kept: most bodies wait often, and few for long.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something moved since the timer was set.
    moved: bool,
}

// === impl Tally ===

impl Tally {
    pub(super) fn new(ended: bool) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            ended: Cell::new(ended),
            progress: Cell::new(clock::now()),
            fault: Cell::new(None),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the whole body has been passed on.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    pub(super) fn progress(&self) -> Instant {
        self.progress.get()
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }
}

// === impl RequestBody ===

impl RequestBody {
    pub(super) fn new(
        mut body: Leftover,
        limit: Option<u64>,
        stall: Duration,
        activity: &Arc<Activity>,
    ) -> (Self, Rc<Tally>) {
        if body.is_end_stream() {
            return (Self::Empty, Tally::new(true));
        }
        let tally = Tally::new(false);
        let passing = Passing {
            body: Leftover(body.0.take()),
            left: limit,
            stall: Stall::new(Some(stall)),
            tally: Rc::clone(&tally),
            _busy: activity.request(),
        };
        (Self::Passing(passing), tally)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Passing(passing) => passing.poll(cx).map(|frame| {
                frame.map(|frame| frame.inspect_err(|fault| passing.tally.fault.set(Some(*fault))))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Passing(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Passing(passing) => passing.body.0.as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}

// === impl Passing ===

impl Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Some(body) = &mut self.body.0 else { return Poll::Ready(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.stall.poll(cx));
                return Poll::Ready(Some(Err(Fault::BodyTimeout)));
            }
        };
        self.stall.progress();
        self.tally.progress.set(clock::now());
        let Some(frame) = frame else {
            self.tally.ended.set(true);
            return Poll::Ready(None);
        };
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(Fault::ClientGone))) };
        let last = frame.is_trailers();
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            if let Some(left) = &mut self.left {
                let Some(rest) = left.checked_sub(length) else {
                    return Poll::Ready(Some(Err(Fault::BodyTooLarge)));
                };
                *left = rest;
            }
            self.tally.bytes.set(self.tally.bytes.get() + length);
        }
        // hyper drops a body after its trailers without asking for its end.
        if last || self.body.is_end_stream() {
            self.tally.ended.set(true);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

// === impl Leftover ===

impl Leftover {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) {
            // A connection or stream that is closed while its client still sends is reset, and takes an
            // answer along that the client has not read yet (RFC 9112 §9.6).
            tokio::task::spawn_local(timeout(LINGER, async move {
                let mut left = LINGER_BYTES;
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let Some(rest) = left.checked_sub(length) else { return };
                    left = rest;
                }
            }));
        }
    }
}

// === impl AnswerBody ===

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passing(answer) => answer.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Passing(answer) => answer.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passing(answer) => answer.body.size_hint(),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.tracked.taken();
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.stall.poll(cx));
                return self.cut();
            }
        };
        self.stall.progress();
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                self.tracked.handed();
                if let Some(data) = frame.data_ref() {
                    self.holding.passed(data.len());
                    self.record.sent(data.len() as u64);
                }
                // hyper drops a body after its trailers without asking for its end.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => self.cut(),
        }
    }

    /// The backend broke off, or stands still. The client must see a cut, never a complete message: an
    /// error here makes hyper reset the stream, or close the connection without the final chunk.
    fn cut(&mut self) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.record.broken(Fault::AnswerCut);
        self.connection = None;
        if let Some(in_flight) = &self.in_flight {
            in_flight.backend().passed(Evidence::Broken);
        }
        Poll::Ready(Some(Err(Fault::AnswerCut)))
    }

    /// The whole answer has passed. The connection is of use again only if the request has, too.
    pub(super) fn end(&mut self) {
        self.record.complete();
        self.in_flight = None;
        self.holding = Holding::Not;
        if let Some(connection) = self.connection.take()
            && self.tally.ended()
        {
            self.worker.upstream.give_back(connection, self.keep_alive);
        }
    }
}

// === impl Stall ===

impl Stall {
    /// A deadline of `limit` from the last progress; never when none.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None, moved: false }
    }

    /// Something moved.
    fn progress(&mut self) {
        self.moved = true;
    }

    /// Nothing moved: ready when that has been so for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(clock::now() + limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(clock::now() + limit);
        }
    }
}
