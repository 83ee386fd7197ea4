//! The head of an answer (RFC 9112 §4), read strictly.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version, header};

use super::fields::{Malformed, collect, is_plain, strict_lines};

/// An answer's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// From 100 to 599.
    pub status: StatusCode,
    /// 1.0 or 1.1.
    pub version: Version,
    /// Its fields; values are views of what was received.
    pub headers: HeaderMap,
}

/// Waits for the end of a head in a buffer that grows, and looks at every byte once meanwhile.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Bytes at the front of the buffer that hold whole lines, or no end of one.
    scanned: usize,
    /// Whole lines among them.
    lines: usize,
}

/// Bytes of a head.
pub const MAX_HEAD: usize = 64 * 1024;
/// Fields of a head.
pub const MAX_FIELDS: usize = 256;

/// What every head begins with, up to the minor version.
const BEGIN: &[u8] = b"HTTP/1.";

// === impl HeadReader ===

impl HeadReader {
    /// Takes the next head out of `buffer`; none while it is not whole.
    ///
    /// # Errors
    ///
    /// As soon as it is clear that no valid head will come of it; the reader must not be used any more.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<ResponseHead>, Malformed> {
        // What is not HTTP at all is not waited for.
        let known = buffer.len().min(BEGIN.len());
        if buffer[..known] != BEGIN[..known] {
            return Err(Malformed("a status line that is not of HTTP/1.x"));
        }
        while let Some(at) = memchr::memchr(b'\n', &buffer[self.scanned..]).map(|at| self.scanned + at) {
            if at >= MAX_HEAD {
                break;
            }
            if at == 0 || buffer[at - 1] != b'\r' {
                return Err(Malformed("a bare LF"));
            }
            self.scanned = at + 1;
            self.lines += 1;
            // The first one is no field, and the last one may be the end.
            if self.lines > MAX_FIELDS + 2 {
                return Err(Malformed("too many fields"));
            }
            if buffer[..at - 1].ends_with(b"\r\n") {
                *self = Self::default();
                let head = buffer.split_to(at + 1).freeze();
                return parse(&head).map(Some);
            }
        }
        if buffer.len() >= MAX_HEAD {
            return Err(Malformed("the head of the answer is too large"));
        }
        self.scanned = buffer.len();
        Ok(None)
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    /// Whether the connection may be used again after this answer (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        let named = |option: &str| {
            let lists = self.headers.get_all(header::CONNECTION).iter();
            lists
                .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
        };
        !named("close") && (self.version == Version::HTTP_11 || named("keep-alive"))
    }
}

/// Parses a whole head, its empty line included.
fn parse(head: &Bytes) -> Result<ResponseHead, Malformed> {
    let (status, version) = status_line(head)?;
    if is_plain(head)
        && let Ok(headers) = fields(head)
    {
        debug_assert_eq!(strict_lines(head), Ok(()));
        return Ok(ResponseHead { status, version, headers });
    }
    strict_lines(head)?;
    Ok(ResponseHead { status, version, headers: fields(head)? })
}

fn fields(head: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let result =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut fields);
    match result {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("too many fields")),
        _ => return Err(Malformed("a malformed head")),
    }
    collect(parsed.headers, head)
}

/// `HTTP/1.1 200 OK`: one space, three digits, and then a reason after another space, or nothing. Many servers
/// leave out that space together with the reason, and nothing can be confused by it.
fn status_line(head: &[u8]) -> Result<(StatusCode, Version), Malformed> {
    let version = match head {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', ..] => Version::HTTP_11,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', ..] => Version::HTTP_10,
        _ => return Err(Malformed("a status line that is not of HTTP/1.x")),
    };
    let code = &head[BEGIN.len() + 2..];
    match code {
        [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'\r', ..] => {}
        _ => return Err(Malformed("a status that is not of three digits from 100 to 599")),
    }
    let status = StatusCode::from_bytes(&code[..3]).map_err(|_| Malformed("a malformed status"))?;
    Ok((status, version))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Option<ResponseHead>, Malformed> {
        HeadReader::default().read(&mut BytesMut::from(text.as_ref()))
    }

    fn head(text: &str) -> ResponseHead {
        read(text).expect(text).expect(text)
    }

    fn error(text: impl AsRef<[u8]>) -> &'static str {
        let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
        read(text).expect_err(&shown).0
    }

    #[test]
    fn a_head_is_taken_out_and_what_follows_is_left() {
        let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\nA:  b \r\na: c\r\n\r\nbody");
        let head = HeadReader::default().read(&mut buffer).unwrap().unwrap();
        assert_eq!((head.status, head.version), (StatusCode::OK, Version::HTTP_11));
        assert_eq!(head.headers.get_all("a").iter().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(&buffer[..], b"body");
    }

    #[test]
    fn a_reason_may_be_empty_or_odd() {
        for line in ["HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 200 It's \u{fc}ber, 300 !"] {
            assert_eq!(head(&format!("{line}\r\n\r\n")).status, StatusCode::OK, "{line:?}");
        }
        assert_eq!(head("HTTP/1.0 599 \r\n\r\n").version, Version::HTTP_10);
    }

    #[test]
    fn other_versions_are_refused() {
        for line in
            ["HTTP/2.0 200 OK", "HTTP/2 200 OK", "HTTP/1.2 200 OK", "HTTP/1.10 200 OK", "http/1.1 200 OK"]
        {
            assert_eq!(error(format!("{line}\r\n\r\n")), "a status line that is not of HTTP/1.x", "{line:?}");
        }
        for line in [
            " HTTP/1.1 200 OK",
            "\r\nHTTP/1.1 200 OK",
            "ICY 200 OK",
            "200 OK",
            "HTTP/1.1\t200 OK",
            "HTTP/1.1",
        ] {
            assert!(read(format!("{line}\r\n\r\n")).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_status_has_three_digits_from_100_to_599() {
        for status in [
            "", "2", "20", "2000", "099", "000", "600", "999", " 200", "+20", "2OO", "-200", "200\tOK",
            "200x", "200,",
        ] {
            let error = error(format!("HTTP/1.1 {status}\r\n\r\n"));
            assert_eq!(error, "a status that is not of three digits from 100 to 599", "{status:?}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused_at_its_first_byte() {
        assert!(read("SSH-2.0").is_err());
        assert!(read("\x16\x03\x01").is_err());
        assert!(read("HTTP/2").is_err());
        assert!(read("HTTP").unwrap().is_none());
    }

    #[test]
    fn lines_that_can_be_read_in_two_ways_are_refused() {
        for fields in [
            "A : b",
            "A: b\r\n c",
            " A: b",
            "A",
            ": b",
            "A: b\rC: d",
            "A: b\nC: d",
            "A: \0",
            "A: \x7f",
            "A b: c",
        ] {
            assert!(read(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).is_err(), "{fields:?}");
        }
        for text in ["HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\r\nA: b\n\n", "HTTP/1.1 200 O\0K\r\n\r\n"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_fields() {
        let field = "a: b\r\n";
        assert_eq!(
            head(&format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(MAX_FIELDS))).headers.len(),
            MAX_FIELDS
        );
        assert_eq!(
            error(format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(MAX_FIELDS + 1))),
            "too many fields"
        );
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(MAX_HEAD));
        assert_eq!(error(endless), "the head of the answer is too large");
        let large = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(error(large), "the head of the answer is too large");
    }

    #[test]
    fn a_connection_is_kept_unless_its_peer_says_otherwise() {
        for (text, keeps) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n\r\n", false),
        ] {
            assert_eq!(head(text).keeps_alive(), keeps, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_split_of_the_bytes_makes_no_difference(tail in "[ -~\r\n\0:]{0,40}", end in any::<bool>()) {
            let text = format!("HTTP/1.1 200 OK\r\n{tail}{}", if end { "\r\n\r\n" } else { "" });
            let once = read(&text).map(|head| head.map(|head| head.headers));
            let (mut reader, mut buffer, mut singly) = (HeadReader::default(), BytesMut::new(), Ok(None));
            for byte in text.bytes() {
                buffer.extend_from_slice(&[byte]);
                singly = reader.read(&mut buffer).map(|head| head.map(|head| head.headers));
                if !matches!(singly, Ok(None)) {
                    break;
                }
            }
            prop_assert_eq!(once, singly);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read([b"HTTP/1.1 200 ", bytes.as_slice(), b"\r\n\r\n"].concat());
        }
    }
}
