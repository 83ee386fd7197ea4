//! Time as the affinity core sees it.

use std::time::Duration;

/// A point in time in units of [`Tick::LENGTH`] since the process started.
///
/// 32 bits last for 13 years and keep a binding small. The core never reads a clock: whoever calls
/// it says what time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u32);

impl Tick {
    /// How long one tick lasts.
    pub const LENGTH: Duration = Duration::from_millis(100);
    /// The first tick of the process.
    pub const ZERO: Self = Self(0);
    /// A time that never comes.
    pub const NEVER: Self = Self(u32::MAX);

    /// The tick that is `count` ticks after the start.
    pub const fn new(count: u32) -> Self {
        Self(count)
    }

    /// Ticks since the start.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The tick into which a time since the start falls.
    pub fn from_elapsed(elapsed: Duration) -> Self {
        Self(u32::try_from(elapsed.as_millis() / Self::LENGTH.as_millis()).unwrap_or(u32::MAX))
    }

    /// The first tick that begins no earlier than `wait` after the start of this one.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let ticks = wait.as_millis().div_ceil(Self::LENGTH.as_millis());
        Self(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    /// Time from `earlier` to this tick; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Self::LENGTH * self.0.saturating_sub(earlier.0)
    }
}
