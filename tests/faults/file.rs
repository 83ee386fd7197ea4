//! A single proxy with a state file: restarted, and killed.

use std::time::Duration;

use homing::clock;
use tempfile::TempDir;
use tokio::time::interval;

use crate::{
    cluster::in_front_of,
    support::{
        client::{Client, Protocol},
        load::{Habit, Load},
        port::Port,
        process::Homing,
        setup::Setup,
        shop::Shop,
    },
};

/// Where one proxy is, whether it runs or not.
struct Single {
    port: Port,
    directory: TempDir,
    setup: Box<dyn Fn() -> Setup>,
}

impl Single {
    fn new(apps: &[Shop]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { port: Port::reserve(), directory, setup: Box::new(in_front_of(apps)) }
    }

    async fn start(&self) -> Homing {
        let file = self.directory.path().join("homing.state").display().to_string();
        let setup = (self.setup)().section(&format!("[state]\nfile = {file:?}"));
        setup.https(self.port.address).access_log("/dev/null".as_ref()).start().await
    }

    /// So many users, who wait while it is not there.
    async fn load(&self, count: usize) -> Load {
        let mut load = Load::new(vec![Client::at(self.port.address, Protocol::Http1)]);
        load.join(count, Habit::Roams).await;
        load.mark();
        load
    }
}

#[tokio::test]
async fn a_proxy_is_restarted() {
    let apps = Shop::several(3).await;
    let single = Single::new(&apps);
    let homing = single.start().await;
    let mut load = single.load(100).await;
    load.rounds(2).await;
    load.join(20, Habit::Roams).await;
    homing.process.terminate();
    let ended = homing.process.wait_exit().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let _homing = single.start().await;
    load.rounds(4).await;
    load.stop().await;
    let account = load.account();
    println!("fault: the only proxy restarted: {account}; {} waited for it", account.waited);
    account.assert_nothing_lost();
    load.agree().await;
}

#[tokio::test]
async fn a_proxy_is_killed() {
    let apps = Shop::several(3).await;
    let single = Single::new(&apps);
    let mut homing = single.start().await;
    let mut load = single.load(100).await;
    let mut pace = interval(PACE);
    let (mut oldest, mut stalled) = (Duration::ZERO, Duration::ZERO);
    for kill in 1..=KILLS {
        // Sessions begin all the time, until the end; their users do nothing more before that.
        let begun = clock::now();
        while clock::now() - begun < PROMISE.mul_f32(1.2) {
            pace.tick().await;
            load.join(1, Habit::Sleeps).await;
        }
        let before = load.account();
        if kill == 1 {
            // Later ones wait for the restart, too.
            stalled = before.longest;
        }
        homing.process.kill();
        let killed = clock::now();
        homing = single.start().await;
        load.rounds(2).await;
        load.look().await;
        let lost = &load.account().lost[before.lost.len()..];
        oldest = lost.iter().map(|lost| killed - lost.began).max().unwrap_or_default().max(oldest);
    }
    load.stop().await;
    let account = load.account();
    let about = format!("{account}; the oldest lost one was {} ms old", oldest.as_millis());
    println!("fault: kill -9 of the only proxy, {KILLS} times: {about}");
    assert!(account.failed.is_empty(), "{account:#?}");
    // A machine that lets clients wait lets the writer wait, too.
    assert!(oldest < PROMISE + stalled, "{about}, the longest request took {stalled:?}");
    load.agree().await;
}

/// Between two logins.
const PACE: Duration = Duration::from_millis(5);
const KILLS: usize = 3;
/// New sessions of so long are lost at most.
const PROMISE: Duration = Duration::from_secs(1);
