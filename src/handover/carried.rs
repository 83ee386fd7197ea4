//! What the process before still carries, counted by the one after it.
//!
//! A take-over leaves WebSockets to the old process, for as long as `timeouts.handover_drain` allows. Their sessions stay
//! live in the new one, and its drains wait for them: the old process reports how many streams each session has open at
//! which backend, and how much each backend has under way. Counts are absolute, and those that have changed are sent;
//! all of them are sent again once in a while, since a session may come later than the report.
//!
//! A frame is the name of a pool and then counts until its end: [`SESSION`], a key, a backend's name, streams (u32); or
//! [`BACKEND`], a name, requests in flight (u32), streams (u32).

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use super::entries::{Reader, malformed, put_name};
use crate::{
    affinity::{Affinity, Hold, Member, SessionKey, Slot},
    clock,
    world::{Pool, Snapshot},
};

const SESSION: u8 = 0;
const BACKEND: u8 = 1;
/// A frame that has grown to this is sent.
const FULL: usize = 64 * 1024;
/// After so many reports all is reported again.
const ROUNDS: u32 = 20;
/// Sessions with streams, and backends, that are believed of a pool.
const MAX_COUNTS: usize = 1 << 20;

/// What has been reported; the old process's side.
#[derive(Debug, Default)]
pub(super) struct Report {
    pools: HashMap<Box<str>, Reported>,
    rounds: u32,
}

#[derive(Debug, Default)]
struct Reported {
    sessions: HashMap<(SessionKey, Slot), Streams>,
    backends: HashMap<Box<str>, (u32, u32)>,
}

#[derive(Debug)]
struct Streams {
    at: Arc<Member>,
    open: u32,
}

/// What has been heard; the new process's side. Dropped, it counts no more.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pools: HashMap<Box<str>, Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    sessions: HashMap<(SessionKey, Slot), Holds>,
    backends: HashMap<Slot, Count>,
}

/// The streams of one session at one backend.
#[derive(Debug)]
struct Holds {
    affinity: Arc<Affinity>,
    list: Vec<Hold>,
}

/// What one backend is reported to have under way.
#[derive(Debug)]
struct Count {
    member: Arc<Member>,
    streams: u32,
    in_flight: u32,
    /// Streams that hold no session of this process.
    loose: u32,
}

// === impl Report ===

impl Report {
    /// Frames for what has changed since the last time.
    pub(super) fn changes(&mut self, snapshot: &Snapshot) -> Vec<Vec<u8>> {
        self.rounds += 1;
        if self.rounds.is_multiple_of(ROUNDS) {
            self.pools.values_mut().for_each(Reported::forget);
        }
        let mut frames = Vec::new();
        for pool in &snapshot.pools {
            match self.pools.get_mut(&pool.name) {
                Some(known) => known.changes(pool, &mut frames),
                None => self.pools.entry(pool.name.clone()).or_default().changes(pool, &mut frames),
            }
        }
        frames
    }
}

// === impl Reported ===

impl Reported {
    /// All that is left is reported again. What is none was reported as that.
    fn forget(&mut self) {
        self.sessions.values_mut().for_each(|streams| streams.open = 0);
        self.backends.clear();
    }

    fn changes(&mut self, pool: &Pool, frames: &mut Vec<Vec<u8>>) {
        let mut frame = Vec::new();
        put_name(&mut frame, &pool.name);
        let begin = frame.len();
        let mut send = |frame: &mut Vec<u8>, least: usize| {
            if frame.len() > least {
                frames.push(frame.clone());
                frame.truncate(begin);
            }
        };
        // More before less, so that a session with another id is not taken for one without streams.
        let mut open = HashSet::new();
        pool.affinity.each_stream(|key, member, count| {
            let id = (key, member.slot());
            open.insert(id);
            let known =
                self.sessions.entry(id).or_insert_with(|| Streams { at: Arc::clone(member), open: 0 });
            if known.open != count {
                known.open = count;
                put_session(&mut frame, key, member.name(), count);
                send(&mut frame, FULL);
            }
        });
        self.sessions.retain(|id, streams| {
            let stays = open.contains(id);
            if !stays {
                put_session(&mut frame, id.0, streams.at.name(), 0);
                send(&mut frame, FULL);
            }
            stays
        });
        for backend in pool.backends.iter().chain(&pool.former) {
            let member = &backend.member;
            let count = (member.in_flight(), member.streams());
            if self.backends.get(member.name()).copied().unwrap_or_default() != count {
                self.backends.insert(member.name().into(), count);
                frame.push(BACKEND);
                put_name(&mut frame, member.name());
                frame.extend_from_slice(&count.0.to_be_bytes());
                frame.extend_from_slice(&count.1.to_be_bytes());
                send(&mut frame, FULL);
            }
        }
        send(&mut frame, begin);
    }
}

fn put_session(frame: &mut Vec<u8>, key: SessionKey, backend: &str, streams: u32) {
    frame.push(SESSION);
    frame.extend_from_slice(&key.to_bytes());
    put_name(frame, backend);
    frame.extend_from_slice(&streams.to_be_bytes());
}

// === impl Carried ===

impl Carried {
    /// Takes in a frame. Pools and backends that this process does not have are left out.
    pub(super) fn hear(&mut self, snapshot: &Snapshot, frame: &[u8]) -> io::Result<()> {
        let mut reader = Reader::new(frame);
        let name = reader.name()?;
        let pool = snapshot.pool(name);
        let counted = pool.map(|pool| self.pools.entry(pool.name.clone()).or_default());
        let mut here = pool.zip(counted);
        let mut any = false;
        while !reader.is_at_end() {
            match reader.byte()? {
                SESSION => {
                    let key = SessionKey::from_bytes(reader.array()?);
                    let backend = reader.name()?;
                    let streams = u32::from_be_bytes(reader.array()?);
                    any = true;
                    if let Some((pool, counted)) = &mut here {
                        counted.session(pool, key, backend, streams);
                    }
                }
                BACKEND => {
                    let backend = reader.name()?;
                    let in_flight = u32::from_be_bytes(reader.array()?);
                    let streams = u32::from_be_bytes(reader.array()?);
                    any = true;
                    if let Some((pool, counted)) = &mut here {
                        counted.backend(pool, backend, in_flight, streams);
                    }
                }
                _ => return Err(malformed()),
            }
        }
        if let Some((_, counted)) = here.filter(|_| any) {
            counted.balance();
        }
        Ok(())
    }
}

// === impl Counted ===

impl Counted {
    fn session(&mut self, pool: &Pool, key: SessionKey, backend: &str, streams: u32) {
        let Some(member) = member(pool, backend) else { return };
        let id = (key, member.slot());
        if streams == 0 {
            self.sessions.remove(&id);
            return;
        }
        if self.sessions.len() >= MAX_COUNTS && !self.sessions.contains_key(&id) {
            return;
        }
        let holds = self
            .sessions
            .entry(id)
            .or_insert_with(|| Holds { affinity: Arc::clone(&pool.affinity), list: Vec::new() });
        holds.set(key, member, streams as usize);
    }

    fn backend(&mut self, pool: &Pool, backend: &str, in_flight: u32, streams: u32) {
        let Some(member) = member(pool, backend) else { return };
        let count = self.backends.entry(member.slot()).or_insert_with(|| Count {
            member: Arc::clone(member),
            streams: 0,
            in_flight: 0,
            loose: 0,
        });
        count.streams = streams.min(MAX_UNDER_WAY);
        count.set(in_flight.min(MAX_UNDER_WAY), count.loose);
    }

    /// The streams of sessions are counted by their holds: those beyond them at the backend alone.
    fn balance(&mut self) {
        let mut held: HashMap<Slot, usize> = HashMap::new();
        for (id, holds) in &self.sessions {
            *held.entry(id.1).or_default() += holds.list.len();
        }
        for (slot, count) in &mut self.backends {
            let held = held.get(slot).map_or(0, |held| u32::try_from(*held).unwrap_or(u32::MAX));
            count.set(count.in_flight, count.streams.saturating_sub(held));
        }
    }
}

/// Requests or streams at one backend that are believed.
const MAX_UNDER_WAY: u32 = 1 << 24;

fn member<'a>(pool: &'a Pool, backend: &str) -> Option<&'a Arc<Member>> {
    pool.backend(backend).or_else(|| pool.former(backend)).map(|backend| &backend.member)
}

// === impl Holds ===

impl Holds {
    fn set(&mut self, key: SessionKey, member: &Arc<Member>, count: usize) {
        let now = clock::tick();
        while self.list.len() > count {
            self.list.pop().into_iter().for_each(|hold| self.affinity.release(hold, now));
        }
        while self.list.len() < count.min(MAX_COUNTS) {
            // It may be unknown here as yet: the next report of everything tries again.
            let Some(hold) = self.affinity.hold(key, member, now) else { return };
            self.list.push(hold);
        }
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        for hold in self.list.drain(..) {
            self.affinity.release(hold, clock::tick());
        }
    }
}

// === impl Count ===

impl Count {
    fn set(&mut self, in_flight: u32, loose: u32) {
        let change = |before: u32, after: u32| after.cast_signed().wrapping_sub(before.cast_signed());
        self.member.carry(change(self.in_flight, in_flight), change(self.loose, loose));
        (self.in_flight, self.loose) = (in_flight, loose);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        affinity::Rule,
        store::testing::{key, session, snapshot},
    };

    /// Two processes that know the same session.
    fn both() -> [Snapshot; 2] {
        let both = [snapshot(&["app-1", "app-2"]), snapshot(&["app-1", "app-2"])];
        for snapshot in &both {
            session("app-1").absorb(&snapshot.pools[0], key(1), Rule::Newer);
        }
        both
    }

    fn pass(report: &mut Report, carried: &mut Carried, [old, new]: &[Snapshot; 2]) -> usize {
        let frames = report.changes(old);
        frames.iter().for_each(|frame| carried.hear(new, frame).unwrap());
        frames.len()
    }

    fn counts(snapshot: &Snapshot) -> (u32, u32, u32) {
        let member = &snapshot.pools[0].backends[0].member;
        (member.streams(), member.in_flight(), member.live())
    }

    #[test]
    fn streams_and_requests_of_the_old_process_count_in_the_new_one_until_they_end() {
        let snapshots = both();
        let (pool, member) = (&snapshots[0].pools[0], &snapshots[0].pools[0].backends[0].member);
        let hold = pool.affinity.hold(key(1), member, clock::tick()).unwrap();
        member.enter();
        let (mut report, mut carried) = (Report::default(), Carried::default());
        pass(&mut report, &mut carried, &snapshots);
        assert_eq!(counts(&snapshots[1]), (1, 1, 1));
        assert_eq!(pass(&mut report, &mut carried, &snapshots), 0, "nothing has changed");
        for _ in 0..2 * ROUNDS {
            pass(&mut report, &mut carried, &snapshots);
            assert_eq!(counts(&snapshots[1]), (1, 1, 1));
        }
        pool.affinity.release(hold, clock::tick());
        member.leave();
        pass(&mut report, &mut carried, &snapshots);
        assert_eq!(counts(&snapshots[1]), (0, 0, 1));
    }

    #[test]
    fn nothing_counts_any_more_when_the_old_process_has_ended() {
        let snapshots = both();
        let (pool, member) = (&snapshots[0].pools[0], &snapshots[0].pools[0].backends[0].member);
        let _hold = pool.affinity.hold(key(1), member, clock::tick()).unwrap();
        member.enter();
        let mut carried = Carried::default();
        pass(&mut Report::default(), &mut carried, &snapshots);
        assert_eq!(counts(&snapshots[1]), (1, 1, 1));
        drop(carried);
        assert_eq!(counts(&snapshots[1]), (0, 0, 1));
    }

    #[test]
    fn a_stream_whose_session_comes_later_counts_once() {
        let [old, _] = both();
        let snapshots = [old, snapshot(&["app-1", "app-2"])];
        let (pool, member) = (&snapshots[0].pools[0], &snapshots[0].pools[0].backends[0].member);
        let _hold = pool.affinity.hold(key(1), member, clock::tick()).unwrap();
        let (mut report, mut carried) = (Report::default(), Carried::default());
        pass(&mut report, &mut carried, &snapshots);
        assert_eq!(counts(&snapshots[1]), (1, 0, 0));
        session("app-1").absorb(&snapshots[1].pools[0], key(1), Rule::Newer);
        for _ in 0..ROUNDS {
            pass(&mut report, &mut carried, &snapshots);
        }
        assert_eq!(counts(&snapshots[1]), (1, 0, 1));
        let held = snapshots[1].pools[0].affinity.trace(key(1), clock::tick());
        assert!(!matches!(held, crate::affinity::Trace::Unknown));
    }

    #[test]
    fn what_is_no_report_is_an_error_and_never_a_panic() {
        let [_, new] = both();
        let mut whole = Vec::new();
        put_name(&mut whole, "app");
        put_session(&mut whole, key(1), "app-1", u32::MAX);
        for end in 0..whole.len() {
            let _ = Carried::default().hear(&new, &whole[..end]);
        }
        assert!(Carried::default().hear(&new, b"\0\x03app\x07").is_err());
    }
}
