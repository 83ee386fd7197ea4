//! One connection: heads in, answers out, one request after the other.

use std::{cell::Cell, future::poll_fn, io, pin::Pin, rc::Rc, task::Poll};

use http::{HeaderValue, Method, Response, Version, header};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    Service,
    body::{Body, Channel},
    input::{Input, Read},
    output::Output,
    rewound::Rewound,
};
use crate::{
    http1::{
        framing::{Length, is_bodiless},
        request::{Head, Parser, Refused},
        write::response_head,
    },
    proxy::{
        LINGER, LINGER_BYTES, activity::Activity, answer_body::AnswerBody, date::date,
        request_body::Incoming, service::Outcome, upgrade::Tunnel,
    },
};

/// A connection and what is known of it.
pub(super) struct Connection<'a, IO, S> {
    io: IO,
    service: &'a S,
    activity: &'a Rc<Activity>,
    /// Whether it has been told to go: then the next answer is the last one.
    ending: &'a Cell<bool>,
    input: Input,
    output: Output,
}

/// What an answer depends on beside itself.
struct Asked {
    /// By HEAD.
    head: bool,
    version: Version,
    /// Whether the client will send another request.
    keep_alive: bool,
}

/// What follows a request.
enum After {
    /// Another one.
    Next,
    /// The end, told in an orderly way.
    Close,
    /// The end without a word: the answer is not whole, or nobody is there to hear it.
    Cut,
    /// Something that is not HTTP.
    Tunnel(Tunnel),
}

// === impl Connection ===

impl<'a, IO, S> Connection<'a, IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service,
{
    pub(super) fn new(io: IO, service: &'a S, activity: &'a Rc<Activity>, ending: &'a Cell<bool>) -> Self {
        Self { io, service, activity, ending, input: Input::new(), output: Output::new() }
    }

    /// Serves it to its end, or until it becomes a tunnel.
    pub(super) async fn run(mut self) -> Option<(Rewound<IO>, Tunnel)> {
        loop {
            let after = match self.head().await {
                Ok(Some(head)) => self.exchange(head).await,
                Ok(None) => After::Close,
                Err(refused) => self.refuse(refused).await,
            };
            match after {
                After::Next => {}
                After::Close => {
                    self.close().await;
                    return None;
                }
                After::Cut => return None,
                After::Tunnel(tunnel) => return Some((Rewound::new(self.io, self.input.buffer), tunnel)),
            }
        }
    }

    /// The next head; none when there will not be one.
    async fn head(&mut self) -> Result<Option<Head>, Refused> {
        let mut parser = Parser::default();
        let limits = self.service.limits();
        poll_fn(|cx| {
            loop {
                if !self.input.buffer.is_empty() {
                    self.activity.input();
                    match parser.parse(&mut self.input.buffer, &limits) {
                        Ok(None) => {}
                        done => return Poll::Ready(done),
                    }
                }
                if self.ending.get() && self.input.buffer.is_empty() {
                    return Poll::Ready(Ok(None));
                }
                match self.input.poll_read(&mut self.io, cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(None)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        self.input.rest();
                        self.output.rest();
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// Tells why a head is not served, and nothing after it.
    async fn refuse(&mut self, refused: Refused) -> After {
        let (head, version) = match &refused.line {
            Some(line) => (line.method() == Method::HEAD, line.version()),
            None => (false, Version::HTTP_11),
        };
        let asked = Asked { head, version, keep_alive: false };
        let response = self.service.refuse(refused);
        let none = Channel::new(Length::None, false, false);
        // What follows may be anything; it is read and thrown away so that the answer can be read.
        self.input.begin(Length::UntilClose);
        match self.answer(response, &asked, &none).await {
            Ok(_) => After::Close,
            Err(_) => After::Cut,
        }
    }

    /// One request and its answer.
    async fn exchange(&mut self, head: Head) -> After {
        let Head { request, length, keep_alive, expects_continue } = head;
        let version = request.version();
        let asked = Asked { head: request.method() == Method::HEAD, version, keep_alive };
        let channel = Channel::new(length, version >= Version::HTTP_11, expects_continue);
        self.input.begin(length);
        let request = request.map(|()| Incoming::Http1(Body::new(&channel)));
        let outcome = {
            // It is most of what a connection keeps, and not there between requests.
            let mut call = Box::pin(self.service.call(request));
            poll_fn(|cx| {
                loop {
                    if let Poll::Ready(outcome) = call.as_mut().poll(cx) {
                        return Poll::Ready(Some(outcome));
                    }
                    channel.take_interim(&mut self.output.bytes, !self.input.buffer.is_empty());
                    if let Poll::Ready(Err(_)) = self.output.poll_flush(&mut self.io, cx) {
                        return Poll::Ready(None);
                    }
                    match self.input.poll_body(&mut self.io, &channel, cx) {
                        Poll::Ready(Read::Moved) => {}
                        // The request is dropped, wherever it is.
                        Poll::Ready(Read::Gone) => return Poll::Ready(None),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await
        };
        match outcome {
            None => After::Cut,
            Some(Outcome::Tunnel(response, tunnel)) => match self.switch(&response).await {
                Ok(()) => After::Tunnel(tunnel),
                Err(_) => After::Cut,
            },
            Some(Outcome::Answer(response)) => match self.answer(response, &asked, &channel).await {
                Ok(last) => self.finish_body(&channel, last).await,
                Err(_) => After::Cut,
            },
        }
    }

    /// Says that what follows is not HTTP any more.
    async fn switch(&mut self, response: &Response<()>) -> io::Result<()> {
        response_head(&mut self.output.bytes, response.status(), response.headers(), Length::None);
        poll_fn(|cx| self.output.poll_flush(&mut self.io, cx)).await
    }

    /// Writes an answer; whether it was the last one. An error is an answer that is not whole.
    async fn answer(
        &mut self,
        response: Response<AnswerBody>,
        asked: &Asked,
        channel: &Rc<Channel>,
    ) -> io::Result<bool> {
        let (mut parts, mut body) = response.into_parts();
        let length = match body.size_hint().exact() {
            _ if asked.head || is_bodiless(parts.status) => Length::None,
            Some(length) => Length::Exact(length),
            None if asked.version < Version::HTTP_11 => Length::UntilClose,
            None => Length::Chunked,
        };
        let told = parts.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
        let last = told
            || !asked.keep_alive
            || self.ending.get()
            || length == Length::UntilClose
            || channel.is_failed()
            // Whether it will send the body after this answer, nobody knows (RFC 9110 §10.1.1).
            || channel.awaits_continue();
        if last {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else if asked.version < Version::HTTP_11 {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        parts.headers.entry(header::DATE).or_insert_with(date);
        channel.take_interim(&mut self.output.bytes, !self.input.buffer.is_empty());
        response_head(&mut self.output.bytes, parts.status, &parts.headers, length);
        self.output.begin(length);

        let mut open = true;
        let mut broken = false;
        poll_fn(|cx| {
            loop {
                let mut moved = false;
                while open && self.output.has_room() {
                    if body.is_end_stream() {
                        self.output.end();
                        open = false;
                        break;
                    }
                    match Pin::new(&mut body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => open = !self.output.add(frame),
                        Poll::Ready(Some(Err(_))) => (open, broken) = (false, true),
                        Poll::Ready(None) => {
                            self.output.end();
                            open = false;
                        }
                        Poll::Pending => break,
                    }
                }
                let full = open && !self.output.has_room();
                match self.output.poll_flush(&mut self.io, cx) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) if broken => {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    Poll::Ready(Ok(())) if !open => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => moved |= full,
                    Poll::Pending => {}
                }
                // After what there is has been said: a client may have ended its side to hear it.
                match self.input.poll_body(&mut self.io, channel, cx) {
                    Poll::Ready(Read::Moved) => moved = true,
                    Poll::Ready(Read::Gone) => {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                    }
                    Poll::Pending => {}
                }
                if !moved {
                    return Poll::Pending;
                }
            }
        })
        .await?;
        Ok(last)
    }

    /// After an answer: an upload goes on for whoever takes it, and what nobody takes is thrown away.
    async fn finish_body(&mut self, channel: &Rc<Channel>, last: bool) -> After {
        let gone = poll_fn(|cx| {
            while channel.is_open() {
                match self.input.poll_body(&mut self.io, channel, cx) {
                    Poll::Ready(Read::Moved) => {}
                    Poll::Ready(Read::Gone) => return Poll::Ready(true),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(false)
        })
        .await;
        if gone {
            return After::Cut;
        }
        if last || channel.is_failed() {
            return After::Close;
        }
        if self.input.is_whole() || self.discard().await {
            return After::Next;
        }
        After::Close
    }

    /// Reads the rest of a body that nobody wants, for a while; whether it has come to its end.
    async fn discard(&mut self) -> bool {
        let rest = async {
            let mut left = LINGER_BYTES;
            loop {
                let read = poll_fn(|cx| self.input.poll_discard(&mut self.io, cx)).await;
                match read {
                    Ok(None) => return true,
                    Ok(Some(bytes)) if bytes <= left => left -= bytes,
                    Ok(Some(_)) | Err(_) => return false,
                }
            }
        };
        timeout(LINGER, rest).await.unwrap_or(false)
    }

    /// Ends the connection so that its client reads the last answer, whatever it still sends.
    async fn close(&mut self) {
        let linger = !self.input.is_whole() || !self.input.buffer.is_empty();
        let closing = async {
            if self.io.shutdown().await.is_ok() && linger {
                self.input.begin(Length::UntilClose);
                let mut left = LINGER_BYTES;
                while let Ok(Some(bytes)) = poll_fn(|cx| self.input.poll_discard(&mut self.io, cx)).await {
                    let Some(rest) = left.checked_sub(bytes) else { return };
                    left = rest;
                }
            }
        };
        // Neither a client that does not read nor one that goes on sending is waited for.
        let _ = timeout(LINGER, closing).await;
    }
}
