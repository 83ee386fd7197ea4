//! What is known of one key, in words that mean the same in another process.

use std::time::Duration;

use crate::{
    affinity::{Absorbed, Record, Rule, Scope, SessionKey, Slot, Tick, Trace},
    backend::Told,
    clock,
    world::Pool,
};

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is a session's.
    Session(Session),
    /// It was one's, which is known by another key now.
    Renamed {
        /// That key.
        to: SessionKey,
        /// Until when that matters, in Unix milliseconds.
        until: u64,
    },
    /// Its session ended a moment ago.
    Ended {
        /// Where it lived.
        home: Box<str>,
        /// Until when that matters, in Unix milliseconds.
        until: u64,
    },
    /// Nothing, any more.
    Gone,
}

/// A session's binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name of the backend where it lives.
    pub home: Box<str>,
    /// Hash of the id of the instance that has it in memory; 0 when that is not known.
    pub instance: u64,
    /// Name of the backend where it lived before, if it ever moved.
    pub from: Option<Box<str>>,
    /// When it was bound, in Unix milliseconds.
    pub created: u64,
    /// Since when it lives there, in Unix milliseconds.
    pub placed: u64,
    /// When it was last used, in Unix milliseconds.
    pub seen: u64,
    /// Its own TTL, longer than the pool's.
    pub ttl: Option<Duration>,
    /// Accepted by a backend, never set by one.
    pub unlearned: bool,
    /// Which of the client's cookies holds its id.
    pub scope: Scope,
}

/// How long a home that only another replica has may take to be configured here: longer than names of discovered
/// backends are kept without a look-up.
const AWAITED: Duration = Duration::from_secs(90);

// === impl Entry ===

impl Entry {
    /// What is known of a key now.
    pub fn of(pool: &Pool, key: SessionKey) -> Self {
        Self::from_trace(pool, pool.affinity.trace(key, clock::tick()))
    }

    /// Takes in what another process knew of a key. A home that is not configured is kept in mind: the session
    /// is there when it comes.
    pub fn absorb(&self, pool: &Pool, key: SessionKey, rule: Rule) -> Absorbed {
        let now = clock::tick();
        let affinity = &pool.affinity;
        match self {
            Self::Session(session) => session.absorb(pool, key, rule, now),
            Self::Renamed { to, until } => {
                let until = now.after(Duration::from_millis(until.saturating_sub(clock::unix_ms())));
                let until = until.min(now.after(pool.settings.max_ttl));
                affinity.absorb_renamed(&pool.settings, key, *to, until, now)
            }
            Self::Ended { home, until } => {
                let left = until.saturating_sub(clock::unix_ms());
                if left == 0 {
                    return Absorbed::Unknown;
                }
                let until = now.after(Duration::from_millis(left));
                match affinity.home_named(home, &pool.settings) {
                    Some(member) => affinity.absorb_ended(&pool.settings, key, member.slot(), until, now),
                    None => Absorbed::Unknown,
                }
            }
            Self::Gone => Absorbed::Unknown,
        }
    }

    /// Another replica has sessions at the home of this one, which is not configured here: it may have heard of
    /// it earlier. For a while its sessions are not moved away.
    pub fn await_home(&self, pool: &Pool) {
        if let Self::Session(session) = self
            && pool.roster.named(&session.home).is_none()
            && let Some(member) = pool.affinity.home_named(&session.home, &pool.settings)
        {
            member.await_until(clock::tick().after(AWAITED));
        }
    }

    fn from_trace(pool: &Pool, trace: Trace) -> Self {
        match trace {
            Trace::Bound(record) => Session::of(pool, &record).map_or(Self::Gone, Self::Session),
            Trace::Renamed { to, until } => Self::Renamed { to, until: clock::unix_ms_of_tick(until) },
            Trace::Ended { home, until } => match name(pool, home) {
                Some(home) => Self::Ended { home, until: clock::unix_ms_of_tick(until) },
                None => Self::Gone,
            },
            Trace::Unknown => Self::Gone,
        }
    }
}

/// Shows everything that is known in a pool, sessions first, until `look` is false. No lock is held meanwhile.
pub fn each(pool: &Pool, mut look: impl FnMut(SessionKey, Entry) -> bool) {
    pool.affinity.each(clock::tick(), |key, trace| match Entry::from_trace(pool, trace) {
        Entry::Gone => true,
        entry => look(key, entry),
    });
}

// === impl Session ===

impl Session {
    fn of(pool: &Pool, record: &Record) -> Option<Self> {
        let backend = pool.roster.index_of(record.home).map(|index| &pool.backends[index]);
        Some(Self {
            home: name(pool, record.home)?,
            instance: backend.map_or(0, |backend| backend.standing.instances.current()),
            from: record.from.and_then(|slot| name(pool, slot)),
            created: clock::unix_ms_of_tick(record.created),
            placed: clock::unix_ms_of_tick(record.placed),
            seen: clock::unix_ms_of_tick(record.last_seen),
            ttl: record.ttl,
            unlearned: record.unlearned,
            scope: record.scope,
        })
    }

    fn absorb(&self, pool: &Pool, key: SessionKey, rule: Rule, now: Tick) -> Absorbed {
        let Some(member) = pool.affinity.home_named(&self.home, &pool.settings) else {
            return Absorbed::Full;
        };
        if let Some(backend) = pool.backend(&self.home) {
            match backend.standing.instances.judge(self.instance, self.placed) {
                Told::Current => {}
                Told::Earlier => return Absorbed::Restarted,
                Told::Later => pool.heard_instance_hash(backend, self.instance),
            }
        }
        let from = self.from.as_deref().and_then(|name| pool.roster.named(name)).map(|member| member.slot());
        let record = Record {
            home: member.slot(),
            created: clock::tick_of_unix_ms(self.created),
            placed: clock::tick_of_unix_ms(self.placed),
            from,
            last_seen: clock::tick_of_unix_ms(self.seen),
            ttl: self.ttl,
            unlearned: self.unlearned,
            scope: self.scope,
        };
        pool.affinity.absorb(&pool.settings, &member, key, &record, rule, now)
    }
}

fn name(pool: &Pool, slot: Slot) -> Option<Box<str>> {
    match pool.roster.member(slot) {
        Some(member) => Some(member.name().into()),
        None => pool.affinity.member(slot).map(|member| member.name().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{key, session, snapshot};

    fn with(home: &str, change: impl FnOnce(&mut Session)) -> Entry {
        let Entry::Session(mut session) = session(home) else { unreachable!("it is one") };
        change(&mut session);
        Entry::Session(session)
    }

    #[test]
    fn a_session_is_the_same_in_another_process() {
        let (here, there) = (snapshot(&["a", "b"]), snapshot(&["b", "a"]));
        let (here, there) = (&here.pools[0], &there.pools[0]);
        let hour = Duration::from_hours(1);
        let told = with("b", |session| {
            session.created -= 50_000;
            session.placed -= 20_000;
            session.from = Some("a".into());
            session.ttl = Some(hour);
        });
        assert_eq!(told.absorb(here, key(1), Rule::Newer), Absorbed::New);
        let Entry::Session(again) = Entry::of(here, key(1)) else { panic!("it is known") };
        assert_eq!(Entry::Session(again.clone()).absorb(there, key(1), Rule::Newer), Absorbed::New);
        let Entry::Session(last) = Entry::of(there, key(1)) else { panic!("it is known") };
        assert_eq!((&*last.home, last.from.as_deref(), last.ttl), ("b", Some("a"), Some(hour)));
        for (first, second) in
            [(again.created, last.created), (again.placed, last.placed), (again.seen, last.seen)]
        {
            assert!(first.abs_diff(second) <= 300, "{first} {second}");
        }
    }

    #[test]
    fn the_sessions_of_an_instance_that_is_known_to_be_gone_stay_away() {
        let snapshot = snapshot(&["a"]);
        let pool = &snapshot.pools[0];
        pool.backends[0].standing.instances.restore(7, clock::unix_ms());
        let of = |instance, age| {
            with("a", |session| {
                session.instance = instance;
                session.placed -= age;
                session.created -= age;
            })
        };
        assert_eq!(of(7, 1_000).absorb(pool, key(1), Rule::Newer), Absorbed::New);
        assert_eq!(of(6, 1_000).absorb(pool, key(2), Rule::Newer), Absorbed::Restarted);
        assert_eq!(pool.affinity.stats().entries, 1);
    }

    #[test]
    fn word_of_a_later_instance_ends_the_sessions_of_the_one_before() {
        let snapshot = snapshot(&["a"]);
        let pool = &snapshot.pools[0];
        let minute_ago = clock::unix_ms() - 60_000;
        pool.backends[0].standing.instances.restore(7, minute_ago);
        session("a").absorb(pool, key(1), Rule::Newer);
        let later = with("a", |session| session.instance = 8);
        assert_eq!(later.absorb(pool, key(2), Rule::Newer), Absorbed::New);
        assert_eq!(Entry::of(pool, key(1)), Entry::Gone);
        assert_eq!(pool.affinity.stats().entries, 1);
    }

    #[test]
    fn times_in_the_future_are_now() {
        let snapshot = snapshot(&["a"]);
        let pool = &snapshot.pools[0];
        let told = with("a", |session| {
            session.created = u64::MAX;
            session.placed = u64::MAX;
            session.seen = u64::MAX;
        });
        assert_eq!(told.absorb(pool, key(1), Rule::Newer), Absorbed::New);
        let Entry::Session(session) = Entry::of(pool, key(1)) else { panic!("it is known") };
        assert!(session.seen <= clock::unix_ms() + 200 && session.created <= clock::unix_ms() + 200);
    }

    #[test]
    fn times_before_the_process_are_kept() {
        let snapshot = snapshot(&["a"]);
        let pool = &snapshot.pools[0];
        let created = clock::unix_ms() - 3_600_000;
        let told = with("a", |session| session.created = created);
        told.absorb(pool, key(1), Rule::Newer);
        let Entry::Session(session) = Entry::of(pool, key(1)) else { panic!("it is known") };
        assert!(session.created.abs_diff(created) <= 200);
    }
}
