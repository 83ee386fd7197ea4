//! The tables of the README, row by row, against the core itself.

mod answers;
mod requests;
mod rules;
mod unknown;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use super::{
    Affinity, Answer, Ask, Balance, Change, Decision, Effect, Effects, KeySource, Keys, Member, OnDown,
    OnUnknown, PathPattern, Roster, Scope, SessionKey, Settings, Settled, Slot, Stats, Tick, Verdict,
};

/// A pool with a few backends at tick `now`.
pub(super) struct Pool {
    pub(super) affinity: Affinity,
    pub(super) settings: Settings,
    pub(super) roster: Roster,
    pub(in crate::affinity) now: u32,
    random: u64,
}

pub(super) fn key(number: u32) -> SessionKey {
    SessionKey::from_words([number; 4])
}

/// The cookie of `Path=/`, as most applications set it.
pub(super) const ROOT: Scope = Scope::from_bits(1_000);
/// Another cookie of that name.
pub(super) const SHOP: Scope = Scope::from_bits(2_000);

pub(super) fn set(number: u32) -> Effects {
    set_in(ROOT, number)
}

pub(super) fn set_in(scope: Scope, number: u32) -> Effects {
    Effect::Set { key: key(number), scope, lasts: None }.into()
}

pub(super) fn lasting(number: u32, seconds: u64) -> Effects {
    Effect::Set { key: key(number), scope: ROOT, lasts: Some(Duration::from_secs(seconds)) }.into()
}

pub(super) fn deleted() -> Effects {
    deleted_in(ROOT)
}

pub(super) fn deleted_in(scope: Scope) -> Effects {
    Effect::Deleted { scope }.into()
}

impl Pool {
    /// Backends `a`, `b` and so on; a session timeout of 60 s, a TTL of 90 s, a grace of 5 s.
    pub(super) fn new(count: usize) -> Self {
        let mut pool = Self {
            affinity: Affinity::new(Tick::ZERO),
            settings: Settings {
                keys: vec![KeySource::Cookie("session".into())].into(),
                session_timeout: Duration::from_secs(60),
                ttl: Duration::from_secs(90),
                max_ttl: Duration::from_secs(900),
                max_age: None,
                grace: Duration::from_secs(5),
                on_down: OnDown::Move,
                max_sessions: NonZeroUsize::new(1000).unwrap(),
                skip: vec![PathPattern::parse("/static/").unwrap()],
                balance: Balance::LeastSessions,
                on_unknown: OnUnknown::Hash,
                slow_start: Duration::ZERO,
            },
            roster: Roster::default(),
            now: 0,
            random: 7,
        };
        let names: Vec<String> = ('a'..='z').take(count).map(String::from).collect();
        pool.reload(&names.iter().map(|name| &**name).collect::<Vec<_>>());
        pool
    }

    pub(super) fn reload(&mut self, names: &[&str]) {
        let list: Vec<(&str, u32)> = names.iter().map(|&name| (name, 1)).collect();
        self.roster = self.affinity.roster(&list, self.settings.session_timeout, self.at());
    }

    pub(super) fn at(&self) -> Tick {
        Tick::new(self.now)
    }

    /// Time passes, and what is due happens.
    pub(super) fn pass(&mut self, seconds: u32) {
        self.now += seconds * 10;
        while self.affinity.tick(&self.settings, self.at(), 64) {}
    }

    pub(super) fn keys(numbers: &[u32]) -> Keys {
        Keys::of(&numbers.iter().map(|&number| key(number)).collect::<Vec<_>>())
    }

    pub(super) fn ask(&mut self, numbers: &[u32]) -> Decision {
        self.ask_with(numbers, |_| ())
    }

    pub(super) fn ask_with(&mut self, numbers: &[u32], change: impl FnOnce(&mut Ask<'_>)) -> Decision {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let keys = Self::keys(numbers);
        let mut ask = Ask {
            hint: None,
            keys: &keys,
            skip: false,
            follow: None,
            tried: &[],
            random: self.random,
            now: self.at(),
            waited: false,
            crawls: false,
        };
        change(&mut ask);
        self.affinity.choose(&self.settings, &self.roster, &ask)
    }

    pub(super) fn ask_but(&mut self, numbers: &[u32], tried: &[Slot]) -> Decision {
        self.ask_now(&Self::keys(numbers), tried)
    }

    pub(super) fn ask_now(&self, keys: &Keys, tried: &[Slot]) -> Decision {
        let ask = Ask {
            hint: None,
            keys,
            skip: false,
            follow: None,
            tried,
            random: 1,
            now: self.at(),
            waited: false,
            crawls: false,
        };
        self.affinity.choose(&self.settings, &self.roster, &ask)
    }

    pub(super) fn settle(
        &mut self,
        decision: Decision,
        numbers: &[u32],
        status: u16,
        effects: Effects,
    ) -> Settled {
        let keys = Self::keys(numbers);
        let slot = decision.pick.expect("a backend");
        let answer = Answer { slot, status, effects: &effects, keys: &keys, now: self.at() };
        self.affinity.settle(&self.settings, &self.roster, decision.claim, &answer)
    }

    /// A whole exchange: where it went, as what, and what came of it.
    pub(super) fn exchange(
        &mut self,
        numbers: &[u32],
        status: u16,
        effects: Effects,
    ) -> (Slot, Verdict, Change) {
        let decision = self.ask(numbers);
        let (slot, verdict) = (decision.pick.expect("a backend"), decision.verdict);
        let settled = self.settle(decision, numbers, status, effects);
        (slot, verdict, settled.change)
    }

    /// A new session under this key; its home.
    pub(super) fn login(&mut self, number: u32) -> Slot {
        let (slot, verdict, change) = self.exchange(&[], 200, set(number));
        assert_eq!((verdict, change), (Verdict::Placed, Change::Learned));
        slot
    }

    /// A quiet request, given up after it was decided.
    pub(super) fn look(&mut self, numbers: &[u32]) -> (Option<Slot>, Verdict) {
        let decision = self.ask(numbers);
        let seen = (decision.pick, decision.verdict);
        self.affinity.abandon(decision.claim);
        seen
    }

    pub(super) fn member(&self, slot: Slot) -> Arc<Member> {
        Arc::clone(self.roster.member(slot).expect("it is configured"))
    }

    /// A reading, which obeys the laws of conservation.
    pub(super) fn stats(&self) -> Stats {
        let stats = self.affinity.stats();
        let sum: u64 = stats.backends.iter().map(|backend| backend.live + backend.retained).sum();
        assert_eq!(sum, stats.entries);
        assert_eq!(stats.learned + stats.restored - stats.ended, stats.entries);
        stats
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        let stats = self.stats();
        let sum = |of: fn(&super::BackendStats) -> u64| stats.backends.iter().map(of).sum();
        (sum(|backend| backend.live), sum(|backend| backend.retained))
    }

    pub(super) fn ended(&self, reason: super::EndReason) -> u64 {
        self.stats().backends.iter().map(|backend| backend.ended[reason as usize]).sum()
    }

    pub(super) fn moved(&self, reason: super::MoveReason) -> u64 {
        self.stats().backends.iter().map(|backend| backend.moved[reason as usize]).sum()
    }
}
