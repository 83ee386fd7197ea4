//! How long a body is (RFC 9112 §6), with nothing left to interpretation.

use http::{
    HeaderMap, HeaderName, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::fields::{Malformed, is_alike};

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    None,
    /// After so many bytes.
    Exact(u64),
    /// After the last chunk and the trailers.
    Chunked,
    /// With the connection; answers only.
    UntilClose,
}

/// The length of a request's body (RFC 9112 §6.3).
///
/// # Errors
///
/// `Content-Length` beside `Transfer-Encoding`, more than one of either, a length that is not plainly digits or
/// too large, a coding other than `chunked`, any coding in HTTP/1.0, and fields that some servers take for one of
/// these.
pub fn request_length(version: Version, fields: &HeaderMap) -> Result<Length, Malformed> {
    if fields.keys().any(is_disguised) {
        return Err(Malformed("a field name that may be taken for Content-Length or Transfer-Encoding"));
    }
    announced(version, fields).map(|length| length.unwrap_or(Length::None))
}

/// The length of an answer's body, given the method of its request (RFC 9112 §6.3).
///
/// # Errors
///
/// As for [`request_length`], even where there is no body: what is announced there must not be ambiguous either.
pub fn response_length(
    method: &Method,
    status: StatusCode,
    version: Version,
    fields: &HeaderMap,
) -> Result<Length, Malformed> {
    let announced = announced(version, fields)?;
    if method == Method::HEAD || is_bodiless(status) {
        return Ok(Length::None);
    }
    Ok(announced.unwrap_or(Length::UntilClose))
}

/// Whether answers of this status never have a body (RFC 9110 §6.4.1).
pub fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What the fields say, if they say anything.
fn announced(version: Version, fields: &HeaderMap) -> Result<Option<Length>, Malformed> {
    let coding = only(fields, &TRANSFER_ENCODING, "several Transfer-Encoding fields")?;
    let length = only(fields, &CONTENT_LENGTH, "several Content-Length fields")?;
    match (coding, length) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed("Content-Length beside Transfer-Encoding")),
        (None, Some(length)) => digits(length).map(|length| Some(Length::Exact(length))),
        // §6.1: whoever says 1.0 cannot mean it.
        (Some(_), None) if version < Version::HTTP_11 => Err(Malformed("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Length::Chunked)),
        (Some(_), None) => Err(Malformed("a Transfer-Encoding other than chunked")),
    }
}

/// The value of a field that must not be repeated, not even with the same value: nobody who means well does.
fn only<'a>(
    fields: &'a HeaderMap,
    name: &HeaderName,
    several: &'static str,
) -> Result<Option<&'a [u8]>, Malformed> {
    let mut values = fields.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Malformed(several)),
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
    }
}

/// The value of a Content-Length, `1*DIGIT` (RFC 9110 §8.6): no sign, no list, no white space, no overflow.
///
/// # Errors
///
/// Anything else.
pub fn digits(value: &[u8]) -> Result<u64, Malformed> {
    const MALFORMED: Malformed = Malformed("a malformed Content-Length");
    if value.is_empty() {
        return Err(MALFORMED);
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
        let longer = length.checked_mul(10).zip(digit).and_then(|(length, digit)| length.checked_add(digit));
        longer.ok_or(MALFORMED)
    })
}

/// Whether a field is taken for one of the two, and is none.
fn is_disguised(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING]
        .iter()
        .any(|meant| name != meant && is_alike(name.as_str(), meant.as_str()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn of(fields: &[(&'static str, &'static str)]) -> Result<Length, Malformed> {
        request_length(Version::HTTP_11, &map(fields))
    }

    #[test]
    fn a_request_says_how_long_it_is_or_has_no_body() {
        assert_eq!(of(&[]), Ok(Length::None));
        assert_eq!(of(&[("content-length", "0")]), Ok(Length::Exact(0)));
        assert_eq!(of(&[("content-length", "007")]), Ok(Length::Exact(7)));
        assert_eq!(of(&[("content-length", "18446744073709551615")]), Ok(Length::Exact(u64::MAX)));
        assert_eq!(of(&[("transfer-encoding", "Chunked")]), Ok(Length::Chunked));
    }

    #[test]
    fn lengths_that_are_not_plainly_digits_are_refused() {
        for value in [
            "",
            "+4",
            "-4",
            "4, 4",
            "4,5",
            "4 4",
            "0x4",
            "4x",
            "4.0",
            "\"4\"",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            assert_eq!(
                of(&[("content-length", value)]),
                Err(Malformed("a malformed Content-Length")),
                "{value:?}"
            );
        }
        let zeros = of(&[("content-length", "0000000000000000000000000000000000000004")]);
        assert_eq!(zeros, Ok(Length::Exact(4)));
    }

    #[test]
    fn lengths_are_refused_when_repeated_even_if_equal() {
        assert!(of(&[("content-length", "4"), ("content-length", "4")]).is_err());
        assert!(of(&[("content-length", "4"), ("content-length", "5")]).is_err());
    }

    #[test]
    fn codings_other_than_one_chunked_are_refused() {
        for value in [
            "",
            "chunked,",
            ",chunked",
            "chunked, chunked",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, identity",
            "identity",
            "xchunked",
            "chunkedx",
            "\"chunked\"",
            "chunked;q=1",
            "chun ked",
        ] {
            let refused = Err(Malformed("a Transfer-Encoding other than chunked"));
            assert_eq!(of(&[("transfer-encoding", value)]), refused, "{value:?}");
        }
        assert!(of(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]).is_err());
        assert!(of(&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")]).is_err());
    }

    #[test]
    fn length_and_coding_exclude_each_other() {
        assert!(of(&[("content-length", "4"), ("transfer-encoding", "chunked")]).is_err());
        assert!(of(&[("transfer-encoding", "identity"), ("content-length", "0")]).is_err());
    }

    #[test]
    fn there_are_no_codings_in_http_1_0() {
        let chunked = map(&[("transfer-encoding", "chunked")]);
        assert!(request_length(Version::HTTP_10, &chunked).is_err());
        let answer = response_length(&Method::GET, StatusCode::OK, Version::HTTP_10, &chunked);
        assert!(answer.is_err());
    }

    #[test]
    fn what_only_cgi_takes_for_a_length_is_refused() {
        assert!(of(&[("content_length", "4")]).is_err());
        assert!(of(&[("transfer_encoding", "chunked")]).is_err());
        assert_eq!(of(&[("content_type", "4")]), Ok(Length::None));
    }

    #[test]
    fn an_answer_has_no_body_where_there_cannot_be_one() {
        let five = map(&[("content-length", "5")]);
        let of = |method: Method, status| response_length(&method, status, Version::HTTP_11, &five);
        assert_eq!(of(Method::HEAD, StatusCode::OK), Ok(Length::None));
        assert_eq!(of(Method::GET, StatusCode::NOT_MODIFIED), Ok(Length::None));
        assert_eq!(of(Method::GET, StatusCode::NO_CONTENT), Ok(Length::None));
        assert_eq!(of(Method::GET, StatusCode::EARLY_HINTS), Ok(Length::None));
        assert_eq!(of(Method::GET, StatusCode::OK), Ok(Length::Exact(5)));
        let ambiguous = map(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
        let none = response_length(&Method::HEAD, StatusCode::OK, Version::HTTP_11, &ambiguous);
        assert!(none.is_err(), "{none:?}");
    }

    #[test]
    fn an_answer_that_announces_nothing_ends_with_the_connection() {
        let none = response_length(&Method::GET, StatusCode::OK, Version::HTTP_11, &HeaderMap::new());
        assert_eq!(none, Ok(Length::UntilClose));
    }
}
