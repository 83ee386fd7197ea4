//! How long the proxy waits for a client: not for ever for one that does not read, long enough for others.

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
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually,
    flow::{self, Body, patterned},
    frames::{DATA, Frames, GOAWAY, HEADERS},
    setup::Setup,
    within,
};

const IN_FLIGHT: &str = "homing_backend_in_flight";
const SHORT_BODY: &str = "[timeouts]\nbody = \"500ms\"";
const ENDLESS: u64 = 1 << 40;

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_although_its_backend_goes_on() {
    for protocol in BOTH {
        let downloads = Downloads::start();
        let homing = Setup::new([&downloads.backend]).section(SHORT_BODY).start().await;
        // Held, and not read: the connection is the proxy's to end.
        let _opened = Client::new(&homing, protocol).get(&format!("/{ENDLESS}")).open().await;
        eventually("a download", async || downloads.produced() > 0).await;
        homing.wait_for_metric(IN_FLIGHT, &[], 0.0).await;
        assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0, "{protocol:?}: no fault of its");
    }
}

#[tokio::test]
async fn a_connection_whose_client_stops_reading_is_closed_over_http_1_1() {
    let downloads = Downloads::start();
    let homing = Setup::new([&downloads.backend]).section(SHORT_BODY).start().await;
    let _opened = Client::h1(&homing).get(&format!("/{ENDLESS}")).open().await;
    eventually("a download", async || downloads.produced() > 0).await;
    homing.wait_for_metric("homing_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_although_its_backend_is_done() {
    let downloads = Downloads::start();
    let homing = Setup::new([&downloads.backend]).section(SHORT_BODY).start().await;
    let client = Client::h1(&homing);
    // What fits into the buffers up to the proxy, and what fits into those behind it: in between, the backend
    // is rid of everything and the proxy is not.
    let first = format!("/{ENDLESS}");
    let _first = client.get(&first).open().await;
    let record = homing.process.access_record("the cut", |record| record["path"] == *first).await;
    let passed = record["bytes_out"].as_u64().expect("a number");
    let length = u64::midpoint(passed, downloads.produced());
    let _second = client.get(&format!("/{length}")).open().await;
    eventually("the backend is done", async || downloads.produced() == length).await;
    for gauge in [IN_FLIGHT, "homing_connections"] {
        homing.wait_for_metric(gauge, &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_cut_while_another_of_its_connection_goes_on() {
    let downloads = Downloads::start();
    let homing = Setup::new([&downloads.backend]).section(SHORT_BODY).start().await;
    let connection = Client::h2(&homing).connect().await;
    let stalled = connection.get(&format!("/{ENDLESS}")).open().await;
    let mut going = connection.get("/drip").open().await;
    assert_eq!(homing.metric(IN_FLIGHT, &[]).await, 2.0);
    eventually("one of the two is cut", async || {
        next(&mut going.body).await;
        homing.metric(IN_FLIGHT, &[]).await < 2.0
    })
    .await;
    for _ in 0..20 {
        next(&mut going.body).await;
    }
    assert_eq!(homing.metric(IN_FLIGHT, &[]).await, 1.0);
    assert!(within("the cut", stalled.body.collect()).await.is_err(), "it is no whole answer");
    assert_eq!(connection.get("/0").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    const LENGTH: u64 = 24 << 20;
    let downloads = Downloads::start();
    let homing = Setup::new([&downloads.backend]).section(SHORT_BODY).start().await;
    for protocol in BOTH {
        let mut opened = Client::new(&homing, protocol).get(&format!("/{LENGTH}")).open().await;
        let mut got = 0;
        let mut pause = LENGTH / 8;
        while got < LENGTH {
            got += next(&mut opened.body).await.len() as u64;
            if got > pause {
                pause += LENGTH / 8;
                // A pause of its own, well below the deadline; several of them are above it.
                sleep(Duration::from_millis(150)).await;
            }
        }
        assert_eq!(got, LENGTH, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_quiet_event_stream_is_not_cut_as_one_that_is_not_read() {
    let more = Arc::new(Notify::new());
    let told = Arc::clone(&more);
    let backend = Backend::start("app-1", move |_| {
        let told = Arc::clone(&told);
        let second = stream::once(async move {
            told.notified().await;
            data("data: second\n\n")
        });
        let mut events = Response::new(flow::stream(stream::iter([data("data: first\n\n")]).chain(second)));
        events.headers_mut().insert("content-type", "text/event-stream".parse().expect("valid"));
        std::future::ready(events)
    });
    let homing = Setup::new([&backend]).section("[timeouts]\nbody = \"100ms\"").start().await;
    for protocol in BOTH {
        let mut opened = Client::new(&homing, protocol).get("/events").open().await;
        assert_eq!(next(&mut opened.body).await, "data: first\n\n");
        let silence = timeout(Duration::from_secs(1), opened.body.frame()).await;
        assert!(silence.is_err(), "{protocol:?}: {silence:?}");
        more.notify_one();
        assert_eq!(next(&mut opened.body).await, "data: second\n\n", "{protocol:?}");
    }
}

#[tokio::test]
async fn a_request_that_crosses_the_farewell_of_an_idle_connection_is_served() {
    let backend = Backend::start("app-1", |_| async {
        // Longer than an idle connection that has been told to go is kept.
        sleep(Duration::from_millis(1500)).await;
        answer(StatusCode::OK, "at last")
    });
    let homing = Setup::new([&backend]).section("[timeouts]\nidle = \"200ms\"").start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.next(GOAWAY).await;
    // It was on its way when the farewell came; the answer to its ping follows.
    connection.get(1).await;
    connection.answer_ping().await;
    let head = connection.next(HEADERS).await;
    assert!(head.is_ok() && head.stream == 1, "{head:?}");
    assert_eq!(connection.next(DATA).await.payload, b"at last");
}

#[tokio::test]
async fn a_second_request_that_crosses_the_farewell_is_served() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[timeouts]\nidle = \"200ms\"").start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.get(1).await;
    assert!(connection.next(HEADERS).await.is_ok());
    connection.next(GOAWAY).await;
    connection.get(3).await;
    connection.answer_ping().await;
    let head = connection.next(HEADERS).await;
    assert!(head.is_ok() && head.stream == 3, "{head:?}");
}

#[tokio::test]
async fn an_upload_goes_on_after_an_early_answer() {
    const PIECES: u64 = 10;
    for protocol in BOTH {
        let (sender, mut received) = watch::channel(0);
        let backend = Backend::start("app-1", move |request| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.into_data().map_or(0, |data| data.len() as u64);
                    sender.send_modify(|received| *received += length);
                }
            });
            std::future::ready(answer(StatusCode::ACCEPTED, "it will be done"))
        });
        let timeouts = "[timeouts]\nhead = \"300ms\"\nidle = \"300ms\"";
        let homing = Setup::new([&backend]).section(timeouts).start().await;
        // Together more than three times as long as an idle client may be silent.
        let upload = stream::iter(0..PIECES).then(|_| async {
            sleep(Duration::from_millis(100)).await;
            data("0123456789")
        });
        let opened = Client::new(&homing, protocol).post("/").body(flow::stream(upload)).open().await;
        assert_eq!(opened.status, StatusCode::ACCEPTED, "{protocol:?}");
        assert!(*received.borrow() < PIECES * 10, "{protocol:?}: the answer was no early one");
        let whole = within("the whole upload", received.wait_for(|got| *got == PIECES * 10)).await;
        assert!(whole.is_ok(), "{protocol:?}: it broke off");
    }
}

#[tokio::test]
async fn an_upload_to_a_slow_reader_goes_on_after_an_early_answer() {
    const LENGTH: u64 = 24 << 20;
    for protocol in BOTH {
        let (sender, mut received) = watch::channel(0);
        let backend = Backend::start("app-1", move |request| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut body = request.into_body();
                let (mut got, mut pause) = (0, 0);
                while let Some(Ok(frame)) = body.frame().await {
                    got += frame.into_data().map_or(0, |data| data.len() as u64);
                    if got > pause {
                        pause += LENGTH / 10;
                        sleep(Duration::from_millis(150)).await;
                    }
                    sender.send_replace(got);
                }
            });
            std::future::ready(answer(StatusCode::ACCEPTED, "it will be done"))
        });
        let timeouts = "[timeouts]\nhead = \"300ms\"\nidle = \"300ms\"";
        let homing = Setup::new([&backend]).section(timeouts).start().await;
        let upload = patterned(LENGTH, Arc::default());
        let opened = Client::new(&homing, protocol).post("/").body(upload).open().await;
        assert_eq!(opened.status, StatusCode::ACCEPTED, "{protocol:?}");
        assert!(*received.borrow() < LENGTH, "{protocol:?}: the answer was no early one");
        let whole = within("the whole upload", received.wait_for(|got| *got == LENGTH)).await;
        assert!(whole.is_ok(), "{protocol:?}: it broke off");
    }
}

/// A backend of downloads: `/NUMBER` is so many bytes, `/drip` a piece every few milliseconds.
struct Downloads {
    backend: Backend,
    produced: Arc<AtomicU64>,
}

impl Downloads {
    fn start() -> Self {
        let produced = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&produced);
        let backend = Backend::start("app-1", move |request| {
            let body = match request.uri().path()[1..].parse() {
                Ok(length) => patterned(length, Arc::clone(&counter)),
                Err(_) => drip(),
            };
            std::future::ready(Response::new(body))
        });
        Self { backend, produced }
    }

    /// How much of the latest numbered download has been asked for.
    fn produced(&self) -> u64 {
        self.produced.load(Ordering::Relaxed)
    }
}

fn drip() -> Body {
    flow::stream(stream::repeat(()).then(|()| async {
        sleep(Duration::from_millis(20)).await;
        data("drip")
    }))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, support::BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// The next piece of a body that goes on.
async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    let frame = within("the next piece", body.frame()).await.expect("it goes on").expect("no cut");
    frame.into_data().expect("data")
}
