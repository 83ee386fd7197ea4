//! Sessions that the proxy's own cookie knows and the table does not: after a restart, on another replica,
//! or when the table was full.

use super::{
    Affinity, Ask, Change, Decision, Member, MoveReason, Reason, Roster, Scope, SessionKey, Settings,
    Settled, Tick,
    bind::Origin,
    decide::{ClaimKind, home},
};

impl Affinity {
    /// Whether there is a session of this key.
    pub fn knows(&self, key: SessionKey) -> bool {
        self.table.contains(key)
    }

    /// Where a session goes whose home has this name: what a binding would say, had it been kept.
    pub(super) fn vouched(
        &self,
        settings: &Settings,
        roster: &Roster,
        ask: &Ask<'_>,
        key: SessionKey,
        name: &str,
    ) -> Decision {
        match roster.named(name) {
            None => self.moving(settings, roster, ask, key, None, None, MoveReason::Removed),
            Some(member) if member.serves_home() => home(member, Reason::Token, ClaimKind::Vouched { key }),
            Some(member) => self.away(settings, roster, ask, member, key, None, None),
        }
    }

    /// Binds such a session, unless that has been done meanwhile. No quota: nobody can make one up.
    pub(super) fn vouch(&self, settings: &Settings, member: &Member, key: SessionKey, now: Tick) -> Settled {
        if self.table.contains(key) {
            return Settled { key: Some(key), change: Change::Touched };
        }
        self.bind(settings, member, key, Scope::WHOLE, Origin::Set, now)
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, time::Duration};

    use super::*;
    use crate::affinity::{
        Admin, Answer, Balance, Effects, KeySources, Keys, OnDown, OnUnknown, Slot, Verdict,
    };

    struct Pool {
        affinity: Affinity,
        settings: Settings,
        roster: Roster,
    }

    impl Pool {
        fn new() -> Self {
            let affinity = Affinity::new(Tick::ZERO);
            let minute = Duration::from_mins(1);
            let settings = Settings {
                keys: KeySources::default(),
                session_timeout: minute,
                ttl: minute * 2,
                max_ttl: minute * 2,
                max_age: None,
                grace: Duration::ZERO,
                on_down: OnDown::Move,
                max_sessions: NonZeroUsize::new(100).unwrap(),
                skip: Vec::new(),
                balance: Balance::LeastSessions,
                on_unknown: OnUnknown::Hash,
                slow_start: Duration::ZERO,
            };
            let roster = affinity.roster(&[("a", 1), ("b", 1)], settings.session_timeout, Tick::ZERO);
            for member in roster.members() {
                member.set_up(true, Tick::ZERO);
            }
            Self { affinity, settings, roster }
        }

        /// Sends a request of this session, which is answered by 404.
        fn request(&self, key: u32, hint: Option<&str>) -> (Decision, Settled) {
            let keys = Keys::issued(SessionKey::from_words([key; 4]));
            let decision = self.choose(&keys, hint);
            let Decision { pick, wait_for, verdict, reason, claim } = decision;
            let slot = pick.unwrap();
            let answer =
                Answer { slot, status: 404, effects: &Effects::SILENT, keys: &keys, now: Tick::ZERO };
            let settled = self.affinity.settle(&self.settings, &self.roster, claim, &answer);
            let claim = crate::affinity::Claim::FREE;
            (Decision { pick, wait_for, verdict, reason, claim }, settled)
        }

        fn choose(&self, keys: &Keys, hint: Option<&str>) -> Decision {
            let ask = Ask {
                keys,
                hint,
                skip: false,
                follow: None,
                tried: &[],
                random: 0,
                now: Tick::ZERO,
                waited: false,
                crawls: false,
            };
            self.affinity.choose(&self.settings, &self.roster, &ask)
        }

        fn member(&self, name: &str) -> &Member {
            self.roster.named(name).unwrap()
        }

        fn slot(&self, name: &str) -> Option<Slot> {
            Some(self.member(name).slot())
        }
    }

    #[test]
    fn a_session_that_the_table_lost_goes_home_and_is_bound_again() {
        let pool = Pool::new();
        for (key, home) in [(1, "a"), (2, "b"), (3, "b")] {
            let (decision, settled) = pool.request(key, Some(home));
            assert_eq!(decision.pick, pool.slot(home));
            assert_eq!((decision.verdict, decision.reason), (Verdict::Home, Reason::Token));
            assert_eq!(settled.change, Change::Learned);
            let (decision, _) = pool.request(key, Some(home));
            assert_eq!((decision.verdict, decision.reason), (Verdict::Home, Reason::Known));
        }
        assert_eq!(pool.affinity.stats().entries, 3);
    }

    #[test]
    fn the_table_knows_better_than_an_old_token() {
        let pool = Pool::new();
        pool.request(1, Some("a"));
        assert_eq!(pool.request(1, Some("b")).0.pick, pool.slot("a"));
    }

    #[test]
    fn a_draining_home_keeps_its_session() {
        let pool = Pool::new();
        pool.member("a").set_admin(Admin::Draining, Tick::ZERO);
        let (decision, _) = pool.request(1, Some("a"));
        assert_eq!((decision.pick, decision.reason), (pool.slot("a"), Reason::Draining));
    }

    #[test]
    fn a_session_whose_home_is_gone_moves() {
        let pool = Pool::new();
        pool.member("a").set_up(false, Tick::ZERO);
        for (key, home, reason) in [(1, "a", Reason::Down), (2, "c", Reason::Removed)] {
            let (decision, settled) = pool.request(key, Some(home));
            assert_eq!((decision.pick, decision.verdict), (pool.slot("b"), Verdict::Moved));
            assert_eq!((decision.reason, settled.change), (reason, Change::Learned));
            // Whatever an older token says.
            assert_eq!(pool.request(key, Some(home)).0.reason, Reason::Known);
        }
    }

    #[test]
    fn a_home_that_is_down_is_waited_for_or_refused_as_configured() {
        let mut pool = Pool::new();
        pool.member("a").set_up(false, Tick::ZERO);
        let keys = Keys::issued(SessionKey::from_words([1; 4]));
        pool.settings.on_down = OnDown::Wait(Duration::from_secs(1));
        assert_eq!(pool.choose(&keys, Some("a")).wait_for, pool.slot("a"));
        pool.settings.on_down = OnDown::Refuse;
        assert_eq!(pool.choose(&keys, Some("a")).verdict, Verdict::Refused);
    }

    #[test]
    fn when_the_table_is_full_the_token_is_enough() {
        let mut pool = Pool::new();
        pool.settings.max_sessions = NonZeroUsize::MIN;
        pool.request(1, Some("a"));
        for _ in 0..3 {
            let (decision, settled) = pool.request(2, Some("b"));
            assert_eq!((decision.pick, decision.reason), (pool.slot("b"), Reason::Token));
            assert_eq!(settled.change, Change::Full);
        }
        assert_eq!(pool.request(1, Some("a")).0.reason, Reason::Known);
    }
}
