//! A Redis that is stopped, emptied, slow, or cut off from one replica.

use std::time::Duration;

use homing::clock;

use crate::{
    cluster::{Cluster, in_front_of},
    support::{load::Habit, redis::RedisServer, shop::Shop},
};

/// What befalls Redis, and is over then.
struct Fault {
    name: &'static str,
    /// Options of the server.
    options: &'static [&'static str],
    /// Which replicas are to notice.
    noticed: [bool; 2],
}

/// Sessions before, and at each replica meanwhile.
const BEFORE: usize = 80;
const MEANWHILE: usize = 10;
/// A budget as a deployment may have it, though one that a busy machine keeps, too.
const STATE: &str = "redis_timeout = \"300ms\"";

// === impl Fault ===

impl Fault {
    async fn goes_by(self, begin: impl AsyncFnOnce(&mut Cluster), end: impl AsyncFnOnce(&mut Cluster)) {
        let apps = Shop::several(3).await;
        let setup = in_front_of(&apps);
        let redis = RedisServer::start_with(self.options).await;
        let mut cluster = Cluster::start_with(redis, STATE, move |_| setup()).await;
        let mut load = cluster.roamers(BEFORE).await;
        cluster.settled(BEFORE).await;
        load.rounds(1).await;
        begin(&mut cluster).await;
        // Without Redis, a new session is known where it began: a client that has one stays there.
        for at in 0..2 {
            load.join(MEANWHILE, Habit::Stays(at)).await;
        }
        for at in 0..2 {
            cluster.shares(at, !self.noticed[at]).await;
        }
        load.rounds(3).await;
        load.account().assert_nothing_lost();
        end(&mut cluster).await;
        let ended = clock::now();
        cluster.settled(BEFORE + 2 * MEANWHILE).await;
        let took = clock::now() - ended;
        load.roam();
        load.rounds(4).await;
        load.stop().await;
        let account = load.account();
        println!("fault: {}: {account}; it knew everything {} ms after", self.name, took.as_millis());
        account.assert_nothing_lost();
        load.agree().await;
    }
}

#[tokio::test]
async fn redis_is_stopped_and_started() {
    const KEEPS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
    let fault = Fault { name: "redis stopped and started", options: &KEEPS, noticed: [true; 2] };
    fault.goes_by(async |cluster| cluster.redis.stop(), async |cluster| cluster.redis.restart().await).await;
}

#[tokio::test]
async fn redis_is_restarted_empty() {
    let fault = Fault { name: "redis restarted empty", options: &[], noticed: [false; 2] };
    fault.goes_by(async |cluster| cluster.redis.restart().await, async |_| {}).await;
}

#[tokio::test]
async fn redis_is_slow() {
    let fault = Fault { name: "redis slow", options: &[], noticed: [true; 2] };
    let slow = async |cluster: &mut Cluster| {
        cluster.ways.iter().for_each(|way| way.delay(Duration::from_millis(250)));
    };
    let fast = async |cluster: &mut Cluster| cluster.ways.iter().for_each(|way| way.restore());
    fault.goes_by(slow, fast).await;
}

#[tokio::test]
async fn one_replica_is_cut_off_from_redis() {
    let fault = Fault { name: "redis cut off from one replica", options: &[], noticed: [true, false] };
    fault.goes_by(async |cluster| cluster.ways[0].silence(), async |cluster| cluster.ways[0].restore()).await;
}
