//! One case over HTTP/2.

use std::fmt;

use crate::{
    case::{Bench, is_this},
    recorder::Arrived,
    support::{
        DEADLINE,
        client::{Client, Protocol},
        frames::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome},
    },
};

/// What a client sends, and what must become of it.
pub(crate) struct Case2 {
    what: &'static str,
    /// The section of the RFC.
    rfc: &'static str,
    sends: Sends,
    expect: Expect2,
}

/// Names and values, pseudo-header fields among them.
type Fields = &'static [(&'static str, &'static str)];

/// What goes out on stream 1, or anywhere.
#[derive(Debug)]
pub(crate) enum Sends {
    /// A head, frames of data, and trailers.
    Request(Fields, &'static [&'static str], Option<Fields>),
    /// Kind, flags, stream and payload of frames.
    Frames(&'static [(u8, u8, u32, &'static [u8])]),
}

/// What must become of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect2 {
    /// The stream is reset or answered by 400, or the connection is closed. Nothing reaches the backend.
    Malformed,
    /// The same, but for a head, and a part of a body, that the backend may have got already.
    Broken,
    /// The stream is reset, but when the backend may have got this, which is whole and canonical: streams are
    /// passed on as they come.
    Late(&'static str, &'static str),
    /// The stream is answered by this status. Nothing reaches the backend.
    Status(u16),
    /// The connection is closed for an error. Nothing reaches the backend.
    Closed,
    /// The backend gets this, as in HTTP/1; the client gets its answer.
    Arrives(&'static str, &'static [&'static str], &'static str),
}

pub(crate) const fn case2(what: &'static str, rfc: &'static str, sends: Sends, expect: Expect2) -> Case2 {
    Case2 { what, rfc, sends, expect }
}

pub(crate) const fn head(fields: Fields) -> Sends {
    Sends::Request(fields, &[], None)
}

pub(crate) const fn body(fields: Fields, data: &'static [&'static str]) -> Sends {
    Sends::Request(fields, data, None)
}

pub(crate) const fn trailers(fields: Fields, data: &'static [&'static str], trailers: Fields) -> Sends {
    Sends::Request(fields, data, Some(trailers))
}

pub(crate) const fn torn(frames: &'static [(u8, u8, u32, &'static [u8])]) -> Sends {
    Sends::Frames(frames)
}

/// What follows every case on its connection.
const AFTER: Fields = &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/after")];

// === impl Bench ===

impl Bench {
    /// Sends a case; what was wrong with what became of it.
    pub(crate) async fn try_case2(&self, case: &Case2) -> Result<(), String> {
        let mut frames = Frames::open(&Client::new(&self.homing, Protocol::Http2)).await;
        case.sends.to(&mut frames).await;
        let outcome = outcome(&mut frames, 1).await;
        let mut after = outcome;
        if matches!(outcome, Some(Outcome::Answer(_) | Outcome::Reset(_))) {
            send_head(&mut frames, AFTER_STREAM, AFTER, true).await;
            after = self::outcome(&mut frames, AFTER_STREAM).await;
        }
        let mut arrived = self.arrived().await?;
        arrived.retain(|one| one.line != "GET /after");
        let judged = case.expect.judge(outcome, after, &arrived);
        judged.map_err(|why| format!("{why}\n    {outcome:?}, then {after:?}\n    arrived {arrived:?}"))
    }
}

const AFTER_STREAM: u32 = 101;

// === impl Sends ===

impl Sends {
    async fn to(&self, frames: &mut Frames) {
        match *self {
            Self::Request(fields, data, trailers) => {
                send_head(frames, 1, fields, data.is_empty() && trailers.is_none()).await;
                for (left, part) in (0..data.len()).rev().zip(data) {
                    let last = left == 0 && trailers.is_none();
                    frames.send(DATA, if last { END_STREAM } else { 0 }, 1, part.as_bytes()).await;
                }
                if let Some(trailers) = trailers {
                    send_head(frames, 1, trailers, true).await;
                }
            }
            Self::Frames(list) => {
                for &(kind, flags, stream, payload) in list {
                    frames.send(kind, flags, stream, payload).await;
                }
            }
        }
    }
}

// === impl Expect2 ===

impl Expect2 {
    fn judge(
        self,
        outcome: Option<Outcome>,
        after: Option<Outcome>,
        arrived: &[Arrived],
    ) -> Result<(), String> {
        if let Some(fault) = arrived.iter().find_map(|arrived| arrived.fault.as_ref()) {
            return Err(format!("not canonical: {fault}"));
        }
        // RFC 9113 §5.4.2 lets an error of a stream be one of its connection.
        let refused =
            matches!(outcome, Some(Outcome::Answer(400) | Outcome::Reset(_) | Outcome::GoAway(1..)));
        let closed = matches!(after, Some(Outcome::GoAway(_) | Outcome::Closed));
        let right = match self {
            Self::Malformed | Self::Broken | Self::Late(..) => refused,
            Self::Status(status) => outcome == Some(Outcome::Answer(status)),
            Self::Closed => closed && !matches!(outcome, Some(Outcome::Answer(_))),
            Self::Arrives(..) => outcome == Some(Outcome::Answer(200)),
        };
        if !right {
            return Err("something else should become of it".to_owned());
        }
        if !closed && after != Some(Outcome::Answer(200)) {
            return Err(
                "what follows on the connection should be served, or the connection closed".to_owned()
            );
        }
        match (self, arrived) {
            (Self::Arrives(line, fields, body), [one]) => is_this(one, line, fields, body),
            (Self::Arrives(..), arrived) => Err(format!("{} requests reached the backend", arrived.len())),
            (_, []) => Ok(()),
            (Self::Broken, arrived) if arrived.iter().all(|one| !one.whole) => Ok(()),
            (Self::Late(line, body), [one]) if one.whole => is_this(one, line, &[], body),
            (Self::Late(..), [_]) => Ok(()),
            (..) => Err("nothing whole should reach the backend".to_owned()),
        }
    }
}

// === impl Case2 ===

impl fmt::Display for Case2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (RFC {}): {:?}: {:?}", self.what, self.rfc, self.expect, self.sends)
    }
}

/// Waits for what becomes of a stream; nothing, if that takes too long.
async fn outcome(frames: &mut Frames, stream: u32) -> Option<Outcome> {
    tokio::time::timeout(DEADLINE / 4, frames.outcome(stream)).await.ok()
}

/// Sends a head in one frame.
async fn send_head(frames: &mut Frames, stream: u32, fields: Fields, last: bool) {
    let flags = if last { END_HEADERS | END_STREAM } else { END_HEADERS };
    frames.send(HEADERS, flags, stream, &frames::head(fields)).await;
}
