//! Weighing evidence: what is no fault of a backend takes it out for nobody.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use self::support::{
    app,
    backend::{Backend, answer},
    call::Jar,
    client::Client,
    eventually, eventually_within,
    operator::{Operator, rewrite},
    process::Homing,
    setup::Setup,
    within,
};

const UP: &str = "homing_backend_up";
const MOVES: &str = "homing_affinity_moves_total";

#[tokio::test]
async fn running_out_of_file_descriptors_takes_no_backend_down_and_moves_no_session() {
    let apps = app::several(2);
    // Each request needs a connection of its own, hence a descriptor.
    let setup = Setup::new(&apps).pool("keep_alive = 0").checked();
    let homing = setup.section("[timeouts]\nhandshake = \"30s\"").start().await;
    homing.process.limit_files(Some(64));
    let users = app::login_all(&Client::h1(&homing), 4).await;
    let mut connections = Vec::new();
    for _ in &users {
        connections.push(Client::h1(&homing).connect().await);
    }
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(within("a place in the queue", TcpStream::connect(homing.https)).await.expect("a queue"));
    }
    homing.process.stderr.wait_for("cannot accept connections for now").await;
    homing.process.stderr.wait_for("health check not made").await;
    let mut refused = 0;
    for _ in 0..5 {
        for (connection, (_, jar, home)) in connections.iter().zip(&users) {
            let got = connection.get("/whoami").jar(jar).send().await;
            match got.status {
                StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                _ => assert_eq!((got.status, got.header("x-backend")), (StatusCode::OK, &**home)),
            }
        }
    }
    assert!(refused > 0, "there were descriptors left");
    drop(idle);
    for (connection, (user, jar, home)) in connections.iter().zip(&users) {
        eventually("it has recovered", async || {
            let got = connection.get("/whoami").jar(jar).send().await;
            (got.text(), got.header("x-backend")) == (&**user, &**home)
        })
        .await;
    }
    assert_eq!(homing.metric(UP, &[]).await, 2.0);
    assert_eq!(homing.metric(MOVES, &[]).await, 0.0);
    assert!(!homing.process.stderr.text().contains("backend is down"));
    app::login(&Client::h2(&homing), "late").await;
}

#[tokio::test]
async fn a_connect_timeout_after_slow_answers_does_not_take_a_backend_out() {
    let (mut one, other) = (slow("app-1"), slow("app-2"));
    let deadlines = "[pool.passive]\nfall = 3\n[pool.timeouts]\nhead = \"200ms\"\nconnect = \"200ms\"";
    let homing = Setup::new([&one, &other]).pool("keep_alive = 0").pool_section(deadlines).start().await;
    let client = Client::h1(&homing);
    // A session of each: ids that a backend sets live there.
    for _ in 0..2 {
        client.get("/").send().await;
    }
    let ask = async |path| client.get(path).cookie("session", "at-app-1").send().await;
    for _ in 0..2 {
        assert_eq!(ask("/slow").await.status, StatusCode::GATEWAY_TIMEOUT);
    }
    let overrun = Overrun::of(&mut one).await;
    assert_eq!(ask("/").await.status, StatusCode::GATEWAY_TIMEOUT);
    drop(overrun);
    one.restart();
    assert_eq!(homing.metric(UP, &[]).await, 2.0);
    assert_eq!(ask("/").await.text(), "app-1");
    assert_eq!(homing.metric(MOVES, &[]).await, 0.0);
    assert!(!homing.process.stderr.text().contains("backend is down"));
}

#[tokio::test]
async fn a_late_failure_at_the_old_address_does_not_take_the_new_one_down() {
    let (mut old, new) = (slow("app-1"), Backend::plain("app-1"));
    let homing = Setup::new([&old]).section("[admin]\nallow_changes = true").start().await;
    let client = Client::h1(&homing);
    client.get("/").send().await;
    let late = tokio::spawn(async move { client.get("/slow").cookie("session", "at-app-1").send().await });
    eventually("the request has come", async || old.seen_at("/slow").len() == 1).await;
    readdress(&homing, old.address(), new.address()).await;
    // The connection breaks, and the second attempt of the same request is refused.
    old.stop().await;
    let got = within("an end", late).await.expect("no panic");
    assert!(got.status.is_server_error(), "{got:?}");
    let record = homing.process.access_record("the late one", |record| record["path"] == "/slow").await;
    assert!(record["attempts"].as_u64() > Some(1), "no failure at the old address: {record}");
    assert_eq!(homing.metric(UP, &[("backend", "app-1")]).await, 1.0);
    assert_eq!(Client::h2(&homing).get("/").send().await.text(), "app-1");
    assert!(!homing.process.stderr.text().contains("backend is down"));
}

#[tokio::test]
async fn late_connect_timeouts_at_the_old_address_do_not_count_against_the_new_one() {
    let mut apps = app::several(3);
    let mut spare = apps.remove(2);
    let setup = Setup::new(&apps)
        .pool("keep_alive = 0")
        .pool_section("[pool.passive]\nfall = 3\n[pool.timeouts]\nconnect = \"1s\"");
    let homing = setup.section("[admin]\nallow_changes = true").start().await;
    let client = Client::h1(&homing);
    let jar = user_at(&client, "app-1").await;
    let (old, new) = (Overrun::of(&mut apps[0]).await, Overrun::of(&mut spare).await);
    // Two attempts each, below the three that it takes; the first two end after the reload.
    let late = tokio::spawn({
        let (client, jar) = (client.clone(), jar.clone());
        async move { client.get("/late").jar(&jar).send().await }
    });
    homing.wait_for_metric("homing_backend_in_flight", &[("backend", "app-1")], 1.0).await;
    readdress(&homing, apps[0].address(), spare.address()).await;
    assert_eq!(within("the late one", late).await.expect("no panic").status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(client.get("/new").jar(&jar).send().await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(homing.metric(UP, &[("backend", "app-1")]).await, 1.0);
    drop((old, new));
}

#[tokio::test]
async fn a_new_address_with_another_instance_ends_the_old_sessions() {
    let (old, new) = (instance("old"), instance("new"));
    let setup = Setup::new([&old]).pool("instance_header = \"x-instance\"");
    let homing = setup.section("[admin]\nallow_changes = true").start().await;
    let client = Client::h1(&homing);
    assert_eq!(client.get("/").cookie("session", "of-old").send().await.text(), "old");
    let live = [("state", "live")];
    assert_eq!(homing.metric("homing_sessions", &live).await, 1.0);
    readdress(&homing, old.address(), new.address()).await;
    assert_eq!(homing.metric("homing_sessions", &live).await, 1.0, "the name is what counts");
    // The first answer from there tells; whoever asks next is no session of it.
    assert_eq!(client.get("/first").send().await.text(), "new");
    let got = client.get("/second").cookie("session", "of-old").send().await;
    assert_eq!(got.text(), "new");
    let record = homing.process.access_record("record", |record| record["path"] == "/second").await;
    assert_eq!((&record["verdict"], &record["reason"]), (&json!("moved"), &json!("restarted")), "{record}");
    let ended = homing.metric("homing_affinity_ended_total", &[("reason", "restarted")]).await;
    assert_eq!(ended, 1.0);
}

#[tokio::test]
async fn a_new_address_of_the_same_instance_keeps_its_sessions() {
    let (old, new) = (instance("same"), instance("same"));
    let setup = Setup::new([&old]).pool("instance_header = \"x-instance\"");
    let homing = setup.section("[admin]\nallow_changes = true").start().await;
    let client = Client::h1(&homing);
    client.get("/").cookie("session", "of-old").send().await;
    readdress(&homing, old.address(), new.address()).await;
    client.get("/first").send().await;
    client.get("/second").cookie("session", "of-old").send().await;
    assert_eq!(new.one_at("/second").all("cookie"), ["session=of-old"]);
    let record = homing.process.access_record("record", |record| record["path"] == "/second").await;
    assert_eq!(record["verdict"], "home", "{record}");
}

#[tokio::test]
async fn requests_without_an_id_stay_together_within_a_burst_but_not_for_ever() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).pool("balance = \"round-robin\"").start().await;
    let connection = Client::h1(&homing).connect().await;
    let place = async || connection.get("/public").send().await.header("x-backend").to_owned();
    let first = place().await;
    for _ in 0..10 {
        assert_eq!(place().await, first);
    }
    // However busily it asks.
    let patience = Duration::from_secs(8);
    eventually_within(patience, "it goes elsewhere", async || place().await != first).await;
}

#[tokio::test]
async fn a_connection_of_many_requests_without_an_id_is_spread() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).pool("balance = \"round-robin\"").start().await;
    let connection = Client::h2(&homing).connect().await;
    let mut at_first = 0;
    for _ in 0..128 {
        let place = connection.get("/public").send().await.header("x-backend").to_owned();
        at_first += usize::from(place == "app-1");
    }
    assert!((32..=96).contains(&at_first), "{at_first} of 128");
}

#[tokio::test]
async fn a_backend_that_returns_gets_few_requests_at_first() {
    let mut apps = app::several(3);
    let homing = Setup::new(&apps).pool("slow_start = \"10m\"").start().await;
    let place = async || Client::h1(&homing).get("/public").send().await.header("x-backend").to_owned();
    apps[0].stop().await;
    let down = async || {
        place().await;
        homing.metric(UP, &[]).await == 2.0
    };
    eventually("it is down", down).await;
    apps[0].restart();
    eventually("it is up", async || homing.metric(UP, &[]).await == 3.0).await;
    let mut returned = 0;
    for _ in 0..60 {
        returned += usize::from(place().await == "app-1");
    }
    assert!(returned <= 12, "{returned} of 60");
}

/// In place of a backend, a socket that takes no more connections and refuses none: its queue is full.
struct Overrun {
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Overrun {
    async fn of(backend: &mut Backend) -> Self {
        backend.stop().await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("SO_REUSEADDR");
        socket.bind(backend.address()).expect("a port that is reserved for it");
        let listener = socket.listen(1).expect("a port that is reserved for it");
        let mut waiting = Vec::new();
        let soon = Duration::from_millis(100);
        while let Ok(stream) = timeout(soon, TcpStream::connect(backend.address())).await {
            waiting.push(stream.expect("a place in the queue"));
            assert!(waiting.len() < 10, "the queue has no end");
        }
        Self { _listener: listener, _waiting: waiting }
    }
}

/// An application that never answers `/slow`; each has a session of its own.
fn slow(name: &'static str) -> Backend {
    Backend::start(name, move |request| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        let mut response = answer(StatusCode::OK, name);
        let cookie = format!("session=at-{name}; Path=/");
        response.headers_mut().insert("set-cookie", cookie.parse().expect("valid"));
        response
    })
}

/// A backend that says which instance it is, and accepts every session.
fn instance(id: &'static str) -> Backend {
    Backend::start("app-1", move |_| {
        let mut response = answer(StatusCode::OK, id);
        response.headers_mut().insert("x-instance", id.parse().expect("valid"));
        std::future::ready(response)
    })
}

/// A user who lives at this backend.
async fn user_at(client: &Client, home: &str) -> Jar {
    let users = app::login_all(client, 2).await;
    let (_, jar, _) = users.into_iter().find(|(_, _, at)| at == home).expect("logins are spread");
    jar
}

/// Has the backend of this address at another one from now on.
async fn readdress(homing: &Homing, from: SocketAddr, to: SocketAddr) {
    rewrite(homing, |text| text.replace(&from.to_string(), &to.to_string()));
    Operator::of(homing).change("reload", json!({})).await;
}
