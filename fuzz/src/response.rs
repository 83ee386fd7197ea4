//! The head of a backend's answer: whole, cut anywhere, and written anew.

use bytes::BytesMut;
use homing::http1::{
    framing::{Length, response_length},
    response::{HeadReader, ResponseHead},
    write::response_head,
};
use http::Method;

/// The first byte says where the rest is cut.
pub fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = read(&[bytes]);
    let (before, after) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(told(&whole), told(&read(&[before, after])), "cut at {cut}");
    let drops = bytes.iter().map(std::slice::from_ref).collect::<Vec<_>>();
    assert_eq!(told(&whole), told(&read(&drops)), "byte by byte");
    let Ok(Some((head, _))) = whole else { return };
    assert!((100..=599).contains(&head.status.as_u16()));
    for method in [Method::GET, Method::HEAD] {
        if let Ok(length) = response_length(&method, head.status, head.version, &head.headers) {
            is_canonical(&method, &head, length);
        }
    }
}

/// The head and what is left; none when it is not whole.
type Answer = Result<Option<(ResponseHead, Vec<u8>)>, ()>;

fn read(parts: &[&[u8]]) -> Answer {
    let mut reader = HeadReader::default();
    let mut buffer = BytesMut::new();
    let mut found = None;
    for part in parts {
        buffer.extend_from_slice(part);
        if found.is_none() {
            found = reader.read(&mut buffer).map_err(drop)?;
        }
    }
    Ok(found.map(|head| (head, buffer.to_vec())))
}

/// What can be compared.
fn told(answer: &Answer) -> String {
    format!("{answer:?}")
}

/// What is written of it reads the same.
fn is_canonical(method: &Method, head: &ResponseHead, length: Length) {
    let mut out = BytesMut::new();
    response_head(&mut out, head.status, &head.headers, length);
    let again = HeadReader::default().read(&mut out).expect("what is written is read").expect("whole");
    assert!(out.is_empty(), "nothing is left of what is written");
    assert_eq!(again.status, head.status);
    assert_eq!(response_length(method, again.status, again.version, &again.headers), Ok(length));
}
