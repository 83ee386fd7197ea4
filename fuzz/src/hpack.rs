//! Heads and trailers as HTTP/2 compresses them: whole, cut anywhere, and written anew.

use bytes::{Bytes, BytesMut};
use homing::http2::{
    Error,
    head::{Block, Kind, Refused},
    hpack::{Decoder, Encoder, Field, OVERHEAD, Section},
};
use http::{HeaderMap, StatusCode};

const LIMIT: usize = 2048;

/// The first byte says where each block is cut. The blocks of one connection follow, each after two bytes with its length.
pub fn run(data: &[u8]) {
    let Some((&cut, mut rest)) = data.split_first() else { return };
    let mut decoders = [const { Decoder::new() }; 4];
    let mut written = (Encoder::new(), Decoder::new());
    while let Some((length, more)) = rest.split_first_chunk() {
        let (block, more) = more.split_at(usize::from(u16::from_be_bytes(*length)).min(more.len()));
        rest = more;
        let [whole, torn, dropped, plain] = &mut decoders;
        let (before, after) = block.split_at(usize::from(cut).min(block.len()));
        let drops = block.iter().map(std::slice::from_ref).collect::<Vec<_>>();
        let read = parse(Kind::Request, whole, &[block]);
        assert_eq!(told(&read), told(&parse(Kind::Request, torn, &[before, after])), "cut at {cut}");
        // Nothing but the table is kept of it, which has to be the same; what is too long is not looked at.
        let unwanted = parse(Kind::Nothing, dropped, if drops.is_empty() { &[b""] } else { &drops });
        assert!(read.is_err() || unwanted.is_ok(), "byte by byte");
        is_bounded(plain, block);
        match read {
            Ok(Ok(fields)) => is_canonical(&mut written, &fields),
            Ok(Err(_)) => {}
            Err(_) => return,
        }
    }
}

type Parsed = Result<Result<HeaderMap, String>, Error>;

fn parse(kind: Kind, decoder: &mut Decoder, parts: &[&[u8]]) -> Parsed {
    let mut block = Block::new(kind, LIMIT);
    for (left, part) in (0..parts.len()).rev().zip(parts) {
        block.push(Bytes::copy_from_slice(part), left == 0, decoder)?;
    }
    Ok(match block.request() {
        Ok(head) => {
            let request = head.request;
            assert!(!request.method().as_str().is_empty());
            Ok(request.into_parts().0.headers)
        }
        Err(Refused::Malformed(rule)) => Err(rule.to_owned()),
        Err(Refused::TooLarge(line)) => Err(format!("{line:?}")),
    })
}

/// What can be compared: which rule of the connection is broken first may depend on how much is there.
fn told(parsed: &Parsed) -> String {
    match parsed {
        Ok(read) => format!("{read:?}"),
        Err(_) => "broken".to_owned(),
    }
}

/// No more is given out than is allowed.
fn is_bounded(decoder: &mut Decoder, block: &[u8]) {
    let mut section = Section::new(LIMIT);
    let mut size = 0;
    let count = |field| {
        size += OVERHEAD;
        match field {
            Field::Pseudo(name, value) => size += name.as_str().len() + value.len(),
            Field::Regular(name, value) => size += name.as_str().len() + value.len(),
            Field::Malformed(..) => {}
        }
    };
    let read = decoder.decode(block, true, &mut section, count);
    assert!(size <= LIMIT);
    assert!(read.is_err() || read == Ok(block.len()));
}

/// What is written of it reads the same, whatever was written before.
fn is_canonical((encoder, decoder): &mut (Encoder, Decoder), fields: &HeaderMap) {
    let mut out = BytesMut::new();
    encoder.response(&mut out, StatusCode::OK, fields);
    let mut again = HeaderMap::new();
    let mut section = Section::new(usize::MAX);
    let keep = |field| match field {
        Field::Pseudo(name, value) => assert_eq!((name.as_str(), &value[..]), (":status", &b"200"[..])),
        Field::Regular(name, value) => {
            again.append(name, value);
        }
        Field::Malformed(_, rule) => panic!("{rule}"),
    };
    decoder.decode(&out, true, &mut section, keep).expect("what is written is read");
    assert_eq!(&again, fields);
}
