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
    /// No way there.
    #[error("unreachable")]
    Unreachable,
    /// It is this side that has no file descriptor, port or memory left, or cannot look up the name: tells
    /// nothing about the backend.
    #[error("not tried: {0}")]
    Local(io::ErrorKind),
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
    let addresses = lookup_host((&*backend.host, backend.port)).await;
    // A name that cannot be looked up has no errno of its own; it must not take a living backend out.
    for address in addresses.map_err(io::Error::other)? {
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
        // errno values of Linux: the process or the machine is out of something.
        const LOCAL: [i32; 5] = [12, 23, 24, 99, 105];
        match error.kind() {
            kind if error.raw_os_error().is_none_or(|errno| LOCAL.contains(&errno)) => Self::Local(kind),
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable,
        }
    }

    /// What this tells about the backend's health; nothing, if the fault is ours.
    pub const fn evidence(self) -> Option<Evidence> {
        match self {
            Self::Refused => Some(Evidence::Refused),
            Self::Timeout | Self::Unreachable => Some(Evidence::Unreachable),
            Self::Local(_) => None,
        }
    }

    /// What the client is told.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Timeout => Fault::ConnectTimeout,
            Self::Refused | Self::Unreachable => Fault::ConnectFailed,
            Self::Local(_) => Fault::Exhausted,
        }
    }
}
