//! Backends that leave the configuration, come back to it, and are renamed.

use super::*;

#[tokio::test]
async fn a_backend_that_leaves_keeps_its_sessions_until_they_are_idle() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).session_timeout("3s").affinity("ttl = \"1m\"").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 9).await;
    rewrite(&homing, |text| without(text, "app-3"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-3 leaves: 3 live sessions stay until idle").await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
    for (_, _, home) in app::login_all(&client, 6).await {
        assert_ne!(home, "app-3", "it takes no new sessions");
    }
    let operator = Operator::of(&homing);
    let shown = operator.backend("app-3").await;
    assert_eq!((&shown["state"], &shown["left_config"]), (&json!("draining"), &json!(true)), "{shown:#}");
    homing.process.stderr.wait_for("backend removed").await;
    eventually("it is gone", async || {
        !Metrics::fetch(&homing).await.has("homing_backend_up", &[("backend", "app-3")])
    })
    .await;
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_backend_that_leaves_waits_for_requests_and_streams() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).session_timeout("1s").affinity("ttl = \"1m\"").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 2).await;
    let (_, jar, home) = &users[1];
    let cookie = format!("session={}", jar.value("session").expect("logged in"));
    let mut socket = client.websocket("/ws", &cookie).await;
    rewrite(&homing, |text| without(text, home));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("until idle (1 open streams").await;
    homing.wait_for_metric("homing_sessions", &[("state", "live")], 1.0).await;
    socket.send(Message::text("still here")).await.expect("an open socket");
    let echo = within("the echo", socket.next()).await.expect("an open socket").expect("a message");
    assert_eq!(echo.into_text().expect("a text"), "still here");
    assert!(!homing.process.stderr.text().contains("backend removed"));
    socket.close(None).await.expect("it closes");
    homing.process.stderr.wait_for("backend removed").await;
}

#[tokio::test]
async fn a_backend_that_is_back_before_it_has_drained_goes_on() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    let file = homing.directory().join("homing.toml");
    let whole = fs::read_to_string(&file).expect("the configuration");
    rewrite(&homing, |text| without(text, "app-2"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-2 leaves").await;
    fs::write(&file, whole).expect("the configuration");
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-2 is back: 2 live sessions stay").await;
    let shown = Operator::of(&homing).backend("app-2").await;
    assert_eq!((&shown["state"], &shown["left_config"]), (&json!("up"), &json!(false)), "{shown:#}");
    for (user, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
    let homes: Vec<_> = app::login_all(&client, 2).await.into_iter().map(|(_, _, home)| home).collect();
    assert!(homes.iter().any(|home| home == "app-2"), "it takes new sessions: {homes:?}");
}

#[tokio::test]
async fn a_leaving_backend_stays_over_further_reloads() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 6).await;
    rewrite(&homing, |text| without(text, "app-3"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-3 leaves").await;
    rewrite(&homing, |text| without(text, "app-2").replace("\"app-1\"\n", "\"app-1\"\nweight = 2\n"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-2 leaves").await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
}

#[tokio::test]
async fn a_backend_that_leaves_is_cut_at_once_where_that_is_configured() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).pool("leave = \"cut\"").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    rewrite(&homing, |text| without(text, "app-2"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-2 leaves: 2 live sessions end").await;
    for (_, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.header("x-backend"), "app-1");
    }
}

#[tokio::test]
async fn a_backend_with_another_name_for_its_url_keeps_its_sessions() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    Operator::of(&homing).steer("app-2", "drain", json!({})).await;
    rewrite(&homing, |text| text.replace("\"app-2\"", "\"blue\""));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-2 is renamed to blue: 2 live sessions stay").await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
    let shown = Operator::of(&homing).backend("blue").await;
    assert_eq!((&shown["state"], &shown["live"]), (&json!("draining"), &json!(2)), "{shown:#}");
    let metrics = Metrics::fetch(&homing).await;
    for name in ["homing_sessions", "homing_backend_up", "homing_backend_requests_total"] {
        assert!(metrics.has(name, &[("backend", "blue")]), "{name}");
        assert!(!metrics.has(name, &[("backend", "app-2")]), "{name}");
    }
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn two_backends_that_swap_their_names_keep_their_sessions() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    rewrite(&homing, |text| {
        text.replace("\"app-1\"", "\"x\"").replace("\"app-2\"", "\"app-1\"").replace("\"x\"", "\"app-2\"")
    });
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-2 is renamed to app-1").await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
}

#[tokio::test]
async fn a_backend_whose_name_another_one_takes_drains_under_a_spare_name() {
    let apps = app::several(3);
    let homing = Setup::new(&apps[..2]).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    let [one, two, three] = [0, 1, 2].map(|index: usize| format!("http://{}\"", apps[index].address()));
    rewrite(&homing, |text| text.replace(&two, &three).replace(&one, &two));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("app-1 leaves: 2 live sessions stay until idle").await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
    assert_eq!(Operator::of(&homing).backend("app-1~").await["state"], "draining");
}

#[tokio::test]
async fn a_pool_that_leaves_says_how_many_sessions_end() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    app::login_all(&Client::h1(&homing), 3).await;
    rewrite(&homing, |text| text.replace("name = \"app\"", "name = \"shop\""));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("pool app leaves: 3 live sessions end").await;
}
