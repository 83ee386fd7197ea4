//! One exchange: a request goes out and its answer comes in, both driven by whoever waits for the answer.
//!
//! Until the head of the answer is there, that is [`Connection::exchange`]; then it is whoever polls the
//! [`Body`], which goes on sending what is left of the request. No task, and no buffer, outlives it.
//!
//! What a backend sends is not trusted: every rule that it breaks ends its connection, and a client whose answer has
//! begun sees a cut. The connection comes back from the body only if nothing at all is left of the exchange on
//! either side.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{
    Connection, Private, Request, Step as Handshake, Stream,
    sending::{SendError, Sending},
    stream::Waiting,
};
use crate::{
    error::Fault,
    http1::{
        body::{BodyReader, Step},
        chunked::Forbidden,
        fields::Malformed,
        framing::{Length, response_length},
        response::{HeadReader, ResponseHead},
    },
};

/// The body of a backend's answer; `B` is the body of the request.
#[derive(Debug)]
pub struct Body<B> {
    /// None when it has been given back, or is of no use.
    connection: Option<Connection>,
    /// Bytes of the answer that have been received and not passed on.
    buffer: BytesMut,
    reader: BodyReader,
    /// What is left of the request; none when sending has failed.
    sending: Option<Sending<B>>,
    keeps_alive: bool,
    /// Why it broke off, until that has been told.
    broken: Option<Broken>,
}

/// What is left of an exchange whose answer is over.
#[derive(Debug)]
pub enum Finish<B> {
    /// Nothing: its connection can be used again.
    Whole(Connection),
    /// The answer was an early one.
    Sending(Upload<B>),
    /// Its connection is of no use.
    Closed,
}

/// The rest of a request whose answer is over: a backend may answer before it has read what it goes on to read.
#[derive(Debug)]
pub struct Upload<B> {
    connection: Connection,
    sending: Sending<B>,
    /// Whether the connection is of use again when all has been sent.
    reusable: bool,
}

/// Why an exchange gave no answer.
#[derive(Debug)]
pub enum ExchangeError<B> {
    /// Nothing was sent; the request comes back.
    Unsent(Box<Request<B>>),
    /// The backend closed or reset the connection; it may have processed the request.
    Closed,
    /// The backend's answer breaks this rule of HTTP.
    BadAnswer(Malformed),
    /// The request's own body failed: the client's doing.
    Body(Fault),
}

/// Why an answer broke off after its head.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection did.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// It breaks a rule of HTTP, or ends too early.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Room for one read: a whole small answer, and a part of a large one. An exchange has one such buffer.
const HEAD_READ: usize = 8 * 1024;
const BODY_READ: usize = 32 * 1024;
/// Interim answers to one request.
const MAX_INTERIM: usize = 16;

/// Why no head came.
enum Stop {
    Closed,
    Malformed(Malformed),
    Body(Fault),
}

// === impl Connection ===

impl Connection {
    /// Sends one request and waits for the head of its answer. `certain` says that it must not meet a connection that
    /// the backend has closed, however shortly before: that costs a system call. Interim answers are given to `interim`, except
    /// `100 Continue`: whoever reads the client's request says that by itself.
    ///
    /// # Errors
    ///
    /// When there is no answer; the connection is closed then.
    pub async fn exchange<B>(
        mut self,
        request: Request<B>,
        certain: bool,
        mut interim: impl FnMut(StatusCode, &HeaderMap),
    ) -> Result<Response<Box<Body<B>>>, ExchangeError<B>>
    where
        B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
    {
        // Bytes that nobody asked for would be taken for the answer.
        match if certain { self.stream.look() } else { self.stream.glance() } {
            Waiting::Nothing => {}
            Waiting::Bytes if !self.reused => {
                return Err(self.refused(Malformed("an answer before it was asked for")));
            }
            Waiting::Bytes | Waiting::End => return Err(ExchangeError::Unsent(Box::new(request))),
        }
        let method = request.method().clone();
        let upgrade = request.upgrade().cloned();
        // Boxed from the beginning: it is handed from one to the other until the client has it.
        let mut body = Box::new(Body {
            sending: Some(Sending::new(request)),
            connection: Some(self),
            buffer: BytesMut::new(),
            reader: BodyReader::new(Length::None, Forbidden::Drop),
            keeps_alive: false,
            broken: None,
        });
        let mut heads = HeadReader::default();
        let mut interims = 0;
        loop {
            let mut head = match poll_fn(|cx| body.poll_head(cx, &mut heads)).await {
                Ok(head) => head,
                Err(Stop::Closed) => return Err(ExchangeError::Closed),
                Err(Stop::Body(fault)) => return Err(ExchangeError::Body(fault)),
                Err(Stop::Malformed(rule)) => return Err(body.refused(rule)),
            };
            if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                interims += 1;
                if interims > MAX_INTERIM {
                    return Err(body.refused(Malformed("too many interim answers")));
                }
                if head.status != StatusCode::CONTINUE {
                    interim(head.status, &head.headers);
                }
                continue;
            }
            return match body.begin(&method, upgrade.as_ref(), &mut head) {
                Ok(()) => {
                    let mut response = Response::new(body);
                    *response.status_mut() = head.status;
                    *response.version_mut() = head.version;
                    *response.headers_mut() = head.headers;
                    Ok(response)
                }
                Err(rule) => Err(body.refused(rule)),
            };
        }
    }

    fn refused<B>(&self, rule: Malformed) -> ExchangeError<B> {
        tracing::debug!(backend = self.backend.name(), %rule, "answer refused");
        ExchangeError::BadAnswer(rule)
    }
}

// === impl Body ===

impl<B> Body<B> {
    /// What is left of the exchange when the answer has been passed on: a connection of use only if nothing of it is
    /// left behind on either side.
    pub fn finish(&mut self) -> Finish<B> {
        let (Some(connection), Some(sending)) = (self.connection.take(), self.sending.take()) else {
            return Finish::Closed;
        };
        let reusable = self.reader.is_ended() && self.keeps_alive && self.buffer.is_empty();
        match sending.is_done() {
            true if reusable => Finish::Whole(connection),
            false if self.reader.is_ended() => Finish::Sending(Upload { connection, sending, reusable }),
            _ => Finish::Closed,
        }
    }

    /// Its connection is this client's own from now on, and so far with authenticating; without a client, it ends
    /// with this answer.
    pub fn belongs_to(&mut self, client: Option<&Rc<Private>>, step: Handshake) {
        if let Some(connection) = &mut self.connection {
            connection.belongs_to(client);
            connection.step = step;
        }
    }

    /// What carries the bytes of the protocol that was switched to, from the first one on. None if it broke.
    pub fn into_stream(self) -> Option<Stream> {
        let Connection { stream, open, .. } = self.connection?;
        Some(stream.upgraded(self.buffer, open?))
    }

    fn refused(&self, rule: Malformed) -> ExchangeError<B> {
        match &self.connection {
            Some(connection) => connection.refused(rule),
            None => ExchangeError::BadAnswer(rule),
        }
    }

    /// Looks at what a final head means for what follows it.
    fn begin(
        &mut self,
        method: &Method,
        upgrade: Option<&HeaderValue>,
        head: &mut ResponseHead,
    ) -> Result<(), Malformed> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 9110 §15.2.2: only to what was asked for. What follows is not HTTP.
            let to = head.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
            let asked = to.zip(upgrade).is_some_and(|(to, asked)| to.eq_ignore_ascii_case(asked.as_bytes()));
            let sent = self.sending.as_ref().is_some_and(Sending::is_done);
            return if asked && sent {
                Ok(())
            } else {
                Err(Malformed("a switch of protocols that nobody asked for"))
            };
        }
        let length = response_length(method, head.status, head.version, &head.headers)?;
        self.reader = BodyReader::new(length, Forbidden::Drop);
        // A backend that answers before it has the whole request may take the rest of it for the next one: then the
        // client who sends it would choose what another one is answered.
        let asked = self.sending.as_ref().is_some_and(Sending::is_whole);
        self.keeps_alive = asked && head.keeps_alive() && length != Length::UntilClose;
        match length {
            // In the one form that everybody reads alike.
            Length::Exact(length) => {
                let told = head.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
                if told.is_none_or(|told| told.len() > 1 && told[0] == b'0') {
                    head.headers.insert(header::CONTENT_LENGTH, length.into());
                }
            }
            // RFC 9110 §8.6: must not be there, and would be taken for a body by some.
            Length::None if head.status == StatusCode::NO_CONTENT => {
                head.headers.remove(header::CONTENT_LENGTH);
            }
            Length::None | Length::Chunked | Length::UntilClose => {}
        }
        Ok(())
    }

    /// Reads into the buffer; 0 at the end. A buffer without a byte is not kept while there is nothing to read:
    /// answers may be silent for hours.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(0)) };
        ready!(connection.stream.poll_readable(cx));
        self.buffer.reserve(room);
        let read = pin!(connection.stream.read_buf(&mut self.buffer)).poll(cx);
        if read.is_pending() && self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        read
    }
}

impl<B> Body<B>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
{
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        heads: &mut HeadReader,
    ) -> Poll<Result<ResponseHead, Stop>> {
        self.send(cx).map_err(Stop::Body)?;
        if self.sending.as_ref().is_some_and(|sending| sending.written() == 0) {
            return Poll::Pending;
        }
        loop {
            if let Some(head) = heads.read(&mut self.buffer).map_err(Stop::Malformed)? {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.poll_read(cx, HEAD_READ)) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Err(Stop::Closed)),
                Err(error) => {
                    // With TLS 1.3, a backend that misses a client certificate says so only here.
                    if let Some(connection) = &self.connection {
                        tracing::debug!(backend = connection.backend.name(), %error, "no answer");
                    }
                    return Poll::Ready(Err(Stop::Closed));
                }
            }
        }
    }

    /// Goes on sending. A backend that takes no more may have answered all the same, so that it fails is no error.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let (Some(sending), Some(connection)) = (&mut self.sending, &mut self.connection) else {
            return Ok(());
        };
        match sending.poll(cx, &mut connection.stream) {
            Poll::Ready(Err(SendError::Io(error))) => {
                tracing::debug!(backend = connection.backend.name(), %error, "request not sent whole");
                self.sending = None;
                Ok(())
            }
            Poll::Ready(Err(SendError::Body(fault))) => {
                self.sending = None;
                Err(fault)
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        if !self.reader.is_ended() && self.send(cx).is_err() {
            // The backend waits for what will not come: it has to see that.
            if let Some(connection) = &self.connection {
                connection.stream.half_close();
            }
        }
        loop {
            match self.reader.step(&mut self.buffer)? {
                Step::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Step::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Step::End => return Poll::Ready(Ok(None)),
                Step::More => {
                    // A little more than is to come, to see what should not.
                    let left = self.reader.left().and_then(|left| usize::try_from(left).ok());
                    let room = left.map_or(BODY_READ, |left| left.saturating_add(64).min(BODY_READ));
                    if ready!(self.poll_read(cx, room))? == 0 {
                        self.reader.close()?;
                    }
                }
            }
        }
    }
}

impl<B> HttpBody for Body<B>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if this.connection.is_none() && !this.reader.is_ended() {
            let error = this.broken.take().unwrap_or(Broken::Malformed(Malformed("the body broke off")));
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(this.poll_part(cx)) {
            Ok(part) => Poll::Ready(part.map(Ok)),
            Err(error) => {
                if let Some(connection) = this.connection.take() {
                    tracing::debug!(backend = connection.backend.name(), %error, "answer broke off");
                }
                this.broken = Some(error);
                // What came before goes out first: a stream that is reset drops what it has not sent yet.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

// === impl Upload ===

impl<B> Upload<B>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
{
    /// Sends the rest, for as long as the body brings some and the backend takes some within `limit`. The
    /// connection, if it is of use again.
    pub async fn run(mut self, limit: Duration) -> Option<Connection> {
        loop {
            let before = self.sending.written();
            let sending = poll_fn(|cx| self.sending.poll(cx, &mut self.connection.stream));
            match timeout(limit, sending).await {
                Ok(sent) => return (sent.is_ok() && self.reusable).then_some(self.connection),
                Err(_) if self.sending.written() == before => return None,
                Err(_) => {}
            }
        }
    }
}
