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
    flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

/// Flags: the answer to SETTINGS and PING; the end of a stream, and of its head.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
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

    /// Answers the next ping.
    pub(crate) async fn answer_ping(&mut self) {
        let ping = self.next(PING).await;
        self.send(PING, ACK, 0, &ping.payload).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.raw.write(frame).await;
    }
}

// === impl Frame ===

impl Frame {
    /// Whether it begins an answer of status 200.
    pub(crate) fn is_ok(&self) -> bool {
        self.kind == HEADERS && self.payload.first() == Some(&STATUS_200)
    }
}
