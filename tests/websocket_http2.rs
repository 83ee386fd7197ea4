//! WebSockets over HTTP/2 (RFC 8441), which backends see as upgrades.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use self::support::{
    app,
    backend::{Backend, answer},
    client::{Client, Connection},
    process::Homing,
    raw_backend::RawBackend,
    setup::Setup,
    webdriver::Browser,
    within,
};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[tokio::test]
async fn a_websocket_shares_its_connection_with_other_requests() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let connection = Client::h2(&homing).connect().await;
    let (mut one, mut two) = (open(&connection).await, open(&connection).await);
    for text in ["hello", "again", &"long ".repeat(40_000)] {
        for socket in [&mut one, &mut two] {
            socket.send(Message::text(text)).await.expect("an open socket");
            assert_eq!(message(socket).await, Message::text(text));
        }
        assert_eq!(connection.get("/public").send().await.status, StatusCode::OK);
    }
    assert_eq!(homing.metric("homing_websockets", &[]).await, 2.0);
    for mut socket in [one, two] {
        socket.close(None).await.expect("an open socket");
        within("the close", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    }
    homing.wait_for_metric("homing_websockets", &[], 0.0).await;
    assert_eq!(connection.get("/public").send().await.status, StatusCode::OK);
    let record = homing.process.access_record("the record", |record| record["path"] == "/ws").await;
    // As over HTTP/1.1.
    assert_eq!((&record["protocol"], &record["status"]), (&"2".into(), &101.into()), "{record}");
    assert_eq!((&record["method"], &record["websocket"]), (&"GET".into(), &true.into()), "{record}");
    assert!(
        record["bytes_in"].as_u64() > Some(200_000) && record["bytes_out"].as_u64() > Some(200_000),
        "{record}"
    );
}

#[tokio::test]
async fn the_backend_sees_an_upgrade_with_a_key_of_its_own() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let connection = Client::h2(&homing).connect().await;
    let fields =
        [("sec-websocket-version", "13"), ("origin", "https://localhost"), ("sec-websocket-key", "forged")];
    let (response, _stream) = connection.extended("websocket", "/ws?a=b", &fields).await;
    assert_eq!(response.status(), StatusCode::OK);
    for gone in ["sec-websocket-accept", "connection", "upgrade"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    let seen = apps[0].one_at("/ws");
    assert_eq!((&seen.method, seen.version), (&Method::GET, Version::HTTP_11));
    assert_eq!(seen.uri, "/ws?a=b");
    assert_eq!((seen.one("upgrade"), seen.one("connection")), ("websocket", "upgrade"));
    assert_eq!((seen.one("sec-websocket-version"), seen.one("origin")), ("13", "https://localhost"));
    assert_eq!(seen.one("host"), connection.authority());
    assert_eq!(BASE64.decode(seen.one("sec-websocket-key").as_bytes()).expect("Base64").len(), 16);
}

#[tokio::test]
async fn a_websocket_goes_home() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h2(&homing);
    for (user, jar, home) in app::login_all(&client, 6).await {
        let cookie = format!("session={}", jar.value("session").expect("logged in"));
        let connection = client.connect().await;
        let path = format!("/ws?{user}");
        let (response, _stream) = connection.extended("websocket", &path, &[("cookie", &cookie)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let backend = apps.iter().find(|app| app.name == home).expect("one of them");
        assert!(backend.seen_at("/ws").iter().any(|seen| seen.uri == *path), "{user}, whose home is {home}");
    }
}

#[tokio::test]
async fn other_protocols_and_plain_tunnels_are_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let connection = Client::h2(&homing).connect().await;
    for protocol in ["connect-udp", "h2c", "WebSocket"] {
        let (response, _) = connection.extended(protocol, "/ws", &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED, "{protocol}");
    }
    let mut plain = http::Request::new(support::flow::full(""));
    *plain.method_mut() = Method::CONNECT;
    *plain.uri_mut() = "localhost:22".parse().expect("an authority");
    let response = connection.send(plain).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(backend.seen().iter().all(|seen| seen.uri == "/"), "{:?}", backend.seen());
}

#[tokio::test]
async fn what_the_backend_says_instead_is_passed_on_unless_it_would_open_a_tunnel() {
    let backend = Backend::start("app-1", |request| async move {
        match request.uri().path() {
            "/forbidden" => answer(StatusCode::FORBIDDEN, "not you"),
            _ => answer(StatusCode::OK, "a page"),
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let connection = Client::h2(&homing).connect().await;
    let (response, _) = connection.extended("websocket", "/forbidden", &[]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(body(response).await, "not you");
    let (response, _) = connection.extended("websocket", "/page", &[]).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!body(response).await.contains("a page"));
}

#[tokio::test]
async fn a_backend_that_does_not_prove_that_it_read_the_key_opens_nothing() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nsecret bytes";
    let backend = RawBackend::start("app-1", move |mut connection| async move {
        while let Some(head) = connection.head().await {
            let plain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            connection.write(if head.contains("/ws") { answer } else { plain }).await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let connection = Client::h2(&homing).connect().await;
    let (response, _) = connection.extended("websocket", "/ws", &[]).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!body(response).await.contains("secret"));
}

#[tokio::test]
async fn each_half_ends_by_itself() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        if connection.opens("/ws").await {
            connection.read_to_end().await;
            connection.write(b"\x82\x04last").await;
        } else {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let connection = Client::h2(&homing).connect().await;
    let (_, stream) = connection.extended("websocket", "/ws", &[]).await;
    let mut stream = stream.expect("a stream");
    stream.write_all(b"\x82\x83\0\0\0\0up!").await.expect("open");
    stream.shutdown().await.expect("open");
    let mut heard = Vec::new();
    within("the end", stream.read_to_end(&mut heard)).await.expect("an orderly end");
    assert_eq!(heard, b"\x82\x04last");
    assert_eq!(backend.count("up!"), 1);
}

#[tokio::test]
async fn what_has_to_go_is_told_so() {
    let apps = app::several(1);
    let silent = Setup::new(&apps).section("[timeouts]\nwebsocket = \"300ms\"").start().await;
    let connection = Client::h2(&silent).connect().await;
    told_to_go(&mut open(&connection).await).await;
    assert_eq!(connection.get("/public").send().await.status, StatusCode::OK, "the connection stays");

    let stopped = Setup::new(&apps).section("[timeouts]\ndrain = \"300ms\"").start().await;
    let connection = Client::h2(&stopped).connect().await;
    let mut socket = open(&connection).await;
    stopped.process.terminate();
    told_to_go(&mut socket).await;
    assert_eq!(stopped.process.wait_exit().await.status.code(), Some(0));
}

/// Chromium opens a WebSocket over the HTTP/2 connection that it has, if the server allows it.
#[tokio::test]
async fn a_browser_uses_the_connection_it_has() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let browser = Browser::start_with(&["--ignore-certificate-errors"]).await;
    browser.open(&page(&homing)).await;
    let script = "
        window.heard = '';
        const socket = new WebSocket(`wss://${location.host}/ws`);
        socket.onopen = () => socket.send('hello from a browser');
        socket.onmessage = event => { window.heard = event.data; socket.close(); };";
    browser.script(script).await;
    support::eventually("an echo", async || {
        browser.script("return window.heard").await == "hello from a browser"
    })
    .await;
    let record = homing.process.access_record("the record", |record| record["path"] == "/ws").await;
    assert_eq!((&record["protocol"], &record["method"]), (&"2".into(), &"GET".into()), "{record}");
    assert_eq!((&record["status"], &record["websocket"]), (&101.into(), &true.into()), "{record}");
}

fn page(homing: &Homing) -> String {
    format!("https://localhost:{}/public", homing.https.port())
}

async fn open(connection: &Connection) -> Socket {
    let (response, stream) =
        connection.extended("websocket", "/ws", &[("sec-websocket-version", "13")]).await;
    assert_eq!(response.status(), StatusCode::OK);
    WebSocketStream::from_raw_socket(stream.expect("a stream"), Role::Client, None).await
}

async fn message(socket: &mut Socket) -> Message {
    within("a message", socket.next()).await.expect("an open socket").expect("a whole message")
}

async fn told_to_go(socket: &mut Socket) {
    let message = message(socket).await;
    let Message::Close(Some(CloseFrame { code, .. })) = message else { panic!("{message:?}") };
    assert_eq!(code, CloseCode::Restart);
}

async fn body(response: Response<hyper::body::Incoming>) -> String {
    let bytes = within("the body", response.into_body().collect()).await.expect("a whole body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}
