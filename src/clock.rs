//! The only reader of time.
//!
//! Everything else takes `now` as an argument. The monotonic clock is read through tokio, so
//! `tokio::time::pause()` drives in-memory tests through the very code that production runs.

use std::{
    cell::Cell,
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::affinity::Tick;

/// The instant now, on the monotonic clock; for what runs in [`steady`], when its turn began.
#[expect(clippy::disallowed_methods, reason = "the one reader of time")]
pub fn now() -> Instant {
    match TURN.get() {
        Turn::None => Instant::now(),
        Turn::At(instant) => instant,
        Turn::Begun => {
            let now = Instant::now();
            TURN.set(Turn::At(now));
            now
        }
    }
}

/// Runs a future for which time stands still while it is polled: what serves a request asks for the time ten times
/// over, in a few microseconds. Time passes between polls, and timers see it, so deadlines are kept; whatever computes
/// for long in one poll must not run in here.
pub fn steady<F: Future + Unpin>(future: F) -> Steady<F> {
    Steady(future)
}

/// See [`steady`].
#[derive(Debug)]
pub struct Steady<F>(F);

/// Whether time stands still on this thread.
#[derive(Clone, Copy)]
enum Turn {
    None,
    /// It will from the next question on.
    Begun,
    At(Instant),
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
}

// === impl Steady ===

impl<F: Future + Unpin> Future for Steady<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Also when the poll panics.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                TURN.set(Turn::None);
            }
        }
        TURN.set(Turn::Begun);
        let _end = End;
        Pin::new(&mut self.0).poll(cx)
    }
}

/// The wall-clock time now; for logs, certificates and cookie dates only, never for deadlines.
#[expect(clippy::disallowed_methods, reason = "the one reader of time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall-clock time now, in milliseconds since 1970: what leaves the process carries it.
pub fn unix_ms() -> u64 {
    millis(wall().duration_since(UNIX_EPOCH).unwrap_or_default())
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
    Tick::from_elapsed(Duration::from_millis(time.saturating_sub(anchor()))).min(tick())
}

/// The wall-clock time of a tick in Unix milliseconds; that of a tick to come, too. The same whenever it is asked,
/// unless the wall clock was set meanwhile.
pub fn unix_ms_of_tick(tick: Tick) -> u64 {
    anchor().saturating_add(millis(tick.since(Tick::ZERO)))
}

/// The wall-clock time of tick zero in Unix milliseconds. It stays when the clock is slewed, so that a time does
/// not change while it is compared; it follows when the clock is set.
fn anchor() -> u64 {
    static ANCHOR: AtomicU64 = AtomicU64::new(0);
    let known = ANCHOR.load(Relaxed);
    let now = unix_ms().saturating_sub(millis(PAST + uptime()));
    if known != 0 && known.abs_diff(now) <= SLEW {
        return known;
    }
    match ANCHOR.compare_exchange(known, now, Relaxed, Relaxed) {
        Ok(_) => now,
        Err(other) => other,
    }
}

/// Whole milliseconds, as times leave the process; a time that is longer than they can say is the longest.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Time since the process first asked for a tick.
pub fn uptime() -> Duration {
    now().saturating_duration_since(origin())
}

/// How long before the process's first question the ticks begin: bindings that come from an earlier process
/// have times before it. As long as the longest duration that can be configured.
const PAST: Duration = Duration::from_secs(5 * 366 * 24 * 60 * 60);

/// Milliseconds by which the wall clock may drift from the monotonic one before it counts as set.
const SLEW: u64 = 500;

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(now)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "what the reader of time is compared with")]
    async fn time_stands_still_within_a_turn_and_passes_between_turns() {
        let minute = Duration::from_secs(60);
        let future = async {
            let before = now();
            let asked = Instant::now();
            while Instant::now() == asked {
                tokio::time::advance(minute).now_or_never();
            }
            assert_eq!(now(), before);
            tokio::time::sleep(minute).await;
            assert!(now() >= before + minute);
            now()
        };
        let last = steady(Box::pin(future)).await;
        tokio::time::advance(minute).await;
        assert!(now() >= last + minute);
    }

    #[test]
    fn a_tick_has_one_wall_clock_time_and_back() {
        let tick = Tick::new(tick().get() - 12_345);
        let time = unix_ms_of_tick(tick);
        let until = now() + Duration::from_millis(150);
        while now() < until {
            assert_eq!(unix_ms_of_tick(tick), time);
            assert_eq!(tick_of_unix_ms(time), tick);
        }
        assert!(unix_ms().abs_diff(unix_ms_of_tick(self::tick())) <= 100 + SLEW);
        assert_eq!(tick_of_unix_ms(u64::MAX), self::tick());
        assert_eq!(tick_of_unix_ms(0), Tick::ZERO);
    }
}
