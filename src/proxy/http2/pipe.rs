//! The client's half of a tunnel (RFC 8441 §5): bytes both ways, in the DATA frames of one stream.
//!
//! What was written is flushed when the connection has taken it, which it does as the client's window and the socket
//! have room: a byte that the client does not take does not pass.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::Channel;

/// The half that the tunnel holds.
#[derive(Debug)]
pub(super) struct Half {
    input: Rc<Channel>,
    /// The rest of the part that is being read.
    part: Bytes,
    output: Rc<Pipe>,
}

/// What the tunnel has written and the connection has not taken.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: RefCell<BytesMut>,
    /// Whether the tunnel has said all it will.
    ended: Cell<bool>,
    /// Wakes the tunnel when there is room.
    writer: RefCell<Option<Waker>>,
}

/// Bytes that wait.
const ROOM: usize = 16 * 1024;

// === impl Pipe ===

impl Pipe {
    /// Whether the connection has something to say of it.
    pub(super) fn has_bytes(&self) -> bool {
        !self.bytes.borrow().is_empty()
    }

    /// Whether nothing follows those bytes.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Takes so many bytes at most.
    pub(super) fn take(&self, limit: usize) -> Bytes {
        let mut bytes = self.bytes.borrow_mut();
        let count = limit.min(bytes.len());
        let taken = bytes.split_to(count).freeze();
        if bytes.is_empty() {
            *bytes = BytesMut::new();
        }
        drop(bytes);
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        taken
    }

    fn poll_empty(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_bytes() {
            return Poll::Ready(Ok(()));
        }
        self.writer.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

// === impl Half ===

impl Half {
    pub(super) fn new(input: &Rc<Channel>, output: &Rc<Pipe>) -> Self {
        Self { input: Rc::clone(input), part: Bytes::new(), output: Rc::clone(output) }
    }
}

impl AsyncRead for Half {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.part.is_empty() {
            match ready!(self.input.poll_part(cx)) {
                None => return Poll::Ready(Ok(())),
                // Trailers are nothing that a tunnel has.
                Some(Ok(frame)) => self.part = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let count = self.part.len().min(buf.remaining());
        buf.put_slice(&self.part[..count]);
        self.part.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Half {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut bytes = self.output.bytes.borrow_mut();
        let count = buf.len().min(ROOM.saturating_sub(bytes.len()));
        if count == 0 && !buf.is_empty() {
            self.output.writer.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        bytes.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_empty(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.ended.set(true);
        self.output.poll_empty(cx)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.input.abandon();
    }
}
