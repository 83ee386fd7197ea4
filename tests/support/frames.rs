//! HTTP/2 frame by frame (RFC 9113), for what no well-behaved client would do at that moment.

use super::{client::Client, raw::Raw};

/// An HTTP/2 connection in the hands of a test.
pub(crate) struct Frames {
    raw: Raw,
}

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags: the answer to SETTINGS and PING; the end of a stream, and of its head.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// `:status: 200` in the static table of HPACK (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;

// === impl Frames ===

impl Frames {
    /// Opens a connection, as far as the client's part goes; `client` must speak HTTP/2.
    pub(crate) async fn open(client: &Client) -> Self {
        let mut raw = client.raw().await;
        raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut frames = Self { raw };
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Sends GET / for localhost on this stream.
    pub(crate) async fn get(&mut self, stream: u32) {
        // :method GET, :scheme https, :path /, and :authority with its value in plain.
        let mut head = vec![0x82, 0x87, 0x84, 0x01, 9];
        head.extend_from_slice(b"localhost");
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &head).await;
    }

    /// The next frame of this kind; settings are acknowledged on the way, pings are not.
    pub(crate) async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let head = self.raw.exactly(9).await;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.raw.exactly(length).await;
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Sends a request's head in one frame.
    pub(crate) async fn head(&mut self, stream: u32, fields: &[(&str, &str)], last: bool) {
        let end = if last { END_STREAM } else { 0 };
        self.send(HEADERS, end | END_HEADERS, stream, &head(fields)).await;
    }

    /// Answers the next ping.
    pub(crate) async fn answer_ping(&mut self) {
        let ping = self.next(PING).await;
        self.send(PING, ACK, 0, &ping.payload).await;
    }

    /// Sends one frame, whatever it is.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw.write(encode(kind, flags, stream, payload)).await;
    }

    /// Sends bytes, which should be frames.
    pub(crate) async fn write(&mut self, frames: &[u8]) {
        self.raw.write(frames).await;
    }

    /// What becomes of this stream: a status, or none when it or the connection is cut. The reason of a GOAWAY or
    /// RST_STREAM comes with it.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.try_next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return Outcome::Answer(frame.status()),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.reason(0)),
                GOAWAY => return Outcome::GoAway(frame.reason(4)),
                _ => {}
            }
        }
        Outcome::Closed
    }

    /// The next frame; none at the end of the connection. Settings are acknowledged on the way.
    pub(crate) async fn try_next(&mut self) -> Option<Frame> {
        let head = self.raw.try_exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.raw.try_exactly(length).await?;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.send(SETTINGS, ACK, 0, &[]).await;
        }
        Some(frame)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with this status.
    Answer(u16),
    /// The stream was reset for this reason.
    Reset(u32),
    /// The connection ends for this reason.
    GoAway(u32),
    /// It ended without one.
    Closed,
}

/// One frame as bytes.
pub(crate) fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A head in HPACK, each field a literal that is not indexed (RFC 7541 §6.2.2): any bytes, in any order.
pub(crate) fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let short = u8::try_from(text.len()).ok().filter(|length| *length < 127);
            block.push(short.unwrap_or(127));
            // An integer with a prefix of seven bits (§5.1), which is full.
            let mut rest = if short.is_some() { None } else { Some(text.len() - 127) };
            while let Some(length) = rest {
                let low = u8::try_from(length % 128).expect("seven bits");
                rest = (length >= 128).then_some(length / 128);
                block.push(if rest.is_some() { low | 128 } else { low });
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

// === impl Frame ===

impl Frame {
    /// The status of an answer's head.
    fn status(&self) -> u16 {
        match self.payload.first() {
            // The static table of HPACK has these (RFC 7541 appendix A).
            Some(index @ 0x88..=0x8e) => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
            // Others are literals with the name of entry 8; h2 compresses their three digits.
            _ => literal_status(&self.payload),
        }
    }

    /// The reason that is told at this place of the payload.
    fn reason(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    }

    /// Whether it begins an answer of status 200.
    pub(crate) fn is_ok(&self) -> bool {
        self.kind == HEADERS && self.payload.first() == Some(&STATUS_200)
    }
}

/// Three digits in the Huffman code of HPACK (RFC 7541 appendix B): 0, 1 and 2 have five bits, the others six.
fn literal_status(block: &[u8]) -> u16 {
    let value = block.get(2..).unwrap_or_default();
    let bits: String = value.iter().take(3).map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let short = u16::from_str_radix(bits.get(at..at + 5).unwrap_or("0"), 2).unwrap_or(0);
        let digit = match short {
            0..=2 => short,
            _ => {
                u16::from_str_radix(bits.get(at..at + 6).unwrap_or("0"), 2).unwrap_or(0).wrapping_sub(0x19)
                    + 3
            }
        };
        at += if short <= 2 { 5 } else { 6 };
        status = status * 10 + digit;
    }
    status
}
