//! TLS to backends: encrypted, always verified, reloaded, resumed; and backends that are not what they should be.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use tokio_tungstenite::tungstenite::Message;

use self::support::{
    app,
    backend::Backend,
    client::{BOTH, Client},
    dns::{Dns, HOST},
    eventually,
    flow::full,
    pki::{Authority, Leaf},
    port::Port,
    process::Homing,
    raw_backend::RawBackend,
    setup::Setup,
    tls_front::{TlsFront, Version},
    within,
};

const CA: &str = "[pool.tls]\nca = \"ca.pem\"";
const UP: &str = "homing_backend_up";
const FAILURES: &str = "homing_config_reloads_total";

/// One backend behind TLS that the authority of the tests vouches for.
fn setup(front: &TlsFront) -> Setup {
    trusting(Setup::new::<&Backend>([]).backend_at("app-1", &front.url("localhost"), ""))
}

fn trusting(setup: Setup) -> Setup {
    setup.pool_section(CA).file("ca.pem", &Authority::get().pem)
}

async fn is_down(homing: &Homing, name: &str, why: &str) {
    homing.wait_for_metric(UP, &[("backend", name)], 0.0).await;
    let line = homing.process.stderr.wait_for("backend is down").await;
    assert!(line.contains(name) && line.contains(why), "{why}: {line}");
}

#[tokio::test]
async fn requests_go_over_tls_and_their_connections_are_kept() {
    let backend = Backend::echo("app-1");
    for version in [Version::Tls12, Version::Tls13] {
        let front = TlsFront::only(backend.address(), Leaf::localhost(), version);
        let homing = setup(&front).one_worker().start().await;
        for protocol in BOTH {
            let client = Client::new(&homing, protocol);
            for _ in 0..5 {
                assert_eq!(client.get("/").send().await.status, StatusCode::OK);
                // Not repeatable: sent only on a connection that is surely alive, tickets or not.
                assert_eq!(client.post("/").body(full("order")).send().await.text(), "order");
            }
            let seen = backend.seen().pop().expect("a request");
            assert_eq!((seen.one("host"), seen.one("x-forwarded-proto")), (&*client.authority(), "https"));
        }
        let handshakes = front.handshakes();
        assert_eq!(handshakes.len(), 1, "{version:?}: {handshakes:?}");
        assert_eq!(handshakes[0].sni.as_deref(), Some("localhost"));
        assert_eq!(handshakes[0].alpn.as_deref(), Some(&b"http/1.1"[..]));
    }
}

#[tokio::test]
async fn the_body_of_a_large_answer_and_a_large_request_arrive_whole() {
    let backend = Backend::echo("app-1");
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let homing = setup(&front).start().await;
    let body = "x".repeat(3_000_000);
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).post("/").body(full(body.clone())).send().await;
        assert_eq!(got.text().len(), body.len());
    }
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_takes_the_backend_down() {
    let backend = Backend::plain("app-1");
    let (ours, theirs) = (Authority::get(), Authority::mint());
    for (leaf, why) in [
        (theirs.leaf(&["localhost"]), "its signature is not that of the authority"),
        (ours.leaf(&["other.test"]), "other.test"),
        (ours.expired_leaf(&["localhost"]), "expired"),
    ] {
        let front = TlsFront::start(backend.address(), &leaf);
        let homing = setup(&front).start().await;
        let client = Client::h1(&homing);
        assert_eq!(client.get("/").send().await.status, StatusCode::BAD_GATEWAY, "{why}");
        let record = homing.process.access_record("a fault", |record| record["error"] == "backend-tls").await;
        assert_eq!(record["backend"], "app-1");
        is_down(&homing, "app-1", why).await;
        assert_eq!(client.get("/").send().await.status, StatusCode::SERVICE_UNAVAILABLE, "{why}");
    }
    assert_eq!(backend.seen().len(), 0, "nothing was sent to whoever that was");
}

#[tokio::test]
async fn without_an_own_authority_only_the_public_ones_vouch() {
    let backend = Backend::plain("app-1");
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let setup = Setup::new::<&Backend>([]).backend_at("app-1", &front.url("localhost"), "");
    let homing = setup.start().await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::BAD_GATEWAY);
    is_down(&homing, "app-1", "`ca` in [pool.tls]").await;
}

#[tokio::test]
async fn a_request_goes_to_a_backend_that_proves_who_it_is() {
    let (bad, good) = (Backend::plain("app-1"), Backend::plain("app-2"));
    let bad_front = TlsFront::start(bad.address(), &Authority::mint().leaf(&["localhost"]));
    let good_front = TlsFront::start(good.address(), Leaf::localhost());
    let setup = setup(&bad_front).backend_at("app-2", &good_front.url("localhost"), "");
    let homing = setup.pool("balance = \"round-robin\"").start().await;
    for _ in 0..4 {
        let got = Client::h1(&homing).post("/").body(full("order")).send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "app-2"));
    }
    is_down(&homing, "app-1", "certificate").await;
}

#[tokio::test]
async fn the_name_can_be_another_than_the_host_of_the_url() {
    let backend = Backend::plain("app-1");
    let (one, two) = (Authority::get().leaf(&["one.internal"]), Authority::get().leaf(&["two.internal"]));
    let (first, second) =
        (TlsFront::start(backend.address(), &one), TlsFront::start(backend.address(), &two));
    let setup = Setup::new::<&Backend>([])
        .backend_at("app-1", &first.url("127.0.0.1"), "")
        .backend_at("app-2", &second.url("127.0.0.1"), "server_name = \"two.internal\"")
        .pool("balance = \"round-robin\"")
        .pool_section("[pool.tls]\nca = \"ca.pem\"\nserver_name = \"one.internal\"")
        .file("ca.pem", &Authority::get().pem);
    let homing = setup.start().await;
    for _ in 0..4 {
        assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
    }
    for (front, name) in [(&first, "one.internal"), (&second, "two.internal")] {
        assert_eq!(front.handshakes()[0].sni.as_deref(), Some(name));
    }
}

#[tokio::test]
async fn an_address_is_a_name_too_and_a_backend_may_vouch_for_itself() {
    let backend = Backend::plain("app-1");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let leaf =
        Leaf { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() };
    let front = TlsFront::start(backend.address(), &leaf);
    let setup = Setup::new::<&Backend>([]).backend_at("app-1", &front.url("127.0.0.1"), "");
    let homing = setup.pool_section(CA).file("ca.pem", &leaf.cert).start().await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
    assert_eq!(front.handshakes()[0].sni, None, "an address is not sent");
}

#[tokio::test]
async fn a_backend_that_asks_for_a_certificate_is_shown_it() {
    let backend = Backend::plain("app-1");
    let clients = Authority::mint();
    let proxy = clients.leaf(&["homing.internal"]);
    for version in [Version::Tls12, Version::Tls13] {
        let front = TlsFront::demanding(backend.address(), Leaf::localhost(), &clients, version);
        let homing = Setup::new::<&Backend>([])
            .backend_at("app-1", &front.url("localhost"), "")
            .pool_section(&format!("{CA}\ncert = \"proxy.pem\"\nkey = \"proxy.key\""))
            .file("ca.pem", &Authority::get().pem)
            .file("proxy.pem", &proxy.cert)
            .file("proxy.key", &proxy.key)
            .start()
            .await;
        assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK, "{version:?}");
        assert!(front.handshakes()[0].certified);
    }
}

#[tokio::test]
async fn a_backend_that_misses_a_client_certificate_gets_no_request() {
    let backend = Backend::plain("app-1");
    for version in [Version::Tls12, Version::Tls13] {
        let front = TlsFront::demanding(backend.address(), Leaf::localhost(), &Authority::mint(), version);
        let homing = setup(&front).checked().start().await;
        homing.wait_for_metric(UP, &[], 0.0).await;
        assert!(Client::h1(&homing).get("/").send().await.status.is_server_error());
    }
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn checks_of_health_go_over_tls_too() {
    let backend = app::start("app-1");
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let homing = setup(&front).checked().start().await;
    eventually("it is checked", async || backend.seen_at("/healthz").len() > 2).await;
    front.show(&Authority::mint().leaf(&["localhost"]));
    is_down(&homing, "app-1", "certificate").await;
    front.show(Leaf::localhost());
    homing.wait_for_metric(UP, &[], 1.0).await;
}

#[tokio::test]
async fn a_backend_that_is_not_checked_comes_back_by_a_trial_handshake() {
    let backend = Backend::plain("app-1");
    let front = TlsFront::start(backend.address(), &Authority::mint().leaf(&["localhost"]));
    let homing = setup(&front).pool_section("[pool.passive]\nretry = \"50ms\"").start().await;
    let client = Client::h1(&homing);
    assert_eq!(client.get("/").send().await.status, StatusCode::BAD_GATEWAY);
    is_down(&homing, "app-1", "certificate").await;
    front.show(Leaf::localhost());
    eventually("it serves", async || client.get("/").send().await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_apart() {
    let plain = Backend::plain("app-1");
    let shutting = RawBackend::start("app-2", |mut connection| async move {
        connection.until("localhost").await;
    });
    for (port, why) in [
        (plain.address().port(), "what it says is not TLS"),
        (shutting.address().port(), "no TLS handshake: it closed instead"),
    ] {
        let url = format!("https://localhost:{port}");
        let homing = trusting(Setup::new::<&Backend>([]).backend_at("app-1", &url, "")).start().await;
        let client = Client::h1(&homing);
        for _ in 0..3 {
            assert!(client.get("/").send().await.status.is_server_error());
        }
        is_down(&homing, "app-1", why).await;
        homing.process.access_record("a fault", |record| record["error"] == "backend-tls").await;
    }
}

#[tokio::test]
async fn a_handshake_that_stands_still_ends_with_the_deadline_to_connect() {
    let silent = RawBackend::start("app-1", |mut connection| async move { connection.read_to_end().await });
    let good = Backend::plain("app-2");
    let front = TlsFront::start(good.address(), Leaf::localhost());
    let setup = Setup::new::<&Backend>([])
        .backend_at("app-1", &format!("https://localhost:{}", silent.address().port()), "")
        .backend_at("app-2", &front.url("localhost"), "")
        .pool("balance = \"round-robin\"")
        .pool_section("[pool.timeouts]\nconnect = \"300ms\"");
    let homing = trusting(setup).start().await;
    for _ in 0..6 {
        let got = Client::h1(&homing).post("/").body(full("order")).send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "app-2"));
    }
    is_down(&homing, "app-1", "no connection in time").await;
}

#[tokio::test]
async fn a_new_connection_resumes_an_earlier_session() {
    let closing = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    });
    for version in [Version::Tls12, Version::Tls13] {
        let front = TlsFront::only(closing.address(), Leaf::localhost(), version);
        let homing = setup(&front).workers(2).start().await;
        for _ in 0..6 {
            // Other connections of clients, hence maybe another worker: sessions are shared.
            assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
        }
        let resumed: Vec<bool> = front.handshakes().iter().map(|handshake| handshake.resumed).collect();
        assert_eq!(resumed, [false, true, true, true, true, true], "{version:?}");
    }
}

#[tokio::test]
async fn backends_that_are_found_have_the_name_of_the_url() {
    let backend = Backend::plain("app-1");
    let front = TlsFront::at(
        Port::at(SocketAddr::from(([127, 0, 0, 9], 0))),
        backend.address(),
        &Authority::get().leaf(&[HOST]),
    );
    let dns = Dns::knowing(&[IpAddr::from(Ipv4Addr::new(127, 0, 0, 9))]).await;
    let setup = Setup::new::<&Backend>([]).top(&format!("resolver = \"{}\"", dns.address)).backend_at(
        "app",
        &front.url(HOST),
        "discover = \"dns\"",
    );
    let homing = trusting(setup).start().await;
    assert_eq!(Client::h1(&homing).get("/").send().await.text(), "app-1");
    assert_eq!(front.handshakes()[0].sni.as_deref(), Some(HOST));
}

#[tokio::test]
async fn a_websocket_goes_over_tls() {
    let backend = app::start("app-1");
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let homing = setup(&front).start().await;
    let mut socket = Client::h1(&homing).websocket("/ws", "").await;
    socket.send(Message::text("hello")).await.expect("an open socket");
    let echoed = within("an echo", socket.next()).await.expect("open").expect("a message");
    assert_eq!(echoed, Message::text("hello"));
}

#[tokio::test]
async fn other_files_are_taken_up_by_a_reload() {
    let backend = app::start("app-1");
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let homing = setup(&front).one_worker().start().await;
    let client = Client::h1(&homing);
    let (jar, _) = app::login(&client, "anna").await;
    let mut socket = Client::h1(&homing).websocket("/ws", "").await;
    assert_eq!(client.get("/").jar(&jar).send().await.text(), "anna");
    let before = front.handshakes().len();
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("nothing has changed").await;
    assert_eq!(client.get("/").jar(&jar).send().await.text(), "anna");
    assert_eq!(front.handshakes().len(), before, "the same files: the idle connection is good");

    let other = Authority::mint();
    fs::write(homing.directory().join("ca.pem"), &other.pem).expect("a file");
    front.show(&other.leaf(&["localhost"]));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("(before: as many, others among them)").await;
    assert_eq!(client.get("/").jar(&jar).send().await.text(), "anna", "its session is where it was");
    assert_eq!(front.handshakes().len(), before + 1, "what was opened by the old files is not used again");
    socket.send(Message::text("still here")).await.expect("an open socket");
    let echoed = within("an echo", socket.next()).await.expect("open").expect("a message");
    assert_eq!(echoed, Message::text("still here"));
}

#[tokio::test]
async fn a_wrong_file_keeps_the_old_ones() {
    let backend = Backend::plain("app-1");
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let homing = setup(&front).start().await;
    fs::write(homing.directory().join("ca.pem"), "").expect("a file");
    homing.process.signal("HUP");
    homing.wait_for_metric(FAILURES, &[("result", "failed")], 1.0).await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_changed_file_is_noticed_where_that_is_asked_for() {
    let backend = Backend::plain("app-1");
    let other = Authority::mint();
    let front = TlsFront::start(backend.address(), &other.leaf(&["localhost"]));
    let homing = setup(&front).top("watch = true").start().await;
    assert_eq!(Client::h1(&homing).get("/").send().await.status, StatusCode::BAD_GATEWAY);
    fs::write(homing.directory().join("ca.pem"), &other.pem).expect("a file");
    homing.process.stderr.wait_for("(before: as many, others among them)").await;
    eventually("it serves", async || Client::h1(&homing).get("/").send().await.status == StatusCode::OK)
        .await;
}

#[tokio::test]
async fn all_faults_of_the_files_are_told_at_once() {
    let setup = Setup::new::<&Backend>([])
        .backend_at("app-1", "https://localhost:1", "")
        .pool_section(&format!("{CA}\ncert = \"missing.pem\"\nkey = \"proxy.key\""))
        .file("ca.pem", "nothing")
        .file("proxy.key", "");
    let ended = setup.run_to_end("check").await;
    assert!(!ended.status.success());
    for (file, what) in [("ca.pem", "no certificate"), ("missing.pem", "cannot read"), ("proxy.key", "empty")]
    {
        let told = ended.stderr.lines().any(|line| line.contains(file) && line.contains(what));
        assert!(told, "{file}: {}", ended.stderr);
    }
}
