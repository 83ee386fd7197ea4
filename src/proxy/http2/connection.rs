//! One connection: frames in, streams polled, frames out; what is ready goes out together.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::coop::has_budget_remaining,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    CONNECTION_WINDOW, HEAD_SLACK, STREAM_WINDOW,
    heads::HalfHead,
    incoming::Stop,
    output::Output,
    ready::Ready,
    stream::{Answering, State, Tunnel},
    streams::Streams,
};
use crate::{
    clock,
    config::{Limits, Timeouts},
    http2::{
        Code, Error, FRAME_HEAD, MAX_FRAME, MAX_STREAM,
        frame::Reader,
        hpack::{Decoder, Encoder},
        settings::Settings,
        write,
    },
    proxy::{Client, LINGER, answers::Tracked, flood::Meter, service::Outcome},
};

/// A connection and what is known of it.
pub(super) struct Connection<'a, IO> {
    pub(super) io: IO,
    pub(super) client: &'a Rc<Client>,
    /// Whether it has been told to go.
    ending: &'a Cell<bool>,
    pub(super) ready: Arc<Ready>,
    pub(super) streams: Streams,
    /// Streams that a client may have open.
    pub(super) most: usize,

    /// Bytes that have come and are no whole frame. Without memory while nothing has come.
    pub(super) buffer: BytesMut,
    /// Whether bodies come, so that reading to the heap saves a copy.
    pub(super) bulk: bool,
    /// Bytes of the preface that have come.
    pub(super) preface: usize,
    /// Whether the client has told its settings, with which it begins.
    pub(super) settled: bool,
    pub(super) reader: Reader,
    pub(super) decoder: Decoder,
    /// A head that has begun and not ended.
    pub(super) head: Option<HalfHead>,
    /// Bytes of a head that are read.
    pub(super) list_limit: usize,
    pub(super) meter: Meter,
    /// The last stream that the client has begun.
    pub(super) last: u32,
    /// Bytes that the client may send, and those that it will be told of.
    pub(super) receives: i64,
    pub(super) credit: u32,

    pub(super) output: Output,
    pub(super) encoder: Encoder,
    /// Places of streams that may have something to say, in the order in which they do.
    pub(super) line: VecDeque<usize>,
    /// Those that have to wait for all of them together: for the connection's window, or for [`PARTS`].
    pub(super) parked: Vec<usize>,
    /// Bytes of answers that bodies have given and that have not been said.
    pub(super) parts: usize,
    /// Bytes that the client takes, of all streams, and of a new one.
    pub(super) window: i64,
    pub(super) initial: i64,
    /// Watches a client that takes nothing at all.
    stall: Tracked,

    pub(super) farewell: Farewell,
    /// Whether the client will begin no more.
    pub(super) leaves: bool,
    /// Whether nothing follows what is in `output`.
    pub(super) over: bool,
    head_timeout: Duration,
    /// When the head, or the preface, that is under way has to be whole.
    pub(super) head_by: Option<Instant>,
    /// When to look which streams have lingered long enough.
    pub(super) linger_by: Option<Instant>,
    /// When what is left has to be said.
    part_by: Option<Instant>,
    /// Whether that was not so.
    late: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How far the client has been told to begin no more streams (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    Not,
    /// It has, and is asked whether it has heard.
    Announced,
    /// What came after this stream is not looked at.
    Said(u32),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client has been told all there is to tell.
    Said,
    /// The client is gone, or not worth waiting for.
    Gone,
}

/// What is asked of a client that has been told to begin no more streams.
pub(super) const ASKED: [u8; 8] = *b"farewell";
/// Bytes given back that are worth telling a client of.
const WORTH: u32 = 64 * 1024;

// === impl Connection ===

impl<'a, IO: AsyncRead + AsyncWrite + Unpin> Connection<'a, IO> {
    pub(super) fn new(
        io: IO,
        client: &'a Rc<Client>,
        ending: &'a Cell<bool>,
        timeouts: &Timeouts,
        limits: &Limits,
    ) -> Self {
        let most = usize::try_from(limits.streams.get()).unwrap_or(usize::MAX);
        let list_limit = limits.head_size.saturating_mul(HEAD_SLACK);
        let mut output = Output::new();
        output.frames(|out| {
            let settings = Settings {
                max_concurrent_streams: Some(limits.streams.get()),
                initial_window_size: Some(STREAM_WINDOW),
                max_header_list_size: Some(u32::try_from(list_limit).unwrap_or(u32::MAX)),
                enable_connect_protocol: Some(true),
                ..Settings::default()
            };
            write::settings(out, &settings);
            write::window_update(out, 0, CONNECTION_WINDOW - FIRST_WINDOW);
        });
        Self {
            io,
            client,
            ending,
            ready: Ready::new(most.saturating_mul(PLACES)),
            streams: Streams::default(),
            most,
            buffer: BytesMut::new(),
            bulk: false,
            preface: 0,
            settled: false,
            reader: Reader::default(),
            decoder: Decoder::new(),
            head: None,
            list_limit,
            meter: Meter::new(clock::now()),
            last: 0,
            receives: i64::from(CONNECTION_WINDOW),
            credit: 0,
            output,
            encoder: Encoder::new(),
            line: VecDeque::new(),
            parked: Vec::new(),
            parts: 0,
            window: i64::from(FIRST_WINDOW),
            initial: i64::from(FIRST_WINDOW),
            stall: client.answers.track_connection(),
            farewell: Farewell::Not,
            leaves: false,
            over: false,
            head_timeout: timeouts.head,
            head_by: Some(clock::now() + timeouts.head),
            linger_by: None,
            part_by: None,
            late: false,
            timer: None,
        }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self) -> Ended {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.ready.rise(cx);
        loop {
            let mut moved = false;
            if !self.over {
                self.part_if_told();
                match self.poll_input(cx) {
                    Ok(read) => moved |= read,
                    Err(Stop::Gone) => return Poll::Ready(Ended::Gone),
                    Err(Stop::Broken(error)) => self.fail(&error),
                    Err(Stop::Flood(kind)) => {
                        self.client.worker.metrics.flood(kind);
                        self.fail(&Error::Connection(Code::ENHANCE_YOUR_CALM, kind.as_str()));
                    }
                }
                self.poll_streams();
            }
            match self.poll_output(cx) {
                Ok(more) => moved |= more,
                Err(_) => return Poll::Ready(Ended::Gone),
            }
            self.end_if_done();
            if self.over && self.output.is_empty() {
                return Poll::Ready(Ended::Said);
            }
            // Last, since whatever came before may have set it; what it says has to go out.
            moved |= self.poll_timer(cx);
            if self.late || self.stall.progress().is_cut() {
                return Poll::Ready(Ended::Gone);
            }
            if self.over {
                // Whoever wakes a stream that is gone must not keep the connection from resting.
                self.ready.take(|_| {});
            }
            if !moved && self.ready.rest() {
                self.rest();
                return Poll::Pending;
            }
            // Without a budget nothing moves any more, and everybody asks again at once.
            if !has_budget_remaining() {
                self.ready.pause(cx);
                return Poll::Pending;
            }
        }
    }

    /// Says, as far as the client takes it, what there is; whether more can be done because of that.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> std::io::Result<bool> {
        let choked = self.output.is_choked();
        loop {
            if self.credit >= WORTH && !self.over {
                let credit = std::mem::take(&mut self.credit);
                self.receives += i64::from(credit);
                self.output.frames(|out| write::window_update(out, 0, credit));
            }
            self.fill();
            let waited = self.output.is_blocked();
            let mut written = 0;
            let flushed = self.output.poll_flush(&mut self.io, cx, &mut written);
            self.meter.useful(written);
            match flushed {
                Poll::Ready(Ok(())) => {
                    if waited {
                        self.stall.taken();
                    }
                    if self.line.is_empty() {
                        return Ok(choked);
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    if !waited || written > 0 {
                        self.stall.handed(0);
                        self.stall.progress().tell(cx.waker());
                    }
                    return Ok(choked && !self.output.is_choked());
                }
            }
        }
    }

    /// Polls the streams that have something to do.
    fn poll_streams(&mut self) {
        let ready = Arc::clone(&self.ready);
        ready.take(|place| self.poll_stream(place));
    }

    fn poll_stream(&mut self, place: usize) {
        let Some(stream) = self.streams.at(place) else { return };
        let mut cx = Context::from_waker(&stream.waker);
        match &mut stream.state {
            State::Serving(call) => {
                if let Poll::Ready(outcome) = call.as_mut().poll(&mut cx) {
                    if stream.connects && matches!(outcome, Outcome::Answer(_)) {
                        stream.channel.abandon();
                    }
                    stream.state = match outcome {
                        Outcome::Answer(response) => {
                            State::Answering(Answering::new(response, stream.head, &stream.waker))
                        }
                        Outcome::Tunnel(response, tunnel) => {
                            self.ready.mark(place);
                            State::Tunnel(Tunnel::new(response, tunnel, &stream.channel))
                        }
                    };
                }
            }
            State::Answering(answer) if answer.is_cut() => return self.reset(place, Code::CANCEL),
            State::Tunnel(tunnel) => {
                if tunnel.run.as_mut().is_some_and(|run| run.as_mut().poll(&mut cx).is_ready()) {
                    tunnel.run = None;
                }
            }
            State::Answering(_) | State::Said => {}
        }
        self.tend(place);
    }

    /// After anything has happened to a stream: gives windows back, lets it speak, or go.
    pub(super) fn tend(&mut self, place: usize) {
        self.give_back(place);
        let Some(stream) = self.streams.at(place) else { return };
        if stream.is_finished() {
            self.remove(place);
            return;
        }
        let said = matches!(stream.state, State::Said);
        if said && stream.linger.is_none() && stream.channel.is_abandoned() && !stream.received {
            let by = clock::now() + LINGER;
            stream.linger = Some(by);
            self.linger_by.get_or_insert(by);
        }
        if !stream.in_line && !stream.parked && stream.has_words() {
            stream.in_line = true;
            self.line.push_back(place);
        }
    }

    /// Gives back the windows of what has been taken of a stream's body.
    pub(super) fn give_back(&mut self, place: usize) {
        let Some(stream) = self.streams.at(place) else { return };
        let taken = stream.channel.taken();
        let back = if stream.channel.is_drained() { stream.held } else { taken.min(stream.held) };
        if back > 0 {
            stream.held -= back;
            let back = u32::try_from(back).unwrap_or(u32::MAX);
            self.credit += back;
            stream.credit += back;
        }
        if stream.credit >= STREAM_WINDOW / 2 && !stream.received {
            let credit = std::mem::take(&mut stream.credit);
            stream.receives += i64::from(credit);
            let number = stream.number;
            self.output.frames(|out| write::window_update(out, number, credit));
        }
    }

    /// Ends a stream that cannot come to a good end.
    pub(super) fn reset(&mut self, place: usize, code: Code) {
        if let Some(stream) = self.streams.at(place) {
            let number = stream.number;
            self.output.frames(|out| write::reset(out, number, code));
            self.remove(place);
        }
    }

    /// Forgets a stream, and cancels what it is about.
    pub(super) fn remove(&mut self, place: usize) {
        let Some(stream) = self.streams.remove(place) else { return };
        self.credit += u32::try_from(stream.held).unwrap_or(u32::MAX);
        if let State::Answering(answer) = &stream.state {
            self.parts -= answer.part.len();
            // Others waited for that room.
            self.unpark();
        }
    }

    /// Ends the connection for a reason.
    fn fail(&mut self, error: &Error) {
        let (Error::Connection(code, rule) | Error::Stream(_, code, rule)) = error;
        tracing::debug!(peer = %self.client.peer, %error, "client connection refused");
        for place in self.streams.places() {
            self.remove(place);
        }
        let last = match self.farewell {
            // It must not grow (RFC 9113 §6.8).
            Farewell::Said(last) => last,
            Farewell::Not | Farewell::Announced => self.last,
        };
        self.output.frames(|out| write::goaway(out, last, *code, rule));
        self.finish();
    }

    /// Nothing follows what is to be said now.
    fn finish(&mut self) {
        self.over = true;
        (self.head, self.head_by, self.linger_by) = (None, None, None);
        self.part_by = Some(clock::now() + LINGER);
    }

    /// Tells the client to begin no more streams. Those that it has begun before it hears that are served.
    fn part_if_told(&mut self) {
        if self.ending.get() && self.farewell == Farewell::Not {
            self.farewell = Farewell::Announced;
            self.output.frames(|out| {
                write::goaway(out, MAX_STREAM, Code::NO_ERROR, "");
                write::ping(out, ASKED);
            });
        }
    }

    fn end_if_done(&mut self) {
        let parting = self.leaves || matches!(self.farewell, Farewell::Said(_));
        if parting && !self.over && self.streams.is_empty() && self.head.is_none() {
            self.finish();
        }
    }

    /// Whether something was to be done because of a deadline.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            let deadlines = [self.head_by, self.linger_by, self.part_by];
            let Some(next) = deadlines.into_iter().flatten().min() else {
                self.timer = None;
                return moved;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return moved;
            }
            moved = true;
            if self.part_by.is_some() {
                self.late = true;
                return moved;
            }
            if self.head_by == Some(next) {
                self.fail(&Error::Connection(Code::NO_ERROR, "a head does not come"));
            } else {
                self.end_lingering(next);
            }
        }
    }

    /// Resets the streams whose clients go on sending what nobody wants.
    fn end_lingering(&mut self, now: Instant) {
        let late = |by: Option<Instant>| by.is_some_and(|by| by <= now);
        let places: Vec<_> =
            self.streams.each().filter(|(_, stream)| late(stream.linger)).map(|(place, _)| place).collect();
        for place in places {
            // RFC 9113 §8.1: the answer is whole, and stays so.
            self.reset(place, Code::NO_ERROR);
        }
        self.linger_by = self.streams.each().filter_map(|(_, stream)| stream.linger).min();
    }

    /// A head has begun that is not whole.
    pub(super) fn await_head(&mut self) {
        self.head_by = Some(clock::now() + self.head_timeout);
    }

    /// Gives memory back that holds nothing.
    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        self.output.rest();
        if self.streams.is_empty() {
            self.streams.rest();
            self.line = VecDeque::new();
            self.parked = Vec::new();
        }
    }
}

/// The windows of a connection before anybody has said anything.
const FIRST_WINDOW: u32 = 65_535;
/// Places for each stream that may be open: one that is over for its client may leave an upload that its backend still
/// takes.
pub(super) const PLACES: usize = 2;
/// Bytes of answers that wait for windows, beyond which no body is asked for more that the client would not take.
pub(super) const PARTS: usize = 256 * 1024;
/// Bytes that are read at a time: a frame and what fills a TLS record.
pub(super) const PIECE: usize = MAX_FRAME + FRAME_HEAD;
