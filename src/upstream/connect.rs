//! Opening a TCP connection to a backend, within a deadline.

use std::{io, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{
    backend::{Backend, Evidence},
    error::Fault,
    socket::tune,
};

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Not within the deadline.
    #[error("no connection in time")]
    Timeout,
    /// No way there, or no such name.
    #[error("unreachable")]
    Unreachable,
}

/// Opens a connection, look-up of the name included.
pub async fn connect(backend: &Backend, limit: Duration) -> Result<TcpStream, ConnectError> {
    let stream = match timeout(limit, attempt(backend)).await {
        Ok(result) => result.map_err(|error| ConnectError::from_io(&error))?,
        Err(_) => return Err(ConnectError::Timeout),
    };
    tune(&stream).map_err(|error| ConnectError::from_io(&error))?;
    Ok(stream)
}

async fn attempt(backend: &Backend) -> io::Result<TcpStream> {
    if let Some(address) = backend.address {
        return TcpStream::connect(address).await;
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in lookup_host((&*backend.host, backend.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

// === impl ConnectError ===

impl ConnectError {
    fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable,
        }
    }

    /// What this tells about the backend's health.
    pub const fn evidence(self) -> Evidence {
        match self {
            Self::Refused => Evidence::Refused,
            Self::Timeout | Self::Unreachable => Evidence::Unreachable,
        }
    }

    /// What the client is told.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Timeout => Fault::ConnectTimeout,
            Self::Refused | Self::Unreachable => Fault::ConnectFailed,
        }
    }
}
