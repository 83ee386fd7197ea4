//! What one client may take: connections, requests, time.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use homing::clock;
use http::{Response, StatusCode};
use http_body::Frame;
use tokio::{net::TcpStream, time::sleep};

use self::support::{
    backend::Backend,
    client::{BOTH, Client, Protocol},
    eventually,
    flow::{self, endless},
    frames::{self, DATA, Frames, GOAWAY, HEADERS, PING, RST_STREAM, WINDOW_UPDATE},
    process::Homing,
    setup::Setup,
    within,
};

const REFUSED: &str = "homing_connections_refused_total";
const TURNED_AWAY: &str = "homing_http_requests_refused_total";

#[tokio::test]
async fn an_address_has_a_limit_of_its_own_handshakes_included() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nconnections_per_address = 3").start().await;
    let client = Client::h1(&homing);
    let served = [client.connect().await, client.connect().await];
    let handshaking = TcpStream::connect(homing.https).await.expect("a connection");
    homing.wait_for_metric("homing_connections", &[], 3.0).await;
    assert!(within("an end", client.try_connect()).await.is_err(), "a fourth connection is served");
    assert_eq!(homing.metric(REFUSED, &[("reason", "address")]).await, 1.0);
    homing.process.stderr.wait_for("limits.connections_per_address").await;
    drop((served, handshaking));
    eventually("there is room again", async || client.get("/").try_send().await.is_ok()).await;
}

#[tokio::test]
async fn a_trusted_proxy_has_any_number_of_connections() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).top("trusted_proxies = [\"127.0.0.0/8\"]");
    let homing = setup.section("[limits]\nconnections_per_address = 1").start().await;
    let client = Client::h2(&homing);
    let connections = [client.connect().await, client.connect().await, client.connect().await];
    for connection in &connections {
        assert_eq!(connection.get("/").send().await.status, StatusCode::OK);
    }
    assert_eq!(homing.metric(REFUSED, &[]).await, 0.0);
}

#[tokio::test]
async fn behind_a_balancer_the_client_that_its_header_names_has_the_limit() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).proxy_protocol("[\"127.0.0.0/8\"]");
    let homing = setup.section("[limits]\nconnections_per_address = 1").start().await;
    let client = |address: &str| {
        Client::h1(&homing).preface(format!("PROXY TCP4 {address} 10.0.0.1 12345 443\r\n").as_bytes())
    };
    let first = client("203.0.113.9").connect().await;
    let _other = client("203.0.113.10").connect().await;
    let again = client("203.0.113.9");
    assert!(within("an end", again.try_connect()).await.is_err(), "a second connection is served");
    assert_eq!(homing.metric(REFUSED, &[("reason", "address")]).await, 1.0);
    drop(first);
    eventually("there is room again", async || again.get("/").try_send().await.is_ok()).await;
}

#[tokio::test]
async fn an_address_that_asks_too_fast_is_told_when_to_come_again() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nrate = \"1/h\"\nrate_burst = 2").start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        // Both protocols are one client.
        let before = if protocol == Protocol::Http1 { 2 } else { 0 };
        for _ in 0..before {
            assert_eq!(connection.get("/").send().await.status, StatusCode::OK);
        }
        let got = connection.get("/too-fast").send().await;
        assert_eq!(got.status, StatusCode::TOO_MANY_REQUESTS, "{protocol:?}");
        let wait: u64 = got.header("retry-after").parse().expect("seconds");
        assert!((3000..=3600).contains(&wait), "{wait} s");
    }
    let record = homing.process.access_record("the refusal", |record| record["path"] == "/too-fast").await;
    assert_eq!((&record["status"], &record["error"]), (&429.into(), &"rate-limited".into()));
    assert_eq!(homing.metric(TURNED_AWAY, &[("reason", "rate")]).await, 2.0);
    assert_eq!(backend.seen().len(), 2, "nothing else reaches a backend");
}

#[tokio::test]
async fn garbage_counts_like_any_request() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nrate = \"1/h\"\nrate_burst = 2").start().await;
    let client = Client::h1(&homing);
    for status in ["400", "400", "429"] {
        let text = client.exchange("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {text:?}");
    }
    assert_eq!(client.get("/").send().await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(homing.metric(TURNED_AWAY, &[("reason", "rate")]).await, 2.0);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn behind_trusted_proxies_the_rate_is_that_of_the_client() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).top("trusted_proxies = [\"127.0.0.0/8\"]");
    let homing = setup.section("[limits]\nrate = \"1/h\"").start().await;
    let connection = Client::h2(&homing).connect().await;
    let status = async |client: &str| {
        let call = connection.get("/");
        let call = if client.is_empty() { call } else { call.header("x-forwarded-for", client) };
        call.send().await.status.as_u16()
    };
    assert_eq!((status("192.0.2.1").await, status("192.0.2.1").await), (200, 429));
    assert_eq!(
        (status("2001:db8::1").await, status("2001:db8::2").await),
        (200, 429),
        "a network is one client"
    );
    assert_eq!(status("2001:db8:0:1::1").await, 200);
    assert_eq!((status("").await, status("").await), (200, 200), "the proxy asks for itself");
}

#[tokio::test]
async fn a_connection_serves_so_many_requests_over_http_1_1() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nrequests_per_connection = 3").start().await;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let text = Client::h1(&homing).exchange(request.repeat(5)).await.to_ascii_lowercase();
    assert_eq!(text.matches("http/1.1 200").count(), 3, "{text}");
    assert_eq!(text.matches("connection: close").count(), 1, "{text}");
}

#[tokio::test]
async fn a_connection_serves_so_many_requests_over_http_2() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nrequests_per_connection = 2").start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.get(1).await;
    assert!(connection.next(HEADERS).await.is_ok());
    connection.get(3).await;
    let mut frames: Vec<frames::Frame> = Vec::new();
    // In which order is nobody's business.
    while [HEADERS, GOAWAY, PING].iter().any(|kind| frames.iter().all(|frame| frame.kind != *kind)) {
        frames.push(connection.try_next().await.expect("it goes on"));
    }
    assert!(frames.iter().any(frames::Frame::is_ok));
    // What crosses the farewell is served; a client that knows of it opens another connection.
    connection.get(5).await;
    let ping = frames.iter().find(|frame| frame.kind == PING).expect("just seen");
    connection.send(PING, 1, 0, &ping.payload).await;
    assert!(connection.next(HEADERS).await.is_ok());
    assert_eq!(Client::h2(&homing).get("/").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn more_requests_than_the_proxy_takes_on_are_told_so() {
    let backend = Backend::start("app-1", |request| {
        let quick = request.uri().path() == "/quick";
        std::future::ready(Response::new(if quick { flow::full("ok") } else { endless(b"begun") }))
    });
    let homing = Setup::new([&backend]).section("[limits]\nrequests = 2").start().await;
    let connection = Client::h2(&homing).connect().await;
    let first = connection.get("/slow").open().await;
    let _second = connection.get("/slow").open().await;
    let got = connection.get("/quick").send().await;
    assert_eq!((got.status, got.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert_eq!(homing.metric(TURNED_AWAY, &[("reason", "overload")]).await, 1.0);
    drop(first);
    eventually("there is room again", async || {
        connection.get("/quick").send().await.status == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_trickles_is_cut_and_one_that_is_slow_is_not() {
    let backend = Backend::echo("app-1");
    let limits = "[timeouts]\nbody = \"700ms\"\n[limits]\nmin_rate = \"1KiB\"";
    let homing = Setup::new([&backend]).section(limits).start().await;
    let upload = |bytes: usize, pieces: usize| {
        flow::stream(stream::iter(0..pieces).then(move |_| async move {
            sleep(Duration::from_millis(50)).await;
            Ok(Frame::data(vec![b'x'; bytes].into()))
        }))
    };
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        // It never stands still, and would go on for a minute.
        let cut = within("the cut", client.post("/").body(upload(1, 1200)).try_send()).await;
        let status = cut.as_ref().map(|got| got.status);
        assert!(status.as_ref().map_or(true, |status| *status == StatusCode::REQUEST_TIMEOUT), "{status:?}");
        let whole = client.post("/").body(upload(4096, 30)).send().await;
        assert_eq!((whole.status, whole.body.len()), (StatusCode::OK, 30 * 4096), "{protocol:?}");
    }
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0, "no fault of the backend");
}

#[tokio::test]
async fn an_answer_that_is_taken_in_bites_is_cut_where_a_pace_is_asked_for() {
    let backend =
        Backend::start("app-1", |_| async { Response::new(flow::patterned(1 << 40, Arc::default())) });
    for (min_rate, cut) in [("1MiB", true), ("64B", false)] {
        let limits = format!("[timeouts]\nbody = \"2s\"\n[limits]\nmin_rate = \"{min_rate}\"");
        let homing = Setup::new([&backend]).section(&limits).start().await;
        assert_eq!(bites(&homing, Duration::from_secs(6)).await, cut, "{min_rate}");
    }
}

/// Takes 300 KB of an answer a second, never stopping; whether that is cut within this time.
async fn bites(homing: &Homing, time: Duration) -> bool {
    const BITE: u32 = 30_000;
    let mut frames = Frames::open(&Client::h2(homing)).await;
    frames.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
    frames.get(1).await;
    let (mut got, mut wanted, end) = (0, BITE, clock::now() + time);
    while clock::now() < end {
        let Some(frame) = frames.try_next().await else { return true };
        match frame.kind {
            RST_STREAM => return true,
            DATA => got += frame.payload.len() as u32,
            _ => {}
        }
        if got >= wanted {
            sleep(Duration::from_millis(100)).await;
            frames.send(WINDOW_UPDATE, 0, 1, &BITE.to_be_bytes()).await;
            wanted += BITE;
        }
    }
    false
}

#[tokio::test]
async fn running_out_of_descriptors_costs_little_and_passes() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).checked().section("[timeouts]\nhandshake = \"30s\"").start().await;
    let kept = Client::h2(&homing).connect().await;
    assert_eq!(kept.get("/").send().await.status, StatusCode::OK);
    homing.process.limit_files(Some(48));
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(within("a place in the queue", TcpStream::connect(homing.https)).await.expect("a queue"));
    }
    homing.process.stderr.wait_for("cannot accept connections for now").await;
    let (began, wall) = (homing.process.cpu(), clock::now());
    sleep(Duration::from_secs(2)).await;
    let share = (homing.process.cpu() - began).as_secs_f64() / (clock::now() - wall).as_secs_f64();
    println!("processor while nobody can be accepted: {:.1} %", share * 100.0);
    // Two workers that spin would use all of both.
    assert!(share < 0.25, "{share} of a processor");
    assert_eq!(kept.get("/").send().await.status, StatusCode::OK, "who is here is served");
    homing.process.limit_files(None);
    drop(flood);
    eventually("there is room again", async || Client::h1(&homing).get("/").try_send().await.is_ok()).await;
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0);
}

#[tokio::test]
async fn few_descriptors_mean_few_clients_and_room_for_the_rest() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).pool("keep_alive = 0").checked().files(80).start().await;
    homing.process.stderr.wait_for("so fewer connections are accepted").await;
    let kept = Client::h2(&homing).connect().await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(within("a connection", TcpStream::connect(homing.https)).await.expect("a queue"));
    }
    eventually("clients are turned away", async || {
        homing.metric(REFUSED, &[("reason", "limit")]).await > 100.0
    })
    .await;
    for _ in 0..20 {
        assert_eq!(kept.get("/").send().await.status, StatusCode::OK, "a backend is reached");
    }
    assert_eq!(homing.metric(REFUSED, &[("reason", "resources")]).await, 0.0);
    assert!(!homing.process.stderr.text().contains("health check not made"));
}
