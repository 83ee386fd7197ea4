//! A request's body on its way to a backend: counted, bounded, and given up when nothing moves.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    activity::{Activity, Busy},
    http1, http2, identity,
    interim::Interim,
    stall::Stall,
};
use crate::{clock, error::Fault};

/// A body as a client's connection brings it.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Over HTTP/1.1.
    Http1(http1::Body),
    /// Over HTTP/2.
    Http2(http2::Body),
}

/// What a request's body has done so far; shared by the body, which goes on its way, and the request.
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
    /// Field of a client's subject, which no trailer may be.
    subject: HeaderName,
    /// The connection is not idle while this is under way, also after an early answer.
    _busy: Busy,
}

// === impl Incoming ===

impl Incoming {
    /// Where interim answers to its request go.
    pub(super) fn interim(&self) -> Interim {
        match self {
            Self::Http1(body) => Interim::Http1(Rc::clone(body.channel())),
            Self::Http2(body) => Interim::Http2(Rc::clone(body.channel())),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
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
        body: Incoming,
        limit: Option<u64>,
        stall: Stall,
        activity: &Rc<Activity>,
        subject: &HeaderName,
    ) -> (Self, Rc<Tally>) {
        if body.is_end_stream() {
            return (Self::Empty, Tally::new(true));
        }
        let tally = Tally::new(false);
        let passing = Passing {
            body,
            left: limit,
            stall,
            tally: Rc::clone(&tally),
            subject: subject.clone(),
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
        let mut frame = match frame {
            Ok(frame) => frame,
            Err(fault) => return Poll::Ready(Some(Err(fault))),
        };
        let last = frame.is_trailers();
        if let Some(trailers) = frame.trailers_mut() {
            identity::strip_trailers(trailers, &self.subject);
        }
        if let Some(data) = frame.data_ref() {
            self.stall.came(data.len());
            let length = data.len() as u64;
            if let Some(left) = &mut self.left {
                let Some(rest) = left.checked_sub(length) else {
                    return Poll::Ready(Some(Err(Fault::BodyTooLarge)));
                };
                *left = rest;
            }
            self.tally.bytes.set(self.tally.bytes.get() + length);
        }
        // Whoever sends it may drop a body after its trailers without asking for its end.
        if last || self.body.is_end_stream() {
            self.tally.ended.set(true);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}
