use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{Admin, KeySources, OnDown, OnUnknown},
    *,
};

/// A pool in which every placed session is counted at once.
struct Pool {
    settings: Settings,
    roster: Roster,
    what: What,
    turns: Turns,
    dice: Dice,
    now: Tick,
}

impl Pool {
    fn new(balance: Balance, weights: &[u32]) -> Self {
        let members = (0..).zip(weights).map(|(number, &weight)| {
            Arc::new(Member::new(&format!("app-{number}"), Slot::new(number), weight))
        });
        Self {
            settings: Settings {
                keys: KeySources::default(),
                session_timeout: Duration::from_secs(1_800),
                ttl: Duration::from_secs(2_700),
                max_ttl: Duration::from_secs(86_400),
                max_age: None,
                grace: Duration::from_secs(10),
                on_down: OnDown::Move,
                on_unknown: OnUnknown::Hash,
                max_sessions: NonZeroUsize::MAX,
                skip: Vec::new(),
                balance,
                slow_start: Duration::from_secs(100),
            },
            roster: Roster::new(members.collect()),
            what: What::Session,
            turns: Turns::default(),
            dice: Dice(1),
            now: Tick::ZERO,
        }
    }

    fn members(&self) -> &[Arc<Member>] {
        self.roster.members()
    }

    fn place_beside(&mut self, tried: &[Slot]) -> Option<usize> {
        let random = self.dice.roll();
        let slot = place(self.what, &self.settings, &self.roster, tried, random, self.now, &self.turns)?;
        Some(usize::from(slot.get()))
    }

    fn place(&mut self) -> usize {
        self.place_beside(&[]).expect("there are candidates")
    }

    /// Places so many requests that begin no session, so many at a time, and returns how many each member got.
    fn request(&mut self, count: usize, at_once: usize) -> Vec<u32> {
        self.what = What::Request;
        let mut got = vec![0; self.members().len()];
        let mut under_way = std::collections::VecDeque::new();
        for _ in 0..count {
            if under_way.len() == at_once {
                let first: usize = under_way.pop_front().expect("at least one");
                self.members()[first].leave();
            }
            let index = self.place();
            self.members()[index].enter();
            under_way.push_back(index);
            got[index] += 1;
        }
        under_way.into_iter().for_each(|index| self.members()[index].leave());
        self.what = What::Session;
        got
    }

    /// A request without an id comes, and begins a session or not; which member got it.
    fn come(&mut self, begins: bool) -> usize {
        self.what = self.turns.guess(self.dice.roll());
        let index = self.place();
        self.turns.was(if begins { What::Session } else { What::Request });
        self.members()[index].add_live(begins.into());
        self.what = What::Session;
        index
    }

    /// Starts so many sessions and returns how many each member got.
    fn start(&mut self, count: usize) -> Vec<u32> {
        let mut got = vec![0; self.members().len()];
        for _ in 0..count {
            let index = self.place();
            self.members()[index].add_live(1);
            got[index] += 1;
        }
        got
    }

    /// Ends a random session.
    fn end(&mut self) {
        let live: u32 = self.members().iter().map(|member| member.live()).sum();
        let mut left = self.dice.below(live.into()) as u32;
        for member in self.roster.members() {
            if left < member.live() {
                return member.add_live(-1);
            }
            left -= member.live();
        }
    }

    /// How far the live sessions are from the weights, relative to the fair load.
    fn worst_deviation(&self) -> f64 {
        let weight: u32 = self.members().iter().map(|member| member.weight()).sum();
        let live: u32 = self.members().iter().map(|member| member.live()).sum();
        let off = |member: &Arc<Member>| {
            let fair = f64::from(live) * f64::from(member.weight()) / f64::from(weight);
            (f64::from(member.live()) / fair - 1.0).abs()
        };
        self.members().iter().map(off).fold(0.0, f64::max)
    }
}

#[test]
fn nobody_is_placed_when_nobody_takes_sessions() {
    for balance in [Balance::LeastSessions, Balance::LeastRequests, Balance::RoundRobin] {
        let mut pool = Pool::new(balance, &[1, 1, 0]);
        pool.members()[0].set_up(false, Tick::ZERO);
        pool.members()[1].set_admin(Admin::Draining, Tick::ZERO);
        assert_eq!(pool.place_beside(&[]), None);
        assert_eq!(Pool::new(balance, &[]).place_beside(&[]), None);
    }
}

#[test]
fn what_was_tried_is_not_tried_again() {
    for balance in [Balance::LeastSessions, Balance::LeastRequests, Balance::RoundRobin] {
        for size in [3, 20] {
            let mut pool = Pool::new(balance, &vec![1; size]);
            let mut tried = Vec::new();
            while let Some(index) = pool.place_beside(&tried) {
                let slot = Slot::new(index as u16);
                assert!(!tried.contains(&slot));
                tried.push(slot);
            }
            assert_eq!(tried.len(), size);
        }
    }
}

#[test]
fn the_first_sessions_are_dealt_out_evenly() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1]);
    assert_eq!(pool.start(9), [3, 3, 3]);
}

#[test]
fn equals_are_chosen_at_random() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1, 1]);
    let mut got = [0; 4];
    for _ in 0..4_000 {
        got[pool.place()] += 1;
    }
    assert!(got.iter().all(|got| (850..1_150).contains(got)), "{got:?}");
}

#[test]
fn sessions_follow_the_weights_through_joins_and_ends() {
    for (weights, tolerance) in
        [(vec![1, 1, 1], 0.01), (vec![1, 2, 5], 0.01), (vec![3; 16], 0.01), ((5..=25).collect(), 0.03)]
    {
        let mut pool = Pool::new(Balance::LeastSessions, &weights);
        pool.start(20_000);
        for _ in 0..40 {
            for _ in 0..pool.dice.below(1_000) {
                pool.end();
            }
            let joins = pool.dice.below(800) as usize + 100;
            pool.start(joins);
            assert!(pool.worst_deviation() < tolerance, "{weights:?}: {}", pool.worst_deviation());
        }
    }
}

#[test]
fn a_member_that_loses_sessions_faster_gets_more_new_ones() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 2, 5]);
    pool.start(8_000);
    for _ in 0..20 {
        pool.members()[0].add_live(-200);
        pool.start(200);
    }
    assert!(pool.worst_deviation() < 0.01, "{}", pool.worst_deviation());
}

#[test]
fn a_burst_spreads_before_any_of_it_is_settled() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 2, 1]);
    for _ in 0..400 {
        let index = pool.place();
        pool.members()[index].begin_placing();
    }
    let placing: Vec<_> = pool.members().iter().map(|member| member.placing()).collect();
    assert_eq!(placing, [100, 200, 100]);
}

#[test]
fn least_requests_looks_at_what_is_in_flight() {
    let mut pool = Pool::new(Balance::LeastRequests, &[1, 1]);
    pool.members()[0].enter();
    pool.members()[1].add_live(1_000);
    assert_eq!(pool.place(), 1);
}

#[test]
fn a_fast_member_may_take_all_requests() {
    let mut pool = Pool::new(Balance::LeastRequests, &[1, 1, 1]);
    for _ in 0..100 {
        pool.members()[0].enter();
        pool.members()[1].enter();
    }
    assert!((0..100).all(|_| pool.place() == 2));
}

#[test]
fn a_newcomers_part_of_new_sessions_rises_linearly() {
    for others in [3, 19] {
        let mut pool = Pool::new(Balance::LeastSessions, &vec![1; others + 1]);
        for member in &pool.members()[1..] {
            member.add_live(100_000);
        }
        pool.members()[0].start_ramp(Tick::ZERO);
        for tenth in 0..10u32 {
            let mut got = 0;
            for tick in 0..100 {
                pool.now = Tick::new(tenth * 100 + tick);
                got += pool.start(40)[0];
            }
            let share = 0.1 + 0.9 * (f64::from(tenth) + 0.5) / 10.0;
            let expected = 4_000.0 * share * 2.0 / (others as f64 + 1.0);
            let off = (f64::from(got) - expected).abs() / expected.sqrt();
            assert!(off < 4.0, "{got} instead of {expected} in part {tenth} with {others} others");
        }
    }
}

#[test]
fn a_newcomer_never_has_more_than_its_share_of_the_ramp() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1]);
    pool.members()[1].add_live(1_000);
    pool.members()[0].start_ramp(Tick::ZERO);
    for tick in 0..1_000 {
        pool.now = Tick::new(tick);
        pool.start(5);
        let share = pool.members()[0].share(pool.settings.slow_start, pool.now);
        let most = pool.members()[1].live() * share / FULL_SHARE + 1;
        assert!(pool.members()[0].live() <= most, "{} at {tick}", pool.members()[0].live());
    }
    pool.now = Tick::new(1_000);
    pool.start(2_000);
    assert!(pool.worst_deviation() < 0.01, "it catches up");
}

#[test]
fn an_empty_member_catches_up_without_a_rush() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1, 1]);
    for member in &pool.members()[1..] {
        member.add_live(10_000);
    }
    let got = pool.start(4_000)[0];
    assert!((1_850..2_150).contains(&got), "half of all is twice its fair share, not {got}");
    pool.start(40_000);
    assert!(pool.worst_deviation() < 0.01);
}

#[test]
fn newcomers_among_themselves_get_everything() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1]);
    for member in pool.members() {
        member.start_ramp(Tick::ZERO);
    }
    let got = pool.start(1_000);
    assert!(got[0].abs_diff(got[1]) < 100, "{got:?}");
}

#[test]
fn round_robin_is_smooth() {
    let mut pool = Pool::new(Balance::RoundRobin, &[5, 1, 1]);
    let order: Vec<_> = (0..14).map(|_| pool.place()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0], "as in nginx's example");
}

#[test]
fn round_robin_survives_changes_of_the_roster() {
    let mut pool = Pool::new(Balance::RoundRobin, &[1, 2, 3]);
    pool.start(4);
    let other = Pool::new(Balance::RoundRobin, &[0, 2, 0, 1, 1]);
    pool.roster = other.roster;
    pool.start(3);
    assert_eq!(pool.start(400), [0, 200, 0, 100, 100]);
}

#[test]
fn a_newcomer_has_fewer_turns() {
    let mut pool = Pool::new(Balance::RoundRobin, &[1, 1]);
    pool.members()[0].start_ramp(Tick::ZERO);
    assert_eq!(pool.start(1_100), [100, 1_000]);
}

#[test]
fn the_random_argument_decides_everything() {
    let pool = Pool::new(Balance::LeastSessions, &[1; 30]);
    for random in 0..100 {
        let place = || place(What::Session, &pool.settings, &pool.roster, &[], random, pool.now, &pool.turns);
        assert_eq!(place(), place());
    }
}

#[test]
fn who_has_room_comes_before_who_has_few_sessions() {
    for balance in [Balance::LeastSessions, Balance::LeastRequests, Balance::RoundRobin] {
        // More than are all looked at, too.
        for count in [3, FULL_SCAN + 4] {
            let mut pool = Pool::new(balance, &vec![1; count]);
            let last = count - 1;
            for member in &pool.members()[..last] {
                member.set_limit(NonZeroU32::new(1));
                member.enter();
            }
            pool.members()[last].add_live(100);
            for _ in 0..20 {
                assert_eq!(pool.place(), last, "{balance:?}");
            }
            pool.members()[last].set_limit(NonZeroU32::new(1));
            pool.members()[last].enter();
            assert!(pool.place() < count, "where none has room, one has to do");
            pool.members()[0].leave();
            assert_eq!(pool.place(), 0);
        }
    }
}

#[test]
fn requests_without_a_session_go_round_whoever_has_a_session_less() {
    for balance in [Balance::LeastSessions, Balance::LeastRequests, Balance::RoundRobin] {
        let mut pool = Pool::new(balance, &[1, 1, 1]);
        pool.members()[0].add_live(10);
        pool.members()[1].add_live(10);
        assert_eq!(pool.request(240, 1), [80, 80, 80], "{balance:?}");
        let got = pool.request(240, 8);
        assert!(got.iter().all(|got| (60..100).contains(got)), "{balance:?}: {got:?}");
    }
}

#[test]
fn requests_without_a_session_follow_the_weights() {
    for balance in [Balance::LeastSessions, Balance::LeastRequests] {
        let mut pool = Pool::new(balance, &[1, 2, 5]);
        assert_eq!(pool.request(800, 1), [100, 200, 500], "{balance:?}");
        let got = pool.request(800, 16);
        assert!((70..150).contains(&got[0]) && (450..550).contains(&got[2]), "{balance:?}: {got:?}");
    }
}

#[test]
fn requests_without_a_session_are_spread_over_many_members() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1; 20]);
    for member in &pool.members()[1..] {
        member.add_live(10);
    }
    for at_once in [1, 8] {
        let got = pool.request(2_000, at_once);
        assert!(got.iter().all(|got| (50..160).contains(got)), "{got:?}");
    }
}

#[test]
fn a_newcomer_is_ramped_for_requests_without_a_session() {
    for (at_once, most) in [(1, 40), (8, 80)] {
        let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1]);
        pool.members()[0].start_ramp(Tick::ZERO);
        let got = pool.request(1_000, at_once)[0];
        assert!((10..=most * 2).contains(&got), "{got} of 1000 at a tenth, {at_once} at once");
        pool.now = Tick::new(1_000);
        let got = pool.request(900, at_once)[0];
        assert!((250..350).contains(&got), "{got} of 900 at last, {at_once} at once");
    }
}

#[test]
fn a_member_that_takes_nothing_new_gets_no_request_without_a_session() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1]);
    pool.members()[1].set_admin(Admin::Draining, Tick::ZERO);
    assert_eq!(pool.request(100, 1), [50, 0, 50]);
}

#[test]
fn what_comes_without_an_id_is_taken_for_what_it_lately_was() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1]);
    for _ in 0..29 {
        pool.come(true);
    }
    let sessions: Vec<_> = pool.members().iter().map(|member| member.live()).collect();
    assert!(sessions.iter().all(|live| (9..=10).contains(live)), "{sessions:?}");
    let mut got = [0; 3];
    for _ in 0..240 {
        got[pool.come(false)] += 1;
    }
    assert!(got.iter().all(|got| (60..120).contains(got)), "{got:?}");
}

#[test]
fn sessions_stay_even_among_requests_that_begin_none() {
    for (weights, every) in [(vec![1, 1], 2), (vec![1, 1, 1], 2), (vec![1, 1, 1], 10), (vec![2, 1, 1], 20)] {
        let mut pool = Pool::new(Balance::LeastSessions, &weights);
        let total: u32 = weights.iter().sum();
        for turn in 0..every * 100 * total {
            pool.come(turn % every == 0);
        }
        for (member, weight) in pool.members().iter().zip(&weights) {
            let off = member.live().abs_diff(100 * weight);
            assert!(off <= 25, "{} instead of {} with one in {every}", member.live(), 100 * weight);
        }
    }
}

#[test]
fn who_has_fewer_sessions_catches_up_among_requests_that_begin_none() {
    let mut pool = Pool::new(Balance::LeastSessions, &[1, 1, 1]);
    pool.members()[0].add_live(50);
    pool.members()[1].add_live(50);
    for turn in 0..4_000 {
        pool.come(turn % 4 == 0);
    }
    assert!(pool.worst_deviation() < 0.05, "{}", pool.worst_deviation());
}
