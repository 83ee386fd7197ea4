//! What an exchange leaves behind when a side goes, answers early or stops reading: connections, places, memory.

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
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually, flow,
    frames::{DATA, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE},
    raw_backend::RawBackend,
    setup::Setup,
    within,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const IN_FLIGHT: &str = "homing_backend_in_flight";

/// Begins a stream of events, whatever it is asked, and is silent then, whatever it hears.
fn silent() -> RawBackend {
    RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n").await;
        connection.read_to_end().await;
        std::future::pending::<()>().await;
    })
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_is_noticed_whatever_it_has_sent() {
    for sent in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
    ] {
        let backend = silent();
        let homing = Setup::new([&backend]).start().await;
        let mut raw = Client::h1(&homing).raw().await;
        raw.write(sent).await;
        raw.until("data: first\n\n\r\n").await;
        raw.abandon();
        eprintln!("after {sent:?}");
        homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
        homing.wait_for_metric("homing_connections", &[], 0.0).await;
    }
}

/// A backend that takes a request with a body for one without would take the body for the next request: whoever sends
/// it would choose what the next client is answered.
#[tokio::test]
async fn a_connection_whose_answer_came_before_the_request_was_whole_is_not_used_again() {
    for protocol in BOTH {
        let backend = RawBackend::start("app-1", |mut connection| async move {
            while let Some(head) = connection.head().await {
                if head.contains(" /smuggled ") {
                    sleep(Duration::from_millis(300)).await;
                    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await;
                } else if head.contains(" HTTP/1.1\r\n") {
                    connection.write(OK).await;
                }
            }
        });
        let homing = Setup::new([&backend]).one_worker().start().await;
        let answered = Arc::new(Notify::new());
        let waits = Arc::clone(&answered);
        let body = stream::once(async move {
            waits.notified().await;
            Ok(Frame::data(Bytes::from_static(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")))
        });
        let client = Client::new(&homing, protocol);
        let opened = client.post("/early").body(flow::stream(body)).open().await;
        assert_eq!(opened.status, StatusCode::OK);
        answered.notify_one();
        eventually("the rest of the request", async || backend.count("/smuggled") == 1).await;
        for _ in 0..10 {
            assert_eq!(Client::h1(&homing).post("/well").send().await.text(), "ok", "{protocol:?}");
        }
        assert!(!backend.arrived()[0].contains("/well"), "{protocol:?}: {:?}", backend.arrived()[0]);
    }
}

#[tokio::test]
async fn an_upload_keeps_its_place_at_the_backend_after_an_early_answer() {
    for protocol in BOTH {
        let backend = Backend::start("app-1", |request| async {
            tokio::spawn(request.into_body().collect());
            answer(StatusCode::ACCEPTED, "it will be done")
        });
        let limits = "[pool.limits]\nconnections = 1\nqueue = 1\nqueue_timeout = \"100ms\"";
        let homing = Setup::new([&backend]).pool_section(limits).start().await;
        let goes_on = Arc::new(Notify::new());
        let waits = Arc::clone(&goes_on);
        let body = stream::unfold(0, move |number| {
            let waits = Arc::clone(&waits);
            async move {
                if number == 1 {
                    waits.notified().await;
                }
                (number < 2).then(|| (Ok(Frame::data(Bytes::from_static(b"part"))), number + 1))
            }
        });
        let client = Client::new(&homing, protocol);
        let opened = client.post("/").body(flow::stream(body)).open().await;
        assert_eq!(opened.status, StatusCode::ACCEPTED);
        let rest = within("the answer", opened.body.collect()).await;
        assert_eq!(rest.expect("whole").to_bytes(), "it will be done");
        let other = Client::h1(&homing);
        assert_eq!(other.get("/").send().await.status, StatusCode::SERVICE_UNAVAILABLE, "{protocol:?}");
        goes_on.notify_one();
        homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
        assert_eq!(other.get("/").send().await.status, StatusCode::ACCEPTED, "{protocol:?}");
    }
}

#[tokio::test]
async fn small_parts_that_wait_for_a_client_take_little_memory() {
    const STREAMS: u32 = 20;
    const PARTS: usize = 1500;
    let (go, going) = watch::channel(false);
    let filled = Arc::new(AtomicU64::new(0));
    let fills = Arc::clone(&filled);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let (mut going, filled) = (going.clone(), Arc::clone(&fills));
        async move {
            let head = connection.head().await.unwrap_or_default();
            if head.contains(" /fill ") {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
                while connection.try_write(&[b'x'; 65_536]).await {
                    filled.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let _ = going.wait_for(|go| *go).await;
            for _ in 0..PARTS {
                connection.write("1\r\nx\r\n").await;
                sleep(Duration::from_millis(1)).await;
            }
            connection.mark("<dripped>");
            connection.read_to_end().await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    // Windows for all there is, of which it reads nothing: it is the socket that is full.
    connection.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    connection.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
    for number in 0..=STREAMS {
        let path = if number == 0 { "/fill" } else { "/drip" };
        let fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", "localhost")];
        connection.head(2 * number + 1, &fields, true).await;
    }
    let mut last = 0;
    eventually("the socket is full", async || {
        sleep(Duration::from_millis(300)).await;
        let before = std::mem::replace(&mut last, filled.load(Ordering::Relaxed));
        before > 0 && before == last && backend.arrived().len() > STREAMS as usize
    })
    .await;
    let before = homing.process.peak_resident();
    go.send_replace(true);
    eventually("all parts", async || backend.count("<dripped>") == STREAMS as usize).await;
    let grown = homing.process.peak_resident() - before;
    let each = grown / (u64::from(STREAMS) * PARTS as u64);
    eprintln!("{each} bytes for each part of one");
    assert!(each < 1024, "{each} bytes for each part of one");
}

#[tokio::test]
async fn an_answer_that_its_client_does_not_take_is_cut_although_h2_has_all_of_it() {
    for (length, chunked) in [(9000, false), (20_000, false), (20_000, true)] {
        let bytes = Bytes::from("x".repeat(length));
        let backend = Backend::start("app-1", move |_| {
            let bytes = bytes.clone();
            std::future::ready(Response::new(match chunked {
                true => flow::frames(vec![Frame::data(bytes)]),
                false => flow::full(bytes),
            }))
        });
        let homing = Setup::new([&backend]).section("[timeouts]\nbody = \"500ms\"").start().await;
        let mut connection = Frames::open(&Client::h2(&homing)).await;
        // A window of one byte.
        connection.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).await;
        connection.get(1).await;
        let cut = connection.next(RST_STREAM).await;
        assert_eq!(cut.stream, 1, "{length}, {chunked}");
        // One who takes it gets all of it.
        connection.get(3).await;
        let mut got = connection.next(DATA).await.payload.len();
        connection.send(WINDOW_UPDATE, 0, 3, &u32::try_from(length).expect("short").to_be_bytes()).await;
        loop {
            let data = connection.next(DATA).await;
            assert_eq!(data.stream, 3);
            got += data.payload.len();
            if data.flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(got, length);
        homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_websocket_whose_client_takes_nothing_ends_all_the_same() {
    for closes in [false, true] {
        let backend = RawBackend::start("app-1", move |mut connection| async move {
            if connection.opens("/ws").await {
                connection.write(b"\x81\x05hello").await;
                if closes {
                    connection.finish().await;
                }
                std::future::pending::<()>().await;
            }
        });
        let timeouts = "[timeouts]\nwebsocket = \"300ms\"";
        let homing = Setup::new([&backend]).section(timeouts).start().await;
        let mut connection = Frames::open(&Client::h2(&homing)).await;
        // No window at all.
        connection.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/ws"),
            (":authority", "localhost"),
            ("sec-websocket-version", "13"),
        ];
        connection.head(1, &fields, false).await;
        assert!(connection.next(HEADERS).await.is_ok());
        eprintln!("the backend closes: {closes}");
        homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
        homing.wait_for_metric("homing_websockets", &[], 0.0).await;
    }
}
