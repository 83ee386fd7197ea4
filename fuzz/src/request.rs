//! The head of a request: whole, cut anywhere, and written anew.

use bytes::BytesMut;
use homing::http1::{
    fields::strict_lines,
    framing::{Length, request_length},
    request::{Head, Limits, Parser},
    write::{end_head, fields, request_line},
};

const LIMITS: Limits = Limits { head: 2048, fields: 24, target: 512 };

/// The first byte says where the rest is cut.
pub fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = parse(&[bytes]);
    let at = usize::from(cut).min(bytes.len());
    let (before, after) = bytes.split_at(at);
    let torn = parse(&[before, after]);
    let drops = bytes.iter().map(std::slice::from_ref).collect::<Vec<_>>();
    let dropped = parse(&drops);
    assert_eq!(told(&whole), told(&torn), "cut at {at}");
    assert_eq!(told(&whole), told(&dropped), "byte by byte");
    if let Ok(Some((head, _))) = whole {
        is_canonical(&head);
    }
}

/// The head and what is left; none when it is not whole.
type Parsed = Result<Option<(Head, Vec<u8>)>, String>;

fn parse(parts: &[&[u8]]) -> Parsed {
    let mut parser = Parser::default();
    let mut buffer = BytesMut::new();
    let mut found = None;
    for part in parts {
        buffer.extend_from_slice(part);
        if found.is_none() {
            found = parser.parse(&mut buffer, &LIMITS).map_err(|refused| refused.why.to_string())?;
        }
    }
    Ok(found.map(|head| (head, buffer.to_vec())))
}

/// What can be compared.
fn told(parsed: &Parsed) -> String {
    match parsed {
        // Which rule it breaks first may depend on how much is there.
        Err(_) => "refused".to_owned(),
        Ok(None) => "not whole".to_owned(),
        Ok(Some((head, rest))) => format!("{head:?} {rest:?}"),
    }
}

/// What is written of it reads the same, and is the same when it is written again.
fn is_canonical(head: &Head) {
    let Head { request, length, .. } = head;
    let Some(target) = request.uri().path_and_query() else { return };
    if !target.as_str().starts_with('/') {
        return;
    }
    let write = |map| {
        let mut out = BytesMut::new();
        request_line(&mut out, request.method(), target.as_str());
        fields(&mut out, map, |name| *name != http::header::CONTENT_LENGTH);
        end_head(&mut out, *length);
        out
    };
    let mut out = write(request.headers());
    let written = out.clone();
    strict_lines(&written).expect("what is written is strict");
    let limits = Limits { head: usize::MAX / 2, ..LIMITS };
    let again = Parser::default().parse(&mut out, &limits).expect("what is written is read").expect("whole");
    assert!(out.is_empty(), "nothing is left of what is written");
    assert_eq!(again.request.method(), request.method());
    assert_eq!(again.request.uri().path_and_query(), Some(target));
    assert_eq!(again.length, *length);
    assert_eq!(write(again.request.headers()), written);
    let read = request_length(again.request.version(), again.request.headers());
    assert!(matches!(read, Ok(read) if read == *length || *length == Length::Exact(0)));
}
