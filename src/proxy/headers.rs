//! What a proxy must take out of a message, and what it adds.

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, COOKIE, DATE, EXPECT, Entry, FORWARDED, HOST, LOCATION, SET_COOKIE,
        STRICT_TRANSPORT_SECURITY, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

use super::forwarded::{Sender, X_FORWARDED_FOR};
use crate::http1::{fields::is_alike, write::line};

/// Names the http crate has no constant for.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Made or kept for every request.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Longest request id kept from a client.
const MAX_REQUEST_ID: usize = 128;

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
    // Most messages have one of them or none, and looking at each name costs less than asking for each of those.
    let mut there = HOP_BY_HOP.map(|_| false);
    for name in headers.keys() {
        if let Some(index) = HOP_BY_HOP.iter().position(|of_hop| of_hop == name) {
            there[index] = true;
        }
    }
    if there[0] {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    for (name, _) in HOP_BY_HOP.into_iter().zip(there).filter(|(_, there)| *there) {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
    }
}

/// What `Connection` names and may name.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    // Most of the time it says an option, and names nothing.
    let is_option = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    if headers.get_all(CONNECTION).iter().all(is_option) {
        return Vec::new();
    }
    let names = tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok());
    names.filter(|name| !is_for_all(name)).collect()
}

/// Fields that concern one hop only, `Connection` first.
const HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
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

/// What a request becomes on its way to a backend.
#[derive(Debug)]
pub(super) struct Onward<'a> {
    /// The version it was received in.
    pub(super) version: Version,
    /// Whether it asks for a WebSocket; what does so is kept then.
    pub(super) upgrade: bool,
    pub(super) host: &'a HeaderValue,
    pub(super) request_id: &'a HeaderValue,
    pub(super) sender: Sender<'a>,
    /// Whether it says that it has passed this proxy.
    pub(super) via: bool,
}

// === impl Onward ===

impl Onward<'_> {
    /// Writes the fields of a request as a backend gets them, but for those that frame its body. Those of the client
    /// pass as they are, once each; only what the proxy changes is looked at.
    pub(super) fn write(&self, out: &mut BytesMut, headers: &HeaderMap) {
        let named = match headers.contains_key(CONNECTION) {
            true => named_by_connection(headers),
            false => Vec::new(),
        };
        line(out, &HOST, self.host.as_bytes());
        let mut told = Told::default();
        for (name, value) in headers {
            if is_hop_by_hop(name) || told.is_ours(name) {
                continue;
            }
            let may_forward = self.sender.trusted && !name.as_str().contains('_');
            if !may_forward && is_forwarding(name.as_str()) || named.contains(name) {
                // What a stranger says about earlier hops, in any of the fields that applications are known to
                // believe. Spelled with `_`, it is a stranger's even if a trusted proxy passes it on: no proxy writes it
                // so, and to CGI and WSGI it is the same field.
                continue;
            }
            if *name == COOKIE && self.version == Version::HTTP_2 {
                told.cookie = true;
                continue;
            }
            line(out, name, value.as_bytes());
        }
        if told.cookie {
            // RFC 9113 §8.2.3: crumbs of a cookie are one field before they meet HTTP/1.1.
            list(out, &COOKIE, headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes), b"; ");
        }
        if told.te && tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers")) {
            // The one coding that may pass on, as an agreement of the next hop (RFC 9110 §10.1.4).
            out.extend_from_slice(b"te: trailers\r\n");
            if !self.upgrade {
                out.extend_from_slice(b"connection: te\r\n");
            }
        }
        if self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        }
        line(out, &X_REQUEST_ID, self.request_id.as_bytes());
        self.sender.tell(out, headers, self.host);
        let ours = self.via.then(|| via_of(self.version));
        if told.via || ours.is_some() {
            let before = headers.get_all(VIA).into_iter().chain(&ours);
            list(out, &VIA, before.map(HeaderValue::as_bytes), b", ");
        }
    }
}

/// Fields that the client sent and the proxy writes.
#[derive(Debug, Default)]
struct Told {
    te: bool,
    via: bool,
    cookie: bool,
}

// === impl Told ===

impl Told {
    /// Whether the proxy writes the field of this name, or leaves it out.
    fn is_ours(&mut self, name: &HeaderName) -> bool {
        match name {
            // `Expect` is answered here: the body is asked for when a backend is ready for it.
            _ if [HOST, CONTENT_LENGTH, EXPECT, X_REQUEST_ID].contains(name) => {}
            _ if *name == TE => self.te = true,
            _ if *name == VIA => self.via = true,
            _ if [FORWARDED, X_FORWARDED_FOR].contains(name) => {}
            _ => return false,
        }
        true
    }
}

/// Writes a field of several elements in one line.
fn list<'a>(
    out: &mut BytesMut,
    name: &HeaderName,
    elements: impl Iterator<Item = &'a [u8]>,
    separator: &[u8],
) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(element);
    }
    out.extend_from_slice(b"\r\n");
}

/// Makes an answer ready for a client.
pub(super) fn prepare_response(headers: &mut HeaderMap, upgraded: bool, hsts: Option<&HeaderValue>) {
    strip_hop_by_hop(headers, upgraded);
    via(headers);
    if let Some(hsts) = hsts {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
}

/// The request's id: the client's when it is well-formed, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
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
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are a field value")
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

/// Adds this proxy to those that an answer has passed.
fn via(headers: &mut HeaderMap) {
    let via = via_of(Version::HTTP_11);
    match headers.entry(VIA) {
        Entry::Vacant(entry) => drop(entry.insert(via)),
        Entry::Occupied(mut entry) => {
            let mut joined = Vec::with_capacity(64);
            for value in entry.iter() {
                joined.extend_from_slice(value.as_bytes());
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(via.as_bytes());
            if let Ok(value) = HeaderValue::from_bytes(&joined) {
                entry.insert(value);
            }
        }
    }
}

/// RFC 9110 §7.6.3: which protocol the message was received in, and by whom.
const fn via_of(received: Version) -> HeaderValue {
    match received {
        Version::HTTP_10 => const { HeaderValue::from_static("1.0 homing") },
        Version::HTTP_2 => const { HeaderValue::from_static("2.0 homing") },
        _ => const { HeaderValue::from_static("1.1 homing") },
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
    use crate::proxy::forwarded::Origin;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// What a backend is told.
    fn prepare(headers: &mut HeaderMap, version: Version, trusted: bool) {
        let peer = HeaderValue::from_static("192.0.2.7");
        let address = "192.0.2.7".parse().unwrap();
        let origin = Origin::of(headers, address, |hop| trusted && hop == address);
        let sender = Sender { peer: &peer, node: "192.0.2.7", trusted, origin };
        let host = HeaderValue::from_static("shop.example");
        let request_id = &HeaderValue::from_static("id");
        let upgrade = wants_websocket(version, headers);
        let mut out = BytesMut::new();
        Onward { version, upgrade, host: &host, request_id, sender, via: true }.write(&mut out, headers);
        let lines = std::str::from_utf8(&out).unwrap().strip_suffix("\r\n").unwrap();
        headers.clear();
        for (name, value) in lines.split("\r\n").map(|line| line.split_once(": ").unwrap()) {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
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
    fn what_a_trusted_peer_passes_on_spelled_with_underscores_is_not_believed() {
        let fields =
            [("x-forwarded-for", "203.0.113.9"), ("x_forwarded_for", "6.6.6.6"), ("x_real-ip", "6.6.6.6")];
        let mut headers = map(&fields);
        prepare(&mut headers, Version::HTTP_11, true);
        assert!(!headers.keys().any(|name| name.as_str().contains('_')), "{headers:?}");
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.7");
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined_for_http_1() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "session=x"), ("cookie", "b=2")]);
        prepare(&mut headers, Version::HTTP_2, false);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; session=x; b=2"]);
    }

    #[test]
    fn a_request_id_is_kept_when_well_formed_and_made_otherwise() {
        assert_eq!(request_id(&map(&[("x-request-id", "abc-123")])), "abc-123");
        let mut headers = map(&[("x-request-id", "a b\"c")]);
        assert_eq!(request_id(&headers).len(), 32);
        prepare(&mut headers, Version::HTTP_11, false);
        assert_eq!(headers.get_all(X_REQUEST_ID).iter().collect::<Vec<_>>(), ["id"]);
    }
}
