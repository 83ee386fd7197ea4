//! Draining a backend: it keeps its own sessions, gets no new ones, and tells when none is left.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use homing::clock;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use self::support::{
    app,
    backend::{Backend, answer},
    client::Client,
    eventually,
    metrics::Metrics,
    operator::{Operator, rewrite},
    setup::Setup,
    within,
};

const OPEN: &str = "[admin]\nallow_changes = true";

#[tokio::test]
async fn a_draining_backend_keeps_its_own_and_gets_no_new_ones() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    for (_, _, home) in app::login_all(&client, 4).await {
        assert_eq!(home, "app-2");
    }
    for (user, jar, home) in &users {
        let answer = client.get("/whoami").jar(jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (&**user, &**home));
    }
    assert_eq!(operator.steer("app-1", "undrain", json!({})).await["state"], "up");
    assert_eq!(app::login(&client, "late").await.1, "app-1", "it has fewer");
}

#[tokio::test]
async fn waiting_for_a_drain_returns_when_no_session_is_live() {
    let apps = app::several(2);
    let setup = Setup::new(&apps).session_timeout("2s").affinity("ttl = \"1m\"");
    let homing = setup.section(OPEN).start().await;
    app::login_all(&Client::h1(&homing), 2).await;
    let operator = Operator::of(&homing);
    let backend = operator.steer("app-1", "drain", json!({})).await;
    let eta = backend["drain_eta_seconds"].as_f64().expect("an estimate");
    assert!((0.1..=2.5).contains(&eta), "{eta}");
    let begun = clock::now();
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=15").await;
    assert!(clock::now() - begun < Duration::from_secs(10), "it did not wait for the whole time");
    for (field, wanted) in [
        ("done", json!(true)),
        ("live", 0.into()),
        ("retained", 1.into()),
        ("streams", 0.into()),
        ("eta_seconds", 0.0.into()),
    ] {
        assert_eq!(progress[field], wanted, "{field} of {progress:#}");
    }
}

#[tokio::test]
async fn waiting_ends_after_its_time_with_sessions_left() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    app::login(&Client::h1(&homing), "anna").await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=0.3").await;
    assert_eq!((&progress["done"], &progress["live"]), (&json!(false), &json!(1)));
    assert!(progress["eta_seconds"].as_f64().is_some_and(|eta| eta > 1000.0), "{progress:#}");
}

#[tokio::test]
async fn an_open_stream_is_waited_for() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).session_timeout("1s").affinity("ttl = \"1m\"").section(OPEN).start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let cookie = format!("session={}", jar.value("session").expect("a session"));
    let mut socket = client.websocket("/ws", &cookie).await;
    socket.send(Message::text("here")).await.expect("room");
    within("an echo", socket.next()).await;
    let operator = Operator::of(&homing);
    operator.steer(&home, "drain", json!({})).await;
    let path = format!("pools/app/backends/{home}/drain?wait_seconds=2");
    let progress = operator.read(&path).await;
    assert_eq!((&progress["done"], &progress["streams"]), (&json!(false), &json!(1)), "{progress:#}");
    socket.close(None).await.expect("it closes");
    drop(socket);
    eventually("the drain is done", async || operator.read(&path).await["done"] == true).await;
}

#[tokio::test]
async fn at_the_deadline_the_sessions_that_are_left_move() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let other = if home == "app-1" { "app-2" } else { "app-1" };
    let operator = Operator::of(&homing);
    let backend = operator.steer(&home, "drain", json!({ "deadline_seconds": 0.5 })).await;
    assert!(backend["drain_eta_seconds"].as_f64().is_some_and(|eta| eta <= 0.5), "{backend:#}");
    eventually("the deadline passes", async || operator.backend(&home).await["state"] == "maintenance").await;
    assert_eq!(client.get("/public").jar(&jar).send().await.header("x-backend"), other);
    let explained = operator.explain(jar.value("session").expect("a session")).await;
    assert_eq!(explained["moves"][0]["reason"], "maintenance");
    homing.process.stderr.wait_for("the deadline of the drain has passed").await;
}

#[tokio::test]
async fn ending_a_drain_cancels_its_deadline() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    app::login(&Client::h1(&homing), "anna").await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({ "deadline_seconds": 1 })).await;
    let backend = operator.steer("app-1", "undrain", json!({})).await;
    assert_eq!(backend["drain_deadline_seconds"], Value::Null);
    // A drain without a deadline outlives the one that was cancelled.
    operator.steer("app-1", "drain", json!({})).await;
    operator.read("pools/app/backends/app-1/drain?wait_seconds=2").await;
    assert_eq!(operator.backend("app-1").await["state"], "draining");
}

#[tokio::test]
async fn a_drain_that_is_asked_for_again_keeps_its_deadline_unless_told_otherwise() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    let deadline =
        async |wish| operator.steer("app-1", "drain", wish).await["drain_deadline_seconds"].clone();
    assert_eq!(deadline(json!({})).await, Value::Null);
    assert!(deadline(json!({ "deadline_seconds": 600 })).await.as_f64().is_some_and(|left| left > 500.0));
    assert!(deadline(json!({})).await.as_f64().is_some_and(|left| left > 500.0));
    assert_eq!(deadline(json!({ "deadline_seconds": null })).await, Value::Null);
}

#[tokio::test]
async fn in_maintenance_sessions_move_at_once() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let operator = Operator::of(&homing);
    assert_eq!(operator.steer(&home, "maintenance", json!({})).await["state"], "maintenance");
    assert_ne!(client.get("/public").jar(&jar).send().await.header("x-backend"), home);
    assert_eq!(operator.steer(&home, "undrain", json!({})).await["state"], "up");
}

#[tokio::test]
async fn the_estimate_is_a_metric_while_a_backend_drains() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).session_timeout("2s").affinity("ttl = \"1m\"").section(OPEN).start().await;
    app::login_all(&Client::h1(&homing), 2).await;
    let (name, labels) = ("homing_backend_drain_eta_seconds", [("pool", "app"), ("backend", "app-1")]);
    assert!(!Metrics::fetch(&homing).await.has(name, &[]));
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    let metrics = Metrics::fetch(&homing).await;
    assert!((1.0..=3.0).contains(&metrics.value(name, &labels)), "{}", metrics.text);
    homing.wait_for_metric("homing_sessions", &[("backend", "app-1"), ("state", "live")], 0.0).await;
    let metrics = Metrics::fetch(&homing).await;
    assert!(metrics.has(name, &labels) && metrics.value(name, &labels) == 0.0, "{}", metrics.text);
    operator.steer("app-1", "undrain", json!({})).await;
    assert!(!Metrics::fetch(&homing).await.has(name, &[]));
}

#[tokio::test]
async fn a_backend_that_leaves_the_configuration_and_comes_back_serves() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    operator.steer("app-2", "drain", json!({ "deadline_seconds": 600 })).await;
    operator.steer("app-2", "weight", json!({ "weight": 9 })).await;
    let table = format!("[[pool.backend]]\nname = \"app-2\"\nurl = \"http://{}\"", apps[1].address());
    rewrite(&homing, |text| text.replace(&table, ""));
    operator.change("reload", json!({})).await;
    rewrite(&homing, |text| text.replace("[admin]", &format!("{table}\n[admin]")));
    operator.change("reload", json!({})).await;
    let backend = operator.backend("app-2").await;
    assert_eq!((&backend["state"], &backend["weight"]), (&json!("up"), &json!(1)), "{backend:#}");
    assert_eq!(backend["drain_deadline_seconds"], Value::Null);
}

#[tokio::test]
async fn a_drain_survives_a_new_address() {
    let apps = app::several(2);
    let homing = Setup::new(&apps[..1]).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({ "deadline_seconds": 600 })).await;
    let (old, new) = (apps[0].address().to_string(), apps[1].address().to_string());
    rewrite(&homing, |text| text.replace(&old, &new));
    operator.change("reload", json!({})).await;
    let backend = operator.backend("app-1").await;
    assert_eq!((&backend["state"], &backend["url"]), (&json!("draining"), &json!(format!("http://{new}"))));
    assert!(backend["drain_deadline_seconds"].as_f64().is_some(), "{backend:#}");
}

/// A backend that answers nothing until it is let, and begins a session with `/login`.
struct Gated {
    backend: Backend,
    gate: Arc<Semaphore>,
}

impl Gated {
    fn start(name: &str) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let backend = Backend::start(name, move |request| {
            let gate = Arc::clone(&opened);
            async move {
                gate.acquire().await.expect("open").forget();
                let mut response = answer(StatusCode::OK, "done");
                if request.uri().path() == "/login" {
                    let cookie = "session=of-the-gated; Path=/".parse().expect("a field value");
                    response.headers_mut().insert("set-cookie", cookie);
                }
                response
            }
        });
        Self { backend, gate }
    }
}

#[tokio::test]
async fn a_request_under_way_is_waited_for() {
    let gated = Gated::start("app-1");
    let homing = Setup::new([&gated.backend]).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    let client = Client::h1(&homing);
    let upload = tokio::spawn(async move { client.post("/upload").send().await.status });
    eventually("it is under way", async || operator.backend("app-1").await["in_flight"] == 1).await;
    let shown = operator.steer("app-1", "drain", json!({})).await;
    assert!(shown["drain_eta_seconds"].as_f64().is_some_and(|eta| eta > 0.0), "{shown:#}");
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=0.3").await;
    assert_eq!(
        (&progress["done"], &progress["ended"], &progress["in_flight"]),
        (&json!(false), &Value::Null, &json!(1)),
        "{progress:#}"
    );
    gated.gate.add_permits(1);
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=15").await;
    assert_eq!((&progress["done"], &progress["ended"]), (&json!(true), &json!("drained")), "{progress:#}");
    assert_eq!(upload.await.expect("no panic"), StatusCode::OK);
}

#[tokio::test]
async fn a_login_under_way_counts_until_its_session_is_idle() {
    let gated = Gated::start("app-1");
    let setup = Setup::new([&gated.backend]).session_timeout("1h").affinity("ttl = \"2h\"");
    let homing = setup.section(OPEN).start().await;
    let operator = Operator::of(&homing);
    let client = Client::h1(&homing);
    let login = tokio::spawn(async move { client.get("/login").send().await.status });
    eventually("it is under way", async || operator.backend("app-1").await["in_flight"] == 1).await;
    operator.steer("app-1", "drain", json!({})).await;
    gated.gate.add_permits(1);
    assert_eq!(login.await.expect("no panic"), StatusCode::OK);
    eventually("the request is over", async || operator.backend("app-1").await["in_flight"] == 0).await;
    let progress = operator.read("pools/app/backends/app-1/drain").await;
    assert_eq!((&progress["done"], &progress["live"]), (&json!(false), &json!(1)), "{progress:#}");
    assert!(progress["eta_seconds"].as_f64().is_some_and(|eta| eta > 3000.0), "{progress:#}");
}

#[tokio::test]
async fn a_queued_request_is_waited_for() {
    let gated = Gated::start("app-1");
    let setup = Setup::new([&gated.backend]).pool_section("[pool.limits]\nconnections = 1");
    let homing = setup.section(OPEN).start().await;
    let operator = Operator::of(&homing);
    let requests: Vec<_> = (0..2)
        .map(|_| {
            let client = Client::h1(&homing);
            tokio::spawn(async move { client.post("/upload").send().await.status })
        })
        .collect();
    eventually("one waits", async || operator.backend("app-1").await["queued"] == 1).await;
    operator.steer("app-1", "drain", json!({})).await;
    let progress = operator.read("pools/app/backends/app-1/drain").await;
    assert_eq!((&progress["done"], &progress["queued"]), (&json!(false), &json!(1)), "{progress:#}");
    gated.gate.add_permits(2);
    for request in requests {
        assert_eq!(request.await.expect("no panic"), StatusCode::OK);
    }
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=15").await;
    assert_eq!(progress["ended"], "drained", "{progress:#}");
}

#[tokio::test]
async fn waiting_tells_what_the_deadline_has_cut() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 6).await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({ "deadline_seconds": 0.3 })).await;
    let path = "pools/app/backends/app-1/drain?wait_seconds=15";
    let progress = operator.read(path).await;
    assert_eq!((&progress["ended"], &progress["moved"]), (&json!("deadline"), &json!(3)), "{progress:#}");
    for (_, jar, _) in &users {
        client.get("/public").jar(jar).send().await;
    }
    let progress = operator.read(path).await;
    assert_eq!(
        (&progress["live"], &progress["moved"]),
        (&json!(0), &json!(3)),
        "they have moved: {progress:#}"
    );
    operator.steer("app-1", "drain", json!({})).await;
    let progress = operator.read(path).await;
    assert_eq!((&progress["ended"], &progress["moved"]), (&json!("drained"), &json!(0)), "{progress:#}");
}

#[tokio::test]
async fn waiting_for_a_drain_that_was_ended_returns_at_once() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    operator.steer("app-1", "undrain", json!({})).await;
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=300").await;
    assert_eq!(progress["ended"], "undrained", "{progress:#}");
}

#[tokio::test]
async fn maintenance_in_the_middle_of_a_drain_is_told_from_its_end() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    app::login_all(&Client::h1(&homing), 2).await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    operator.steer("app-1", "maintenance", json!({})).await;
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=300").await;
    assert_eq!((&progress["ended"], &progress["moved"]), (&json!("maintenance"), &json!(1)), "{progress:#}");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_drain_is_told_from_its_end() {
    let instance = Arc::new(AtomicU32::new(1));
    let current = Arc::clone(&instance);
    let restarting = Backend::start("app-1", move |_| {
        let mut response = answer(StatusCode::OK, "well");
        response.headers_mut().insert("x-instance", current.load(Ordering::Relaxed).into());
        let cookie = "session=of-1; Path=/".parse().expect("a field value");
        response.headers_mut().insert("set-cookie", cookie);
        std::future::ready(response)
    });
    let setup = Setup::new([&restarting]).pool("instance_header = \"x-instance\"").checked();
    let homing = setup.section(OPEN).start().await;
    Client::h1(&homing).get("/login").send().await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    instance.store(2, Ordering::Relaxed);
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=15").await;
    assert_eq!((&progress["ended"], &progress["moved"]), (&json!("restarted"), &json!(1)), "{progress:#}");
}

#[tokio::test]
async fn sessions_that_move_from_a_draining_backend_that_is_down_are_told() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 2).await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({})).await;
    apps[0].stop().await;
    for (_, jar, _) in &users {
        client.get("/public").jar(jar).send().await;
    }
    let progress = operator.read("pools/app/backends/app-1/drain?wait_seconds=15").await;
    assert_eq!((&progress["ended"], &progress["moved"]), (&json!("down"), &json!(1)), "{progress:#}");
}
