//! WebSockets that a take-over leaves to the old process: how long, how they end, and who counts them.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::path::PathBuf;

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use self::support::{
    app,
    backend::Backend,
    client::{BOTH, Client},
    eventually,
    flow::{drain_pattern, patterned},
    operator::Operator,
    process::Homing,
    setup::Setup,
    within,
};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Where processes meet, and what they are told of time.
struct Meeting {
    folder: TempDir,
    timeouts: &'static str,
}

impl Meeting {
    fn with(timeouts: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary directory"), timeouts }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("handover.sock")
    }

    fn setup(&self, backends: &[Backend]) -> Setup {
        let state = format!("[state]\nhandover = \"{}\"", self.socket().display());
        let timeouts = format!("[timeouts]\n{}", self.timeouts);
        Setup::new(backends)
            .section(&state)
            .section(&timeouts)
            .section("[admin]\nallow_changes = true")
            .session_timeout("1s")
    }
}

#[tokio::test]
async fn a_websocket_stays_with_the_old_process_longer_than_requests() {
    const SIZE: u64 = 1 << 40;
    let meeting = Meeting::with("drain = \"300ms\"");
    let backend = Backend::start("app-1", |request| async move {
        match request.uri().path() {
            "/ws" => support::echo::accept(request),
            "/big" => http::Response::new(patterned(SIZE, std::sync::Arc::default())),
            _ => support::backend::answer(StatusCode::OK, "well"),
        }
    });
    let backends = [backend];
    let old = meeting.setup(&backends).start().await;
    for protocol in BOTH {
        // Over HTTP/1.1, each is a connection of its own.
        let client = Client::new(&old, protocol);
        assert_eq!(client.get("/").send().await.status, StatusCode::OK);
    }
    let mut socket = Client::h1(&old).websocket("/ws", "").await;
    let download = Client::h2(&old).get("/big").open().await;
    let _new = meeting.setup(&backends).takeover().start().await;
    old.process.stderr.wait_for("only WebSockets go on").await;
    let cut = within("the download is cut", drain_pattern(download.body)).await;
    assert!(cut.is_err(), "not whole");
    echoes(&mut socket).await;
    assert!(old.process.exit_status().is_none());
    socket.close(None).await.expect("open");
    while within("the close", socket.next()).await.is_some_and(|message| message.is_ok()) {}
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_websocket_is_told_of_a_restart_after_the_drain_of_the_hand_over() {
    for timeouts in ["handover_drain = \"500ms\"", "drain = \"100ms\"\nhandover_drain = \"500ms\""] {
        let (apps, meeting) = (app::several(1), Meeting::with(timeouts));
        let old = meeting.setup(&apps).start().await;
        let (mut socket, _) = opened(&old).await;
        let _new = meeting.setup(&apps).takeover().start().await;
        told_to_come_again(&mut socket).await;
        assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_signal_ends_the_old_process_within_the_drain_of_a_stop() {
    let (apps, meeting) = (app::several(1), Meeting::with("drain = \"300ms\""));
    let old = meeting.setup(&apps).start().await;
    let (mut socket, _) = opened(&old).await;
    let new = meeting.setup(&apps).takeover().start().await;
    old.process.stderr.wait_for("only WebSockets go on").await;
    old.process.terminate();
    told_to_come_again(&mut socket).await;
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
    assert!(new.process.exit_status().is_none());
}

#[tokio::test]
async fn the_new_process_counts_the_streams_of_the_old_one() {
    let (apps, meeting) = (app::several(1), Meeting::with(""));
    let old = meeting.setup(&apps).start().await;
    let (mut socket, _) = opened(&old).await;
    // One without a session, too.
    let _bare = Client::h1(&old).websocket("/ws", "").await;
    let new = meeting.setup(&apps).takeover().start().await;
    let operator = Operator::of(&new);
    let status = operator.backend("app-1").await;
    assert_eq!((&status["streams"], &status["in_flight"]), (&1.into(), &2.into()), "{status:#}");
    let sessions = operator.read("pools/app/backends/app-1/sessions").await;
    assert_eq!(
        (&sessions["sessions"][0]["streams"], sessions["sessions"][0]["state"].as_str()),
        (&1.into(), Some("live"))
    );
    echoes(&mut socket).await;
    socket.close(None).await.expect("open");
    while within("the close", socket.next()).await.is_some_and(|message| message.is_ok()) {}
    eventually("it counts no more", async || operator.backend("app-1").await["streams"] == 0).await;
    assert!(old.process.exit_status().is_none(), "the other one is open");
}

#[tokio::test]
async fn a_session_stays_live_while_the_old_process_has_its_stream() {
    let (apps, meeting) = (app::several(1), Meeting::with(""));
    let old = meeting.setup(&apps).start().await;
    let (mut socket, _) = opened(&old).await;
    // Another user, without a stream: it shows when the session timeout is over.
    app::login(&Client::h1(&old), "berta").await;
    let new = meeting.setup(&apps).takeover().start().await;
    let operator = Operator::of(&new);
    let state = async |streams: u32| {
        let sessions = operator.read("pools/app/backends/app-1/sessions").await["sessions"].clone();
        let found = sessions.as_array().into_iter().flatten().find(|session| session["streams"] == streams);
        found.map(|session| session["state"].clone())
    };
    eventually("the other one is idle", async || state(0).await == Some("retained".into())).await;
    assert_eq!(state(1).await, Some("live".into()));
    echoes(&mut socket).await;
    drop(socket);
    eventually("so is this one", async || operator.backend("app-1").await["live"] == 0).await;
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_drain_waits_for_streams_of_the_old_process_and_its_deadline_ends_them() {
    let (apps, meeting) = (app::several(2), Meeting::with(""));
    let old = meeting.setup(&apps).start().await;
    let (mut socket, home) = opened(&old).await;
    let new = meeting.setup(&apps).takeover().start().await;
    let operator = Operator::of(&new);
    operator.steer(&home, "drain", json!({ "deadline_seconds": 3 })).await;
    let path = format!("pools/app/backends/{home}/drain?wait_seconds=1");
    let progress = operator.read(&path).await;
    assert_eq!((&progress["done"], &progress["streams"]), (&Value::Bool(false), &1.into()), "{progress}");
    told_to_come_again(&mut socket).await;
    eventually("it is drained", async || operator.backend(&home).await["streams"] == 0).await;
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn the_third_process_counts_the_streams_of_the_first() {
    let (apps, meeting) = (app::several(1), Meeting::with(""));
    let first = meeting.setup(&apps).start().await;
    let (mut socket, home) = opened(&first).await;
    let second = meeting.setup(&apps).takeover().start().await;
    let third = meeting.setup(&apps).takeover().start().await;
    let operator = Operator::of(&third);
    assert_eq!(operator.backend(&home).await["streams"], 1);
    echoes(&mut socket).await;
    operator.steer(&home, "maintenance", json!({})).await;
    told_to_come_again(&mut socket).await;
    for process in [&first.process, &second.process] {
        assert_eq!(process.wait_exit().await.status.code(), Some(0));
    }
    eventually("it counts no more", async || operator.backend(&home).await["streams"] == 0).await;
}

/// A user with a WebSocket that has echoed once, and their home.
async fn opened(homing: &Homing) -> (Socket, String) {
    let client = Client::h1(homing);
    let (jar, home) = app::login(&client, "anna").await;
    let cookie = format!("session={}", jar.value("session").expect("logged in"));
    let mut socket = client.websocket("/ws", &cookie).await;
    echoes(&mut socket).await;
    (socket, home)
}

async fn echoes(socket: &mut Socket) {
    socket.send(Message::text("here")).await.expect("an open socket");
    assert_eq!(message(socket).await, Message::text("here"));
}

async fn told_to_come_again(socket: &mut Socket) {
    let message = message(socket).await;
    let Message::Close(Some(CloseFrame { code, .. })) = message else { panic!("{message:?}") };
    assert_eq!(code, CloseCode::Restart);
}

async fn message(socket: &mut Socket) -> Message {
    within("a message", socket.next()).await.expect("not cut off without a word").expect("whole frames")
}
