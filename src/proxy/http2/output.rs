//! What a client gets: frames of all streams together in few writes, large parts of bodies without a copy.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::http2::write::data_head;

/// The writing side of a connection.
#[derive(Debug)]
pub(super) struct Output {
    /// Heads of frames, whole small frames: whatever is not a large part.
    small: BytesMut,
    /// In which order they go out, large parts among them.
    pieces: VecDeque<Piece>,
    /// Bytes of all of them.
    length: usize,
    /// Whether something was written and not flushed.
    dirty: bool,
    /// Whether the client has to take what is on its way first.
    blocked: bool,
}

#[derive(Debug)]
enum Piece {
    /// So many of the small ones.
    Small(usize),
    Part(Bytes),
}

/// Parts up to this size are copied to what they follow.
const SMALL: usize = 4 * 1024;
/// Bytes that are collected before they are written: four whole TLS records.
const ENOUGH: usize = 64 * 1024;
/// Bytes that are collected of what has to be said at once, such as acknowledgements: then nothing more is read.
const TOO_MUCH: usize = 2 * ENOUGH;
/// Pieces that are written at a time.
const PIECES: usize = 32;

// === impl Output ===

impl Output {
    pub(super) fn new() -> Self {
        Self { small: BytesMut::new(), pieces: VecDeque::new(), length: 0, dirty: false, blocked: false }
    }

    /// Whether a body may say more.
    pub(super) fn has_room(&self) -> bool {
        !self.blocked && self.length < ENOUGH
    }

    /// Whether the client takes so little of what it asks for that it has to wait.
    pub(super) fn is_choked(&self) -> bool {
        self.length > TOO_MUCH
    }

    /// Whether all has gone out, as far as the kernel.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0 && !self.dirty
    }

    /// Whether the client is waited for.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Adds frames.
    pub(super) fn frames(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.small.len();
        write(&mut self.small);
        self.added(self.small.len() - before);
    }

    /// Adds a frame of a body.
    pub(super) fn data(&mut self, stream: u32, data: Bytes, end: bool) {
        let head = data_head(stream, data.len(), end);
        self.small.extend_from_slice(&head);
        if data.len() <= SMALL {
            self.small.extend_from_slice(&data);
            self.added(head.len() + data.len());
        } else {
            self.added(head.len());
            self.length += data.len();
            self.pieces.push_back(Piece::Part(data));
        }
    }

    fn added(&mut self, count: usize) {
        self.length += count;
        match self.pieces.back_mut() {
            Some(Piece::Small(length)) => *length += count,
            _ => self.pieces.push_back(Piece::Small(count)),
        }
    }

    /// Writes everything and flushes. `written` is told how many bytes went out.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        // Until the end is reached, it is the client who has to take something.
        self.blocked = true;
        while self.length > 0 {
            let count = ready!(self.poll_write(io, cx))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.dirty = true;
            *written += count as u64;
            self.take(count);
        }
        if self.dirty {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.dirty = false;
        }
        self.blocked = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let (1, Some(Piece::Small(_))) = (self.pieces.len(), self.pieces.front()) {
            return Pin::new(io).poll_write(cx, &self.small);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (mut small, mut count) = (0, 0);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = match piece {
                Piece::Small(length) => {
                    small += length;
                    IoSlice::new(&self.small[small - length..small])
                }
                Piece::Part(part) => IoSlice::new(part),
            };
            count += 1;
        }
        Pin::new(io).poll_write_vectored(cx, &slices[..count])
    }

    /// Forgets what has been written.
    fn take(&mut self, mut count: usize) {
        self.length -= count;
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else { return };
            let (taken, whole) = match piece {
                Piece::Small(length) => {
                    let taken = count.min(*length);
                    self.small.advance(taken);
                    *length -= taken;
                    (taken, *length == 0)
                }
                Piece::Part(part) => {
                    let taken = count.min(part.len());
                    part.advance(taken);
                    (taken, part.is_empty())
                }
            };
            count -= taken;
            if whole {
                self.pieces.pop_front();
            }
        }
    }

    /// Gives memory back that holds nothing.
    pub(super) fn rest(&mut self) {
        if self.length == 0 {
            self.small = BytesMut::new();
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::http2::write;

    /// Takes so many bytes at a time, and in all; every other time none, if it pauses.
    struct Slow {
        got: Vec<u8>,
        bite: usize,
        left: usize,
        pauses: bool,
        paused: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.paused = self.pauses && !self.paused;
            if self.paused {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = buf.len().min(self.bite).min(self.left);
            if count == 0 {
                return Poll::Pending;
            }
            self.left -= count;
            self.got.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn frames_go_out_in_order_however_they_are_taken() {
        let parts = [10, 5000, 16_384, 1, 4097, 0].map(|length| Bytes::from(vec![length as u8; length]));
        for bite in [1, 7, 9, 4096, 100_000] {
            let mut output = Output::new();
            let mut expected = Vec::new();
            for (stream, part) in (1..).step_by(2).zip(&parts) {
                output.frames(|out| write::ping_ack(out, [stream as u8; 8]));
                output.data(stream, part.clone(), false);
                let mut ping = BytesMut::new();
                write::ping_ack(&mut ping, [stream as u8; 8]);
                expected.extend_from_slice(&ping);
                expected.extend_from_slice(&data_head(stream, part.len(), false));
                expected.extend_from_slice(part);
            }
            let mut slow = Slow { got: Vec::new(), bite, left: usize::MAX, pauses: true, paused: false };
            let mut cx = Context::from_waker(Waker::noop());
            let mut written = 0;
            while output.poll_flush(&mut slow, &mut cx, &mut written).is_pending() {
                assert!(output.is_blocked() && !output.has_room());
            }
            assert!(output.is_empty() && output.has_room() && output.pieces.is_empty());
            assert_eq!(written, expected.len() as u64);
            assert!(slow.got == expected, "{bite} at a time");
        }
    }

    #[test]
    fn frames_stay_in_order_for_as_long_as_a_connection_lives() {
        let mut output = Output::new();
        let mut expected = Vec::new();
        let mut little = Slow { got: Vec::new(), bite: 9000, left: 0, pauses: false, paused: false };
        let mut cx = Context::from_waker(Waker::noop());
        let mut written = 0;
        for round in 0..200 {
            for length in [5000 + round, 10, 16_384] {
                let part = Bytes::from(vec![round as u8; length]);
                expected.extend_from_slice(&data_head(1, length, false));
                expected.extend_from_slice(&part);
                output.data(1, part, false);
            }
            // Now and then, all of it.
            little.left = if round % 2 == 0 { usize::MAX } else { 5000 + round * 97 };
            let _ = output.poll_flush(&mut little, &mut cx, &mut written);
        }
        little.left = usize::MAX;
        assert!(output.poll_flush(&mut little, &mut cx, &mut written).is_ready());
        assert!(little.got == expected);
    }
}
