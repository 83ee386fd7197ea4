//! Taking a backend out, waiting for it, and taking it in again.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use serde::Deserialize;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Caller, DrainProgress, find, parameter, seconds, status};
use crate::{
    admin::{
        reply::{Failure, Reply, json, read},
        router::Target,
    },
    affinity::Tick,
    backend::Backend,
    config::format_duration,
    world::{Pool, World},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainWish {
    deadline_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightWish {
    weight: NonZeroU32,
}

/// The longest that a question may wait for its answer.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The longest deadline of a drain.
const MAX_DEADLINE: Duration = Duration::from_hours(24 * 365);
/// The largest weight, as in the configuration.
const MAX_WEIGHT: u32 = 1000;

/// Begins a drain, or gives one that is under way another deadline.
pub(in crate::admin) async fn drain(
    world: &World,
    caller: Caller,
    target: &Target<'_>,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<Reply, Failure> {
    let wish: DrainWish = read(headers, body, "{\"deadline_seconds\": 3600} or {}").await?;
    let deadline = wish.deadline_seconds.map(|deadline| {
        duration(deadline, MAX_DEADLINE)
            .ok_or_else(|| Failure::Invalid("`deadline_seconds` must be between 0 and a year".to_owned()))
    });
    let deadline = deadline.transpose()?;
    change(world, target, |pool, backend| {
        backend.drain(deadline);
        let deadline = deadline.map(format_duration);
        tracing::info!(by = %caller, pool = %pool.name, backend = backend.name(), ?deadline, "drain");
    })
}

/// Ends a drain or maintenance: the backend serves again.
pub(in crate::admin) fn undrain(
    world: &World,
    caller: Caller,
    target: &Target<'_>,
) -> Result<Reply, Failure> {
    change(world, target, |pool, backend| {
        backend.undrain();
        tracing::info!(by = %caller, pool = %pool.name, backend = backend.name(), "undrain");
    })
}

/// Takes a backend out at once.
pub(in crate::admin) fn maintenance(
    world: &World,
    caller: Caller,
    target: &Target<'_>,
) -> Result<Reply, Failure> {
    change(world, target, |pool, backend| {
        backend.maintain();
        tracing::info!(by = %caller, pool = %pool.name, backend = backend.name(), "maintenance");
    })
}

/// Gives a backend another weight, until the configuration does.
pub(in crate::admin) async fn weigh(
    world: &World,
    caller: Caller,
    target: &Target<'_>,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<Reply, Failure> {
    let wish: WeightWish = read(headers, body, "{\"weight\": 1} with 1 to 1000").await?;
    let weight = wish.weight.get();
    if weight > MAX_WEIGHT {
        return Err(Failure::Invalid(format!("`weight` must be 1 to {MAX_WEIGHT}")));
    }
    change(world, target, |pool, backend| {
        let before = backend.member.weight();
        backend.member.set_weight(weight);
        tracing::info!(by = %caller, pool = %pool.name, backend = backend.name(), before, weight, "weight");
    })
}

/// How far a drain is; with `wait_seconds`, as soon as it is done, or after that time.
pub(in crate::admin) async fn progress(
    world: &World,
    waiters: &Semaphore,
    target: &Target<'_>,
    query: Option<&str>,
) -> Result<Reply, Failure> {
    let wait = match parameter(query, "wait_seconds") {
        None => Duration::ZERO,
        Some(text) => text
            .parse()
            .ok()
            .and_then(|wait| duration(wait, MAX_WAIT))
            .ok_or_else(|| Failure::Invalid("`wait_seconds` must be between 0 and 300".to_owned()))?,
    };
    let look = || {
        let snapshot = world.snapshot.load();
        find(&snapshot, target).map(|(pool, backend)| progress_of(pool, backend))
    };
    let first = look()?;
    if first.done || wait.is_zero() {
        return Ok(json(&first));
    }
    let Ok(_place) = waiters.try_acquire() else {
        return Err(Failure::Busy("too many clients wait for drains"));
    };
    let done = async {
        loop {
            sleep(Tick::LENGTH).await;
            match look() {
                Ok(progress) if !progress.done => {}
                result => return result,
            }
        }
    };
    match timeout(wait, done).await {
        Ok(result) => result.map(|progress| json(&progress)),
        Err(_) => look().map(|progress| json(&progress)),
    }
}

fn progress_of(pool: &Pool, backend: &Backend) -> DrainProgress {
    let member = &backend.member;
    let (live, streams) = (u64::from(member.live()), u64::from(member.streams()));
    DrainProgress {
        done: live == 0 && streams == 0,
        state: status::state(backend).to_owned(),
        live,
        retained: member.retained().into(),
        streams,
        in_flight: member.in_flight().into(),
        eta_seconds: pool.drain_eta(backend).map(seconds),
        deadline_seconds: backend.steering.deadline_in().map(seconds),
    }
}

/// Changes a backend and shows it afterwards.
fn change(
    world: &World,
    target: &Target<'_>,
    change: impl FnOnce(&Pool, &Backend),
) -> Result<Reply, Failure> {
    let snapshot = world.snapshot.load();
    let (pool, backend) = find(&snapshot, target)?;
    change(pool, backend);
    Ok(json(&status::backend(pool, backend)))
}

fn duration(seconds: f64, max: Duration) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= max)
}
