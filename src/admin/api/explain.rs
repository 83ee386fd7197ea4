//! Where one session lives, and making it live elsewhere or nowhere.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use serde::Deserialize;

use super::{Caller, Explained, ExplainedKnown, ExplainedMove, Forgotten, Moved, seconds};
use crate::{
    admin::reply::{Failure, Reply, json, read},
    affinity::{Explanation, Known, SessionKey, Slot},
    clock,
    world::{Pool, Snapshot, World},
};

/// A session id, as it came in a body. No `Debug`: it is a credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    id: String,
    pool: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveWish {
    id: String,
    to: String,
    pool: Option<String>,
}

/// A session that is asked for.
struct Asked {
    pool: Arc<Pool>,
    key: SessionKey,
    explanation: Explanation,
}

/// Says where a session lives, since when, and why.
pub(in crate::admin) async fn explain(
    world: &World,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<Reply, Failure> {
    let question: Question = read(headers, body, "{\"id\": \"<session id>\", \"pool\": \"<name>\"}").await?;
    let asked = ask(world, &question.id, question.pool.as_deref())?;
    let name = |slot| name_of(&asked.pool, slot);
    let pool = asked.pool.name.to_string();
    Ok(json(&match asked.explanation {
        Explanation::Known(known) => Explained::Known(describe(pool, &known, name)),
        Explanation::Unknown { would_go_to, placed } => Explained::Unknown {
            pool,
            fingerprint: asked.key.fingerprint().to_string(),
            known: false,
            would_go_to: would_go_to.map(name),
            placed,
        },
    }))
}

/// Ends a session.
pub(in crate::admin) async fn forget(
    world: &World,
    caller: Caller,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<Reply, Failure> {
    let question: Question = read(headers, body, "{\"id\": \"<session id>\", \"pool\": \"<name>\"}").await?;
    let Asked { pool, key, .. } = ask(world, &question.id, question.pool.as_deref())?;
    // First, so that no request in between finds it there again.
    let shared = match &world.shared {
        Some(shared) => Some(shared.forget(&pool, key).await),
        None => None,
    };
    let forgotten = pool.affinity.forget(&pool.settings, key, clock::tick());
    tracing::info!(by = %caller, pool = %pool.name, session = %key.fingerprint(), forgotten, "forget session");
    if shared == Some(false) {
        tracing::warn!(session = %key.fingerprint(), "redis has not heard of it: other replicas keep the session");
    }
    Ok(json(&Forgotten { forgotten }))
}

/// Gives a session another home.
pub(in crate::admin) async fn move_to(
    world: &World,
    caller: Caller,
    headers: &HeaderMap,
    body: impl Body<Data = Bytes, Error = hyper::Error>,
) -> Result<Reply, Failure> {
    let shape = "{\"id\": \"<session id>\", \"to\": \"<backend>\", \"pool\": \"<name>\"}";
    let wish: MoveWish = read(headers, body, shape).await?;
    let Asked { pool, key, explanation } = ask(world, &wish.id, wish.pool.as_deref())?;
    let Some(to) = pool.backend(&wish.to) else {
        return Err(Failure::NotFound { kind: "backend", name: wish.to.escape_debug().to_string() });
    };
    if !to.member.serves_home() {
        return Err(Failure::Conflict(format!("{} does not serve: the session would move on", to.name())));
    }
    let Explanation::Known(known) = explanation else {
        return Ok(json(&Moved { moved: false, known: false }));
    };
    let moved = (known.stale || known.home != to.member.slot())
        && pool.affinity.move_to(&pool.settings, key, &to.member, clock::tick());
    let from = name_of(&pool, known.home);
    tracing::info!(
        by = %caller, pool = %pool.name, session = %key.fingerprint(), from, to = to.name(), moved,
        "move session"
    );
    Ok(json(&Moved { moved, known: true }))
}

/// Finds the pool and the key that are meant. An id may be a key in several ways where a pool looks for
/// it in several places: the one that is known is meant, or else the first.
fn ask(world: &World, id: &str, pool: Option<&str>) -> Result<Asked, Failure> {
    let snapshot = world.snapshot.load();
    let pool = pool_of(&snapshot, pool)?;
    let keys = pool.settings.keys.iter();
    let mut keys = keys.filter_map(|source| source.key_of(&world.hasher, id.as_bytes()));
    let Some(first) = keys.next() else {
        return Err(Failure::Invalid(if pool.settings.keys.is_empty() {
            format!("pool {} has no affinity", pool.name)
        } else {
            "`id` cannot be one of this pool's sessions".to_owned()
        }));
    };
    let explain = |key| pool.affinity.explain(&pool.settings, &pool.roster, key, clock::tick());
    let known = std::iter::once(first).chain(keys).find(|key| matches!(explain(*key), Explanation::Known(_)));
    let key = known.unwrap_or(first);
    Ok(Asked { explanation: explain(key), key, pool: Arc::clone(pool) })
}

fn pool_of<'a>(snapshot: &'a Snapshot, name: Option<&str>) -> Result<&'a Arc<Pool>, Failure> {
    match (name, &snapshot.pools[..]) {
        (Some(name), _) => snapshot
            .pool(name)
            .ok_or_else(|| Failure::NotFound { kind: "pool", name: name.escape_debug().to_string() }),
        (None, [pool]) => Ok(pool),
        (None, pools) => {
            let names: Vec<&str> = pools.iter().map(|pool| &*pool.name).collect();
            Err(Failure::Invalid(format!("which pool? `pool` must be one of {}", names.join(", "))))
        }
    }
}

fn describe(pool: String, known: &Known, name: impl Fn(Slot) -> String) -> ExplainedKnown {
    let now = clock::tick();
    ExplainedKnown {
        pool,
        fingerprint: known.fingerprint.to_string(),
        known: true,
        home: name(known.home),
        state: match known {
            Known { stale: true, .. } => "stale",
            Known { retained: true, .. } => "retained",
            Known { .. } => "live",
        }
        .to_owned(),
        age_seconds: seconds(known.age),
        idle_seconds: seconds(known.idle),
        left_seconds: known.left.map(seconds),
        streams: known.streams,
        unlearned: known.unlearned,
        moves: known
            .moves
            .iter()
            .map(|step| ExplainedMove {
                from: name(step.from),
                to: name(step.to),
                reason: step.reason.as_str().to_owned(),
                seconds_ago: seconds(now.since(step.at)),
            })
            .collect(),
    }
}

/// A backend's name, also of one that has left the configuration as far as it is still known.
fn name_of(pool: &Pool, slot: Slot) -> String {
    match pool.affinity.member(slot) {
        Some(member) => member.name().to_owned(),
        None => format!("slot {}", slot.get()),
    }
}
