//! Field lines, and fields that concern one hop only.

use crate::case::{Case, Expect::*, case};

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    // Values pass as they are.
    case("white space around a value", "9112 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX:\t  y \t\r\n\r\n", Arrives("GET /t", &["x: y"], "")),
    case("an empty value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", Arrives("GET /t", &["x: "], "")),
    case("a tab in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\tz\r\n\r\n", Arrives("GET /t", &["x: y\tz"], "")),
    case("bytes above ASCII in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n", Arrives("GET /t", &["x: \u{e9}"], "")),
    case("colons in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y: z\r\n\r\n", Arrives("GET /t", &["x: y: z"], "")),
    case("every sign of a token in a name", "9110 §5.6.2", b"GET /t HTTP/1.1\r\nHost: a\r\n#$%&'*+-.^_`|~!0Az: y\r\n\r\n", Arrives("GET /t", &["#$%&'*+-.^_`|~!0az: y"], "")),
    // Line ends.
    case("bare LFs only", "9112 §2.2", b"GET /t HTTP/1.1\nHost: a\n\n", Refused(400)),
    case("a bare LF after the request line", "9112 §2.2", b"GET /t HTTP/1.1\nHost: a\r\n\r\n", Refused(400)),
    case("a bare LF after a field", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Refused(400)),
    case("a bare LF after the last field", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
    case("a bare LF as the empty line", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    case("a bare CR in a value", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", Refused(400)),
    case("a bare CR before a line end", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", Refused(400)),
    case("a bare CR as a line end", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", Refused(400)),
    case("a bare CR in the empty line", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", Refused(400)),
    case("CR before a name", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", Refused(400)),
    case("a request within a value, after LFs", "9112 §2.2", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\n\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    // Controls.
    case("NUL in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", Refused(400)),
    case("NUL at the end of a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n", Refused(400)),
    case("a control in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\x01z\r\n\r\n", Refused(400)),
    case("a bell in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: \x07\r\n\r\n", Refused(400)),
    case("a vertical tab in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\x0bz\r\n\r\n", Refused(400)),
    case("an escape in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: \x1b[31m\r\n\r\n", Refused(400)),
    case("DEL in a value", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\x7f\r\n\r\n", Refused(400)),
    case("NUL in a cookie", "9110 §5.5", b"GET /t HTTP/1.1\r\nHost: a\r\nCookie: session=a\0b\r\n\r\n", Refused(400)),
    // Names.
    case("a space before the colon", "9112 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", Refused(400)),
    case("a tab before the colon", "9112 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", Refused(400)),
    case("a space in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", Refused(400)),
    case("no name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", Refused(400)),
    case("no colon", "9112 §5", b"GET /t HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused(400)),
    case("a request line in place of a field", "9112 §5", b"GET /t HTTP/1.1\r\nHost: a\r\nGET /x HTTP/1.1\r\n\r\n", Refused(400)),
    case("NUL in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", Refused(400)),
    case("a control in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX\x01: y\r\n\r\n", Refused(400)),
    case("DEL in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX\x7f: y\r\n\r\n", Refused(400)),
    case("a byte above ASCII in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX\xe9: y\r\n\r\n", Refused(400)),
    case("parentheses in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", Refused(400)),
    case("quotes around a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\n\"X\": y\r\n\r\n", Refused(400)),
    case("a slash in a name", "9110 §5.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX/Y: z\r\n\r\n", Refused(400)),
    case("a pseudo-header", "9113 §8.3", b"GET /t HTTP/1.1\r\nHost: a\r\n:path: /x\r\n\r\n", Refused(400)),
    // Folded lines.
    case("a folded value", "9112 §5.2", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Refused(400)),
    case("a value folded by a tab", "9112 §5.2", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", Refused(400)),
    case("a fold that hides a length", "9112 §5.2", b"POST /t HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 5\r\n\r\nhello", Refused(400)),
    case("a fold of nothing", "9112 §5.2", b"GET /t HTTP/1.1\r\nHost: a\r\nX: y\r\n \r\n\r\n", Refused(400)),
    case("white space before the first field", "9112 §2.2", b"GET /t HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    case("a blank line before the first field", "9112 §2.2", b"GET /t HTTP/1.1\r\n \r\nHost: a\r\n\r\n", Refused(400)),
    // Sizes.
    case("a field that is too long", "9110 §5.4", b"GET /t HTTP/1.1\r\nHost: a\r\nX: <70000>\r\n\r\n", Refused(431)),
    case("a name that is too long", "9110 §5.4", b"GET /t HTTP/1.1\r\nHost: a\r\n<70000>: y\r\n\r\n", Refused(431)),
    case("too many fields", "9110 §5.4", b"GET /t HTTP/1.1\r\nHost: a\r\n<200 fields>\r\n", Refused(431)),
    case("a head that does not end", "9110 §5.4", b"GET /t HTTP/1.1\r\nHost: a\r\n<9000 fields>", Refused(431)),
    // What concerns one hop goes no further.
    case("a field that Connection names", "9110 §7.6.1", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: x-secret\r\nX-Secret: 1\r\nX: y\r\n\r\n", Arrives("GET /t", &["!x-secret", "!connection", "x: y"], "")),
    case("fields that two Connections name", "9110 §7.6.1", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: X-A , ,x-b\r\nX-A: 1\r\nX-B: 2\r\nConnection: X-C\r\nX-C: 3\r\n\r\n", Arrives("GET /t", &["!x-a", "!x-b", "!x-c", "!connection"], "")),
    case("Connection names Host", "9110 §7.6.1", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", Arrives("GET /t", &["host: a"], "")),
    case("Connection names what the proxy adds", "9110 §7.6.1", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Forwarded-Proto, Via, Forwarded\r\n\r\n", Arrives("GET /t", &["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: https", "!via"], "")),
    case("Keep-Alive and Proxy-Connection", "9110 §7.6.1", b"GET /t HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\r\n", Arrives("GET /t", &["!keep-alive", "!proxy-connection"], "")),
    case("codings of an answer", "9110 §10.1.4", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip, deflate\r\n\r\n", Arrives("GET /t", &["!te", "!connection"], "")),
    case("trailers of an answer", "9110 §10.1.4", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip, trailers\r\n\r\n", Arrives("GET /t", &["te: trailers"], "")),
    case("an upgrade to HTTP/2", "9113 §3.1", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", Arrives("GET /t", &["!upgrade", "!http2-settings", "!connection"], "")),
    case("an upgrade that Connection does not name", "9110 §7.8", b"GET /t HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", Arrives("GET /t", &["!upgrade", "!http2-settings"], "")),
    case("an upgrade to TLS", "2817 §3.1", b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", Arrives("OPTIONS *", &["!upgrade", "!connection"], "")),
    case("a WebSocket that Connection does not name", "9110 §7.8", b"GET /t HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", Arrives("GET /t", &["!upgrade", "!connection"], "")),
    case("a WebSocket or HTTP/2", "9110 §7.8", b"GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", Arrives("GET /t", &["!upgrade", "!connection"], "")),
    // What only the proxy may say.
    case("a forged address", "7239 §8.1", b"GET /t HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n\r\n", Arrives("GET /t", &["x-forwarded-for: 127.0.0.1", "!x-real-ip"], "")),
    case("a forged address with underscores", "3875 §4.1.18", b"GET /t HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 203.0.113.9\r\nX-Forwarded_Host: b\r\nX_Real_IP: 203.0.113.9\r\n\r\n", Arrives("GET /t", &["!x_forwarded_for", "!x-forwarded_host", "!x_real_ip"], "")),
];
