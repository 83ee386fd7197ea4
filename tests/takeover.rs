//! One process takes over from another while clients are being served.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use self::support::{
    app,
    backend::Backend,
    call::{Jar, Opened},
    client::{BOTH, Client, Connection, Protocol},
    eventually,
    flow::{drain_pattern, patterned},
    operator,
    process::{Homing, Process},
    setup::Setup,
    within,
};

/// Where processes meet.
struct Meeting(TempDir);

impl Meeting {
    fn place() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn socket(&self) -> std::path::PathBuf {
        self.0.path().join("handover.sock")
    }

    /// A program for these backends that can hand over.
    fn setup(&self, backends: &[Backend]) -> Setup {
        let state = format!("[state]\nhandover = \"{}\"", self.socket().display());
        Setup::new(backends).section(&state)
    }
}

#[tokio::test]
async fn sessions_are_at_home_after_a_hand_over() {
    let (backends, meeting) = (app::several(3), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let users = app::login_all(&Client::h1(&old), 30).await;
    let new = meeting.setup(&backends).takeover().start().await;
    assert_eq!(new.https, old.https, "the same door");
    let ended = old.process.wait_exit().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for protocol in BOTH {
        let client = Client::new(&new, protocol);
        for (user, jar, home) in &users {
            let answer = client.get("/").jar(jar).send().await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, &**user));
            assert_eq!(answer.header("x-backend"), home);
        }
    }
    assert!((new.metric("homing_sessions", &[]).await - 30.0).abs() < f64::EPSILON);
    assert!((new.metric("homing_affinity_requests_total", &[("verdict", "home")]).await - 60.0).abs() < 0.5);
}

#[tokio::test]
async fn no_request_fails_while_one_process_follows_the_other() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let mut homing = meeting.setup(&backends).workers(2).start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = Vec::new();
    for number in 0..6 {
        let client = Client::new(&homing, BOTH[number % 2]);
        clients.push(tokio::spawn(keep_asking(client, number, stopped.clone())));
    }
    // As many sockets, fewer workers, more workers.
    for workers in [2, 1, 3] {
        let next = meeting.setup(&backends).workers(workers).takeover().start().await;
        assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
        homing = next;
        let so_far = || async { homing.metric("homing_http_requests_total", &[]).await };
        eventually("the new one has served some", async || so_far().await > 50.0).await;
    }
    stop.send_replace(true);
    for client in clients {
        let served = within("a client", client).await.expect("no failed request");
        assert!(served > 20, "{served}");
    }
}

/// Asks for the user's page on one connection after the other, each for as long as the server lets it; how often.
async fn keep_asking(client: Client, number: usize, stopped: tokio::sync::watch::Receiver<bool>) -> usize {
    let user = format!("user-{number}");
    let (jar, home) = app::login(&client, &user).await;
    let mut served = 0;
    while !*stopped.borrow() {
        let connection = client.connect().await;
        let mut last = false;
        while !last && !*stopped.borrow() {
            if connection.protocol() == Protocol::Http2 && connection.is_closed().await {
                break;
            }
            let answer = match connection.get("/").jar(&jar).try_send().await {
                Ok(answer) => answer,
                // A GOAWAY that came before the request was sent: it was not, and is sent elsewhere.
                Err(error) if connection.protocol() == Protocol::Http2 && is_unsent(&error) => break,
                Err(error) => panic!("{user}, {served} served: {error:?}"),
            };
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, &*user));
            assert_eq!(answer.header("x-backend"), home);
            last = answer.header("connection") == "close";
            served += 1;
        }
    }
    served
}

/// Whether hyper says that a request never left.
fn is_unsent(error: &support::BoxError) -> bool {
    let error = error.downcast_ref::<hyper::Error>();
    error.is_some_and(|error| error.is_canceled() || error.is_closed())
}

#[tokio::test]
async fn what_is_begun_before_is_finished_by_the_old_process() {
    const SIZE: u64 = 64 * 1024 * 1024;
    let meeting = Meeting::place();
    let backend = Backend::start("app-1", |request| async move {
        match request.uri().path() {
            "/ws" => support::echo::accept(request),
            "/big" => http::Response::new(patterned(SIZE, std::sync::Arc::default())),
            _ => support::backend::answer(StatusCode::OK, "well"),
        }
    });
    let backends = [backend];
    let old = meeting.setup(&backends).start().await;
    let client = Client::h1(&old);
    let mut websocket = client.websocket("/ws", "").await;
    let download = client.get("/big").open().await;
    let new = meeting.setup(&backends).takeover().start().await;
    assert_eq!(Client::h1(&new).get("/").send().await.status, StatusCode::OK);
    websocket.send(Message::text("still there?")).await.expect("open");
    let echoed = within("an echo", websocket.next()).await.expect("a message").expect("no error");
    assert_eq!(echoed, Message::text("still there?"));
    assert_eq!(within("the download", finish(download)).await, SIZE);
    assert!(old.process.exit_status().is_none(), "it waits for the WebSocket");
    websocket.close(None).await.expect("a close");
    while within("the close", websocket.next()).await.is_some_and(|message| message.is_ok()) {}
    drop(websocket);
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
}

/// Reads the rest and lets the connection go, whose next request nobody waits for then; how much it was.
async fn finish(download: Opened) -> u64 {
    drain_pattern(download.body).await.expect("a whole body")
}

#[tokio::test]
async fn a_login_on_either_side_is_known_on_the_other_at_once() {
    let (backends, meeting) = (app::several(3), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let client = Client::h1(&old);
    // Each of these is good for one more answer of the old process.
    let mut kept: Vec<Connection> = Vec::new();
    for _ in 0..20 {
        let connection = client.connect().await;
        assert_eq!(connection.get("/public").send().await.status, StatusCode::OK);
        kept.push(connection);
    }
    let new = meeting.setup(&backends).takeover().start().await;
    for (number, connection) in kept.iter().enumerate() {
        let user = format!("user-{number}");
        let mut jar = Jar::default();
        // In turn: begun at the old one and used at the new one, and the other way about.
        let login = format!("/login?{user}");
        let (login, page) = if number % 2 == 0 {
            let login = connection.get(&login).send().await;
            assert_eq!(login.header("connection"), "close", "the old one answered");
            jar.store(&login.headers);
            (login, client.get("/").jar(&jar).send().await)
        } else {
            let login = client.get(&login).send().await;
            jar.store(&login.headers);
            (login, connection.get("/").jar(&jar).send().await)
        };
        assert_eq!((page.status, page.text()), (StatusCode::OK, &*user), "{number}");
        assert_eq!(page.header("x-backend"), login.header("x-backend"));
    }
    drop(kept);
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
    new.wait_for_metric("homing_sessions", &[], 20.0).await;
}

#[tokio::test]
async fn what_operators_wanted_of_backends_stays() {
    let (backends, meeting) = (app::several(4), Meeting::place());
    let changes = || meeting.setup(&backends).section("[admin]\nallow_changes = true");
    let old = changes().start().await;
    for arguments in
        [&["drain", "app-1", "--deadline", "1h"][..], &["maintenance", "app-2"], &["weight", "app-3", "7"]]
    {
        let ended = operator::run(&old, arguments).await;
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    }
    let new = changes().takeover().start().await;
    let status = operator::run(&new, &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    let backends = &status["pools"][0]["backends"];
    let of = |index: usize, field: &str| backends[index][field].clone();
    assert_eq!([of(0, "state"), of(1, "state"), of(2, "state")], ["draining", "maintenance", "up"]);
    let deadline = of(0, "drain_deadline_seconds").as_f64().expect("a deadline");
    assert!((3500.0..=3600.0).contains(&deadline), "{deadline}");
    assert_eq!([of(2, "weight"), of(3, "weight")], [7, 1]);
}

#[tokio::test]
async fn a_backend_that_is_down_gets_no_request_of_the_new_process() {
    let (mut backends, meeting) = (app::several(2), Meeting::place());
    let passive = "[pool.passive]\nretry = \"1h\"";
    let old = meeting.setup(&backends).pool_section(passive).start().await;
    backends[0].stop().await;
    let client = Client::h1(&old);
    for number in 0..4 {
        app::login(&client, &format!("user-{number}")).await;
    }
    old.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    let new = meeting.setup(&backends).pool_section(passive).takeover().start().await;
    assert!(new.metric("homing_backend_up", &[("backend", "app-1")]).await < 0.5);
}

#[tokio::test]
async fn a_hand_over_can_be_repeated_while_earlier_ones_drain() {
    let (backends, meeting) = (app::several(3), Meeting::place());
    let first = meeting.setup(&backends).start().await;
    let client = Client::h1(&first);
    let mut kept = Vec::new();
    for _ in 0..6 {
        let connection = client.connect().await;
        assert_eq!(connection.get("/public").send().await.status, StatusCode::OK);
        kept.push(connection);
    }
    let second = meeting.setup(&backends).takeover().start().await;
    let third = meeting.setup(&backends).takeover().start().await;
    // Begun at the first process, which only the second one knows. The last connection keeps it alive.
    for (number, connection) in kept.iter().enumerate().take(5) {
        let login = connection.get(&format!("/login?user-{number}")).send().await;
        let mut jar = Jar::default();
        jar.store(&login.headers);
        third.wait_for_metric("homing_sessions", &[], number as f64 + 1.0).await;
        let page = client.get("/").jar(&jar).send().await;
        assert_eq!(page.text(), format!("user-{number}"));
    }
    assert!(second.process.exit_status().is_none(), "it passes on what the first one learns");
    drop(kept);
    for process in [&first.process, &second.process] {
        assert_eq!(process.wait_exit().await.status.code(), Some(0));
    }
    assert!(third.process.exit_status().is_none());
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_passes_to_the_new_process() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    assert_eq!(mode(&meeting.socket()), 0o600);
    let new = meeting.setup(&backends).takeover().start().await;
    old.process.wait_exit().await;
    assert_eq!(mode(&meeting.socket()), 0o600);
    new.process.terminate();
    new.process.wait_exit().await;
    assert_eq!(std::fs::read_dir(meeting.0.path()).expect("ours").count(), 0, "nothing is left");
}

#[tokio::test]
async fn the_admin_socket_leads_to_the_new_process() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let socket = meeting.0.path().join("admin.sock");
    let setup = || meeting.setup(&backends).section(&format!("[admin]\nsocket = \"{}\"", socket.display()));
    let old = setup().start().await;
    let new = setup().takeover().start().await;
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
    let place = format!("unix:{}", socket.display());
    let status = Process::run(["status", "--json", "--admin", &*place]).await;
    assert!(status.status.success(), "{}", status.stderr);
    new.process.terminate();
    new.process.wait_exit().await;
    assert!(!socket.exists(), "it goes with its last process");
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("a socket").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_listener_at_another_address_is_bound_anew_and_the_old_one_closes() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let elsewhere = "127.0.0.9:0".parse().expect("an address");
    let new = meeting.setup(&backends).https(elsewhere).takeover().start().await;
    assert_eq!(new.https.ip(), elsewhere.ip());
    new.process.stderr.wait_for("an inherited socket is closed").await;
    let told = new.process.stderr.text();
    assert_eq!(told.matches("an inherited socket is closed").count(), 1, "not one for each worker: {told}");
    assert_eq!(Client::h1(&new).get("/public").send().await.status, StatusCode::OK);
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
    eventually("nobody listens there", async || tokio::net::TcpStream::connect(old.https).await.is_err())
        .await;
}

#[tokio::test]
async fn a_socket_of_systemd_is_used_by_every_worker_and_handed_over() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    // As systemd does, this process keeps it, too: whoever connects between two processes waits.
    let kept = socket.try_clone().expect("a file descriptor");
    let old = meeting.setup(&backends).workers(3).activated(socket).start().await;
    assert_eq!(old.https, address);
    old.process.stderr.wait_for("by=\"systemd\"").await;
    assert_eq!(Client::h1(&old).get("/public").send().await.status, StatusCode::OK);
    let new = meeting.setup(&backends).takeover().start().await;
    assert_eq!(new.https, address);
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
    assert_eq!(Client::h1(&new).get("/public").send().await.status, StatusCode::OK);
    drop(kept);
}

#[tokio::test]
async fn the_proxys_own_cookies_are_good_in_the_new_process() {
    let backends = ["app-1", "app-2", "app-3"].map(Backend::plain);
    let meeting = Meeting::place();
    let setup = || meeting.setup(&backends).issue("cookie = \"__Host-homing\"");
    let old = setup().start().await;
    let first = Client::h1(&old).get("/").send().await;
    let token = first.cookie("__Host-homing").expect("a cookie").to_owned();
    let new = setup().takeover().start().await;
    Client::h1(&new).get("/").cookie("__Host-homing", &token).send().await;
    new.wait_for_metric("homing_affinity_tokens_total", &[("result", "accepted")], 1.0).await;
    new.wait_for_metric("homing_affinity_requests_total", &[("verdict", "home")], 1.0).await;
}

#[tokio::test]
async fn sessions_of_backends_and_pools_with_other_names_are_counted_apart() {
    let (backends, meeting) = (app::several(3), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    app::login_all(&Client::h1(&old), 9).await;
    let new = meeting.setup(&backends[..2]).takeover().start().await;
    new.process.stderr.wait_for("bindings taken over taken=6 unknown=3 gone=0").await;
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));

    let (directory, file) = meeting.setup(&backends).write();
    let text = std::fs::read_to_string(&file).expect("just written");
    std::fs::write(&file, text.replace("name = \"app\"\n", "name = \"shop\"\n")).expect("ours");
    let arguments = ["serve".as_ref(), "--takeover".as_ref(), "--config".as_ref(), file.as_os_str()];
    let renamed = Homing::ready(Process::spawn(arguments), false, directory).await;
    let line = renamed.process.stderr.wait_for("of pools that this configuration does not have").await;
    assert!(line.contains("WARN") && line.contains("taken=0 unknown=0 gone=9"), "{line}");
    assert!(line.contains("pools=app"), "{line}");
}

#[tokio::test]
async fn each_process_tells_of_its_own_end() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let connection = Client::h1(&old).connect().await;
    assert_eq!(connection.get("/public").send().await.status, StatusCode::OK);
    let new = meeting.setup(&backends).takeover().start().await;
    new.process.terminate();
    let ended = new.process.wait_exit().await;
    assert!(!ended.stderr.contains("the process before has ended"), "that one drains: {}", ended.stderr);
    assert!(old.process.exit_status().is_none(), "for this connection");
    drop(connection);
    let ended = old.process.wait_exit().await;
    assert!(ended.stderr.contains("drained, ending"), "{}", ended.stderr);
}
