//! What carries the bytes to and from a backend: TCP, or TLS over it.

use std::{
    io,
    mem::MaybeUninit,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::backend::Open;

/// A connected stream to a backend.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Verified and encrypted. Its end is an end only with `close_notify`: without it, reading gives
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), since anybody on the way can close a TCP connection.
    Tls(Box<TlsStream<TcpStream>>),
    /// One of the others after a switch of protocols.
    Upgraded(Box<Upgraded>),
}

/// A stream after a switch of protocols.
#[derive(Debug)]
pub struct Upgraded {
    stream: Stream,
    /// Bytes of the new protocol that were read together with the head.
    ahead: Bytes,
    /// It counts as one of the backend's connections.
    _open: Open,
}

/// Reads of an idle TLS connection that are looked through before it counts as one that says too much.
const MAX_RECORDS: usize = 16;

/// What waits to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Nothing,
    Bytes,
    /// The peer has ended or reset the connection.
    End,
}

// === impl Stream ===

impl Stream {
    /// This stream after a switch of protocols; `ahead` has been read already.
    pub(super) fn upgraded(self, ahead: BytesMut, open: Open) -> Self {
        let ahead = if ahead.is_empty() { Bytes::new() } else { ahead.freeze() };
        Self::Upgraded(Box::new(Upgraded { stream: self, ahead, _open: open }))
    }

    /// What waits to be read: all that came before this worker last asked for events, which is before whatever made
    /// it look now.
    pub(super) fn glance(&mut self) -> Waiting {
        match self {
            Self::Plain(stream) => waiting(stream.try_io(Interest::READABLE, || peek(stream))),
            Self::Tls(_) | Self::Upgraded(_) => self.look(),
        }
    }

    /// What waits to be read right now: asks the kernel, which is a system call more.
    pub(super) fn look(&mut self) -> Waiting {
        match self {
            Self::Plain(stream) => waiting(peek(stream)),
            Self::Tls(stream) => look_through(stream),
            Self::Upgraded(upgraded) => upgraded.stream.look(),
        }
    }

    /// Whether it is worth a try to read, or a buffer for that.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // What is wrong, reading will tell.
            Self::Plain(stream) => stream.poll_read_ready(cx).map(drop),
            // What TLS holds back is not seen from outside.
            Self::Tls(_) | Self::Upgraded(_) => Poll::Ready(()),
        }
    }

    /// Ends the sending side below all protocols, for a message that breaks off: a TLS peer is told of no end.
    pub(super) fn half_close(&self) {
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Upgraded(upgraded) => return upgraded.stream.half_close(),
        };
        // A peer that is gone needs no telling.
        let _ = SockRef::from(socket).shutdown(Shutdown::Write);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Upgraded(upgraded) => {
                let length = upgraded.ahead.len().min(buf.remaining());
                if length == 0 {
                    return Pin::new(&mut upgraded.stream).poll_read(cx, buf);
                }
                buf.put_slice(&upgraded.ahead.split_to(length));
                if upgraded.ahead.is_empty() {
                    // It may be one byte of a large buffer, and the stream open for days.
                    upgraded.ahead = Bytes::new();
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Upgraded(upgraded) => Pin::new(&mut upgraded.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Upgraded(upgraded) => Pin::new(&mut upgraded.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Upgraded(upgraded) => upgraded.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Upgraded(upgraded) => Pin::new(&mut upgraded.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Upgraded(upgraded) => Pin::new(&mut upgraded.stream).poll_shutdown(cx),
        }
    }
}

/// Over TLS, what is there may be for TLS alone: the tickets that follow a handshake (RFC 8446 §4.6.1), a change of
/// keys. Such is taken in; what has to be answered goes out with the next request.
fn look_through(stream: &mut TlsStream<TcpStream>) -> Waiting {
    let (tcp, session) = stream.get_mut();
    for _ in 0..MAX_RECORDS {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() > 0 => return Waiting::Bytes,
            Ok(state) if !state.peer_has_closed() => {}
            _ => return Waiting::End,
        }
        match waiting(peek(tcp)) {
            Waiting::Bytes => {}
            nothing => return nothing,
        }
        if !matches!(session.read_tls(&mut &*SockRef::from(&*tcp)), Ok(1..)) {
            return Waiting::End;
        }
    }
    Waiting::Bytes
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

fn waiting(peeked: io::Result<usize>) -> Waiting {
    match peeked {
        Ok(0) => Waiting::End,
        Ok(_) => Waiting::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Waiting::Nothing,
        Err(_) => Waiting::End,
    }
}
