//! What a binding costs in memory: `cargo run --release --example table_memory [bindings]`.

use std::{fs, num::NonZeroUsize, time::Duration};

use homing::affinity::{
    Affinity, Answer, Ask, Balance, Effects, KeyHasher, KeySources, Keys, OnDown, OnUnknown, Settings, Tick,
};

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let count: usize = std::env::args().nth(1).map_or(5_000_000, |text| text.parse().expect("a number"));
    let settings = Settings {
        keys: KeySources::default(),
        session_timeout: Duration::from_secs(1_800),
        ttl: Duration::from_secs(2_700),
        max_ttl: Duration::from_secs(2_700),
        max_age: None,
        grace: Duration::from_secs(10),
        on_down: OnDown::Move,
        on_unknown: OnUnknown::Hash,
        max_sessions: NonZeroUsize::new(count).expect("some"),
        skip: Vec::new(),
        balance: Balance::LeastSessions,
        slow_start: Duration::ZERO,
    };
    let affinity = Affinity::new(Tick::ZERO);
    let roster = affinity.roster(&[("a", 1), ("b", 1), ("c", 1)], settings.session_timeout, Tick::ZERO);
    let hasher = KeyHasher::new([5; 16]);
    let keys = Keys::default();
    let before = resident();
    for number in 0..count {
        // Over ten minutes, as sessions come.
        let now = Tick::new(u32::try_from(number * 6_000 / count).expect("it is small"));
        let ask = Ask {
            hint: None,
            keys: &keys,
            skip: false,
            follow: None,
            tried: &[],
            random: number as u64,
            now,
            waited: false,
            crawls: false,
        };
        let decision = affinity.choose(&settings, &roster, &ask);
        let slot = decision.pick.expect("a backend");
        let effects = Effects::begins(hasher.key(&number.to_le_bytes()));
        let answer = Answer { slot, status: 200, effects: &effects, keys: &keys, now };
        affinity.settle(&settings, &roster, decision.claim, &answer);
        if number % 100_000 == 0 {
            while affinity.tick(&settings, now, 4096) {}
        }
    }
    let live = resident();
    let entries = affinity.stats().entries;
    println!("{entries} live bindings: {} bytes each", (live - before) / entries);
    // All of them fall idle: from one wheel to the other.
    for now in (18_000..25_000).step_by(100) {
        while affinity.tick(&settings, Tick::new(now), 4096) {}
    }
    let stats = affinity.stats();
    let retained: u64 = stats.backends.iter().map(|backend| backend.retained).sum();
    println!("{} of them retained: {} bytes each", retained, (resident() - before) / entries);
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kilobytes * 1024
}
