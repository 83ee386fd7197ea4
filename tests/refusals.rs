//! Errors that the proxy makes itself: the right status, a short plain body, nothing of the inside.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::StatusCode;

use self::support::{
    backend::Backend,
    call::Answer,
    client::{BOTH, Client},
    flow::{frames, full},
    plain,
    port::Port,
    raw_backend::RawBackend,
    setup::Setup,
};

#[tokio::test]
async fn a_host_without_a_route_is_not_found() {
    let backend = Backend::plain("app-1");
    let route = "[[route]]\nhost = \"shop.example\"\npool = \"app\"";
    let homing = Setup::new([&backend]).section(route).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        own(&client.get("/").send().await, StatusCode::NOT_FOUND);
        let known = client.get("/").authority("shop.example").send().await;
        assert_eq!(known.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_wildcard_route_takes_its_subdomains_only() {
    let backend = Backend::plain("app-1");
    let route = "[[route]]\nhost = \"*.shop.example\"\npath = \"/eu\"\npool = \"app\"";
    let homing = Setup::new([&backend]).section(route).start().await;
    let client = Client::h2(&homing);
    for (authority, path, status) in [
        ("de.shop.example", "/eu", StatusCode::OK),
        ("de.shop.example:8443", "/eu/x?y", StatusCode::OK),
        ("a.b.shop.example", "/eu/", StatusCode::OK),
        ("DE.Shop.Example", "/eu", StatusCode::OK),
        ("shop.example", "/eu", StatusCode::NOT_FOUND),
        ("xshop.example", "/eu", StatusCode::NOT_FOUND),
        ("de.shop.example", "/europe", StatusCode::NOT_FOUND),
        ("de.shop.example", "/", StatusCode::NOT_FOUND),
    ] {
        let got = client.get(path).authority(authority).send().await;
        assert_eq!(got.status, status, "{authority}{path}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_its_route() {
    let backend = Backend::plain("app-1");
    let route = "[[route]]\npath = \"/%70ublic\"\npool = \"app\"";
    let homing = Setup::new([&backend]).section(route).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let before = backend.seen().len();
        for (path, status) in [
            ("/public/../internal", StatusCode::NOT_FOUND),
            ("/public/%2e%2E/internal", StatusCode::NOT_FOUND),
            ("/public//../internal", StatusCode::BAD_REQUEST),
            ("/public/..%2finternal", StatusCode::BAD_REQUEST),
            ("/public/..;/internal", StatusCode::BAD_REQUEST),
            ("/public/..%5cinternal", StatusCode::BAD_REQUEST),
            ("/public/%252e%252e/internal", StatusCode::BAD_REQUEST),
            ("/public/..%00/internal", StatusCode::BAD_REQUEST),
            ("//public/internal", StatusCode::BAD_REQUEST),
        ] {
            assert_eq!(client.get(path).send().await.status, status, "{path} over {protocol:?}");
        }
        assert_eq!(backend.seen().len(), before);
        for path in
            ["/public", "/%70ublic/x", "/a/../public", "/public/a%2Fb;c", "/public;jsessionid=1?q=/../"]
        {
            assert_eq!(client.get(path).send().await.status, StatusCode::OK, "{path} over {protocol:?}");
            assert_eq!(backend.seen().pop().expect("a request").uri, path, "the client's bytes");
        }
    }
}

#[tokio::test]
async fn doubled_slashes_in_front_pass_where_both_readings_have_one_route() {
    let (app, api) = (Backend::plain("app-1"), Backend::plain("api-1"));
    let routes = format!(
        "[[route]]\npool = \"app\"\n[[route]]\npath = \"/api\"\npool = \"api\"\n\
         [[pool]]\nname = \"api\"\nbackend = [{{ name = \"api-1\", url = \"http://{}\" }}]",
        api.address()
    );
    let homing = Setup::new([&app]).section(&routes).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for path in ["//index.php", "///", "//wp/a//b", "/\\x", "//api/api"] {
            assert_eq!(client.get(path).send().await.status, StatusCode::OK, "{path} over {protocol:?}");
            let seen = if path == "//api/api" { api.seen() } else { app.seen() };
            assert_eq!(seen.last().expect("a request").uri, path, "the client's bytes");
        }
        for path in ["//api/x", "//x/api"] {
            assert_eq!(client.get(path).send().await.status, StatusCode::BAD_REQUEST, "{path}");
        }
    }
}

#[tokio::test]
async fn where_there_is_one_route_any_path_passes() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    for path in ["/a/..%2fb", "//a/../b;c", "/%252e%00%zz", "/..\\..\\x"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let text = Client::h1(&homing).exchange(&request).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
    }
}

#[tokio::test]
async fn plain_http_on_the_port_of_https_is_told_so() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let body = "x".repeat(200_000);
    let post = format!("POST / HTTP/1.1\r\nHost: shop.example:8443\r\nContent-Length: 200000\r\n\r\n{body}");
    for (request, says) in [
        ("GET /x HTTP/1.1\r\nHost: shop.example:8443\r\n\r\n", "https://shop.example:8443/"),
        ("GET /x HTTP/1.0\r\n\r\n", "https instead"),
        (&*post, "https://shop.example:8443/"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "https instead"),
        ("GET /<x> HTTP/1.1\r\nHost: a\r\n\r\n", "https instead"),
    ] {
        let text = plain::exchange(homing.https, request).await;
        assert!(text.starts_with("HTTP/1.1 400 ") && text.contains(says), "{text:?}");
        assert!(text.contains("plain HTTP was sent to the port of HTTPS"), "{text:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "then the end");
    }
    let failed = ("homing_tls_handshakes_total", [("result", "failed")]);
    assert!(homing.metric(failed.0, &failed.1).await >= 5.0);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_is_answered_by_neither() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    for garbage in ["SSH-2.0-OpenSSH_9.9\r\n", "HELO shop.example\r\n", "get / HTTP/1.1\r\n\r\n"] {
        let text = plain::exchange(homing.https, garbage).await;
        assert!(!text.contains("HTTP/1.1"), "{garbage:?} is answered by {text:?}");
    }
}

#[tokio::test]
async fn tls_on_the_port_of_plain_http_is_told_at_once() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).redirecting().start().await;
    // The beginning of a handshake, without a line in it.
    let text = plain::exchange(homing.http(), "\x16\x03\x01\0d\x01\0\0`\x03\x03").await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("TLS"), "{text:?}");
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nbody_size = \"10KiB\"").start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let large = client.post("/").body(full(vec![b'x'; 10 * 1024 + 1])).send().await;
        own(&large, StatusCode::PAYLOAD_TOO_LARGE);
        let fits = client.post("/").body(full(vec![b'x'; 10 * 1024])).send().await;
        assert_eq!((fits.status, fits.body.len()), (StatusCode::OK, 10 * 1024));
    }
    assert_eq!(backend.seen().len(), 2, "what was refused did not reach the backend");
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_refused() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nbody_size = \"10KiB\"").start().await;
    for protocol in BOTH {
        let piece = || http_body::Frame::data(vec![b'x'; 4096].into());
        let body = frames((0..10).map(|_| piece()).collect());
        let large = Client::new(&homing, protocol).post("/").body(body).send().await;
        own(&large, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nhead_size = \"16KiB\"").start().await;
    let large = "x".repeat(20 * 1024);
    let text = Client::h1(&homing)
        .exchange(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: {large}\r\n\r\n"))
        .await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text:?}");
    let got = Client::h2(&homing).get("/").header("x-large", &large).send().await;
    assert_eq!(got.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn too_many_fields_are_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nheaders = 20").start().await;
    let fields: String = (0..30).map(|number| format!("X-{number}: y\r\n")).collect();
    let text =
        Client::h1(&homing).exchange(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text:?}");
    let client = Client::h2(&homing);
    let call = (0..30).fold(client.get("/"), |call, number| call.header(&format!("x-{number}"), "y"));
    assert_eq!(call.send().await.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn a_backend_that_talks_nonsense_is_a_bad_gateway() {
    let backend = RawBackend::answering("app-1", "SSH-2.0-OpenSSH_9.9\r\n\r\n");
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).get("/").send().await;
        own(&got, StatusCode::BAD_GATEWAY);
        assert!(!got.text().contains("SSH"), "{}", got.text());
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_a_bad_gateway() {
    let backend = RawBackend::answering(
        "app-1",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes",
    );
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        own(&Client::new(&homing, protocol).get("/").send().await, StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn without_a_backend_there_is_no_service_for_now() {
    let (one, two) = (Port::reserve(), Port::reserve());
    let homing = Setup::new([("app-1", one.address), ("app-2", two.address)]).start().await;
    // The first to find out may be told that a server could not be reached.
    let first = Client::h1(&homing).get("/").send().await.status;
    assert!([StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE].contains(&first), "{first}");
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for _ in 0..3 {
            let got = client.get("/").send().await;
            own(&got, StatusCode::SERVICE_UNAVAILABLE);
            assert!(got.header("retry-after").parse::<u32>().is_ok(), "{:?}", got.headers);
            let port = one.address.port().to_string();
            assert!(!got.text().contains(&port) && !got.text().contains("app-"), "{}", got.text());
        }
    }
    let refused = |record: &serde_json::Value| record["verdict"] == "refused" && record["attempts"] == 0;
    let record = homing.process.access_record("refused request", refused).await;
    assert_eq!(record["reason"], "no-backend");
    assert_eq!(record["status"], 503);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_a_gateway_timeout() {
    let backend = Backend::start("app-1", |_| std::future::pending());
    let setup = Setup::new([&backend]).pool_section("[pool.timeouts]\nhead = \"200ms\"");
    let homing = setup.start().await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).post("/").send().await;
        own(&got, StatusCode::GATEWAY_TIMEOUT);
    }
}

/// An answer that the proxy made: this status, a short text with the request's id.
fn own(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{answer:?}");
    let id = answer.header("x-request-id");
    assert!(!id.is_empty() && answer.text().contains(id), "no id in {answer:?}");
    assert!(answer.header("content-type").starts_with("text/plain"), "{answer:?}");
    assert!(answer.body.len() < 300, "{} bytes of {status}", answer.body.len());
}
