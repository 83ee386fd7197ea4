//! HTTP semantics through the proxy: what a client sends and gets is what the backend gets and sends.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client},
    curl::curl,
    flow::{frames, full},
    raw_backend::RawBackend,
    setup::Setup,
};

#[tokio::test]
async fn an_answer_arrives_with_status_fields_and_body() {
    let backend = Backend::start("app-1", |_| async {
        let mut teapot = answer(StatusCode::IM_A_TEAPOT, "short and stout");
        teapot.headers_mut().insert("x-kind", "porcelain".parse().expect("valid"));
        teapot.headers_mut().append("set-cookie", "a=1".parse().expect("valid"));
        teapot.headers_mut().append("set-cookie", "b=2".parse().expect("valid"));
        teapot
    });
    let homing = Setup::new([&backend]).start().await;
    for (protocol, version) in BOTH.into_iter().zip([Version::HTTP_11, Version::HTTP_2]) {
        let got = Client::new(&homing, protocol).get("/tea?milk=no").send().await;
        assert_eq!((got.status, got.version), (StatusCode::IM_A_TEAPOT, version));
        assert_eq!((got.text(), got.header("x-kind")), ("short and stout", "porcelain"));
        assert_eq!(got.header("content-length"), "15");
        let cookies: Vec<_> = got.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert!(got.headers.contains_key("date"));
    }
    let seen = backend.seen();
    assert!(seen.iter().all(|seen| seen.uri == "/tea?milk=no" && seen.version == Version::HTTP_11));
}

#[tokio::test]
async fn every_method_and_its_body_reach_the_backend() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            let method: Method = method.parse().expect("a token");
            let got = client.request(method.clone(), "/thing").body(full("a body")).send().await;
            assert_eq!((got.status, got.text()), (StatusCode::OK, "a body"), "{method}");
            assert_eq!(backend.seen().last().expect("one").method, method);
        }
    }
}

#[tokio::test]
async fn head_gets_the_fields_of_get_and_no_body() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            let body = if head.starts_with("HEAD") { "" } else { "hello" };
            connection.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}")).await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        let head = connection.request(Method::HEAD, "/").send().await;
        assert_eq!((head.status, head.text()), (StatusCode::OK, ""));
        assert_eq!(head.header("content-length"), "5");
        assert_eq!(connection.get("/").send().await.text(), "hello");
    }
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            let line = if head.contains("/304") {
                "304 Not Modified\r\nETag: \"v1\""
            } else if head.contains("/204") {
                "204 No Content\r\nX-Kind: none"
            } else {
                "200 OK\r\nContent-Length: 0"
            };
            connection.write(&format!("HTTP/1.1 {line}\r\n\r\n")).await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        let none = connection.get("/204").send().await;
        assert_eq!((none.status, none.header("x-kind")), (StatusCode::NO_CONTENT, "none"));
        // RFC 9110, section 8.6
        assert!(!none.headers.contains_key("content-length"));
        assert!(!none.headers.contains_key("transfer-encoding"));
        let same = connection.get("/304").send().await;
        assert_eq!((same.status, same.header("etag")), (StatusCode::NOT_MODIFIED, "\"v1\""));
        assert_eq!(connection.get("/").send().await.header("content-length"), "0");
    }
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways() {
    let backend = Backend::start("app-1", |request| async {
        let body = request.into_body().collect().await.expect("a whole body").to_bytes();
        let piece = |range: std::ops::Range<usize>| Frame::data(body.slice(range));
        Response::new(frames(vec![piece(0..3), piece(3..body.len())]))
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let pieces = ["one", "two", "three"].map(|piece| Frame::data(Bytes::from(piece)));
        let got = Client::new(&homing, protocol).post("/").body(frames(pieces.into())).send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "onetwothree"), "{protocol:?}");
        assert!(!got.headers.contains_key("content-length"));
    }
}

#[tokio::test]
async fn trailers_of_an_answer_arrive() {
    let backend = RawBackend::answering(
        "app-1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).get("/").header("te", "trailers").send().await;
        assert_eq!(got.text(), "hello");
        let trailers = got.trailers.unwrap_or_default();
        assert_eq!(trailers.get("x-sum").map(http::HeaderValue::as_bytes), Some(&b"42"[..]), "{protocol:?}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_arrive() {
    let backend = Backend::start("app-1", |request| async {
        let body = request.into_body().collect().await.expect("a whole body");
        let sum = body.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
        answer(StatusCode::OK, sum.map_or_else(Bytes::new, |sum| Bytes::copy_from_slice(sum.as_bytes())))
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let trailers =
            HeaderMap::from_iter([("x-sum".parse().expect("valid"), "42".parse().expect("valid"))]);
        let body = frames(vec![Frame::data(Bytes::from("hello")), Frame::trailers(trailers)]);
        let call = Client::new(&homing, protocol).connect().await;
        let got = call.request(Method::POST, "/").header("trailer", "x-sum").body(body).send().await;
        assert_eq!(got.text(), "42", "{protocol:?}");
    }
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_continue() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    assert!(raw.head().await.starts_with("HTTP/1.1 100"));
    raw.write("hello").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200"));
    raw.until("hello").await;
}

#[tokio::test]
async fn a_client_that_expects_100_may_be_refused_before_it_sends() {
    let backend = Backend::start("app-1", |_| async { answer(StatusCode::UNAUTHORIZED, "who are you") });
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    let mut head = raw.head().await;
    if head.starts_with("HTTP/1.1 100") {
        raw.write("hello").await;
        head = raw.head().await;
    }
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_read_arrives() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        connection.write(refusal).await;
        connection.read_to_end().await;
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).post("/").body(full(vec![b'x'; 1 << 20])).send().await;
        assert_eq!((got.status, got.text()), (StatusCode::FORBIDDEN, "no"), "{protocol:?}");
    }
}

#[tokio::test]
async fn an_interim_answer_does_not_stand_for_the_final_one() {
    let backend = RawBackend::answering(
        "app-1",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        for _ in 0..2 {
            let got = connection.get("/").send().await;
            assert_eq!((got.status, got.text()), (StatusCode::OK, "ok"), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_unchunked_answer_that_ends_with_the_connection() {
    let backend = Backend::start("app-1", |_| async {
        let pieces = ["hello", " world"].map(|piece| Frame::data(Bytes::from(piece)));
        Response::new(frames(pieces.into()))
    });
    let homing = Setup::new([&backend]).start().await;
    let text = Client::h1(&homing).exchange("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "hello world");
}

#[tokio::test]
async fn a_backend_that_speaks_http_1_0_is_understood() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").await;
    });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for _ in 0..2 {
            let got = client.get("/").send().await;
            assert_eq!((got.status, got.text()), (StatusCode::OK, "until the end"), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn requests_that_are_pipelined_are_answered_in_order() {
    let backend = Backend::start("app-1", |request| async move {
        answer(StatusCode::OK, format!("[{}]", request.uri().path()))
    });
    let homing = Setup::new([&backend]).start().await;
    let request = |path: &str, close: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n");
    let all = [request("/1", ""), request("/2", ""), request("/3", "Connection: close\r\n")].concat();
    let text = Client::h1(&homing).exchange(all).await;
    let at = ["[/1]", "[/2]", "[/3]"].map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}")));
    assert!(at.is_sorted(), "{text}");
}

#[tokio::test]
async fn many_streams_of_one_http2_connection_are_served_at_once() {
    let gate = std::sync::Arc::new(tokio::sync::Barrier::new(50));
    let backend = Backend::start("app-1", move |_| {
        let gate = std::sync::Arc::clone(&gate);
        async move {
            // Passes only when all fifty are here together.
            gate.wait().await;
            answer(StatusCode::OK, "all here")
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let connection = Client::h2(&homing).connect().await;
    let calls = (0..50).map(|number| {
        let connection = &connection;
        async move { connection.get(&format!("/{number}")).send().await.status }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
}

#[tokio::test]
async fn curl_is_served_over_both_protocols() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let arguments = [flag, "--data", "hello curl", "--write-out", " over %{http_version}"];
        let curl = curl(&homing, &arguments, "/").await;
        assert_eq!(
            (&*curl.stdout, curl.code),
            (&*format!("hello curl over {version}"), 0),
            "{}",
            curl.stderr
        );
    }
}
