//! What operators are told of sharing that does not go well: in the log, as metrics, and by `homing cluster`.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use serde_json::json;

use self::support::{
    app::{self, login_all},
    backend::Backend,
    client::Client,
    eventually,
    operator::{self, Operator},
    process::Homing,
    redis::RedisServer,
    replicas::Replicas,
    setup::Setup,
};

/// The line of the log with these words, as soon as it is there.
async fn line(homing: &Homing, words: &str) -> String {
    let told = |line: &str| line.contains(words).then(|| line.to_owned());
    homing.process.stderr.find(words, told).await.unwrap_or_else(|| panic!("it ended without {words:?}"))
}

/// How many lines of the log have these words.
fn lines(homing: &Homing, words: &str) -> usize {
    homing.process.stderr.text().lines().filter(|line| line.contains(words)).count()
}

/// What a replica says that cannot share by this URL: all of it on one line.
async fn refused(url: &str, words: &str) -> String {
    let (replicas, apps) = (Replicas::new(), app::several(1));
    let homing = replicas.join(Setup::new(&apps), "one", url, "").start().await;
    let line = line(&homing, words).await;
    // The last field ends on it.
    assert!(line.ends_with('"'), "{line}");
    line
}

#[tokio::test]
async fn two_replicas_of_one_name_are_told_of_once() {
    let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(1));
    let one = replicas.start(Setup::new(&apps), "same", &redis.url(), "").await;
    let two = replicas.start(Setup::new(&apps), "same", &redis.url(), "").await;
    for homing in [&one, &two] {
        let line = line(homing, "another process has the name of this replica").await;
        assert!(line.contains("`replica` in `[state]`") && line.contains("\"same\""), "{line}");
    }
}

#[tokio::test]
async fn a_replica_that_follows_another_one_of_its_name_says_nothing() {
    let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(1));
    let one = replicas.start(Setup::new(&apps), "same", &redis.url(), "").await;
    one.wait_for_metric("homing_cluster_replicas", &[], 1.0).await;
    one.process.kill();
    let two = replicas.start(Setup::new(&apps), "same", &redis.url(), "").await;
    eventually("it has told of itself a few times", async || {
        two.metric("homing_shared_operations_total", &[("operation", "view")]).await > 40.0
    })
    .await;
    assert_eq!(lines(&two, "another process has the name"), 0);
}

#[tokio::test]
async fn a_replica_with_another_secret_does_not_claim_to_share() {
    let (redis, apps) = (RedisServer::start().await, app::several(1));
    let one = Replicas::new().start(Setup::new(&apps), "one", &redis.url(), "").await;
    let other = Replicas::new();
    std::fs::write(other.secret(), "ff0102030405060708090a0b0c0d0e0f\n").expect("our file");
    let two = other.start(Setup::new(&apps), "two", &redis.url(), "").await;
    line(&two, "nothing is shared").await;
    assert_eq!(lines(&two, "sessions are shared"), 0);
    two.wait_for_metric("homing_shared_secret_mismatch", &[], 1.0).await;
    assert_eq!(one.metric("homing_shared_secret_mismatch", &[]).await, 0.0);
    for homing in [&one, &two] {
        eventually("the other replicas' operators see it, too", async || {
            let shown = operator::run(homing, &["cluster"]).await.stdout;
            shown.lines().any(|line| line.starts_with("two ") && line.ends_with("another secret"))
        })
        .await;
    }
    // As the log advises, after the secret is the same everywhere; here it is the other way round.
    let () = redis.query(redis::cmd("SET").arg("homing:secret").arg("of nobody here")).await.expect("set");
    one.wait_for_metric("homing_shared_secret_mismatch", &[], 1.0).await;
    let () = redis.query(redis::cmd("DEL").arg("homing:secret")).await.expect("deleted");
    eventually("one of them has the right secret again", async || {
        one.metric("homing_shared_secret_mismatch", &[]).await
            + two.metric("homing_shared_secret_mismatch", &[]).await
            == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_is_full_is_told_of_when_it_begins_and_when_it_ends() {
    let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(2));
    let one = replicas.start(Setup::new(&apps), "one", &redis.url(), "").await;
    let memory = async |bytes: u64| {
        let mut set = redis::cmd("CONFIG");
        let () = redis.query(set.arg("SET").arg("maxmemory").arg(bytes)).await.expect("set");
    };
    memory(1).await;
    let users = login_all(&Client::h1(&one), 8).await;
    let said = line(&one, "redis refuses to keep sessions").await;
    assert!(said.contains("OOM command not allowed") && !said.contains("script"), "{said}");
    let shown = operator::run(&one, &["cluster"]).await.stdout;
    let row = shown.lines().find(|line| line.starts_with("one ")).expect("its row");
    assert!(row.contains(" 8  ") && row.ends_with("redis refuses writes"), "{shown}");
    assert!(shown.contains("redis refuses to keep sessions: OOM"), "{shown}");
    memory(0).await;
    line(&one, "redis keeps sessions again").await;
    eventually("redis has all sessions", async || redis.keys("homing:s:*").await.len() == users.len()).await;
    assert_eq!(lines(&one, "redis refuses to keep sessions"), 1);
    assert_eq!(lines(&one, "does not answer in time"), 0);
}

#[tokio::test]
async fn a_channel_that_is_forbidden_is_named_with_what_redis_says() {
    let redis = RedisServer::start().await;
    let mut grant = redis::cmd("ACL");
    grant.arg(&["SETUSER", "homing", "on", ">secret", "~*", "resetchannels", "+@all"]);
    let () = redis.query(&grant).await.expect("a user");
    let url = redis.url().replace("redis://", "redis://homing:secret@");
    let line = refused(&url, "redis does not let us subscribe").await;
    assert!(line.contains("homing:announce") && line.contains("NOPERM"), "{line}");
}

#[tokio::test]
async fn a_wrong_password_and_what_is_not_redis_are_told_in_plain_words() {
    let redis = RedisServer::start_with(&["--requirepass", "open sesame"]).await;
    let line = refused(&redis.url(), "redis wants a password").await;
    assert!(line.contains("redis_password_file"), "{line}");
    let url = redis.url().replace("redis://", "redis://:wrong@");
    let line = refused(&url, "cannot reach redis").await;
    assert!(line.contains("redis refuses the password of `default`") && !line.contains("wrong@"), "{line}");

    let web = Backend::start("web", |_| async { support::backend::answer(http::StatusCode::OK, "web") });
    let line = refused(&RedisServer::url_at(web.address()), "cannot reach redis").await;
    assert!(line.contains("does not speak as redis does"), "{line}");
}

#[tokio::test]
async fn a_redis_that_stops_is_told_of_once() {
    let (replicas, apps) = (Replicas::new(), app::several(1));
    let mut redis = RedisServer::start().await;
    let one = replicas.start(Setup::new(&apps), "one", &redis.url(), "").await;
    redis.stop();
    login_all(&Client::h1(&one), 8).await;
    line(&one, "cannot reach redis").await;
    assert_eq!(one.metric("homing_shared_up", &[]).await, 0.0);
    assert_eq!(lines(&one, "lost the connection to redis: requests go on without it"), 1);
    assert_eq!(lines(&one, "does not answer in time"), 0);
}

#[tokio::test]
async fn a_replica_shows_itself_as_it_is_now() {
    let (replicas, redis, apps) = (Replicas::new(), RedisServer::start().await, app::several(1));
    let url = format!("{}/0", redis.url());
    let one = replicas.start(Setup::new(&apps), "one", &url, "").await;
    one.wait_for_metric("homing_cluster_replicas", &[], 1.0).await;
    for count in 1..=3 {
        app::login(&Client::h1(&one), "user").await;
        let status = Operator::of(&one).read("cluster").await;
        assert_eq!(status["redis"], json!(url));
        assert_eq!(status["replicas"][0]["pools"][0]["backends"][0]["live"], json!(count));
    }
}
