//! One case over HTTP/2.

use std::fmt;

use crate::{
    case::{Bench, is_this},
    recorder::Arrived,
    support::{
        DEADLINE,
        client::{Client, Protocol},
        frames::{DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM},
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

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered(u16),
    Reset(u32),
    /// The connection was closed instead; with this code if it said one.
    Closed(Option<u32>),
    /// Nothing, in all the time that there was.
    Nothing,
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

pub(crate) const fn frames(frames: &'static [(u8, u8, u32, &'static [u8])]) -> Sends {
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
        if !matches!(outcome, Outcome::Closed(_)) {
            frames.head(AFTER_STREAM, AFTER, true).await;
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
                frames.head(1, fields, data.is_empty() && trailers.is_none()).await;
                for (left, part) in (0..data.len()).rev().zip(data) {
                    let last = left == 0 && trailers.is_none();
                    frames.send(DATA, if last { END_STREAM } else { 0 }, 1, part.as_bytes()).await;
                }
                if let Some(trailers) = trailers {
                    frames.head(1, trailers, true).await;
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
    fn judge(self, outcome: Outcome, after: Outcome, arrived: &[Arrived]) -> Result<(), String> {
        if let Some(fault) = arrived.iter().find_map(|arrived| arrived.fault.as_ref()) {
            return Err(format!("not canonical: {fault}"));
        }
        // RFC 9113 §5.4.2 lets an error of a stream be one of its connection.
        let refused =
            matches!(outcome, Outcome::Answered(400) | Outcome::Reset(_) | Outcome::Closed(Some(1..)));
        let right = match self {
            Self::Malformed | Self::Broken | Self::Late(..) => refused,
            Self::Status(status) => outcome == Outcome::Answered(status),
            Self::Closed => matches!(after, Outcome::Closed(_)) && !matches!(outcome, Outcome::Answered(_)),
            Self::Arrives(..) => outcome == Outcome::Answered(200),
        };
        if !right {
            return Err("something else should become of it".to_owned());
        }
        if !matches!(after, Outcome::Answered(200) | Outcome::Closed(_)) {
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

/// Waits for what becomes of a stream.
async fn outcome(frames: &mut Frames, stream: u32) -> Outcome {
    let wait = async {
        let mut said = None;
        while let Some(frame) = frames.try_next().await {
            match frame.kind {
                GOAWAY => said = frame.payload.get(4..8).map(code),
                HEADERS if frame.stream == stream => return Outcome::Answered(status(&frame)),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(code(&frame.payload)),
                _ => {}
            }
        }
        Outcome::Closed(said)
    };
    tokio::time::timeout(DEADLINE / 4, wait).await.unwrap_or(Outcome::Nothing)
}

fn code(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_be_bytes)
}

/// The status of an answer, the first one of its connection; 0 when it is written in a way that is not known here.
fn status(answer: &Frame) -> u16 {
    // RFC 7541 appendix A.
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match answer.payload[..] {
        [indexed @ 0x88..=0x8e, ..] => STATIC[usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 0x03, a, b, c, ..] => {
            [a, b, c].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
        }
        [0x08 | 0x18 | 0x48, length @ 0x82..=0x83, ref text @ ..] => {
            let bytes = text.iter().take(usize::from(length & 0x7f));
            let mut bits: u32 = bytes.fold(0, |bits, byte| bits << 8 | u32::from(*byte));
            bits <<= 32 - 8 * u32::from(length & 0x7f);
            // Appendix B: 0 to 2 in five bits, 3 to 9 in six.
            (0..3).fold(0, |status, _| {
                let (digit, taken) = match bits >> 27 {
                    short @ 0..=2 => (short, 5),
                    _ => ((bits >> 26) - 0x19 + 3, 6),
                };
                bits <<= taken;
                status * 10 + u16::try_from(digit).unwrap_or(0)
            })
        }
        _ => 0,
    }
}
