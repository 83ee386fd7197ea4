//! Header fields: what the proxy removes, sets and refuses.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::StatusCode;

use self::support::{
    backend::{Backend, Seen},
    call::Answer,
    client::{BOTH, Client},
    process::Homing,
    raw_backend::RawBackend,
    setup::Setup,
};

#[tokio::test]
async fn hop_by_hop_fields_of_a_request_stay_on_their_hop() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let text = Client::h1(&homing)
        .exchange(
            "GET /hop HTTP/1.1\r\nHost: localhost\r\nConnection: close, X-Private\r\nX-Private: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nX-Public: 2\r\n\r\n",
        )
        .await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let seen = backend.one_at("/hop");
    assert_eq!(seen.one("x-public"), "2");
    for name in ["x-private", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
    assert!(!seen.all("connection").iter().any(|value| value.contains("rivate")), "{seen:?}");
}

#[tokio::test]
async fn hop_by_hop_fields_of_an_answer_stay_on_their_hop() {
    let backend = RawBackend::answering(
        "app-1",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Public: 2\r\n\r\nok",
    );
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).get("/").send().await;
        assert_eq!((got.text(), got.header("x-public")), ("ok", "2"));
        for name in ["x-private", "keep-alive", "proxy-connection"] {
            assert_eq!(got.header(name), "", "{name} over {protocol:?}");
        }
        assert!(!got.header("connection").contains("rivate"), "{protocol:?}");
    }
}

#[tokio::test]
async fn connection_cannot_name_away_what_the_proxy_says() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).top("via = true").start().await;
    Client::h1(&homing)
        .exchange(
            "GET /away HTTP/1.1\r\nHost: localhost\r\n\
             Connection: close, X-Forwarded-For, X-Forwarded-Proto, Forwarded, X-Request-Id, Via\r\n\r\n",
        )
        .await;
    let seen = backend.one_at("/away");
    assert_eq!((seen.one("x-forwarded-for"), seen.one("x-forwarded-proto")), ("127.0.0.1", "https"));
    assert!(!seen.one("x-request-id").is_empty() && !seen.one("via").is_empty());
}

#[tokio::test]
async fn the_backend_is_told_who_asked_and_how() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let (_, seen) = ask(&client, &backend, &[]).await;
        assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.one("x-forwarded-proto"), "https");
        assert_eq!(seen.one("x-forwarded-host"), client.authority());
        assert_eq!(seen.one("host"), client.authority(), "the application builds its links from it");
        let forwarded = seen.one("forwarded").to_ascii_lowercase();
        for part in ["for=127.0.0.1", "proto=https", "host=", &client.authority()] {
            assert!(forwarded.contains(part), "{part}: {forwarded}");
        }
        assert_eq!(seen.all("via"), [""; 0], "with it, nginx compresses nothing");
    }
}

#[tokio::test]
async fn a_stranger_cannot_forge_where_it_comes_from() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let forged = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=203.0.113.9;host=evil.example"),
        ("x-forwarded-port", "203.0.113.9"),
        ("x-forwarded-prefix", "/evil.example"),
    ];
    for protocol in BOTH {
        let (_, seen) = ask(&Client::new(&homing, protocol), &backend, &forged).await;
        assert_eq!((seen.one("x-forwarded-for"), seen.one("x-forwarded-proto")), ("127.0.0.1", "https"));
        let all = format!("{:?}", seen.headers);
        assert!(!all.contains("203.0.113.9") && !all.contains("evil.example"), "{all}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added_to() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).top("trusted_proxies = [\"127.0.0.0/8\"]").start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let inbound = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9;proto=https")];
        let (_, seen) = ask(&client, &backend, &inbound).await;
        assert_eq!(seen.all("x-forwarded-for").join(", "), "203.0.113.9, 127.0.0.1");
        let forwarded = seen.all("forwarded").join(", ");
        assert!(forwarded.starts_with("for=203.0.113.9"), "{forwarded}");
        assert!(forwarded.contains("for=127.0.0.1"), "{forwarded}");
    }
}

#[tokio::test]
async fn via_names_every_hop_only_if_it_is_configured() {
    let backend = Backend::plain("app-1");
    for (on, http1, http2) in
        [(false, "1.0 fred", "1.0 fred"), (true, "1.0 fred, 1.1 homing", "1.0 fred, 2.0 homing")]
    {
        let homing = Setup::new([&backend]).top(&format!("via = {on}")).start().await;
        for (protocol, wanted) in BOTH.into_iter().zip([http1, http2]) {
            let (_, seen) = ask(&Client::new(&homing, protocol), &backend, &[("via", "1.0 fred")]).await;
            assert_eq!(seen.all("via").join(", "), wanted, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_hop_that_cannot_be_read_exempts_nobody_from_the_rate() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).top("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    let homing = setup.section("[limits]\nrate = \"3/h\"").start().await;
    let client = Client::h2(&homing);
    for field in [
        ("x-forwarded-for", "192.0.2.1:1000"),
        ("x-forwarded-for", "[2001:db8::1]:443, ::ffff:10.0.0.9"),
        ("x-forwarded-for", "caf\u{e9}, 192.0.2.2"),
        ("x-forwarded-for", "192.0.2.3, unknown"),
        ("forwarded", "for=\"[2001:db8:1::1]:443\";proto=https, for=10.0.0.1"),
    ] {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(client.get("/").header(field.0, field.1).send().await.status.as_u16());
        }
        assert_eq!(statuses, [200, 200, 200, 429], "{field:?}");
    }
    // Nothing but the proxy's own requests, such as health checks.
    for _ in 0..5 {
        assert_eq!(client.get("/").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn clients_whose_address_is_unknown_have_no_home_in_common() {
    let backends = ["app-1", "app-2"].map(Backend::plain);
    let setup = Setup::new(&backends).top("trusted_proxies = [\"127.0.0.0/8\"]");
    let homing = setup.pool("balance = \"round-robin\"").key("address").one_worker().start().await;
    for _ in 0..8 {
        let client = Client::h1(&homing);
        assert_eq!(client.get("/").header("x-forwarded-for", "_hidden").send().await.status, StatusCode::OK);
    }
    let counts = backends.each_ref().map(|backend| backend.seen().len());
    assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
}

#[tokio::test]
async fn every_request_has_an_id_that_client_backend_and_log_share() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut ids = std::collections::BTreeSet::new();
    for protocol in BOTH {
        let (got, seen) = ask(&Client::new(&homing, protocol), &backend, &[]).await;
        let id = got.header("x-request-id").to_owned();
        assert!(id.len() >= 8, "{id:?}");
        assert_eq!(seen.one("x-request-id"), id);
        homing.process.access_record("record of that id", |record| record["request_id"] == *id).await;
        assert!(ids.insert(id), "an id is given once");
    }
}

#[tokio::test]
async fn a_request_id_that_is_brought_is_kept() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let (got, seen) = ask(&client, &backend, &[("x-request-id", "trace-4711")]).await;
        assert_eq!((got.header("x-request-id"), seen.one("x-request-id")), ("trace-4711", "trace-4711"));
    }
}

#[tokio::test]
async fn host_and_authority_must_agree() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h2(&homing);
    let differs = client.get("/").header("host", "evil.example").send().await;
    assert_eq!(differs.status, StatusCode::BAD_REQUEST);
    let agrees = client.get("/").header("host", &client.authority()).send().await;
    assert_eq!(agrees.status, StatusCode::OK);
    let absolute = "GET https://localhost/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    refused(&homing, absolute).await;
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    refused(&homing, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    refused(&homing, "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n").await;
    refused(&homing, "GET / HTTP/1.1\r\nHost: a example\r\n\r\n").await;
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let cases = [
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "Content-Length: 4, 5\r\n\r\nabcd",
        "Content-Length: +4\r\n\r\nabcd",
        "Content-Length : 4\r\n\r\nabcd",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "X-Bad: a\0b\r\n\r\n",
        "X-Folded: a\r\n b: c\r\n\r\n",
    ];
    let mut let_through = Vec::new();
    for case in cases {
        let request = format!("POST /framing HTTP/1.1\r\nHost: localhost\r\n{case}{smuggled}");
        let text = Client::h1(&homing).exchange(&request).await;
        if !is_refusal(&text) || !backend.seen_at("/smuggled").is_empty() {
            let_through.push(format!("{case:?}: {text:?}"));
        }
    }
    assert!(let_through.is_empty(), "{}", let_through.join("\n"));
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn a_length_beside_chunked_smuggles_nothing() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 100\r\nTransfer-Encoding: chunked",
    ] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let request = format!("POST /te HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n0\r\n\r\n{smuggled}");
        // Refused, or read as chunked and then closed: RFC 9112, section 6.3, leaves no third way.
        let text = Client::h1(&homing).exchange(&request).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{fields:?} is answered by {text:?}");
        assert!(backend.seen_at("/smuggled").is_empty());
        let both =
            |seen: &Seen| !seen.all("content-length").is_empty() && !seen.all("transfer-encoding").is_empty();
        assert!(!backend.seen().iter().any(both), "{fields:?}");
    }
}

/// Sends a request with these fields; its answer, and how the backend saw it.
async fn ask(client: &Client, backend: &Backend, fields: &[(&str, &str)]) -> (Answer, Seen) {
    let call = fields.iter().fold(client.get("/"), |call, (name, value)| call.header(name, value));
    let answer = call.send().await;
    assert_eq!(answer.status, StatusCode::OK);
    (answer, backend.seen().pop().expect("a request"))
}

/// These bytes are answered by one 400, after which the connection is closed.
async fn refused(homing: &Homing, bytes: &str) {
    let text = Client::h1(homing).exchange(bytes).await;
    assert!(is_refusal(&text), "{bytes:?} is answered by {text:?}");
}

/// One 400, and nothing after it.
fn is_refusal(text: &str) -> bool {
    text.starts_with("HTTP/1.1 400 ") && text.matches("HTTP/1.1 ").count() == 1
}
