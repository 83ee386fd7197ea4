//! Answers made by the proxy itself: short, plain, with the request id and no internals.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};

use super::{answer_body::AnswerBody, record::Record};
use crate::error::Fault;

/// The answer to a request that no backend answers.
/// A HEAD gets the same head and no body.
pub(super) fn fault(
    fault: Fault,
    request_id: &HeaderValue,
    head: bool,
    mut record: Record,
) -> Response<AnswerBody> {
    record.fault(fault);
    let status = fault.status();
    let reason = status.canonical_reason().unwrap_or("error");
    let id = request_id.to_str().unwrap_or_default();
    if let Fault::BadRequest(rule) = fault {
        tracing::debug!(request_id = id, rule, "request refused");
    }
    let body = Bytes::from(format!("{} {reason}: {fault}\nrequest id: {id}\n", status.as_u16()));
    let length = body.len();
    record.complete();
    let mut response = plain(status, body);
    if head {
        *response.body_mut() = AnswerBody::Whole(None);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    } else {
        record.sent(length as u64);
    }
    let headers = response.headers_mut();
    if let Some(wait) = fault.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

/// Where the plain listener sends everybody.
pub(super) fn redirect(location: &str) -> Response<AnswerBody> {
    let mut response =
        plain(StatusCode::PERMANENT_REDIRECT, Bytes::from_static(b"This site is served over HTTPS.\n"));
    match HeaderValue::from_str(location) {
        Ok(location) => response.headers_mut().insert(LOCATION, location),
        Err(_) => return plain(StatusCode::BAD_REQUEST, Bytes::from_static(b"400 Bad Request\n")),
    };
    response
}

/// A plain text answer that no cache keeps.
pub(super) fn plain(status: StatusCode, body: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Some(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
