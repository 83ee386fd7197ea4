//! Requests that could be read in two ways: refused with a word, a record and an end, never passed on.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use self::support::{
    backend::Backend, client::Client, plain, process::Homing, raw_backend::RawBackend, setup::Setup,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// What an attacker would like to be read as a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn every_refusal_has_a_request_id_a_record_and_a_place_in_the_metrics() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nuri_size = \"1KiB\"").start().await;
    let long = "x".repeat(2000);
    let cases = [
        ("GET /1 HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), "400", "bad-request", "/1"),
        ("GET /2 HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n".to_owned(), "400", "bad-request", "/2"),
        ("GET /3 HTTP/1.1\r\nHost: a\nB: c\r\n\r\n".to_owned(), "400", "bad-request", "/3"),
        ("GET /4 HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), "400", "bad-request", "/4"),
        ("nonsense\r\n\r\n".to_owned(), "400", "bad-request", ""),
        ("\x16\x03\x01\x02\r\n\r\n".to_owned(), "400", "bad-request", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400", "bad-request", "*"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414", "target-too-long", ""),
        (
            format!("GET /8 HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", long.repeat(40)),
            "431",
            "head-too-large",
            "/8",
        ),
        (
            "TRACE /9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
            "405",
            "method-refused",
            "/9",
        ),
    ];
    for (request, status, label, path) in &cases {
        let text = Client::h1(&homing).exchange(request).await;
        let id = refusal(&text, status).unwrap_or_else(|| panic!("{request:?} is answered by {text:?}"));
        let of_it = |record: &serde_json::Value| record["request_id"] == *id;
        let record = homing.process.access_record("the record of that id", of_it).await;
        assert_eq!(record["error"], *label, "{record}");
        assert_eq!(record["status"], status.parse::<u16>().expect("a number"), "{record}");
        assert_eq!(record["client"], "127.0.0.1", "{record}");
        if !path.is_empty() {
            assert_eq!(record["path"], *path, "{record}");
        }
    }
    let counted = homing.metric("homing_http_requests_total", &[("code", "4xx"), ("protocol", "1.1")]).await;
    assert_eq!(counted, cases.len() as f64);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn a_refused_head_gets_the_head_of_a_refusal() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let text = Client::h1(&homing).exchange("HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("\r\n\r\n"), "{text:?}");
    assert!(text.contains("\r\ncontent-length: "), "{text:?}");
}

#[tokio::test]
async fn a_head_of_two_readings_is_refused_and_nothing_after_it_is_served() {
    let backend = RawBackend::answering("app-1", OK);
    let homing = Setup::new([&backend]).start().await;
    let heads = [
        // RFC 9112 §6.3, §6.1
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
        // §2.2, §5
        "GET / HTTP/1.1\r\nHost: a\r\n\x20b: c\r\n\r\n",
        "GET / HTTP/1.1\r\n\x20Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\rD: e\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n",
        // §3
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET path HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
    ];
    refused(&homing, &heads).await;
    assert!(backend.arrived().is_empty(), "{:?}", backend.arrived());
}

#[tokio::test]
async fn a_body_of_two_readings_is_refused_and_nothing_after_it_is_served() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(5000);
    let bodies = [
        // RFC 9112 §7.1
        "\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "g\r\na\r\n0\r\n\r\n",
        "10000000000000000\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\nab0\r\n\r\n",
        "1\r\na\r\n0\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        &format!("1;{long}\r\na\r\n0\r\n\r\n"),
        // §7.1.2, RFC 9110 §6.5.1
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nCookie: session=1\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n\x20a: b\r\n\r\n",
    ];
    let requests: Vec<String> = bodies.iter().map(|body| format!("{head}{body}")).collect();
    refused(&homing, &requests.iter().map(String::as_str).collect::<Vec<_>>()).await;
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0, "no fault of the backend");
    assert!(backend.seen_at("/smuggled").is_empty());
}

#[tokio::test]
async fn the_host_of_an_absolute_target_is_the_host() {
    let backend = RawBackend::answering("app-1", OK);
    let route = "[[route]]\nhost = \"shop.example\"\npool = \"app\"";
    let homing = Setup::new([&backend]).section(route).start().await;
    for target in ["http://shop.example/a?b", "HTTPS://SHOP.example/a?b"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: Shop.Example\r\nConnection: close\r\n\r\n");
        let text = Client::h1(&homing).exchange(request).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{target}: {text:?}");
    }
    let text = Client::h1(&homing).exchange("GET http://shop.example?q HTTP/1.0\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text:?}");
    assert_eq!((backend.count("GET /a?b HTTP/1.1\r\n"), backend.count("GET /?q HTTP/1.1\r\n")), (2, 1));
    assert_eq!(backend.count("\r\nhost: shop.example\r\n"), 2, "{:?}", backend.arrived());
    assert_eq!(backend.count("\r\nhost: SHOP.example\r\n"), 1, "{:?}", backend.arrived());
}

#[tokio::test]
async fn a_client_cannot_name_away_what_others_rely_on() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    let request = "POST /away HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nCookie: session=1\r\n\
        Connection: close, Host, Content-Length, Cookie, X-Forwarded-Host\r\n\r\nhello";
    let text = Client::h1(&homing).exchange(request).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hello"), "{text:?}");
    let seen = backend.one_at("/away");
    assert_eq!((seen.one("host"), seen.one("content-length"), seen.one("cookie")), ("a", "5", "session=1"));
    assert_eq!(seen.one("x-forwarded-host"), "a");
}

#[tokio::test]
async fn h2c_is_not_passed_on_and_what_follows_is_http() {
    let backend = RawBackend::answering("app-1", OK);
    let homing = Setup::new([&backend]).start().await;
    let request = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    let text = Client::h1(&homing).exchange(request).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text:?}");
    let arrived = backend.arrived().concat().to_ascii_lowercase();
    assert!(
        arrived.contains("get /up ") && !arrived.contains("h2c") && !arrived.contains("upgrade"),
        "{arrived}"
    );
    assert!(!arrived.contains("http2-settings"), "{arrived}");
}

#[tokio::test]
async fn a_route_has_a_limit_of_its_own_for_bodies() {
    let backend = Backend::echo("app-1");
    let routes = "[[route]]\npool = \"app\"\n[[route]]\npath = \"/large\"\npool = \"app\"\nbody_size = \"20KiB\"\n\
        [[route]]\npath = \"/any\"\npool = \"app\"\nbody_size = \"unlimited\"";
    let homing =
        Setup::new([&backend]).section("[limits]\nbody_size = \"10B\"").section(routes).start().await;
    let client = Client::h1(&homing);
    for (path, length, status) in [
        ("/", 10, "200"),
        ("/", 11, "413"),
        ("/large", 20 << 10, "200"),
        ("/large", (20 << 10) + 1, "413"),
        ("/any", 100 << 10, "200"),
    ] {
        let body = "x".repeat(length);
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let exact = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        for request in [exact, chunked] {
            let text = client.exchange(request).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{length} to {path}: {text:.300?}");
        }
    }
}

#[tokio::test]
async fn the_listener_that_redirects_is_as_strict() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).redirecting().start().await;
    let to = homing.http();
    for (request, status) in [
        ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "308"),
        ("POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "308"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let text = plain::exchange(to, request).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text:?}");
        assert!(text.contains("\r\nconnection: close\r\n"), "{request:?}: {text:?}");
        assert_eq!(text.contains("\r\nlocation: https://a/a\r\n"), status == "308", "{request:?}: {text:?}");
    }
}

/// Each of these gets one 400 and an end, although a request follows it.
async fn refused(homing: &Homing, requests: &[&str]) {
    let mut let_through = Vec::new();
    for request in requests {
        let text = Client::h1(homing).exchange(format!("{request}{SMUGGLED}")).await;
        if refusal(&text, "400").is_none() {
            let_through.push(format!("{request:?} is answered by {text:?}"));
        }
    }
    assert!(let_through.is_empty(), "\n{}", let_through.join("\n"));
}

/// The request id, if this is one refusal of this status, with the id in its head and its body, and the last word.
fn refusal(text: &str, status: &str) -> Option<String> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: "))?;
    let says_close = head.lines().any(|line| line == "connection: close");
    let whole = text.starts_with(&format!("HTTP/1.1 {status} ")) && says_close;
    let once = text.matches("HTTP/1.1 ").count() == 1;
    (whole && once && body.contains(&format!("request id: {id}"))).then(|| id.to_owned())
}
