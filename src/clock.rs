//! The only reader of time.
//!
//! Everything else takes `now` as an argument. The monotonic clock is read through tokio, so
//! `tokio::time::pause()` drives in-memory tests through the very code that production runs.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
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

/// The wall-clock time now, in milliseconds since 1970: what leaves the process carries it.
pub fn unix_ms() -> u64 {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The affinity core's time now: ticks of [`Tick::LENGTH`], see [`PAST`].
pub fn tick() -> Tick {
    tick_at(now())
}

/// The tick that `instant` falls into.
pub fn tick_at(instant: Instant) -> Tick {
    Tick::from_elapsed(PAST + instant.saturating_duration_since(origin()))
}

/// The tick of a wall-clock time in Unix milliseconds; the future is now.
pub fn tick_of_unix_ms(time: u64) -> Tick {
    let ago = Duration::from_millis(unix_ms().saturating_sub(time));
    Tick::from_elapsed((PAST + uptime()).saturating_sub(ago))
}

/// The wall-clock time of a tick in Unix milliseconds; that of a tick to come, too.
pub fn unix_ms_of_tick(tick: Tick) -> u64 {
    let now = self::tick();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    unix_ms().saturating_sub(millis(now.since(tick))).saturating_add(millis(tick.since(now)))
}

/// Time since the process first asked for a tick.
pub fn uptime() -> Duration {
    now().saturating_duration_since(origin())
}

/// How long before the process's first question the ticks begin: bindings that come from an earlier process
/// have times before it. As long as the longest duration that can be configured.
const PAST: Duration = Duration::from_secs(5 * 366 * 24 * 60 * 60);

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(now)
}
