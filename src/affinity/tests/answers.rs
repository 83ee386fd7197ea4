//! The second table: what an answer says.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::affinity::{EndReason, MoveReason, Reason, rename::NewId};

#[test]
fn a_set_cookie_binds_its_id_to_who_answered() {
    let mut pool = Pool::new(3);
    let (slot, _, change) = pool.exchange(&[], 302, set(1));
    assert_eq!(change, Change::Learned);
    assert_eq!(pool.look(&[1]), (Some(slot), Verdict::Home));
    let (slot, _, change) = pool.exchange(&[99], 200, set(2));
    assert_eq!(change, Change::Learned);
    assert_eq!(pool.look(&[2]), (Some(slot), Verdict::Home));
}

#[test]
fn another_value_renames_the_session_and_the_count_stays() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    assert_eq!(pool.exchange(&[1], 200, set(2)).2, Change::Renamed);
    assert_eq!((pool.counts(), pool.stats().learned, pool.stats().renamed), ((1, 0), 1, 1));
    assert_eq!(pool.look(&[2]), (Some(home), Verdict::Home));
}

#[test]
fn a_replaced_id_leads_home_for_the_ttl_after_its_last_use() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.exchange(&[1], 200, set(2));
    for _ in 0..3 {
        pool.pass(80);
        let decision = pool.ask(&[1]);
        assert_eq!((decision.pick, decision.reason), (Some(home), Reason::Renamed));
        pool.affinity.abandon(decision.claim);
    }
    for _ in 0..3 {
        pool.pass(35);
        assert_eq!(pool.exchange(&[2], 200, Effects::SILENT).0, home);
    }
    assert_eq!(pool.look(&[1]).1, Verdict::Provisional);
}

#[test]
fn a_replaced_id_is_in_use_for_as_long_as_its_answer_takes() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let slow = pool.ask(&[1]);
    pool.exchange(&[1], 200, set(2));
    pool.pass(80);
    pool.settle(slow, &[1], 200, Effects::SILENT);
    pool.pass(40);
    pool.exchange(&[2], 200, Effects::SILENT);
    assert_eq!(pool.look(&[1]), (Some(home), Verdict::Home));
}

#[test]
fn a_replaced_id_of_a_session_that_lasts_longer_leads_home_for_longer() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.exchange(&[1], 200, lasting(1, 300));
    pool.exchange(&[1], 200, set(2));
    pool.pass(250);
    assert_eq!(pool.look(&[1]), (Some(home), Verdict::Home));
}

#[test]
fn every_id_of_a_long_chain_leads_home() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    for number in 1..200 {
        assert_eq!(pool.exchange(&[number], 200, set(number + 1)).2, Change::Renamed);
    }
    pool.pass(20);
    for number in 1..=200 {
        assert_eq!(pool.look(&[number]), (Some(home), Verdict::Home), "{number}");
    }
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn all_values_of_parallel_rotations_lead_home() {
    let mut pool = Pool::new(5);
    let home = pool.login(0);
    let mut next = 1;
    // A client that keeps any of the values, and sends the next sixteen requests with that.
    let mut kept = 0;
    for round in 0..5 {
        let decisions: Vec<_> = (0..16).map(|_| pool.ask(&[kept])).collect();
        for decision in decisions {
            assert_eq!(pool.settle(decision, &[kept], 200, set(next)).change, Change::Renamed);
            next += 1;
        }
        kept = next - 1 - (round * 5) % 16;
        pool.pass(11);
    }
    for number in 0..next {
        assert_eq!(pool.look(&[number]), (Some(home), Verdict::Home), "{number} of {next}");
    }
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn a_cookie_of_another_scope_begins_a_session_beside() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    assert_eq!(pool.exchange(&[1], 200, set_in(SHOP, 2)), (home, Verdict::Home, Change::Learned));
    assert_eq!((pool.counts(), pool.stats().renamed), ((2, 0), 0));
    pool.pass(6);
    for carried in [&[1][..], &[2], &[2, 1]] {
        assert_eq!(pool.look(carried), (Some(home), Verdict::Home), "{carried:?}");
    }
}

#[test]
fn of_several_ids_the_one_of_the_same_scope_is_renamed() {
    let mut pool = Pool::new(3);
    pool.login(1);
    pool.exchange(&[1], 200, set_in(SHOP, 2));
    assert_eq!(pool.exchange(&[2, 1], 200, set(3)).2, Change::Renamed);
    assert_eq!(pool.exchange(&[2, 3], 200, set_in(SHOP, 4)).2, Change::Renamed);
    assert_eq!((pool.counts(), pool.stats().renamed), ((2, 0), 2));
    // Each ends by itself, and by no deletion of the other.
    assert_eq!(pool.exchange(&[4, 3], 200, deleted()).2, Change::Touched);
    assert_eq!((pool.counts(), pool.ended(EndReason::Logout)), ((1, 0), 1));
    assert_eq!(pool.exchange(&[4], 200, deleted()).2, Change::Touched);
    assert_eq!(pool.exchange(&[4], 200, deleted_in(SHOP)).2, Change::Ended);
    assert_eq!(pool.counts(), (0, 0));
}

#[test]
fn an_id_that_a_parallel_answer_has_set_is_refreshed_and_not_renamed() {
    let mut pool = Pool::new(3);
    pool.login(1);
    pool.exchange(&[1], 200, set_in(SHOP, 2));
    let parallel = [pool.ask(&[2, 1]), pool.ask(&[2, 1])];
    let changes = parallel.map(|decision| pool.settle(decision, &[2, 1], 200, set(3)).change);
    assert_eq!(changes, [Change::Renamed, Change::Refreshed]);
    assert_eq!((pool.counts(), pool.stats().renamed), ((2, 0), 1));
    // The replaced id and the name of its session.
    assert_eq!(pool.affinity.sizes().past, 2);
}

#[test]
fn earlier_ids_lead_home_while_their_session_is_being_renamed() {
    const RENAMES: u32 = 20_000;
    let mut pool = Pool::new(3);
    // So that none of them is forgotten.
    pool.settings.max_sessions = NonZeroUsize::new(100_000).unwrap();
    let home = pool.login(0);
    let (pool, done, keys) = (&pool, &AtomicBool::new(false), &Pool::keys(&[0]));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let member = pool.member(home);
            for number in 0..RENAMES {
                let new = NewId { key: key(number + 1), scope: ROOT, lasts: None };
                pool.affinity
                    .rename(&pool.settings, &member, key(number), new, pool.at())
                    .expect("a session");
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let decision = pool.ask_now(keys, &[]);
            assert_eq!((decision.pick, decision.verdict), (Some(home), Verdict::Home));
            pool.affinity.abandon(decision.claim);
        }
    });
}

#[test]
fn a_deletion_for_another_scope_ends_nothing() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    assert_eq!(pool.exchange(&[1], 200, deleted_in(SHOP)).2, Change::Touched);
    pool.pass(6);
    assert_eq!((pool.look(&[1]), pool.counts()), ((Some(home), Verdict::Home), (1, 0)));
}

#[test]
fn an_id_whose_scope_nobody_told_is_never_renamed_nor_ended() {
    let mut pool = Pool::new(3);
    let (home, _, change) = pool.exchange(&[1], 200, Effects::SILENT);
    assert_eq!(change, Change::Confirmed);
    assert_eq!(pool.exchange(&[1], 200, deleted()).2, Change::Touched);
    assert_eq!(pool.exchange(&[1], 200, set(2)), (home, Verdict::Home, Change::Learned));
    // Once it is told, it is renamed like any other.
    assert_eq!(pool.exchange(&[1], 200, set(1)).2, Change::Refreshed);
    assert_eq!(pool.exchange(&[1], 200, set(3)).2, Change::Renamed);
    assert_eq!(pool.counts(), (2, 0));
}

#[test]
fn an_id_that_is_kept_in_two_cookies_ends_with_neither() {
    let mut pool = Pool::new(3);
    pool.login(1);
    assert_eq!(pool.exchange(&[1], 200, set_in(SHOP, 1)).2, Change::Refreshed);
    assert_eq!(pool.exchange(&[1], 200, deleted()).2, Change::Touched);
    assert_eq!(pool.exchange(&[1], 200, deleted_in(SHOP)).2, Change::Touched);
    assert_eq!(pool.exchange(&[1], 200, set(2)).2, Change::Learned);
    assert_eq!(pool.counts(), (2, 0));
}

#[test]
fn a_session_of_a_header_field_is_renamed_although_it_was_only_accepted() {
    let mut pool = Pool::new(3);
    pool.settings.keys = vec![KeySource::Header("mcp-session-id".into())].into();
    assert_eq!(pool.exchange(&[1], 200, Effects::SILENT).2, Change::Confirmed);
    assert_eq!(pool.exchange(&[1], 200, Effects::begins(key(2))).2, Change::Renamed);
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn all_ids_of_a_session_that_ended_lead_home_within_the_grace() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    for number in 1..4 {
        pool.exchange(&[number], 200, set(number + 1));
    }
    assert_eq!(pool.exchange(&[4], 200, deleted()).2, Change::Ended);
    for number in 1..=4 {
        let decision = pool.ask(&[number]);
        assert_eq!((decision.pick, decision.reason), (Some(home), Reason::Ending), "{number}");
        assert_eq!(pool.settle(decision, &[number], 200, Effects::SILENT).change, Change::None);
    }
    pool.pass(5);
    assert!((1..=4).all(|number| pool.look(&[number]).1 == Verdict::Provisional));
}

#[test]
fn of_two_parallel_rotations_either_id_leads_home() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let (first, second) = (pool.ask(&[1]), pool.ask(&[1]));
    assert_eq!(pool.settle(first, &[1], 200, set(2)).change, Change::Renamed);
    assert_eq!(pool.settle(second, &[1], 200, set(3)).change, Change::Renamed);
    for _ in 0..20 {
        pool.pass(50);
        assert_eq!(pool.exchange(&[2], 200, Effects::SILENT), (home, Verdict::Home, Change::Touched));
    }
    assert_eq!(pool.look(&[3]), (Some(home), Verdict::Home));
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn a_client_that_never_got_its_new_id_keeps_its_session() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.exchange(&[1], 200, set(2));
    pool.pass(4);
    pool.exchange(&[1], 200, Effects::SILENT);
    for _ in 0..20 {
        pool.pass(55);
        assert_eq!(pool.exchange(&[1], 200, Effects::SILENT).0, home);
    }
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn an_id_that_is_another_sessions_makes_one_of_two() {
    let mut pool = Pool::new(1);
    pool.login(1);
    pool.login(2);
    assert_eq!(pool.exchange(&[1], 200, set(2)).2, Change::Refreshed);
    assert_eq!((pool.counts(), pool.ended(EndReason::Logout)), ((1, 0), 1));
    assert_eq!(pool.look(&[1]).1, Verdict::Home);
}

#[test]
fn of_two_ids_of_one_request_neither_swallows_the_other() {
    let mut pool = Pool::new(1);
    pool.login(1);
    pool.login(2);
    assert_eq!(pool.exchange(&[1, 2], 200, set(2)).2, Change::Refreshed);
    assert_eq!(pool.counts(), (2, 0));
}

#[test]
fn the_same_value_refreshes() {
    let mut pool = Pool::new(3);
    pool.login(1);
    pool.pass(50);
    assert_eq!(pool.exchange(&[1], 200, set(1)).2, Change::Refreshed);
    pool.pass(50);
    assert_eq!((pool.counts(), pool.stats().learned), ((1, 0), 1));
}

#[test]
fn a_longer_max_age_lengthens_the_ttl_up_to_its_bound() {
    let mut pool = Pool::new(3);
    pool.login(1);
    pool.login(2);
    pool.exchange(&[1], 200, lasting(1, 300));
    pool.exchange(&[2], 200, lasting(2, 100_000));
    pool.pass(299);
    assert_eq!(pool.counts(), (0, 2));
    pool.pass(1);
    assert_eq!(pool.counts(), (0, 1));
    pool.pass(599);
    assert_eq!(pool.counts(), (0, 1));
    pool.pass(1);
    assert_eq!((pool.counts(), pool.stats().long_cookies), ((0, 0), 2));
}

#[test]
fn a_deletion_ends_the_session_after_the_grace() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let late = pool.ask(&[1]);
    assert_eq!(pool.exchange(&[1], 200, deleted()).2, Change::Ended);
    assert_eq!((pool.counts(), pool.ended(EndReason::Logout)), ((0, 0), 1));
    let decision = pool.ask(&[1]);
    assert_eq!((decision.pick, decision.reason), (Some(home), Reason::Ending));
    assert_eq!(pool.settle(decision, &[1], 200, Effects::SILENT).change, Change::None);
    assert_eq!(pool.settle(late, &[1], 200, Effects::SILENT).change, Change::None);
    pool.pass(5);
    assert_eq!(pool.look(&[1]).1, Verdict::Provisional);
    assert_eq!(pool.stats().learned, 1);
}

#[test]
fn a_move_that_was_under_way_does_not_bring_a_session_back_from_its_logout() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let out = pool.ask(&[1]);
    pool.member(home).set_up(false, pool.at());
    let moving = pool.ask(&[1]);
    assert_eq!(pool.settle(out, &[1], 200, deleted()).change, Change::Ended);
    assert_eq!(pool.settle(moving, &[1], 200, Effects::SILENT).change, Change::None);
    assert_eq!(pool.counts(), (0, 0));
}

#[test]
fn a_deletion_by_the_backend_it_moves_to_is_a_logout_and_no_move() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    assert_eq!(pool.exchange(&[1], 302, deleted()).2, Change::Ended);
    assert_eq!((pool.moved(MoveReason::Down), pool.ended(EndReason::Logout)), (0, 1));
}

#[test]
fn a_silent_answer_is_a_sign_of_life() {
    let mut pool = Pool::new(3);
    pool.login(1);
    let decision = pool.ask(&[1]);
    pool.pass(50);
    assert_eq!(pool.settle(decision, &[1], 200, Effects::SILENT).change, Change::Touched);
    pool.pass(50);
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn a_backend_that_sets_the_id_of_anothers_session_has_it_from_then_on() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let decision = pool.ask_with(&[], |ask| ask.follow = Some(Slot::new((home.get() + 1) % 3)));
    let new = decision.pick.unwrap();
    assert_eq!(pool.settle(decision, &[], 200, set(1)).change, Change::Moved);
    assert_eq!(pool.look(&[1]), (Some(new), Verdict::Home));
    assert_eq!(pool.moved(MoveReason::Relearned), 1);
}

#[test]
fn a_request_that_was_given_up_teaches_nothing() {
    let mut pool = Pool::new(3);
    pool.look(&[]);
    pool.look(&[1]);
    assert_eq!((pool.stats().learned, pool.stats().pins), (0, 0));
    assert!(pool.roster.members().iter().all(|member| member.placing() == 0));
}
