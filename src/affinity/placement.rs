//! Where a session begins that has no home yet, and where a request goes that has no session.
//!
//! Sessions are balanced by the sessions that members have, requests without one by what is in flight, and in turn
//! where that is equal: of what lasts a moment only, a member with a session less would get everything.
//! Of a request without an id, only its answer tells which of the two it is. So as many of them as have lately
//! begun a session ([`Odds`]) are placed as sessions are, and the others as requests.
//!
//! Of sessions, the least loaded member for its weight wins, but two things would drown a member that has little:
//! the burst of sessions placed before the first of them is counted, and the rush of *every* new
//! session to a newcomer until it has caught up. Against the first, sessions count from the moment
//! they are placed; against the second, a newcomer takes part only in some of the decisions, so that
//! it gets at most [`RUSH`] times its fair share, times its share of the slow start.

use std::{
    cmp::Ordering,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{Balance, Member, Roster, Settings, Slot, Tick, member::FULL_SHARE};

/// Whose turn it is: the state of smooth weighted round robin, as in nginx. Of one pool, shared by
/// all workers, and good for any roster of that pool.
#[derive(Debug, Default)]
pub(super) struct RoundRobin(Mutex<Vec<i64>>);

/// What is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A session, or what may well become one.
    Session,
    /// A request that is over with its answer.
    Request,
}

/// What one pool remembers of its placements, of all workers.
#[derive(Debug, Default)]
pub(super) struct Turns {
    sessions: RoundRobin,
    /// Of their own: who asks for a page and then logs in would otherwise begin every session on the same member.
    requests: RoundRobin,
    odds: Odds,
}

/// How many of the requests without an id that were answered lately have begun a session, in parts of [`ALL`]; those
/// before them count less and less.
#[derive(Debug)]
struct Odds(AtomicU32);

/// The member to which something without a home goes: by the pool's balance among those that take new sessions
/// and are not in `tried`; one that has room, if there is any. `random` is the only randomness.
pub(super) fn place(
    what: What,
    settings: &Settings,
    roster: &Roster,
    tried: &[Slot],
    random: u64,
    now: Tick,
    turns: &Turns,
) -> Option<Slot> {
    let takes = |member: &Member| member.takes_new() && !tried.contains(&member.slot());
    among(what, settings, roster, |member| takes(member) && member.has_room(), random, now, turns)
        .or_else(|| among(what, settings, roster, takes, random, now, turns))
}

fn among(
    what: What,
    settings: &Settings,
    roster: &Roster,
    takes: impl Fn(&Member) -> bool + Copy,
    random: u64,
    now: Tick,
    turns: &Turns,
) -> Option<Slot> {
    let lasting = what == What::Session && settings.balance == Balance::LeastSessions;
    let candidates = roster
        .members()
        .iter()
        .filter(move |member| takes(member))
        .map(|member| Candidate::new(member, settings, lasting, now))
        .filter(|candidate| candidate.weight > 0);
    let mut dice = Dice(random);
    let turns = match what {
        What::Session => &turns.sessions,
        What::Request => &turns.requests,
    };
    if settings.balance == Balance::RoundRobin {
        turns.next(candidates, None)
    } else if candidates.clone().nth(FULL_SCAN).is_some() {
        two_choices(candidates, &mut dice)
    } else {
        let crowd = Crowd::of(candidates.clone());
        let admitted = candidates.clone().filter(|candidate| crowd.admits(candidate, &mut dice));
        let least = least_loaded(admitted, random).or_else(|| least_loaded(candidates.clone(), random))?;
        if lasting { Some(least.slot) } else { in_turn(candidates, &least, turns, dice) }
    }
}

/// Whose turn it is among those whose load equals that of `least`.
fn in_turn(
    candidates: impl Iterator<Item = Candidate> + Clone,
    least: &Candidate,
    turns: &RoundRobin,
    dice: Dice,
) -> Option<Slot> {
    let mut equals = candidates.filter(|candidate| candidate.compare(least).is_eq());
    match equals.clone().nth(1) {
        Some(_) => turns.next(equals, Some(dice)),
        None => equals.next().map(|only| only.slot),
    }
}

/// The least loaded candidate; `random` decides between equals.
fn least_loaded(candidates: impl Iterator<Item = Candidate>, random: u64) -> Option<Candidate> {
    let mut dice = Dice(!random);
    candidates
        .map(|candidate| (candidate, dice.roll()))
        .min_by(|(a, a_tie), (b, b_tie)| a.compare(b).then(a_tie.cmp(b_tie)))
        .map(|(candidate, _)| candidate)
}

/// The less loaded of two candidates drawn by weight: nearly as even as the least loaded of all, and
/// several proxies in front of one pool do not all run to the same one. A candidate is drawn for at
/// most twice its fair share of the decisions, which is [`RUSH`] again.
///
/// Mitzenmacher, "The power of two choices in randomized load balancing", 2001. The drawing is
/// weighted reservoir sampling with a reservoir of one, done twice side by side.
fn two_choices(candidates: impl Iterator<Item = Candidate>, dice: &mut Dice) -> Option<Slot> {
    let mut total = 0;
    let mut drawn: [Option<Candidate>; 2] = [None, None];
    for candidate in candidates {
        total += candidate.capacity();
        for place in &mut drawn {
            if dice.below(total) < candidate.capacity() {
                *place = Some(candidate);
            }
        }
    }
    let [Some(a), Some(b)] = drawn else { return None };
    Some(if a.compare(&b).is_le() { a.slot } else { b.slot })
}

/// One reading of a member, so that a decision does not see its numbers change.
#[derive(Clone, Copy)]
struct Candidate {
    slot: Slot,
    weight: u64,
    /// In thousandths.
    share: u64,
    load: u64,
    /// Whether `load` goes on for long, so that a low one invites a rush.
    lasting: bool,
}

/// All candidates together.
struct Crowd {
    weight: u64,
    load: u64,
}

/// Random numbers from a random seed: SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

// === impl Candidate ===

impl Candidate {
    fn new(member: &Member, settings: &Settings, lasting: bool, now: Tick) -> Self {
        let load = if lasting {
            u64::from(member.live()) + u64::from(member.placing())
        } else {
            u64::from(member.in_flight())
        };
        Self {
            slot: member.slot(),
            weight: member.weight().into(),
            share: member.share(settings.slow_start, now).into(),
            load,
            lasting,
        }
    }

    fn capacity(&self) -> u64 {
        self.weight * self.share
    }

    /// Compares sessions per capacity as each would have them with one more, but requests per weight as they are:
    /// with one more, a heavy member would get all that come one after another.
    fn compare(&self, other: &Self) -> Ordering {
        let product = |load: u64, capacity: u64| u128::from(load) * u128::from(capacity);
        if self.lasting {
            product(self.load + 1, other.capacity()).cmp(&product(other.load + 1, self.capacity()))
        } else {
            product(self.load, other.weight).cmp(&product(other.load, self.weight))
        }
    }
}

// === impl Crowd ===

impl Crowd {
    fn of(candidates: impl Iterator<Item = Candidate>) -> Self {
        candidates.fold(Self { weight: 0, load: 0 }, |crowd, candidate| Self {
            weight: crowd.weight + candidate.weight,
            load: crowd.load + candidate.load,
        })
    }

    /// Whether this candidate takes part in this decision. All do but those that ramp up or have far
    /// less than their fair share of sessions; for these it is a matter of luck.
    fn admits(&self, candidate: &Candidate, dice: &mut Dice) -> bool {
        let ramps = candidate.share < u64::from(FULL_SHARE);
        let lags = candidate.lasting && self.is_far_behind(candidate);
        if !ramps && !lags {
            return true;
        }
        // The members may have changed since the crowd was counted, hence the `max`.
        let whole = self.weight.max(candidate.weight);
        let chance = candidate.share * whole.min(RUSH * candidate.weight);
        dice.below(u64::from(FULL_SHARE) * whole) < chance
    }

    /// Whether it has less than half of what is fair. A few sessions do not count.
    fn is_far_behind(&self, candidate: &Candidate) -> bool {
        u128::from(self.load) * u128::from(candidate.weight)
            > u128::from(self.weight) * u128::from(2 * candidate.load + FEW)
    }
}

// === impl RoundRobin ===

impl RoundRobin {
    /// Everybody gains their own capacity, the richest has the turn and pays for all. Of several, the first; with
    /// `dice`, any: then what comes at regular intervals does not meet the same member each time.
    fn next(&self, candidates: impl Iterator<Item = Candidate>, mut dice: Option<Dice>) -> Option<Slot> {
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut richest: Option<((i64, u64), Slot)> = None;
        for candidate in candidates {
            let index = usize::from(candidate.slot.get());
            if index >= credits.len() {
                credits.resize(index + 1, 0);
            }
            // Below 2^42: a weight has 32 bits and a share 10.
            let gain = candidate.capacity().cast_signed();
            total += gain;
            credits[index] += gain;
            let wealth = (credits[index], dice.as_mut().map_or(0, Dice::roll));
            if richest.is_none_or(|(most, _)| wealth > most) {
                richest = Some((wealth, candidate.slot));
            }
        }
        let (_, slot) = richest?;
        credits[usize::from(slot.get())] -= total;
        Some(slot)
    }
}

// === impl Turns ===

impl Turns {
    /// What a request without an id is to be taken for.
    pub(super) fn guess(&self, random: u64) -> What {
        // Another seed than that of the placement.
        let part = Dice(random.rotate_left(32)).below(ALL.into());
        if part < self.odds.0.load(Relaxed).max(FLOOR).into() { What::Session } else { What::Request }
    }

    /// What it was.
    pub(super) fn was(&self, what: What) {
        let before = self.odds.0.load(Relaxed);
        let gain = if what == What::Session { ALL / MEMORY } else { 0 };
        let after = before - before / MEMORY + gain;
        if after != before {
            // Of two at a time, one may be lost: they are odds.
            self.odds.0.store(after.min(ALL), Relaxed);
        }
    }
}

// === impl Odds ===

impl Default for Odds {
    /// All of them, until answers tell otherwise.
    fn default() -> Self {
        Self(AtomicU32::new(ALL))
    }
}

// === impl Dice ===

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `0..bound`, but for a bias of `bound / 2^64`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }
}

/// The odds of what is certain.
const ALL: u32 = 1 << 16;
/// At least so many requests without an id are placed as sessions, since some begin one, and a member that has fewer
/// sessions is to catch up.
const FLOOR: u32 = ALL / 16;
/// Answers that the odds remember, more or less.
const MEMORY: u32 = 8;
/// Up to so many candidates are all looked at.
const FULL_SCAN: usize = 16;
/// How many times its fair share of new sessions a member gets at most while it catches up.
const RUSH: u64 = 2;
/// A fair load up to this is too small to speak of a rush.
const FEW: u64 = 8;

#[cfg(test)]
mod tests;
