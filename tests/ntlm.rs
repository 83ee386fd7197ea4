//! NTLM and Negotiate authenticate a connection: it is one client's alone.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::time::Duration;

use http::StatusCode;

use self::support::{
    call::Answer,
    client::{BOTH, Client, Connection},
    raw_backend::{RawBackend, RawConnection},
    setup::Setup,
};

/// A server that remembers for each connection who has authenticated on it. It names itself in `x-backend`, and closes
/// after an answer to `/bye`.
fn server(name: &'static str) -> RawBackend {
    RawBackend::start(name, move |connection| serve(connection, name))
}

async fn serve(mut connection: RawConnection, name: &str) {
    let (mut user, mut challenged) = (None, false);
    while let Some(head) = connection.head().await {
        let field = head.lines().find_map(|line| line.strip_prefix("authorization: "));
        let (scheme, token) = field.and_then(|field| field.split_once(' ')).unwrap_or_default();
        let mut offer = String::new();
        match token.split_once('-') {
            _ if scheme == "Basic" => {}
            None if token == "type1" => {
                challenged = true;
                offer = format!("WWW-Authenticate: {scheme} challenge\r\n");
            }
            Some(("type3", name)) if challenged => user = Some(name.to_owned()),
            Some(("ticket", name)) => user = Some(name.to_owned()),
            _ if user.is_some() || head.starts_with("GET /public") => {}
            _ => offer = "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n".to_owned(),
        }
        challenged &= token == "type1";
        let (status, body) = match &user {
            _ if !offer.is_empty() => ("401 Unauthorized", ""),
            Some(user) => ("200 OK", &**user),
            None => ("200 OK", "nobody"),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nX-Backend: {name}\r\n{offer}\r\n{body}"
        );
        connection.write(answer).await;
        if head.starts_with("GET /bye") {
            return;
        }
    }
}

async fn say(client: &Connection, path: &str, credentials: &str) -> Answer {
    client.get(path).header("authorization", credentials).send().await
}

/// Both steps of a handshake.
async fn authenticate(client: &Connection, user: &str) {
    assert_eq!(client.get("/").send().await.status, StatusCode::UNAUTHORIZED);
    let challenge = say(client, "/", "NTLM type1").await;
    assert_eq!(challenge.header("www-authenticate"), "NTLM challenge");
    let last = say(client, "/", &format!("NTLM type3-{user}")).await;
    assert_eq!((last.status, last.text()), (StatusCode::OK, user));
}

#[tokio::test]
async fn a_connection_that_authenticates_is_its_clients_alone() {
    for protocol in BOTH {
        let backend = server("app-1");
        let homing = Setup::new([&backend]).one_worker().start().await;
        let client = Client::new(&homing, protocol);
        let alice = client.connect().await;
        authenticate(&alice, "alice").await;
        let bob = client.connect().await;
        assert_eq!(bob.get("/").send().await.status, StatusCode::UNAUTHORIZED, "{protocol:?}");
        authenticate(&bob, "bob").await;
        for _ in 0..3 {
            assert_eq!(alice.get("/").send().await.text(), "alice");
            assert_eq!(bob.get("/").send().await.text(), "bob");
        }
        drop((alice, bob));
        assert_eq!(client.get("/").send().await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_stranger_between_two_steps_of_a_handshake_disturbs_nothing() {
    let backend = server("app-1");
    let homing = Setup::new([&backend]).one_worker().start().await;
    let (alice, bob) = (Client::h1(&homing).connect().await, Client::h1(&homing).connect().await);
    say(&alice, "/", "NTLM type1").await;
    assert_eq!(bob.get("/public").send().await.text(), "nobody");
    say(&bob, "/", "NTLM type1").await;
    assert_eq!(say(&alice, "/", "NTLM type3-alice").await.text(), "alice");
    assert_eq!(say(&bob, "/", "NTLM type3-bob").await.text(), "bob");
}

#[tokio::test]
async fn a_ticket_in_the_first_request_makes_the_connection_its_clients() {
    let backend = server("app-1");
    let homing = Setup::new([&backend]).one_worker().start().await;
    let alice = Client::h2(&homing).connect().await;
    assert_eq!(say(&alice, "/", "negotiate ticket-alice").await.text(), "alice");
    assert_eq!(Client::h2(&homing).get("/public").send().await.text(), "nobody");
    assert_eq!(alice.get("/").send().await.text(), "alice");
}

#[tokio::test]
async fn handshakes_in_parallel_streams_go_on_where_they_began() {
    let backend = server("app-1");
    let homing = Setup::new([&backend]).one_worker().start().await;
    let alice = Client::h2(&homing).connect().await;
    for _ in 0..4 {
        tokio::join!(say(&alice, "/", "NTLM type1"), say(&alice, "/", "NTLM type1"));
        let (one, other) =
            tokio::join!(say(&alice, "/", "NTLM type3-alice"), say(&alice, "/", "NTLM type3-alice"));
        assert_eq!((one.text(), other.text()), ("alice", "alice"));
    }
}

#[tokio::test]
async fn all_steps_of_a_handshake_reach_one_backend_on_skipped_paths_too() {
    for skip in ["skip = []", "skip = [\"/\"]"] {
        let servers = [server("app-1"), server("app-2"), server("app-3")];
        let homing = Setup::new(&servers)
            .pool("balance = \"round-robin\"")
            .affinity(skip)
            .top("trusted_proxies = []")
            .start()
            .await;
        for protocol in BOTH {
            let alice = Client::new(&homing, protocol).connect().await;
            authenticate(&alice, "alice").await;
            for _ in 0..4 {
                assert_eq!(alice.get("/").send().await.text(), "alice", "{skip} {protocol:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_backend_that_closes_the_connection_ends_the_login_only() {
    let backend = server("app-1");
    let homing = Setup::new([&backend]).one_worker().start().await;
    let alice = Client::h1(&homing).connect().await;
    authenticate(&alice, "alice").await;
    assert_eq!(alice.get("/bye").send().await.text(), "alice");
    authenticate(&alice, "alice").await;
    assert_eq!(alice.get("/").send().await.text(), "alice");
}

#[tokio::test]
async fn behind_a_trusted_proxy_no_user_is_taken_for_another() {
    let backend = server("app-1");
    let setup = Setup::new([&backend]).one_worker().top("trusted_proxies = [\"127.0.0.1\"]");
    let homing = setup.start().await;
    let proxy = Client::h1(&homing).connect().await;
    assert_eq!(say(&proxy, "/", "Negotiate ticket-alice").await.text(), "alice");
    assert_eq!(proxy.get("/public").send().await.text(), "nobody");
    assert_eq!(proxy.get("/").send().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_authenticated_connection_is_closed_when_it_is_idle_for_too_long() {
    let backend = server("app-1");
    let homing =
        Setup::new([&backend]).one_worker().pool_section("[pool.timeouts]\nidle = \"200ms\"").start().await;
    let alice = Client::h1(&homing).connect().await;
    authenticate(&alice, "alice").await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(alice.get("/").send().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn credentials_of_each_request_leave_connections_shared() {
    let backend = server("app-1");
    let homing = Setup::new([&backend]).one_worker().start().await;
    for _ in 0..5 {
        let client = Client::h1(&homing).connect().await;
        assert_eq!(say(&client, "/", "Basic YTpi").await.text(), "nobody");
    }
    assert_eq!(backend.arrived().len(), 1, "connections");
}

#[tokio::test]
async fn a_websocket_opens_on_the_connection_that_has_authenticated() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        if connection.opens("/ws").await {
            // One character of text: which connection this is.
            connection.write([0x81, 1, b'0' + connection.index as u8]).await;
            connection.read_to_end().await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let mut alice = Client::h1(&homing).raw().await;
    alice.write("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Negotiate ticket\r\n\r\n").await;
    assert!(alice.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    alice.write(format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n\r\n")).await;
    assert!(alice.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(alice.exactly(3).await, [0x81, 1, b'0']);
}
