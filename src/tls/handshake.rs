//! One handshake, and why it came to nothing.

use std::{io, sync::Arc, time::Duration};

use rustls::{ServerConnection, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

use super::{Front, Identity};
use crate::clock;

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The client went away.
    #[error("the client went away: {0}")]
    Closed(io::Error),
    /// A rule of TLS was broken, or there is nothing in common.
    #[error("{0}")]
    Failed(io::Error),
    /// The client names no host, or none that is served, and has to.
    #[error("the client names {}, which no certificate has", .0.as_deref().unwrap_or("no host"))]
    UnknownName(Option<String>),
    /// The client's certificate is missing or is not vouched for.
    #[error("the client's certificate: {0}")]
    ClientCertificate(String),
}

/// Shakes hands; who the client is, if it has shown a certificate.
///
/// # Errors
/// Why it came to nothing; the client has been sent an alert if it is still there.
pub async fn accept<S>(front: &Front, mut stream: S) -> Result<(TlsStream<S>, Option<Identity>), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = Arc::clone(front.config());
    let accepting = if front.is_strict() {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(explain)?;
        let name = start.client_hello().server_name().map(ToOwned::to_owned);
        if !name.as_deref().is_some_and(|name| front.knows(name)) {
            stream = start.io;
            // A client that is gone already misses nothing.
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
            let _ = stream.shutdown().await;
            return Err(Refused::UnknownName(name));
        }
        start.into_stream(config)
    } else {
        TlsAcceptor::from(config).accept(stream)
    };
    let stream = match accepting.into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            let refused = explain(error);
            if !matches!(refused, Refused::Closed(_)) {
                part(stream).await;
            }
            return Err(refused);
        }
    };
    let identity = vetted(stream.get_ref().1)?;
    Ok((stream, identity))
}

/// Closes so that the client can read the alert it was sent. In TLS 1.3 it has sent its first request along with its
/// certificate; what is left unread of that would make the system reset the connection, and the alert be lost.
async fn part<S>(mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A client that is gone already misses nothing.
    let _ = stream.shutdown().await;
    let mut unread = [0; 256];
    let drained = async {
        let mut reads = 0;
        while reads < PARTING_READS && matches!(stream.read(&mut unread).await, Ok(1..)) {
            reads += 1;
        }
    };
    let _ = timeout(PARTING, drained).await;
}

/// A session that is resumed brings a certificate along that was looked at when it began; its end may have come since.
fn vetted(tls: &ServerConnection) -> Result<Option<Identity>, Refused> {
    let Some(certificate) = tls.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    let refused = |why: &str| Refused::ClientCertificate(why.to_owned());
    let identity = Identity::of(certificate).ok_or_else(|| refused("it cannot be read"))?;
    if identity.not_after < clock::wall() {
        return Err(refused("it has expired since the session began"));
    }
    Ok(Some(identity))
}

fn explain(error: io::Error) -> Refused {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(
            error @ (rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_)),
        ) => Refused::ClientCertificate(error.to_string()),
        Some(_) => Refused::Failed(error),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Refused::Closed(error),
            _ => Refused::Failed(error),
        },
    }
}

/// Time, and reads, for a client that is turned away to see why.
const PARTING: Duration = Duration::from_secs(1);
const PARTING_READS: usize = 256;

/// A fatal alert in a record of its own (RFC 8446 §5.1, §6; RFC 6066 §3). rustls has no other way to say it than
/// `access_denied`, and nothing is encrypted yet.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
