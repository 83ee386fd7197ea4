//! The opening handshake of a WebSocket: over HTTP/1.1 an upgrade (RFC 6455 §4), over HTTP/2 an extended CONNECT
//! (RFC 8441), which becomes the upgrade that backends know.
//!
//! Nothing but a backend that has proved to have read the key makes a tunnel. Without that proof, a backend that
//! answers 101 to whatever it does not understand would open one past every rule of this proxy.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION},
    request::Parts,
};

use super::headers;
use crate::{error::Fault, http2::head::Protocol};

/// A request to become a WebSocket.
#[derive(Debug)]
pub(super) struct Opening {
    /// What a backend that has read the key answers (RFC 6455 §4.2.2).
    accept: String,
    /// Whether the client speaks HTTP/2.
    extended: bool,
}

// === impl Opening ===

impl Opening {
    /// Whether a request asks to become a WebSocket. One that has a body does not: what comes after it would be
    /// anything. One over HTTP/2 is a GET afterwards, with the fields of a handshake.
    ///
    /// # Errors
    ///
    /// The handshake breaks a rule of RFC 6455, or asks for another protocol than this one.
    pub(super) fn of(parts: &mut Parts, bodiless: bool) -> Result<Option<Self>, Fault> {
        if let Some(protocol) = parts.extensions.remove::<Protocol>() {
            if parts.method != Method::CONNECT {
                return Err(Fault::BadRequest("only CONNECT has a protocol"));
            }
            if protocol.as_str() != WEBSOCKET {
                return Err(Fault::ProtocolUnknown);
            }
            return Ok(Some(Self::extended(parts)));
        }
        if !bodiless || !headers::wants_websocket(parts.version, &parts.headers) {
            return Ok(None);
        }
        if parts.method != Method::GET {
            return Err(Fault::BadRequest("a WebSocket is opened by GET"));
        }
        let mut keys = parts.headers.get_all(SEC_WEBSOCKET_KEY).iter();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(Fault::BadRequest("the WebSocket handshake does not have one key"));
        };
        // RFC 6455 §4.1: sixteen bytes, in Base64.
        if !BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == KEY) {
            return Err(Fault::BadRequest("the key of the WebSocket handshake is malformed"));
        }
        Ok(Some(Self { accept: accept(key.as_bytes()), extended: false }))
    }

    /// RFC 8441 §5: a GET, an upgrade, and a key, which HTTP/2 does without.
    fn extended(parts: &mut Parts) -> Self {
        let mut key = [0; KEY];
        fastrand::fill(&mut key);
        let key = HeaderValue::try_from(BASE64.encode(&key)).expect("Base64 is a field value");
        parts.method = Method::GET;
        let headers = &mut parts.headers;
        let accept = accept(key.as_bytes());
        headers.insert(SEC_WEBSOCKET_KEY, key);
        headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        Self { accept, extended: true }
    }

    /// Whether an answer of status 101 opens this WebSocket (RFC 6455 §4.2.2).
    pub(super) fn is_accepted(&self, headers: &HeaderMap) -> bool {
        let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let proof =
            accepts.next().is_some_and(|value| value.as_bytes().trim_ascii() == self.accept.as_bytes());
        proof && accepts.next().is_none() && headers::names_websocket(headers)
    }

    /// Whether the client speaks HTTP/2: a tunnel is opened by 200 then, and by no other answer.
    pub(super) fn is_extended(&self) -> bool {
        self.extended
    }
}

fn accept(key: &[u8]) -> String {
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()).as_ref())
}

const WEBSOCKET: &str = "websocket";
/// Bytes of a key.
const KEY: usize = 16;
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::*;

    const SAMPLE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn parts(method: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut parts = Request::builder().method(method).uri("/ws").body(()).unwrap().into_parts().0;
        parts.version = Version::HTTP_11;
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    fn upgrade(method: &str, keys: &[&'static str]) -> Result<Option<Opening>, Fault> {
        let mut fields = vec![("connection", "Upgrade"), ("upgrade", "WebSocket")];
        fields.extend(keys.iter().map(|key| ("sec-websocket-key", *key)));
        Opening::of(&mut parts(method, &fields), true)
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        parts("GET", fields).headers
    }

    #[test]
    fn the_answer_has_to_prove_that_the_key_was_read() {
        let opening = upgrade("GET", &[SAMPLE]).unwrap().unwrap();
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let good = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), accept];
        assert!(opening.is_accepted(&answer(&good)));
        for missing in 0..good.len() {
            let mut fields = good.to_vec();
            fields.remove(missing);
            assert!(!opening.is_accepted(&answer(&fields)), "{fields:?}");
        }
        let other = ("sec-websocket-accept", "t3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!opening.is_accepted(&answer(&[good[0], good[1], other])));
        assert!(!opening.is_accepted(&answer(&[good[0], good[1], accept, other])));
        assert!(!opening.is_accepted(&answer(&[good[0], ("upgrade", "h2c"), accept])));
    }

    #[test]
    fn a_handshake_that_breaks_the_rules_is_refused() {
        assert!(upgrade("POST", &[SAMPLE]).is_err());
        for keys in [&[][..], &[SAMPLE, SAMPLE], &["dGhlIHNhbXBsZQ=="], &["not base64"], &[""]] {
            assert!(upgrade("GET", keys).is_err(), "{keys:?}");
        }
        assert!(Opening::of(&mut parts("GET", &[("upgrade", "websocket")]), true).unwrap().is_none());
        assert!(Opening::of(&mut parts("GET", &[]), true).unwrap().is_none());
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade_with_a_key_of_its_own() {
        let extended = || {
            let mut parts =
                parts("CONNECT", &[("sec-websocket-key", SAMPLE), ("sec-websocket-protocol", "chat")]);
            parts.version = Version::HTTP_2;
            parts.extensions.insert(Protocol::new("websocket"));
            let opening = Opening::of(&mut parts, true).unwrap().unwrap();
            (parts, opening)
        };
        let (parts, opening) = extended();
        assert_eq!(parts.method, Method::GET);
        let key = parts.headers.get("sec-websocket-key").unwrap();
        assert_eq!(BASE64.decode(key.as_bytes()).unwrap().len(), 16);
        assert!(key != SAMPLE && *key != extended().0.headers["sec-websocket-key"]);
        assert_eq!(opening.accept, accept(key.as_bytes()));
        assert_eq!(parts.headers["sec-websocket-version"], "13");
        assert_eq!(parts.headers["sec-websocket-protocol"], "chat");
    }

    #[test]
    fn another_protocol_is_unknown_and_a_plain_connect_no_matter_of_websockets() {
        let mut other = parts("CONNECT", &[]);
        other.extensions.insert(Protocol::new("connect-udp"));
        assert_eq!(Opening::of(&mut other, true).unwrap_err(), Fault::ProtocolUnknown);
        assert!(Opening::of(&mut parts("CONNECT", &[]), true).unwrap().is_none());
    }
}
