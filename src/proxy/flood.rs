//! Frames of HTTP/2 that cost a client nothing and the proxy something (CVE-2019-9511 to 9518, CVE-2023-44487).
//!
//! h2 bounds what it buffers: streams, heads and their CONTINUATION frames, small and empty DATA frames, its own
//! resets. It answers any number of PING and SETTINGS, reads any number of PRIORITY, WINDOW_UPDATE and unknown frames,
//! and takes any number of requests that are reset at once. Those are counted here, from the nine bytes that head
//! each frame, on their way from TLS to h2: no byte is copied, and the clock is read only when a budget is used up.
//!
//! What passes is useful: each KiB of body, in either direction, pays for one more frame of any kind, and each
//! request for those that clients send along with it.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use crate::clock;

/// A stream to an HTTP/2 client whose frames are counted.
#[derive(Debug)]
pub(super) struct Metered<T> {
    inner: T,
    meter: Meter,
    alarm: Rc<Alarm>,
    /// What h2 is given instead of more of the flood: see [`farewell`]. The rest of it, once there is one.
    farewell: Option<Vec<u8>>,
}

/// Tells that a client floods.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    kind: Cell<Option<Kind>>,
    rung: Notify,
}

/// A kind of frame that has a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// PING, acknowledged or not.
    Ping,
    /// SETTINGS.
    Settings,
    /// PRIORITY, PRIORITY_UPDATE, and whatever else h2 ignores.
    Priority,
    /// RST_STREAM.
    Reset,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// CONTINUATION.
    Continuation,
    /// What h2 itself had enough of.
    Other,
}

/// Walks the frames of a client and counts them.
#[derive(Debug)]
struct Meter {
    /// Bytes to come until the next frame's head: of a payload, or of the preface.
    skip: usize,
    /// The part of a frame's head that has come.
    head: [u8; FRAME_HEAD],
    have: usize,
    /// The stream whose head is under way, which nothing but a CONTINUATION may follow.
    block: Option<u32>,
    counts: [u32; Kind::ALL.len()],
    /// The kind of the frame under way, if more of them have come than are free.
    suspect: Option<Kind>,
    requests: u32,
    /// Bytes of DATA in, and of anything out.
    useful: u64,
    /// Begin of the time that is counted.
    since: Instant,
}

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const FRAME_HEAD: usize = 9;
/// The time that budgets are for.
const PERIOD: Duration = Duration::from_secs(10);
/// Useful bytes that pay for one frame of any kind.
const PRICE: u64 = 1024;

/// Types of frames, and the flag that ends a head (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

// === impl Metered ===

impl<T> Metered<T> {
    /// From the preface on.
    pub(super) fn new(inner: T, alarm: &Rc<Alarm>) -> Self {
        Self { inner, meter: Meter::new(clock::now()), alarm: Rc::clone(alarm), farewell: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(rest) = &mut this.farewell {
            if rest.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let length = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..length]);
            rest.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if let Some(flood) = this.meter.walk(&buf.filled()[before..]) {
            this.alarm.ring(flood.kind);
            this.farewell = Some(farewell(this.meter.block));
            buf.set_filled(before + flood.at);
            if flood.at == 0 {
                // Nothing read would be the end of the stream.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.meter.useful += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.meter.useful += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Frames that make h2 say GOAWAY with ENHANCE_YOUR_CALM, which it has no call for: a head of more CONTINUATION frames
/// than it takes. `block` is the stream of a head that is under way.
fn farewell(block: Option<u32>) -> Vec<u8> {
    const LAST_STREAM: u32 = 0x7fff_ffff;
    /// h2 takes a few more than a head of the largest size that can be configured fills.
    const ENOUGH: usize = 512;
    let stream = block.unwrap_or(LAST_STREAM);
    let frame = |kind: u8| {
        let [a, b, c, d] = stream.to_be_bytes();
        [0, 0, 0, kind, 0, a, b, c, d]
    };
    let mut frames = Vec::with_capacity((ENOUGH + 1) * FRAME_HEAD);
    if block.is_none() {
        frames.extend_from_slice(&frame(HEADERS));
    }
    for _ in 0..ENOUGH {
        frames.extend_from_slice(&frame(CONTINUATION));
    }
    frames
}

// === impl Alarm ===

impl Alarm {
    fn ring(&self, kind: Kind) {
        self.kind.set(Some(kind));
        self.rung.notify_one();
    }

    /// Resolves when the client floods.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// What it floods with, if it does.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.kind.get()
    }
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 7] = [
        Self::Ping,
        Self::Settings,
        Self::Priority,
        Self::Reset,
        Self::WindowUpdate,
        Self::Continuation,
        Self::Other,
    ];

    /// The label value.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::Priority => "priority",
            Self::Reset => "reset",
            Self::WindowUpdate => "window-update",
            Self::Continuation => "continuation",
            Self::Other => "other",
        }
    }

    /// Frames in [`PERIOD`] that are free, and that come with each request.
    const fn budget(self) -> (u32, u32) {
        match self {
            Self::Ping => (200, 0),
            Self::Settings => (100, 0),
            Self::Priority => (1000, 4),
            // A page that is left takes all its streams along; nothing resets so much for ten seconds.
            Self::Reset => (500, 0),
            Self::WindowUpdate => (2000, 4),
            Self::Continuation => (500, 1),
            Self::Other => (u32::MAX, 0),
        }
    }

    const fn of(frame: u8) -> Option<Self> {
        match frame {
            DATA | HEADERS | GOAWAY => None,
            PING => Some(Self::Ping),
            SETTINGS => Some(Self::Settings),
            RST_STREAM => Some(Self::Reset),
            WINDOW_UPDATE => Some(Self::WindowUpdate),
            CONTINUATION => Some(Self::Continuation),
            _ => Some(Self::Priority),
        }
    }
}

/// A budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flood {
    kind: Kind,
    /// How much of what was walked last still belongs to frames that pass.
    at: usize,
}

// === impl Meter ===

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: [0; FRAME_HEAD],
            have: 0,
            block: None,
            counts: [0; Kind::ALL.len()],
            suspect: None,
            requests: 0,
            useful: 0,
            since: now,
        }
    }

    /// Counts the frames in what has come. The frame that is too much passes whole, so that what follows begins with
    /// a frame's head.
    fn walk(&mut self, bytes: &[u8]) -> Option<Flood> {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            if self.skip == 0
                && let Some(kind) = self.suspect.take()
                && self.is_flood(kind)
            {
                return Some(Flood { kind, at });
            }
            if at == bytes.len() {
                return None;
            }
            let taken = (FRAME_HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
            self.have += taken;
            at += taken;
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.frame();
            }
        }
    }

    /// A frame's head is whole.
    fn frame(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            DATA => self.useful += self.skip as u64,
            HEADERS => self.requests = self.requests.saturating_add(1),
            _ => {}
        }
        if let HEADERS | CONTINUATION = kind {
            let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
            self.block = (flags & END_HEADERS == 0).then_some(stream);
        }
        if let Some(kind) = Kind::of(kind) {
            let count = &mut self.counts[kind as usize];
            *count = count.saturating_add(1);
            self.suspect = (*count > kind.budget().0).then_some(kind);
        }
    }

    /// Whether more have come of this kind than are free and paid for. The clock is read only then: what is old news
    /// is forgotten, and the count begins anew.
    fn is_flood(&mut self, kind: Kind) -> bool {
        let (free, each) = kind.budget();
        let paid = u32::try_from(self.useful / PRICE).unwrap_or(u32::MAX);
        let allowed = free.saturating_add(each.saturating_mul(self.requests)).saturating_add(paid);
        if self.counts[kind as usize] <= allowed {
            return false;
        }
        let now = clock::now();
        let soon = now.saturating_duration_since(self.since) < PERIOD;
        if !soon {
            (self.counts, self.requests, self.useful) = ([0; Kind::ALL.len()], 0, 0);
            self.since = now;
        }
        soon
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PRIORITY: u8 = 2;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    fn begun() -> Meter {
        let mut meter = Meter::new(clock::now());
        assert_eq!(meter.walk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), None);
        meter
    }

    /// How many of these frames pass, the one that is too much included; none when all do.
    fn passed(meter: &mut Meter, frame: &[u8], times: usize) -> Option<(usize, Kind)> {
        (1..=times).find_map(|count| Some((count, meter.walk(frame)?.kind)))
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_its_budget() {
        for (kind, payload, what) in [
            (PING, &[0; 8][..], Kind::Ping),
            (SETTINGS, &[], Kind::Settings),
            (PRIORITY, &[0; 5], Kind::Priority),
            (0x42, b"unknown", Kind::Priority),
            (RST_STREAM, &[0; 4], Kind::Reset),
            (WINDOW_UPDATE, &[0; 4], Kind::WindowUpdate),
            (CONTINUATION, &[], Kind::Continuation),
        ] {
            let count = what.budget().0 as usize + 1;
            assert_eq!(passed(&mut begun(), &frame(kind, 0, 1, payload), 5000), Some((count, what)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_the_bytes_come_the_flood_ends_at_the_end_of_a_frame() {
        let ping = frame(PING, 0, 0, &[0; 8]);
        let bytes = ping.repeat(300);
        let end = (Kind::Ping.budget().0 as usize + 1) * ping.len();
        for piece in [1, 2, 5, 9, 10, 17, 100, 8192] {
            let mut meter = begun();
            let mut before = 0;
            let flood = bytes.chunks(piece).find_map(|piece| {
                let flood = meter.walk(piece);
                before += if flood.is_none() { piece.len() } else { 0 };
                flood
            });
            assert_eq!(flood.map(|flood| before + flood.at), Some(end), "in pieces of {piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_over_a_long_time_is_no_flood() {
        let mut meter = begun();
        for _ in 0..100 {
            assert_eq!(passed(&mut meter, &frame(PING, 0, 0, &[0; 8]), 150), None);
            tokio::time::advance(PERIOD).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_bodies_pay_for_frames_of_their_own() {
        let mut meter = begun();
        for _ in 0..5000 {
            // As browsers do.
            assert_eq!(meter.walk(&frame(HEADERS, END_HEADERS, 1, b"head")), None);
            assert_eq!(passed(&mut meter, &frame(WINDOW_UPDATE, 0, 1, &[0; 4]), 2), None);
        }
        let mut meter = begun();
        for _ in 0..5000 {
            // A download of which each frame is acknowledged twice.
            meter.useful += 16 * 1024;
            assert_eq!(passed(&mut meter, &frame(WINDOW_UPDATE, 0, 1, &[0; 4]), 2), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_do_not_pay_for_resets() {
        let mut meter = begun();
        let mut rapid = frame(HEADERS, END_HEADERS, 1, b"head");
        rapid.extend(frame(RST_STREAM, 0, 1, &[0; 4]));
        assert_eq!(passed(&mut meter, &rapid, 5000), Some((501, Kind::Reset)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_reader_is_given_a_farewell_instead_of_the_rest() {
        for (before, block) in [(vec![], None), (frame(HEADERS, 0, 7, b"half"), Some(7))] {
            let alarm = Rc::new(Alarm::default());
            let (mut near, far) = tokio::io::duplex(1 << 20);
            let kind = if block.is_some() { CONTINUATION } else { PING };
            let bytes =
                [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &before, &frame(kind, 0, 7, &[0; 8]).repeat(600)]
                    .concat();
            near.write_all(&bytes).await.unwrap();
            let mut metered = Metered::new(far, &alarm);
            let mut got = Vec::new();
            assert!(metered.read_to_end(&mut got).await.is_err(), "and then the connection ends");
            assert_eq!(alarm.kind(), Some(if block.is_some() { Kind::Continuation } else { Kind::Ping }));
            assert!(got.ends_with(&farewell(block)));
            assert!(bytes.starts_with(&got[..got.len() - farewell(block).len()]));
        }
    }
}
