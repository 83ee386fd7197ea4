//! Bodies flow: neither held in memory nor held back.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use self::support::{
    app,
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually,
    flow::{drain_pattern, endless, patterned, stream},
    process::Homing,
    setup::Setup,
    within,
};

#[tokio::test]
async fn a_large_download_needs_little_memory() {
    for protocol in BOTH {
        let backend = Backend::start("app-1", |request| async move {
            let length = if request.uri().path() == "/large" { LARGE } else { 0 };
            Response::new(patterned(length, Arc::default()))
        });
        let homing = Setup::new([&backend]).start().await;
        let client = Client::new(&homing, protocol);
        let before = warm(&homing, &client).await;
        let opened = client.get("/large").open().await;
        assert_eq!(opened.headers["content-length"], LARGE.to_string());
        let got = tokio::time::timeout(LONG, drain_pattern(opened.body)).await;
        assert_eq!(got.expect("in time").expect("a whole body"), LARGE);
        grew_little(&homing, before, &format!("download over {protocol:?}"));
    }
}

#[tokio::test]
async fn a_large_upload_needs_little_memory() {
    for protocol in BOTH {
        let backend = Backend::start("app-1", |request| async {
            match drain_pattern(request.into_body()).await {
                Ok(length) => answer(StatusCode::OK, length.to_string()),
                Err(error) => answer(StatusCode::BAD_REQUEST, error.to_string()),
            }
        });
        let homing = Setup::new([&backend]).start().await;
        let client = Client::new(&homing, protocol);
        let before = warm(&homing, &client).await;
        let upload = client.post("/").body(patterned(LARGE, Arc::default())).try_send();
        let got = tokio::time::timeout(LONG, upload).await.expect("in time").expect("an answer");
        assert_eq!((got.status, got.text()), (StatusCode::OK, &*LARGE.to_string()));
        grew_little(&homing, before, &format!("upload over {protocol:?}"));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_backend_back() {
    for protocol in BOTH {
        let produced = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&produced);
        let backend = Backend::start("app-1", move |request| {
            let endless = request.uri().path() == "/endless";
            let body = patterned(if endless { 1 << 40 } else { 0 }, Arc::clone(&counter));
            std::future::ready(Response::new(body))
        });
        let homing = Setup::new([&backend]).start().await;
        let client = Client::new(&homing, protocol);
        let before = warm(&homing, &client).await;
        let opened = client.get("/endless").open().await;
        stalls(&produced, &client).await;
        let held = produced.load(Ordering::Relaxed);
        assert!(held < HELD, "{protocol:?}: {held} bytes on their way to a client that does not read");
        grew_little(&homing, before, &format!("stalled download over {protocol:?}"));
        drop(opened);
        homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_backend_that_does_not_read_holds_the_client_back() {
    for protocol in BOTH {
        let backend = Backend::start("app-1", |request| async move {
            if request.uri().path() == "/stuck" {
                // Keeps the body, unread.
                let _request = request;
                std::future::pending::<()>().await;
            }
            answer(StatusCode::OK, "")
        });
        let homing = Setup::new([&backend]).start().await;
        let client = Client::new(&homing, protocol);
        let before = warm(&homing, &client).await;
        let produced = Arc::new(AtomicU64::new(0));
        let body = patterned(1 << 40, Arc::clone(&produced));
        let uploader = client.clone();
        let upload = tokio::spawn(async move { uploader.post("/stuck").body(body).try_send().await });
        stalls(&produced, &client).await;
        let held = produced.load(Ordering::Relaxed);
        assert!(held < HELD, "{protocol:?}: {held} bytes on their way to a backend that does not read");
        grew_little(&homing, before, &format!("stalled upload over {protocol:?}"));
        upload.abort();
    }
}

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_made() {
    let backend = Backend::start("app-1", |_| async {
        let mut events = Response::new(endless(b"data: first\n\n"));
        events.headers_mut().insert("content-type", "text/event-stream".parse().expect("valid"));
        events
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let mut opened = Client::new(&homing, protocol).get("/events").open().await;
        assert_eq!(opened.headers["content-type"], "text/event-stream");
        let first = within("the first event", opened.body.frame()).await.expect("one").expect("whole");
        assert_eq!(first.into_data().expect("data"), "data: first\n\n");
    }
}

#[tokio::test]
async fn the_head_of_an_answer_does_not_wait_for_its_body() {
    let backend = Backend::start("app-1", |_| async { Response::new(endless(b"")) });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        assert_eq!(Client::new(&homing, protocol).get("/").open().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_upload_reaches_the_backend_before_it_is_complete() {
    for protocol in BOTH {
        let arrived = Arc::new(Notify::new());
        let seen = Arc::clone(&arrived);
        let backend = Backend::start("app-1", move |request| {
            let seen = Arc::clone(&seen);
            async move {
                let mut body = request.into_body();
                body.frame().await;
                seen.notify_one();
                let rest = body.collect().await.expect("a whole body").to_bytes();
                answer(StatusCode::OK, rest)
            }
        });
        let homing = Setup::new([&backend]).start().await;
        // The second half is made only when the first has arrived: a proxy that collects would wait forever.
        let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from("first")))]);
        let second = futures_util::stream::once(async move {
            arrived.notified().await;
            Ok(Frame::data(Bytes::from("second")))
        });
        let body = stream(first.chain(second));
        let got = Client::new(&homing, protocol).post("/").body(body).send().await;
        assert_eq!(got.text(), "second", "{protocol:?}");
    }
}

#[tokio::test]
async fn a_websocket_passes_both_ways() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let mut socket = Client::h1(&homing).websocket("/ws", "").await;
    for text in ["hello", "again", &"long ".repeat(20_000)] {
        socket.send(Message::text(text)).await.expect("an open socket");
        let echo = within("the echo", socket.next()).await.expect("an open socket").expect("a message");
        assert_eq!(echo.into_text().expect("a text"), text);
    }
    socket.close(None).await.expect("an open socket");
    let closing = async { while let Some(Ok(_)) = socket.next().await {} };
    within("the close", closing).await;
    drop(socket);
    let record = homing.process.access_record("upgrade", |record| record["path"] == "/ws").await;
    assert_eq!(record["status"], 101);
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_websocket_goes_home() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    for (user, jar, home) in app::login_all(&client, 6).await {
        let id = jar.value("session").expect("logged in");
        let path = format!("/ws?{user}");
        drop(client.websocket(&path, &format!("session={id}")).await);
        let backend = apps.iter().find(|app| app.name == home).expect("one of them");
        assert!(backend.seen_at("/ws").iter().any(|seen| seen.uri == *path), "{user}, whose home is {home}");
    }
}

#[tokio::test]
async fn an_open_websocket_holds_its_session() {
    let apps = app::several(2);
    let setup = Setup::new(&apps).session_timeout("300ms").affinity("ttl = \"600ms\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let (held, _) = app::login(&client, "held").await;
    let id = held.value("session").expect("logged in");
    let socket = client.websocket("/ws", &format!("session={id}")).await;
    // Another user comes and is forgotten: more than the TTL has passed.
    app::login(&client, "idle").await;
    homing.wait_for_metric("homing_affinity_ended_total", &[("reason", "expired")], 1.0).await;
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 1.0);
    client.get("/whoami").jar(&held).send().await;
    let record = homing.process.access_record("record", |record| record["path"] == "/whoami").await;
    assert_eq!(record["verdict"], "home");
    drop(socket);
    homing.wait_for_metric("homing_sessions", &[], 0.0).await;
}

/// Makes the program do once what it keeps memory for; its peak so far.
async fn warm(homing: &Homing, client: &Client) -> u64 {
    client.get("/warm").send().await;
    homing.process.peak_resident()
}

fn grew_little(homing: &Homing, before: u64, what: &str) {
    let after = homing.process.peak_resident();
    eprintln!("{what}: peak RSS {} KiB, before {} KiB", after / 1024, before / 1024);
    assert!(after - before < GROWTH, "{what}: {} KiB more", (after - before) / 1024);
}

/// Waits until the counter stands still while the proxy answers others.
async fn stalls(produced: &AtomicU64, client: &Client) {
    eventually("the stream stands still", async || {
        let before = produced.load(Ordering::Relaxed);
        for _ in 0..ROUND_TRIPS {
            client.get("/").send().await;
        }
        before > 0 && produced.load(Ordering::Relaxed) == before
    })
    .await;
}

const LARGE: u64 = 256 << 20;
/// For all of it, in a debug build on a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// Far below what a proxy would need that holds a body; above what allocators and windows vary by.
const GROWTH: u64 = 24 << 20;
/// What two sockets' kernel buffers and two windows may hold.
const HELD: u64 = 48 << 20;
/// While a stream that is not held back would have sent megabytes more.
const ROUND_TRIPS: usize = 20;
