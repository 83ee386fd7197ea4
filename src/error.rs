//! Why the proxy answers by itself: one kind, from which status, label and blame follow.

use std::time::Duration;

use http::StatusCode;

/// Why a request gets an answer made by the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The request breaks a rule of HTTP or can be read in two ways; the text names the rule.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The method opens tunnels or echoes requests; a front door does neither.
    #[error("this method is not served here")]
    MethodRefused,
    /// No route for this host and path.
    #[error("no application is served under this address")]
    NoRoute,
    /// An extended CONNECT asks for a protocol that is not spoken.
    #[error("this protocol is not spoken here")]
    ProtocolUnknown,
    /// This connection is not for this host, or was made under other rules than those in force.
    #[error("this connection is not the one for this request: ask again on another")]
    Misdirected,
    /// `Expect` asks for something unknown.
    #[error("this expectation cannot be met")]
    ExpectationFailed,
    /// The request body is larger than allowed.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The request head is larger than allowed.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// The request target is longer than allowed.
    #[error("the request target is too long")]
    TargetTooLong,
    /// The client's address asks too fast; it may ask again after so many seconds.
    #[error("there are too many requests from this address")]
    RateLimited(u32),
    /// More requests are under way than the proxy takes on.
    #[error("the proxy serves too many requests right now")]
    Overloaded,
    /// The client stopped sending its body.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// No backend of the pool serves.
    #[error("no server is available right now")]
    NoBackend,
    /// The session's home does not serve and the pool refuses to move sessions.
    #[error("the server of this session is not available right now")]
    HomeDown,
    /// The proxy is out of file descriptors, ports or memory, or cannot look a name up.
    #[error("the proxy is short of resources")]
    Exhausted,
    /// No connection to a backend.
    #[error("the server could not be reached")]
    ConnectFailed,
    /// No connection to a backend in time.
    #[error("the server could not be reached in time")]
    ConnectTimeout,
    /// The backend closed the connection instead of answering.
    #[error("the server closed the connection before it answered")]
    BackendClosed,
    /// The backend's answer is not HTTP.
    #[error("the server's answer could not be understood")]
    BadAnswer,
    /// The backend's answer broke off, or stood still, after its head: the client sees a cut.
    #[error("the server's answer broke off")]
    AnswerCut,
    /// The backend's answer did not begin in time.
    #[error("the server did not answer in time")]
    HeadTimeout,
    /// The client went away before it was answered; nobody sees this.
    #[error("the client went away")]
    ClientGone,
    /// A backend's certificate is not accepted, or no TLS came about.
    #[error("no secure connection to the server could be made")]
    BackendTls,
    /// As many requests wait for the backend as may.
    #[error("the server has too many requests waiting")]
    QueueFull,
    /// The request waited for the backend for as long as it may.
    #[error("the server had no room for this request in time")]
    QueueTimeout,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Client,
    /// A backend's.
    Backend,
    /// The configuration's, or nobody's.
    Proxy,
}

// === impl Fault ===

impl Fault {
    /// The status the client sees.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::ProtocolUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoBackend
            | Self::HomeDown
            | Self::Exhausted
            | Self::Overloaded
            | Self::QueueFull
            | Self::QueueTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectFailed
            | Self::BackendTls
            | Self::BackendClosed
            | Self::BadAnswer
            | Self::AnswerCut
            | Self::ClientGone => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::HeadTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word for the access log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::MethodRefused => "method-refused",
            Self::NoRoute => "no-route",
            Self::ProtocolUnknown => "protocol-unknown",
            Self::Misdirected => "misdirected",
            Self::ExpectationFailed => "expectation-failed",
            Self::BodyTooLarge => "body-too-large",
            Self::HeadTooLarge => "head-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::BodyTimeout => "body-timeout",
            Self::RateLimited(_) => "rate-limited",
            Self::Overloaded => "overloaded",
            Self::NoBackend => "no-backend",
            Self::HomeDown => "home-down",
            Self::Exhausted => "exhausted",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::BackendClosed => "backend-closed",
            Self::BadAnswer => "bad-answer",
            Self::AnswerCut => "answer-cut",
            Self::HeadTimeout => "head-timeout",
            Self::ClientGone => "client-gone",
            Self::BackendTls => "backend-tls",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
        }
    }

    /// Whose fault it is; only a backend's faults count against a backend.
    pub const fn blame(self) -> Blame {
        match self {
            Self::BadRequest(_)
            | Self::MethodRefused
            | Self::ProtocolUnknown
            | Self::Misdirected
            | Self::ExpectationFailed
            | Self::BodyTooLarge
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::BodyTimeout
            | Self::RateLimited(_)
            | Self::ClientGone => Blame::Client,
            Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::BackendClosed
            | Self::BadAnswer
            | Self::AnswerCut
            | Self::HeadTimeout
            | Self::BackendTls => Blame::Backend,
            Self::NoRoute
            | Self::NoBackend
            | Self::HomeDown
            | Self::Exhausted
            | Self::Overloaded
            | Self::QueueFull
            | Self::QueueTimeout => Blame::Proxy,
        }
    }

    /// After which time it is worth asking again (RFC 9110 §10.2.3), where that can be said.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NoBackend
            | Self::HomeDown
            | Self::Exhausted
            | Self::Overloaded
            | Self::QueueFull
            | Self::QueueTimeout => Some(Duration::from_secs(2)),
            Self::RateLimited(seconds) => Some(Duration::from_secs(seconds as u64)),
            _ => None,
        }
    }

    /// Whether the connection must close: what follows on it may not be a request.
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::BodyTooLarge
                | Self::BodyTimeout
                | Self::HeadTooLarge
                | Self::TargetTooLong
                | Self::Misdirected
        )
    }
}
