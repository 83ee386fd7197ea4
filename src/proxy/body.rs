//! Bodies on their way through: counted, bounded, and given up when nothing moves.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Worker, record::Record, stream::StreamHold};
use crate::{backend::InFlight, clock, error::Fault, upstream::Connection};

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

#[derive(Debug)]
pub(super) struct Passing {
    body: Incoming,
    /// Bytes that may still come.
    left: Option<u64>,
    stall: Stall,
    tally: Rc<Tally>,
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
    pub(super) hold: Option<StreamHold>,
    pub(super) in_flight: Option<InFlight>,
}

/// A deadline that moves with every sign of progress; its timer exists only while one waits.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
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
    pub(super) fn new(body: Incoming, limit: Option<u64>, stall: Duration) -> (Self, Rc<Tally>) {
        if body.is_end_stream() {
            return (Self::Empty, Tally::new(true));
        }
        let tally = Tally::new(false);
        let passing = Passing { body, left: limit, stall: Stall::new(Some(stall)), tally: Rc::clone(&tally) };
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
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}

// === impl Passing ===

impl Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
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
        if self.body.is_end_stream() {
            self.tally.ended.set(true);
        }
        Poll::Ready(Some(Ok(frame)))
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
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.stall.poll(cx));
                self.record.broken(Fault::HeadTimeout);
                self.connection = None;
                return Poll::Ready(Some(Err(Fault::HeadTimeout)));
            }
        };
        self.stall.progress();
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.sent(data.len() as u64);
                }
                if self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => {
                // The client must see a cut, never a complete message: an error here makes hyper
                // reset the stream, or close the connection without the final chunk.
                self.record.broken(Fault::BackendClosed);
                self.connection = None;
                Poll::Ready(Some(Err(Fault::BackendClosed)))
            }
        }
    }

    /// The whole answer has passed. The connection is of use again only if the request has, too.
    pub(super) fn end(&mut self) {
        self.record.complete();
        self.in_flight = None;
        self.hold = None;
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
        Self { limit, timer: None }
    }

    /// Something moved.
    fn progress(&mut self) {
        self.timer = None;
    }

    /// Nothing moved: ready when that has been so for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(clock::now() + limit))).as_mut().poll(cx)
    }
}
