//! A long answer or a WebSocket holds its session: the idle clock starts when it closes.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::Body;

use crate::{
    affinity::{Affinity, Hold, Member, SessionKey, Tick},
    clock,
    world::Pool,
};

/// Keeps one binding alive until it is dropped.
#[derive(Debug)]
pub(super) struct StreamHold {
    affinity: Arc<Affinity>,
    /// Taken by the drop.
    hold: Option<Hold>,
}

/// What an answer does about its session while it passes.
#[derive(Debug)]
pub(super) enum Holding {
    /// Nothing: it is short, or has no session.
    Not,
    /// Not yet: most answers of unknown length are short, and a hold costs two changes of the table.
    Later(Box<Later>),
    /// It holds it.
    Now(#[expect(dead_code, reason = "held for its drop")] StreamHold),
}

/// What it takes to hold a session later.
#[derive(Debug)]
pub(super) struct Later {
    pool: Arc<Pool>,
    key: SessionKey,
    member: Arc<Member>,
    since: Tick,
    passed: u64,
}

/// Answers that have passed no more, in no more time, are not worth a hold.
const SHORT: u64 = 256 * 1024;
const SOON: Duration = Duration::from_secs(1);

// === impl Holding ===

impl Holding {
    /// For an answer whose body is yet to come. One that may be silent for as long as it likes holds its
    /// session at once; any other asks for its next part at least once in `timeouts.body`.
    pub(super) fn of(
        pool: &Arc<Pool>,
        key: Option<SessionKey>,
        member: &Arc<Member>,
        event_stream: bool,
        body: &impl Body,
    ) -> Self {
        let short = body.is_end_stream() || body.size_hint().exact().is_some_and(|length| length <= SHORT);
        match key {
            Some(key) if event_stream => {
                StreamHold::take(pool, Some(key), member).map_or(Self::Not, Self::Now)
            }
            Some(key) if !short => Self::Later(Box::new(Later {
                pool: Arc::clone(pool),
                key,
                member: Arc::clone(member),
                since: clock::tick(),
                passed: 0,
            })),
            _ => Self::Not,
        }
    }

    /// So many bytes have passed.
    pub(super) fn passed(&mut self, bytes: usize) {
        let Self::Later(later) = self else { return };
        later.passed += bytes as u64;
        if later.passed > SHORT || clock::tick().since(later.since) >= SOON {
            let hold = StreamHold::take(&later.pool, Some(later.key), &later.member);
            *self = hold.map_or(Self::Not, Self::Now);
        }
    }
}

// === impl StreamHold ===

impl StreamHold {
    /// Holds the session, if it is in the table.
    pub(super) fn take(pool: &Pool, key: Option<SessionKey>, member: &Arc<Member>) -> Option<Self> {
        let hold = pool.affinity.hold(key?, member, clock::tick())?;
        Some(Self { affinity: Arc::clone(&pool.affinity), hold: Some(hold) })
    }
}

impl Drop for StreamHold {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.affinity.release(hold, clock::tick());
        }
    }
}

/// Whether an answer may be silent for as long as it likes.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.len() >= EVENT_STREAM.len() && value[..EVENT_STREAM.len()].eq_ignore_ascii_case(EVENT_STREAM)
    })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";
