//! Loading the configuration anew while the proxy serves.

#[path = "reload/backends.rs"]
mod backends;
#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use self::support::{
    app,
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually,
    metrics::Metrics,
    operator::{Operator, run},
    pki::{Authority, Leaf},
    process::Homing,
    setup::Setup,
    within,
};

const RELOADS: &str = "homing_config_reloads_total";

#[tokio::test]
async fn a_hundred_reloads_under_load_lose_nothing() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).checked().start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 6).await;
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU32::new(0));
    let mut loads = Vec::new();
    for (index, (user, jar, _)) in users.into_iter().enumerate() {
        let client = Client::new(&homing, BOTH[index % 2]);
        let (done, served) = (Arc::clone(&done), Arc::clone(&served));
        loads.push(tokio::spawn(async move {
            // One connection from the first reload to the last.
            let connection = client.connect().await;
            while !done.load(Ordering::Relaxed) {
                let got = connection.get("/whoami").jar(&jar).send().await;
                assert_eq!((got.status, got.text()), (StatusCode::OK, &*user));
                served.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let (held, _) = app::login(&client, "held").await;
    let cookie = format!("session={}", held.value("session").expect("logged in"));
    let mut socket = client.websocket("/ws", &cookie).await;
    for number in 0_u32..100 {
        let weight = 1 + number % 2;
        rewrite(&homing, |text| {
            let plain = text.replace("weight = 1\n", "").replace("weight = 2\n", "");
            plain.replace("name = \"app-1\"\n", &format!("name = \"app-1\"\nweight = {weight}\n"))
        });
        homing.process.signal("HUP");
        homing.wait_for_metric(RELOADS, &[("result", "ok")], f64::from(number + 1)).await;
        socket.send(Message::text(number.to_string())).await.expect("an open socket");
        let echo = within("the echo", socket.next()).await.expect("an open socket").expect("a message");
        assert_eq!(echo.into_text().expect("a text"), number.to_string());
    }
    done.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.expect("no lost request");
    }
    assert!(served.load(Ordering::Relaxed) > 100);
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 7.0);
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 3.0);
    assert_eq!(homing.metric("homing_backend_weight", &[("backend", "app-1")]).await, 2.0);
}

#[tokio::test]
async fn a_mistake_keeps_the_old_configuration_and_is_explained() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 2).await;
    rewrite(&homing, |text| text.replace("session_timeout", "sesion_timeout"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("did you mean `session_timeout`").await;
    homing.process.stderr.wait_for("the old one stays").await;
    homing.wait_for_metric(RELOADS, &[("result", "failed")], 1.0).await;
    assert_eq!(homing.metric("homing_config_last_reload_successful", &[]).await, 0.0);
    for (user, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_keeps_the_old_one() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let before = client.connect().await.handshake.leaf;
    fs::write(homing.directory().join("cert-0.pem"), "").expect("the certificate");
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("cert-0.pem").await;
    assert_eq!(Client::h1(&homing).connect().await.handshake.leaf, before);
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let kept = Client::h1(&homing).connect().await;
    let renewed = renew(&homing);
    homing.process.signal("HUP");
    eventually("it is served", async || Client::h1(&homing).connect().await.handshake.leaf == renewed.der)
        .await;
    assert_eq!(kept.get("/public").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reload_says_what_became_of_a_certificate() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    let operator = Operator::of(&homing);
    let same = operator.change("reload", json!({})).await;
    assert_eq!(
        (&same["applied"], &same["restart"]),
        (&json!([]), &json!([])),
        "unchanged files are not news"
    );
    let other = Authority::get().leaf(&["other.test"]);
    write(&homing, &other);
    let told = operator.change("reload", json!({})).await["applied"].clone();
    let words = told[0].as_str().expect("a change");
    assert!(
        words.starts_with("certificate ") && words.contains("cert-0.pem: other.test, valid until "),
        "{told}"
    );
    assert!(words.contains("(before: localhost, valid until "), "{told}");
    homing.process.stderr.wait_for(words).await;
    // Of the same names.
    write(&homing, &Authority::get().leaf(&["other.test"]));
    let ended = run(&homing, &["reload"]).await;
    assert!(
        ended.stdout.contains("cert-0.pem: other.test") && !ended.stdout.contains("nothing"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_ends_earlier_than_before_is_warned_of() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    write(&homing, &Authority::get().expired_leaf(&["localhost"]));
    let told = Operator::of(&homing).change("reload", json!({})).await;
    for (index, words) in ["ends at 2020-01-01T00:00:00Z, earlier", "has expired at 2020"].iter().enumerate()
    {
        assert!(told["warnings"][index].as_str().expect("a warning").contains(words), "{told}");
    }
    homing.process.stderr.wait_for("earlier than the one before it").await;
}

#[tokio::test]
async fn a_reload_says_what_became_of_authorities_and_lists() {
    let (one, other) = (Authority::named("one"), Authority::named("other"));
    let apps = app::several(1);
    let homing = Setup::new(&apps)
        .file("ca.pem", &one.pem)
        .file("list.pem", &one.revoke(&[1]))
        .section("[admin]\nallow_changes = true")
        .section("[tls]\nclient_ca = \"ca.pem\"\nclient_crl = \"list.pem\"\nclient_auth = \"optional\"")
        .start()
        .await;
    let operator = Operator::of(&homing);
    fs::write(homing.directory().join("ca.pem"), format!("{}{}", one.pem, other.pem)).expect("a file");
    let told = operator.change("reload", json!({})).await["applied"].clone();
    let words = told[0].as_str().expect("a change");
    assert!(
        words.starts_with("client CA ") && words.ends_with("2 certificates (before: 1 certificate)"),
        "{told}"
    );
    fs::write(homing.directory().join("list.pem"), one.revoke(&[1, 2])).expect("a file");
    let told = operator.change("reload", json!({})).await["applied"].clone();
    assert!(told[0].as_str().expect("a change").starts_with("client CRL "), "{told}");
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
}

#[tokio::test]
async fn a_secret_that_changed_is_told_as_what_needs_a_restart() {
    let apps = app::several(1);
    let homing = Setup::new(&apps)
        .top("secret_file = \"the.secret\"")
        .section("[admin]\nallow_changes = true")
        .start()
        .await;
    let file = homing.directory().join("the.secret");
    let operator = Operator::of(&homing);
    assert_eq!(operator.change("reload", json!({})).await["restart"], json!([]), "the start made it");
    fs::write(&file, "0123456789abcdef0123456789abcdef\n").expect("our file");
    for _ in 0..2 {
        let told = operator.change("reload", json!({})).await;
        assert_eq!(told["restart"], json!([format!("secret file {}: changed", file.display())]));
    }
}

#[tokio::test]
async fn a_changed_file_is_loaded_by_itself_when_it_is_watched() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).top("watch = true").start().await;
    let renewed = renew(&homing);
    eventually("it is served", async || Client::h1(&homing).connect().await.handshake.leaf == renewed.der)
        .await;
}

#[tokio::test]
async fn a_change_that_needs_a_restart_is_named() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).workers(2).start().await;
    rewrite(&homing, |text| text.replace("workers = 2", "workers = 3"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("takes effect only after a restart: workers 2 -> 3").await;
    assert_eq!(Client::h1(&homing).get("/public").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_backend_that_joins_is_named_and_gets_sessions() {
    let apps = app::several(3);
    let homing = Setup::new(&apps[..2]).pool("slow_start = \"0s\"").start().await;
    let member = format!("[[pool.backend]]\nname = \"app-3\"\nurl = \"http://{}\"\n", apps[2].address());
    rewrite(&homing, |text| format!("{text}\n{member}"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("+ app-3").await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 9).await;
    assert!(users.iter().any(|(_, _, home)| home == "app-3"));
}

#[tokio::test]
async fn the_series_of_a_backend_that_left_are_gone() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    rewrite(&homing, |text| without(text, "app-2"));
    homing.process.signal("HUP");
    homing.wait_for_metric(RELOADS, &[("result", "ok")], 1.0).await;
    let metrics = Metrics::fetch(&homing).await;
    for name in ["homing_sessions", "homing_backend_up", "homing_backend_requests_total"] {
        assert!(metrics.has(name, &[("backend", "app-1")]), "{name}");
        assert!(!metrics.has(name, &[("backend", "app-2")]), "{name}");
    }
}

/// Writes a new certificate in place of the first.
fn renew(homing: &Homing) -> Leaf {
    let renewed = Authority::get().leaf(&["localhost", "127.0.0.1"]);
    write(homing, &renewed);
    renewed
}

#[tokio::test]
async fn a_hung_backend_goes_down_under_steady_reloads() {
    let hung = Arc::new(AtomicBool::new(false));
    let hangs = Arc::clone(&hung);
    let backend = Backend::start("app-1", move |_| {
        let hangs = Arc::clone(&hangs);
        async move {
            if hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            answer(StatusCode::OK, "ok")
        }
    });
    let check =
        "[pool.health]\npath = \"/healthz\"\ninterval = \"100ms\"\ntimeout = \"600ms\"\nrise = 1\nfall = 2";
    let homing = Setup::new([&backend]).pool_section(check).start().await;
    eventually("it is checked", async || !backend.seen_at("/healthz").is_empty()).await;
    hung.store(true, Ordering::Relaxed);
    eventually("it is down", async || {
        homing.process.signal("HUP");
        homing.metric("homing_backend_up", &[("backend", "app-1")]).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_reload_makes_no_health_check_out_of_turn() {
    let backend = Backend::plain("app-1");
    let check = "[pool.health]\npath = \"/healthz\"\ninterval = \"1h\"";
    let homing = Setup::new([&backend]).pool_section(check).start().await;
    eventually("it is checked once", async || backend.seen_at("/healthz").len() == 1).await;
    for number in 1..=20 {
        rewrite(&homing, |text| {
            let plain = text.replace("weight = 1\n", "").replace("weight = 2\n", "");
            plain.replace("name = \"app-1\"\n", &format!("name = \"app-1\"\nweight = {}\n", 1 + number % 2))
        });
        homing.process.signal("HUP");
        homing.wait_for_metric(RELOADS, &[("result", "ok")], f64::from(number)).await;
    }
    assert_eq!(backend.seen_at("/healthz").len(), 1);
}

#[tokio::test]
async fn a_shorter_interval_and_another_path_are_taken_up_by_the_watch_that_runs() {
    let backend = Backend::start("app-1", |request| async move {
        let good = request.uri().path() != "/bad";
        answer(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, "")
    });
    let check = "[pool.health]\npath = \"/good\"\ninterval = \"1h\"\nrise = 1\nfall = 2";
    let homing = Setup::new([&backend]).pool_section(check).start().await;
    eventually("it is checked", async || backend.seen_at("/good").len() == 1).await;
    rewrite(&homing, |text| text.replace("\"/good\"", "\"/bad\"").replace("\"1h\"", "\"200ms\""));
    homing.process.signal("HUP");
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    rewrite(&homing, |text| text.replace("\"/bad\"", "\"/good\""));
    homing.process.signal("HUP");
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 1.0).await;
}

/// Writes this one in place of the first.
fn write(homing: &Homing, leaf: &Leaf) {
    // Key first, as certbot does: in between, a watcher must not take the pair for good.
    fs::write(homing.directory().join("key-0.pem"), &leaf.key).expect("the key");
    fs::write(homing.directory().join("cert-0.pem"), &leaf.cert).expect("the certificate");
}

fn rewrite(homing: &Homing, change: impl Fn(&str) -> String) {
    let file = homing.directory().join("homing.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, change(&text)).expect("the configuration");
}

/// The configuration without the table of this backend.
fn without(text: &str, name: &str) -> String {
    let name = format!("\"{name}\"");
    let parts: Vec<_> = text.split("[[pool.backend]]").filter(|part| !part.contains(&name)).collect();
    parts.join("[[pool.backend]]")
}
