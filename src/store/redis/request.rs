//! What a request does with Redis: look up an id that nobody here knows, and tell what its answer changed.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Mode, Operation, Shared, Texts, bytes, link::Failure, metrics::Found, script, value};
use crate::{
    affinity::{Absorbed, Change, Keys, Rule, SessionKey, Settled, Trace},
    clock,
    store::Entry,
    world::Pool,
};

/// What is left of the time that one request may wait for Redis.
#[derive(Debug)]
pub struct Budget {
    left: Duration,
    /// Whether Redis was asked.
    asked: bool,
}

impl Shared {
    /// A request begins.
    pub fn budget(&self) -> Budget {
        Budget { left: self.budget, asked: false }
    }

    /// Asks for the session of a request, unless it is known here. Afterwards it is, if any replica knows it.
    pub async fn look_up(&self, pool: &Pool, keys: &Keys, budget: &mut Budget) {
        let now = clock::tick();
        let trace = |key| pool.affinity.trace(key, now);
        // An alias whose session was not found the last time is as good as unknown.
        let missing = |&key: &SessionKey| match trace(key) {
            Trace::Unknown => Some(key),
            Trace::Renamed { to, .. } => (trace(to) == Trace::Unknown).then_some(to),
            _ => None,
        };
        if keys.is_empty() || keys.as_slice().iter().any(|key| missing(key).is_none()) {
            return;
        }
        let wanted: Vec<SessionKey> = keys.as_slice().iter().filter_map(missing).collect();
        budget.asked = true;
        // A replaced id leads to the key that the session had when it was last told, which may have been replaced.
        let mut wanted = self.fetch(pool, &wanted, budget).await;
        while !wanted.is_empty() && !budget.left.is_zero() {
            wanted = self.fetch(pool, &wanted, budget).await;
        }
    }

    /// Tells what an answer changed, before its head goes on: the client's next request, at whatever replica,
    /// must find it. What cannot be told in time is told later. `vouched` says that the proxy's own cookie
    /// named the home.
    pub async fn publish(
        &self,
        pool: &Pool,
        keys: &Keys,
        settled: Settled,
        vouched: bool,
        budget: &mut Budget,
    ) {
        let writes: Vec<(SessionKey, Entry)> = match settled.change {
            Change::Learned | Change::Confirmed | Change::Moved => {
                settled.key.map(|key| (key, Entry::of(pool, key))).into_iter().collect()
            }
            Change::Renamed | Change::Ended => {
                let others = keys.as_slice().iter().filter(|key| Some(**key) != settled.key);
                let keys = settled.key.into_iter().chain(others.copied());
                keys.map(|key| (key, Entry::of(pool, key))).collect()
            }
            Change::None | Change::Touched | Change::Refreshed | Change::Forgotten | Change::Full => return,
        };
        let began = clock::now();
        let wait = budget.left;
        join_all(writes.iter().map(async |(key, entry)| {
            let mode = match (entry, settled.change) {
                (Entry::Session(_), Change::Confirmed) => Mode::New,
                (Entry::Session(_), Change::Learned) if vouched => Mode::New,
                (Entry::Session(session), Change::Moved) => {
                    Mode::Move { from: session.from.as_deref().unwrap_or_default() }
                }
                (Entry::Session(_), Change::Learned) => Mode::Set,
                (Entry::Session(_), Change::Renamed) if settled.key == Some(*key) => Mode::Set,
                // Another session that the request carried beside.
                (Entry::Session(_), _) => return,
                _ => Mode::Set,
            };
            let mut texts = Texts::default();
            let Some(write) = self.write(pool, *key, entry, mode, &mut texts) else { return };
            // What fails is no loss: the change is in the journal, and told by the state thread.
            if let Ok(answer) = self.link.ask(Operation::Write, wait, |whole| write.command(whole)).await {
                self.settle(pool, *key, entry, &answer);
            }
        }))
        .await;
        budget.spend(began);
    }

    /// Takes in what is known of these keys; returns where aliases among them lead, as far as that is not
    /// known.
    async fn fetch(&self, pool: &Pool, keys: &[SessionKey], budget: &mut Budget) -> Vec<SessionKey> {
        let began = clock::now();
        let wait = budget.left;
        let found = join_all(keys.iter().map(async |key| {
            let name = self.names.session(pool, *key);
            let answer = self.link.ask(Operation::Lookup, wait, |_| script::read(&name)).await;
            if matches!(answer, Err(Failure::Timeout)) {
                // Whoever waited in vain once does not wait again.
                return (Found::Failed, None, true);
            }
            let (found, alias) = self.found(pool, *key, &answer);
            (found, alias, false)
        }))
        .await;
        budget.spend(began);
        let mut aliases = Vec::new();
        for (found, alias, timed_out) in found {
            self.link.metrics.found(found);
            aliases.extend(alias);
            if timed_out {
                budget.left = Duration::ZERO;
            }
        }
        aliases
    }

    fn found(
        &self,
        pool: &Pool,
        key: SessionKey,
        answer: &Result<redis::Value, Failure>,
    ) -> (Found, Option<SessionKey>) {
        let text = match answer {
            Err(_) => return (Found::Failed, None),
            Ok(value) => match bytes(value) {
                Some([]) => return (Found::Miss, None),
                Some(text) => text,
                None => return (Found::Refused, None),
            },
        };
        let Some(entry) = value::decode(text, clock::unix_ms()) else {
            self.link.metrics.bad.inc();
            return (Found::Refused, None);
        };
        let alias = match &entry {
            Entry::Renamed { to, .. } => {
                (pool.affinity.trace(*to, clock::tick()) == Trace::Unknown).then_some(*to)
            }
            _ => None,
        };
        match self.absorb(pool, key, &entry, Rule::Newer) {
            Absorbed::Expired | Absorbed::Restarted | Absorbed::Full => (Found::Refused, None),
            _ => (Found::Hit, alias),
        }
    }
}

// === impl Budget ===

impl Budget {
    /// Whether Redis was asked for the session of the request.
    pub fn asked(&self) -> bool {
        self.asked
    }

    fn spend(&mut self, since: tokio::time::Instant) {
        self.left = self.left.saturating_sub(clock::now().saturating_duration_since(since));
    }
}
