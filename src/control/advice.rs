//! What the numbers suggest to an operator, said once per episode and not per request.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    affinity::Stats,
    clock,
    config::format_duration,
    world::{Pool, World},
};

/// One kind of event: an episode begins with the first, and ends when none has come for [`QUIET`].
#[derive(Debug, Default)]
struct Episode {
    seen: u64,
    last: Option<Instant>,
}

/// The episodes of one pool.
#[derive(Debug, Default)]
struct Episodes {
    late: Episode,
    long_cookies: Episode,
    ambiguous: Episode,
    full: Episode,
    over_quota: Episode,
    /// Whether it was said that the key fits nothing.
    wrong_key: bool,
    /// The keys that responses were said to set, a bit for each.
    told_keys: u64,
}

/// How often the numbers are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Silence that ends an episode.
const QUIET: Duration = Duration::from_secs(600);

/// Looks at every pool's numbers for as long as the process runs.
pub async fn advise(world: Arc<World>) {
    let mut pools: HashMap<Box<str>, Episodes> = HashMap::new();
    loop {
        sleep(LOOK).await;
        let snapshot = world.snapshot.load_full();
        pools.retain(|name, _| snapshot.pools.iter().any(|pool| pool.name == *name));
        for pool in &snapshot.pools {
            let episodes = pools.entry(pool.name.clone()).or_default();
            episodes.look(pool, &pool.affinity.stats(), clock::now());
        }
    }
}

// === impl Episodes ===

impl Episodes {
    fn look(&mut self, pool: &Pool, stats: &Stats, now: Instant) {
        let name = &*pool.name;
        let ttl = format_duration(pool.settings.ttl);
        if self.late.begins(stats.late, now) {
            tracing::warn!(
                pool = name,
                %ttl,
                idle = %format_duration(stats.longest_late),
                "the application still knows sessions that were forgotten here: raise `ttl` above this idle time"
            );
        }
        if self.long_cookies.begins(stats.long_cookies, now) {
            tracing::warn!(
                pool = name,
                %ttl,
                cookie = %format_duration(stats.longest_cookie),
                max_ttl = %format_duration(pool.settings.max_ttl),
                "the application's cookie lasts longer than `ttl`: such sessions are kept longer, up to `max_ttl`"
            );
        }
        if self.ambiguous.begins(stats.ambiguous, now) {
            tracing::warn!(
                pool = name,
                "requests carry several different session cookies of one name (another Path or Domain?): \
                 the first known one counts"
            );
        }
        if self.full.begins(stats.full, now) {
            tracing::error!(
                pool = name,
                max_sessions = pool.settings.max_sessions,
                "the affinity table is full of live sessions: new ones are not learned; raise `max_sessions`"
            );
        }
        let learned = pool.affinity.watch().learned();
        if learned & !self.told_keys != 0 {
            let keys: Vec<_> = pool.keys_set().into_iter().map(|(key, _)| key).collect();
            tracing::info!(
                pool = name,
                keys = keys.join(", "),
                "responses set session ids: sessions are kept by them"
            );
        }
        self.told_keys = learned;
        match pool.key_advice(stats) {
            Some(advice) if !self.wrong_key => {
                tracing::warn!(pool = name, "{advice}");
                self.wrong_key = true;
            }
            Some(_) => {}
            None => self.wrong_key = false,
        }
        if self.over_quota.begins(stats.over_quota, now) {
            tracing::warn!(
                pool = name,
                "many ids that no backend has set: more of them are not remembered (made up by clients?)"
            );
        }
    }
}

// === impl Episode ===

impl Episode {
    /// Whether an episode begins, the counter being at `count`.
    fn begins(&mut self, count: u64, now: Instant) -> bool {
        if count == self.seen {
            return false;
        }
        self.seen = count;
        let begins = self.last.is_none_or(|last| now.duration_since(last) >= QUIET);
        self.last = Some(now);
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_episode_is_told_once_and_again_after_a_silence() {
        let mut episode = Episode::default();
        let start = clock::now();
        assert!(!episode.begins(0, start));
        assert!(episode.begins(1, start));
        assert!(!episode.begins(5, start + QUIET / 2));
        assert!(!episode.begins(6, start + QUIET));
        assert!(!episode.begins(6, start + QUIET * 2));
        assert!(episode.begins(7, start + QUIET * 2));
    }
}
