//! Clients that speak plain HTTP to the port of HTTPS: they are told so, where a handshake that fails would only close.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{answer_body::AnswerBody, metrics::Metrics, respond, target};
use crate::world::World;

/// What a connection to the port of HTTPS begins with.
pub(super) enum Beginning {
    /// Something that TLS has to judge; not a byte has been taken.
    Tls,
    /// A request of plain HTTP, of which these bytes have been read.
    Http(BytesMut),
    /// Neither, or nothing in time; it has been counted.
    Nothing,
}

/// Looks what a connection begins with, and counts it if it is not TLS.
pub(super) async fn beginning(stream: &mut TcpStream, deadline: Instant, metrics: &Metrics) -> Beginning {
    let mut first = [0];
    match timeout_at(deadline, stream.peek(&mut first)).await {
        // A method begins with a letter; a record of TLS has 22 there (RFC 8446 §5.1).
        Ok(Ok(1)) if first[0].is_ascii_uppercase() => {}
        _ => return Beginning::Tls,
    }
    let mut bytes = BytesMut::new();
    while bytes.len() < LONGEST {
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => {
                metrics.tls_closed.inc();
                return Beginning::Nothing;
            }
            Err(_) => {
                metrics.tls_timeout.inc();
                return Beginning::Nothing;
            }
        }
        match is_request(&bytes) {
            Some(true) => {
                metrics.tls_failed.inc();
                return Beginning::Http(bytes);
            }
            Some(false) => break,
            None => {}
        }
    }
    metrics.tls_failed.inc();
    // A client that is gone already misses nothing.
    let _ = stream.write_all(&DECODE_ERROR).await;
    Beginning::Nothing
}

/// Whether these bytes begin a request; none while that is not clear.
fn is_request(bytes: &[u8]) -> Option<bool> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_uppercase() && *byte != b'-')?;
    match bytes[end..] {
        [b' '] => None,
        [b' ', first, ..] => Some(b"/*hH".contains(&first) || &bytes[..end] == b"CONNECT"),
        _ => Some(false),
    }
}

/// The answer to a request.
pub(super) fn answer<B>(world: &World, request: Request<B>) -> Response<AnswerBody> {
    let (parts, _) = request.into_parts();
    let host = target::check(&parts, &world.snapshot.load().config.limits).ok().flatten();
    tell(host.as_ref().and_then(|host| host.to_str().ok()))
}

/// What every client is told, maybe with the host that it has asked for. What else is wrong with its request does
/// not matter.
pub(super) fn tell(host: Option<&str>) -> Response<AnswerBody> {
    let there = host.map(|host| format!("://{host}/")).unwrap_or_default();
    let text =
        format!("400 Bad Request: plain HTTP was sent to the port of HTTPS; use https{there} instead\n");
    let mut response = respond::plain(StatusCode::BAD_REQUEST, Bytes::from(text));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Bytes after which it is clear what a connection begins with.
const LONGEST: usize = 64;
/// What TLS says to what is no record: a fatal alert (RFC 8446 §6.2).
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_from_what_else_begins_with_a_letter() {
        for request in
            ["GET /", "POST / HTTP/1.1", "OPTIONS *", "M-SEARCH *", "GET http://a/", "CONNECT a:443"]
        {
            assert_eq!(is_request(request.as_bytes()), Some(true), "{request}");
        }
        for other in ["SSH-2.0-x", "HELO a", "A\r\n", "GET\t/", "GET  /", "USER x"] {
            assert_eq!(is_request(other.as_bytes()), Some(false), "{other}");
        }
        for part in ["G", "GET", "GET "] {
            assert_eq!(is_request(part.as_bytes()), None, "{part}");
        }
    }
}
