//! The first table: what a request carries.

use super::*;
use crate::affinity::{Admin, MoveReason, Reason};

#[test]
fn a_known_id_goes_home_and_is_touched() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    for _ in 0..10 {
        pool.pass(50);
        assert_eq!(pool.look(&[1]), (Some(home), Verdict::Home));
        assert_eq!(pool.counts(), (1, 0));
    }
}

#[test]
fn a_known_id_goes_home_while_its_home_drains() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.member(home).set_admin(Admin::Draining, pool.at());
    let decision = pool.ask(&[1]);
    assert_eq!((decision.pick, decision.reason), (Some(home), Reason::Draining));
    pool.affinity.abandon(decision.claim);
    for number in 2..20 {
        assert_ne!(pool.login(number), home);
    }
}

#[test]
fn a_known_id_whose_home_is_down_moves_on_success() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    let decision = pool.ask(&[1]);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Moved, Reason::Down));
    let new = decision.pick.unwrap();
    assert_ne!(new, home);
    assert_eq!(pool.settle(decision, &[1], 200, Effects::SILENT).change, Change::Moved);
    pool.member(home).set_up(true, pool.at());
    assert_eq!(pool.look(&[1]), (Some(new), Verdict::Home));
    assert_eq!((pool.counts(), pool.moved(MoveReason::Down)), ((1, 0), 1));
}

#[test]
fn a_move_that_fails_moves_nothing() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    assert_eq!(pool.exchange(&[1], 503, Effects::SILENT).2, Change::None);
    pool.look(&[1]);
    pool.member(home).set_up(true, pool.at());
    assert_eq!(pool.look(&[1]), (Some(home), Verdict::Home));
    assert_eq!(pool.moved(MoveReason::Down), 0);
}

#[test]
fn wait_holds_the_request_for_the_home_first() {
    let mut pool = Pool::new(3);
    pool.settings.on_down = OnDown::Wait(Duration::from_secs(5));
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    let decision = pool.ask(&[1]);
    assert_eq!((decision.pick, decision.wait_for), (None, Some(home)));
    pool.affinity.abandon(decision.claim);
    let decision = pool.ask_with(&[1], |ask| ask.waited = true);
    assert_eq!(decision.verdict, Verdict::Moved);
    pool.affinity.abandon(decision.claim);
}

#[test]
fn refuse_answers_that_the_home_is_down() {
    let mut pool = Pool::new(3);
    pool.settings.on_down = OnDown::Refuse;
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    let decision = pool.ask(&[1]);
    assert_eq!((decision.pick, decision.verdict), (None, Verdict::Refused));
    assert_eq!(decision.reason, Reason::HomeDown);
    pool.affinity.abandon(decision.claim);
}

#[test]
fn a_known_id_whose_home_left_the_configuration_moves() {
    let mut pool = Pool::new(2);
    let home = pool.login(1);
    let other = if pool.member(home).name() == "a" { "b" } else { "a" };
    pool.reload(&[other]);
    assert_eq!(pool.counts(), (0, 0));
    let decision = pool.ask(&[1]);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Moved, Reason::Removed));
    assert_eq!(pool.settle(decision, &[1], 200, Effects::SILENT).change, Change::Moved);
    assert_eq!((pool.counts(), pool.moved(MoveReason::Removed)), ((1, 0), 1));
}

#[test]
fn a_request_without_an_id_is_placed_by_balance() {
    let mut pool = Pool::new(3);
    for number in 0..300 {
        pool.login(number);
    }
    assert!(pool.stats().backends.iter().all(|backend| (95..=105).contains(&backend.live)));
}

#[test]
fn requests_without_an_id_follow_the_first_of_their_connection() {
    let mut pool = Pool::new(3);
    let slot = Slot::new(1);
    for _ in 0..20 {
        let decision = pool.ask_with(&[], |ask| ask.follow = Some(slot));
        assert_eq!((decision.pick, decision.reason), (Some(slot), Reason::Follows));
        pool.affinity.abandon(decision.claim);
    }
    pool.member(slot).set_up(false, pool.at());
    let decision = pool.ask_with(&[], |ask| ask.follow = Some(slot));
    assert_eq!((decision.pick == Some(slot), decision.reason), (false, Reason::NoId));
    pool.affinity.abandon(decision.claim);
}

#[test]
fn an_unknown_id_goes_where_every_replica_sends_it() {
    let (mut one, mut other) = (Pool::new(5), Pool::new(5));
    for number in 0..100 {
        other.login(1_000 + number);
        let (slot, verdict) = one.look(&[number]);
        assert_eq!(verdict, Verdict::Provisional);
        assert_eq!(other.look(&[number]).0, slot);
    }
    assert_eq!(one.affinity.sizes().table, 0);
}

#[test]
fn an_unknown_id_is_bound_when_its_backend_accepts_it() {
    let mut pool = Pool::new(3);
    let (slot, verdict, change) = pool.exchange(&[1], 200, Effects::SILENT);
    assert_eq!((verdict, change), (Verdict::Provisional, Change::Confirmed));
    assert_eq!(pool.look(&[1]), (Some(slot), Verdict::Home));
    assert_eq!(pool.stats().unlearned, 1);
}

#[test]
fn an_unknown_id_is_forgotten_when_its_backend_refuses_it_or_sets_another() {
    let mut pool = Pool::new(3);
    assert_eq!(pool.exchange(&[1], 404, Effects::SILENT).2, Change::Forgotten);
    assert_eq!(pool.exchange(&[1], 200, deleted()).2, Change::Forgotten);
    assert_eq!(pool.exchange(&[1], 200, set(2)).2, Change::Learned);
    assert_eq!(pool.look(&[1]).1, Verdict::Provisional);
    assert_eq!(pool.look(&[2]).1, Verdict::Home);
}

#[test]
fn of_several_ids_the_first_known_wins() {
    let mut pool = Pool::new(3);
    let home = pool.login(5);
    assert_eq!(pool.look(&[8, 9, 5]), (Some(home), Verdict::Home));
    assert_eq!(pool.stats().ambiguous, 1);
}

#[test]
fn an_id_that_has_just_ended_does_not_go_before_a_living_one() {
    let mut pool = Pool::new(2);
    let home = pool.login(1);
    let other = loop {
        let number = pool.stats().learned as u32 + 10;
        if pool.login(number) != home {
            break number;
        }
    };
    assert_eq!(pool.exchange(&[other], 200, deleted()).2, Change::Ended);
    assert_eq!(pool.look(&[other, 1]), (Some(home), Verdict::Home));
}

#[test]
fn a_session_that_begins_on_a_skipped_path_is_learned() {
    let mut pool = Pool::new(3);
    let decision = pool.ask_with(&[], |ask| ask.skip = true);
    let home = decision.pick;
    assert_eq!(decision.verdict, Verdict::Skipped);
    assert_eq!(pool.settle(decision, &[], 200, set(1)).change, Change::Learned);
    assert_eq!(pool.look(&[1]), (home, Verdict::Home));
}

#[test]
fn a_skipped_path_neither_moves_nor_ends_a_session() {
    let mut pool = Pool::new(2);
    let home = pool.login(1);
    for effects in [set(1), deleted(), Effects::SILENT] {
        for _ in 0..8 {
            let decision = pool.ask_with(&[1], |ask| ask.skip = true);
            assert_ne!(pool.settle(decision, &[1], 200, effects).change, Change::Moved);
        }
        assert_eq!(pool.look(&[1]), (Some(home), Verdict::Home));
    }
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn without_an_available_backend_a_request_is_refused() {
    let mut pool = Pool::new(2);
    pool.login(1);
    for member in pool.roster.members() {
        member.set_up(false, Tick::ZERO);
    }
    for carried in [&[][..], &[1], &[2]] {
        let decision = pool.ask(carried);
        assert_eq!((decision.verdict, decision.reason), (Verdict::Refused, Reason::NoBackend));
        pool.affinity.abandon(decision.claim);
    }
    assert_eq!(pool.stats().pins, 0);
}
