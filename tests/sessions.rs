//! What becomes of a session when ids change, homes go and applications restart.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{Method, Response, StatusCode};

use self::support::{
    app,
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually,
    flow::Body,
    setup::Setup,
};

#[tokio::test]
async fn parallel_requests_of_a_session_that_must_move_agree_on_its_new_home() {
    let mut apps = app::several(3);
    let homing = Setup::new(&apps).workers(4).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 9).await;
    apps[0].stop().await;
    for (user, jar, _) in users.iter().filter(|(_, _, home)| home == "app-1") {
        let calls = (0..20).map(|number| {
            let client = Client::new(&homing, BOTH[number % 2]);
            async move { client.get("/public").jar(jar).send().await.header("x-backend").to_owned() }
        });
        let homes: BTreeSet<String> = futures_util::future::join_all(calls).await.into_iter().collect();
        assert_eq!(homes.len(), 1, "{user}: {homes:?}");
    }
}

#[tokio::test]
async fn parallel_requests_with_one_unknown_id_agree_on_a_home() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).workers(4).start().await;
    for id in ["one", "two", "three"] {
        let calls = (0..20).map(|number| {
            let client = Client::new(&homing, BOTH[number % 2]);
            async move {
                let got = client.get("/public").cookie("session", id).send().await;
                got.header("x-backend").to_owned()
            }
        });
        let homes: BTreeSet<String> = futures_util::future::join_all(calls).await.into_iter().collect();
        assert_eq!(homes.len(), 1, "{id}: {homes:?}");
    }
}

#[tokio::test]
async fn of_several_cookies_that_an_answer_sets_the_last_one_counts() {
    let backend = Backend::start("app-1", |_| async {
        setting(&["session=first", "other=x", "session=last; Path=/; HttpOnly"])
    });
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h1(&homing);
    client.get("/login").send().await;
    client.get("/last").cookie("session", "last").send().await;
    client.get("/first").cookie("session", "first").send().await;
    for (path, verdict) in [("/last", "home"), ("/first", "provisional")] {
        let record = homing.process.access_record("record", |record| record["path"] == path).await;
        assert_eq!(record["verdict"], verdict, "{path}");
    }
}

#[tokio::test]
async fn an_answer_that_is_an_error_may_set_the_cookie_all_the_same() {
    let apps = app::several(2);
    let erring = Backend::start("app-3", |_| async {
        let mut denied = setting(&["session=of-3"]);
        *denied.status_mut() = StatusCode::UNAUTHORIZED;
        denied.headers_mut().insert("x-backend", "app-3".parse().expect("valid"));
        denied
    });
    let homing = Setup::new(&apps).backend(&erring).pool("balance = \"round-robin\"").start().await;
    let client = Client::h1(&homing);
    for _ in 0..3 {
        client.get("/").send().await;
    }
    for _ in 0..5 {
        let got = client.get("/").cookie("session", "of-3").send().await;
        assert_eq!(got.header("x-backend"), "app-3");
    }
}

#[tokio::test]
async fn a_session_may_be_refused_while_its_home_is_down() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).affinity("on_down = \"refuse\"").checked().start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    apps[0].stop().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        if home == "app-1" {
            assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(!got.header("retry-after").is_empty());
        } else {
            assert_eq!(got.text(), user);
        }
    }
    let refused = |record: &serde_json::Value| record["verdict"] == "refused";
    assert_eq!(homing.process.access_record("refusal", refused).await["reason"], "home-down");
    apps[0].restart();
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 1.0).await;
    for (user, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
}

#[tokio::test]
async fn a_session_may_wait_for_its_home() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).affinity("on_down = \"wait:15s\"").checked().start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    let (user, jar, _) = users.iter().find(|(_, _, home)| home == "app-1").expect("one of four").clone();
    apps[0].stop().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    let waiter = client.clone();
    let waiting = tokio::spawn(async move { waiter.get("/whoami").jar(&jar).send().await });
    homing.wait_for_metric("homing_connections", &[], 1.0).await;
    apps[0].restart();
    let got = waiting.await.expect("no panic");
    assert_eq!((got.status, got.text()), (StatusCode::OK, &*user));
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn an_application_that_restarted_has_lost_its_sessions() {
    let instance = Arc::new(AtomicU32::new(1));
    let current = Arc::clone(&instance);
    let restarting = Backend::start("app-1", move |request| {
        let instance = current.load(Ordering::Relaxed);
        let login = request.uri().path() == "/login";
        let mut response =
            if login { setting(&["session=of-1"]) } else { answer(StatusCode::OK, instance.to_string()) };
        response.headers_mut().insert("x-instance", instance.into());
        std::future::ready(response)
    });
    let setup = Setup::new([&restarting]).pool("instance_header = \"x-instance\"");
    let homing = setup.checked().start().await;
    let client = Client::h1(&homing);
    client.get("/login").send().await;
    client.get("/before").cookie("session", "of-1").send().await;
    assert_eq!(homing.metric("homing_sessions", &[]).await, 1.0);
    instance.store(2, Ordering::Relaxed);
    eventually("the restart is noticed", async || {
        client.get("/after").cookie("session", "of-1").send().await;
        let moved = homing.metric("homing_affinity_moves_total", &[("reason", "restarted")]).await;
        let ended = homing.metric("homing_affinity_ended_total", &[("reason", "restarted")]).await;
        moved + ended > 0.0
    })
    .await;
}

#[tokio::test]
async fn a_session_may_be_named_by_a_header_field_and_ended_by_delete() {
    let backends: Vec<Backend> = ["mcp-1", "mcp-2", "mcp-3"].into_iter().map(mcp).collect();
    let homing = Setup::new(&backends).key("header:Mcp-Session-Id").start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for _ in 0..3 {
            let opened = client.post("/mcp").send().await;
            let (id, home) = (opened.header("mcp-session-id"), opened.header("x-backend"));
            for _ in 0..5 {
                let got = client.post("/mcp").header("mcp-session-id", id).send().await;
                assert_eq!(got.header("x-backend"), home);
            }
            assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 1.0);
            client.request(Method::DELETE, "/mcp").header("mcp-session-id", id).send().await;
            assert_eq!(homing.metric("homing_sessions", &[]).await, 0.0);
        }
    }
}

#[tokio::test]
async fn clients_may_be_told_apart_by_their_address() {
    let apps = app::several(3);
    let trusting = Setup::new(&apps).key("address").top("trusted_proxies = [\"127.0.0.0/8\"]");
    let homing = trusting.start().await;
    let client = Client::h1(&homing);
    let mut homes = BTreeSet::new();
    for last in 1..20 {
        let address = format!("203.0.113.{last}");
        let mut of_one = BTreeSet::new();
        for _ in 0..3 {
            let got = client.get("/public").header("x-forwarded-for", &address).send().await;
            of_one.insert(got.header("x-backend").to_owned());
        }
        assert_eq!(of_one.len(), 1, "{address}: {of_one:?}");
        homes.append(&mut of_one);
    }
    assert_eq!(homes.len(), 3, "{homes:?}");
}

/// A server that names its sessions in a header field.
fn mcp(name: &'static str) -> Backend {
    let made = AtomicU32::new(0);
    Backend::start(name, move |request| {
        let mut response = answer(StatusCode::OK, "");
        response.headers_mut().insert("x-backend", name.parse().expect("valid"));
        if !request.headers().contains_key("mcp-session-id") {
            let id = format!("{name}-{}", made.fetch_add(1, Ordering::Relaxed));
            response.headers_mut().insert("mcp-session-id", id.parse().expect("valid"));
        }
        std::future::ready(response)
    })
}

fn setting(cookies: &[&str]) -> Response<Body> {
    let mut response = answer(StatusCode::OK, "");
    for cookie in cookies {
        response.headers_mut().append("set-cookie", cookie.parse().expect("valid"));
    }
    response
}
