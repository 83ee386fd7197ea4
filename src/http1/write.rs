//! Messages' heads as bytes: always made from what was understood, never copied from what was received.

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::framing::Length;

/// Appends a request line; `target` is the request-target as it goes on the wire. Fields follow, and
/// [`end_head`].
pub fn request_line(out: &mut BytesMut, method: &Method, target: &str) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends an answer's head. `Transfer-Encoding` in `headers` is left out; `Content-Length`, too, unless
/// `length` is [`Length::None`]: then it says what the answer to a `GET` would have (RFC 9110 §8.6), except
/// in interim answers and 204, where it must not be. The caller says `Connection: close` where the body ends
/// with the connection.
pub fn response_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, length: Length) {
    // A small body follows in the same buffer.
    let body = match length {
        Length::Exact(length) if length <= SMALL => length as usize,
        _ => 0,
    };
    out.reserve(size_of_fields(headers) + body + 96);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    let keep = length == Length::None && !bodiless;
    fields(out, headers, |name| keep || *name != header::CONTENT_LENGTH);
    end_head(out, if bodiless { Length::None } else { length });
}

/// Bytes of a body that room is made for together with its head.
const SMALL: u64 = 4 * 1024;

/// Appends one field line; the value has been checked to be one.
pub fn line(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the field lines that are kept, and never one of `Transfer-Encoding`.
pub fn fields(out: &mut BytesMut, headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    for (name, value) in headers {
        if *name != header::TRANSFER_ENCODING && keep(name) {
            line(out, name, value.as_bytes());
        }
    }
}

/// Appends how long the body is, and the end of the head. What the fields say of that must have been left out.
pub fn end_head(out: &mut BytesMut, length: Length) {
    match length {
        Length::None | Length::UntilClose => {}
        Length::Exact(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn size_of_fields(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn request(headers: &HeaderMap, length: Length) -> String {
        let mut out = BytesMut::new();
        request_line(&mut out, &Method::POST, "/a?b=%20");
        fields(&mut out, headers, |name| *name != header::CONTENT_LENGTH);
        end_head(&mut out, length);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn response(status: StatusCode, headers: &HeaderMap, length: Length) -> String {
        let mut out = BytesMut::new();
        response_head(&mut out, status, headers, length);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_length_decides_and_not_what_the_fields_say() {
        let headers = map(&[("host", "a"), ("content-length", "7"), ("transfer-encoding", "gzip")]);
        let line = "POST /a?b=%20 HTTP/1.1\r\nhost: a\r\n";
        assert_eq!(request(&headers, Length::Exact(5)), format!("{line}content-length: 5\r\n\r\n"));
        assert_eq!(request(&headers, Length::Chunked), format!("{line}transfer-encoding: chunked\r\n\r\n"));
        assert_eq!(request(&headers, Length::None), format!("{line}\r\n"));
    }

    #[test]
    fn an_answer_without_a_body_may_say_how_long_it_would_be() {
        let headers = map(&[("content-length", "7"), ("transfer-encoding", "chunked")]);
        let text = response(StatusCode::OK, &headers, Length::None);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n");
        let text = response(StatusCode::NO_CONTENT, &headers, Length::None);
        assert_eq!(text, "HTTP/1.1 204 No Content\r\n\r\n");
        let text = response(StatusCode::EARLY_HINTS, &headers, Length::Chunked);
        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\n\r\n");
    }

    #[test]
    fn a_status_without_a_known_reason_has_an_empty_one() {
        let text = response(StatusCode::from_u16(599).unwrap(), &HeaderMap::new(), Length::Exact(0));
        assert_eq!(text, "HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn fields_keep_their_order_and_their_bytes() {
        let mut headers = map(&[("b", "1"), ("a", " ")]);
        headers.append("b", HeaderValue::from_bytes(b"\xe9").unwrap());
        let mut out = BytesMut::new();
        response_head(&mut out, StatusCode::OK, &headers, Length::UntilClose);
        assert_eq!(&out[..], b"HTTP/1.1 200 OK\r\nb: 1\r\nb: \xe9\r\na:  \r\n\r\n");
    }
}
