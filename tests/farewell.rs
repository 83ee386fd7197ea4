//! Saying goodbye: nobody is cut in the middle of a word, whoever ends the connection.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use serde_json::json;
use tokio::{net::TcpStream, sync::Notify, task::JoinSet, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use self::support::{
    app,
    backend::Backend,
    call::Jar,
    client::{BOTH, Client, Protocol},
    eventually_within,
    operator::Operator,
    process::Homing,
    raw::Raw,
    raw_backend::{RawBackend, RawConnection},
    setup::Setup,
    within,
};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

const OPEN: &str = "[admin]\nallow_changes = true";
/// Above the time that one side of a WebSocket is left after the other has ended, far below "never".
const SECONDS: Duration = Duration::from_secs(10);

#[tokio::test]
async fn clients_that_connect_while_the_drain_begins_are_served_or_refused() {
    let backend = Backend::plain("app-1");
    for protocol in [BOTH, BOTH].concat() {
        let homing = Setup::new([&backend]).start().await;
        let mut clients = JoinSet::new();
        for _ in 0..16 {
            clients.spawn(connect_until_refused(Client::new(&homing, protocol)));
        }
        // In the midst of it: some have come and gone, some are on their way.
        let seen = backend.seen().len();
        eventually_within(SECONDS, "many clients", async || backend.seen().len() > seen + 50).await;
        homing.process.terminate();
        let mut lost = Vec::new();
        while let Some(client) = clients.join_next().await {
            lost.extend(client.expect("no panic"));
        }
        assert!(lost.is_empty(), "{protocol:?}, after a whole handshake: {lost:?}");
        assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_request_that_comes_a_moment_after_the_drain_began_is_served() {
    let backend = Backend::plain("app-1");
    for protocol in BOTH {
        let homing = Setup::new([&backend]).start().await;
        // Connected, with not a word said yet.
        let connection = Client::new(&homing, protocol).connect().await;
        homing.wait_for_metric("homing_connections", &[], 1.0).await;
        homing.process.terminate();
        no_longer_accepts(&homing).await;
        assert_eq!(connection.get("/").send().await.status, StatusCode::OK, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_websocket_whose_backend_closes_is_closed_although_its_client_stays() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        accept(&mut connection).await;
    });
    let homing = Setup::new([&backend]).start().await;
    // Held, and not read, so that nothing comes from this side.
    let _socket = Client::h1(&homing).websocket("/ws", "").await;
    gone(&homing).await;
}

#[tokio::test]
async fn a_websocket_whose_client_closes_is_closed_although_its_backend_stays() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        accept(&mut connection).await;
        connection.read_to_end().await;
        std::future::pending::<()>().await;
    });
    let homing = Setup::new([&backend]).start().await;
    drop(Client::h1(&homing).websocket("/ws", "").await);
    gone(&homing).await;
}

#[tokio::test]
async fn at_the_deadline_of_a_drain_a_websocket_is_told_to_go_and_its_session_moves() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let (mut socket, jar, home) = opened(&homing).await;
    let operator = Operator::of(&homing);
    operator.steer(&home, "drain", json!({ "deadline_seconds": 1 })).await;
    told_to_go(&mut socket).await;
    moved(&homing, &jar, &home).await;
}

#[tokio::test]
async fn in_maintenance_a_websocket_is_told_to_go_and_its_session_moves() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let (mut socket, jar, home) = opened(&homing).await;
    Operator::of(&homing).steer(&home, "maintenance", json!({})).await;
    told_to_go(&mut socket).await;
    moved(&homing, &jar, &home).await;
}

#[tokio::test]
async fn a_websocket_that_is_told_to_go_gets_the_whole_frame_before() {
    let go_on = Arc::new(Notify::new());
    let told = Arc::clone(&go_on);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let told = Arc::clone(&told);
        async move {
            accept(&mut connection).await;
            // A text of ten bytes, whose second half keeps everybody waiting.
            connection.write(b"\x81\x0afirst").await;
            told.notified().await;
            connection.write("other").await;
            connection.read_to_end().await;
        }
    });
    let homing = Setup::new([&backend]).section(OPEN).start().await;
    let mut client = by_hand(&homing).await;
    assert_eq!(client.exactly(7).await, b"\x81\x0afirst");
    let operator = Operator::of(&homing);
    operator.steer("app-1", "maintenance", json!({})).await;
    assert_eq!(operator.backend("app-1").await["state"], "maintenance");
    go_on.notify_one();
    assert_eq!(client.exactly(5).await, b"other");
    // Close, two bytes long: 1012, service restart (RFC 6455 section 5.5.1).
    assert_eq!(client.exactly(4).await, [0x88, 2, 0x03, 0xf4]);
    client.read_to_end_within(SECONDS).await;
}

#[tokio::test]
async fn a_websocket_that_has_to_go_is_closed_although_its_client_does_not_read() {
    let flooded = Arc::new(Notify::new());
    let full = Arc::clone(&flooded);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let full = Arc::clone(&full);
        async move {
            accept(&mut connection).await;
            // Binary frames of a hundred bytes each, until no room is left on the way.
            let frames = [&b"\x82\x64"[..], &[0; 100]].concat().repeat(1000);
            while timeout(Duration::from_millis(300), connection.write(&frames)).await.is_ok() {}
            full.notify_one();
            connection.read_to_end().await;
        }
    });
    let homing = Setup::new([&backend]).section(OPEN).start().await;
    let _socket = Client::h1(&homing).websocket("/ws", "").await;
    within("a client that does not read", flooded.notified()).await;
    Operator::of(&homing).steer("app-1", "maintenance", json!({})).await;
    gone(&homing).await;
}

#[tokio::test]
async fn a_websocket_that_has_to_go_is_closed_although_its_backend_stops_within_a_frame() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        accept(&mut connection).await;
        connection.write(b"\x81\x0afirst").await;
        connection.read_to_end().await;
    });
    let homing = Setup::new([&backend]).section(OPEN).start().await;
    let mut client = by_hand(&homing).await;
    assert_eq!(client.exactly(7).await, b"\x81\x0afirst");
    Operator::of(&homing).steer("app-1", "maintenance", json!({})).await;
    gone(&homing).await;
}

#[tokio::test]
async fn at_the_deadline_of_a_shutdown_a_websocket_is_told_to_go() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[timeouts]\ndrain = \"300ms\"").start().await;
    let (mut socket, _, _) = opened(&homing).await;
    homing.process.terminate();
    told_to_go(&mut socket).await;
    assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_websocket_is_closed_by_the_configured_code_or_without_a_word() {
    let apps = app::several(1);
    for (close, bytes) in [("1001", &[0x88, 2, 0x03, 0xe9][..]), ("\"none\"", &[])] {
        let close = format!("websocket_close = {close}");
        let homing = Setup::new(&apps).top(&close).section("[timeouts]\ndrain = \"300ms\"").start().await;
        let mut client = by_hand(&homing).await;
        homing.process.terminate();
        let rest = within("the end", client.read_to_end()).await;
        assert_eq!(rest.into_bytes(), String::from_utf8_lossy(bytes).into_owned().into_bytes(), "{close}");
        assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
    }
}

/// Requests, each on a connection of its own, until no connection is made; what went wrong after a handshake.
async fn connect_until_refused(client: Client) -> Vec<String> {
    let mut lost = Vec::new();
    // Refused, or cut before the handshake was whole: no request was on the wire.
    while let Ok(connection) = within("a handshake or a refusal", client.try_connect()).await {
        match within("an end", connection.get("/").try_send()).await {
            Ok(answer) if answer.text() == "app-1" => {}
            other => lost.push(format!("{other:?}")),
        }
    }
    lost
}

/// Answers the handshake of a WebSocket.
async fn accept(connection: &mut RawConnection) {
    let head = connection.head().await.expect("a request");
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
    });
    let accept = derive_accept_key(key.expect("a key").as_bytes());
    let fields = format!("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}");
    connection.write(&format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n")).await;
}

/// A WebSocket whose bytes are the test's.
async fn by_hand(homing: &Homing) -> Raw {
    let mut client = Client::h1(homing).raw().await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    client.write(format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client
}

/// A user with a WebSocket that has echoed once: their cookies, and their home.
async fn opened(homing: &Homing) -> (Socket, Jar, String) {
    let client = Client::new(homing, Protocol::Http1);
    let (jar, home) = app::login(&client, "anna").await;
    let cookie = format!("session={}", jar.value("session").expect("logged in"));
    let mut socket = client.websocket("/ws", &cookie).await;
    socket.send(Message::text("here")).await.expect("an open socket");
    assert_eq!(message(&mut socket).await, Message::text("here"));
    (socket, jar, home)
}

async fn told_to_go(socket: &mut Socket) {
    let Message::Close(Some(CloseFrame { code, .. })) = message(socket).await else {
        panic!("not closed");
    };
    assert_eq!(code, CloseCode::Restart);
}

async fn message(socket: &mut Socket) -> Message {
    let message = within("a message", socket.next()).await.expect("not cut off without a word");
    message.expect("whole frames")
}

/// The next request of this user finds another home, once and for all.
async fn moved(homing: &Homing, jar: &Jar, from: &str) {
    let client = Client::h2(homing);
    let to = client.get("/public").jar(jar).send().await.header("x-backend").to_owned();
    assert_ne!(to, from);
    assert_eq!(client.get("/public").jar(jar).send().await.header("x-backend"), to);
    let left = [("backend", from), ("reason", "maintenance")];
    assert_eq!(homing.metric("homing_affinity_moves_total", &left).await, 1.0);
}

/// Waits until nothing of a WebSocket is left.
async fn gone(homing: &Homing) {
    for gauge in ["homing_websockets", "homing_connections", "homing_backend_in_flight"] {
        eventually_within(SECONDS, gauge, async || homing.metric(gauge, &[]).await == 0.0).await;
    }
}

async fn no_longer_accepts(homing: &Homing) {
    let refused = async || TcpStream::connect(homing.https).await.is_err();
    eventually_within(SECONDS, "the front door is closed", refused).await;
}
