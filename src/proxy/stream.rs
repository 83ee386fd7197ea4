//! A long answer or a WebSocket holds its session: the idle clock starts when it closes.

use std::sync::Arc;

use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::Body;

use crate::{
    affinity::{Affinity, Hold, Member, SessionKey},
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

/// Answers of a known length up to this pass through before any session could expire.
const SHORT: u64 = 256 * 1024;

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

/// Whether an answer may take long: of unknown or great length.
pub(super) fn is_long(body: &impl Body) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none_or(|length| length > SHORT)
}

/// Whether an answer may be silent for as long as it likes.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.len() >= EVENT_STREAM.len() && value[..EVENT_STREAM.len()].eq_ignore_ascii_case(EVENT_STREAM)
    })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";
