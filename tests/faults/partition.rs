//! A network that is broken between one replica and one backend only.

use homing::clock;

use crate::{
    cluster::Cluster,
    support::{load::Habit, relay::Relay, setup::Setup, shop::Shop},
};

#[tokio::test]
async fn one_replica_does_not_reach_one_backend() {
    let apps = Shop::several(3).await;
    let ways = [Relay::start(apps[0].address()).await, Relay::start(apps[0].address()).await];
    let ends = [ways[0].address(), ways[1].address()];
    let rest: Vec<_> = apps[1..].iter().map(|app| (app.name.clone(), app.address())).collect();
    let setup = move |at: usize| {
        let rest = rest.iter().map(|(name, address)| (&**name, *address));
        let members = [("app-1", ends[at])].into_iter().chain(rest);
        Setup::new(members).checked().pool_section("[pool.timeouts]\nhead = \"2s\"")
    };
    let cluster = Cluster::start(setup).await;
    let mut load = cluster.roamers(60).await;
    load.join(30, Habit::Stays(0)).await;
    load.join(30, Habit::Stays(1)).await;
    load.mark();
    load.rounds(1).await;
    ways[0].silence();
    cluster.sees(0, "app-1", false).await;
    let seen = clock::now();
    load.rounds(4).await;
    let account = load.account();
    println!("fault: one backend cut off from one replica: {account}");
    account.assert_only("app-1", seen);
    assert!(!account.lost.is_empty(), "those who ask at this replica have lost them");
    let there = account.lost.iter().map(|lost| lost.habit).chain(account.failed.iter().map(|f| f.habit));
    assert!(
        !there.into_iter().any(|habit| habit == Habit::Stays(1)),
        "the other one reaches it: {account:#?}"
    );
    cluster.sees(1, "app-1", true).await;

    ways[0].restore();
    cluster.sees(0, "app-1", true).await;
    let mended = load.account();
    load.rounds(3).await;
    load.stop().await;
    let account = load.account();
    let after = account.lost.len() - mended.lost.len();
    println!("fault: one backend cut off from one replica, and back: {account}; {after} lost by its return");
    assert_eq!((after, account.failed.len()), (0, mended.failed.len()), "{account:#?}");
    cluster.settled(120).await;
    load.agree().await;
}
