//! Replicas whose Redis is gone, empty, slow, silent, or cut off from one of them: requests go on, and the
//! replicas agree again afterwards.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::time::Duration;

use homing::clock;

use self::support::{
    app::{self, login_all},
    backend::Backend,
    call::Jar,
    client::Client,
    eventually,
    operator::Operator,
    process::Homing,
    redis::RedisServer,
    relay::Relay,
    replicas::Replicas,
    setup::Setup,
};

/// Two replicas in front of the same applications, each with its own way to Redis.
struct Pair {
    /// Kept running.
    _apps: Vec<Backend>,
    redis: RedisServer,
    ways: [Relay; 2],
    both: [Homing; 2],
}

type User = (String, Jar, String);

/// A budget as a deployment may have it, though one that a busy machine keeps, too.
const USUAL: &str = "redis_timeout = \"300ms\"";

impl Pair {
    async fn start(state: &str) -> Self {
        let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(3));
        let ways = [Relay::start(redis.address()).await, Relay::start(redis.address()).await];
        let url = |way: &Relay| RedisServer::url_at(way.address());
        let one = replicas.start(Setup::new(&apps), "one", &url(&ways[0]), state).await;
        let two = replicas.start(Setup::new(&apps), "two", &url(&ways[1]), state).await;
        Self { _apps: apps, redis, ways, both: [one, two] }
    }

    fn client(&self, at: usize) -> Client {
        Client::h1(&self.both[at])
    }

    /// Every user is known at every replica, and at home.
    async fn agree(&self, users: &[User]) {
        for at in 0..2 {
            let client = self.client(at);
            for (user, jar, home) in users {
                let got = client.get("/whoami").jar(jar).send().await;
                assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home), "at replica {at}");
            }
        }
    }

    async fn wait_until_redis_has(&self, sessions: usize) {
        eventually(&format!("redis has {sessions} sessions"), async || {
            self.redis.keys("homing:s:*").await.len() == sessions
        })
        .await;
    }

    async fn shares(&self, at: usize, yes: bool) {
        self.both[at].wait_for_metric("homing_shared_up", &[], f64::from(u8::from(yes))).await;
    }
}

/// Logs in at a replica while something is wrong; says how long the slowest one took.
async fn login_anyway(client: &Client, name: &str, count: usize) -> (Vec<User>, Duration) {
    let mut users = Vec::new();
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let user = format!("{name}-{number}");
        let began = clock::now();
        let (jar, home) = app::login(client, &user).await;
        slowest = slowest.max(clock::now() - began);
        users.push((user, jar, home));
    }
    (users, slowest)
}

#[tokio::test]
async fn redis_restarted_empty_gets_everything_back() {
    let mut pair = Pair::start("").await;
    let mut users = login_all(&pair.client(0), 20).await;
    users.extend(login_anyway(&pair.client(1), "second", 20).await.0);
    pair.wait_until_redis_has(40).await;
    pair.redis.stop();
    pair.shares(0, false).await;
    pair.shares(1, false).await;
    // Known sessions are where they were, and new ones are learned.
    let (more, _) = login_anyway(&pair.client(0), "during", 20).await;
    for (user, jar, _) in users[..20].iter().chain(&more) {
        assert_eq!(pair.client(0).get("/whoami").jar(jar).send().await.text(), user);
    }
    users.extend(more);
    pair.redis.restart().await;
    pair.wait_until_redis_has(60).await;
    pair.shares(0, true).await;
    pair.shares(1, true).await;
    pair.agree(&users).await;
}

#[tokio::test]
async fn redis_emptied_under_open_connections_is_told_everything_again() {
    let pair = Pair::start("").await;
    let mut users = login_all(&pair.client(0), 10).await;
    users.extend(login_anyway(&pair.client(1), "second", 10).await.0);
    pair.wait_until_redis_has(20).await;
    let () = pair.redis.query(&redis::cmd("FLUSHALL")).await.expect("emptied");
    let told = |line: &str| line.contains("redis has lost what it held").then_some(());
    for homing in &pair.both {
        assert!(homing.process.stderr.find("a word about it", told).await.is_some());
    }
    pair.wait_until_redis_has(20).await;
    assert_eq!(pair.redis.keys("homing:secret").await.len(), 1);
    pair.agree(&users).await;
}

#[tokio::test]
async fn a_replica_that_guesses_a_session_that_redis_lost_is_corrected_by_the_one_that_knows() {
    let pair = Pair::start("").await;
    let users = login_all(&pair.client(0), 12).await;
    // Without the whole of it being lost, which would be noticed.
    for key in pair.redis.keys("homing:s:*").await {
        let () = pair.redis.query(redis::cmd("DEL").arg(key)).await.expect("dropped");
    }
    let mut astray = 0;
    for (_, jar, home) in &users {
        let got = pair.client(1).get("/public").jar(jar).send().await;
        astray += usize::from(got.header("x-backend") != home);
    }
    assert!(astray > 0, "twelve guesses of three backends");
    for (user, jar, home) in &users {
        let id = jar.value("session").expect("a session");
        for homing in &pair.both {
            eventually(&format!("{user} lives at {home} again"), async || {
                Operator::of(homing).explain(id).await["home"] == **home
            })
            .await;
        }
    }
    pair.agree(&users).await;
    let moved = pair.both[0].metric("homing_affinity_moves_total", &[]).await;
    assert_eq!(moved as u64, 0, "who knew did not follow a guess");
}

#[tokio::test]
async fn a_redis_that_hangs_is_waited_for_a_few_times_only() {
    let pair = Pair::start(USUAL).await;
    let mut users = login_all(&pair.client(0), 5).await;
    pair.agree(&users).await;
    pair.redis.pause();
    let (more, slowest) = login_anyway(&pair.client(0), "during", 30).await;
    println!("slowest login while redis hangs: {slowest:?}");
    pair.shares(0, false).await;
    let timeouts = [("operation", "write"), ("result", "timeout")];
    let waited = pair.both[0].metric("homing_shared_operations_total", &timeouts).await;
    assert!((1.0..=6.0).contains(&waited), "{waited} of 30 requests waited");
    users.extend(more);
    pair.redis.resume();
    pair.shares(0, true).await;
    pair.shares(1, true).await;
    pair.wait_until_redis_has(users.len()).await;
    pair.agree(&users).await;
}

#[tokio::test]
async fn a_slow_redis_delays_nobody_and_hears_of_everything() {
    let pair = Pair::start(USUAL).await;
    pair.ways[0].delay(Duration::from_millis(250));
    let (users, _) = login_anyway(&pair.client(0), "slow", 20).await;
    pair.shares(0, false).await;
    // Although no request waits for it, it is told.
    pair.wait_until_redis_has(20).await;
    let skipped = [("operation", "write"), ("result", "skipped")];
    assert!(pair.both[0].metric("homing_shared_operations_total", &skipped).await > 0.0);
    // The other replica is not slow, and knows them at once.
    for (user, jar, home) in &users {
        let got = pair.client(1).get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
    pair.ways[0].restore();
    pair.shares(0, true).await;
    pair.agree(&users).await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_goes_on_and_catches_up() {
    for silent in [false, true] {
        let pair = Pair::start(USUAL).await;
        let mut users = login_all(&pair.client(0), 6).await;
        pair.agree(&users).await;
        if silent {
            pair.ways[0].silence();
        } else {
            pair.ways[0].cut();
        }
        users.extend(login_anyway(&pair.client(0), "cut", 10).await.0);
        users.extend(login_anyway(&pair.client(1), "well", 10).await.0);
        pair.shares(0, false).await;
        pair.shares(1, true).await;
        // A session that ends at one side meanwhile ends at the other afterwards.
        let (_, ended, _) = users.remove(0);
        pair.client(1).get("/logout").jar(&ended).send().await;
        pair.ways[0].restore();
        pair.shares(0, true).await;
        eventually("redis has heard of what was learned meanwhile", async || {
            let values = pair.redis.values("homing:s:*").await;
            values.values().filter(|value| value.starts_with("{\"home\"")).count() == users.len()
        })
        .await;
        pair.agree(&users).await;
    }
}

#[tokio::test]
async fn a_replica_starts_without_redis_and_shares_as_soon_as_it_comes() {
    let mut redis = RedisServer::start().await;
    redis.stop();
    let (replicas, apps) = (Replicas::new(), app::several(2));
    let one = replicas.join(Setup::new(&apps), "one", &redis.url(), "").start().await;
    let client = Client::h1(&one);
    let users = login_all(&client, 5).await;
    let told = |line: &str| line.contains("cannot reach redis").then(|| line.to_owned());
    assert!(one.process.stderr.find("a word about it", told).await.is_some());
    redis.restart().await;
    one.wait_for_metric("homing_shared_up", &[], 1.0).await;
    eventually("redis has all sessions", async || redis.keys("homing:s:*").await.len() == users.len()).await;
    let two = replicas.start(Setup::new(&apps), "two", &redis.url(), "").await;
    for (user, jar, _) in &users {
        assert_eq!(Client::h1(&two).get("/whoami").jar(jar).send().await.text(), user);
    }
}

#[tokio::test]
async fn a_replica_starts_although_redis_hangs() {
    let redis = RedisServer::start().await;
    redis.pause();
    let (replicas, apps) = (Replicas::new(), app::several(2));
    let one = replicas.join(Setup::new(&apps), "one", &redis.url(), "").start().await;
    let users = login_all(&Client::h1(&one), 5).await;
    redis.resume();
    one.wait_for_metric("homing_shared_up", &[], 1.0).await;
    eventually("redis has all sessions", async || redis.keys("homing:s:*").await.len() == users.len()).await;
}

#[tokio::test]
async fn what_a_stopping_replica_could_not_tell_in_time_is_told_before_it_ends() {
    let pair = Pair::start(USUAL).await;
    pair.ways[0].delay(Duration::from_millis(250));
    let (users, _) = login_anyway(&pair.client(0), "last", 10).await;
    pair.both[0].process.terminate();
    let ended = pair.both[0].process.wait_exit().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(pair.redis.keys("homing:s:*").await.len(), users.len());
    assert!(pair.redis.keys("homing:replica:one").await.is_empty(), "it has left");
}
