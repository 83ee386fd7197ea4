//! How HTTP/1.1 connections of clients behave: in which order, with which words, and how they end.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fmt::Write as _, sync::Arc};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::Notify;

use self::support::{
    backend::{Backend, answer},
    client::Client,
    flow::endless,
    raw_backend::RawBackend,
    setup::Setup,
    within,
};

const SHORT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SAYS_CLOSE: &str = "\r\nconnection: close\r\n";

#[tokio::test]
async fn hundreds_of_pipelined_requests_are_answered_in_order() {
    let backend = Backend::start("app-1", |request| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.expect("a whole body").to_bytes();
        answer(StatusCode::OK, format!("[{path} {}]", body.len()))
    });
    let homing = Setup::new([&backend]).start().await;
    let mut all = String::new();
    for number in 0..300 {
        let body = "x".repeat(number % 7);
        let length = body.len();
        write!(all, "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("room");
    }
    let mut raw = Client::h1(&homing).raw().await;
    raw.write(&all).await;
    for number in 0..300 {
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let body = raw.until("]").await;
        assert_eq!(body, format!("[/{number} {}]", number % 7));
    }
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_the_same_request() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    let request = "\r\nPOST /slow?q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
        3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    for byte in request.as_bytes() {
        raw.write([*byte]).await;
    }
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
    raw.until("abcde").await;
    assert_eq!(backend.one_at("/slow").uri, "/slow?q");
}

#[tokio::test]
async fn a_client_is_told_to_continue_when_its_body_is_asked_for_and_not_before() {
    let backend = Backend::echo("app-1");
    let limits = "[limits]\nbody_size = \"10B\"";
    let homing = Setup::new([&backend]).section(limits).start().await;
    let request = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");

    let mut raw = Client::h1(&homing).raw().await;
    raw.write(request("Expect: 100-Continue\r\nContent-Length: 5")).await;
    assert_eq!(raw.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.write("hello").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
    raw.until("hello").await;
    // One that does not wait is not told.
    raw.write(request("Expect: 100-continue\r\nContent-Length: 5") + "hello").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
    raw.until("hello").await;
    // A refusal comes instead of it, and ends the connection: whether the body follows, nobody knows.
    for (fields, status) in [
        ("Expect: 100-continue\r\nContent-Length: 11", "413"),
        ("Expect: more\r\nContent-Length: 5", "417"),
        ("Expect: 100-continue\r\nExpect: more\r\nContent-Length: 5", "417"),
    ] {
        let text = Client::h1(&homing).exchange(request(fields)).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{fields:?}: {text:?}");
    }
    // HTTP/1.0 knows no such word.
    let old = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
    let text = Client::h1(&homing).exchange(old).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hello"), "{text:?}");
}

#[tokio::test]
async fn interim_answers_are_passed_on_to_those_who_know_them() {
    let backend = RawBackend::answering(
        "app-1",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
         HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    for _ in 0..2 {
        raw.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(raw.head().await, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert_eq!(raw.head().await, "HTTP/1.1 102 Processing\r\n\r\n");
        assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
        raw.until("ok").await;
    }
    let text = Client::h1(&homing).exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nok"), "{text:?}");
}

#[tokio::test]
async fn a_connection_of_http_1_0_is_kept_when_the_client_asks_for_it() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    for _ in 0..2 {
        raw.write("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").await;
        let head = raw.head().await;
        assert!(head.contains("\r\nconnection: keep-alive\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-length: 5\r\n"), "{head}");
        raw.until("app-1").await;
    }
    raw.write("GET / HTTP/1.0\r\n\r\n").await;
    let rest = raw.read_to_end().await;
    assert!(rest.contains(SAYS_CLOSE) && rest.ends_with("app-1"), "{rest:?}");
}

#[tokio::test]
async fn the_last_answer_says_so_and_the_connection_ends_in_an_orderly_way() {
    let backend = RawBackend::answering("app-1", SHORT);
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /ignored HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    let (text, orderly) = raw.all_and_how().await;
    assert!(text.contains(SAYS_CLOSE) && text.ends_with("\r\n\r\nok"), "{text:?}");
    assert!(orderly, "no close_notify");
    assert_eq!(backend.count("/ignored"), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    ] {
        let backend = RawBackend::start("app-1", move |mut connection| async move {
            connection.head().await;
            connection.write(answer).await;
        });
        let homing = Setup::new([&backend]).start().await;
        for version in ["1.1", "1.0"] {
            let mut raw = Client::h1(&homing).raw().await;
            raw.write(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")).await;
            let (text, orderly) = raw.all_and_how().await;
            assert!(text.starts_with("HTTP/1.1 200 "), "{answer:?}: {text:?}");
            assert!(
                !text.ends_with("0\r\n\r\n") && !orderly,
                "{answer:?} over {version}: {text:?}, {orderly}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_while_a_backend_works_cancels_the_request() {
    let working = Arc::new(Notify::new());
    let told = Arc::clone(&working);
    let backend = Backend::start("app-1", move |_| {
        told.notify_one();
        std::future::pending()
    });
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within("the request", working.notified()).await;
    raw.end().await;
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
    let record = homing.process.access_record("cancelled", |record| record["path"] == "/long").await;
    assert_eq!((&record["error"], &record["aborted"]), (&"client-gone".into(), &true.into()), "{record}");
    assert!(record["status"].is_null(), "{record}");
    homing.wait_for_metric("homing_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_is_noticed() {
    let backend = Backend::start("app-1", |_| async {
        let mut events = http::Response::new(endless(b"data: first\n\n"));
        events.headers_mut().insert("content-type", "text/event-stream".parse().expect("valid"));
        events
    });
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.until("data: first\n\n\r\n").await;
    raw.abandon();
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn what_is_left_of_a_refused_body_is_thrown_away_and_the_connection_goes_on() {
    let backend = Backend::plain("app-1");
    let route = "[[route]]\nhost = \"a\"\npool = \"app\"";
    let homing = Setup::new([&backend]).section(route).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    let body = "x".repeat(100_000);
    raw.write(format!("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 100000\r\n\r\n{body}")).await;
    raw.write(format!("POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n{body}\r\n"))
        .await;
    raw.write("0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for _ in 0..2 {
        assert!(raw.head().await.starts_with("HTTP/1.1 404 "));
        raw.until("request id: ").await;
        raw.until("\n").await;
    }
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_refusal_is_read_although_its_client_goes_on_sending() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nbody_size = \"1KiB\"").start().await;
    for framing in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let mut raw = Client::h1(&homing).raw().await;
        raw.write(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
        let piece = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
        for _ in 0..40 {
            raw.write(&piece).await;
        }
        let text = raw.read_to_end().await;
        assert!(text.starts_with("HTTP/1.1 413 ") && text.contains(SAYS_CLOSE), "{framing}: {text:?}");
    }
}

#[tokio::test]
async fn large_and_small_parts_of_an_answer_arrive_in_order() {
    let backend = Backend::start("app-1", |_| async {
        let part = |length: usize, byte: u8| http_body::Frame::data(vec![byte; length].into());
        let parts =
            vec![part(1, b'a'), part(100_000, b'b'), part(4096, b'c'), part(4097, b'd'), part(7, b'e')];
        http::Response::new(support::flow::frames(parts))
    });
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h1(&homing);
    let connection = client.connect().await;
    for _ in 0..3 {
        let got = connection.get("/").send().await;
        let text = got.text();
        assert_eq!(text.len(), 1 + 100_000 + 4096 + 4097 + 7);
        let mut sorted = text.as_bytes().to_vec();
        sorted.sort_unstable();
        assert_eq!(text.as_bytes(), sorted, "the parts are mixed up");
    }
    let old = client.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.ends_with("deeeeeee") && !old.to_ascii_lowercase().contains("transfer-encoding"));
}

#[tokio::test]
async fn idle_connections_hold_no_buffers() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h1(&homing);
    let fill = "x".repeat(32 * 1024);
    let mut open = Vec::new();
    let mut before = 0;
    for number in 0..400 {
        let mut raw = client.raw().await;
        raw.write(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Fill: {fill}\r\n\r\n")).await;
        raw.until("app-1").await;
        open.push(raw);
        if number == 99 {
            before = homing.process.peak_resident();
        }
    }
    let grown = (homing.process.peak_resident() - before) / 300;
    eprintln!("{grown} bytes for each idle connection, TLS included");
    assert!(grown < 100 * 1024, "{grown} bytes for each");
}
