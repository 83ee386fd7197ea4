//! A replica that dies, and replicas that are restarted.

use crate::{
    cluster::{Cluster, in_front_of},
    support::shop::Shop,
};

#[tokio::test]
async fn a_replica_is_killed_and_comes_back() {
    let apps = Shop::several(3).await;
    let setup = in_front_of(&apps);
    let mut cluster = Cluster::start(move |_| setup()).await;
    let mut load = cluster.roamers(150).await;
    load.rounds(2).await;
    cluster.kill_replica(0);
    load.rounds(6).await;
    let account = load.account();
    println!("fault: kill -9 of a replica: {account}");
    account.assert_nothing_lost();
    assert_eq!(account.waited, 0, "the other one was there");
    // It knows nobody, and serves everybody.
    cluster.start_replica(0).await;
    load.rounds(6).await;
    load.stop().await;
    let account = load.account();
    println!("fault: kill -9 of a replica, and its return: {account}");
    account.assert_nothing_lost();
    assert_eq!(account.waited, 0, "the other one was there");
    assert!(cluster.replica(0).metric("homing_sessions", &[]).await >= 150.0);
    load.agree().await;
}

#[tokio::test]
async fn both_replicas_are_restarted_one_after_the_other() {
    let apps = Shop::several(3).await;
    let setup = in_front_of(&apps);
    let mut cluster = Cluster::start(move |_| setup()).await;
    let mut load = cluster.roamers(100).await;
    for at in [0, 1] {
        load.rounds(2).await;
        let ended = cluster.stop_replica(at).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        load.rounds(2).await;
        cluster.start_replica(at).await;
    }
    load.rounds(3).await;
    load.stop().await;
    let account = load.account();
    println!("fault: both replicas restarted in turn: {account}");
    account.assert_nothing_lost();
    assert_eq!(account.waited, 0, "one of them was always there");
    load.agree().await;
}
