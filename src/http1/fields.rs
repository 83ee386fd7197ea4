//! Lines and fields of a head or of trailers (RFC 9112 §2.2, §5).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

/// A message breaks a rule, or can be read in two ways; the text names the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Checks every line of a whole head, from its start line to the empty line at its end.
///
/// # Errors
///
/// Line ends other than CRLF, controls, folded lines, and what [`strict_fields`] refuses.
pub fn strict_lines(head: &[u8]) -> Result<(), Malformed> {
    let (line, fields) = next_line(head)?;
    if line.iter().any(|byte| byte.is_ascii_control()) {
        return Err(Malformed("a control character in the first line"));
    }
    strict_fields(fields)
}

/// Whether nothing is wrong with the line ends of a whole head and it has no control but those and tabs after its
/// first line: then a parser that knows tokens finds whatever else [`strict_lines`] would. Costs a fraction of it.
pub fn is_plain(head: &[u8]) -> bool {
    let Some((&first, rest)) = head.split_first() else { return false };
    let odd = |byte: u8| byte < b' ' && byte != b'\t' && byte != b'\r' && byte != b'\n' || byte == 0x7F;
    // Without an early exit the compiler looks at many bytes at once.
    let pairs = head.iter().zip(rest);
    let bad = pairs.fold(odd(first) || first == b'\n', |bad, (&before, &byte)| {
        bad | odd(byte) | ((before == b'\r') != (byte == b'\n'))
    });
    let line = memchr(b'\n', head).map_or(head, |end| &head[..end]);
    !bad && head.ends_with(b"\n") && memchr(b'\t', line).is_none()
}

/// Checks field lines up to and including the empty line at their end, which nothing may follow.
///
/// # Errors
///
/// Line ends other than CRLF, controls, folded lines, white space around a name, names that are no tokens.
pub fn strict_fields(mut lines: &[u8]) -> Result<(), Malformed> {
    loop {
        let (line, rest) = next_line(lines)?;
        if line.is_empty() {
            return if rest.is_empty() { Ok(()) } else { Err(Malformed("bytes after the last field")) };
        }
        strict_field(line)?;
        lines = rest;
    }
}

/// The fields of a head that [`strict_lines`] has passed; values are views of it, not copies.
///
/// # Errors
///
/// Names and values that are none.
pub fn collect(parsed: &[httparse::Header<'_>], head: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::with_capacity(parsed.len() + ADDED);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NAME)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| VALUE)?;
        fields.try_append(name, value).map_err(|_| Malformed("too many fields"))?;
    }
    Ok(fields)
}

/// Whether some applications take a field of the one name for one of the other: CGI and its heirs take `_` for `-`.
pub fn is_alike(one: &str, other: &str) -> bool {
    let dash = |byte| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.bytes().map(dash).eq(other.bytes().map(dash))
}

/// Fields that are likely to be added to those that were received.
const ADDED: usize = 5;

const NAME: Malformed = Malformed("a field name is no token");
const VALUE: Malformed = Malformed("a control character in a field value");

/// A line without its end, and what follows it. RFC 9112 §2.2 lets a recipient take a bare LF for a line end;
/// one that does and one that does not see different messages, so nobody gets to choose.
fn next_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let Some(end) = memchr(b'\n', bytes) else { return Err(Malformed("a line does not end")) };
    let Some(line) = bytes[..end].strip_suffix(b"\r") else { return Err(Malformed("a bare LF")) };
    if memchr(b'\r', line).is_some() {
        return Err(Malformed("a bare CR"));
    }
    Ok((line, &bytes[end + 1..]))
}

fn strict_field(line: &[u8]) -> Result<(), Malformed> {
    if matches!(line[0], b' ' | b'\t') {
        // §2.2 and §5.2: white space at the beginning of a line continues a field, or nothing.
        return Err(Malformed("a field line begins with white space"));
    }
    let Some(colon) = memchr(b':', line) else { return Err(Malformed("a field line without a colon")) };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    match name.last() {
        None => return Err(Malformed("a field without a name")),
        // §5.1: a proxy that takes it off changes what others saw.
        Some(b' ' | b'\t') => return Err(Malformed("white space before a colon")),
        Some(_) => {}
    }
    if !name.iter().all(|byte| is_token(*byte)) {
        return Err(NAME);
    }
    // Bytes above ASCII are obs-text (RFC 9110 §5.5): opaque, and passed on as they are.
    if value.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7F) {
        return Err(VALUE);
    }
    Ok(())
}

/// Whether a byte may be part of a token (RFC 9110 §5.6.2).
pub const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(fields: &str) -> &'static str {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        strict_lines(head.as_bytes()).expect_err(fields).0
    }

    #[test]
    fn a_plain_head_is_passed() {
        assert_eq!(strict_lines(b"GET / HTTP/1.1\r\n\r\n"), Ok(()));
        assert_eq!(strict_lines(b"GET / HTTP/1.1\r\nHost: a\r\nx!#$%&'*+-.^_`|~9:\t b \xe9\r\n\r\n"), Ok(()));
        assert_eq!(strict_fields(b"\r\n"), Ok(()));
        assert_eq!(strict_fields(b"X-Sum:\r\n\r\n"), Ok(()));
    }

    #[test]
    fn line_ends_other_than_crlf_are_refused() {
        assert_eq!(refusal("A: b\nC: d"), "a bare LF");
        assert_eq!(refusal("A: b\rC: d"), "a bare CR");
        assert_eq!(refusal("A: b\r\r\nC: d"), "a bare CR");
        assert_eq!(strict_lines(b"GET / HTTP/1.1\n\r\n"), Err(Malformed("a bare LF")));
        assert_eq!(strict_lines(b"GET / HTTP/1.1\r\nA: b\r\n\n"), Err(Malformed("a bare LF")));
    }

    #[test]
    fn folded_lines_are_refused() {
        for fields in ["A: b\r\n c: d", "A: b\r\n\tc", " A: b", "\tA: b", "A: b\r\n \r\nC: d"] {
            assert_eq!(refusal(fields), "a field line begins with white space", "{fields:?}");
        }
    }

    #[test]
    fn names_that_are_no_tokens_are_refused() {
        assert_eq!(refusal("A : b"), "white space before a colon");
        assert_eq!(refusal("A\t: b"), "white space before a colon");
        assert_eq!(refusal(": b"), "a field without a name");
        assert_eq!(refusal("A"), "a field line without a colon");
        for fields in ["A b: c", "A\0: c", "(A): c", "A\u{e9}: c", "\"A\": c", "A/b: c", "A;b: c"] {
            assert_eq!(refusal(fields), NAME.0, "{fields:?}");
        }
    }

    #[test]
    fn controls_are_refused_wherever_they_are() {
        for byte in (0..0x20_u8).chain([0x7F]).filter(|byte| !b"\t\r\n".contains(byte)) {
            let control = char::from(byte);
            assert_eq!(refusal(&format!("A: b{control}c")), VALUE.0, "{byte:#x}");
            let line = format!("GET /{control} HTTP/1.1\r\n\r\n");
            assert!(strict_lines(line.as_bytes()).is_err(), "{byte:#x}");
        }
        assert!(strict_lines(b"GET\t/ HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn a_head_that_does_not_end_where_it_should_is_refused() {
        for head in ["", "GET / HTTP/1.1", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nA: b\r\n"] {
            assert!(strict_lines(head.as_bytes()).is_err(), "{head:?}");
        }
        assert!(strict_lines(b"GET / HTTP/1.1\r\n\r\nA: b\r\n\r\n").is_err());
    }

    #[test]
    fn values_are_views_of_the_head_without_the_white_space_around_them() {
        let head = Bytes::from_static(b"Host: \t a b \t\r\nX: \r\nx: \xe9\r\n\r\n");
        let mut parsed = [httparse::EMPTY_HEADER; 4];
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&head, &mut parsed) else {
            panic!("whole fields");
        };
        let fields = collect(parsed, &head).unwrap();
        assert_eq!(fields["host"], "a b");
        let same: Vec<_> = fields.get_all("x").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(same, [&b""[..], b"\xe9"]);
        assert!(head.as_ptr_range().contains(&fields["host"].as_bytes().as_ptr()));
    }
}
