//! What clients and backends may not do to the proxy, and what is left when they have tried.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{net::TcpStream, task::JoinSet};

use self::support::{
    app,
    backend::Backend,
    client::{BOTH, Client},
    eventually,
    flow::endless,
    metrics::Metrics,
    raw_backend::RawBackend,
    setup::Setup,
    within,
};

#[tokio::test]
async fn an_upload_that_stands_still_is_cut() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).section("[timeouts]\nbody = \"300ms\"").start().await;
    let text = Client::h1(&homing)
        .exchange("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf of it")
        .await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text:?}");
    let client = Client::h2(&homing);
    let got = within("an end", client.post("/").body(endless(b"half of it")).try_send()).await;
    assert!(got.as_ref().map_or(true, |got| got.status == StatusCode::REQUEST_TIMEOUT), "{got:?}");
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0, "no fault of the backend");
}

#[tokio::test]
async fn an_answer_that_stands_still_is_cut() {
    let backend = Backend::start("app-1", |_| async { http::Response::new(endless(b"half of it")) });
    let homing = Setup::new([&backend]).section("[timeouts]\nbody = \"300ms\"").start().await;
    for protocol in BOTH {
        let opened = Client::new(&homing, protocol).get("/").open().await;
        assert!(within("the cut", opened.body.collect()).await.is_err(), "{protocol:?}");
    }
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn events_may_be_far_apart() {
    let backend = Backend::start("app-1", |_| async {
        let mut events = http::Response::new(endless(b"data: first\n\n"));
        events.headers_mut().insert("content-type", "text/event-stream".parse().expect("valid"));
        events
    });
    let homing = Setup::new([&backend]).section("[timeouts]\nbody = \"100ms\"").start().await;
    let mut opened = Client::h1(&homing).get("/events").open().await;
    within("the first event", opened.body.frame()).await.expect("one").expect("whole");
    // Ten times the deadline of a body that is no event stream.
    let rest = tokio::time::timeout(std::time::Duration::from_secs(1), opened.body.frame()).await;
    assert!(rest.is_err(), "an event stream that is silent goes on: {rest:?}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_room_comes_back() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nconnections = 5").start().await;
    let client = Client::h1(&homing);
    let mut connections = Vec::new();
    for _ in 0..5 {
        connections.push(client.connect().await);
    }
    let sixth = within("an end", client.try_connect()).await;
    assert!(sixth.is_err(), "a sixth connection is served");
    drop(connections);
    eventually("there is room again", async || client.get("/").try_send().await.is_ok()).await;
}

#[tokio::test]
async fn tunnels_and_echoes_are_not_for_clients() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let trace = "TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let connect = "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\nConnection: close\r\n\r\n";
    for request in [trace, connect] {
        let text = Client::h1(&homing).exchange(request).await;
        let status = text.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        assert!(status.is_some_and(|status| (400..=501).contains(&status)), "{request:?}: {text:?}");
    }
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn a_target_reaches_the_backend_byte_for_byte() {
    let backend = RawBackend::answering("app-1", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let homing = Setup::new([&backend]).start().await;
    let targets =
        ["/a/../b/./c", "//double//slash", "/%2e%2e/%2F?q=%00&&=", "/;v=1/a;b?x=a+b%20c", "/?", "/a?b?c=/d"];
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        for target in targets {
            assert_eq!(connection.get(target).send().await.status, StatusCode::OK, "{target}");
        }
    }
    for target in targets {
        assert_eq!(backend.count(&format!("GET {target} HTTP/1.1\r\n")), 2, "{target}");
    }
}

#[tokio::test]
async fn odd_bytes_in_fields_reach_the_backend() {
    let backend = RawBackend::answering("app-1", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let homing = Setup::new([&backend]).start().await;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Cookie: a=\"x y\"; session=\xc3\xa9; b\r\nX-Latin: caf\xe9\r\n\r\n";
    let text = Client::h1(&homing).exchange(request).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(backend.count("a=\"x y\"; session=\u{e9}; b\r\n"), 1, "{:?}", backend.arrived());
}

#[tokio::test]
async fn a_post_meets_no_connection_that_its_backend_has_closed() {
    // The proxy's port of the connection that was served last; none while a request is under way.
    let served = Arc::new(AtomicU16::new(0));
    let last = Arc::clone(&served);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let last = Arc::clone(&last);
        async move {
            connection.head().await;
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            let port = connection.peer().port();
            drop(connection);
            last.store(port, Ordering::Relaxed);
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let connection = Client::h2(&homing).connect().await;
    for _ in 0..20 {
        served.store(0, Ordering::Relaxed);
        // Without a body: what is sent of one after the backend has closed resets its answer away.
        let got = connection.request(http::Method::POST, "/").send().await;
        assert_eq!(got.status, StatusCode::OK);
        // The kernel may pass on the end of a connection later than the call that closes it returns.
        eventually("the proxy's end has heard of it", async || {
            let port = served.load(Ordering::Relaxed);
            port != 0 && !is_established(port)
        })
        .await;
    }
    assert_eq!((backend.count("POST / "), backend.arrived().len()), (20, 20));
}

/// Whether a connection from this IPv4 port is open in both directions, as the kernel has it.
fn is_established(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        fields.get(1).is_some_and(|address| address.ends_with(&local)) && fields.get(3) == Some(&ESTABLISHED)
    })
}

#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_bad_gateways() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nab",
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 High\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
    ] {
        let backend = RawBackend::answering("app-1", answer);
        let homing = Setup::new([&backend]).start().await;
        for protocol in BOTH {
            let got = Client::new(&homing, protocol).get("/").send().await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{answer:?} over {protocol:?}");
        }
    }
}

#[tokio::test]
async fn what_a_backend_sends_after_its_answer_reaches_nobody() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while connection.head().await.is_some() {
            let extra = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
            connection.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{extra}")).await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for _ in 0..10 {
            assert_eq!(client.get("/").send().await.text(), "good", "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn clients_that_vanish_leave_nothing_behind() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let mut clients = JoinSet::new();
    for number in 0..60 {
        let client = Client::new(&homing, BOTH[number % 2]);
        let address = homing.https;
        clients.spawn(async move {
            match number % 6 {
                // Before, within and after the handshake; in the middle of a head, of a body.
                0 => drop(TcpStream::connect(address).await),
                1 => drop(client.connect().await),
                2 => client.raw().await.write("GET / HTTP/1.1\r\nHost: lo").await,
                3 => {
                    let half = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
                    client.raw().await.write(half).await;
                }
                _ => drop(client.get("/public").send().await),
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("no panic");
    }
    for gauge in ["homing_connections", "homing_backend_in_flight"] {
        homing.wait_for_metric(gauge, &[], 0.0).await;
    }
    assert_eq!(Metrics::fetch(&homing).await.value("homing_backend_up", &[]), 2.0);
    assert_eq!(Client::h2(&homing).get("/public").send().await.status, StatusCode::OK);
}
