//! Two replicas that share their sessions through a real Redis.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use self::support::{
    app::{self, login_all},
    backend::Backend,
    client::Client,
    eventually,
    process::Homing,
    redis::RedisServer,
    replicas::Replicas,
    setup::Setup,
};

/// Two replicas in front of the same applications.
struct Pair {
    apps: Vec<Backend>,
    redis: RedisServer,
    one: Homing,
    two: Homing,
}

impl Pair {
    async fn start(apps: Vec<Backend>) -> Self {
        let (replicas, redis) = (Replicas::new(), RedisServer::start().await);
        let one = replicas.start(Setup::new(&apps).checked(), "one", &redis.url(), "").await;
        let two = replicas.start(Setup::new(&apps).checked(), "two", &redis.url(), "").await;
        Self { apps, redis, one, two }
    }
}

#[tokio::test]
async fn a_session_learned_at_one_replica_is_known_at_the_other_at_once() {
    let pair = Pair::start(app::several(3)).await;
    let clients = [Client::h1(&pair.one), Client::h1(&pair.two)];
    for number in 0..200 {
        let user = format!("user-{number}");
        let (first, second) = (&clients[number % 2], &clients[(number + 1) % 2]);
        let (jar, home) = app::login(first, &user).await;
        for client in [second, first, second] {
            let got = client.get("/whoami").jar(&jar).send().await;
            assert_eq!((got.text(), got.header("x-backend")), (&*user, &*home));
        }
    }
    let hits = pair.one.metric("homing_shared_lookups_total", &[("result", "hit")]).await
        + pair.two.metric("homing_shared_lookups_total", &[("result", "hit")]).await;
    assert_eq!(hits as u64, 200, "each session was looked up once");
}

#[tokio::test]
async fn a_known_session_costs_no_command() {
    let pair = Pair::start(app::several(2)).await;
    let clients = [Client::h1(&pair.one), Client::h1(&pair.two)];
    let users = login_all(&clients[0], 20).await;
    let round = async || {
        for (user, jar, _) in &users {
            for client in &clients {
                assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
            }
        }
    };
    round().await;
    let before = asked(&pair).await;
    const ROUNDS: usize = 20;
    for _ in 0..ROUNDS {
        round().await;
    }
    let requests = ROUNDS * users.len() * clients.len();
    let after = asked(&pair).await;
    println!("{requests} requests of known sessions: {} commands for them", after - before);
    assert_eq!(after, before);
}

/// Commands that requests waited for.
async fn asked(pair: &Pair) -> u64 {
    let mut sum = 0.0;
    for homing in [&pair.one, &pair.two] {
        for operation in ["lookup", "write"] {
            sum += homing.metric("homing_shared_operations_total", &[("operation", operation)]).await;
        }
    }
    sum as u64
}

#[tokio::test]
async fn a_move_at_one_replica_is_followed_by_the_other() {
    let mut pair = Pair::start(app::several(2)).await;
    let (one, two) = (Client::h1(&pair.one), Client::h1(&pair.two));
    let users = login_all(&one, 6).await;
    for (user, jar, _) in &users {
        assert_eq!(two.get("/whoami").jar(jar).send().await.text(), user);
    }
    pair.apps[0].stop().await;
    pair.one.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    for (_, jar, _) in &users {
        assert_eq!(one.get("/public").jar(jar).send().await.header("x-backend"), "app-2");
    }
    // It hears of the moves whether it has noticed that the home is down or not.
    let moved = users.iter().filter(|(_, _, home)| home == "app-1").count();
    assert!(moved > 0);
    pair.two.wait_for_metric("homing_sessions", &[("backend", "app-2")], 6.0).await;
    pair.apps[0].restart();
    pair.two.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 1.0).await;
    for (_, jar, _) in &users {
        assert_eq!(two.get("/public").jar(jar).send().await.header("x-backend"), "app-2");
    }
}

#[tokio::test]
async fn a_new_id_is_the_same_session_at_the_other_replica() {
    let pair = Pair::start(app::several(3)).await;
    let (one, two) = (Client::h1(&pair.one), Client::h1(&pair.two));
    let (mut jar, home) = app::login(&one, "user").await;
    let old = jar.clone();
    assert_eq!(two.get("/whoami").jar(&jar).send().await.text(), "user");
    let answer = one.get("/rotate").jar(&jar).send().await;
    jar.store(&answer.headers);
    let got = two.get("/whoami").jar(&jar).send().await;
    assert_eq!((got.text(), got.header("x-backend")), ("user", &*home));
    // A request that was under way with the old id goes home, too.
    assert_eq!(two.get("/public").jar(&old).send().await.header("x-backend"), home);
    eventually("one session at each replica", async || {
        sessions(&pair.one).await == 1 && sessions(&pair.two).await == 1
    })
    .await;
}

#[tokio::test]
async fn a_logout_at_one_replica_ends_the_session_at_the_other() {
    let pair = Pair::start(app::several(2)).await;
    let (one, two) = (Client::h1(&pair.one), Client::h1(&pair.two));
    let (jar, _) = app::login(&one, "user").await;
    assert_eq!(two.get("/whoami").jar(&jar).send().await.text(), "user");
    assert_eq!(sessions(&pair.two).await, 1);
    one.get("/logout").jar(&jar).send().await;
    eventually("no session at either", async || {
        sessions(&pair.one).await == 0 && sessions(&pair.two).await == 0
    })
    .await;
}

async fn sessions(homing: &Homing) -> u64 {
    homing.metric("homing_sessions", &[]).await as u64
}

#[tokio::test]
async fn no_session_id_is_in_redis() {
    let pair = Pair::start(app::several(2)).await;
    let client = Client::h1(&pair.one);
    let users = login_all(&client, 10).await;
    for (_, jar, _) in users.iter().take(3) {
        client.get("/rotate").jar(jar).send().await;
    }
    client.get("/logout").jar(&users[4].1).send().await;
    let all = pair.redis.values("*").await;
    assert_eq!(pair.redis.keys("homing:s:app:*").await.len(), 13, "ten sessions, three aliases: {all:#?}");
    for (key, value) in &all {
        // All ids of the application begin so.
        assert!(!key.contains("secret-") && !value.contains("secret-"), "{key}: {value}");
    }
}
