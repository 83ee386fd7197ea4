//! One stream: a request that is served, then its answer, while its body may still come.

use std::{fmt, rc::Rc, task::Waker};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use tokio::time::Instant;

use super::{
    channel::Channel,
    pipe::{Half, Pipe},
};
use crate::{
    error::Fault,
    http1::framing::is_bodiless,
    proxy::{answer_body::AnswerBody, answers::Progress, date::date, service::Outcome, upgrade},
};

/// One stream and what is known of it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u32,
    /// Of its place.
    pub(super) waker: Waker,
    pub(super) state: State,
    /// Its request's body.
    pub(super) channel: Rc<Channel>,
    /// Bytes that the client takes; less than none after it has changed its mind.
    pub(super) window: i64,
    /// Bytes that the client may send.
    pub(super) receives: i64,
    /// Bytes of its body that count for the windows and have not been given back.
    pub(super) held: usize,
    /// Bytes given back that the client has not been told of.
    pub(super) credit: u32,
    /// Bytes that must still come, if it has been said.
    pub(super) expected: Option<u64>,
    /// Bytes that came and nobody took.
    pub(super) discarded: u64,
    /// Whether the client has said all it will.
    pub(super) received: bool,
    /// Whether it waits in the line of those that have something to say.
    pub(super) in_line: bool,
    /// Whether it waits for what all of them wait for.
    pub(super) parked: bool,
    /// Whether it was asked by HEAD.
    pub(super) head: bool,
    /// Whether it was asked by CONNECT: what comes is for the tunnel, if there will be one.
    pub(super) connects: bool,
    /// Until when what the client still sends is read, once nobody wants it.
    pub(super) linger: Option<Instant>,
}

/// What is under way.
pub(super) enum State {
    /// The request is.
    Serving(LocalBoxFuture<'static, Outcome>),
    /// Its answer is.
    Answering(Answering),
    /// Bytes of another protocol are.
    Tunnel(Tunnel),
    /// Everything has been said.
    Said,
}

/// An answer on its way to the client.
#[derive(Debug)]
pub(super) struct Answering {
    /// Not said yet.
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    /// Whether there is nothing after the head.
    pub(super) bodiless: bool,
    /// Kept until its last byte is said, since it is watched as long.
    pub(super) body: AnswerBody,
    /// What the body has given and has not been said.
    pub(super) part: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    /// Whether the body gives no more.
    pub(super) ended: bool,
    /// How far its client is.
    pub(super) progress: Option<Rc<Progress>>,
}

/// What a WebSocket does until it is over.
pub(super) struct Tunnel {
    /// The answer that opens it, until it is said.
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    /// None when it is over.
    pub(super) run: Option<LocalBoxFuture<'static, ()>>,
    pub(super) pipe: Rc<Pipe>,
    /// Whether the client has been told that nothing follows.
    pub(super) said: bool,
}

// === impl Stream ===

impl Stream {
    /// Whether the client may go on, for all that we know.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state, State::Said)
            && self.received
            && (self.channel.is_drained() || self.channel.is_abandoned())
    }

    /// Whether there may be something to say now.
    pub(super) fn has_words(&self) -> bool {
        match &self.state {
            State::Serving(_) => self.channel.has_word(),
            State::Answering(_) => true,
            State::Tunnel(tunnel) => {
                let ended = tunnel.pipe.is_ended() && !tunnel.said;
                tunnel.head.is_some() || tunnel.run.is_none() || tunnel.pipe.has_bytes() || ended
            }
            State::Said => false,
        }
    }

    /// Whether it counts for the limit: for the client, it does as long as either side has something to say.
    pub(super) fn is_open(&self) -> bool {
        !self.received || !matches!(self.state, State::Said)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Whoever takes its body may be another task.
        self.channel.fail(Fault::ClientGone);
    }
}

// === impl Answering ===

impl Answering {
    /// Makes an answer ready; `head` says that it was asked for by HEAD.
    pub(super) fn new(response: Response<AnswerBody>, head: bool, waker: &Waker) -> Self {
        let (mut parts, body) = response.into_parts();
        let bodiless = head || is_bodiless(parts.status) || body.is_end_stream();
        let fields = &mut parts.headers;
        match body.size_hint().exact() {
            // It says how long the answer to a GET would be (RFC 9110 §8.6).
            _ if head || parts.status == StatusCode::NOT_MODIFIED => {}
            _ if is_bodiless(parts.status) => drop(fields.remove(header::CONTENT_LENGTH)),
            Some(length) => drop(fields.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into())),
            None => drop(fields.remove(header::CONTENT_LENGTH)),
        }
        fields.entry(header::DATE).or_insert_with(date);
        let progress = body.progress();
        if let Some(progress) = &progress {
            progress.tell(waker);
        }
        Self {
            head: Some((parts.status, parts.headers)),
            bodiless,
            body,
            part: Bytes::new(),
            trailers: None,
            ended: false,
            progress,
        }
    }

    /// Whether the client has taken too little for too long.
    pub(super) fn is_cut(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.is_cut())
    }
}

// === impl Tunnel ===

impl Tunnel {
    /// Lets a tunnel begin, whose client sends through this channel.
    pub(super) fn new(response: Response<()>, tunnel: upgrade::Tunnel, channel: &Rc<Channel>) -> Self {
        let (mut parts, ()) = response.into_parts();
        parts.headers.entry(header::DATE).or_insert_with(date);
        let pipe = Rc::default();
        let half = Half::new(channel, &pipe);
        let run = Some(Box::pin(tunnel.run(half)) as LocalBoxFuture<'static, ()>);
        Self { head: Some((parts.status, parts.headers)), run, pipe, said: false }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving(_) => "Serving",
            Self::Answering(_) => "Answering",
            Self::Tunnel(_) => "Tunnel",
            Self::Said => "Said",
        })
    }
}
