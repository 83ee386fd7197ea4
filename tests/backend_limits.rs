//! How much a backend is asked at a time: places, the queue in front of them, and the budget for retries.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use http::{Response, StatusCode};
use tokio::sync::Semaphore;

use self::support::{
    app,
    backend::{Backend, answer},
    client::{BOTH, Client},
    flow::{Body, endless},
    operator::{self, Operator},
    process::Homing,
    raw_backend::RawBackend,
    setup::Setup,
    within,
};

const IN_FLIGHT: &str = "homing_backend_in_flight";
const CONNECTIONS: &str = "homing_backend_connections";
const QUEUE: &str = "homing_backend_queue";
const QUEUE_FULL: &str = "homing_backend_queue_full_total";
const QUEUE_TIMEOUTS: &str = "homing_backend_queue_timeouts_total";
const EXHAUSTED: &str = "homing_retry_budget_exhausted_total";

/// A backend that answers `/slow` only when it is let, and knows how many it had at a time.
struct Gated {
    backend: Backend,
    gate: Arc<Semaphore>,
    most: Arc<AtomicUsize>,
}

impl Gated {
    fn start(name: &str) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, reached) = (Arc::clone(&gate), Arc::clone(&most));
        let own: &'static str = name.to_owned().leak();
        let backend = Backend::start(name, move |request| {
            let (gate, now, most) = (Arc::clone(&opened), Arc::clone(&now), Arc::clone(&reached));
            async move {
                if request.uri().path() == "/stream" {
                    return Response::new(endless(b"begun"));
                }
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if request.uri().path() == "/slow" {
                    gate.acquire().await.expect("open").forget();
                }
                now.fetch_sub(1, Ordering::SeqCst);
                named(own)
            }
        });
        Self { backend, gate, most }
    }

    fn let_go(&self, count: usize) {
        self.gate.add_permits(count);
    }
}

fn named(name: &'static str) -> Response<Body> {
    let mut response = answer(StatusCode::OK, name);
    response.headers_mut().insert("x-backend", name.parse().expect("a field value"));
    response
}

fn limits(lines: &str) -> String {
    format!("[pool.limits]\n{lines}")
}

async fn fault(homing: &Homing, label: &str) -> serde_json::Value {
    homing.process.access_record(label, |record| record["error"] == label).await
}

#[tokio::test]
async fn no_more_requests_than_the_limit_are_at_a_backend_whichever_worker_they_are_on() {
    let gated = Gated::start("app-1");
    let setup = Setup::new([&gated.backend]).workers(2).pool_section(&limits("connections = 3"));
    let homing = setup.start().await;
    let calls = (0..20).map(|number| {
        // A connection each, so that both workers have some.
        let client = Client::new(&homing, BOTH[number % 2]);
        async move { client.get("/slow").send().await.status }
    });
    let calls = tokio::spawn(join_all(calls.collect::<Vec<_>>()));
    homing.wait_for_metric(IN_FLIGHT, &[], 3.0).await;
    homing.wait_for_metric(QUEUE, &[], 17.0).await;
    assert_eq!(Operator::of(&homing).backend("app-1").await["queued"], 17);
    let table = operator::run(&homing, &["backends"]).await.stdout;
    assert!(table.contains("3 + 17 waiting"), "{table}");
    gated.let_go(20);
    let statuses = within("all answers", calls).await.expect("no panic");
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!(gated.most.load(Ordering::SeqCst), 3);
    homing.wait_for_metric(QUEUE, &[], 0.0).await;
    homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
    let waited = homing.process.access_records().iter().filter(|record| record["queue_ms"] != 0.0).count();
    assert_eq!(waited, 17);
}

#[tokio::test]
async fn idle_connections_beyond_the_limit_are_closed() {
    let gated = Gated::start("app-1");
    let setup = Setup::new([&gated.backend]).workers(4).pool_section(&limits("connections = 2"));
    let homing = setup.start().await;
    // Over many connections of clients, so that every worker has its own to the backend.
    for _ in 0..40 {
        assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
    }
    support::eventually("few are left", async || homing.metric(CONNECTIONS, &[]).await <= 2.0).await;
    assert!(homing.metric(CONNECTIONS, &[]).await >= 1.0, "some are kept");
}

#[tokio::test]
async fn a_full_queue_is_answered_at_once() {
    let gated = Gated::start("app-1");
    let setup = Setup::new([&gated.backend]).pool_section(&limits("connections = 1\nqueue = 1"));
    let homing = setup.start().await;
    let slow = || {
        let client = Client::h1(&homing);
        tokio::spawn(async move { client.get("/slow").send().await.status })
    };
    let first = slow();
    homing.wait_for_metric(IN_FLIGHT, &[], 1.0).await;
    let second = slow();
    homing.wait_for_metric(QUEUE, &[], 1.0).await;
    for protocol in BOTH {
        let refused = Client::new(&homing, protocol).get("/").send().await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.header("retry-after"), "2");
    }
    let record = fault(&homing, "queue-full").await;
    assert_eq!((&record["backend"], &record["attempts"]), (&"app-1".into(), &0.into()));
    assert_eq!(homing.metric(QUEUE_FULL, &[("backend", "app-1")]).await, 2.0);
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0, "it is well");
    gated.let_go(2);
    assert_eq!((first.await.expect("ok"), second.await.expect("ok")), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let gated = Gated::start("app-1");
    let setup =
        Setup::new([&gated.backend]).pool_section(&limits("connections = 1\nqueue_timeout = \"100ms\""));
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let first = tokio::spawn(async move { client.get("/slow").send().await.status });
    homing.wait_for_metric(IN_FLIGHT, &[], 1.0).await;
    let refused = Client::h1(&homing).post("/").send().await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("retry-after"), "2");
    let record = fault(&homing, "queue-timeout").await;
    assert!(record["queue_ms"].as_f64().expect("a number") >= 99.0, "{record}");
    assert_eq!(homing.metric(QUEUE_TIMEOUTS, &[("backend", "app-1")]).await, 1.0);
    assert_eq!(homing.metric(QUEUE, &[]).await, 0.0);
    gated.let_go(1);
    assert_eq!(first.await.expect("no panic"), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_queue() {
    let gated = Gated::start("app-1");
    let homing = Setup::new([&gated.backend]).pool_section(&limits("connections = 1")).start().await;
    let client = Client::h1(&homing);
    let first = tokio::spawn(async move { client.get("/slow").send().await.status });
    homing.wait_for_metric(IN_FLIGHT, &[], 1.0).await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    homing.wait_for_metric(QUEUE, &[], 1.0).await;
    raw.abandon();
    homing.wait_for_metric(QUEUE, &[], 0.0).await;
    gated.let_go(1);
    assert_eq!(first.await.expect("no panic"), StatusCode::OK);
    assert_eq!(gated.backend.seen().len(), 1, "nobody asks for an answer that nobody waits for");
}

#[tokio::test]
async fn a_session_waits_for_its_home_and_a_new_one_begins_where_there_is_room() {
    let (one, two) = (Gated::start("app-1"), Gated::start("app-2"));
    let setup = Setup::new([&one.backend, &two.backend]).key("header:x-session");
    let homing = setup.pool_section(&limits("connections = 1")).start().await;
    let client = Client::h1(&homing);
    // The first answer teaches where the id lives.
    let session = |path: &'static str| {
        let client = Client::h1(&homing);
        async move { client.get(path).header("x-session", "0123456789abcdef").send().await }
    };
    let home = session("/").await.header("x-backend").to_owned();
    let (full, free) = if home == "app-1" { (&one, "app-2") } else { (&two, "app-1") };
    let first = tokio::spawn(session("/slow"));
    homing.wait_for_metric(IN_FLIGHT, &[("backend", &home)], 1.0).await;
    let second = tokio::spawn(session("/"));
    homing.wait_for_metric(QUEUE, &[("backend", &home)], 1.0).await;
    for _ in 0..6 {
        assert_eq!(Client::h1(&homing).get("/").send().await.header("x-backend"), free);
    }
    assert_eq!(client.get("/").send().await.header("x-backend"), free);
    full.let_go(1);
    for answer in [first, second] {
        assert_eq!(answer.await.expect("no panic").header("x-backend"), home);
    }
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn those_that_wait_for_a_home_that_dies_move_at_once() {
    let (mut apps, jammed) = (app::several(1), Gated::start("app-2"));
    let gate = Arc::clone(&jammed.gate);
    let setup = Setup::new(&apps)
        .backend(&jammed.backend)
        .key("header:x-session")
        .checked()
        .pool_section(&limits("connections = 1\nqueue_timeout = \"1m\""));
    let homing = setup.start().await;
    let ask = |id: String, path: &'static str| {
        let client = Client::h1(&homing);
        async move { client.get(path).header("x-session", &id).send().await }
    };
    let mut id = None;
    for number in 0..64 {
        let candidate = format!("0123456789abcdef-{number}");
        if ask(candidate.clone(), "/public").await.header("x-backend") == "app-2" {
            id = Some(candidate);
            break;
        }
    }
    let id = id.expect("one of 64 ids lives there");
    let first = tokio::spawn(ask(id.clone(), "/slow"));
    homing.wait_for_metric(IN_FLIGHT, &[("backend", "app-2")], 1.0).await;
    let second = tokio::spawn(ask(id.clone(), "/public"));
    homing.wait_for_metric(QUEUE, &[("backend", "app-2")], 1.0).await;
    let mut backend = jammed.backend;
    backend.stop().await;
    let moved = within("an answer of the other", second).await.expect("no panic");
    assert_eq!((moved.status, moved.header("x-backend")), (StatusCode::OK, "app-1"));
    let _ = first.await;
    gate.close();
    apps[0].stop().await;
}

#[tokio::test]
async fn websockets_and_streams_take_places() {
    let gated = Gated::start("app-1");
    let setup =
        Setup::new([&gated.backend]).pool_section(&limits("connections = 1\nqueue_timeout = \"100ms\""));
    let homing = setup.start().await;
    let stream = Client::h1(&homing).get("/stream").open().await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(stream);
    homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);

    let sockets = app::start("app-1");
    let setup = Setup::new([&sockets]).pool_section(&limits("connections = 1\nqueue_timeout = \"100ms\""));
    let homing = setup.checked().start().await;
    homing.wait_for_metric("homing_backend_up", &[], 1.0).await;
    let socket = Client::h1(&homing).websocket("/ws", "").await;
    assert_eq!(Client::h1(&homing).get("/public").send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    let checks = sockets.seen_at("/healthz").len();
    support::eventually("checks go on", async || sockets.seen_at("/healthz").len() > checks + 2).await;
    drop(socket);
    homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
    assert_eq!(Client::h1(&homing).get("/public").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reload_changes_the_limit() {
    let gated = Gated::start("app-1");
    let homing = Setup::new([&gated.backend]).pool_section(&limits("connections = 1")).start().await;
    let slow = || {
        let client = Client::h1(&homing);
        tokio::spawn(async move { client.get("/slow").send().await.status })
    };
    let calls = [slow(), slow(), slow()];
    homing.wait_for_metric(QUEUE, &[], 2.0).await;
    let file = homing.directory().join("homing.toml");
    let text = fs::read_to_string(&file).expect("a file");
    fs::write(&file, text.replace("connections = 1", "connections = 2")).expect("a file");
    homing.process.signal("HUP");
    homing.wait_for_metric(IN_FLIGHT, &[], 2.0).await;
    homing.wait_for_metric(QUEUE, &[], 1.0).await;
    gated.let_go(3);
    for call in calls {
        assert_eq!(call.await.expect("no panic"), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_outage_is_not_multiplied_by_retries() {
    let breaking = ["app-1", "app-2"].map(|name| {
        RawBackend::start(name, |mut connection| async move {
            connection.head().await;
            connection.reset();
        })
    });
    let setup = Setup::new(&breaking).pool_section(&limits("retry_budget = \"0%\""));
    let homing = setup.pool_section("[pool.passive]\nfall = 1000").start().await;
    let client = Client::h2(&homing).connect().await;
    let mut answers = 0;
    for _ in 0..150 {
        assert!(client.get("/").send().await.status.is_server_error());
        answers += 1;
    }
    let retries = homing.metric("homing_backend_retries_total", &[]).await;
    // The floor of a hundred in ten seconds; this took less than two windows.
    assert!((1.0..=200.0).contains(&retries), "{retries}");
    let told = homing.metric(EXHAUSTED, &[("pool", "app")]).await;
    assert!(told > 0.0 && told <= f64::from(answers), "{told}");
    let record = homing.process.access_record("an early end", |record| {
        record["attempts"] == 1 && record["error"] == "backend-closed"
    });
    assert_eq!(record.await["status"], 502);
}
