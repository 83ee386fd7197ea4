//! Redis in other shapes than one server: a cluster, a master that Sentinels know.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use self::support::{
    app, client::Client, eventually, operator::Operator, redis::RedisServer, replicas::Replicas, setup::Setup,
};

async fn two_replicas_agree(url: &str) {
    let (replicas, apps) = (Replicas::new(), app::several(2));
    let one = replicas.start(Setup::new(&apps), "one", url, "").await;
    let two = replicas.start(Setup::new(&apps), "two", url, "").await;
    let users = app::login_all(&Client::h1(&one), 10).await;
    for (user, jar, home) in &users {
        let got = Client::h1(&two).get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
    // Announcements come, too.
    Client::h1(&one).get("/logout").jar(&users[0].1).send().await;
    two.wait_for_metric("homing_sessions", &[], 9.0).await;
    one.wait_for_metric("homing_cluster_replicas", &[], 2.0).await;
    let status = Operator::of(&two).read("cluster").await;
    assert_eq!(status["connected"], true, "{status:#}");
    if url.contains("cluster") {
        let why = status["census_missing"].as_str().unwrap_or_default();
        assert!(why.contains("not counted"), "{status:#}");
    }
}

#[tokio::test]
async fn a_redis_cluster_is_as_good() {
    let node = RedisServer::start_with(&["--cluster-enabled", "yes"]).await;
    let () =
        node.query(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383)).await.expect("all slots");
    eventually("the cluster is well", async || {
        let state: String = node.query(redis::cmd("CLUSTER").arg("INFO")).await.expect("its state");
        state.contains("cluster_state:ok")
    })
    .await;
    two_replicas_agree(&format!("redis+cluster://{}", node.address())).await;
}

#[tokio::test]
async fn sentinels_know_where_the_master_is() {
    let master = RedisServer::start().await;
    let sentinel = RedisServer::start_sentinel("main", master.address()).await;
    two_replicas_agree(&format!("redis+sentinel://127.0.0.1:1,{}/main", sentinel.address())).await;
}
