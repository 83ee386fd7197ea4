//! Reload, log.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::{Caller, LogFilter, Reloaded};
use crate::{
    admin::reply::{Failure, Reply, json, read},
    logging,
    world::World,
};

/// Loads the configuration anew.
pub(in crate::admin) async fn reload(world: &World, caller: Caller) -> Result<Reply, Failure> {
    tracing::info!(by = %caller, "reload");
    let changes = world.reload().await.map_err(Failure::Conflict)?;
    Ok(json(&Reloaded { applied: changes.applied, restart: changes.restart, warnings: changes.warnings }))
}

/// Says what is logged.
pub(in crate::admin) fn log() -> Result<Reply, Failure> {
    let filter = logging::filter().map_err(|error| Failure::Conflict(error.to_string()))?;
    Ok(json(&LogFilter { filter }))
}

/// Changes what is logged, until the next start.
pub(in crate::admin) async fn set_log(
    caller: Caller,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<Reply, Failure> {
    let wanted: LogFilter = read(headers, body, "{\"filter\": \"info\"}").await?;
    logging::set_filter(&wanted.filter).map_err(|error| match error {
        logging::FilterError::Unreadable(_) => Failure::Invalid(error.to_string()),
        logging::FilterError::Fixed => Failure::Conflict(error.to_string()),
    })?;
    tracing::info!(by = %caller, filter = wanted.filter, "log level");
    log()
}
