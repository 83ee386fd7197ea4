//! How fast one address may ask: a token bucket for each.

use std::{
    hash::RandomState,
    net::IpAddr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

use super::Network;
use crate::{clock, config::Rate};

/// The buckets of all addresses that have asked lately.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    limiter: RateLimiter<Network, Buckets, Now, NoOpMiddleware<Nanos>>,
    /// Seconds of uptime at the last sweep.
    swept: AtomicU64,
}

/// A request that came too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// The time after which it is worth asking again, in whole seconds.
    pub seconds: u32,
}

/// One number for each address: when its bucket is full again. An address that finds no room is not limited, since
/// refusing strangers would be what an attack with many addresses is after.
#[derive(Debug)]
struct Buckets {
    map: DashMap<Network, AtomicU64>,
    /// Entries of the map, at most [`MOST`].
    count: AtomicUsize,
    most: usize,
}

/// The clock of everybody else, as governor wants it.
#[derive(Clone, Copy, Debug)]
struct Now;

/// Addresses that are remembered; about 10 MiB of them.
const MOST: usize = 1 << 18;
/// From one sweep to the next.
const SWEEP: u64 = 5;

// === impl RateLimit ===

impl RateLimit {
    /// Nobody has asked yet.
    pub fn new(rate: Rate) -> Self {
        Self::with_room(rate, MOST)
    }

    fn with_room(rate: Rate, most: usize) -> Self {
        // The shortest interval is a microsecond, so there is a quota.
        let interval = rate.interval().max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval).expect("longer than zero").allow_burst(rate.burst);
        let buckets =
            Buckets { map: DashMap::with_hasher(RandomState::new()), count: AtomicUsize::new(0), most };
        Self { rate, limiter: RateLimiter::new(quota, buckets, Now), swept: AtomicU64::new(0) }
    }

    /// The rate that it keeps.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one request of this address.
    ///
    /// # Errors
    ///
    /// When it came too soon; then it is not taken.
    pub fn take(&self, address: IpAddr) -> Result<(), TooFast> {
        self.limiter.check_key(&Network::of(address)).map_err(|not_until| {
            let wait = not_until.wait_time_from(Now.now());
            // Rounded up: a client that comes again then is served.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            TooFast { seconds: u32::try_from(seconds.max(1)).unwrap_or(u32::MAX) }
        })
    }

    /// Forgets addresses whose bucket is full again, at most every few seconds however often it is called.
    pub fn sweep(&self) {
        let (now, last) = (clock::uptime().as_secs(), self.swept.load(Ordering::Relaxed));
        let due = now >= last + SWEEP;
        if due && self.swept.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.limiter.retain_recent();
        }
    }
}

// === impl Buckets ===

impl StateStore for Buckets {
    type Key = Network;

    fn measure_and_replace<T, F, E>(&self, key: &Network, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(bucket) = self.map.get(key) {
            return replace(&bucket, measure);
        }
        if self.count.load(Ordering::Relaxed) >= self.most {
            return measure(None).map(|(passed, _)| passed);
        }
        let bucket = match self.map.entry(*key) {
            Entry::Occupied(entry) => entry.into_ref(),
            Entry::Vacant(entry) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                entry.insert(AtomicU64::new(0))
            }
        };
        replace(&bucket, measure)
    }
}

impl ShrinkableKeyedStateStore<Network> for Buckets {
    fn retain_recent(&self, drop_below: Nanos) {
        self.map.retain(|_, bucket| {
            let stays = bucket.load(Ordering::Relaxed) > drop_below.as_u64();
            if !stays {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            stays
        });
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

fn replace<T, F, E>(bucket: &AtomicU64, measure: F) -> Result<T, E>
where
    F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
{
    let mut before = bucket.load(Ordering::Relaxed);
    loop {
        // Zero is a bucket that nothing was taken from.
        let (passed, after) = measure((before > 0).then(|| before.into()))?;
        match bucket.compare_exchange_weak(before, after.into(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(passed),
            Err(other) => before = other,
        }
    }
}

// === impl Now ===

impl Clock for Now {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(clock::uptime())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Period;

    fn limit(count: u32, burst: u32, most: usize) -> RateLimit {
        let number = |number| NonZeroU32::new(number).unwrap();
        let rate = Rate { count: number(count), per: Period::Second, burst: number(burst) };
        RateLimit::with_room(rate, most)
    }

    fn passed(limit: &RateLimit, address: &str, times: usize) -> usize {
        let address = address.parse().unwrap();
        (0..times).filter(|_| limit.take(address).is_ok()).count()
    }

    // The buckets count from the first look at the clock, which must not be the paused one of another test.
    async fn pass(duration: Duration) {
        tokio::time::advance(duration).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_as_many_as_the_rate_says() {
        let limit = limit(10, 5, 100);
        assert_eq!(passed(&limit, "192.0.2.1", 20), 5);
        pass(Duration::from_millis(250)).await;
        assert_eq!(passed(&limit, "192.0.2.1", 20), 2);
        pass(Duration::from_secs(60)).await;
        assert_eq!(passed(&limit, "192.0.2.1", 20), 5, "a pause earns no more than a burst");
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_bucket_and_an_ipv6_network_one() {
        let limit = limit(1, 1, 100);
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"] {
            assert_eq!(passed(&limit, address, 3), 1, "{address}");
        }
        assert_eq!(passed(&limit, "2001:db8::2", 3), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_when_told_is_served() {
        let limit = limit(1, 1, 100);
        let address = "192.0.2.1".parse().unwrap();
        assert!(limit.take(address).is_ok());
        let told = limit.take(address).unwrap_err();
        assert_eq!(told, TooFast { seconds: 1 });
        pass(Duration::from_secs(told.seconds.into())).await;
        assert!(limit.take(address).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_strangers_pass_when_it_is_full() {
        let limit = limit(1, 1, 2);
        for address in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(passed(&limit, address, 2), 1);
        }
        assert_eq!(passed(&limit, "192.0.2.3", 2), 2);
        assert_eq!(limit.limiter.len(), 2);
        pass(Duration::from_secs(3)).await;
        limit.limiter.retain_recent();
        assert!(limit.limiter.is_empty());
        assert_eq!(passed(&limit, "192.0.2.3", 2), 1, "there is room again");
    }
}
