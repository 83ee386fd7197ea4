//! The affinity core under real threads: whatever they do to the same few sessions, every reading obeys the
//! laws of conservation, and at the end the books agree with the table. And under a flood of made-up ids.

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Duration,
};

use fastrand::Rng;
use homing::affinity::{
    Affinity, Answer, Ask, Balance, Carrier, Change, Effect, Effects, KeyHasher, KeySource, Keys, OnDown,
    OnUnknown, Roster, Scope, SessionKey, Settings, Slot, Tick, Verdict,
};
use rustix::time::{ClockId, clock_gettime};

/// A client with this cookie.
struct Client(String);

impl Carrier for Client {
    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.0.as_bytes())
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
    now: AtomicU32,
}

impl Pool {
    fn new(max_sessions: usize) -> Self {
        let settings = Settings {
            keys: vec![KeySource::Cookie("s".into())].into(),
            session_timeout: Duration::from_secs(3),
            ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(9),
            max_age: None,
            grace: Duration::from_millis(300),
            on_down: OnDown::Move,
            max_sessions: NonZeroUsize::new(max_sessions).expect("some"),
            skip: Vec::new(),
            balance: Balance::LeastSessions,
            on_unknown: OnUnknown::Hash,
            slow_start: Duration::ZERO,
        };
        let affinity = Affinity::new(Tick::ZERO);
        let roster = affinity.roster(&[("a", 1), ("b", 2), ("c", 1)], settings.session_timeout, Tick::ZERO);
        Self { affinity, settings, roster, hasher: KeyHasher::new([3; 16]), now: AtomicU32::new(0) }
    }

    fn at(&self) -> Tick {
        Tick::new(self.now.load(Relaxed))
    }

    fn key(&self, id: u64) -> SessionKey {
        self.hasher.key(format!("{id:x}").as_bytes())
    }

    fn keys(&self, id: Option<u64>) -> Keys {
        let cookie = id.map(|id| format!("s={id:x}")).unwrap_or_default();
        Keys::find(&self.settings.keys, &self.hasher, &Client(cookie))
    }

    fn exchange(
        &self,
        keys: &Keys,
        status: u16,
        effects: Effects,
        random: u64,
    ) -> Option<(Slot, Verdict, Change)> {
        let ask = Ask {
            hint: None,
            keys,
            skip: false,
            follow: None,
            tried: &[],
            random,
            now: self.at(),
            waited: false,
            crawls: false,
        };
        let decision = self.affinity.choose(&self.settings, &self.roster, &ask);
        let Some(slot) = decision.pick else {
            self.affinity.abandon(decision.claim);
            return None;
        };
        let answer = Answer { slot, status, effects: &effects, keys, now: self.at() };
        let settled = self.affinity.settle(&self.settings, &self.roster, decision.claim, &answer);
        Some((slot, decision.verdict, settled.change))
    }

    /// One thread's next deed, on one of a few sessions, so that threads meet.
    fn act(&self, rng: &mut Rng) {
        let id = rng.u64(0..300);
        let other = id ^ rng.u64(0..4);
        let scope = Scope::from_bits(1_000 + rng.u16(0..2));
        let set = |lasts: u64| {
            let lasts = (lasts > 3).then(|| Duration::from_secs(lasts));
            Effects::from(Effect::Set { key: self.key(other), scope, lasts })
        };
        let keys = self.keys((rng.u8(0..8) > 0).then_some(id));
        let random = rng.u64(..);
        match rng.u32(0..1000) {
            0..300 => _ = self.exchange(&keys, 200, set(rng.u64(0..8)), random),
            300..400 => _ = self.exchange(&keys, 200, Effect::Deleted { scope }.into(), random),
            400..480 => {
                let member = &self.roster.members()[rng.usize(0..3)];
                if let Some(hold) = self.affinity.hold(self.key(id), member, self.at()) {
                    _ = self.exchange(&keys, 200, set(0), random);
                    self.affinity.release(hold, self.at());
                }
            }
            480..485 => drop(self.affinity.forget(&self.settings, self.key(id), self.at())),
            485..490 => {
                let to = &self.roster.members()[rng.usize(0..3)];
                self.affinity.move_to(&self.settings, self.key(id), to, self.at());
            }
            490..492 => self.affinity.restarted(Slot::new(rng.u16(0..3)), self.at()),
            492..500 => {
                let member = &self.roster.members()[rng.usize(1..3)];
                member.set_up(!member.is_up(), self.at());
            }
            500..510 => {
                self.now.fetch_add(1, Relaxed);
                self.affinity.tick(&self.settings, self.at(), 64);
            }
            510..513 => {
                // The third one leaves and comes back.
                let some =
                    if rng.bool() { &[("a", 1), ("b", 2)][..] } else { &[("a", 1), ("b", 2), ("c", 1)] };
                self.affinity.roster(some, self.settings.session_timeout, self.at());
            }
            513..520 => self.obeys_the_laws(),
            520..530 => {
                self.affinity.drain_eta(&self.settings, &self.roster, Slot::new(0), self.at());
            }
            _ => {
                _ = self.exchange(
                    &keys,
                    *rng.choice(&[200, 404, 500]).expect("some"),
                    Effects::SILENT,
                    random,
                )
            }
        }
    }

    fn obeys_the_laws(&self) {
        let stats = self.affinity.stats();
        let sum: u64 = stats.backends.iter().map(|backend| backend.live + backend.retained).sum();
        assert_eq!(sum, stats.entries);
        assert_eq!(stats.learned + stats.restored - stats.ended, stats.entries);
        let ended: u64 = stats.backends.iter().flat_map(|backend| backend.ended).sum();
        assert_eq!(ended, stats.ended);
    }

    /// A full walk of the table against the books.
    fn is_consistent(&self) {
        self.obeys_the_laws();
        let stats = self.affinity.stats();
        for backend in stats.backends.iter().filter(|backend| !backend.removed) {
            let slot = backend.member.slot();
            let walked = self.affinity.sessions(&self.settings, &self.roster, slot, 0, usize::MAX, self.at());
            let retained = walked.iter().filter(|known| known.retained).count() as u64;
            assert_eq!((backend.live, backend.retained), (walked.len() as u64 - retained, retained));
            assert_eq!((backend.streams, backend.member.placing()), (0, 0));
            let idle = walked.iter().filter(|known| !known.retained).map(|known| known.idle).min();
            let eta = self.affinity.drain_eta(&self.settings, &self.roster, slot, self.at());
            assert_eq!(eta.is_some(), idle.is_some());
            if let (Some(eta), Some(idle)) = (eta, idle) {
                assert!(eta + idle >= self.settings.session_timeout, "too early: {eta:?} {idle:?}");
            }
        }
        assert_eq!(stats.pins, 0);
    }
}

#[test]
fn threads_that_meet_on_the_same_sessions_leave_the_books_right() {
    let pool = Pool::new(250);
    let deeds = env::var("DEEDS").ok().map_or(150_000, |text| text.parse().expect("a number"));
    thread::scope(|scope| {
        for seed in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                for _ in 0..deeds {
                    pool.act(&mut rng);
                }
            });
        }
    });
    let all = [("a", 1), ("b", 2), ("c", 1)];
    pool.affinity.roster(&all, pool.settings.session_timeout, pool.at());
    while pool.affinity.tick(&pool.settings, pool.at(), 4096) {}
    pool.is_consistent();
    assert!(pool.affinity.stats().entries > 0, "something is left to compare");

    // Everything ends, once.
    pool.now.fetch_add(1_000, Relaxed);
    while pool.affinity.tick(&pool.settings, pool.at(), 4096) {}
    pool.is_consistent();
    let sizes = pool.affinity.sizes();
    let left = [sizes.table, sizes.rare, sizes.pins, sizes.past, sizes.past_queue];
    assert_eq!(left, [0; 5], "{sizes:?}");
    assert_eq!(pool.affinity.stats().unlearned, 0);
}

#[test]
fn a_flood_of_made_up_ids_leaves_every_session_alone() {
    let flood: u64 = env::var("FLOOD").ok().map_or(1_000_000, |text| text.parse().expect("a number"));
    let pool = Pool::new(10_000);
    let mut rng = Rng::with_seed(1);
    let homes: Vec<Slot> = (0..9_000)
        .map(|id| {
            pool.exchange(&pool.keys(None), 200, Effects::begins(pool.key(id)), rng.u64(..))
                .expect("a backend")
                .0
        })
        .collect();
    let mut most = pool.affinity.sizes();
    let began = clock_gettime(ClockId::ThreadCPUTime);
    for number in 0..flood {
        let status = if number % 2 == 0 { 200 } else { 404 };
        let keys = pool.keys(Some(1_000_000 + number));
        let random = rng.u64(..);
        pool.exchange(&keys, status, Effects::SILENT, random);
        if number % 1_000 == 0 {
            // A real client, now and then, and some time: all sessions stay in use.
            if number % 10_000 == 0 {
                pool.now.fetch_add(1, Relaxed);
            }
            pool.affinity.tick(&pool.settings, pool.at(), 4096);
            let sizes = pool.affinity.sizes();
            most.table = most.table.max(sizes.table);
            most.past_queue = most.past_queue.max(sizes.past_queue);
            most.live_wheel = most.live_wheel.max(sizes.live_wheel);
            most.retained_wheel = most.retained_wheel.max(sizes.retained_wheel);
        }
        if number % 100_000 == 0 {
            for (id, &home) in (0..).zip(&homes) {
                let found = pool.exchange(&pool.keys(Some(id)), 200, Effects::SILENT, 0);
                assert_eq!(found, Some((home, Verdict::Home, Change::Touched)));
            }
        }
    }
    let end = clock_gettime(ClockId::ThreadCPUTime);
    let taken = (end.tv_sec - began.tv_sec) as f64 + (end.tv_nsec - began.tv_nsec) as f64 / 1e9;
    let rate = flood as f64 / taken;
    println!("{rate:.0} made-up ids a second of processor, real sessions included");
    assert!(rate >= 100_000.0, "{rate:.0} a second of processor");
    let stats = pool.affinity.stats();
    assert!(most.table <= 9_000 + 10_000 / 8, "{most:?}");
    assert!(most.live_wheel.max(most.retained_wheel) <= 2 * most.table + 4_096, "{most:?}");
    assert_eq!((pool.affinity.sizes().pins, most.past_queue), (0, 0));
    assert_eq!(stats.learned - stats.unlearned - stats.ended, 9_000);
    pool.obeys_the_laws();
}
