//! Frames of HTTP/2: whole, cut anywhere, and written anew.

use bytes::BytesMut;
use homing::http2::{
    Error, FRAME_HEAD, MAX_FRAME, PREFACE,
    frame::{Frame, Reader},
    write,
};

/// The first byte says where the rest is cut. A preface is taken off, as it would be.
pub fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let whole = read(&[bytes]);
    let (before, after) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(whole, read(&[before, after]), "cut at {cut}");
    let drops = bytes.iter().map(std::slice::from_ref).collect::<Vec<_>>();
    assert_eq!(whole, read(&drops), "byte by byte");
    let taken: usize = whole.iter().flatten().map(size).sum();
    assert!(taken <= bytes.len(), "more frames than bytes");
    for frame in whole.iter().flatten() {
        is_canonical(frame);
    }
}

/// Frames, and errors of streams, up to an error of the connection.
fn read(parts: &[&[u8]]) -> Vec<Result<Frame, Error>> {
    let (mut reader, mut buffer, mut found) = (Reader::default(), BytesMut::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match reader.next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let half = matches!(
                        frame,
                        Frame::Headers { end_headers: false, .. }
                            | Frame::Continuation { end_headers: false, .. }
                    );
                    assert_eq!(half, reader.open_head().is_some());
                    found.push(Ok(frame));
                }
                Err(error) => {
                    found.push(Err(error));
                    if matches!(error, Error::Connection(..)) {
                        return found;
                    }
                }
            }
        }
    }
    found
}

/// Bytes that a frame takes at least.
fn size(frame: &Frame) -> usize {
    let payload = match frame {
        Frame::Data { data, flow, .. } => {
            assert!(data.len() <= *flow as usize && *flow as usize <= MAX_FRAME);
            *flow as usize
        }
        Frame::Headers { fragment, .. } | Frame::Continuation { fragment, .. } => fragment.len(),
        _ => 0,
    };
    FRAME_HEAD + payload
}

/// What is written of it reads the same.
fn is_canonical(frame: &Frame) {
    let mut out = BytesMut::new();
    let mut expected = frame.clone();
    match &mut expected {
        Frame::Data { stream, data, flow, end_stream } => {
            out.extend_from_slice(&write::data_head(*stream, data.len(), *end_stream));
            out.extend_from_slice(data);
            // What was padding is gone.
            *flow = u32::try_from(data.len()).expect("a frame");
        }
        Frame::Headers { stream, fragment, end_stream, end_headers, depends_on_itself } => {
            write::headers(&mut out, *stream, *end_stream, |out| out.extend_from_slice(fragment));
            (*end_headers, *depends_on_itself) = (true, false);
        }
        Frame::Reset { stream, code } => write::reset(&mut out, *stream, *code),
        Frame::Settings(settings) => write::settings(&mut out, settings),
        Frame::SettingsAck => write::settings_ack(&mut out),
        Frame::Ping { ack: true, payload } => write::ping_ack(&mut out, *payload),
        Frame::Ping { ack: false, payload } => write::ping(&mut out, *payload),
        Frame::GoAway { last, code } => write::goaway(&mut out, *last, *code, ""),
        Frame::WindowUpdate { stream, increment } => write::window_update(&mut out, *stream, *increment),
        Frame::Continuation { .. } | Frame::Priority { .. } | Frame::Unknown { .. } => return,
    }
    assert_eq!(read(&[&out]), [Ok(expected)]);
}
