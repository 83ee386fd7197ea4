//! What HTTP/2 forbids in a request and is answered, so that whoever sent it reads why (RFC 9113 §8.2, §8.3).
//!
//! Streams with missing, repeated, unknown or late pseudo-header fields, an empty `:path`, fields of one connection, names
//! that are not lower-case, values with CR, LF or NUL, and a Content-Length that is malformed or not that of the DATA have
//! been reset by then ([`crate::http2::head`]). What names the target is checked for both protocols, in [`super::target`].

use http::{Version, request::Parts};

use crate::{
    error::Fault,
    http1::{fields::Malformed, framing::request_length},
};

/// Refuses what a backend could read in another way once it is written as HTTP/1.1.
pub(super) fn check(parts: &Parts) -> Result<(), Fault> {
    if parts.version != Version::HTTP_2 {
        return Ok(());
    }
    for value in parts.headers.values() {
        // RFC 9113 §8.2.1: HTTP/1.1 would lose it on the way.
        if value.as_bytes().first().is_some_and(is_space) || value.as_bytes().last().is_some_and(is_space) {
            return Err(Fault::BadRequest("a field value begins or ends with whitespace"));
        }
    }
    // Repeated lengths, of which only the first one has been looked at, and names that CGI takes for lengths.
    request_length(parts.version, &parts.headers).map_err(|Malformed(rule)| Fault::BadRequest(rule))?;
    // `:scheme` says how the client got here (RFC 9113 §8.3.1), which is by TLS or through a gateway.
    match parts.uri.scheme_str() {
        None | Some("https" | "http") => Ok(()),
        Some(_) => Err(Fault::BadRequest("the scheme is not one of HTTP")),
    }
}

const fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn verdict(uri: &str, version: Version, fields: &[(&str, &str)]) -> Result<(), Fault> {
        let request = Request::builder().uri(uri).version(version);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn whitespace_around_a_value_is_refused() {
        for value in [" x", "x ", "\tx", "x\t", " "] {
            assert!(verdict("https://a/", Version::HTTP_2, &[("x-a", value)]).is_err(), "{value:?}");
        }
        for value in ["", "x", "x y", "x\ty"] {
            assert!(verdict("https://a/", Version::HTTP_2, &[("x-a", value)]).is_ok(), "{value:?}");
        }
    }

    #[test]
    fn a_length_is_there_once() {
        let length = ("content-length", "5");
        assert!(verdict("https://a/", Version::HTTP_2, &[length]).is_ok());
        assert!(verdict("https://a/", Version::HTTP_2, &[length, length]).is_err());
    }

    #[test]
    fn what_cgi_takes_for_a_length_is_refused() {
        assert!(verdict("https://a/", Version::HTTP_2, &[("content_length", "5")]).is_err());
        assert!(verdict("https://a/", Version::HTTP_2, &[("transfer_encoding", "chunked")]).is_err());
    }

    #[test]
    fn the_scheme_is_one_of_http() {
        assert!(verdict("https://a/", Version::HTTP_2, &[]).is_ok());
        assert!(verdict("http://a/", Version::HTTP_2, &[]).is_ok());
        assert!(verdict("ftp://a/", Version::HTTP_2, &[]).is_err());
    }

    #[test]
    fn http_1_1_has_rules_of_its_own() {
        assert!(verdict("/", Version::HTTP_11, &[("x-a", " x")]).is_ok());
    }
}
