//! Reload, log.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::{Caller, LogFilter, ReloadEffect, Reloaded};
use crate::{
    admin::reply::{Failure, Reply, json, read},
    config::{Effect, What},
    logging,
    world::World,
};

/// Loads the configuration anew; with `dry_run=true`, only tells what that would change.
pub(in crate::admin) async fn reload(
    world: &World,
    caller: Caller,
    query: Option<&str>,
) -> Result<Reply, Failure> {
    // A parameter that is misspelt must not be a reload.
    let dry = match query {
        None | Some("" | "dry_run=false") => false,
        Some("dry_run=true") => true,
        Some(_) => return Err(Failure::Invalid("the only parameter is `dry_run=true`".to_owned())),
    };
    tracing::info!(by = %caller, dry, "reload");
    let changes = world.reload(dry).await.map_err(Failure::Conflict)?;
    Ok(json(&Reloaded {
        dry_run: dry,
        lost: changes.effects.iter().map(Effect::lost).sum(),
        effects: changes.effects.iter().map(effect).collect(),
        applied: changes.applied,
        restart: changes.restart,
        warnings: changes.warnings,
    }))
}

fn effect(effect: &Effect) -> ReloadEffect {
    let (what, to) = match &effect.what {
        What::Leaves => ("leaves", None),
        What::Cut(_) => ("cut", None),
        What::Returns => ("returns", None),
        What::Renamed(to) => ("renamed", Some(to.to_string())),
        What::Moved => ("moved", None),
        What::Rekeyed => ("rekeyed", None),
    };
    ReloadEffect {
        pool: effect.pool.to_string(),
        backend: effect.backend.as_deref().map(str::to_owned),
        what: what.to_owned(),
        to,
        live: effect.left.sessions.into(),
        streams: effect.left.streams.into(),
        requests: effect.left.requests.into(),
        lost: effect.lost(),
    }
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
        logging::FilterError::Unreadable { .. } => Failure::Invalid(error.to_string()),
        logging::FilterError::Fixed => Failure::Conflict(error.to_string()),
    })?;
    tracing::info!(by = %caller, filter = wanted.filter, "log level");
    log()
}
