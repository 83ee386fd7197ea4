//! Frames as bytes, appended to a buffer.

use bytes::{BufMut as _, BytesMut};

use super::{
    Code, FRAME_HEAD, MAX_FRAME,
    frame::{flag, kind},
    settings::Settings,
};

/// Appends what we tell about ourselves.
pub fn settings(out: &mut BytesMut, settings: &Settings) {
    let begin = out.len();
    head(out, 0, kind::SETTINGS, 0, 0);
    for (id, value) in settings.entries() {
        out.put_u16(id);
        out.put_u32(value);
    }
    set_length(out, begin);
}

/// Appends the word that settings have been read.
pub fn settings_ack(out: &mut BytesMut) {
    head(out, 0, kind::SETTINGS, flag::ACK, 0);
}

/// Appends the answer to a PING with this payload.
pub fn ping_ack(out: &mut BytesMut, payload: [u8; 8]) {
    head(out, payload.len(), kind::PING, flag::ACK, 0);
    out.put_slice(&payload);
}

/// Appends a PING of our own.
pub fn ping(out: &mut BytesMut, payload: [u8; 8]) {
    head(out, payload.len(), kind::PING, 0, 0);
    out.put_slice(&payload);
}

/// Appends the farewell: of the peer's streams, `last` is the last one that is looked at. `why` is for whoever debugs.
pub fn goaway(out: &mut BytesMut, last: u32, code: Code, why: &str) {
    head(out, 8 + why.len(), kind::GOAWAY, 0, 0);
    out.put_u32(last);
    out.put_u32(code.0);
    out.put_slice(why.as_bytes());
}

/// Appends the end of a stream.
pub fn reset(out: &mut BytesMut, stream: u32, code: Code) {
    head(out, 4, kind::RST_STREAM, 0, stream);
    out.put_u32(code.0);
}

/// Appends that `increment` more bytes are taken, of all streams when `stream` is 0. It must not be 0.
pub fn window_update(out: &mut BytesMut, stream: u32, increment: u32) {
    debug_assert!(increment > 0 && increment <= super::MAX_WINDOW);
    head(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.put_u32(increment);
}

/// The head of a DATA frame, which exactly `length` bytes have to follow.
pub fn data_head(stream: u32, length: usize, end_stream: bool) -> [u8; FRAME_HEAD] {
    frame_head(length, kind::DATA, if end_stream { flag::END_STREAM } else { 0 }, stream)
}

/// Appends a head or trailers, which `encode` appends compressed: in a frame, or in as many as are needed.
pub fn headers(out: &mut BytesMut, stream: u32, end_stream: bool, encode: impl FnOnce(&mut BytesMut)) {
    let end_stream = if end_stream { flag::END_STREAM } else { 0 };
    let begin = out.len();
    head(out, 0, kind::HEADERS, end_stream | flag::END_HEADERS, stream);
    encode(out);
    if out.len() - begin - FRAME_HEAD <= MAX_FRAME {
        set_length(out, begin);
        return;
    }
    let block = out.split_off(begin + FRAME_HEAD);
    out.truncate(begin);
    let parts = block.chunks(MAX_FRAME);
    let last = parts.len() - 1;
    for (index, part) in parts.enumerate() {
        let (kind, flags) = if index == 0 { (kind::HEADERS, end_stream) } else { (kind::CONTINUATION, 0) };
        let end_headers = if index == last { flag::END_HEADERS } else { 0 };
        head(out, part.len(), kind, flags | end_headers, stream);
        out.put_slice(part);
    }
}

fn head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    out.put_slice(&frame_head(length, kind, flags, stream));
}

fn frame_head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; FRAME_HEAD] {
    debug_assert!(length <= MAX_FRAME && stream <= super::MAX_STREAM);
    let [a, b, c, d] = stream.to_be_bytes();
    #[expect(clippy::cast_possible_truncation, reason = "a frame is not that long")]
    let [_, x, y, z] = (length as u32).to_be_bytes();
    [x, y, z, kind, flags, a, b, c, d]
}

/// Says how long the frame is that begins there, and ends the buffer.
fn set_length(out: &mut BytesMut, begin: usize) {
    let length = out.len() - begin - FRAME_HEAD;
    #[expect(clippy::cast_possible_truncation, reason = "a frame is not that long")]
    let [_, a, b, c] = (length as u32).to_be_bytes();
    out[begin..begin + 3].copy_from_slice(&[a, b, c]);
}
