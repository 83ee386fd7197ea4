//! How sessions are kept, replaced, forgotten and remembered: the rows of the README's tables that take time,
//! a full table, or a reload.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{collections::BTreeSet, fs};

use http::{Response, StatusCode, header::SET_COOKIE};

use self::support::{
    app,
    backend::{Backend, answer},
    call::Answer,
    client::{BOTH, Client},
    eventually,
    flow::Body,
    process::Homing,
    setup::Setup,
};

#[tokio::test]
async fn a_replaced_id_leads_to_its_session_for_a_while() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).affinity("grace = \"1m\"").start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let (mut jar, home) = app::login(&client, "ada").await;
        let old = jar.value("session").expect("a session").to_owned();
        jar.store(&client.get("/rotate").jar(&jar).send().await.headers);
        let late = client.get("/public?late").cookie("session", &old).send().await;
        assert_eq!(late.header("x-backend"), home);
    }
    let record = homing.process.access_record("late", |record| record["reason"] == "renamed").await;
    assert_eq!(record["verdict"], "home");
    assert_eq!(homing.metric("homing_affinity_renames_total", &[]).await, 2.0);
    assert_eq!(homing.metric("homing_sessions", &[]).await, 2.0);
}

#[tokio::test]
async fn an_unknown_id_is_forgotten_when_the_backend_sets_another() {
    let backend = Backend::start("app-1", |_| async { setting("session=mine; Path=/") });
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h1(&homing);
    for path in ["/first", "/second"] {
        client.get(path).cookie("session", "made-up").send().await;
        let record = homing.process.access_record(path, |record| record["path"] == path).await;
        assert_eq!(record["verdict"], "provisional", "{path}");
    }
    assert_eq!(homing.metric("homing_sessions", &[]).await, 1.0);
}

#[tokio::test]
async fn an_unknown_id_that_a_backend_accepts_becomes_a_session() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let first = client.get("/public").cookie("session", "from-before").send().await;
    let second = client.get("/public?again").cookie("session", "from-before").send().await;
    assert_eq!(first.header("x-backend"), second.header("x-backend"));
    assert_eq!(homing.metric("homing_affinity_requests_total", &[("verdict", "home")]).await, 1.0);
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 1.0);
}

#[tokio::test]
async fn a_cookie_that_lasts_longer_keeps_its_session_longer() {
    let backend = Backend::start("app-1", |request| {
        let lasting = if request.uri().path() == "/long" { "; Max-Age=3600" } else { "" };
        std::future::ready(setting(&format!("session=of{}{lasting}", request.uri().path())))
    });
    let setup = Setup::new([&backend]).session_timeout("300ms").affinity("ttl = \"600ms\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    client.get("/long").send().await;
    client.get("/short").send().await;
    homing.wait_for_metric("homing_affinity_ended_total", &[("reason", "expired")], 1.0).await;
    assert_eq!(homing.metric("homing_sessions", &[("state", "retained")]).await, 1.0);
    homing.process.stderr.wait_for("lasts longer than `ttl`").await;
}

#[tokio::test]
async fn an_expired_id_that_its_application_still_knows_goes_home_and_is_reported() {
    let apps = app::several(3);
    let setup = Setup::new(&apps).session_timeout("200ms").affinity("ttl = \"400ms\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 6).await;
    homing.wait_for_metric("homing_sessions", &[], 0.0).await;
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
    }
    assert_eq!(homing.metric("homing_affinity_late_hits_total", &[]).await, 6.0);
    let record = homing.process.access_record("late", |record| record["reason"] == "expired").await;
    assert_eq!(record["verdict"], "provisional");
    homing.process.stderr.wait_for("raise `ttl`").await;
}

#[tokio::test]
async fn a_full_table_keeps_its_live_sessions_and_says_so() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).affinity("max_sessions = 3").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 5).await;
    for (user, jar, _) in &users[..3] {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 3.0);
    assert!(homing.metric("homing_affinity_full_total", &[]).await >= 2.0);
    homing.process.stderr.wait_for("max_sessions").await;
}

#[tokio::test]
async fn a_full_table_makes_room_of_retained_sessions() {
    let apps = app::several(2);
    let setup = Setup::new(&apps).session_timeout("300ms").affinity("max_sessions = 3\nttl = \"1h\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    app::login_all(&client, 3).await;
    homing.wait_for_metric("homing_sessions", &[("state", "retained")], 3.0).await;
    let (jar, _) = app::login(&client, "new").await;
    assert_eq!(client.get("/whoami").jar(&jar).send().await.text(), "new");
    assert_eq!(homing.metric("homing_affinity_ended_total", &[("reason", "capacity")]).await, 1.0);
    assert_eq!(homing.metric("homing_sessions", &[]).await, 3.0);
}

#[tokio::test]
async fn the_sessions_of_a_backend_that_is_cut_from_the_configuration_move() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).pool("leave = \"cut\"").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 9).await;
    let lost = users.iter().filter(|(_, _, home)| home == "app-3").count() as f64;
    rewrite(&homing, |text| without_backend(text, "app-3"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("- app-3").await;
    assert_eq!(homing.metric("homing_sessions", &[]).await, 9.0 - lost);
    for (user, jar, home) in &users {
        let got = client.get("/whoami").jar(jar).send().await;
        if home == "app-3" {
            assert_ne!(got.header("x-backend"), "app-3");
        } else {
            assert_eq!(got.text(), user);
        }
    }
    let removed = |record: &serde_json::Value| record["reason"] == "removed";
    assert_eq!(homing.process.access_record("move", removed).await["verdict"], "moved");
}

#[tokio::test]
async fn a_cut_backend_that_comes_back_gets_back_the_sessions_that_did_not_move() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).pool("leave = \"cut\"").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 9).await;
    let file = homing.directory().join("homing.toml");
    let whole = fs::read_to_string(&file).expect("the configuration");
    rewrite(&homing, |text| without_backend(text, "app-3"));
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("- app-3").await;
    fs::write(&file, whole).expect("the configuration");
    homing.process.signal("HUP");
    homing.process.stderr.wait_for("+ app-3").await;
    assert_eq!(homing.metric("homing_sessions", &[]).await, 9.0);
    for (user, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
}

#[tokio::test]
async fn a_bearer_token_is_a_session_of_its_own() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).key("bearer").start().await;
    let mut homes = BTreeSet::new();
    for token in 0..20 {
        let token = format!("Bearer token-{token}");
        let mut of_one = BTreeSet::new();
        for protocol in BOTH {
            let client = Client::new(&homing, protocol);
            let got: Answer = client.get("/public").header("authorization", &token).send().await;
            of_one.insert(got.header("x-backend").to_owned());
        }
        assert_eq!(of_one.len(), 1, "{token}");
        homes.extend(of_one);
    }
    assert_eq!(homes.len(), 3);
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 20.0);
}

#[tokio::test]
async fn several_different_ids_of_one_request_are_counted_as_ambiguous() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "ada").await;
    let id = jar.value("session").expect("a session");
    let cookies = format!("session=stale; session={id}");
    for _ in 0..3 {
        let got = client.get("/whoami").header("cookie", &cookies).send().await;
        assert_eq!((got.status, got.header("x-backend")), (StatusCode::OK, &*home));
    }
    eventually("they are counted", async || {
        homing.metric("homing_affinity_ambiguous_total", &[]).await == 3.0
    })
    .await;
    homing.process.stderr.wait_for("several different session cookies").await;
}

fn setting(cookie: &str) -> Response<Body> {
    let mut response = answer(StatusCode::OK, "well");
    response.headers_mut().append(SET_COOKIE, cookie.parse().expect("a valid field value"));
    response
}

fn rewrite(homing: &Homing, change: impl Fn(&str) -> String) {
    let file = homing.directory().join("homing.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, change(&text)).expect("the configuration");
}

fn without_backend(text: &str, name: &str) -> String {
    let named = format!("name = \"{name}\"");
    let parts = text.split("[[pool.backend]]").filter(|part| !part.contains(&named));
    parts.collect::<Vec<_>>().join("[[pool.backend]]")
}
