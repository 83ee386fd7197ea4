//! Opening a connection to a backend, TLS handshake included, within a deadline.

use std::{
    fmt::Display,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{AlertDescription, CertificateError, OtherError, pki_types::UnixTime};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    Stream,
    race::{order, race},
};
use crate::{
    backend::{Backend, Evidence},
    clock,
    error::Fault,
    socket::tune,
    tls::BackendTls,
};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Not within the deadline.
    #[error("no connection in time")]
    Timeout,
    /// No way there.
    #[error("unreachable")]
    Unreachable,
    /// It is this side that has no file descriptor, port or memory left, or cannot look up the name: tells
    /// nothing about the backend.
    #[error("not tried: {0}")]
    Local(io::ErrorKind),
    /// Whoever answers there cannot show that it is the backend; the text says what is wrong.
    #[error("its certificate is not accepted: {0}")]
    Untrusted(Box<str>),
    /// It answers, but no TLS comes about; the text says why.
    #[error("no TLS handshake: {0}")]
    Handshake(Box<str>),
}

/// Opens a connection, look-up of the name and TLS handshake included.
///
/// # Errors
///
/// Why there is none.
pub async fn connect(backend: &Backend, limit: Duration) -> Result<Stream, ConnectError> {
    let deadline = clock::now() + limit;
    let addresses = match backend.address {
        Some(address) => vec![address],
        None => look_up(backend, deadline).await?,
    };
    let whole = async {
        let (tcp, address) = race(addresses).await.map_err(|error| ConnectError::from_io(&error))?;
        tune(&tcp).map_err(|error| ConnectError::from_io(&error))?;
        let stream = match &backend.tls {
            None => Ok(Stream::Plain(tcp)),
            Some(tls) => secure(tls, tcp).await,
        };
        if backend.address.is_none() {
            backend.standing.prefer(stream.is_ok().then_some(address));
        }
        stream
    };
    timeout_at(deadline, whole).await.unwrap_or(Err(ConnectError::Timeout))
}

/// The addresses of a backend's name, in the order in which they are tried. A name that cannot be looked up, or not in
/// time, must not take a living backend out.
async fn look_up(backend: &Backend, deadline: Instant) -> Result<Vec<SocketAddr>, ConnectError> {
    match timeout_at(deadline, lookup_host((&*backend.host, backend.port))).await {
        Ok(Ok(found)) => Ok(order(found, backend.standing.preferred())),
        Ok(Err(error)) => Err(ConnectError::Local(error.kind())),
        Err(_) => Err(ConnectError::Local(io::ErrorKind::TimedOut)),
    }
}

async fn secure(tls: &BackendTls, tcp: TcpStream) -> Result<Stream, ConnectError> {
    let connector = TlsConnector::from(Arc::clone(tls.config()));
    match connector.connect(tls.name().clone(), tcp).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => Err(ConnectError::from_handshake(&error)),
    }
}

// === impl ConnectError ===

impl ConnectError {
    fn from_io(error: &io::Error) -> Self {
        // errno values of Linux: the process or the machine is out of something.
        const LOCAL: [i32; 5] = [12, 23, 24, 99, 105];
        match error.kind() {
            kind if error.raw_os_error().is_none_or(|errno| LOCAL.contains(&errno)) => Self::Local(kind),
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable,
        }
    }

    fn from_handshake(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(error)) => Self::Untrusted(certificate(error).into()),
            Some(rustls::Error::NoCertificatesPresented) => Self::Untrusted("it shows none".into()),
            Some(rustls::Error::InvalidMessage(_)) => {
                Self::Handshake("what it says is not TLS; is the url to begin with http://?".into())
            }
            Some(rustls::Error::AlertReceived(alert)) => Self::Handshake(refusal(*alert).into()),
            Some(error) => Self::Handshake(error.to_string().into()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Handshake("it closed instead".into())
            }
            None => Self::Handshake(error.to_string().into()),
        }
    }

    /// What this tells about the backend's health; nothing, if the fault is ours.
    pub const fn evidence(&self) -> Option<Evidence> {
        match self {
            Self::Refused => Some(Evidence::Refused),
            Self::Timeout | Self::Unreachable | Self::Handshake(_) => Some(Evidence::Unreachable),
            Self::Untrusted(_) => Some(Evidence::Untrusted),
            Self::Local(_) => None,
        }
    }

    /// What the client is told.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Timeout => Fault::ConnectTimeout,
            Self::Refused | Self::Unreachable => Fault::ConnectFailed,
            Self::Untrusted(_) | Self::Handshake(_) => Fault::BackendTls,
            Self::Local(_) => Fault::Exhausted,
        }
    }
}

/// What is wrong with a certificate, and what would help.
fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "nobody who is trusted vouches for it; `ca` in [pool.tls] may name who does".to_owned()
        }
        CertificateError::BadSignature => {
            "its signature is not that of the authority of this name; is `ca` in [pool.tls] an older one?"
                .to_owned()
        }
        CertificateError::Other(OtherError(inner)) if inner.to_string() == "CaUsedAsEndEntity" => {
            "it is that of an authority (CA:TRUE), not of a server".to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired at {}", date(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", date(*not_before))
        }
        other => other.to_string(),
    }
}

fn date(time: UnixTime) -> impl Display {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

/// What an alert means to whoever has to act on it.
fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "it asks for a client certificate (`cert` and `key` in [pool.tls])".to_owned()
        }
        AlertDescription::HandshakeFailure => {
            "it refused with the alert HandshakeFailure; in TLS 1.2 that may mean that \
             it asks for a client certificate (`cert` and `key` in [pool.tls])"
                .to_owned()
        }
        AlertDescription::UnrecognisedName => "it does not know the name that it was asked for".to_owned(),
        other => format!("it refused with the alert {other:?}"),
    }
}
