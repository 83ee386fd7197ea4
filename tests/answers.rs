//! Answers in every shape: made here, with trailers, of an older version, to an older client.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::{Method, StatusCode};

use self::support::{
    backend::Backend,
    client::{BOTH, Client},
    curl::curl,
    raw_backend::RawBackend,
    setup::Setup,
};

const ELSEWHERE: &str = "[[route]]\nhost = \"shop.example\"\npool = \"app\"";
const WITH_TRAILERS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
    5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n";

#[tokio::test]
async fn head_that_the_proxy_answers_has_the_fields_of_get_and_no_body() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section(ELSEWHERE).start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        let get = connection.get("/").send().await;
        let head = connection.request(Method::HEAD, "/").send().await;
        assert_eq!((get.status, head.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        assert_eq!(get.header("content-length"), get.body.len().to_string(), "{protocol:?}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{protocol:?}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{protocol:?}");
        assert!(head.body.is_empty(), "{protocol:?}: {head:?}");
        assert_eq!(connection.get("/").send().await.body.len(), get.body.len(), "{protocol:?} goes on");
    }
}

#[tokio::test]
async fn head_that_the_proxy_answers_puts_no_byte_of_a_body_on_the_wire() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section(ELSEWHERE).start().await;
    let request = "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = Client::h1(&homing).exchange(request).await;
    assert!(text.starts_with("HTTP/1.1 404 "), "{text:?}");
    assert_eq!(text.split_once("\r\n\r\n").map(|(_, body)| body), Some(""), "{text:?}");
}

#[tokio::test]
async fn curl_is_content_with_a_head_that_the_proxy_answers() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section(ELSEWHERE).start().await;
    for (version, status) in [("--http2", "HTTP/2 404"), ("--http1.1", "HTTP/1.1 404 ")] {
        let ran = curl(&homing, &["-I", version], "/").await;
        assert_eq!(ran.code, 0, "{version}: {ran:?}");
        assert!(ran.stdout.starts_with(status), "{version}: {ran:?}");
    }
}

#[tokio::test]
async fn an_answer_with_trailers_is_complete_in_the_access_log() {
    for protocol in BOTH {
        for te in ["trailers", ""] {
            let backend = RawBackend::answering("app-1", WITH_TRAILERS);
            let homing = Setup::new([&backend]).start().await;
            let got = Client::new(&homing, protocol).get("/sum").header("te", te).send().await;
            assert_eq!(got.text(), "hello");
            let record = homing.process.access_record("record", |record| record["path"] == "/sum").await;
            assert!(record.get("aborted").is_none(), "{protocol:?}, te {te:?}: {record}");
            assert_eq!((&record["status"], &record["bytes_out"]), (&200.into(), &5.into()), "{record}");
            homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
        }
    }
}

#[tokio::test]
async fn the_backend_connection_of_an_answer_with_trailers_is_used_again() {
    for protocol in BOTH {
        let backend = RawBackend::answering("app-1", WITH_TRAILERS);
        let homing = Setup::new([&backend]).one_worker().start().await;
        let connection = Client::new(&homing, protocol).connect().await;
        for _ in 0..5 {
            assert_eq!(connection.get("/").header("te", "trailers").send().await.text(), "hello");
            // Written when the answer has ended, and the connection has been given back by then.
            homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
        }
        assert_eq!((backend.count("GET / "), backend.arrived().len()), (5, 1), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_1_is_answered_in_its_version_whatever_the_backend_speaks() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").await;
    });
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    // The same connection twice: a version of 1.0 would have ended it.
    for _ in 0..2 {
        raw.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let head = raw.head().await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("connection:"), "{head}");
        assert!(raw.until("\r\n0\r\n\r\n").await.contains("until the end"));
    }
}

#[tokio::test]
async fn an_http_1_0_client_without_a_host_is_served_and_the_backend_is_told_one() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let text = Client::h1(&homing).exchange("GET /old HTTP/1.0\r\n\r\n").await;
    assert!(text.contains(" 200 ") && text.ends_with("\r\n\r\napp-1"), "{text:?}");
    let seen = backend.one_at("/old");
    assert_eq!(seen.one("host"), "localhost", "the name of the handshake, not the backend's address");
    assert_eq!(seen.version, http::Version::HTTP_11);
}

#[tokio::test]
async fn what_a_stranger_says_of_itself_is_dropped_with_underscores_too() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let names = ["x_forwarded_for", "x-forwarded_for", "X_Real_IP", "x-real-ip", "x_forwarded_proto"];
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let path = format!("/{protocol:?}");
        let call = names.iter().fold(client.get(&path), |call, name| call.header(name, "203.0.113.9"));
        assert_eq!(call.send().await.status, StatusCode::OK);
        let seen = backend.one_at(&path);
        assert!(!format!("{:?}", seen.headers).contains("203.0.113.9"), "{:?}", seen.headers);
        assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
    }
}
