//! What is known of one key, in words that mean the same in another process.

use std::time::Duration;

use crate::{
    affinity::{Absorbed, Record, Rule, SessionKey, Slot, Tick, Trace},
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
        /// Whether it matters for as long as the session lives.
        lasting: bool,
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
}

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
            Self::Renamed { to, until, lasting } => {
                let until = now.after(Duration::from_millis(until.saturating_sub(clock::unix_ms())));
                let until = until.min(now.after(pool.settings.max_ttl));
                affinity.absorb_renamed(&pool.settings, key, *to, until, *lasting, now)
            }
            Self::Ended { home, until } => {
                if *until <= clock::unix_ms() {
                    return Absorbed::Unknown;
                }
                match affinity.home_named(home, &pool.settings) {
                    Some(member) => affinity.absorb_ended(&pool.settings, key, member.slot(), now),
                    None => Absorbed::Unknown,
                }
            }
            Self::Gone => Absorbed::Unknown,
        }
    }

    fn from_trace(pool: &Pool, trace: Trace) -> Self {
        match trace {
            Trace::Bound(record) => Session::of(pool, &record).map_or(Self::Gone, Self::Session),
            Trace::Renamed { to, until, lasting } => {
                Self::Renamed { to, until: clock::unix_ms_of_tick(until), lasting }
            }
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
