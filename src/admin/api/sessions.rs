//! The sessions of one backend, a page at a time.

use super::{SessionEntry, SessionPage, find, parameter, seconds};
use crate::{
    admin::{
        reply::{Failure, Reply, json},
        router::Target,
    },
    clock,
    world::World,
};

/// Sessions of a page, where the request does not say.
const USUAL_LIMIT: usize = 100;
/// Sessions of a page, at most.
const MAX_LIMIT: usize = 1000;

/// Lists sessions by the short form of their keys; never an id.
pub(in crate::admin) fn sessions(
    world: &World,
    target: &Target<'_>,
    query: Option<&str>,
) -> Result<Reply, Failure> {
    let number = |name, usual| match parameter(query, name) {
        None => Ok(usual),
        Some(text) => text.parse().map_err(|_| Failure::Invalid(format!("`{name}` must be a whole number"))),
    };
    let skip = number("skip", 0)?;
    let limit = number("limit", USUAL_LIMIT)?;
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Failure::Invalid(format!("`limit` must be 1 to {MAX_LIMIT}")));
    }
    let snapshot = world.snapshot.load();
    let (pool, backend) = find(&snapshot, target)?;
    let slot = backend.member.slot();
    let mut found =
        pool.affinity.sessions(&pool.settings, &pool.roster, slot, skip, limit + 1, clock::tick());
    let more = found.len() > limit;
    found.truncate(limit);
    let sessions = found
        .iter()
        .map(|known| SessionEntry {
            fingerprint: known.fingerprint.to_string(),
            state: if known.retained { "retained" } else { "live" }.to_owned(),
            age_seconds: seconds(known.age),
            idle_seconds: seconds(known.idle),
            left_seconds: known.left.map(seconds),
            streams: known.streams,
            moves: known.moves.len(),
            unlearned: known.unlearned,
        })
        .collect();
    Ok(json(&SessionPage { sessions, more }))
}
