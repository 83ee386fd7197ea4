//! Answers of the admin listener, and reading what requests bring.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::mpsc, time::timeout};

use super::{access::Refusal, api::Failed};

/// An answer.
pub(super) type Reply = Response<Either<Full<Bytes>, Events>>;

/// A body that sends what comes through a channel, and ends when that closes.
#[derive(Debug)]
pub(super) struct Events(pub(super) mpsc::Receiver<Bytes>);

/// Why a request is not answered as it wished.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("not found; docs/operating.md lists the paths")]
    NoSuchPath,
    #[error("only {0}")]
    Method(&'static str),
    #[error("there is no {kind} `{name}`")]
    NotFound { kind: &'static str, name: String },
    /// The text must not repeat what the request brought: it may be a session id.
    #[error("{0}")]
    Invalid(String),
    #[error("the body must have Content-Type: application/json")]
    ContentType,
    #[error("the body is larger than {} KiB", MAX_BODY / 1024)]
    TooLarge,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Busy(&'static str),
    #[error("{0}; the log says more")]
    Ours(&'static str),
}

/// Bytes of a request body.
const MAX_BODY: usize = 16 * 1024;
/// Time for a request body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Failure ===

impl Failure {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::NoSuchPath | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ours(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As JSON for the API, as text elsewhere.
    pub(super) fn reply(&self, as_json: bool) -> Reply {
        let mut reply = if as_json {
            json(&Failed { error: self.to_string() })
        } else {
            text(StatusCode::OK, format!("{self}\n"))
        };
        *reply.status_mut() = self.status();
        let headers = reply.headers_mut();
        match self {
            Self::Method(allow) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            Self::Refused(Refusal::TokenNeeded | Refusal::WrongToken) => {
                // RFC 6750 §3.
                let challenge = HeaderValue::from_static("Bearer realm=\"homing\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            _ => {}
        }
        // What the body was to be is unknown; the next request on this connection would begin in it.
        if matches!(self, Self::TooLarge | Self::TooSlow) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// The body of a request as JSON; an empty one reads as `{}`. `shape` is shown when it is not that.
pub(super) async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
    shape: &'static str,
) -> Result<T, Failure> {
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    let bytes = match collected.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Failure::TooLarge),
        Ok(Err(_)) => return Err(Failure::Invalid("the body broke off".to_owned())),
        Err(_) => return Err(Failure::TooSlow),
    };
    let wrong = || Failure::Invalid(format!("the body must be {shape}"));
    if bytes.is_empty() {
        return serde_json::from_str("{}").map_err(|_| wrong());
    }
    // A page of another site cannot send this type without asking first (CORS), which nobody grants.
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Failure::ContentType);
    }
    // What serde says repeats parts of the body.
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

/// Answers with JSON.
pub(super) fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            plain(StatusCode::OK, "application/json", body)
        }
        Err(error) => {
            tracing::error!(%error, "cannot write JSON");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "application/json",
                "{\"error\":\"cannot write JSON\"}\n",
            )
        }
    }
}

/// Answers with text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    plain(status, "text/plain; charset=utf-8", body)
}

/// Answers with a body of this type.
pub(super) fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    with(status, content_type, Either::Left(Full::new(body.into())))
}

/// Answers with events.
pub(super) fn events(events: Events) -> Reply {
    with(StatusCode::OK, "text/event-stream", Either::Right(events))
}

fn with(status: StatusCode, content_type: &'static str, body: Either<Full<Bytes>, Events>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

// === impl Events ===

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
