//! Who a client has proved to be, and what backends may believe of it.
//!
//! The fields that say so are removed from every request, on every route, from every peer, whether or not clients are
//! asked for certificates; then those of the connection's own certificate are put in.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Client, headers};
use crate::{
    clock, config,
    error::Fault,
    http1::{fields::is_alike, write::line},
    tls::{Front, Identity, Mark},
};

/// What a handshake found out about a client.
#[derive(Debug)]
pub(super) struct Vetted {
    /// The host that it named, in its canonical spelling.
    pub(super) server_name: Option<Box<str>>,
    /// Who it is, if it has shown a certificate.
    pub(super) identity: Option<Identity>,
    /// How it was vetted.
    pub(super) way: Mark,
}

/// SHA-256 of the certificate, in hexadecimal.
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-sha256");
/// The certificate itself, and those it came with (RFC 9440).
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
const LOCALHOST: HeaderValue = HeaderValue::from_static("localhost");

// === impl Client ===

impl Client {
    /// Whether what the handshake found out holds for this request: its host may be reached by the name of the
    /// handshake, clients are still vetted in the same way, and the certificate has not expired meanwhile.
    ///
    /// # Errors
    ///
    /// [`Fault::Misdirected`]: another connection may be the right one (RFC 9110 §15.5.20).
    pub(super) fn may_ask(&self, front: &Front, host: &str) -> Result<(), Fault> {
        let Vetted { server_name, identity, way } = &self.vetted;
        let expired = || identity.as_ref().is_some_and(|identity| identity.not_after < clock::wall());
        if *way != front.vetting() || !front.serves(server_name.as_deref(), host) || expired() {
            return Err(Fault::Misdirected);
        }
        Ok(())
    }

    /// The host of a request that names none: the one of the handshake, else one that is told to nobody's harm.
    pub(super) fn named(&self) -> HeaderValue {
        let name = self.vetted.server_name.as_deref();
        name.and_then(|name| HeaderValue::from_str(name).ok()).unwrap_or(LOCALHOST)
    }
}

/// Takes out what only the proxy may say.
pub(super) fn strip(headers: &mut HeaderMap, settings: &config::Tls) {
    headers::remove_all(headers, |name| is_ours(name, &settings.client_header));
}

/// Takes out of trailers what only the proxy may say, of a client's certificate or of earlier hops: there are
/// servers that take trailers for fields of the head.
pub(super) fn strip_trailers(trailers: &mut HeaderMap, subject: &HeaderName) {
    headers::remove_all(trailers, |name| is_ours(name, subject) || headers::is_forwarding(name.as_str()));
}

/// Writes who the client is, among the fields of a request that [`strip`] has seen.
pub(super) fn tell(out: &mut BytesMut, identity: Option<&Identity>, settings: &config::Tls) {
    let Some(identity) = identity else { return };
    line(out, &settings.client_header, identity.subject.as_bytes());
    line(out, &FINGERPRINT, identity.fingerprint.as_bytes());
    if settings.client_cert {
        line(out, &CLIENT_CERT, identity.certificate.as_bytes());
    }
}

/// Whether a field of this name tells of a client's certificate, however it is spelled.
fn is_ours(name: &HeaderName, subject: &HeaderName) -> bool {
    [subject, &FINGERPRINT, &CLIENT_CERT, &CLIENT_CERT_CHAIN]
        .into_iter()
        .any(|ours| is_alike(name.as_str(), ours.as_str()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_client_cannot_say_who_it_is_however_it_is_spelled() {
        let settings = config::Tls { client_header: "x-my_user".parse().unwrap(), ..config::Tls::default() };
        let mut headers = HeaderMap::new();
        for name in [
            "x-my-user",
            "X_MY_USER",
            "x-client-cert-sha256",
            "x_client-cert_sha256",
            "client-cert",
            "client_cert",
            "client-cert-chain",
            "client_cert_chain",
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_static("CN=root"));
        }
        headers.insert("x-my-users", HeaderValue::from_static("kept"));
        strip(&mut headers, &settings);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-my-users"]);
    }
}
