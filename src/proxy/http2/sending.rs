//! What streams say: each in its turn, one frame at a time, as far as the windows and the socket have room.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connection::{Connection, PARTS},
    output::Output,
    stream::{Answering, State, Stream, Tunnel},
};
use crate::http2::{Code, MAX_FRAME, hpack::Encoder, write};

/// What follows a stream's turn.
enum Turn {
    /// Its next one.
    Again,
    /// Nothing, until its waker or its window says otherwise.
    Waits,
    /// What all streams wait for.
    Parked,
    /// Its answer, or its tunnel, is over.
    Said,
    /// It broke off.
    Broken(Code),
}

// === impl Connection ===

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<'_, IO> {
    /// Lets streams speak while there is room.
    pub(super) fn fill(&mut self) {
        while self.output.has_room() {
            let Some(place) = self.line.pop_front() else { return };
            let before = self.parts;
            let turn = self.speak(place);
            // An upload goes on while its answer is asked for, and what that has taken is told nobody else.
            self.give_back(place);
            match turn {
                Turn::Again => {
                    if let Some(stream) = self.streams.at(place) {
                        stream.in_line = true;
                        self.line.push_back(place);
                    }
                }
                Turn::Waits => {}
                Turn::Parked => self.park(place),
                Turn::Said => {
                    if let Some(stream) = self.streams.at(place) {
                        stream.state = State::Said;
                    }
                    self.tend(place);
                }
                Turn::Broken(code) => self.reset(place, code),
            }
            if self.parts < before && self.parts < PARTS {
                self.unpark();
            }
        }
    }

    /// Lets those speak that waited for what all of them wait for.
    pub(super) fn unpark(&mut self) {
        for place in std::mem::take(&mut self.parked) {
            if let Some(stream) = self.streams.at(place)
                && std::mem::take(&mut stream.parked)
                && !stream.in_line
            {
                stream.in_line = true;
                self.line.push_back(place);
            }
        }
    }

    fn park(&mut self, place: usize) {
        if let Some(stream) = self.streams.at(place)
            && !stream.parked
        {
            stream.parked = true;
            self.parked.push(place);
        }
    }

    /// Puts a stream into the line, wherever it was.
    pub(super) fn enter(&mut self, place: usize) {
        let Some(stream) = self.streams.at(place) else { return };
        // A stream that is parked is not woken by its body.
        if std::mem::take(&mut stream.parked) {
            self.parked.retain(|parked| *parked != place);
        }
        if !stream.in_line {
            stream.in_line = true;
            self.line.push_back(place);
        }
    }

    /// One turn of a stream.
    fn speak(&mut self, place: usize) -> Turn {
        let Self { streams, output, encoder, window, parts, .. } = self;
        let Some(stream) = streams.at(place) else { return Turn::Waits };
        stream.in_line = false;
        let number = stream.number;
        let begun = match &stream.state {
            State::Serving(_) => false,
            State::Answering(Answering { head, .. }) | State::Tunnel(Tunnel { head, .. }) => head.is_none(),
            State::Said => true,
        };
        // Nothing comes before an answer when it has begun.
        if !begun && stream.channel.has_word() {
            if stream.channel.may_continue() {
                say(output, encoder, number, (StatusCode::CONTINUE, HeaderMap::new()), false);
            }
            for head in stream.channel.interims() {
                say(output, encoder, number, head, false);
            }
        }
        match &mut stream.state {
            State::Answering(answer) => {
                if let Some(head) = answer.head.take() {
                    say(output, encoder, number, head, answer.bodiless);
                }
                if answer.bodiless {
                    return Turn::Said;
                }
                body(stream, output, encoder, window, parts)
            }
            State::Tunnel(tunnel) => {
                if let Some(head) = tunnel.head.take() {
                    say(output, encoder, number, head, false);
                }
                if tunnel.pipe.has_bytes() && tunnel.run.is_some() {
                    let limit = limit(stream.window, *window);
                    if limit == 0 {
                        return waits(stream.window);
                    }
                    let data = tunnel.pipe.take(limit);
                    stream.window -= data.len() as i64;
                    *window -= data.len() as i64;
                    output.data(number, data, false);
                    return Turn::Again;
                }
                if tunnel.pipe.is_ended() && !tunnel.pipe.has_bytes() && !tunnel.said {
                    tunnel.said = true;
                    output.data(number, Bytes::new(), true);
                }
                match (&tunnel.run, tunnel.said) {
                    (Some(_), _) => Turn::Waits,
                    (None, true) => Turn::Said,
                    // It gave up on a client that takes nothing, or broke.
                    (None, false) => Turn::Broken(Code::CANCEL),
                }
            }
            State::Serving(_) | State::Said => Turn::Waits,
        }
    }
}

/// One frame of an answer's body.
fn body(
    stream: &mut Stream,
    output: &mut Output,
    encoder: &mut Encoder,
    window: &mut i64,
    parts: &mut usize,
) -> Turn {
    let number = stream.number;
    let State::Answering(answer) = &mut stream.state else { return Turn::Waits };
    loop {
        if !answer.part.is_empty() {
            let limit = limit(stream.window, *window);
            if limit == 0 {
                return waits(stream.window);
            }
            let data = answer.part.split_to(limit.min(answer.part.len()));
            stream.window -= data.len() as i64;
            *window -= data.len() as i64;
            *parts -= data.len();
            let end = answer.ended && answer.part.is_empty() && answer.trailers.is_none();
            output.data(number, data, end);
            return if end { Turn::Said } else { Turn::Again };
        }
        if answer.ended {
            match answer.trailers.take() {
                Some(trailers) => output.frames(|out| {
                    write::headers(out, number, true, |out| encoder.trailers(out, &trailers));
                }),
                None => output.data(number, Bytes::new(), true),
            }
            return Turn::Said;
        }
        // The end may have to be told although no window is left: so it is asked for, but not of any number.
        if limit(stream.window, *window) == 0 && *parts >= PARTS {
            return Turn::Parked;
        }
        let mut cx = Context::from_waker(&stream.waker);
        match next(answer, &mut cx) {
            Poll::Ready(Ok(())) => *parts += answer.part.len(),
            Poll::Ready(Err(code)) => return Turn::Broken(code),
            Poll::Pending => return Turn::Waits,
        }
    }
}

/// Asks a body for its next part.
fn next(answer: &mut Answering, cx: &mut Context<'_>) -> Poll<Result<(), Code>> {
    match std::task::ready!(Pin::new(&mut answer.body).poll_frame(cx)) {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => {
                answer.part = data;
                answer.ended = answer.body.is_end_stream();
            }
            Err(frame) => {
                answer.trailers = frame.into_trailers().ok().filter(|trailers| !trailers.is_empty());
                answer.ended = true;
            }
        },
        None => answer.ended = true,
        Some(Err(_)) => return Poll::Ready(Err(Code::INTERNAL_ERROR)),
    }
    Poll::Ready(Ok(()))
}

fn say(
    output: &mut Output,
    encoder: &mut Encoder,
    stream: u32,
    (status, fields): (StatusCode, HeaderMap),
    end: bool,
) {
    output.frames(|out| write::headers(out, stream, end, |out| encoder.response(out, status, &fields)));
}

/// Bytes that both windows and a frame have room for.
fn limit(stream: i64, connection: i64) -> usize {
    usize::try_from(stream.min(connection)).unwrap_or(0).min(MAX_FRAME)
}

/// Whoever has a window of its own waits for that of the connection.
fn waits(stream: i64) -> Turn {
    if stream > 0 { Turn::Parked } else { Turn::Waits }
}
