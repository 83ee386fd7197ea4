//! The shop's answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use super::{form::FormError, sessions};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Answer = Response<Body>;

/// A request the shop does not serve; the text goes to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Bad(&'static str),
    #[error("{0}")]
    Form(#[from] FormError),
    #[error("not a WebSocket handshake: {0}")]
    Handshake(tokio_tungstenite::tungstenite::Error),
    #[error("there is nothing here")]
    NotFound,
    #[error("this takes {0}")]
    Method(Method),
    #[error("more than {0} bytes")]
    TooLarge(usize),
    #[error("the shop holds as many sessions as it can")]
    SessionsFull,
    #[error("the cart is full")]
    CartFull,
}

/// 200 with JSON.
pub(crate) fn json(value: &Value) -> Answer {
    with_status(StatusCode::OK, value)
}

/// `status` with JSON.
pub(crate) fn with_status(status: StatusCode, value: &Value) -> Answer {
    let text = format!("{value}\n");
    body(status, HeaderValue::from_static("application/json"), Full::from(text).boxed_unsync())
}

/// An answer with this body, never cached: all of them depend on who asks.
pub(crate) fn body(status: StatusCode, content_type: HeaderValue, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Nothing.
pub(crate) fn empty() -> Body {
    Empty::new().boxed_unsync()
}

// === impl Refusal ===

impl Refusal {
    /// What the client gets.
    pub(crate) fn answer(self) -> Answer {
        let mut answer = with_status(self.status(), &json!({ "error": self.to_string() }));
        let headers = answer.headers_mut();
        match self {
            Self::Method(allowed) => {
                let allowed = if allowed == Method::GET { "GET, HEAD" } else { "POST" };
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Self::SessionsFull => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            _ => {}
        }
        answer
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) | Self::Form(_) | Self::Handshake(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SessionsFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::CartFull => StatusCode::CONFLICT,
        }
    }
}

impl From<sessions::Full> for Refusal {
    fn from(full: sessions::Full) -> Self {
        match full {
            sessions::Full::Sessions => Self::SessionsFull,
            sessions::Full::Cart => Self::CartFull,
        }
    }
}
