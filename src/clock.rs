//! The only reader of time.
//!
//! Everything else takes `now` as an argument. The monotonic clock is read through tokio, so
//! `tokio::time::pause()` drives in-memory tests through the very code that production runs.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::affinity::Tick;

/// The instant now, on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one reader of time")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall-clock time now; for logs, certificates and cookie dates only, never for deadlines.
#[expect(clippy::disallowed_methods, reason = "the one reader of time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The affinity core's time now: ticks of [`Tick::LENGTH`] since the process first asked.
pub fn tick() -> Tick {
    tick_at(now())
}

/// The tick that `instant` falls into.
pub fn tick_at(instant: Instant) -> Tick {
    Tick::from_elapsed(instant.saturating_duration_since(origin()))
}

/// Time since the process first asked for a tick.
pub fn uptime() -> Duration {
    now().saturating_duration_since(origin())
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(now)
}
