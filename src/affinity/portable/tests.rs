//! What leaves a process and comes back to another.

use super::*;
use crate::affinity::{
    Effects, Verdict,
    tests::{Pool, deleted, key, lasting, set},
};

/// The bindings of `from`, told to `to`, whose backends have the same names.
fn hand_over(from: &Pool, to: &Pool, rule: Rule) -> Vec<Absorbed> {
    let mut all = Vec::new();
    from.affinity.each(from.at(), |key, trace| {
        all.push(tell(from, to, key, trace, rule));
        true
    });
    all
}

fn tell(from: &Pool, to: &Pool, key: SessionKey, trace: Trace, rule: Rule) -> Absorbed {
    let home = |slot| {
        let name = from.affinity.member(slot).unwrap().name().to_owned();
        to.affinity.home_named(&name, &to.settings).unwrap()
    };
    match trace {
        Trace::Bound(record) => {
            to.affinity.absorb(&to.settings, &home(record.home), key, &record, rule, to.at())
        }
        Trace::Renamed { to: new, until } => {
            to.affinity.absorb_renamed(&to.settings, key, new, until, to.at())
        }
        Trace::Ended { home: slot, until } => {
            to.affinity.absorb_ended(&to.settings, key, home(slot).slot(), until, to.at())
        }
        Trace::Unknown => Absorbed::Unknown,
    }
}

fn drain(pool: &Pool) -> Vec<SessionKey> {
    pool.affinity.journal().drain().changed
}

#[test]
fn sessions_are_at_home_in_the_next_process() {
    let (mut old, mut new) = (Pool::new(3), Pool::new(3));
    let homes: Vec<Slot> = (1..=30).map(|number| old.login(number)).collect();
    assert_eq!(hand_over(&old, &new, Rule::Newer), [Absorbed::New; 30]);
    for (number, home) in (1..=30).zip(homes) {
        assert_eq!(new.look(&[number]), (Some(home), Verdict::Home));
    }
    assert_eq!((new.counts(), new.stats().restored), ((30, 0), 30));
}

#[test]
fn a_session_that_is_known_by_its_new_key_stays_where_that_says() {
    let mut pool = Pool::new(2);
    let (old, new) = (pool.login(1), pool.login(2));
    assert_ne!(old, new);
    let until = pool.at().after(pool.settings.grace);
    pool.affinity.absorb_renamed(&pool.settings, key(1), key(2), until, pool.at());
    for number in [1, 2] {
        assert_eq!(pool.look(&[number]), (Some(new), Verdict::Home), "{number}");
    }
    assert_eq!((pool.counts(), pool.moved(MoveReason::Relearned)), ((1, 0), 0));
}

#[test]
fn what_is_known_already_changes_nothing_and_is_not_told_again() {
    let (mut old, new) = (Pool::new(3), Pool::new(3));
    old.login(1);
    old.exchange(&[1], 200, set(2));
    hand_over(&old, &new, Rule::Newer);
    new.affinity.journal().open(Tick::new(100));
    let again = hand_over(&old, &new, Rule::Newer);
    assert_eq!(again, [Absorbed::Same, Absorbed::Same], "the session and its earlier id");
    assert_eq!(drain(&new), []);
}

#[test]
fn the_time_that_a_session_has_left_goes_with_it() {
    let (mut old, mut new) = (Pool::new(1), Pool::new(1));
    old.login(1);
    old.pass(50);
    old.login(2);
    old.pass(20);
    new.now = old.now;
    hand_over(&old, &new, Rule::Newer);
    assert_eq!(new.counts(), (1, 1), "one is idle for longer than the session timeout");
    new.pass(20);
    assert_eq!(new.counts(), (1, 0), "and its TTL is over");
    new.pass(20);
    assert_eq!(new.counts(), (0, 1));
    new.pass(31);
    assert_eq!(new.counts(), (0, 0));
}

#[test]
fn a_session_whose_time_is_over_does_not_come_back() {
    let (mut old, mut new) = (Pool::new(1), Pool::new(1));
    old.login(1);
    new.now = old.now + 900;
    assert_eq!(hand_over(&old, &new, Rule::Always), [Absorbed::Expired]);
    assert_eq!(new.counts(), (0, 0));
}

#[test]
fn a_longer_life_and_a_move_go_with_the_session() {
    let (mut old, new) = (Pool::new(2), Pool::new(2));
    let (home, ..) = old.exchange(&[], 200, lasting(1, 600));
    old.pass(1);
    old.member(home).set_up(false, old.at());
    let (second, verdict, change) = old.exchange(&[1], 200, Effects::SILENT);
    assert_eq!((verdict, change), (Verdict::Moved, Change::Moved));
    let Trace::Bound(record) = old.affinity.trace(key(1), old.at()) else { panic!("it is known") };
    assert_eq!((record.home, record.from, record.placed), (second, Some(home), Tick::new(10)));
    tell(&old, &new, key(1), Trace::Bound(record), Rule::Newer);
    assert_eq!(new.affinity.trace(key(1), new.at()), Trace::Bound(Record { last_seen: new.at(), ..record }));
}

#[test]
fn the_later_move_wins_and_is_booked() {
    let (mut here, mut there) = (Pool::new(3), Pool::new(3));
    let home = here.login(1);
    hand_over(&here, &there, Rule::Newer);
    there.pass(1);
    there.member(home).set_up(false, there.at());
    let (second, ..) = there.exchange(&[1], 200, Effects::SILENT);
    here.now = there.now;
    assert_eq!(hand_over(&there, &here, Rule::Newer), [Absorbed::Moved]);
    assert_eq!(here.look(&[1]), (Some(second), Verdict::Home));
    assert_eq!((here.moved(MoveReason::Announced), here.counts()), (1, (1, 0)));
    let Trace::Bound(record) = here.affinity.trace(key(1), here.at()) else { panic!("it is known") };
    let stale = Record { home, placed: Tick::new(0), from: None, ..record };
    assert_eq!(tell(&here, &here, key(1), Trace::Bound(stale), Rule::Newer), Absorbed::Older);
    assert_eq!(tell(&here, &here, key(1), Trace::Bound(stale), Rule::Always), Absorbed::Moved);
}

#[test]
fn a_session_that_ended_here_does_not_come_back_by_an_older_word_of_it() {
    let (mut here, mut there) = (Pool::new(2), Pool::new(2));
    here.login(1);
    hand_over(&here, &there, Rule::Newer);
    here.exchange(&[1], 200, deleted());
    assert_eq!(hand_over(&there, &here, Rule::Newer), [Absorbed::Ended]);
    assert_eq!(here.counts(), (0, 0));
    assert_eq!(hand_over(&here, &there, Rule::Newer), [Absorbed::Ended], "it is the end that is told");
    assert_eq!((there.counts(), there.look(&[1]).1), ((0, 0), Verdict::Home));
    there.pass(10);
    assert_eq!(there.look(&[1]).1, Verdict::Provisional);
}

#[test]
fn a_rename_elsewhere_is_one_here() {
    let (mut here, mut there) = (Pool::new(2), Pool::new(2));
    let home = here.login(1);
    hand_over(&here, &there, Rule::Newer);
    here.exchange(&[1], 200, set(2));
    for number in [1, 2] {
        let trace = here.affinity.trace(key(number), here.at());
        tell(&here, &there, key(number), trace, Rule::Newer);
    }
    assert_eq!((there.counts(), there.stats().renamed), ((1, 0), 1));
    assert_eq!(there.look(&[1]), (Some(home), Verdict::Home));
    assert_eq!(there.look(&[2]), (Some(home), Verdict::Home));
}

#[test]
fn an_operator_does_not_move_a_session_of_which_only_an_earlier_id_is_known() {
    let pool = Pool::new(2);
    let until = pool.at().after(pool.settings.ttl);
    pool.affinity.absorb_renamed(&pool.settings, key(1), key(2), until, pool.at());
    assert!(!pool.affinity.move_to(&pool.settings, key(1), &pool.member(Slot::new(1)), pool.at()));
    assert_eq!((pool.counts(), pool.stats().entries), ((0, 0), 0));
}

#[test]
fn sessions_of_a_backend_that_is_not_configured_wait_for_it() {
    let (mut old, mut new) = (Pool::new(2), Pool::new(1));
    old.login(1);
    old.login(2);
    assert_eq!(hand_over(&old, &new, Rule::Newer), [Absorbed::New; 2]);
    assert_eq!(new.counts(), (1, 0), "nobody counts the other");
    new.reload(&["a", "b"]);
    assert_eq!(new.counts(), (2, 0));
    for number in [1, 2] {
        assert_eq!(new.look(&[number]).1, Verdict::Home);
    }
}

#[test]
fn a_session_whose_home_may_yet_come_is_not_moved_away() {
    let (mut old, mut new) = (Pool::new(2), Pool::new(1));
    let homes = [old.login(1), old.login(2)];
    hand_over(&old, &new, Rule::Newer);
    let absent = new.affinity.home_named("b", &new.settings).unwrap();
    absent.await_until(Tick::new(100));
    let number = if old.member(homes[0]).name() == "b" { 1 } else { 2 };
    assert!(new.affinity.awaits_home(&new.roster, key(number), new.at()));
    let (_, verdict, change) = new.exchange(&[number], 200, Effects::SILENT);
    assert_eq!((verdict, change), (Verdict::Provisional, Change::None));
    new.reload(&["a", "b"]);
    assert_eq!(new.look(&[number]), (Some(absent.slot()), Verdict::Home));
}

#[test]
fn a_home_that_did_not_come_is_given_up() {
    let (mut old, mut new) = (Pool::new(2), Pool::new(1));
    let homes = [old.login(1), old.login(2)];
    hand_over(&old, &new, Rule::Newer);
    let absent = new.affinity.home_named("b", &new.settings).unwrap();
    absent.await_until(Tick::new(100));
    absent.await_until(Tick::new(1_000));
    let number = if old.member(homes[0]).name() == "b" { 1 } else { 2 };
    new.pass(10);
    assert!(!new.affinity.awaits_home(&new.roster, key(number), new.at()));
    assert_eq!(new.look(&[number]).1, Verdict::Moved);
}

#[test]
fn names_that_nobody_configured_are_bounded() {
    let pool = Pool::new(1);
    for number in 0..MAX_ABSENT {
        let name = format!("x{number}");
        let member = pool.affinity.home_named(&name, &pool.settings).unwrap();
        let record = Record {
            home: member.slot(),
            created: pool.at(),
            placed: pool.at(),
            from: None,
            last_seen: pool.at(),
            ttl: None,
            unlearned: false,
            scope: Scope::UNKNOWN,
        };
        let number = u32::try_from(number).unwrap();
        pool.affinity.absorb(&pool.settings, &member, key(number), &record, Rule::Newer, pool.at());
    }
    assert!(pool.affinity.home_named("one more", &pool.settings).is_none());
    assert!(pool.affinity.home_named("x7", &pool.settings).is_some());
    assert!(pool.affinity.home_named("a", &pool.settings).is_some());
}

#[test]
fn names_that_have_no_session_any_more_do_not_count() {
    let pool = Pool::new(1);
    for number in 0..2 * MAX_ABSENT {
        assert!(pool.affinity.home_named(&format!("x{number}"), &pool.settings).is_some());
    }
    assert!(pool.affinity.sizes().names <= 2, "a slot without sessions is used again");
}

#[test]
fn what_comes_from_outside_displaces_no_live_session() {
    let (mut old, mut new) = (Pool::new(1), Pool::new(1));
    old.login(1);
    new.settings.max_sessions = std::num::NonZeroUsize::MIN;
    new.login(2);
    assert_eq!(hand_over(&old, &new, Rule::Newer), [Absorbed::Full]);
    assert_eq!(new.look(&[2]).1, Verdict::Home);
}

#[test]
fn the_journal_tells_of_every_change_and_coarsely_of_use() {
    let mut pool = Pool::new(2);
    pool.affinity.journal().open(Tick::new(100));
    let home = pool.login(1);
    assert_eq!(drain(&pool), [key(1)]);
    pool.exchange(&[1], 200, set(2));
    assert_eq!(drain(&pool), [key(1), key(2)]);
    pool.member(home).set_up(false, pool.at());
    pool.exchange(&[2], 200, Effects::SILENT);
    assert_eq!(drain(&pool), [key(2)]);
    let mut touched = 0;
    for _ in 0..50 {
        pool.exchange(&[2], 200, Effects::SILENT);
        pool.pass(1);
        let notes = pool.affinity.journal().drain();
        touched += notes.touched.len();
    }
    assert!((4..=6).contains(&touched), "{touched} notes in 50 s, one in 10 s at most");
    drain(&pool);
    pool.pass(91);
    let mut ended = drain(&pool);
    ended.sort_by_key(|key| key.words());
    assert_eq!(ended, [key(1), key(2)], "its end, and that of its earlier id");
    assert_eq!(pool.affinity.trace(key(2), pool.at()), Trace::Unknown);
}

#[test]
fn a_session_that_a_stream_holds_is_in_use_all_the_time() {
    let mut pool = Pool::new(1);
    pool.affinity.journal().open(Tick::new(100));
    let home = pool.login(1);
    let hold = pool.affinity.hold(key(1), &pool.member(home), pool.at()).unwrap();
    drain(&pool);
    pool.pass(200);
    assert_eq!(pool.affinity.journal().drain().touched, [key(1)]);
    let Trace::Bound(record) = pool.affinity.trace(key(1), pool.at()) else { panic!("it is known") };
    assert_eq!(record.last_seen, pool.at());
    pool.affinity.release(hold, pool.at());
}

#[test]
fn an_id_that_a_backend_set_elsewhere_is_learned_here_too() {
    let (mut here, mut there) = (Pool::new(1), Pool::new(1));
    there.exchange(&[1], 200, Effects::SILENT);
    assert_eq!(there.stats().unlearned, 1);
    here.login(1);
    hand_over(&here, &there, Rule::Newer);
    assert_eq!(there.stats().unlearned, 0);
}

#[test]
fn sessions_of_an_instance_that_is_gone_do_not_leave_the_process() {
    let mut pool = Pool::new(1);
    let home = pool.login(1);
    pool.affinity.restarted(home, pool.at());
    let mut seen = 0;
    pool.affinity.each(pool.at(), |_, _| {
        seen += 1;
        true
    });
    assert_eq!(seen, 0);
}
