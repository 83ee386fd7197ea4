//! The further rules under the tables.

use super::*;
use crate::affinity::{Admin, EndReason, MoveReason, Reason};

#[test]
fn parallel_requests_with_one_unknown_id_agree() {
    let mut pool = Pool::new(3);
    let first = pool.ask(&[1]);
    let slot = first.pick.unwrap();
    // It would go elsewhere by now: another one has joined.
    pool.reload(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let more: Vec<_> = (0..4).map(|_| pool.ask(&[1])).collect();
    assert!(more.iter().all(|decision| decision.pick == Some(slot)));
    assert_eq!(pool.settle(first, &[1], 200, Effects::SILENT).change, Change::Confirmed);
    for decision in more {
        assert_eq!(pool.settle(decision, &[1], 200, Effects::SILENT).change, Change::Refreshed);
    }
    assert_eq!((pool.stats().pins, pool.counts()), (0, (1, 0)));
}

#[test]
fn of_parallel_answers_to_an_unknown_id_the_first_decides() {
    let mut pool = Pool::new(2);
    let first = pool.ask(&[1]);
    let slot = first.pick.unwrap();
    let second = pool.ask_but(&[1], &[slot]);
    assert_ne!(second.pick, Some(slot));
    pool.settle(first, &[1], 200, Effects::SILENT);
    pool.settle(second, &[1], 200, Effects::SILENT);
    assert_eq!(pool.look(&[1]), (Some(slot), Verdict::Home));
    assert_eq!(pool.moved(MoveReason::Relearned), 0);
}

#[test]
fn parallel_requests_of_a_session_that_moves_agree() {
    let mut pool = Pool::new(8);
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    let decisions: Vec<_> = (0..5).map(|_| pool.ask(&[1])).collect();
    let new = decisions[0].pick;
    assert!(decisions.iter().all(|decision| decision.pick == new));
    for decision in decisions {
        pool.settle(decision, &[1], 200, Effects::SILENT);
    }
    assert_eq!(pool.moved(MoveReason::Down), 1);
    assert!(pool.roster.members().iter().all(|member| member.placing() == 0));
}

#[test]
fn a_session_that_is_renamed_while_it_moves_stays_one() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.member(home).set_up(false, pool.at());
    let (first, second) = (pool.ask(&[1]), pool.ask(&[1]));
    assert_eq!(pool.settle(first, &[1], 200, set(2)).change, Change::Renamed);
    pool.settle(second, &[1], 200, Effects::SILENT);
    assert_eq!((pool.counts(), pool.stats().learned), ((1, 0), 1));
}

#[test]
fn an_open_stream_holds_its_session_for_longer_than_the_ttl() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let hold = pool.affinity.hold(key(1), &pool.member(home), pool.at()).unwrap();
    pool.pass(1_000);
    assert_eq!((pool.counts(), pool.member(home).streams()), ((1, 0), 1));
    pool.affinity.release(hold, pool.at());
    pool.pass(59);
    assert_eq!(pool.counts(), (1, 0));
    pool.pass(1);
    assert_eq!((pool.counts(), pool.member(home).streams()), ((0, 1), 0));
    assert_eq!(pool.affinity.sizes().rare, 0);
    pool.pass(30);
    assert_eq!(pool.counts(), (0, 0));
}

#[test]
fn a_stream_holds_its_session_through_a_rename() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    let hold = pool.affinity.hold(key(1), &pool.member(home), pool.at()).unwrap();
    pool.exchange(&[1], 200, set(2));
    pool.pass(1_000);
    assert_eq!(pool.counts(), (1, 0));
    pool.affinity.release(hold, pool.at());
    pool.pass(59);
    assert_eq!(pool.counts(), (1, 0));
    pool.pass(1);
    assert_eq!(pool.counts(), (0, 1));
}

#[test]
fn a_stream_makes_a_retained_session_live() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.pass(70);
    assert_eq!(pool.counts(), (0, 1));
    let hold = pool.affinity.hold(key(1), &pool.member(home), pool.at()).unwrap();
    assert_eq!(pool.counts(), (1, 0));
    pool.affinity.release(hold, pool.at());
}

#[test]
fn a_session_is_live_then_retained_then_gone() {
    let mut pool = Pool::new(3);
    let home = pool.login(1);
    pool.pass(59);
    assert_eq!(pool.counts(), (1, 0));
    pool.pass(1);
    assert_eq!(pool.counts(), (0, 1));
    pool.pass(29);
    assert_eq!(pool.look(&[1]), (Some(home), Verdict::Home));
    assert_eq!(pool.counts(), (1, 0));
    pool.pass(90);
    assert_eq!((pool.counts(), pool.ended(EndReason::Expired)), ((0, 0), 1));
}

#[test]
fn a_session_in_use_ends_at_its_max_age() {
    let mut pool = Pool::new(3);
    pool.settings.max_age = Some(Duration::from_secs(100));
    pool.login(1);
    for _ in 0..9 {
        pool.pass(10);
        assert_eq!(pool.look(&[1]).1, Verdict::Home);
    }
    pool.exchange(&[1], 200, set(2));
    pool.pass(10);
    assert_eq!((pool.counts(), pool.ended(EndReason::Expired)), ((0, 0), 1));
}

#[test]
fn made_up_ids_cannot_fill_a_table() {
    let mut pool = Pool::new(3);
    for number in 0..5_000 {
        pool.exchange(&[number], 200, Effects::SILENT);
    }
    assert_eq!(pool.counts(), (500, 0));
    for number in 10_000..10_500 {
        pool.login(number);
    }
    assert_eq!((pool.counts(), pool.stats().over_quota), ((1_000, 0), 4_500));
}

#[test]
fn a_full_table_gives_up_the_longest_idle_retained_session() {
    let mut pool = Pool::new(3);
    for number in 0..1_000 {
        if number % 100 == 0 {
            pool.pass(1);
        }
        pool.login(number);
    }
    for _ in 0..65 {
        pool.pass(1);
    }
    for number in 2_000..2_150 {
        pool.login(number);
    }
    assert_eq!(pool.ended(EndReason::Capacity), 150);
    for number in 0..100 {
        assert_eq!(pool.look(&[number]).1, Verdict::Provisional, "{number}");
    }
    assert_eq!(pool.look(&[250]).1, Verdict::Home);
}

#[test]
fn a_full_table_of_live_sessions_learns_no_more() {
    let mut pool = Pool::new(3);
    for number in 0..1_000 {
        pool.login(number);
    }
    assert_eq!(pool.exchange(&[], 200, set(5_000)).2, Change::Full);
    let (slot, verdict) = pool.look(&[5_000]);
    assert_eq!((verdict, pool.look(&[5_000]).0), (Verdict::Provisional, slot));
    assert_eq!((pool.counts(), pool.stats().full), ((1_000, 0), 1));
}

#[test]
fn sessions_of_a_restarted_backend_make_room() {
    let mut pool = Pool::new(1);
    for number in 0..1_000 {
        pool.login(number);
    }
    pool.affinity.restarted(Slot::new(0), pool.at());
    assert_eq!(pool.exchange(&[], 200, set(5_000)).2, Change::Full);
    pool.pass(0);
    assert_eq!(pool.exchange(&[], 200, set(5_000)).2, Change::Learned);
}

#[test]
fn another_instance_ends_the_sessions_of_the_first() {
    let mut pool = Pool::new(2);
    for number in 0..10 {
        pool.login(number);
    }
    let home = pool.look(&[3]).0.unwrap();
    let on_it = u64::from(pool.member(home).live());
    pool.affinity.restarted(home, pool.at());
    assert_eq!((pool.counts(), pool.ended(EndReason::Restarted)), ((10 - on_it, 0), on_it));
    let decision = pool.ask(&[3]);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Moved, Reason::Restarted));
    assert_eq!(pool.settle(decision, &[3], 200, Effects::SILENT).change, Change::Moved);
    assert_eq!(pool.look(&[3]).1, Verdict::Home);
}

#[test]
fn a_home_that_blinked_gets_back_what_did_not_have_to_move() {
    let mut pool = Pool::new(2);
    for number in 0..20 {
        pool.login(number);
    }
    let home = pool.look(&[0]).0.unwrap();
    let its: Vec<u32> = (0..20).filter(|&number| pool.look(&[number]).0 == Some(home)).collect();
    pool.member(home).set_up(false, pool.at());
    pool.exchange(&[its[0]], 200, Effects::SILENT);
    pool.member(home).set_up(true, pool.at());
    assert_ne!(pool.look(&[its[0]]).0, Some(home));
    for &number in &its[1..] {
        assert_eq!(pool.look(&[number]), (Some(home), Verdict::Home));
    }
}

#[test]
fn a_backend_that_comes_back_to_the_configuration_gets_its_sessions_back() {
    let mut pool = Pool::new(2);
    for number in 0..10 {
        pool.login(number);
    }
    pool.reload(&["a"]);
    let left = pool.counts().0;
    assert_eq!(pool.ended(EndReason::Removed), 10 - left);
    pool.reload(&["a", "b"]);
    assert_eq!((pool.counts(), pool.stats().restored), ((10, 0), 10 - left));
}

#[test]
fn maintenance_moves_every_session() {
    let mut pool = Pool::new(2);
    let home = pool.login(1);
    pool.member(home).set_admin(Admin::Maintenance, pool.at());
    let decision = pool.ask(&[1]);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Moved, Reason::Maintenance));
    pool.affinity.abandon(decision.claim);
}

#[test]
fn a_drain_is_over_when_the_last_live_session_is_idle() {
    let mut pool = Pool::new(1);
    pool.login(1);
    pool.pass(10);
    pool.login(2);
    let eta = |pool: &Pool| pool.affinity.drain_eta(&pool.settings, &pool.roster, Slot::new(0), pool.at());
    let sound = |eta: Option<Duration>, exact: u64| {
        let most = Duration::from_secs(exact) + Duration::from_secs(60) / 64 + Tick::LENGTH;
        assert!((Duration::from_secs(exact)..=most).contains(&eta.unwrap()), "{eta:?} {exact}");
    };
    sound(eta(&pool), 60);
    pool.pass(10);
    sound(eta(&pool), 50);
    pool.exchange(&[2], 200, deleted());
    sound(eta(&pool), 40);
    pool.settings.session_timeout = Duration::from_secs(80);
    pool.reload(&["a"]);
    sound(eta(&pool), 60);
    pool.pass(60);
    assert_eq!(eta(&pool), None);
}

#[test]
fn a_changed_session_timeout_applies_to_sessions_that_wait() {
    let mut pool = Pool::new(1);
    pool.login(1);
    pool.pass(20);
    pool.settings.session_timeout = Duration::from_secs(15);
    pool.pass(0);
    assert_eq!(pool.counts(), (0, 1));
    pool.settings.session_timeout = Duration::from_secs(60);
    pool.pass(0);
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn an_expired_id_that_is_still_good_is_advice() {
    let mut pool = Pool::new(5);
    let home = pool.login(1);
    pool.pass(100);
    let decision = pool.ask(&[1]);
    assert_eq!((decision.pick, decision.reason), (Some(home), Reason::Expired));
    pool.settle(decision, &[1], 200, Effects::SILENT);
    let stats = pool.stats();
    assert_eq!((stats.late, stats.longest_late), (1, Duration::from_secs(100)));
}

#[test]
fn the_places_of_forgotten_backends_are_given_to_others() {
    let mut pool = Pool::new(1);
    for number in 0..2_000 {
        let name = format!("pod-{number}");
        pool.reload(&["a", &name]);
        let home = loop {
            let learned = pool.stats().learned as u32;
            let slot = pool.login(learned);
            if slot != Slot::new(0) {
                break slot;
            }
        };
        assert!(home.get() < 40, "{home:?}");
        pool.reload(&["a"]);
        pool.pass(20);
    }
    assert!(pool.affinity.sizes().names < 40);
    assert!(pool.stats().backends.len() < 40);
}

#[test]
fn the_last_four_moves_are_remembered() {
    let mut pool = Pool::new(2);
    let mut home = pool.login(1);
    for _ in 0..6 {
        pool.member(home).set_up(false, pool.at());
        let new = pool.exchange(&[1], 200, Effects::SILENT).0;
        pool.member(home).set_up(true, pool.at());
        home = new;
    }
    let found = pool.affinity.explain(&pool.settings, &pool.roster, key(1), pool.at());
    let crate::affinity::Explanation::Known(known) = found else { panic!("{found:?}") };
    assert_eq!((known.moves.len(), known.moves[3].to), (4, home));
}
