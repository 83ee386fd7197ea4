//! What a client sends: frames, and what each means for the streams.

use std::{
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::connection::{ASKED, Connection, Farewell, PIECE};
use crate::{
    http2::{Code, Error, MAX_WINDOW, PREFACE, frame::Frame, settings::Settings, write},
    proxy::{LINGER_BYTES, flood::Kind},
};

/// Why nothing more is read.
pub(super) enum Stop {
    /// The client has ended its side, or is gone.
    Gone,
    /// It broke a rule.
    Broken(Error),
    /// It does too much of something.
    Flood(Kind),
}

/// Bytes read at first: on the stack, so that idle connections hold none.
const FIRST: usize = 8 * 1024;
/// Reads before streams have their turn.
const READS: usize = 8;

// === impl Connection ===

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<'_, IO> {
    /// Reads what there is, up to a bound; whether there was anything.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let mut moved = false;
        for _ in 0..READS {
            self.frames()?;
            // A client that does not take what it asks for is not asked what else it wants.
            if self.output.is_choked() {
                return Ok(moved);
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => moved = true,
                Poll::Ready(Ok(0) | Err(_)) => return Err(Stop::Gone),
                Poll::Pending => return Ok(moved),
            }
        }
        self.frames()?;
        Ok(true)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.buffer.is_empty() && !self.bulk {
            let mut first = [const { MaybeUninit::uninit() }; FIRST];
            let mut first = ReadBuf::uninit(&mut first);
            std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut first))?;
            self.buffer.extend_from_slice(first.filled());
            return Poll::Ready(Ok(first.filled().len()));
        }
        self.bulk = false;
        // What has room for the rest of a frame is filled first: else its beginning would be copied.
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(PIECE);
        }
        pin!(self.io.read_buf(&mut self.buffer)).poll(cx)
    }

    /// Looks at the frames that have come whole.
    fn frames(&mut self) -> Result<(), Stop> {
        if self.preface < PREFACE.len() {
            let count = self.buffer.len().min(PREFACE.len() - self.preface);
            if self.buffer[..count] != PREFACE[self.preface..][..count] {
                return Err(Stop::broken(Code::PROTOCOL_ERROR, "no preface"));
            }
            self.buffer.advance(count);
            self.preface += count;
            if self.preface < PREFACE.len() {
                return Ok(());
            }
        }
        while !self.output.is_choked() {
            match self.reader.next(&mut self.buffer) {
                Ok(Some(frame)) => self.frame(frame)?,
                Ok(None) => return Ok(()),
                Err(Error::Stream(number, code, rule)) => {
                    self.meter.count(Kind::Priority).map_err(Stop::Flood)?;
                    self.begun(number)?;
                    self.stream_error(number, code, rule)?;
                }
                Err(error) => return Err(Stop::Broken(error)),
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Stop> {
        if !self.settled {
            if !matches!(frame, Frame::Settings(_)) {
                return Err(Stop::broken(Code::PROTOCOL_ERROR, "the first frame is not SETTINGS"));
            }
            self.settled = true;
            self.head_by = None;
        }
        match frame {
            Frame::Data { stream, data, flow, end_stream } => self.data(stream, data, flow, end_stream),
            Frame::Headers { stream, fragment, end_stream, end_headers, depends_on_itself } => {
                self.headers(stream, fragment, end_stream, end_headers, depends_on_itself)
            }
            Frame::Continuation { fragment, end_headers, .. } => {
                self.count(Kind::Continuation)?;
                match self.head.take() {
                    Some(head) => self.more(head, fragment, end_headers),
                    None => Ok(()),
                }
            }
            Frame::Priority { .. } | Frame::Unknown { .. } => self.count(Kind::Priority),
            Frame::Reset { stream, .. } => {
                self.count(Kind::Reset)?;
                self.begun(stream)?;
                if let Some(place) = self.streams.find(stream) {
                    self.remove(place);
                }
                Ok(())
            }
            Frame::Settings(settings) => {
                self.count(Kind::Settings)?;
                self.settings(&settings)
            }
            Frame::SettingsAck => self.count(Kind::Settings),
            Frame::Ping { ack: false, payload } => {
                self.count(Kind::Ping)?;
                self.output.frames(|out| write::ping_ack(out, payload));
                Ok(())
            }
            Frame::Ping { ack: true, payload } => {
                if payload == ASKED && self.farewell == Farewell::Announced {
                    let last = self.last;
                    self.farewell = Farewell::Said(last);
                    self.output.frames(|out| write::goaway(out, last, Code::NO_ERROR, ""));
                }
                self.count(Kind::Ping)
            }
            Frame::GoAway { .. } => {
                self.leaves = true;
                self.count(Kind::Priority)
            }
            Frame::WindowUpdate { stream, increment } => {
                self.count(Kind::WindowUpdate)?;
                self.window_update(stream, increment)
            }
        }
    }

    /// The client has said all it will on this stream.
    pub(super) fn end(&mut self, number: u32, trailers: HeaderMap) {
        let Some(place) = self.streams.find(number) else { return };
        if let Some(stream) = self.streams.at(place) {
            stream.received = true;
            if !trailers.is_empty() {
                stream.channel.trailers(trailers);
            }
            stream.channel.end();
        }
        self.tend(place);
    }

    fn data(&mut self, number: u32, data: Bytes, flow: u32, end: bool) -> Result<(), Stop> {
        if data.is_empty() && !end {
            self.count(Kind::Data)?;
        }
        self.meter.useful(data.len() as u64);
        self.bulk = data.len() > FIRST / 2;
        self.receives -= i64::from(flow);
        if self.receives < 0 {
            return Err(Stop::broken(Code::FLOW_CONTROL_ERROR, "more than the connection's window"));
        }
        self.begun(number)?;
        let Some(place) = self.streams.find(number) else {
            // It crossed our end of the stream.
            self.credit += flow;
            return if data.is_empty() { self.count(Kind::Crossed) } else { Ok(()) };
        };
        let Some(stream) = self.streams.at(place) else { return Ok(()) };
        let length = data.len();
        let padding = flow - u32::try_from(length).unwrap_or(flow);
        stream.receives -= i64::from(flow);
        let fault = if stream.received {
            Some((Code::STREAM_CLOSED, "data after the end"))
        } else if stream.receives < 0 {
            Some((Code::FLOW_CONTROL_ERROR, "more than the stream's window"))
        } else if stream.expected.is_some_and(|left| left < length as u64) {
            Some((Code::PROTOCOL_ERROR, "more than the announced length"))
        } else {
            stream.expected = stream.expected.map(|left| left - length as u64);
            let short = end && stream.expected.is_some_and(|left| left > 0);
            short.then_some((Code::PROTOCOL_ERROR, "less than the announced length"))
        };
        if let Some((code, rule)) = fault {
            self.credit += flow;
            return self.stream_error(number, code, rule);
        }
        self.credit += padding;
        stream.credit += padding;
        if stream.channel.is_open() {
            if length > 0 {
                stream.held += length;
                stream.channel.push(data);
            }
        } else {
            self.credit += flow - padding;
            stream.discarded += length as u64;
            // A client that goes on and on has to wait, and then it is told.
            if stream.discarded <= LINGER_BYTES {
                stream.credit += flow - padding;
            }
        }
        match end {
            true => self.end(number, HeaderMap::new()),
            false => self.tend(place),
        }
        Ok(())
    }

    fn settings(&mut self, settings: &Settings) -> Result<(), Stop> {
        if let Some(size) = settings.header_table_size {
            self.encoder.set_max_size(size);
        }
        if let Some(window) = settings.initial_window_size {
            let change = i64::from(window) - self.initial;
            self.initial = i64::from(window);
            for place in self.streams.places() {
                let Some(stream) = self.streams.at(place) else { continue };
                stream.window += change;
                if stream.window > i64::from(MAX_WINDOW) {
                    return Err(Stop::broken(Code::FLOW_CONTROL_ERROR, "a window that grows too large"));
                }
                self.enter(place);
            }
        }
        self.output.frames(write::settings_ack);
        Ok(())
    }

    fn window_update(&mut self, number: u32, increment: u32) -> Result<(), Stop> {
        if number == 0 {
            self.window += i64::from(increment);
            if self.window > i64::from(MAX_WINDOW) {
                return Err(Stop::broken(Code::FLOW_CONTROL_ERROR, "a window that grows too large"));
            }
            self.unpark();
            return Ok(());
        }
        self.begun(number)?;
        let Some(place) = self.streams.find(number) else { return Ok(()) };
        if let Some(stream) = self.streams.at(place) {
            stream.window += i64::from(increment);
            if stream.window > i64::from(MAX_WINDOW) {
                return self.stream_error(number, Code::FLOW_CONTROL_ERROR, "a window that grows too large");
            }
        }
        self.enter(place);
        Ok(())
    }

    /// Whether the client has begun this stream, ever.
    fn begun(&self, number: u32) -> Result<(), Stop> {
        if number > self.last || number.is_multiple_of(2) {
            return Err(Stop::broken(Code::PROTOCOL_ERROR, "a frame of a stream that has not begun"));
        }
        Ok(())
    }

    /// The client broke a rule on one stream (RFC 9113 §5.4.2); not too often, or it makes us work in vain
    /// (CVE-2025-8671).
    pub(super) fn stream_error(&mut self, number: u32, code: Code, rule: &'static str) -> Result<(), Stop> {
        self.count(Kind::Broken)?;
        tracing::debug!(peer = %self.client.peer, stream = number, ?code, rule, "stream refused");
        match self.streams.find(number) {
            Some(place) => self.reset(place, code),
            None => self.output.frames(|out| write::reset(out, number, code)),
        }
        Ok(())
    }

    pub(super) fn count(&mut self, kind: Kind) -> Result<(), Stop> {
        self.meter.count(kind).map_err(Stop::Flood)
    }
}

// === impl Stop ===

impl Stop {
    pub(super) fn broken(code: Code, rule: &'static str) -> Self {
        Self::Broken(Error::Connection(code, rule))
    }
}
