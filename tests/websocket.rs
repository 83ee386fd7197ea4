//! WebSockets over HTTP/1.1 (RFC 6455): the handshake, both halves, and their end.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::derive_accept_key,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use self::support::{
    app,
    client::Client,
    eventually,
    process::Homing,
    raw::Raw,
    raw_backend::{RawBackend, RawConnection},
    setup::Setup,
    within,
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn an_answer_that_does_not_prove_that_the_key_was_read_opens_nothing() {
    let good = derive_accept_key(KEY.as_bytes());
    let other = derive_accept_key(b"AAAAAAAAAAAAAAAAAAAAAA==");
    for fields in [
        "Connection: upgrade\r\nUpgrade: websocket\r\n".to_owned(),
        format!("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {other}\r\n"),
        format!("Connection: upgrade\r\nSec-WebSocket-Accept: {good}\r\n"),
        format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {good}\r\n"),
        format!("Connection: upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: {good}\r\n"),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nsecret bytes");
        let backend = RawBackend::answering("app-1", answer.leak());
        let homing = Setup::new([&backend]).start().await;
        let mut client = handshake(&homing, &[("Sec-WebSocket-Key", KEY)]).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{fields}: {head}");
        client.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let rest = client.read_to_end().await;
        assert!(!rest.contains("secret"), "{fields}: {rest}");
    }
}

#[tokio::test]
async fn a_handshake_without_one_good_key_reaches_nobody() {
    let backend = RawBackend::answering("app-1", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let homing = Setup::new([&backend]).start().await;
    for fields in [&[][..], &[KEY, KEY], &["c2hvcnQ="], &["???"]] {
        let fields: Vec<_> = fields.iter().map(|key| ("Sec-WebSocket-Key", *key)).collect();
        let text = handshake(&homing, &fields).await.read_to_end().await;
        assert!(
            text.starts_with("HTTP/1.1 400 ") && text.to_lowercase().contains("connection: close"),
            "{text}"
        );
    }
    assert_eq!(backend.count("GET"), 0);
}

#[tokio::test]
async fn a_backend_that_does_not_want_a_websocket_may_say_so() {
    let answer = "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 3\r\n\r\nno!";
    let backend = RawBackend::answering("app-1", answer);
    let homing = Setup::new([&backend]).start().await;
    let mut client = handshake(&homing, &[("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "8")]).await;
    let head = client.head().await;
    assert!(
        head.starts_with("HTTP/1.1 426 ") && head.to_lowercase().contains("sec-websocket-version: 13"),
        "{head}"
    );
    assert_eq!(client.exactly(3).await, b"no!");
    // It is a connection for requests still.
    client.write("GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 426 "));
    assert_eq!(backend.count("GET /next"), 1);
}

#[tokio::test]
async fn bytes_of_both_directions_are_counted() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        accept(&mut connection).await;
        connection.until("up!").await;
        connection.write(b"\x82\x04down").await;
        connection.read_to_end().await;
    });
    let homing = Setup::new([&backend]).start().await;
    let mut client = opened(&homing).await;
    // Masked by zeros.
    client.write(b"\x82\x83\0\0\0\0up!").await;
    assert_eq!(client.exactly(6).await, b"\x82\x04down");
    client.abandon();
    let record = homing.process.access_record("the record", |record| record["path"] == "/ws").await;
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&9.into(), &6.into()), "{record}");
    assert_eq!((&record["method"], &record["status"]), (&"GET".into(), &101.into()));
    assert_eq!(record["websocket"], true);
}

#[tokio::test]
async fn a_client_that_has_said_all_still_hears_the_last_words() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        accept(&mut connection).await;
        // To the end of the client's half, and only then.
        connection.read_to_end().await;
        connection.write(b"\x82\x04last").await;
    });
    let homing = Setup::new([&backend]).start().await;
    let mut client = opened(&homing).await;
    client.write(b"\x82\x83\0\0\0\0up!").await;
    client.end().await;
    assert_eq!(client.exactly(6).await, b"\x82\x04last");
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(backend.count("up!"), 1);
}

#[tokio::test]
async fn a_backend_that_has_said_all_still_hears_the_last_words() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        accept(&mut connection).await;
        connection.write(b"\x82\x04last").await;
        connection.finish().await;
        connection.read_to_end().await;
    });
    let homing = Setup::new([&backend]).start().await;
    let mut client = opened(&homing).await;
    assert_eq!(client.exactly(6).await, b"\x82\x04last");
    client.write(b"\x82\x83\0\0\0\0up!").await;
    eventually("the client's last words", async || backend.count("up!") == 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_backend_back() {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let count = Arc::clone(&count);
        async move {
            if !connection.opens("/ws").await {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                return;
            }
            // Frames of 64 KiB, for as long as somebody takes them.
            let frame = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 65_536]].concat();
            while connection.try_write(&frame).await {
                count.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let _client = opened(&homing).await;
    eventually("the backend is held back", async || {
        let before = written.load(Ordering::Relaxed);
        for _ in 0..20 {
            Client::h1(&homing).get("/").send().await;
        }
        before > 0 && written.load(Ordering::Relaxed) == before
    })
    .await;
    assert!(written.load(Ordering::Relaxed) < 48 << 20, "what kernel buffers hold");
}

#[tokio::test]
async fn a_websocket_over_which_nothing_passes_is_told_to_go() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[timeouts]\nwebsocket = \"300ms\"").start().await;
    let mut socket = Client::h1(&homing).websocket("/ws", "").await;
    let message = within("a word", socket.next()).await.expect("a frame").expect("a whole one");
    let Message::Close(Some(CloseFrame { code, .. })) = message else { panic!("{message:?}") };
    assert_eq!(code, CloseCode::Restart);
    drop(socket);
    homing.wait_for_metric("homing_websockets", &[], 0.0).await;
}

#[tokio::test]
async fn a_websocket_over_which_something_passes_stays() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[timeouts]\nwebsocket = \"2s\"").start().await;
    let mut socket = Client::h1(&homing).websocket("/ws", "").await;
    let mut beat = tokio::time::interval(Duration::from_millis(250));
    for _ in 0..14 {
        beat.tick().await;
        socket.send(Message::text("beat")).await.expect("open");
        let echo = within("an echo", socket.next()).await.expect("open").expect("a message");
        assert_eq!(echo, Message::text("beat"));
    }
}

/// Asks for a WebSocket, with these fields beside those that every request for one has.
async fn handshake(homing: &Homing, fields: &[(&str, &str)]) -> Raw {
    let mut client = Client::h1(homing).raw().await;
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    client.write(format!("{head}{fields}\r\n")).await;
    client
}

async fn opened(homing: &Homing) -> Raw {
    let mut client = handshake(homing, &[("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")]).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(&derive_accept_key(KEY.as_bytes())), "{head}");
    client
}

async fn accept(connection: &mut RawConnection) {
    assert!(connection.opens("/ws").await);
}
