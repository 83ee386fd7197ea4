//! What affinity costs per request: `cargo bench --bench affinity`.
//!
//! Counted is the time that a thread is on a CPU, so that other work on the machine does not count.

use std::{
    fs,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use homing::affinity::{
    Affinity, Answer, Ask, Balance, Carrier, Effects, KeyHasher, KeySource, Keys, OnDown, OnUnknown, Roster,
    SessionKey, Settings, Tick,
};
use rustix::time::{ClockId, clock_gettime};

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BINDINGS: usize = 1_000_000;

struct Cookies(Vec<u8>);

impl Carrier for Cookies {
    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&*self.0)
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn client(&self) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

struct Pool {
    affinity: Affinity,
    settings: Settings,
    roster: Roster,
    hasher: KeyHasher,
}

impl Pool {
    fn new(backends: usize) -> Self {
        let settings = Settings {
            keys: vec![KeySource::Cookie("session".into())].into(),
            session_timeout: Duration::from_secs(1_800),
            ttl: Duration::from_secs(2_700),
            max_ttl: Duration::from_secs(2_700),
            max_age: None,
            grace: Duration::from_secs(10),
            on_down: OnDown::Move,
            max_sessions: NonZeroUsize::new(100_000_000).expect("some"),
            skip: Vec::new(),
            balance: Balance::LeastSessions,
            on_unknown: OnUnknown::Hash,
            slow_start: Duration::ZERO,
        };
        let affinity = Affinity::new(Tick::ZERO);
        let names: Vec<String> = (0..backends).map(|number| format!("app-{number}")).collect();
        let list: Vec<(&str, u32)> = names.iter().map(|name| (&**name, 1)).collect();
        let roster = affinity.roster(&list, settings.session_timeout, Tick::ZERO);
        Self { affinity, settings, roster, hasher: KeyHasher::new([9; 16]) }
    }

    fn key(&self, number: usize) -> SessionKey {
        self.hasher.key(format!("{number:x}").as_bytes())
    }

    fn keys(&self, number: usize) -> Keys {
        let cookies = Cookies(format!("session={number:x}").into_bytes());
        Keys::find(&self.settings.keys, &self.hasher, &cookies)
    }

    fn learn(&self, key: SessionKey, random: u64, now: Tick) {
        self.exchange(&Keys::default(), &Effects::begins(key), random, now);
    }

    fn exchange(&self, keys: &Keys, effects: &Effects, random: u64, now: Tick) {
        let ask = Ask {
            hint: None,
            keys,
            skip: false,
            follow: None,
            tried: &[],
            random,
            now,
            waited: false,
            crawls: false,
        };
        let decision = self.affinity.choose(&self.settings, &self.roster, &ask);
        let slot = decision.pick.expect("a backend");
        let answer = Answer { slot, status: 200, effects, keys, now };
        black_box(self.affinity.settle(&self.settings, &self.roster, decision.claim, &answer));
    }

    fn decide(&self, keys: &Keys, now: Tick) {
        let ask = Ask {
            hint: None,
            keys,
            skip: false,
            follow: None,
            tried: &[],
            random: 1,
            now,
            waited: false,
            crawls: false,
        };
        let decision = black_box(self.affinity.choose(&self.settings, &self.roster, &ask));
        self.affinity.abandon(decision.claim);
    }
}

fn known(criterion: &mut Criterion) {
    let pool = Pool::new(3);
    let mut rng = Rng::with_seed(1);
    for number in 0..BINDINGS {
        pool.learn(pool.key(number), rng.u64(..), Tick::new(number as u32 / 1_000));
    }
    // In the order in which requests come: any.
    let keys: Vec<Keys> = (0..1 << 16).map(|_| pool.keys(rng.usize(0..BINDINGS))).collect();
    let next = AtomicUsize::new(0);
    let now = |call: usize| Tick::new(1_000 + (call >> 20) as u32);
    criterion.bench_function("decide and touch, 1,000,000 bindings", |bencher| {
        bencher.iter_custom(|calls| {
            spent(calls, || {
                let call = next.fetch_add(1, Relaxed);
                pool.decide(&keys[call % keys.len()], now(call));
            })
        });
    });
    criterion.bench_function("decide, touch and settle, 1,000,000 bindings", |bencher| {
        bencher.iter_custom(|calls| {
            spent(calls, || {
                let call = next.fetch_add(1, Relaxed);
                pool.exchange(&keys[call % keys.len()], &Effects::SILENT, 1, now(call));
            })
        });
    });
    criterion.bench_function("decide and touch, 1,000,000 bindings, four threads", |bencher| {
        bencher.iter_custom(|calls| {
            let threads: Vec<Duration> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|number| {
                        let (pool, keys) = (&pool, &keys);
                        let mut call = number * 16_000;
                        scope.spawn(move || {
                            spent(calls, || {
                                call += 1;
                                pool.decide(&keys[call % keys.len()], now(call));
                            })
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
            });
            threads.into_iter().sum::<Duration>() / 4
        });
    });
}

fn learn(criterion: &mut Criterion) {
    let pool = Pool::new(3);
    let mut rng = Rng::with_seed(2);
    let keys: Vec<SessionKey> = (0..4_000_000).map(|number| pool.key(number)).collect();
    let mut number = 0;
    criterion.bench_function("place and learn", |bencher| {
        bencher.iter_custom(|calls| {
            spent(calls, || {
                pool.learn(keys[number % keys.len()], rng.u64(..), Tick::new((number / 100_000) as u32));
                number += 1;
            })
        });
    });
}

/// Not by criterion: what counts is the longest.
fn expire(_: &mut Criterion) {
    let pool = Pool::new(3);
    let mut rng = Rng::with_seed(3);
    for number in 0..BINDINGS {
        pool.learn(pool.key(number), rng.u64(..), Tick::new(number as u32 / 100_000));
    }
    for (what, at) in [("retained", 18_100), ("gone", 27_100)] {
        let (mut took, mut disturbed) = (Vec::new(), 0);
        loop {
            let (before, started) = (slices(), instant());
            let more = pool.affinity.tick(&pool.settings, Tick::new(at), 4096);
            let elapsed = started.elapsed();
            // Another thread had the CPU for a while: that says nothing.
            if slices() == before {
                took.push(elapsed);
            } else {
                disturbed += 1;
            }
            if !more {
                break;
            }
        }
        took.sort_unstable();
        println!(
            "1,000,000 to {what}: {} ticks and {disturbed} disturbed ones, median {:?}, longest {:?}",
            took.len(),
            took[took.len() / 2],
            took[took.len() - 1]
        );
    }
    assert_eq!(pool.affinity.sizes().table, 0);
}

fn extract(criterion: &mut Criterion) {
    let pool = Pool::new(3);
    let mut header: Vec<String> =
        (0..39).map(|number| format!("cookie-{number:02}={}", "v".repeat(91))).collect();
    header.push(format!("session={}", "s".repeat(64)));
    let cookies = Cookies(header.join("; ").into_bytes());
    let length = cookies.0.len();
    assert!((4_000..4_300).contains(&length), "{length}");
    criterion.bench_function("id out of a 4 KiB Cookie header with 40 cookies", |bencher| {
        bencher.iter_custom(|calls| {
            spent(calls, || {
                black_box(Keys::find(&pool.settings.keys, &pool.hasher, black_box(&cookies)));
            })
        });
    });
}

fn place(criterion: &mut Criterion) {
    for backends in [3, 300] {
        let pool = Pool::new(backends);
        let (none, unknown) = (Keys::default(), pool.keys(1));
        let mut rng = Rng::with_seed(4);
        for (what, keys) in [("no id", &none), ("an unknown id", &unknown)] {
            criterion.bench_function(&format!("choose for {what}, {backends} backends"), |bencher| {
                bencher.iter_custom(|calls| {
                    spent(calls, || {
                        let random = rng.u64(..);
                        let now = Tick::ZERO;
                        let ask = Ask {
                            hint: None,
                            keys,
                            skip: false,
                            follow: None,
                            tried: &[],
                            random,
                            now,
                            waited: false,
                            crawls: false,
                        };
                        let decision = pool.affinity.choose(&pool.settings, &pool.roster, &ask);
                        pool.affinity.abandon(decision.claim);
                    })
                });
            });
        }
    }
}

/// What this thread has spent on a CPU so far.
fn on_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("time goes on")
}

/// How often this thread was given a CPU so far.
fn slices() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split_whitespace().nth(2).and_then(|text| text.parse().ok()).expect("a number")
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn instant() -> Instant {
    Instant::now()
}

/// Calls a function so often, and says what that cost.
fn spent(calls: u64, mut call: impl FnMut()) -> Duration {
    let before = on_cpu();
    (0..calls).for_each(|_| call());
    on_cpu() - before
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = known, learn, expire, extract, place
}
criterion_main!(benches);
