//! The plain-HTTP listener: everybody is sent to HTTPS, method and body kept (308).

use std::num::NonZeroU16;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONNECTION};

use super::{answer_body::AnswerBody, respond, service, target};
use crate::{error::Fault, host, world::World};

/// The answer to a plain request.
pub(super) fn answer<B>(world: &World, request: Request<B>) -> Response<AnswerBody> {
    let mut response = redirect(world, request);
    if world.is_handed_over() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn redirect<B>(world: &World, request: Request<B>) -> Response<AnswerBody> {
    let (parts, _) = request.into_parts();
    let snapshot = world.snapshot.load();
    let host = match target::check(&parts, &snapshot.config.limits) {
        Ok(Some(host)) => host,
        Ok(None) => return refuse(Fault::BadRequest("the request names no host")),
        Err(fault) => return refuse(fault),
    };
    let host = host.to_str().unwrap_or_default();
    let port = match port(snapshot.config.listen.redirect_port, host, world.https_port()) {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let path = service::origin_form(&parts.uri);
    // `OPTIONS *` is about the server, not about a path.
    let path = if path == "*" { "/" } else { &path };
    respond::redirect(&format!("https://{}{port}{path}", host::without_port(host)))
}

/// The port of HTTPS as the client of a plain request for `host` reaches it. One that names no port has come to port 80,
/// whatever the listener's is: somebody between them maps ports, and has the usual ones outside.
fn port(configured: Option<NonZeroU16>, host: &str, listener: u16) -> u16 {
    match (configured, host::port(host)) {
        (Some(port), _) => port.get(),
        (None, None | Some("" | "80")) => 443,
        (None, Some(_)) => listener,
    }
}

/// What is not sent on, and why.
pub(super) fn refuse(fault: Fault) -> Response<AnswerBody> {
    let status = fault.status();
    let reason = status.canonical_reason().unwrap_or("error");
    let mut response =
        respond::plain(status, Bytes::from(format!("{} {reason}: {fault}\n", status.as_u16())));
    if fault.closes() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_a_port_only_if_the_plain_request_did() {
        for host in ["shop.test", "shop.test.", "shop.test:", "shop.test:80", "[::1]", "[::1]:80"] {
            assert_eq!(port(None, host, 8443), 443, "{host}");
        }
        for host in ["shop.test:8080", "[::1]:8080"] {
            assert_eq!(port(None, host, 8443), 8443, "{host}");
        }
    }

    #[test]
    fn the_port_that_is_configured_is_named_whatever_the_request_did() {
        for host in ["shop.test", "shop.test:8080"] {
            assert_eq!(port(NonZeroU16::new(9443), host, 8443), 9443, "{host}");
        }
    }
}
