//! What a client sends: bytes that have been read and belong to no message yet, and the body being read.

use std::{
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::body::Channel;
use crate::{
    error::Fault,
    http1::{
        body::{BodyReader, Step},
        chunked::Forbidden,
        framing::Length,
    },
};

/// The reading side of a connection.
#[derive(Debug)]
pub(super) struct Input {
    /// Empty and without memory while nothing has come.
    pub(super) buffer: BytesMut,
    /// Takes the body of the request under way.
    body: BodyReader,
}

/// What became of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Something has changed for whoever takes the body.
    Moved,
    /// The client has ended its side, is gone, or has sent what ends the connection.
    Gone,
}

/// Bytes read at first: on the stack, so that idle connections hold none.
const FIRST: usize = 4 * 1024;
/// Bytes of later requests that are read while one is under way.
const AHEAD: usize = 4 * 1024;
/// Bytes of a body read at a time.
const PIECE: usize = 16 * 1024;

// === impl Input ===

impl Input {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), body: BodyReader::new(Length::None, Forbidden::Refuse) }
    }

    /// A body of this length begins.
    pub(super) fn begin(&mut self, length: Length) {
        self.body = BodyReader::new(length, Forbidden::Refuse);
    }

    /// Whether the body has been read whole.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_ended()
    }

    /// Gives memory back that holds nothing.
    pub(super) fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Reads something; 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            let mut first = [const { MaybeUninit::uninit() }; FIRST];
            let mut first = ReadBuf::uninit(&mut first);
            ready!(Pin::new(io).poll_read(cx, &mut first))?;
            self.buffer.extend_from_slice(first.filled());
            return Poll::Ready(Ok(first.filled().len()));
        }
        self.buffer.reserve(FIRST);
        pin!(io.read_buf(&mut self.buffer)).poll(cx)
    }

    /// Reads for whoever takes the body, if they wait for it; after its end, watches whether the client stays. One
    /// whose body broke off, or the rules, does not: nothing that it sends can be read any more.
    pub(super) fn poll_body(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        channel: &Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Read> {
        if channel.is_ended() {
            // The next request may come already. Only reading tells, so that is read, too, up to a bound.
            while self.buffer.len() < AHEAD {
                if let Ok(0) | Err(_) = ready!(self.poll_read(io, cx)) {
                    return Poll::Ready(Read::Gone);
                }
            }
            return Poll::Pending;
        }
        if channel.is_failed() {
            return Poll::Ready(Read::Gone);
        }
        if !channel.is_open() {
            return Poll::Pending;
        }
        ready!(channel.poll_wanted(cx));
        loop {
            match self.body.step(&mut self.buffer) {
                Ok(Step::Data(data)) => {
                    channel.give(Frame::data(data), cx);
                    if self.body.is_ended() {
                        channel.end(cx);
                    }
                    return Poll::Ready(Read::Moved);
                }
                Ok(Step::Trailers(trailers)) => {
                    channel.give(Frame::trailers(trailers), cx);
                    channel.end(cx);
                    return Poll::Ready(Read::Moved);
                }
                Ok(Step::End) => {
                    channel.end(cx);
                    return Poll::Ready(Read::Moved);
                }
                Ok(Step::More) => match ready!(self.poll_piece(io, cx)) {
                    Ok(0) | Err(_) => {
                        channel.fail(Fault::ClientGone, cx);
                        return Poll::Ready(Read::Moved);
                    }
                    Ok(_) => {}
                },
                Err(malformed) => {
                    channel.fail(Fault::BadRequest(malformed.0), cx);
                    return Poll::Ready(Read::Moved);
                }
            }
        }
    }

    /// Throws a piece of an unwanted body away; how many bytes it had, none at its end.
    pub(super) fn poll_discard(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<u64>>> {
        loop {
            match self.body.step(&mut self.buffer) {
                Ok(Step::Data(data)) => return Poll::Ready(Ok(Some(data.len() as u64))),
                Ok(Step::Trailers(_)) => {}
                Ok(Step::End) => return Poll::Ready(Ok(None)),
                Ok(Step::More) => {
                    if ready!(self.poll_piece(io, cx))? == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Err(malformed) => return Poll::Ready(Err(io::Error::other(malformed))),
            }
        }
    }

    fn poll_piece(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.buffer.reserve(PIECE);
        pin!(io.read_buf(&mut self.buffer)).poll(cx)
    }
}
