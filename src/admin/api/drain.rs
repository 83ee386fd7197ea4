//! Taking a backend out, waiting for it, and taking it in again.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use serde::{Deserialize, Deserializer};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Caller, DrainEnd, DrainProgress, find, find_or_former, parameter, seconds, status};
use crate::{
    admin::{
        reply::{Failure, Reply, json, read},
        router::Target,
    },
    affinity::{Admin, Tick},
    backend::{Backend, Cut, CutBy, Deadline},
    config::format_duration,
    world::{Pool, World},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainWish {
    /// Absent: what was said before; null: none.
    #[serde(default, deserialize_with = "given")]
    deadline_seconds: Option<Option<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightWish {
    weight: NonZeroU32,
}

/// The longest that a question may wait for its answer.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// A drain that looks done is looked at once more after this: a worker may just then be sending a request there that
/// it placed before the drain began.
const CONFIRM: Duration = Duration::from_millis(20);
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
    let deadline = match wish.deadline_seconds {
        None => Deadline::Keep,
        Some(None) => Deadline::Never,
        Some(Some(time)) => duration(time, MAX_DEADLINE)
            .map(Deadline::After)
            .ok_or_else(|| Failure::Invalid("`deadline_seconds` must be between 0 and a year".to_owned()))?,
    };
    change(world, target, |pool, backend| {
        backend.drain(deadline, pool.moved_away(backend));
        let deadline =
            backend.standing.steering.deadline_in().map_or_else(|| "none".to_owned(), whole_seconds);
        tracing::info!(by = %caller, pool = %pool.name, backend = backend.name(), deadline, "drain");
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

/// How far a drain is; with `wait_seconds`, as soon as it has ended, or after that time.
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
        find_or_former(&snapshot, target).map(|(pool, backend)| progress_of(pool, backend))
    };
    let mut first = look()?;
    if first.ended == Some(DrainEnd::Drained) {
        sleep(CONFIRM).await;
        first = look()?;
    }
    if wait.is_zero() || first.ended.is_some() {
        return Ok(json(&first));
    }
    let Ok(_place) = waiters.try_acquire() else {
        return Err(Failure::Busy("too many clients wait for drains"));
    };
    let done = async {
        loop {
            sleep(Tick::LENGTH).await;
            match look() {
                Ok(progress) if progress.ended.is_none() => {}
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
    let (member, steering) = (&backend.member, &backend.standing.steering);
    let left = backend.left();
    let done = left.is_nothing();
    let cut = steering.cut();
    let away = pool.moved_away(backend).saturating_sub(steering.moved_before());
    let removed = pool.backend(backend.name()).is_none();
    let ended = match (member.admin(), cut) {
        (_, Some(Cut { by: CutBy::Removed, .. })) if removed => Some(DrainEnd::Removed),
        _ if removed => Some(DrainEnd::Drained),
        (Admin::Ready, _) => Some(DrainEnd::Undrained),
        (_, Some(Cut { by: CutBy::Deadline, .. })) => Some(DrainEnd::Deadline),
        (_, Some(Cut { by: CutBy::Maintenance, .. })) => Some(DrainEnd::Maintenance),
        _ if !done => None,
        (_, Some(Cut { by: CutBy::Restarted, .. })) => Some(DrainEnd::Restarted),
        _ if steering.wanted() == Admin::Draining && away > 0 => Some(DrainEnd::Down),
        _ => Some(DrainEnd::Drained),
    };
    let lost = cut.filter(|_| ended != Some(DrainEnd::Undrained)).map(|cut| cut.left).unwrap_or_default();
    DrainProgress {
        done,
        ended,
        moved: if ended == Some(DrainEnd::Down) { away } else { lost.sessions.into() },
        cut_streams: lost.streams.into(),
        cut_requests: lost.requests.into(),
        state: status::state(backend).to_owned(),
        live: left.sessions.into(),
        retained: member.retained().into(),
        streams: left.streams.into(),
        in_flight: member.in_flight().into(),
        queued: backend.room.waiting().into(),
        eta_seconds: pool.drain_eta(backend).map(seconds),
        deadline_seconds: backend.standing.steering.deadline_in().map(seconds),
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
    Ok(json(&status::backend(&snapshot.config, pool, backend)))
}

/// Tells `null` from a field that is not there.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(value).map(Some)
}

fn whole_seconds(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_secs_f64().round() as u64))
}

fn duration(seconds: f64, max: Duration) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= max)
}
