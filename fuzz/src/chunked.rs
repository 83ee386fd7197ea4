//! A chunked body and its trailers: whole, cut anywhere, and written anew.

use bytes::BytesMut;
use homing::http1::{
    body::{BodyReader, Step},
    chunked::{CHUNK_END, Forbidden, MAX_TRAILER_BYTES, MAX_TRAILERS, begin_chunk, end_with_trailers},
    framing::Length,
};
use http::HeaderMap;

/// The first byte says where the rest is cut.
pub fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    for forbidden in [Forbidden::Refuse, Forbidden::Drop] {
        let whole = read(&[bytes], forbidden);
        let (before, after) = bytes.split_at(usize::from(cut).min(bytes.len()));
        assert_eq!(whole, read(&[before, after], forbidden), "cut at {cut}");
        let drops = bytes.iter().map(std::slice::from_ref).collect::<Vec<_>>();
        assert_eq!(whole, read(&drops, forbidden), "byte by byte");
        if let Ok(Some(body)) = whole {
            is_canonical(&body, bytes.len());
        }
    }
}

#[derive(Debug, PartialEq)]
struct Body {
    data: Vec<u8>,
    trailers: HeaderMap,
    rest: Vec<u8>,
}

/// The body; none when it is not whole.
fn read(parts: &[&[u8]], forbidden: Forbidden) -> Result<Option<Body>, ()> {
    let mut reader = BodyReader::new(Length::Chunked, forbidden);
    let mut buffer = BytesMut::new();
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match reader.step(&mut buffer).map_err(drop)? {
                Step::Data(more) => {
                    assert!(!more.is_empty(), "empty data would be the end");
                    data.extend_from_slice(&more);
                }
                Step::Trailers(fields) => {
                    assert!(trailers.is_empty() && fields.len() <= MAX_TRAILERS);
                    trailers = fields;
                }
                Step::End | Step::More => break,
            }
        }
    }
    Ok(reader.is_ended().then(|| Body { data, trailers, rest: buffer.to_vec() }))
}

fn is_canonical(body: &Body, received: usize) {
    assert!(body.data.len() + body.rest.len() <= received);
    let size: usize = body.trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(size <= MAX_TRAILER_BYTES);
    let mut out = BytesMut::new();
    if !body.data.is_empty() {
        begin_chunk(&mut out, body.data.len());
        out.extend_from_slice(&body.data);
        out.extend_from_slice(CHUNK_END);
    }
    end_with_trailers(&mut out, &body.trailers);
    let again = read(&[&out], Forbidden::Refuse).expect("what is written is read").expect("whole");
    assert_eq!((again.data, again.trailers), (body.data.clone(), body.trailers.clone()));
    assert!(again.rest.is_empty());
}
