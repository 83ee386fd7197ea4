//! The chunked transfer coding (RFC 9112 §7.1), read strictly and bit by bit, and written.
//!
//! Invariant: what is decoded does not depend on how the bytes were split on their way. Nothing is buffered
//! here: unfinished lines stay in the caller's buffer, whose size their bounds limit.

use std::io::Write as _;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, header};

use super::{
    body::Step,
    fields::{Malformed, collect, strict_fields},
};

/// Reads a chunked body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions that may still come.
    extensions: usize,
    /// Bytes at the front of the buffer that hold no end of a line.
    scanned: usize,
    forbidden: Forbidden,
}

/// What becomes of trailers that must not be there (RFC 9110 §6.5.1): fields that frame, route, authenticate
/// or say how the content is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The message is malformed.
    Refuse,
    /// They are left out.
    Drop,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size,
    /// This many bytes of the chunk are to come.
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    Trailers,
    Ended,
}

/// Bytes of a line with a chunk's size and its extensions, at most.
const MAX_SIZE_LINE: usize = 1024;
/// Digits of a chunk's size, leading zeros included.
const MAX_DIGITS: usize = 16;
/// Bytes of all extensions of a body: nobody uses them, and each costs as much as a byte of data.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes of all trailers.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Trailer fields.
pub const MAX_TRAILERS: usize = 64;

/// Ends the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the line that begins a chunk of `length` bytes. The data and [`CHUNK_END`] have to follow. A chunk
/// of no bytes would end the body, so `length` must not be 0.
pub fn begin_chunk(out: &mut BytesMut, length: usize) {
    debug_assert_ne!(length, 0, "it would end the body");
    // Never fails: the buffer grows.
    let _ = write!(out.writer(), "{length:X}\r\n");
}

/// Appends the last chunk with trailers. Forbidden fields are left out.
pub fn end_with_trailers(out: &mut BytesMut, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter().filter(|(name, _)| !is_forbidden(name)) {
        super::write::line(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a field must not be a trailer.
pub fn is_forbidden(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 31] = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::HOST,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::PROXY_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::PRAGMA,
        header::EXPIRES,
        header::AGE,
        header::DATE,
        header::LOCATION,
        header::VARY,
        header::EXPECT,
        header::RANGE,
        header::MAX_FORWARDS,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::FORWARDED,
        header::VIA,
    ];
    NAMES.contains(name)
        || ["keep-alive", "proxy-connection", "x-real-ip", "x-request-id"].contains(&name.as_str())
        || name.as_str().starts_with("x-forwarded-")
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the first chunk.
    pub const fn new(forbidden: Forbidden) -> Self {
        Self { state: State::Size, extensions: MAX_EXTENSIONS, scanned: 0, forbidden }
    }

    /// Whether the last chunk and the trailers have been read.
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Takes the next part out of `buffer`.
    ///
    /// # Errors
    ///
    /// When the coding is broken; the decoder must not be used any more.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match self.state {
                State::Size => {
                    let Some(end) = self.line_end(buffer, MAX_SIZE_LINE, "chunk size line too long")? else {
                        return Ok(Step::More);
                    };
                    let (size, extensions) = size(&buffer[..end - 2])?;
                    self.extensions = self
                        .extensions
                        .checked_sub(extensions)
                        .ok_or(Malformed("too many chunk extensions"))?;
                    buffer.advance(end);
                    self.scanned = 0;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::More);
                    }
                    let take = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(buffer.split_to(take).freeze()));
                }
                State::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(Malformed("chunk data longer than its size")),
                },
                State::Trailers => {
                    let Some(end) = self.line_end(buffer, MAX_TRAILER_BYTES, "trailers too large")? else {
                        return Ok(Step::More);
                    };
                    let ends = buffer[..end - 2].is_empty() || buffer[..end - 2].ends_with(b"\r\n");
                    if !ends {
                        self.scanned = end;
                        continue;
                    }
                    self.state = State::Ended;
                    self.scanned = 0;
                    let section = buffer.split_to(end).freeze();
                    if section.len() > CHUNK_END.len() {
                        let trailers = self.trailers(&section)?;
                        if !trailers.is_empty() {
                            return Ok(Step::Trailers(trailers));
                        }
                    }
                }
                State::Ended => return Ok(Step::End),
            }
        }
    }

    /// Where the next line in `buffer` ends, its CRLF included; none while it is unfinished.
    fn line_end(
        &mut self,
        buffer: &[u8],
        limit: usize,
        too_long: &'static str,
    ) -> Result<Option<usize>, Malformed> {
        let found = memchr::memchr(b'\n', &buffer[self.scanned..]).map(|at| self.scanned + at);
        match found {
            Some(at) if at >= limit => Err(Malformed(too_long)),
            Some(at) if at > 0 && buffer[at - 1] == b'\r' => Ok(Some(at + 1)),
            Some(_) => Err(Malformed("bare LF in a chunked body")),
            None if buffer.len() >= limit => Err(Malformed(too_long)),
            None => {
                self.scanned = buffer.len();
                Ok(None)
            }
        }
    }

    fn trailers(&self, section: &Bytes) -> Result<HeaderMap, Malformed> {
        strict_fields(section)?;
        let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        let parsed = match httparse::parse_headers(section, &mut parsed) {
            Ok(httparse::Status::Complete((length, parsed))) if length == section.len() => parsed,
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed("too many trailers")),
            _ => return Err(Malformed("malformed trailer")),
        };
        let mut trailers = collect(parsed, section)?;
        if trailers.keys().any(is_forbidden) {
            if self.forbidden == Forbidden::Refuse {
                return Err(Malformed("a field that must not be a trailer"));
            }
            let names: Vec<HeaderName> = trailers.keys().filter(|name| is_forbidden(name)).cloned().collect();
            for name in names {
                trailers.remove(name);
            }
        }
        Ok(trailers)
    }
}

/// The size in the line that begins a chunk, and how many bytes of it are extensions. These mean nothing to
/// us and are not passed on (RFC 9112 §7.1.1), but must not hide anything.
fn size(line: &[u8]) -> Result<(u64, usize), Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > MAX_DIGITS {
        return Err(Malformed("bad chunk size"));
    }
    let (number, extensions) = line.split_at(digits);
    let size = number.iter().fold(0_u64, |size, digit| size << 4 | u64::from(nibble(*digit)));
    match extensions.iter().find(|byte| **byte != b' ' && **byte != b'\t') {
        None if extensions.is_empty() => {}
        Some(b';') if extensions.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) => {}
        _ => return Err(Malformed("bad chunk extension")),
    }
    Ok((size, extensions.len()))
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that comes out of `bytes`, given in these parts: the data, the trailers, and how it ended.
    fn decode(
        parts: &[&[u8]],
        forbidden: Forbidden,
    ) -> (Vec<u8>, Option<HeaderMap>, Result<bool, Malformed>, usize) {
        let mut decoder = Decoder::new(forbidden);
        let (mut data, mut trailers, mut buffer) = (Vec::new(), None, BytesMut::new());
        for part in parts {
            buffer.extend_from_slice(part);
            loop {
                match decoder.step(&mut buffer) {
                    Ok(Step::Data(bytes)) => data.extend_from_slice(&bytes),
                    Ok(Step::Trailers(fields)) => trailers = Some(fields),
                    Ok(Step::More | Step::End) => break,
                    Err(error) => return (data, trailers, Err(error), 0),
                }
            }
        }
        (data, trailers, Ok(decoder.is_ended()), buffer.len())
    }

    fn whole(text: &str) -> Result<Vec<u8>, Malformed> {
        let (data, _, ended, _) = decode(&[text.as_bytes()], Forbidden::Refuse);
        ended.map(|ended| {
            assert!(ended, "{text:?} does not end");
            data
        })
    }

    fn error(text: &str) -> &'static str {
        whole(text).expect_err(text).0
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(
            whole("5\r\nhello\r\n00a; x=\"y\"\r\n0123456789\r\n0\r\n\r\n"),
            Ok(b"hello0123456789".into())
        );
        assert_eq!(whole("0\r\n\r\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_follows_the_end_is_left_alone() {
        let (.., left) = decode(&[b"0\r\n\r\nGET / HTTP/1.1\r\n"], Forbidden::Refuse);
        assert_eq!(left, 16);
    }

    #[test]
    fn sizes_that_can_be_read_in_two_ways_are_refused() {
        let sizes = [
            "",
            " 5",
            "+5",
            "-5",
            "0x5",
            "5 5",
            "g",
            "5,5",
            "\t5",
            "5_0",
            "00000000000000005",
            "11111111111111111",
        ];
        for size in sizes {
            let error = error(&format!("{size}\r\nhello\r\n0\r\n\r\n"));
            assert!(error.starts_with("bad chunk"), "{size:?}: {error}");
        }
        for size in ["5 ", "5\t", "5 x", "5;\0", "5;a\rb"] {
            let error = error(&format!("{size}\r\nhello\r\n0\r\n\r\n"));
            assert_eq!(error, "bad chunk extension", "{size:?}");
        }
    }

    #[test]
    fn line_ends_other_than_crlf_are_refused() {
        for text in ["5\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "0\r\n\n", "0\r\nA: b\n\r\n"] {
            assert_eq!(error(text), "bare LF in a chunked body", "{text:?}");
        }
        for text in ["5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n"] {
            assert_eq!(error(text), "chunk data longer than its size", "{text:?}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused_as_soon_as_it_is_too_long() {
        let endless = format!("5;{}", "x".repeat(MAX_SIZE_LINE));
        assert_eq!(
            decode(&[endless.as_bytes()], Forbidden::Refuse).2,
            Err(Malformed("chunk size line too long"))
        );
        let endless = format!("0\r\nA: {}", "x".repeat(MAX_TRAILER_BYTES));
        assert_eq!(decode(&[endless.as_bytes()], Forbidden::Refuse).2, Err(Malformed("trailers too large")));
    }

    #[test]
    fn extensions_are_bounded_in_total() {
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(1000));
        assert!(whole(&format!("{}0\r\n\r\n", chunk.repeat(16))).is_ok());
        assert_eq!(error(&format!("{}0\r\n\r\n", chunk.repeat(17))), "too many chunk extensions");
    }

    #[test]
    fn trailers_are_given_before_the_end() {
        let (data, trailers, ended, _) = decode(&[b"1\r\na\r\n0\r\nX-Sum: 42\r\n\r\n"], Forbidden::Refuse);
        assert_eq!((data, ended), (b"a".to_vec(), Ok(true)));
        assert_eq!(trailers.unwrap()["x-sum"], "42");
    }

    #[test]
    fn malformed_trailers_are_refused() {
        for trailer in ["A : b", " A: b", "A", ": b", "A: b\r\n c", "A: \0", "A\u{e9}: b"] {
            assert!(whole(&format!("0\r\n{trailer}\r\n\r\n")).is_err(), "{trailer:?}");
        }
        let many: String = (0..=MAX_TRAILERS).map(|number| format!("a{number}: b\r\n")).collect();
        assert_eq!(error(&format!("0\r\n{many}\r\n")), "too many trailers");
    }

    #[test]
    fn forbidden_trailers_are_refused_or_left_out() {
        for name in ["Content-Length", "transfer-encoding", "HOST", "Set-Cookie", "X-Forwarded-For"] {
            let text = format!("0\r\n{name}: 5\r\nX-Sum: 1\r\n\r\n");
            assert_eq!(error(&text), "a field that must not be a trailer", "{name}");
            let (_, trailers, ended, _) = decode(&[text.as_bytes()], Forbidden::Drop);
            assert_eq!((trailers.unwrap().len(), ended), (1, Ok(true)), "{name}");
        }
    }

    #[test]
    fn an_unfinished_body_is_no_end() {
        let text = b"5\r\nhello\r\n0\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(decode(&[&text[..length]], Forbidden::Refuse).2, Ok(false), "{length}");
        }
    }

    /// Bytes that often are chunks and often nearly are.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "\r\n",
            "\n",
            "\r",
            "0\r\n\r\n",
            "5\r\nhello\r\n",
            "1;a=b\r\nx\r\n",
            "A: b\r\n",
            "0\r\n",
            "ff",
            "; x",
        ];
        let piece = proptest::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec());
        let raw = proptest::collection::vec(any::<u8>(), 0..4);
        let part = prop_oneof![8 => piece, 1 => raw];
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn the_split_of_the_bytes_makes_no_difference(bytes in bytes(), at in 0_usize..100) {
            let at = at.min(bytes.len());
            let once = decode(&[&bytes], Forbidden::Refuse);
            prop_assert_eq!(&once, &decode(&[&bytes[..at], &bytes[at..]], Forbidden::Refuse));
            let singly: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&once, &decode(&singly, Forbidden::Refuse));
        }

        #[test]
        fn what_is_written_is_read_again(parts in proptest::collection::vec(".{1,40}", 0..8), sum in "[a-z]{0,8}") {
            let mut out = BytesMut::new();
            for part in &parts {
                begin_chunk(&mut out, part.len());
                out.extend_from_slice(part.as_bytes());
                out.extend_from_slice(CHUNK_END);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", sum.parse().unwrap());
            trailers.insert("content-length", sum.parse().unwrap());
            end_with_trailers(&mut out, &trailers);
            let (data, read, ended, left) = decode(&[&out], Forbidden::Refuse);
            trailers.remove("content-length");
            prop_assert_eq!(data, parts.concat().into_bytes());
            prop_assert_eq!(read, Some(trailers));
            prop_assert_eq!((ended, left), (Ok(true), 0));
        }
    }
}
