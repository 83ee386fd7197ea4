//! What a client gets: heads and small parts together in one write, large parts without a copy.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::AsyncWrite;

use crate::http1::{
    chunked::{CHUNK_END, LAST_CHUNK, begin_chunk, end_with_trailers},
    framing::Length,
};

/// The writing side of a connection.
#[derive(Debug)]
pub(super) struct Output {
    /// Goes first.
    pub(super) bytes: BytesMut,
    /// A large part, which goes after `bytes`; nothing is added while it waits.
    part: Bytes,
    /// How the body under way is framed.
    framing: Length,
    /// Whether the last chunk follows `part`.
    last: bool,
    /// Whether something was written and not flushed.
    dirty: bool,
}

/// Parts up to this size are copied to what they follow.
const SMALL: usize = 4 * 1024;
/// Bytes that are collected before they are written.
const ENOUGH: usize = 16 * 1024;

// === impl Output ===

impl Output {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::new(), part: Bytes::new(), framing: Length::None, last: false, dirty: false }
    }

    /// A body that is framed like this begins.
    pub(super) fn begin(&mut self, framing: Length) {
        self.framing = framing;
    }

    /// Whether another part may be added.
    pub(super) fn has_room(&self) -> bool {
        self.part.is_empty() && self.bytes.len() < ENOUGH
    }

    /// Adds a part of the body; whether it was the last one.
    pub(super) fn add(&mut self, frame: Frame<Bytes>) -> bool {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { return false };
                match self.framing {
                    Length::Chunked => end_with_trailers(&mut self.bytes, &trailers),
                    // There is no place for them.
                    Length::None | Length::Exact(_) | Length::UntilClose => {}
                }
                return true;
            }
        };
        // A chunk of no bytes would be the last one.
        if data.is_empty() || self.framing == Length::None {
            return false;
        }
        let chunked = self.framing == Length::Chunked;
        if chunked {
            begin_chunk(&mut self.bytes, data.len());
        }
        if data.len() > SMALL {
            self.part = data;
        } else {
            self.bytes.extend_from_slice(&data);
            if chunked {
                self.bytes.extend_from_slice(CHUNK_END);
            }
        }
        false
    }

    /// The body is whole.
    pub(super) fn end(&mut self) {
        if self.framing == Length::Chunked {
            if self.part.is_empty() {
                self.bytes.extend_from_slice(LAST_CHUNK);
            } else {
                self.last = true;
            }
        }
    }

    /// Writes everything and flushes.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() || !self.part.is_empty() {
            let written = if self.part.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes))?
            } else if self.bytes.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.part))?
            } else {
                let slices = [IoSlice::new(&self.bytes), IoSlice::new(&self.part)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.dirty = true;
            self.written(written);
        }
        if self.dirty {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives memory back that holds nothing.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }

    fn written(&mut self, count: usize) {
        let first = count.min(self.bytes.len());
        self.bytes.advance(first);
        if count > first {
            self.part.advance(count - first);
            if self.part.is_empty() && self.framing == Length::Chunked {
                self.bytes.extend_from_slice(CHUNK_END);
                if std::mem::take(&mut self.last) {
                    self.bytes.extend_from_slice(LAST_CHUNK);
                }
            }
        }
    }
}
