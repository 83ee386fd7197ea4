//! The proxy's own cookie: any bytes, and bytes that differ from a good token.

use std::{sync::LazyLock, time::Duration};

use homing::affinity::{Life, Sealer, SealingKey, TokenId};

const NOW: Duration = Duration::from_secs(1_800_000_000);
const LIFE: Life = Life { ttl: Duration::from_secs(1000), max_age: None };

static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    let keys = [SealingKey::new([3; 32]), SealingKey::new([2; 32])];
    Sealer::new(&keys, "app", "__Host-homing", LIFE)
});
static GOOD: LazyLock<String> =
    LazyLock::new(|| SEALER.seal(&TokenId::new([7; 16]), NOW, "app-1", [9; 12], NOW).expect("a short name"));

/// Taken as a value, and as changes to a good one: pairs of a place and what is there instead.
pub fn run(data: &[u8]) {
    refused(data);
    let mut changed = GOOD.clone().into_bytes();
    for pair in data.chunks_exact(2) {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] = pair[1];
    }
    refused(&changed);
    // Whatever a token is about, it says so again.
    let name = String::from_utf8_lossy(data);
    let name = name.replace('\0', "");
    if let Some(token) = SEALER.seal(&TokenId::new([8; 16]), NOW, &name, [3; 12], NOW) {
        let opened = SEALER.open(token.as_bytes(), NOW).expect("our own");
        assert_eq!((opened.id, opened.born, opened.backend()), (TokenId::new([8; 16]), NOW, &*name));
    }
}

/// Nobody without a key makes a token.
fn refused(value: &[u8]) {
    for now in [Duration::ZERO, NOW, Duration::MAX] {
        if let Ok(token) = SEALER.open(value, now) {
            assert_eq!(value, GOOD.as_bytes(), "a forged token is about {}", token.backend());
        }
    }
}
