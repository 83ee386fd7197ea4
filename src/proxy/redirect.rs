//! The plain-HTTP listener: everybody is sent to HTTPS, method and body kept (308).

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONNECTION};

use super::{answer_body::AnswerBody, respond, target};
use crate::{error::Fault, world::World};

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
    let host = target::without_port(host.to_str().unwrap_or_default());
    let port = match world.https_port() {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // `OPTIONS *` is about the server, not about a path.
    let path = if path == "*" { "/" } else { path };
    respond::redirect(&format!("https://{host}{port}{path}"))
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
