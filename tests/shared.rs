//! Two replicas that share their sessions through a real Redis.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::sync::Arc;

use homing::{affinity::KeyHasher, clock};
use http::StatusCode;
use serde_json::json;

use self::support::{
    app::{self, login_all},
    backend::{Backend, answer},
    client::Client,
    eventually,
    operator::{self, Operator},
    pki::{Authority, Leaf},
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
    let (all, began) = (commands(&pair.redis).await, clock::now());
    const ROUNDS: usize = 20;
    for _ in 0..ROUNDS {
        round().await;
    }
    let requests = ROUNDS * users.len() * clients.len();
    let after = asked(&pair).await;
    println!(
        "{requests} requests of known sessions: {} commands for them; {} for all else of two replicas in {:?}",
        after - before,
        commands(&pair.redis).await - all,
        began.elapsed(),
    );
    assert_eq!(after, before);
}

/// All commands that the server has been sent, whoever did.
async fn commands(redis: &RedisServer) -> u64 {
    redis.calls().await.values().sum()
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
    homing.metric("homing_affinity_table_entries", &[]).await as u64
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

#[tokio::test]
async fn of_two_replicas_that_place_one_unknown_id_the_first_one_decides() {
    // Both requests are at a backend before either of them is answered.
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let apps = ["app-1", "app-2"].map(|name| {
        let barrier = Arc::clone(&barrier);
        Backend::start(name, move |request| {
            let barrier = Arc::clone(&barrier);
            async move {
                if request.uri().path() == "/together" {
                    barrier.wait().await;
                }
                answer(StatusCode::OK, name)
            }
        })
    });
    let (replicas, redis) = (Replicas::new(), RedisServer::start().await);
    let open = || Setup::new(&apps).section("[admin]\nallow_changes = true");
    let one = replicas.start(open(), "one", &redis.url(), "").await;
    let two = replicas.start(open(), "two", &redis.url(), "").await;
    // They would agree by themselves; so each has only one backend to choose.
    Operator::of(&one).steer("app-2", "maintenance", json!({})).await;
    Operator::of(&two).steer("app-1", "maintenance", json!({})).await;
    let (client_one, client_two) = (Client::h1(&one), Client::h1(&two));
    let ask = async |client: &Client, path: &str| {
        client.get(path).cookie("session", "known to nobody").send().await.text().to_owned()
    };
    let placed = tokio::join!(ask(&client_one, "/together"), ask(&client_two, "/together"));
    assert_eq!(placed, ("app-1".to_owned(), "app-2".to_owned()));
    Operator::of(&one).steer("app-2", "undrain", json!({})).await;
    Operator::of(&two).steer("app-1", "undrain", json!({})).await;
    let home = ask(&client_one, "/").await;
    for _ in 0..3 {
        assert_eq!(ask(&client_two, "/").await, home);
        assert_eq!(ask(&client_one, "/").await, home);
    }
    let conflicts = one.metric("homing_shared_conflicts_total", &[]).await
        + two.metric("homing_shared_conflicts_total", &[]).await;
    assert_eq!(conflicts as u64, 1);
}

#[tokio::test]
async fn what_an_operator_ends_at_one_replica_ends_at_both() {
    let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(2));
    let open = || Setup::new(&apps).section("[admin]\nallow_changes = true");
    let one = replicas.start(open(), "one", &redis.url(), "").await;
    let two = replicas.start(open(), "two", &redis.url(), "").await;
    let (jar, home) = app::login(&Client::h1(&one), "user").await;
    assert_eq!(Client::h1(&two).get("/whoami").jar(&jar).send().await.text(), "user");
    let id = jar.value("session").expect("a session").to_owned();
    let other = if home == "app-1" { "app-2" } else { "app-1" };
    Operator::of(&one).change("sessions/move", json!({"id": id, "to": other})).await;
    eventually("the other replica follows the move", async || {
        let found = Operator::of(&two).change("explain", json!({"id": id})).await;
        found["home"] == other
    })
    .await;
    let ended = Operator::of(&one).change("sessions/forget", json!({"id": id})).await;
    assert_eq!(ended["forgotten"], true);
    eventually("no session at either, nor in redis", async || {
        sessions(&one).await == 0
            && sessions(&two).await == 0
            && !redis.values("homing:s:*").await.values().any(|value| value.starts_with("{\"home\""))
    })
    .await;
}

#[tokio::test]
async fn an_id_that_was_replaced_elsewhere_leads_where_its_session_moved_meanwhile() {
    let pair = Pair::start(app::several(2)).await;
    let client = Client::h1(&pair.one);
    let (jar, home) = app::login(&client, "user").await;
    let elsewhere = if home == "app-1" { "app-2" } else { "app-1" };
    let hasher = KeyHasher::new(std::array::from_fn(|at| at as u8));
    let hex = |id: &str| data_encoding::HEXLOWER.encode(&hasher.key(id.as_bytes()).to_bytes());
    let (old, until) = (jar.value("session").expect("a session"), clock::unix_ms() + 10_000);
    let value = json!({"renamed": hex("new"), "at": until - 10_000, "until": until});
    // As a replica tells that has not heard where this one thinks the session lives.
    let told = json!({"by": "another", "pool": "app", "key": hex(old), "home": elsewhere, "value": value});
    let publish = redis::cmd("PUBLISH").arg("homing:announce").arg(told.to_string()).to_owned();
    let () = pair.redis.query(&publish).await.expect("told");
    for id in [old, "new"] {
        eventually("it is heard", async || {
            let found = Operator::of(&pair.one).change("explain", json!({"id": id})).await;
            found["home"] == elsewhere
        })
        .await;
        let got = client.get("/public").cookie("session", id).send().await;
        assert_eq!(got.header("x-backend"), elsewhere, "{id}");
    }
}

#[tokio::test]
async fn what_others_write_into_redis_breaks_nothing() {
    let pair = Pair::start(app::several(2)).await;
    let client = Client::h1(&pair.one);
    let hasher = KeyHasher::new(std::array::from_fn(|at| at as u8));
    let far = "{\"home\":\"app-9\",\"created\":1,\"placed\":1,\"seen\":1}";
    let long = "x".repeat(1 << 20);
    let values = ["", "app-1", "{}", "{\"home\":7}", far, &*long, "[[[[[[[[[[[[[[[[["];
    for (number, value) in values.iter().enumerate() {
        let id = format!("odd-{number}");
        let key = data_encoding::HEXLOWER.encode(&hasher.key(id.as_bytes()).to_bytes());
        let name = format!("homing:s:app:{key}");
        let () = pair.redis.query(redis::cmd("SET").arg(&name).arg(*value)).await.expect("set");
        let got = client.get("/public").cookie("session", &id).send().await;
        assert_eq!(got.status, StatusCode::OK, "{value:.20}");
        let () =
            pair.redis.query(redis::cmd("PUBLISH").arg("homing:announce").arg(*value)).await.expect("told");
    }
    let list = data_encoding::HEXLOWER.encode(&hasher.key(b"a list").to_bytes());
    let push = redis::cmd("RPUSH").arg(format!("homing:s:app:{list}")).arg("x").to_owned();
    let _: u64 = pair.redis.query(&push).await.expect("pushed");
    assert_eq!(client.get("/public").cookie("session", "a list").send().await.status, StatusCode::OK);
    assert!(pair.one.metric("homing_shared_bad_values_total", &[]).await >= 6.0);
    // And what is right goes on.
    let (jar, _) = app::login(&client, "user").await;
    assert_eq!(Client::h1(&pair.two).get("/whoami").jar(&jar).send().await.text(), "user");
}

#[tokio::test]
async fn redis_may_want_tls_and_a_password() {
    let (replicas, apps) = (Replicas::new(), app::several(2));
    let redis = RedisServer::start_tls(Leaf::localhost()).await;
    let ca = redis.directory().join("ca.pem");
    std::fs::write(&ca, &Authority::get().pem).expect("a file");
    let state = format!("redis_ca = {:?}", ca.display().to_string());
    let one = replicas.start(Setup::new(&apps), "one", &redis.url(), &state).await;
    let (jar, _) = app::login(&Client::h1(&one), "user").await;
    let two = replicas.start(Setup::new(&apps), "two", &redis.url(), &state).await;
    assert_eq!(Client::h1(&two).get("/whoami").jar(&jar).send().await.text(), "user");
    // Who is not vouched for gets nothing, and nobody but us is told why.
    let doubting = replicas.join(Setup::new(&apps), "three", &redis.url(), "").start().await;
    let told = |line: &str| line.contains("cannot reach redis").then(|| line.to_owned());
    let line = doubting.process.stderr.find("a word about it", told).await.expect("it says so");
    assert!(line.to_lowercase().contains("certificate"), "{line}");

    let locked = RedisServer::start_with(&["--requirepass", "open sesame"]).await;
    let file = locked.directory().join("password");
    std::fs::write(&file, "open sesame\n").expect("a file");
    let state = format!("redis_password_file = {:?}", file.display().to_string());
    let one = replicas.start(Setup::new(&apps), "one", &locked.url(), &state).await;
    let url = locked.url().replace("redis://", "redis://:open%20sesame@");
    let two = replicas.start(Setup::new(&apps), "two", &url, "").await;
    let (jar, _) = app::login(&Client::h1(&one), "user").await;
    assert_eq!(Client::h1(&two).get("/whoami").jar(&jar).send().await.text(), "user");
    for homing in [&one, &two] {
        let said = homing.process.stderr.text();
        assert!(!said.contains("sesame"), "{said}");
    }
}

#[tokio::test]
async fn the_least_that_redis_must_allow_is_enough() {
    let redis = RedisServer::start().await;
    let mut grant = redis::cmd("ACL");
    grant
        .arg("SETUSER")
        .arg("homing")
        .arg("on")
        .arg(">secret")
        .arg(ACL.split_whitespace().collect::<Vec<_>>());
    let () = redis.query(&grant).await.expect("a user");
    let url = redis.url().replace("redis://", "redis://homing:secret@");
    let (replicas, apps) = (Replicas::new(), app::several(2));
    let one = replicas.start(Setup::new(&apps), "one", &url, "").await;
    let two = replicas.start(Setup::new(&apps), "two", &url, "").await;
    let (mut jar, _) = app::login(&Client::h1(&one), "user").await;
    assert_eq!(Client::h1(&two).get("/whoami").jar(&jar).send().await.text(), "user");
    let rotated = Client::h1(&one).get("/rotate").jar(&jar).send().await;
    jar.store(&rotated.headers);
    assert_eq!(Client::h1(&two).get("/whoami").jar(&jar).send().await.text(), "user");
    one.wait_for_metric("homing_cluster_replicas", &[], 2.0).await;
    one.wait_for_metric("homing_cluster_sessions", &[], 1.0).await;
    for homing in [&one, &two] {
        assert_eq!(homing.metric("homing_shared_operations_total", &[("result", "error")]).await, 0.0);
    }
}

/// As docs/cluster.md gives it.
const ACL: &str = "~homing:* &homing:announce -@all +ping +getrange +set +del +evalsha +eval +scan \
    +publish +subscribe +zadd +zrem +zrange +zremrangebyscore";

#[tokio::test]
async fn operators_see_the_cluster_from_any_replica() {
    let pair = Pair::start(app::several(2)).await;
    let users = login_all(&Client::h1(&pair.one), 6).await;
    assert_eq!(Client::h1(&pair.two).get("/whoami").jar(&users[0].1).send().await.text(), "user-0");
    for homing in [&pair.one, &pair.two] {
        homing.wait_for_metric("homing_cluster_replicas", &[], 2.0).await;
        // Six, although one of them is known to both.
        homing.wait_for_metric("homing_cluster_sessions", &[("pool", "app")], 6.0).await;
        let status = Operator::of(homing).read("cluster").await;
        assert_eq!(status["breaker"], "closed");
        let names: Vec<_> = status["replicas"].as_array().expect("replicas").iter().collect();
        assert_eq!((&names[0]["replica"], &names[1]["replica"]), (&json!("one"), &json!("two")));
        let shown = operator::run(homing, &["cluster"]).await.stdout;
        for part in ["breaker closed", "REPLICA", "one", "two", "app/app-1", "counted"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_shares_with_nobody_says_so() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let answer = Operator::of(&homing).get("/api/v1/cluster").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text().contains("shares its sessions with nobody"), "{}", answer.text());
}

#[tokio::test]
async fn sharing_without_a_common_secret_is_refused_at_start() {
    let apps = app::several(1);
    let state = "[state]\nredis = \"redis://user:hunter2@127.0.0.1:1\"";
    let ended = Setup::new(&apps).section(state).run_to_end("check").await;
    assert!(!ended.status.success());
    assert!(
        ended.stderr.contains("`redis` needs `secret_file`, the same on all replicas"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("homing.toml:") && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_replica_with_another_secret_is_told() {
    let (redis, apps) = (RedisServer::start().await, app::several(1));
    let first = Replicas::new();
    let _one = first.start(Setup::new(&apps), "one", &redis.url(), "").await;
    let second = Replicas::new();
    std::fs::write(second.secret(), "ff0102030405060708090a0b0c0d0e0f\n").expect("our file");
    let two = second.start(Setup::new(&apps), "two", &redis.url(), "").await;
    let told = |line: &str| line.contains("another `secret_file`").then_some(());
    assert!(two.process.stderr.find("a word about it", told).await.is_some());
}

#[tokio::test]
async fn a_session_in_use_at_one_replica_outlives_its_time_at_the_other() {
    let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(3));
    // Kept for a second and a half.
    let short = || Setup::new(&apps).session_timeout("1s");
    let one = replicas.start(short(), "one", &redis.url(), "").await;
    let two = replicas.start(short(), "two", &redis.url(), "").await;
    let (jar, home) = app::login(&Client::h1(&one), "user").await;
    assert_eq!(Client::h1(&two).get("/whoami").jar(&jar).send().await.text(), "user");
    let client = Client::h1(&one);
    eventually("it has expired where it is not used", async || {
        assert_eq!(client.get("/whoami").jar(&jar).send().await.text(), "user");
        sessions(&two).await == 0
    })
    .await;
    assert_eq!(redis.keys("homing:s:*").await.len(), 1, "it is still in use");
    let got = Client::h1(&two).get("/whoami").jar(&jar).send().await;
    assert_eq!((got.text(), got.header("x-backend")), ("user", &*home));
    assert_eq!(two.metric("homing_shared_lookups_total", &[("result", "hit")]).await as u64, 2);
    // And unused everywhere, it goes by itself.
    eventually("redis has forgotten it", async || redis.keys("homing:s:*").await.is_empty()).await;
}
