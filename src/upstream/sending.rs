//! A request on its way into a connection: its head, and its body as the client brings it.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Method, header, request::Parts};
use http_body::Body as HttpBody;
use tokio::io::AsyncWrite;

use super::Stream;
use crate::{
    error::Fault,
    http1::{
        chunked::{CHUNK_END, LAST_CHUNK, begin_chunk, end_with_trailers},
        framing::Length,
        write,
    },
};

/// What is left to send of one request. Small parts are joined with what is sent before them, the head above
/// all; large ones go out from where they are. It holds at most one part of the body and [`JOINED`] bytes.
#[derive(Debug)]
pub(super) struct Sending<B> {
    /// The head, beginnings of chunks, and small parts.
    out: BytesMut,
    /// A large part, which follows `out`.
    data: Bytes,
    /// What is left of the end of its chunk, which follows `data`.
    tail: &'static [u8],
    /// The body, until it has ended.
    body: Option<B>,
    length: Length,
    /// Whether any byte has been written.
    begun: bool,
    /// Whether all has been written, and TLS has passed it on.
    flushed: bool,
}

/// Why sending ended before the request did.
#[derive(Debug)]
pub(super) enum SendError {
    /// The backend does not take it any more.
    Io(io::Error),
    /// The request's own body failed.
    Body(Fault),
}

/// Parts of a body up to this are copied to what goes out before them; that costs less than another slice.
const SMALL: usize = 4 * 1024;
/// Bytes that are joined before they are sent.
const JOINED: usize = 16 * 1024;

// === impl Sending ===

impl<B> Sending<B> {
    /// Whether a byte of it may have reached the backend.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether all of it has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.flushed
    }

    fn queued(&self) -> usize {
        self.out.len() + self.data.len() + self.tail.len()
    }

    fn advance(&mut self, mut written: usize) {
        let out = written.min(self.out.len());
        self.out.advance(out);
        written -= out;
        let data = written.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[written - data..];
    }
}

impl<B> Sending<B>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
{
    /// A request that is to be sent. Of its target, the path and query are.
    pub(super) fn new(parts: &Parts, body: B) -> Self {
        let length = length(parts, &body);
        let mut out = BytesMut::new();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        write::request_head(&mut out, &parts.method, target, &parts.headers, length);
        let body = Some(body).filter(|body| !body.is_end_stream());
        Self { out, data: Bytes::new(), tail: &[], body, length, begun: false, flushed: false }
    }

    /// Sends what there is; ready when all of it has been sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), SendError>> {
        while !self.flushed {
            let waits = self.fill(cx).map_err(SendError::Body)?;
            if self.queued() == 0 {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(SendError::Io)?;
                if waits {
                    return Poll::Pending;
                }
                self.flushed = true;
                // Nothing of it is needed while the answer comes.
                self.out = BytesMut::new();
                break;
            }
            let slices = [IoSlice::new(&self.out), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let written =
                ready!(pin!(&mut *stream).poll_write_vectored(cx, &slices)).map_err(SendError::Io)?;
            if written == 0 {
                return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
            }
            self.begun = true;
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the body has and there is room for; whether more is to come that is not there yet.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Fault> {
        while let Some(body) = &mut self.body {
            if !self.data.is_empty() || !self.tail.is_empty() || self.out.len() > JOINED {
                return Ok(false);
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => {
                        let ended = body.is_end_stream();
                        self.part(data)?;
                        if ended {
                            self.end(None)?;
                        }
                    }
                    Err(frame) => self.end(frame.into_trailers().ok())?,
                },
            }
        }
        Ok(false)
    }

    fn part(&mut self, data: Bytes) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        let chunked = match &mut self.length {
            Length::Exact(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(LONGER)?;
                false
            }
            Length::Chunked => true,
            Length::None | Length::UntilClose => return Err(LONGER),
        };
        if chunked {
            begin_chunk(&mut self.out, data.len());
        }
        let end = if chunked { CHUNK_END } else { &[] };
        if data.len() <= SMALL {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(end);
        } else {
            self.data = data;
            self.tail = end;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        self.body = None;
        match (self.length, trailers) {
            // Less than was announced: what follows would be taken for the rest.
            (Length::Exact(1..), _) => return Err(Fault::ClientGone),
            // The body was asked for more, so nothing is queued that this would have to follow.
            (Length::Chunked, Some(trailers)) => end_with_trailers(&mut self.out, &trailers),
            (Length::Chunked, None) if self.tail.is_empty() => self.out.extend_from_slice(LAST_CHUNK),
            (Length::Chunked, None) => self.tail = CHUNK_END_AND_LAST,
            _ => {}
        }
        Ok(())
    }
}

/// More than was announced: the backend would take it for the next request.
const LONGER: Fault = Fault::BadRequest("the request's body is longer than announced");
/// The end of the last chunk with data, and the last chunk.
const CHUNK_END_AND_LAST: &[u8] = b"\r\n0\r\n\r\n";

/// How the body is framed: by its length where that is known.
fn length(parts: &Parts, body: &impl HttpBody) -> Length {
    if !body.is_end_stream() {
        return body.size_hint().exact().map_or(Length::Chunked, Length::Exact);
    }
    // RFC 9110 §8.6: methods that usually bring content say that there is none.
    let says_none = parts.headers.contains_key(header::CONTENT_LENGTH)
        || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    if says_none { Length::Exact(0) } else { Length::None }
}
