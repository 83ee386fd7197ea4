//! What a request is for: one host and one path, agreed on by everything that names them.

use crate::{
    config::Limits,
    error::Fault,
    host::{self, without_port},
};
use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts};

/// Checks a request head; gives the host (and port) it is for as the client wrote it, none only for an
/// HTTP/1.0 client that names none.
///
/// Anything that a backend could read differently is refused: no or several Host fields, a Host that
/// differs from the target's authority (RFC 9112 §3.2, RFC 9113 §8.3.1), userinfo, odd characters.
pub(super) fn check(parts: &Parts, limits: &Limits) -> Result<Option<HeaderValue>, Fault> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Fault::MethodRefused);
    }
    if parts.version == Version::HTTP_2 {
        // The engine of HTTP/1.1 has counted bytes and looked at all of this.
        within(parts, limits)?;
        if parts.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
            return Err(Fault::BadRequest("the request target is not a path"));
        }
    }
    let path = parts.uri.path();
    let asterisk = path == "*" && parts.method == Method::OPTIONS;
    if !asterisk && !path.starts_with('/') {
        return Err(Fault::BadRequest("the request target is not a path"));
    }
    let field = host_field(&parts.headers)?;
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let default = if parts.uri.scheme_str() == Some("http") { 80 } else { 443 };
    let host = match (authority, field) {
        (Some(authority), Some(field))
            if !field.to_str().is_ok_and(|field| host::is_same(authority, field, default)) =>
        {
            return Err(Fault::BadRequest("the Host field and the request target name different hosts"));
        }
        (None, None) if parts.version < Version::HTTP_11 => return Ok(None),
        (None, None) => return Err(NO_HOST),
        // RFC 9112 §3.2 asks for the field even then.
        (Some(_), None) if parts.version == Version::HTTP_11 => return Err(NO_HOST),
        (Some(authority), _) => HeaderValue::from_str(authority).map_err(|_| MALFORMED)?,
        // Shares the bytes that were received.
        (None, Some(field)) => field.clone(),
    };
    match host.to_str() {
        Ok(text) if is_host(text) => Ok(Some(host)),
        _ => Err(MALFORMED),
    }
}

/// Whether `Expect` asks for nothing but `100-continue` (RFC 9110 §10.1.1).
pub(super) fn expectation(headers: &HeaderMap) -> Result<(), Fault> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match headers.get_all(header::EXPECT).iter().all(known) {
        true => Ok(()),
        false => Err(Fault::ExpectationFailed),
    }
}

const NO_HOST: Fault = Fault::BadRequest("the request names no host");
const MALFORMED: Fault = Fault::BadRequest("the host is malformed");

fn host_field(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Fault> {
    let mut fields = headers.get_all(header::HOST).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Fault::BadRequest("the request has several Host fields"));
    }
    Ok(Some(field))
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2) without userinfo.
fn is_host(host: &str) -> bool {
    let name = without_port(host);
    let port_ok = match host.len() - name.len() {
        0 => true,
        _ => host[name.len() + 1..].bytes().all(|byte| byte.is_ascii_digit()),
    };
    let name_ok = match name.strip_prefix('[') {
        Some(_) => host::literal(name).is_some(),
        None => {
            !name.is_empty()
                && name.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
                })
        }
    };
    port_ok && name_ok
}

fn within(parts: &Parts, limits: &Limits) -> Result<(), Fault> {
    if parts.headers.len() > limits.headers || head_size(parts) > limits.head_size {
        return Err(Fault::HeadTooLarge);
    }
    match parts.uri.path_and_query() {
        Some(target) if target.as_str().len() > limits.uri_size => Err(Fault::TargetTooLong),
        _ => Ok(()),
    }
}

/// Bytes of the head as HTTP/1.1 would write it.
fn head_size(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    parts.method.as_str().len() + target + fields + 12
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use http::Request;

    use super::*;

    fn limits() -> Limits {
        Limits {
            head_size: 1024,
            headers: 16,
            body_size: None,
            connections: NonZeroUsize::new(1).unwrap(),
            streams: NonZeroU32::new(1).unwrap(),
            uri_size: 1024,
        }
    }

    fn head(method: &str, uri: &str, version: Version, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn verdict(uri: &str, version: Version, hosts: &[&str]) -> Result<String, Fault> {
        check(&head("GET", uri, version, hosts), &limits())
            .map(|host| host.map_or_else(String::new, |host| host.to_str().unwrap().to_owned()))
    }

    #[test]
    fn one_host_field_is_the_host() {
        assert_eq!(verdict("/", Version::HTTP_11, &["shop.example:8443"]).unwrap(), "shop.example:8443");
        assert_eq!(verdict("/", Version::HTTP_11, &["[::1]:8443"]).unwrap(), "[::1]:8443");
    }

    #[test]
    fn no_host_is_refused_from_http_1_1_on() {
        assert!(verdict("/", Version::HTTP_11, &[]).is_err());
        assert_eq!(verdict("/", Version::HTTP_10, &[]).unwrap(), "");
    }

    #[test]
    fn an_absolute_target_does_not_stand_for_the_host_field() {
        assert!(verdict("http://a.example/", Version::HTTP_11, &[]).is_err());
        assert_eq!(verdict("http://a.example/", Version::HTTP_10, &[]).unwrap(), "a.example");
    }

    #[test]
    fn a_query_alone_is_no_path() {
        assert!(verdict("https://a/?q", Version::HTTP_2, &[]).is_ok());
        assert!(verdict("https://a?q", Version::HTTP_2, &[]).is_err());
    }

    #[test]
    fn limits_hold_where_the_engine_has_not_counted() {
        let long = |length: usize| format!("https://a/{}", "x".repeat(length - 1));
        let wide = Limits { head_size: 1 << 20, ..limits() };
        let check_ = |uri: &str, limits: &Limits| check(&head("GET", uri, Version::HTTP_2, &[]), limits);
        assert!(check_(&long(1024), &wide).is_ok());
        assert_eq!(check_(&long(1025), &wide).unwrap_err(), Fault::TargetTooLong);
        assert_eq!(check_(&long(1025), &limits()).unwrap_err(), Fault::HeadTooLarge);
    }

    #[test]
    fn any_expectation_but_100_continue_fails() {
        let expecting = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::EXPECT, HeaderValue::from_static(value)));
            expectation(&values.fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            }))
        };
        assert!(expecting(&[]).is_ok() && expecting(&["100-Continue"]).is_ok());
        assert!(expecting(&["200-ok"]).is_err() && expecting(&["100-continue", "200-ok"]).is_err());
    }

    #[test]
    fn several_hosts_are_refused_even_when_equal() {
        assert!(verdict("/", Version::HTTP_11, &["a", "a"]).is_err());
        assert!(verdict("https://5/", Version::HTTP_2, &["5"]).is_ok());
        assert!(verdict("https://5/", Version::HTTP_2, &["5", "5"]).is_err());
    }

    #[test]
    fn host_and_authority_must_agree_but_for_case() {
        assert!(verdict("http://a.example/", Version::HTTP_11, &["b.example"]).is_err());
        assert!(verdict("https://a.example/", Version::HTTP_2, &["A.EXAMPLE"]).is_ok());
        assert_eq!(verdict("https://a.example/", Version::HTTP_2, &[]).unwrap(), "a.example");
    }

    #[test]
    fn odd_hosts_are_refused() {
        for host in ["", "user@a", "a b", "a/b", "a:80x", "[::1", "[x]", "a,b", ":80", "a?b", "a#b"] {
            assert!(verdict("/", Version::HTTP_11, &[host]).is_err(), "{host:?}");
        }
    }

    #[test]
    fn tunnels_and_echoes_are_refused() {
        for method in ["CONNECT", "TRACE"] {
            let parts = head(method, "/", Version::HTTP_11, &["a"]);
            assert_eq!(check(&parts, &limits()).unwrap_err(), Fault::MethodRefused);
        }
    }

    #[test]
    fn a_star_is_for_options_only() {
        assert!(check(&head("OPTIONS", "*", Version::HTTP_11, &["a"]), &limits()).is_ok());
        assert!(check(&head("GET", "*", Version::HTTP_11, &["a"]), &limits()).is_err());
    }
}
