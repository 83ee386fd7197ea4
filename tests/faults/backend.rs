//! A backend that is killed, restarted, paused, or scaled away.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use homing::clock;

use crate::{
    cluster::{Cluster, in_front_of},
    support::{
        dns::{Dns, HOST},
        eventually,
        load::Habit,
        metrics::Metrics,
        port::Port,
        setup::Setup,
        shop::Shop,
    },
};

#[tokio::test]
async fn a_backend_is_killed() {
    let mut apps = Shop::several(3).await;
    let setup = in_front_of(&apps);
    let cluster = Cluster::start(move |_| setup()).await;
    let mut load = cluster.roamers(120).await;
    load.rounds(2).await;
    let there = load.at("app-1");
    apps[0].kill();
    for at in 0..2 {
        cluster.sees(at, "app-1", false).await;
    }
    let seen = clock::now();
    load.rounds(4).await;
    load.stop().await;
    let account = load.account();
    println!("fault: kill -9 of a backend with {there} sessions: {account}");
    account.assert_only("app-1", seen);
    assert_eq!(account.lost.len(), there, "each once: {account:#?}");
    cluster.settled(120).await;
    load.agree().await;
}

#[tokio::test]
async fn a_backend_is_restarted() {
    let mut apps = Shop::several(3).await;
    let setup = in_front_of(&apps);
    let cluster = Cluster::start(move |_| setup().pool("instance_header = \"X-Instance\"")).await;
    let mut load = cluster.roamers(90).await;
    load.join(30, Habit::Sleeps).await;
    load.mark();
    load.rounds(2).await;
    let there = load.at("app-1");
    apps[0].restart().await;
    for at in 0..2 {
        cluster.sees(at, "app-1", true).await;
        let restarted = [("backend", "app-1"), ("reason", "restarted")];
        eventually("the other instance is noticed", async || {
            cluster.replica(at).metric("homing_affinity_ended_total", &restarted).await > 0.0
        })
        .await;
    }
    let seen = clock::now();
    load.rounds(4).await;
    load.stop().await;
    // The sleepers come back to another instance.
    load.look().await;
    let account = load.account();
    println!("fault: a backend with {there} sessions restarted: {account}");
    account.assert_only("app-1", seen);
    assert_eq!(account.lost.len(), there, "each once: {account:#?}");
    let mut afresh = 0.0;
    for at in 0..2 {
        let restarted = [("reason", "restarted")];
        afresh += cluster.replica(at).metric("homing_affinity_moves_total", &restarted).await;
    }
    assert!(afresh >= 10.0, "{afresh} placed afresh");
    cluster.settled(120).await;
    load.agree().await;
}

#[tokio::test]
async fn a_backend_is_paused_and_its_sessions_move() {
    let apps = Shop::several(3).await;
    let setup = in_front_of(&apps);
    let cluster = Cluster::start(move |_| setup().pool_section("[pool.timeouts]\nhead = \"2s\"")).await;
    let mut load = cluster.roamers(90).await;
    load.join(30, Habit::Sleeps).await;
    load.mark();
    load.rounds(1).await;
    apps[0].pause();
    for at in 0..2 {
        cluster.sees(at, "app-1", false).await;
    }
    let seen = clock::now();
    load.rounds(3).await;
    apps[0].resume();
    for at in 0..2 {
        cluster.sees(at, "app-1", true).await;
    }
    load.rounds(2).await;
    load.stop().await;
    let account = load.account();
    println!("fault: a backend paused and resumed, on_down = move: {account}");
    account.assert_only("app-1", seen);
    let (lost, failed) = (account.lost.len(), account.failed.len());
    assert!(lost >= 25, "all that asked meanwhile: {account:#?}");
    // Those who did not are at home.
    load.look().await;
    let account = load.account();
    assert_eq!((account.lost.len(), account.failed.len()), (lost, failed), "{account:#?}");
    cluster.settled(120).await;
    load.agree().await;
}

#[tokio::test]
async fn a_backend_is_paused_and_its_sessions_wait() {
    let apps = Shop::several(3).await;
    let setup = in_front_of(&apps);
    let cluster = Cluster::start(move |_| setup().affinity("on_down = \"wait:20s\"")).await;
    let mut load = cluster.roamers(90).await;
    load.rounds(1).await;
    apps[0].pause();
    for at in 0..2 {
        cluster.sees(at, "app-1", false).await;
    }
    apps[0].resume();
    load.rounds(3).await;
    load.stop().await;
    let account = load.account();
    let longest = account.longest.as_millis();
    println!("fault: a backend paused and resumed, on_down = wait: {account}; longest wait {longest} ms");
    account.assert_nothing_lost();
    load.agree().await;
}

#[tokio::test]
async fn a_backend_is_scaled_away() {
    let port = Port::reserve();
    let number = port.address.port();
    let mut apps = Vec::new();
    for last in 2..=4 {
        let port = Port::at(SocketAddr::new(ip(last), number));
        apps.push(Shop::start_at(port, &format!("app-{}", ip(last))).await);
    }
    let leaving = apps[2].name.clone();
    let dns = Arc::new(Dns::knowing(&[ip(2), ip(3), ip(4)]).await);
    let resolver = Arc::clone(&dns);
    let setup = move |_| Setup::new::<&Shop>([]).discovering(&resolver, HOST, number).checked();
    let cluster = Cluster::start(setup).await;
    let mut load = cluster.roamers(90).await;
    let there = load.at(&leaving);
    assert!(there > 10, "{there} sessions there");
    dns.know(&[ip(2), ip(3)]);
    for at in 0..2 {
        cluster.replica(at).wait_for_metric("homing_backend_draining", &[("backend", &leaving)], 1.0).await;
    }
    load.join(10, Habit::Roams).await;
    load.rounds(3).await;
    load.account().assert_nothing_lost();
    assert_eq!(load.at(&leaving), there, "those that were there, and no new ones");
    load.dismiss(&leaving);
    for at in 0..2 {
        eventually("it is removed", async || {
            !Metrics::fetch(cluster.replica(at)).await.has("homing_backend_up", &[("backend", &leaving)])
        })
        .await;
    }
    apps[2].kill();
    load.rounds(3).await;
    load.stop().await;
    let account = load.account();
    println!("fault: a backend with {there} sessions scaled away: {account}");
    account.assert_nothing_lost();
    load.agree().await;
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}
