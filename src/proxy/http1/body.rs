//! A request's body between the connection that reads it and whoever takes it.
//!
//! The connection reads when it is asked to, and never more than one part ahead: a backend that does not take
//! holds its client back. Both ends may be polled by different tasks, since an upload may go on after its
//! answer.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};

use crate::{
    error::Fault,
    http1::{framing::Length, write::response_head},
    proxy::interim,
};

/// The end that takes.
#[derive(Debug)]
pub(in crate::proxy) struct Body(Rc<Channel>);

/// What both ends share, for one request.
#[derive(Debug)]
pub(in crate::proxy) struct Channel {
    /// Read, and not taken yet.
    part: RefCell<Option<Frame<Bytes>>>,
    state: Cell<State>,
    /// Bytes that have not been taken yet, where that is known.
    left: Cell<Option<u64>>,
    /// Somebody waits for a part.
    wanted: Cell<bool>,
    /// The client waits for a word before it sends anything.
    awaits_continue: Cell<bool>,
    /// Wakes whoever waits for a part.
    taker: RefCell<Option<Waker>>,
    /// Wakes the connection.
    connection: RefCell<Option<Waker>>,
    /// Interim answers on their way to the client; none where it does not know them (HTTP/1.0).
    interim: Option<RefCell<BytesMut>>,
    /// How many more of them are passed on.
    interims: Cell<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// All of it has been read.
    Ended,
    Failed(Fault),
    /// Nobody will take the rest.
    Abandoned,
}

// === impl Channel ===

impl Channel {
    /// For a body of this length. `interim` says whether the client knows interim answers, `awaits_continue`
    /// whether it waits for one.
    pub(super) fn new(length: Length, interim: bool, awaits_continue: bool) -> Rc<Self> {
        let (state, left) = match length {
            Length::None | Length::Exact(0) => (State::Ended, Some(0)),
            Length::Exact(length) => (State::Open, Some(length)),
            Length::Chunked | Length::UntilClose => (State::Open, None),
        };
        Rc::new(Self {
            part: RefCell::default(),
            state: Cell::new(state),
            left: Cell::new(left),
            wanted: Cell::new(false),
            awaits_continue: Cell::new(awaits_continue && state == State::Open),
            taker: RefCell::default(),
            connection: RefCell::default(),
            interim: interim.then(RefCell::default),
            interims: Cell::new(interim::MAX_COUNT),
        })
    }

    /// Whether more is to be read for somebody.
    pub(super) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Whether all of it has been read.
    pub(super) fn is_ended(&self) -> bool {
        self.state.get() == State::Ended
    }

    /// Whether the client was refused in the middle of it, or is gone.
    pub(super) fn is_failed(&self) -> bool {
        matches!(self.state.get(), State::Failed(_))
    }

    /// Whether the client still waits for a word before it sends the body: then nobody knows whether it will.
    pub(super) fn awaits_continue(&self) -> bool {
        self.awaits_continue.get()
    }

    /// Whether somebody waits for a part; if not, the connection is woken when somebody does.
    pub(super) fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wanted.get() {
            return Poll::Ready(());
        }
        self.connection.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// A part has been read.
    pub(super) fn give(&self, part: Frame<Bytes>, cx: &Context<'_>) {
        // Whoever sends does not wait.
        self.awaits_continue.set(false);
        *self.part.borrow_mut() = Some(part);
        self.wake_taker(cx);
    }

    /// All of it has been read.
    pub(super) fn end(&self, cx: &Context<'_>) {
        self.finish(State::Ended, cx);
    }

    /// There will not be more.
    pub(super) fn fail(&self, fault: Fault, cx: &Context<'_>) {
        self.finish(State::Failed(fault), cx);
    }

    /// What the client is told before its answer. `sends` says whether a part of the body has come: then nobody
    /// waits for a word.
    pub(super) fn take_interim(&self, out: &mut BytesMut, sends: bool) {
        if sends {
            self.awaits_continue.set(false);
        }
        if self.wanted.get() && self.awaits_continue.replace(false) {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if let Some(interim) = &self.interim {
            let mut interim = interim.borrow_mut();
            if !interim.is_empty() {
                out.extend_from_slice(&interim.split());
            }
        }
    }

    /// Passes an interim answer on, if the client knows them and has taken those before.
    pub(in crate::proxy) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        let Some(interim) = &self.interim else { return };
        let Some(left) = self.interims.get().checked_sub(1) else { return };
        let mut head = BytesMut::new();
        response_head(&mut head, status, headers, Length::None);
        let mut interim = interim.borrow_mut();
        if interim.len() + head.len() <= interim::MAX_BYTES {
            interim.extend_from_slice(&head);
            self.interims.set(left);
            if let Some(connection) = self.connection.take() {
                connection.wake();
            }
        }
    }

    fn finish(&self, state: State, cx: &Context<'_>) {
        if self.is_open() {
            self.state.set(state);
        }
        self.wake_taker(cx);
    }

    fn wake_taker(&self, cx: &Context<'_>) {
        self.wanted.set(false);
        // The task that runs now asks again by itself.
        if let Some(taker) = self.taker.take().filter(|taker| !taker.will_wake(cx.waker())) {
            taker.wake();
        }
    }
}

// === impl Body ===

impl Body {
    pub(super) fn new(channel: &Rc<Channel>) -> Self {
        Self(Rc::clone(channel))
    }

    /// What its request shares with the connection.
    pub(in crate::proxy) fn channel(&self) -> &Rc<Channel> {
        &self.0
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let channel = &self.0;
        if let Some(part) = channel.part.take() {
            if let (Some(left), Some(data)) = (channel.left.get(), part.data_ref()) {
                channel.left.set(Some(left.saturating_sub(data.len() as u64)));
            }
            return Poll::Ready(Some(Ok(part)));
        }
        match channel.state.get() {
            State::Failed(fault) => Poll::Ready(Some(Err(fault))),
            State::Ended | State::Abandoned => Poll::Ready(None),
            State::Open => {
                channel.wanted.set(true);
                channel.taker.replace(Some(cx.waker().clone()));
                // The connection's own task reads after whatever it has polled.
                if let Some(connection) = channel.connection.take().filter(|c| !c.will_wake(cx.waker())) {
                    connection.wake();
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_ended() && self.0.part.borrow().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.left.get().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.0.is_open() {
            self.0.state.set(State::Abandoned);
        }
        if let Some(connection) = self.0.connection.take() {
            connection.wake();
        }
    }
}
