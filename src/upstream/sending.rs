//! A request on its way into a connection: its head, and its body as the client brings it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as HttpBody;
use tokio::io::AsyncWrite;

use super::Request;
use crate::{
    error::Fault,
    http1::{
        chunked::{CHUNK_END, LAST_CHUNK, begin_chunk, end_with_trailers},
        framing::Length,
    },
};

/// What is left to send of one request. The first part goes out together with the head. Small parts are joined with
/// what is sent before them; large ones go out from where they are. It holds at most one part of the body and
/// [`JOINED`] bytes beside the head.
#[derive(Debug)]
pub(super) struct Sending<B> {
    head: Bytes,
    /// Beginnings of chunks, and small parts, which follow `head`.
    out: BytesMut,
    /// A large part, which follows `out`.
    data: Bytes,
    /// What is left of the end of its chunk, which follows `data`.
    tail: &'static [u8],
    /// The body, until it has ended.
    body: Option<B>,
    length: Length,
    /// Bytes that have been written.
    written: u64,
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
    /// How many bytes of it may have reached the backend.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether all of it has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.flushed
    }

    /// Whether the backend has been sent all that was announced. The end of a body may be told later than that.
    pub(super) fn is_whole(&self) -> bool {
        self.flushed || self.written > 0 && self.length == Length::Exact(0) && self.queued() == 0
    }

    fn queued(&self) -> usize {
        self.head.len() + self.out.len() + self.data.len() + self.tail.len()
    }

    fn advance(&mut self, mut written: usize) {
        let head = written.min(self.head.len());
        self.head.advance(head);
        written -= head;
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
    /// A request that is to be sent.
    pub(super) fn new(request: Request<B>) -> Self {
        let (head, length, body) = request.into_parts();
        // Its end may have come since its head was written, and has to be told as that announced it.
        let follows = matches!(length, Length::Chunked | Length::Exact(1..)) || !body.is_end_stream();
        let body = follows.then_some(body);
        let (out, data) = (BytesMut::new(), Bytes::new());
        Self { head, out, data, tail: &[], body, length, written: 0, flushed: false }
    }

    /// Sends what there is; ready when all of it has been sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), SendError>> {
        while !self.flushed {
            let waits = self.fill(cx).map_err(SendError::Body)?;
            if self.queued() == 0 {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(SendError::Io)?;
                if waits {
                    return Poll::Pending;
                }
                self.flushed = true;
                // Nothing of it is needed while the answer comes.
                (self.head, self.out) = (Bytes::new(), BytesMut::new());
                break;
            }
            let stream = Pin::new(&mut *stream);
            let written = if self.queued() == self.head.len() {
                // Costs the kernel less.
                stream.poll_write(cx, &self.head)
            } else {
                let (head, out) = (IoSlice::new(&self.head), IoSlice::new(&self.out));
                stream
                    .poll_write_vectored(cx, &[head, out, IoSlice::new(&self.data), IoSlice::new(self.tail)])
            };
            let written = ready!(written).map_err(SendError::Io)?;
            if written == 0 {
                return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
            }
            self.written += written as u64;
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc, task::Waker};

    use futures_util::stream;
    use http::{HeaderValue, Method};
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};

    use super::{super::RequestHead, *};

    type TestBody = UnsyncBoxBody<Bytes, Fault>;

    /// A body of unknown length.
    fn chunks(parts: &[&'static str], trailers: Option<HeaderMap>) -> TestBody {
        let data = parts.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes())));
        let frames: Vec<_> = data.chain(trailers.map(Frame::trailers)).map(Ok).collect();
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    /// A body that says it is longer or shorter than it is.
    struct Claims(u64, TestBody);

    impl HttpBody for Claims {
        type Data = Bytes;
        type Error = Fault;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
            Pin::new(&mut self.1).poll_frame(cx)
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.0)
        }
    }

    /// Notes what each write brought; takes no more than `room` at a time.
    struct Writes {
        room: usize,
        writes: Vec<String>,
    }

    impl AsyncWrite for Writes {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(self.room).collect();
            let length = bytes.len();
            self.writes.push(String::from_utf8(bytes).unwrap());
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Sends a request; what was written, one by one, and how sending ended.
    fn send<B>(method: Method, body: B, room: usize) -> (Vec<String>, Result<(), SendError>)
    where
        B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
    {
        let request = RequestHead::new(method, "/a?b", 0).finish(body, false);
        let mut writer = Writes { room, writes: Vec::new() };
        match Sending::new(request).poll(&mut Context::from_waker(Waker::noop()), &mut writer) {
            Poll::Ready(result) => (writer.writes, result),
            Poll::Pending => panic!("nothing to wait for"),
        }
    }

    #[test]
    fn the_head_and_the_first_bytes_of_the_body_go_out_together() {
        let large: &'static str = "x".repeat(10_000).leak();
        for part in ["small", large] {
            let (writes, sent) = send(Method::POST, chunks(&[part], None), usize::MAX);
            let size = part.len();
            let head = "POST /a?b HTTP/1.1\r\ntransfer-encoding: chunked";
            assert!(sent.is_ok());
            assert_eq!(
                writes[0],
                format!("{head}\r\n\r\n{size:X}\r\n{part}\r\n0\r\n\r\n")[..writes[0].len()]
            );
            assert!(writes[0].contains(part), "{} bytes", writes[0].len());
            assert!(writes.concat().ends_with("\r\n0\r\n\r\n"));
        }
    }

    #[test]
    fn what_is_taken_bit_by_bit_arrives_whole() {
        let large: &'static str = "x".repeat(5000).leak();
        let parts = ["a", large, "b", large];
        let once = send(Method::POST, chunks(&parts, None), usize::MAX).0.concat();
        assert!(once.ends_with("x\r\n0\r\n\r\n"));
        for room in [1, 3, 4097] {
            assert_eq!(send(Method::POST, chunks(&parts, None), room).0.concat(), once, "{room}");
        }
    }

    #[test]
    fn a_body_of_known_length_goes_out_as_it_is() {
        let (writes, sent) = send(Method::PUT, Claims(6, chunks(&["abc", "def"], None)), usize::MAX);
        assert!(sent.is_ok());
        assert_eq!(writes, ["PUT /a?b HTTP/1.1\r\ncontent-length: 6\r\n\r\nabcdef"]);
    }

    #[test]
    fn a_body_that_is_not_as_long_as_announced_is_an_error() {
        let (writes, sent) = send(Method::PUT, Claims(2, chunks(&["abc"], None)), usize::MAX);
        assert!(matches!(sent, Err(SendError::Body(LONGER))), "{sent:?}");
        assert!(!writes.concat().contains("abc"));
        let (_, sent) = send(Method::PUT, Claims(4, chunks(&["abc"], None)), usize::MAX);
        assert!(matches!(sent, Err(SendError::Body(Fault::ClientGone))), "{sent:?}");
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let (writes, _) = send(Method::POST, chunks(&["a"], Some(trailers)), usize::MAX);
        assert!(writes.concat().ends_with("\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"), "{writes:?}");
    }

    /// A body whose end comes when it is said.
    struct Late(Rc<Cell<bool>>);

    impl HttpBody for Late {
        type Data = Bytes;
        type Error = Fault;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
            if self.0.get() { Poll::Ready(None) } else { Poll::Pending }
        }

        fn is_end_stream(&self) -> bool {
            self.0.get()
        }
    }

    #[test]
    fn a_body_that_ends_after_its_head_was_written_ends_as_announced() {
        let ended = Rc::new(Cell::new(false));
        let request = RequestHead::new(Method::POST, "/", 0).finish(Late(Rc::clone(&ended)), false);
        ended.set(true);
        let mut writer = Writes { room: usize::MAX, writes: Vec::new() };
        let sent = Sending::new(request).poll(&mut Context::from_waker(Waker::noop()), &mut writer);
        assert!(matches!(sent, Poll::Ready(Ok(()))), "{sent:?}");
        assert_eq!(writer.writes.concat(), "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    }

    #[test]
    fn no_body_is_said_where_one_is_usual() {
        let none = || http_body_util::Empty::new().map_err(|never| match never {});
        assert_eq!(send(Method::GET, none(), usize::MAX).0, ["GET /a?b HTTP/1.1\r\n\r\n"]);
        let said = ["POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n"];
        assert_eq!(send(Method::POST, none(), usize::MAX).0, said);
    }
}
