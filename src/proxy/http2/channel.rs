//! A request's body between the connection that reads it and whoever takes it.
//!
//! What waits here is bounded by the stream's window, which grows only as parts are taken: a backend that does not take
//! holds its client back. Both ends may be polled by different tasks, since an upload may go on after its answer.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};

use crate::{error::Fault, proxy::interim};

/// The end that takes.
#[derive(Debug)]
pub(in crate::proxy) struct Body {
    channel: Rc<Channel>,
    /// Whether there is nothing to take here: what comes is for a tunnel.
    empty: bool,
}

/// What both ends share, for one request.
#[derive(Debug)]
pub(in crate::proxy) struct Channel {
    waiting: RefCell<Waiting>,
    state: Cell<State>,
    /// Bytes that have not been taken yet, where that is known.
    left: Cell<Option<u64>>,
    /// Bytes that have been taken since the connection asked last.
    taken: Cell<usize>,
    /// The client waits for a word before it sends anything.
    awaits_continue: Cell<bool>,
    /// It may have it.
    may_continue: Cell<bool>,
    /// Wakes whoever waits for a part.
    taker: RefCell<Option<Waker>>,
    /// Wakes the connection, for this stream.
    connection: Waker,
    /// Interim answers on their way to the client.
    interims: RefCell<Vec<(StatusCode, HeaderMap)>>,
    /// How many more of them are passed on, and how many bytes.
    room: Cell<(u32, usize)>,
}

/// What has been read, and not taken yet.
#[derive(Debug, Default)]
struct Waiting {
    parts: VecDeque<Bytes>,
    /// Small parts after those, joined: each by itself would take more memory than it counts for.
    small: BytesMut,
    /// After everything.
    trailers: Option<HeaderMap>,
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

/// Parts up to this size are copied out of the buffer that was read into, which is larger: 16 KiB.
const SMALL: usize = 12 * 1024;
/// Bytes that are joined: a buffer that grows takes up to twice as much.
const JOINED: usize = 16 * 1024;
/// Bytes taken that are worth telling the client of.
const WORTH: usize = 64 * 1024;

// === impl Channel ===

impl Channel {
    /// For a body of this length, if that is known; `ended` says that there is none. `connection` is the waker of the
    /// stream.
    pub(super) fn new(connection: Waker, ended: bool, left: Option<u64>, awaits_continue: bool) -> Rc<Self> {
        Rc::new(Self {
            waiting: RefCell::default(),
            state: Cell::new(if ended { State::Ended } else { State::Open }),
            left: Cell::new(if ended { Some(0) } else { left }),
            taken: Cell::new(0),
            awaits_continue: Cell::new(awaits_continue && !ended),
            may_continue: Cell::new(false),
            taker: RefCell::default(),
            connection,
            interims: RefCell::default(),
            room: Cell::new((interim::MAX_COUNT, interim::MAX_BYTES)),
        })
    }

    /// Whether more is to be read for somebody.
    pub(super) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Whether nobody will take any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state.get() == State::Abandoned
    }

    /// Whether nothing that counts for a window waits here.
    pub(super) fn is_drained(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// A part has been read.
    pub(super) fn push(&self, data: Bytes) {
        // Whoever sends does not wait.
        self.awaits_continue.set(false);
        let mut waiting = self.waiting.borrow_mut();
        if data.len() > SMALL || waiting.small.len() + data.len() > JOINED {
            waiting.close();
        }
        if data.len() <= SMALL {
            waiting.small.extend_from_slice(&data);
        } else {
            waiting.parts.push_back(data);
        }
        drop(waiting);
        self.wake_taker();
    }

    /// Trailers have been read; the end follows.
    pub(super) fn trailers(&self, trailers: HeaderMap) {
        self.waiting.borrow_mut().trailers = Some(trailers);
    }

    /// All of it has been read.
    pub(super) fn end(&self) {
        self.finish(State::Ended);
    }

    /// There will not be more.
    pub(super) fn fail(&self, fault: Fault) {
        self.finish(State::Failed(fault));
    }

    /// Nobody will take it.
    pub(super) fn abandon(&self) {
        *self.waiting.borrow_mut() = Waiting::default();
        if self.is_open() {
            self.state.set(State::Abandoned);
        }
    }

    /// Bytes that were taken since the last call.
    pub(super) fn taken(&self) -> usize {
        self.taken.take()
    }

    /// Whether the client is to be told to go on; once.
    pub(super) fn may_continue(&self) -> bool {
        self.may_continue.replace(false) && self.awaits_continue.replace(false)
    }

    /// Whether the client is to be told something before its answer.
    pub(super) fn has_word(&self) -> bool {
        self.may_continue.get() || !self.interims.borrow().is_empty()
    }

    /// Interim answers that are to be told.
    pub(super) fn interims(&self) -> Vec<(StatusCode, HeaderMap)> {
        self.interims.take()
    }

    /// Passes an interim answer on, if the client has not had too many.
    pub(in crate::proxy) fn interim(&self, status: StatusCode, fields: HeaderMap) {
        let (count, bytes) = self.room.get();
        let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if let (Some(count), Some(bytes)) = (count.checked_sub(1), bytes.checked_sub(size)) {
            self.room.set((count, bytes));
            self.interims.borrow_mut().push((status, fields));
            self.connection.wake_by_ref();
        }
    }

    /// The next part for whoever takes them.
    pub(super) fn poll_part(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(part) = waiting.next() {
            let drained = waiting.is_empty();
            drop(waiting);
            self.taken.set(self.taken.get() + part.len());
            self.left.set(self.left.get().map(|left| left.saturating_sub(part.len() as u64)));
            if drained || self.taken.get() >= WORTH {
                self.wake_connection(cx);
            }
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        match self.state.get() {
            State::Failed(fault) => Poll::Ready(Some(Err(fault))),
            State::Abandoned => Poll::Ready(None),
            State::Ended => {
                Poll::Ready(waiting.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            State::Open => {
                drop(waiting);
                self.taker.replace(Some(cx.waker().clone()));
                if self.awaits_continue.get() && !self.may_continue.replace(true) {
                    self.wake_connection(cx);
                }
                Poll::Pending
            }
        }
    }

    fn finish(&self, state: State) {
        if self.is_open() {
            self.state.set(state);
        }
        self.wake_taker();
    }

    fn wake_taker(&self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    /// The connection looks at a stream after it has polled it.
    fn wake_connection(&self, cx: &Context<'_>) {
        if !self.connection.will_wake(cx.waker()) {
            self.connection.wake_by_ref();
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.small.is_empty()
    }

    /// Joins no more to what is joined.
    fn close(&mut self) {
        if !self.small.is_empty() {
            self.parts.push_back(std::mem::take(&mut self.small).freeze());
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        if let Some(part) = self.parts.pop_front() {
            return Some(part);
        }
        (!self.small.is_empty()).then(|| std::mem::take(&mut self.small).freeze())
    }
}

// === impl Body ===

impl Body {
    pub(super) fn new(channel: &Rc<Channel>) -> Self {
        Self { channel: Rc::clone(channel), empty: false }
    }

    /// That of a request that asks for a tunnel: there is none, whatever comes.
    pub(super) fn none(channel: &Rc<Channel>) -> Self {
        Self { channel: Rc::clone(channel), empty: true }
    }

    /// What its request shares with the connection.
    pub(in crate::proxy) fn channel(&self) -> &Rc<Channel> {
        &self.channel
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.empty {
            return Poll::Ready(None);
        }
        self.channel.poll_part(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.empty || {
            let waiting = self.channel.waiting.borrow();
            self.channel.state.get() == State::Ended && waiting.is_empty() && waiting.trailers.is_none()
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.channel.left.get() {
            _ if self.empty => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let channel = &self.channel;
        // What has come to its end is no news to the connection.
        if !self.empty && (channel.is_open() || !channel.is_drained()) {
            channel.abandon();
            channel.connection.wake_by_ref();
        }
    }
}
