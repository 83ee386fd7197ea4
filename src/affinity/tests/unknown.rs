//! Ids that nobody knows: where they go, and what stands in their way.

use super::*;
use crate::affinity::{Explanation, OnUnknown};

fn placing(count: usize) -> Pool {
    let mut pool = Pool::new(count);
    pool.settings.on_unknown = OnUnknown::Place;
    pool
}

#[test]
fn unknown_ids_are_placed_by_the_balance_and_bound_when_accepted() {
    let mut pool = placing(4);
    for number in 1..=8 {
        let (_, verdict, change) = pool.exchange(&[number], 200, Effects::SILENT);
        assert_eq!((verdict, change), (Verdict::Provisional, Change::Confirmed));
    }
    let live: Vec<_> = pool.stats().backends.iter().map(|backend| backend.live).collect();
    assert_eq!(live, [2, 2, 2, 2]);
    let home = pool.look(&[1]).0;
    assert_eq!(pool.look(&[1]), (home, Verdict::Home));
}

#[test]
fn parallel_requests_with_one_unknown_id_agree_where_it_is_placed() {
    let mut pool = placing(4);
    let first = pool.ask(&[1]);
    for _ in 0..8 {
        assert_eq!(pool.look(&[1]).0, first.pick);
        // Others come between.
        pool.login(100 + pool.stats().learned as u32);
    }
    pool.affinity.abandon(first.claim);
    let stats = pool.stats();
    assert_eq!(stats.pins, 0);
}

#[test]
fn nothing_says_where_an_id_goes_that_would_be_placed() {
    let pool = placing(3);
    let explained = pool.affinity.explain(&pool.settings, &pool.roster, key(1), pool.at());
    assert!(matches!(explained, Explanation::Unknown { would_go_to: None, placed: true }));
}

#[test]
fn an_unknown_id_of_the_target_follows_its_connection_and_a_cookie_does_not() {
    let mut pool = Pool::new(4);
    for number in 1..20 {
        let by_hash = pool.look(&[number]).0;
        let other =
            pool.roster.members().iter().map(|member| member.slot()).find(|slot| Some(*slot) != by_hash);
        let keys = Keys::in_target(&[key(number)]);
        let asked = |keys: &Keys, pool: &Pool| {
            let ask = Ask {
                hint: None,
                keys,
                skip: false,
                follow: other,
                tried: &[],
                random: 1,
                now: pool.at(),
                waited: false,
                crawls: false,
            };
            let decision = pool.affinity.choose(&pool.settings, &pool.roster, &ask);
            pool.affinity.abandon(decision.claim);
            decision.pick
        };
        assert_eq!(asked(&keys, &pool), other);
        assert_eq!(asked(&Pool::keys(&[number]), &pool), by_hash);
    }
}

#[test]
fn a_cookie_that_no_response_set_stands_in_no_other_ones_way() {
    let mut pool = Pool::new(3);
    let sources = vec![KeySource::Cookie("a".into()), KeySource::Cookie("b".into())].into();
    let carried = |pool: &Pool, keys: &[(u32, usize)]| {
        let keys = Keys::from_sources(&keys.iter().map(|(n, source)| (key(*n), *source)).collect::<Vec<_>>());
        pool.affinity.carried(&sources, &keys, pool.at())
    };
    // Accepted, but set by nobody here.
    pool.exchange(&[1], 200, Effects::SILENT);
    pool.login(2);
    assert_eq!(carried(&pool, &[(1, 0)]), None);
    assert_eq!(carried(&pool, &[(1, 0), (2, 1)]), Some(1));
    assert_eq!(carried(&pool, &[(2, 0), (1, 1)]), Some(0));
    assert_eq!(carried(&pool, &[(3, 0), (4, 1)]), None);
    assert_eq!(carried(&pool, &[]), None);
}
