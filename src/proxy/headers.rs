//! What a proxy must take out of a message, and what it adds.

use std::net::IpAddr;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, COOKIE, DATE, EXPECT, FORWARDED, HOST, LOCATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
        TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

use crate::http1::fields::is_alike;

/// Names the http crate has no constant for.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Made or kept for every request.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Longest request id kept from a client.
const MAX_REQUEST_ID: usize = 128;
/// Addresses looked at in a chain of forwarding proxies.
const MAX_HOPS: usize = 32;

/// Whether a request asks to become a WebSocket (RFC 6455 §4.1): an `Upgrade` to it that `Connection`
/// names. Other protocols are not passed on: `h2c` would be a tunnel past every rule of this proxy.
pub(super) fn wants_websocket(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11 && names_websocket(headers)
}

/// Whether these fields upgrade to a WebSocket.
pub(super) fn names_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Takes out what concerns one hop only (RFC 9110 §7.6.1): `Connection`, what it names, and the fields
/// known to be of that kind. What an upgrade needs is put back.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| token.parse().ok())
            .filter(|name| !is_for_all(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS] {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
    }
}

/// Whether a field is meant for every recipient, so that `Connection` must not name it (RFC 9110 §7.6.1): with it
/// a client could take away what others on the way have said of it, or what frames, routes or authenticates the
/// message.
fn is_for_all(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 14] = [
        HOST,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        COOKIE,
        SET_COOKIE,
        AUTHORIZATION,
        CACHE_CONTROL,
        DATE,
        LOCATION,
        FORWARDED,
        VIA,
        X_REQUEST_ID,
    ];
    NAMES.contains(name) || is_forwarding(name.as_str())
}

/// What is known about the sender of a request.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    /// The peer's address as a field value.
    pub(super) peer: &'a HeaderValue,
    /// The peer's address as a node of `Forwarded` (RFC 7239 §6).
    pub(super) node: &'a str,
    /// Whether what the peer says about earlier hops is believed.
    pub(super) trusted: bool,
}

/// Makes a request ready for a backend. `upgrade` keeps what asks for a WebSocket.
pub(super) fn prepare_request(
    headers: &mut HeaderMap,
    version: Version,
    upgrade: bool,
    host: &HeaderValue,
    request_id: &HeaderValue,
    sender: &Sender<'_>,
) {
    let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(headers, upgrade);
    headers.remove(TE);
    if trailers {
        // The one coding that may pass on, as an agreement of the next hop (RFC 9110 §10.1.4).
        headers.insert(TE, TRAILERS);
        if !upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    // `Connection` cannot name away what is ours to say.
    headers.insert(X_REQUEST_ID, request_id.clone());
    // Answered here: the body is asked for when a backend is ready for it.
    headers.remove(EXPECT);
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    headers.insert(HOST, host.clone());
    forwarded(headers, host, sender);
    via(headers, version);
}

/// Makes an answer ready for a client.
pub(super) fn prepare_response(headers: &mut HeaderMap, upgraded: bool, hsts: Option<&HeaderValue>) {
    strip_hop_by_hop(headers, upgraded);
    via(headers, Version::HTTP_11);
    if let Some(hsts) = hsts {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
}

/// The request's id: the client's when it is well-formed, else a new one.
pub(super) fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get(X_REQUEST_ID)
        && (1..=MAX_REQUEST_ID).contains(&id.len())
        && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte))
    {
        return id.clone();
    }
    let mut text = [0; 32];
    let mut random = fastrand::u128(..);
    for digit in &mut text {
        *digit = b"0123456789abcdef"[(random & 15) as usize];
        random >>= 4;
    }
    let id = HeaderValue::from_bytes(&text).expect("hexadecimal digits are a field value");
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

/// The client's address: the peer's, or behind trusted proxies the last one that none of them vouches for.
pub(super) fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    if !trusted(peer) {
        return client;
    }
    let hops = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let hops = hops.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    for hop in hops.take(MAX_HOPS) {
        let Ok(address) = hop.trim().trim_matches(['[', ']']).parse() else { break };
        client = address;
        if !trusted(address) {
            break;
        }
    }
    client
}

/// RFC 9113 §8.2.3: crumbs of a cookie are one field before they meet HTTP/1.1.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let mut joined = Vec::with_capacity(256);
    for crumb in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// `X-Forwarded-*` and `Forwarded` (RFC 7239), inbound ones kept only from a trusted peer.
fn forwarded(headers: &mut HeaderMap, host: &HeaderValue, sender: &Sender<'_>) {
    let element = element(sender.node, host);
    if sender.trusted {
        append_list(headers, X_FORWARDED_FOR, sender.peer);
        headers.entry(X_FORWARDED_PROTO).or_insert(HTTPS);
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
        append_list(headers, FORWARDED, &element);
        return;
    }
    // What a stranger says about earlier hops, in any of the fields that applications are known to believe.
    remove_all(headers, |name| is_forwarding(name.as_str()));
    headers.insert(X_FORWARDED_FOR, sender.peer.clone());
    headers.insert(X_FORWARDED_PROTO, HTTPS);
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(FORWARDED, element);
}

/// Takes out every field of such a name; costs a look at each where there is none.
pub(super) fn remove_all(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&which) {
        let names: Vec<_> = headers.keys().filter(|name| which(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Whether applications believe a field of this name to come from a proxy, however it is spelled.
pub(super) fn is_forwarding(name: &str) -> bool {
    const FAMILY: &str = "x-forwarded-";
    name.get(..FAMILY.len()).is_some_and(|begin| is_alike(begin, FAMILY)) || is_alike(name, "x-real-ip")
}

/// One element of `Forwarded`. Node and host have been checked to hold no quote and no control.
fn element(node: &str, host: &HeaderValue) -> HeaderValue {
    let mut text = Vec::with_capacity(80);
    text.extend_from_slice(b"for=");
    text.extend_from_slice(node.as_bytes());
    text.extend_from_slice(b";host=\"");
    text.extend_from_slice(host.as_bytes());
    text.push(b'"');
    text.extend_from_slice(b";proto=https");
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("made of checked field values")
}

/// RFC 9110 §7.6.3: which protocol the message was received in, and by whom.
fn via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => const { HeaderValue::from_static("1.0 homing") },
        Version::HTTP_2 => const { HeaderValue::from_static("2.0 homing") },
        _ => const { HeaderValue::from_static("1.1 homing") },
    };
    append_list(headers, VIA, &via);
}

/// Adds an element to a comma-separated field, in one line.
fn append_list(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, element.clone());
        return;
    }
    let mut joined = Vec::with_capacity(64);
    for value in headers.get_all(&name) {
        joined.extend_from_slice(value.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, value);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn prepare(headers: &mut HeaderMap, version: Version, trusted: bool) {
        let peer = HeaderValue::from_static("192.0.2.7");
        let sender = Sender { peer: &peer, node: "192.0.2.7", trusted };
        let host = HeaderValue::from_static("shop.example");
        let id = HeaderValue::from_static("id");
        let upgrade = wants_websocket(version, headers);
        prepare_request(headers, version, upgrade, &host, &id, &sender);
    }

    #[test]
    fn what_connection_names_is_taken_out() {
        let mut headers = map(&[("connection", "close, X-Secret"), ("x-secret", "1"), ("keep-alive", "5")]);
        strip_hop_by_hop(&mut headers, false);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn connection_cannot_name_away_what_is_meant_for_all() {
        let fields = [
            ("connection", "close, Host, Cookie, x-forwarded-for, X_Forwarded-Host, Content-Length, x-odd"),
            ("host", "a"),
            ("cookie", "session=1"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x_forwarded-host", "b"),
            ("content-length", "3"),
            ("x-odd", "1"),
        ];
        let mut headers = map(&fields);
        strip_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&fields[1..6]));
    }

    #[test]
    fn a_trusted_peer_keeps_what_it_said_whatever_its_client_names_in_connection() {
        let mut headers = map(&[("connection", "X-Forwarded-For"), ("x-forwarded-for", "203.0.113.9")]);
        prepare(&mut headers, Version::HTTP_11, true);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.7");
    }

    #[test]
    fn h2c_is_not_passed_on_and_websocket_is() {
        let mut headers =
            map(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")]);
        prepare(&mut headers, Version::HTTP_11, false);
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("connection"));
        assert!(!headers.contains_key("http2-settings"));

        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        prepare(&mut headers, Version::HTTP_11, false);
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(headers["connection"], "upgrade");
    }

    #[test]
    fn te_passes_trailers_and_nothing_else() {
        let mut headers = map(&[("te", "gzip, trailers;q=0.5")]);
        prepare(&mut headers, Version::HTTP_11, false);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["connection"], "te");
    }

    #[test]
    fn an_untrusted_peer_cannot_say_who_it_forwards_for() {
        let mut headers = map(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_real-ip", "10.0.0.1"),
        ]);
        prepare(&mut headers, Version::HTTP_11, false);
        assert!(!headers.keys().any(|name| name.as_str().contains('_')), "{headers:?}");
        assert!(!headers.contains_key("x-forwarded-prefix") && !headers.contains_key("x-real-ip"));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["forwarded"], "for=192.0.2.7;host=\"shop.example\";proto=https");
    }

    #[test]
    fn a_trusted_peer_is_appended() {
        let mut headers = map(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "http")]);
        prepare(&mut headers, Version::HTTP_11, true);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined_for_http_1() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "session=x"), ("cookie", "b=2")]);
        prepare(&mut headers, Version::HTTP_2, false);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; session=x; b=2"]);
    }

    #[test]
    fn the_client_is_the_last_hop_that_nobody_trusted_vouches_for() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let headers = map(&[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")]);
        let client = |peer: &str| client_address(&headers, peer.parse().unwrap(), trusted).to_string();
        assert_eq!(client("10.0.0.1"), "203.0.113.9");
        assert_eq!(client("198.51.100.1"), "198.51.100.1");
    }

    #[test]
    fn a_request_id_is_kept_when_well_formed_and_made_otherwise() {
        let mut headers = map(&[("x-request-id", "abc-123")]);
        assert_eq!(request_id(&mut headers), "abc-123");
        let mut headers = map(&[("x-request-id", "a b\"c")]);
        let id = request_id(&mut headers);
        assert_eq!(id.len(), 32);
        assert_eq!(headers[X_REQUEST_ID], id);
    }
}
