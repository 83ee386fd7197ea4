//! Counting the sessions in Redis: one replica at a time, slowly.
//!
//! No replica knows all sessions, and one that is known to several must not be counted several times; only
//! Redis has each of them once. The walk is paged, and pauses between pages.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    Census, HomeCount, Operation, PoolCensus, Shared,
    link::Failure,
    script::CENSUS,
    view::{strings, with},
};
use crate::{
    clock::{self, millis},
    world::World,
};

/// Sessions by pool and home, while they are being counted.
#[derive(Debug, Default)]
struct Tally {
    counts: BTreeMap<(Box<str>, Box<str>), u64>,
    /// A walk may show a key twice; half of its digits tell it apart.
    seen: HashSet<u64>,
    complete: bool,
}

/// Between two censuses.
const INTERVAL: Duration = Duration::from_secs(30);
/// For how long one counts.
const LIFE: Duration = Duration::from_secs(150);
/// Keys of one page.
const PAGE: &str = "500";
/// Between two pages.
const PAUSE: Duration = Duration::from_millis(10);
/// Sessions that are counted; beyond, the census says that it is not complete.
const MAX_SESSIONS: usize = 4_000_000;
/// Pools and homes that are told apart.
const MAX_HOMES: usize = 4096;

impl Shared {
    /// Waits until a census may be due, and does it unless another replica does.
    pub(super) async fn count(&self, world: &World) {
        sleep(INTERVAL / 10).await;
        if !self.counts() {
            sleep(INTERVAL).await;
            return;
        }
        let lock = self.names.of("census:lock");
        let claim = with("SET", &[&lock, &self.names.id, "NX", "PX", &millis(INTERVAL).to_string()]);
        match self.link.tell(Operation::View, |_| claim.clone()).await {
            Ok(redis::Value::Okay) => {}
            _ => return,
        }
        if let Err(error) = self.take_census(world).await {
            tracing::debug!(%error, "no census this time");
        }
    }

    async fn take_census(&self, world: &World) -> Result<(), Failure> {
        let pools: Vec<Box<str>> = world.snapshot.load().pools.iter().map(|pool| pool.name.clone()).collect();
        let prefix = self.names.of("s:");
        let pattern = format!("{prefix}*");
        let mut tally = Tally { complete: true, ..Tally::default() };
        let mut cursor = "0".to_owned();
        loop {
            let page = self
                .link
                .tell(Operation::View, |whole| {
                    let mut command = CENSUS.command(whole, &[]);
                    command.arg(&cursor).arg(&pattern).arg(PAGE);
                    command
                })
                .await?;
            let mut answer = strings(&page);
            let next = answer.next().unwrap_or("0").to_owned();
            while let (Some(key), Some(home)) = (answer.next(), answer.next()) {
                tally.add(key.strip_prefix(&*prefix).unwrap_or_default(), home);
            }
            if next == "0" || !tally.complete {
                break;
            }
            cursor = next;
            sleep(PAUSE).await;
        }
        let census = tally.finish(&pools, &self.names.replica);
        let text = serde_json::to_string(&census).unwrap_or_default();
        let store = with("SET", &[&self.names.of("census"), &text, "PX", &millis(LIFE).to_string()]);
        self.link.tell(Operation::View, |_| store.clone()).await?;
        Ok(())
    }
}

// === impl Tally ===

impl Tally {
    /// Counts the session whose key is `{pool}:{32 digits}`.
    fn add(&mut self, key: &str, home: &str) {
        let Some((pool, digits)) = key.rsplit_once(':') else { return };
        let Some(half) = digits.get(..16).and_then(|half| u64::from_str_radix(half, 16).ok()) else { return };
        if self.seen.len() >= MAX_SESSIONS {
            self.complete = false;
            return;
        }
        if !self.seen.insert(
            half ^ pool.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))),
        ) {
            return;
        }
        let place = (Box::from(pool), Box::from(home));
        if self.counts.len() < MAX_HOMES || self.counts.contains_key(&place) {
            *self.counts.entry(place).or_default() += 1;
        } else {
            self.complete = false;
        }
    }

    /// Pools that exist appear even without a session.
    fn finish(self, pools: &[Box<str>], by: &str) -> Census {
        let mut found: BTreeMap<Box<str>, Vec<HomeCount>> =
            pools.iter().map(|name| (name.clone(), Vec::new())).collect();
        for ((pool, home), sessions) in self.counts {
            found.entry(pool).or_default().push(HomeCount { name: home.into(), sessions });
        }
        let pools = found.into_iter().map(|(name, homes)| PoolCensus { name: name.into(), homes });
        Census { at: clock::unix_ms(), by: by.to_owned(), complete: self.complete, pools: pools.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pool: &str, n: u64) -> String {
        format!("{pool}:{n:016x}{n:016x}")
    }

    #[test]
    fn a_session_is_counted_once_however_often_a_walk_shows_it() {
        let mut tally = Tally { complete: true, ..Tally::default() };
        for n in [1, 2, 2, 1, 3] {
            tally.add(&key("app", n), if n == 3 { "app-2" } else { "app-1" });
        }
        tally.add(&key("shop", 1), "shop-1");
        let census = tally.finish(&["app".into(), "empty".into()], "homing-1");
        let shown = serde_json::to_value(&census).unwrap();
        assert_eq!(shown["pools"][0]["homes"][0], serde_json::json!({"name": "app-1", "sessions": 2}));
        assert_eq!(shown["pools"][0]["homes"][1], serde_json::json!({"name": "app-2", "sessions": 1}));
        assert_eq!(shown["pools"][1], serde_json::json!({"name": "empty", "homes": []}));
        assert_eq!(shown["pools"][2]["homes"][0]["sessions"], 1);
        assert!(census.complete);
    }

    #[test]
    fn what_is_no_key_of_a_session_is_not_counted() {
        let mut tally = Tally::default();
        for key in ["", "app", "app:xyz", "app:123"] {
            tally.add(key, "app-1");
        }
        assert!(tally.counts.is_empty());
    }
}
