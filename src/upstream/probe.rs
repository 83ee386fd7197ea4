//! One health check: a `GET` on a connection of its own, its answer's head parsed and bounded.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{ConnectError, connect};
use crate::{
    backend::Backend,
    config::{HealthCheck, format_duration},
};

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// No whole head within the deadline.
    #[error("no answer within {}", format_duration(*.0))]
    Timeout(Duration),
    /// The answer is not HTTP.
    #[error("the answer is not HTTP: {0}")]
    NotHttp(#[from] httparse::Error),
    /// The head is larger than a check needs.
    #[error("the head of the answer is larger than {MAX_HEAD} bytes")]
    TooLarge,
    /// It closed before the head was whole.
    #[error("closed before the head was whole")]
    Closed,
    /// A status that is not expected.
    #[error("status {0}")]
    Status(u16),
}

/// Bytes of head that a check reads.
const MAX_HEAD: usize = 16 * 1024;
/// Fields of head that a check reads.
const MAX_FIELDS: usize = 64;

/// The head of a check's answer, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Value of the field that was asked for.
    field: Option<Vec<u8>>,
}

/// Checks a backend once, all within the check's timeout; gives the value of `field`, if the answer has it.
///
/// # Errors
///
/// When the check failed, and why.
pub async fn probe(
    backend: &Backend,
    check: &HealthCheck,
    field: Option<&HeaderName>,
) -> Result<Option<Vec<u8>>, ProbeError> {
    match timeout(check.timeout, attempt(backend, check, field)).await {
        Ok(result) => result,
        Err(_) => Err(ProbeError::Timeout(check.timeout)),
    }
}

async fn attempt(
    backend: &Backend,
    check: &HealthCheck,
    field: Option<&HeaderName>,
) -> Result<Option<Vec<u8>>, ProbeError> {
    let mut stream = connect(backend, check.timeout).await?;
    let mut request = Vec::with_capacity(256);
    request.extend_from_slice(b"GET ");
    request.extend_from_slice(check.path.as_bytes());
    request.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    match &check.host {
        Some(host) => request.extend_from_slice(host.as_bytes()),
        None => request.extend_from_slice(backend.authority.as_bytes()),
    }
    request.extend_from_slice(b"\r\nuser-agent: homing-health\r\naccept: */*\r\nconnection: close\r\n\r\n");
    stream.write_all(&request).await?;

    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(ProbeError::Closed);
        }
        if let Some(Head { status, field }) = head_of(&head, field)? {
            return if expected(check, status) { Ok(field) } else { Err(ProbeError::Status(status)) };
        }
        if head.len() > MAX_HEAD {
            return Err(ProbeError::TooLarge);
        }
    }
}

/// A whole head; none while it is partial. Interim answers (1xx) are passed over.
fn head_of(mut head: &[u8], field: Option<&HeaderName>) -> Result<Option<Head>, httparse::Error> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(head)? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => match answer.code {
                Some(100..=199) => head = &head[length..],
                code => {
                    let value = field.and_then(|name| {
                        let named =
                            |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name.as_str());
                        answer.headers.iter().find(named).map(|field| field.value.to_vec())
                    });
                    return Ok(code.map(|status| Head { status, field: value }));
                }
            },
        }
    }
}

fn expected(check: &HealthCheck, status: u16) -> bool {
    StatusCode::from_u16(status)
        .is_ok_and(|status| check.expect.iter().any(|(from, to)| (*from..=*to).contains(&status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(head: &[u8]) -> Result<Option<u16>, httparse::Error> {
        Ok(head_of(head, None)?.map(|head| head.status))
    }

    #[test]
    fn the_field_that_is_asked_for_is_found_in_any_case() {
        let name = HeaderName::from_static("x-instance");
        let head = head_of(b"HTTP/1.1 200 OK\r\nX-INSTANCE: abc\r\n\r\n", Some(&name));
        assert_eq!(head, Ok(Some(Head { status: 200, field: Some(b"abc".to_vec()) })));
    }

    #[test]
    fn a_partial_head_has_no_status_yet() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\ncontent-le"), Ok(None));
    }

    #[test]
    fn a_whole_head_has_one() {
        assert_eq!(status_of(b"HTTP/1.1 503 \r\n\r\nbody"), Ok(Some(503)));
    }

    #[test]
    fn interim_answers_are_passed_over() {
        assert_eq!(status_of(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), Ok(None));
        assert_eq!(status_of(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), Ok(Some(204)));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(status_of(b"SSH-2.0-OpenSSH_9.2\r\n").is_err());
    }
}
