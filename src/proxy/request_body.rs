//! A request's body on its way to a backend: counted, bounded, and given up when nothing moves.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use super::{
    activity::{Activity, Busy},
    http1, identity,
    interim::Interim,
    stall::Stall,
};
use crate::{clock, error::Fault};

/// A body as a client's connection brings it.
#[derive(Debug)]
pub(super) enum Incoming {
    /// By our own engine.
    Http1(http1::Body),
    /// By hyper.
    Http2(hyper::body::Incoming),
}

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

/// A request's body that may be dropped before its end: then what still comes is thrown away for a while. Over
/// HTTP/1.1 the connection does that.
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
            Self::Http1(body) => Interim::new(body.channel()),
            Self::Http2(_) => Interim::default(),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(|_| Fault::ClientGone)))
            }
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
        mut body: Leftover,
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
            body: Leftover(body.0.take()),
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
        if let Some(Incoming::Http2(mut body)) = self.0.take().filter(|body| !body.is_end_stream()) {
            // A stream that is closed while its client still sends is reset, and takes an
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
