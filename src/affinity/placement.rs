//! Where a session begins that has no home yet.
//!
//! The least loaded member for its weight wins, but two things would drown a member that has little:
//! the burst of sessions placed before the first of them is counted, and the rush of *every* new
//! session to a newcomer until it has caught up. Against the first, sessions count from the moment
//! they are placed; against the second, a newcomer takes part only in some of the decisions, so that
//! it gets at most [`RUSH`] times its fair share, times its share of the slow start.

use std::{
    cmp::Ordering,
    sync::{Mutex, PoisonError},
};

use super::{Balance, Member, Roster, Settings, Slot, Tick, member::FULL_SHARE};

/// Whose turn it is: the state of smooth weighted round robin, as in nginx. Of one pool, shared by
/// all workers, and good for any roster of that pool.
#[derive(Debug, Default)]
pub(super) struct RoundRobin(Mutex<Vec<i64>>);

/// The member on which a new session begins: by the pool's balance among those that take new ones
/// and are not in `tried`; one that has room, if there is any. `random` is the only randomness.
pub(super) fn place(
    settings: &Settings,
    roster: &Roster,
    tried: &[Slot],
    random: u64,
    now: Tick,
    turns: &RoundRobin,
) -> Option<Slot> {
    let takes = |member: &Member| member.takes_new() && !tried.contains(&member.slot());
    among(settings, roster, |member| takes(member) && member.has_room(), random, now, turns)
        .or_else(|| among(settings, roster, takes, random, now, turns))
}

fn among(
    settings: &Settings,
    roster: &Roster,
    takes: impl Fn(&Member) -> bool + Copy,
    random: u64,
    now: Tick,
    turns: &RoundRobin,
) -> Option<Slot> {
    let candidates = roster
        .members()
        .iter()
        .filter(move |member| takes(member))
        .map(|member| Candidate::new(member, settings, now))
        .filter(|candidate| candidate.weight > 0);
    let mut dice = Dice(random);
    if settings.balance == Balance::RoundRobin {
        turns.next(candidates)
    } else if candidates.clone().nth(FULL_SCAN).is_some() {
        two_choices(candidates, &mut dice)
    } else {
        let crowd = Crowd::of(candidates.clone());
        least_loaded(candidates.clone().filter(|candidate| crowd.admits(candidate, &mut dice)), random)
            .or_else(|| least_loaded(candidates, random))
    }
}

/// The least loaded candidate; `random` decides between equals.
fn least_loaded(candidates: impl Iterator<Item = Candidate>, random: u64) -> Option<Slot> {
    let mut dice = Dice(!random);
    candidates
        .map(|candidate| (candidate, dice.roll()))
        .min_by(|(a, a_tie), (b, b_tie)| a.compare(b).then(a_tie.cmp(b_tie)))
        .map(|(candidate, _)| candidate.slot)
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
    fn new(member: &Member, settings: &Settings, now: Tick) -> Self {
        let lasting = settings.balance == Balance::LeastSessions;
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

    /// Compares the load per capacity that each would have with one more.
    fn compare(&self, other: &Self) -> Ordering {
        let product = |load: u64, capacity: u64| u128::from(load + 1) * u128::from(capacity);
        product(self.load, other.capacity()).cmp(&product(other.load, self.capacity()))
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
    /// Everybody gains their own capacity, the richest has the turn and pays for all.
    fn next(&self, candidates: impl Iterator<Item = Candidate>) -> Option<Slot> {
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut richest: Option<(i64, Slot)> = None;
        for candidate in candidates {
            let index = usize::from(candidate.slot.get());
            if index >= credits.len() {
                credits.resize(index + 1, 0);
            }
            // Below 2^42: a weight has 32 bits and a share 10.
            let gain = candidate.capacity().cast_signed();
            total += gain;
            credits[index] += gain;
            if richest.is_none_or(|(credit, _)| credits[index] > credit) {
                richest = Some((credits[index], candidate.slot));
            }
        }
        let (_, slot) = richest?;
        credits[usize::from(slot.get())] -= total;
        Some(slot)
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

/// Up to so many candidates are all looked at.
const FULL_SCAN: usize = 16;
/// How many times its fair share of new sessions a member gets at most while it catches up.
const RUSH: u64 = 2;
/// A fair load up to this is too small to speak of a rush.
const FEW: u64 = 8;

#[cfg(test)]
mod tests;
