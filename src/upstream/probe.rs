//! One health check: a `GET` on a connection of its own, by the same exchange as traffic.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, combinators::MapErr};
use tokio::time::timeout;

use super::{Body, ConnectError, Connection, ExchangeError, RequestHead, connect};
use crate::{
    backend::Backend,
    config::{HealthCheck, format_duration},
    error::Fault,
    http1::fields::Malformed,
};

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// No whole head within the deadline.
    #[error("no answer within {}", format_duration(*.0))]
    Timeout(Duration),
    /// The response breaks a rule of HTTP: requests that get it fail as well.
    #[error("the answer is not valid HTTP: {0}")]
    BadAnswer(Malformed),
    /// It closed, or reset, before the head was whole.
    #[error("closed before the head was whole")]
    Closed,
    /// A status that is not expected.
    #[error("status {0}")]
    Status(u16),
}

/// The body of a check.
type Nothing = MapErr<Empty<Bytes>, fn(Infallible) -> Fault>;

/// How long the rest of a response is read, and how many bytes of it, so that the backend sees no reset.
const REST: Duration = Duration::from_millis(100);
const MAX_REST: usize = 64 * 1024;

/// Checks a backend once, within the check's timeout; gives the value of `field`, if the response has it.
///
/// # Errors
///
/// When the check failed, and why.
pub async fn probe(
    backend: &Arc<Backend>,
    check: &HealthCheck,
    field: Option<&HeaderName>,
) -> Result<Option<Vec<u8>>, ProbeError> {
    let Ok(result) = timeout(check.timeout, ask(backend, check)).await else {
        return Err(ProbeError::Timeout(check.timeout));
    };
    let mut response = result?;
    // The status decides, whatever becomes of the rest.
    let _ = timeout(REST, read_rest(response.body_mut())).await;
    if !expected(check, response.status()) {
        return Err(ProbeError::Status(response.status().as_u16()));
    }
    Ok(field.and_then(|name| response.headers().get(name)).map(|value| value.as_bytes().to_vec()))
}

async fn ask(
    backend: &Arc<Backend>,
    check: &HealthCheck,
) -> Result<Response<Box<Body<Nothing>>>, ProbeError> {
    let stream = connect(backend, check.timeout).await?;
    let connection = Connection::new(stream, backend, None);
    let mut head = RequestHead::new(Method::GET, &check.path, 256);
    let fields = head.fields();
    fields.extend_from_slice(b"host: ");
    match &check.host {
        Some(host) => fields.extend_from_slice(host.as_bytes()),
        None => fields.extend_from_slice(backend.authority.as_bytes()),
    }
    fields.extend_from_slice(b"\r\nuser-agent: homing-health\r\naccept: */*\r\nconnection: close\r\n");
    let request = head.finish(Empty::new().map_err(as_fault as fn(Infallible) -> Fault), false);
    connection.exchange(request, true, |_, _| ()).await.map_err(|error| match error {
        ExchangeError::BadAnswer(rule) => ProbeError::BadAnswer(rule),
        ExchangeError::Unsent(_) | ExchangeError::Closed | ExchangeError::Body(_) => ProbeError::Closed,
    })
}

async fn read_rest<B>(body: &mut Body<B>)
where
    B: http_body::Body<Data = Bytes, Error = Fault> + Unpin,
{
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await
        && read < MAX_REST
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn as_fault(never: Infallible) -> Fault {
    match never {}
}

fn expected(check: &HealthCheck, status: StatusCode) -> bool {
    check.expect.iter().any(|(from, to)| (*from..=*to).contains(&status))
}
