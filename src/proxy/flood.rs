//! Frames of HTTP/2 that cost a client nothing and the proxy something (CVE-2019-9511 to 9518, CVE-2023-44487,
//! CVE-2025-8671).
//!
//! Each kind has a budget for ten seconds of one connection. The clock is read only when one is used up. What passes
//! is useful: each KiB of body, in either direction, pays for one more frame of most kinds, and each request for those
//! that clients send along with it. Nothing pays for frames that make work in vain.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;

/// A kind of frame that has a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// PING, acknowledged or not.
    Ping,
    /// SETTINGS, acknowledged or not.
    Settings,
    /// PRIORITY, PRIORITY_UPDATE, and whatever else is ignored.
    Priority,
    /// RST_STREAM.
    Reset,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// CONTINUATION.
    Continuation,
    /// DATA of no bytes that ends nothing.
    Data,
    /// Whatever makes us reset a stream.
    Broken,
    /// What is for a stream that is over.
    Crossed,
}

/// Counts the frames of a client.
#[derive(Debug)]
pub(super) struct Meter {
    counts: [u32; Kind::ALL.len()],
    requests: u32,
    /// Bytes of DATA in, and of anything out.
    useful: u64,
    /// Begin of the time that is counted.
    since: Instant,
}

/// The time that budgets are for.
const PERIOD: Duration = Duration::from_secs(10);
/// Useful bytes that pay for one frame of any kind.
const PRICE: u64 = 1024;

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 9] = [
        Self::Ping,
        Self::Settings,
        Self::Priority,
        Self::Reset,
        Self::WindowUpdate,
        Self::Continuation,
        Self::Data,
        Self::Broken,
        Self::Crossed,
    ];

    /// The label value.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::Priority => "priority",
            Self::Reset => "reset",
            Self::WindowUpdate => "window-update",
            Self::Continuation => "continuation",
            Self::Data | Self::Broken | Self::Crossed => "other",
        }
    }

    /// Whether useful bytes pay for more. A stream that is begun and left costs a backend a request.
    const fn is_paid_for(self) -> bool {
        !matches!(self, Self::Reset | Self::Broken | Self::Crossed)
    }

    /// Frames in [`PERIOD`] that are free, and that come with each request.
    const fn budget(self) -> (u32, u32) {
        match self {
            Self::Ping => (200, 0),
            Self::Settings => (100, 0),
            Self::Priority => (1000, 4),
            // A page that is left takes all its streams along; nothing resets so much for ten seconds.
            Self::Reset => (500, 0),
            Self::WindowUpdate => (2000, 4),
            Self::Continuation => (500, 1),
            Self::Data => (500, 4),
            Self::Broken => (256, 0),
            Self::Crossed => (1000, 0),
        }
    }
}

// === impl Meter ===

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { counts: [0; Kind::ALL.len()], requests: 0, useful: 0, since: now }
    }

    /// A request has come.
    pub(super) fn request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// So many useful bytes have come or gone.
    pub(super) fn useful(&mut self, bytes: u64) {
        self.useful = self.useful.saturating_add(bytes);
    }

    /// A frame of this kind has come.
    ///
    /// # Errors
    ///
    /// It is one too many.
    pub(super) fn count(&mut self, kind: Kind) -> Result<(), Kind> {
        let count = &mut self.counts[kind as usize];
        *count = count.saturating_add(1);
        if *count > kind.budget().0 && self.is_flood(kind) { Err(kind) } else { Ok(()) }
    }

    /// Whether more have come of this kind than are free and paid for. What is old news is forgotten, and the count
    /// begins anew: what passed an hour ago does not pay for a flood now.
    fn is_flood(&mut self, kind: Kind) -> bool {
        let now = clock::now();
        if now.saturating_duration_since(self.since) >= PERIOD {
            (self.counts, self.requests, self.useful) = ([0; Kind::ALL.len()], 0, 0);
            self.since = now;
            return false;
        }
        let (free, each) = kind.budget();
        let paid =
            if kind.is_paid_for() { u32::try_from(self.useful / PRICE).unwrap_or(u32::MAX) } else { 0 };
        let allowed = free.saturating_add(each.saturating_mul(self.requests)).saturating_add(paid);
        self.counts[kind as usize] > allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Meter {
        Meter::new(clock::now())
    }

    /// How many of these frames pass, the one that is too much included; none when all do.
    fn passed(meter: &mut Meter, kind: Kind, times: usize) -> Option<usize> {
        (1..=times).find(|_| meter.count(kind).is_err())
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_its_budget() {
        for kind in Kind::ALL {
            assert_eq!(passed(&mut begun(), kind, 5000), Some(kind.budget().0 as usize + 1), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_over_a_long_time_is_no_flood() {
        let mut meter = begun();
        for _ in 0..100 {
            assert_eq!(passed(&mut meter, Kind::Ping, 150), None);
            tokio::time::advance(PERIOD).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_bodies_pay_for_frames_of_their_own() {
        let mut meter = begun();
        for _ in 0..5000 {
            // As browsers do.
            meter.request();
            assert_eq!(passed(&mut meter, Kind::WindowUpdate, 2), None);
        }
        let mut meter = begun();
        for _ in 0..5000 {
            // A download of which each frame is acknowledged twice.
            meter.useful(16 * 1024);
            assert_eq!(passed(&mut meter, Kind::WindowUpdate, 2), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_requests_nor_bytes_pay_for_resets() {
        let mut meter = begun();
        let resets = (1..=5000).find(|_| {
            meter.request();
            meter.useful(16 * 1024);
            meter.count(Kind::Reset).is_err()
        });
        assert_eq!(resets, Some(501));
    }

    #[tokio::test(start_paused = true)]
    async fn what_passed_long_ago_does_not_pay() {
        let mut meter = begun();
        meter.useful(1 << 30);
        tokio::time::advance(PERIOD).await;
        // The one that is beyond the free ones begins a new count.
        assert_eq!(passed(&mut meter, Kind::Ping, 5000), Some(201 + 201));
    }
}
