//! Who may do what on the admin listener.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _};

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use self::support::{
    app,
    backend::Backend,
    flow::full,
    metrics::Metrics,
    operator::{Operator, TOKEN, TokenFile},
    process::{Homing, Process},
    setup::Setup,
    within,
};

const DRAIN: &str = "pools/app/backends/app-1/drain";

#[tokio::test]
async fn changes_need_the_token() {
    let (apps, file) = (app::several(1), TokenFile::new());
    let homing = Setup::new(&apps).section(&file.section()).start().await;
    let operator = Operator::of(&homing);
    let paths = [
        DRAIN,
        "pools/app/backends/app-1/undrain",
        "pools/app/backends/app-1/maintenance",
        "pools/app/backends/app-1/weight",
        "sessions/forget",
        "sessions/move",
        "reload",
    ];
    for path in paths {
        let without = operator.post(path, json!({})).await;
        assert_eq!(without.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(without.header("www-authenticate"), "Bearer realm=\"homing\"");
        for wrong in ["", "wrong", &TOKEN[1..], &format!("{TOKEN}x"), &TOKEN.to_uppercase()] {
            let answer = operator.clone().token(wrong).post(path, json!({})).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} with {wrong:?}");
        }
    }
    assert_eq!(operator.backend("app-1").await["admin"], "ready", "nothing has changed");
    let drained = operator.clone().token(TOKEN).steer("app-1", "drain", json!({})).await;
    assert_eq!(drained["state"], "draining");
}

#[tokio::test]
async fn the_log_level_is_a_change_too() {
    let (apps, file) = (app::several(1), TokenFile::new());
    let homing = Setup::new(&apps).section(&file.section()).start().await;
    let body = || Some(json!({ "filter": "debug" }).to_string());
    let without = Operator::of(&homing).send(Method::PUT, "/api/v1/log", body()).await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    let with = Operator::of(&homing).token(TOKEN).send(Method::PUT, "/api/v1/log", body()).await;
    assert_eq!(with.text(), "{\"filter\":\"debug\"}\n");
}

#[tokio::test]
async fn reading_is_open_on_loopback() {
    let (apps, file) = (app::several(1), TokenFile::new());
    let homing = Setup::new(&apps).section(&file.section()).start().await;
    let operator = Operator::of(&homing);
    assert_eq!(operator.read("status").await["changes"], "token");
    assert_eq!(operator.read(DRAIN).await["done"], true);
    assert_eq!(operator.explain("nobody").await["known"], false);
    let wrong = operator.token("wrong").get("/api/v1/status").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "who presents a token believes in it");
}

#[tokio::test]
async fn without_a_token_changes_are_refused_on_loopback_unless_they_are_allowed() {
    let apps = app::several(1);
    let closed = Setup::new(&apps).start().await;
    let answer = Operator::of(&closed).post(DRAIN, json!({})).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text().contains("token_file"), "{}", answer.text());
    assert_eq!(Operator::of(&closed).read("status").await["changes"], "refused");
    let open = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    assert_eq!(Operator::of(&open).read("status").await["changes"], "open");
    assert_eq!(Operator::of(&open).steer("app-1", "drain", json!({})).await["state"], "draining");
}

#[tokio::test]
async fn names_that_may_be_rebound_are_refused() {
    let apps = app::several(1);
    let section = "[admin]\nallow_changes = true\nhosts = [\"ops.example\"]";
    let homing = Setup::new(&apps).section(section).start().await;
    for (host, status) in [
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("ops.example", 200),
        ("OPS.example:1234", 200),
        ("localhost:1", 200),
        ("[::1]", 200),
    ] {
        let operator = Operator::of(&homing).field("host", host);
        assert_eq!(operator.get("/api/v1/status").await.status, status, "{host}");
        assert_eq!(operator.get("/metrics").await.status, status, "{host}");
        assert_eq!(operator.get("/").await.status, status, "{host}");
        assert_eq!(operator.post(DRAIN, json!({})).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    let own = format!("http://{}", homing.admin());
    for (name, value, status) in [
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://127.0.0.1:1", 403),
        ("origin", &*own, 200),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
    ] {
        let operator = Operator::of(&homing).field(name, value);
        assert_eq!(operator.post(DRAIN, json!({})).await.status, status, "{name}: {value}");
        assert_eq!(operator.get("/api/v1/status").await.status, status, "{name}: {value}");
    }
    let answer = Operator::of(&homing).field("origin", &own).get("/api/v1/status").await;
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")), "no CORS");
}

#[tokio::test]
async fn a_simple_form_of_another_site_cannot_pose_as_json() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
    {
        let operator = Operator::of(&homing).field("content-type", kind);
        let answer = operator.post(DRAIN, json!({ "deadline_seconds": 1 })).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
}

#[tokio::test]
async fn a_listener_for_the_network_without_a_token_shows_health_and_metrics_only() {
    let backend = Backend::plain("app-1");
    let homing = on_the_network(Setup::new([&backend]).section("[admin]\nallow_changes = true")).await;
    let operator = Operator::of(&homing).field("host", "homing.monitoring.svc");
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(operator.get(path).await.status, StatusCode::OK, "{path}");
    }
    let operator = Operator::of(&homing);
    for path in ["/", "/api/v1/status", "/api/v1/events", "/api/v1/log"] {
        let answer = operator.get(path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.text().contains("token_file"), "{}", answer.text());
    }
    assert_eq!(operator.post(DRAIN, json!({})).await.status, StatusCode::FORBIDDEN);
    assert_eq!(operator.post("explain", json!({ "id": "x" })).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_listener_for_the_network_wants_the_token_for_everything_else() {
    let (backend, file) = (Backend::plain("app-1"), TokenFile::new());
    let homing = on_the_network(Setup::new([&backend]).section(&file.section())).await;
    let operator = Operator::of(&homing);
    assert_eq!(operator.get("/metrics").await.status, StatusCode::OK);
    assert_eq!(operator.get("/").await.status, StatusCode::OK, "the page holds no data");
    for path in ["/api/v1/status", "/api/v1/events", "/api/v1/log"] {
        assert_eq!(operator.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(operator.token(TOKEN).read("status").await["changes"], "token");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_who_may_change_things() {
    let backend = Backend::plain("app-1");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("admin.sock");
    let section = format!("[admin]\nsocket = \"{}\"", socket.display());
    let homing = Setup::new([&backend]).section(&section).start().await;
    let mode = fs::metadata(&socket).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let (status, body) = over(&socket, Method::POST, &format!("/api/v1/{DRAIN}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["state"], "draining");
    assert_eq!(over(&socket, Method::GET, "/api/v1/status").await.1["changes"], "open");
    homing.process.stderr.wait_for("by=socket uid=").await;
    homing.process.terminate();
    homing.process.wait_exit().await;
    assert!(!socket.exists(), "removed at exit");
}

#[tokio::test]
async fn the_socket_of_a_killed_program_is_replaced() {
    let backend = Backend::plain("app-1");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("admin.sock");
    let section = format!("[admin]\nsocket = \"{}\"", socket.display());
    let first = Setup::new([&backend]).section(&section).start().await;
    let second = Setup::new([&backend]).section(&section).run_to_end("serve").await;
    assert!(!second.status.success(), "the first one has it");
    assert!(second.stderr.contains("in use by another program"), "{}", second.stderr);
    first.process.kill();
    assert!(socket.exists());
    let _third = Setup::new([&backend]).section(&section).start().await;
    assert_eq!(over(&socket, Method::GET, "/api/v1/status").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_others_may_read_keeps_the_program_from_starting() {
    let (backend, file) = (Backend::plain("app-1"), TokenFile::new());
    file.write(TOKEN, 0o644);
    for subcommand in ["serve", "check"] {
        let ended = Setup::new([&backend]).section(&file.section()).run_to_end(subcommand).await;
        assert!(!ended.status.success(), "{subcommand}");
        assert!(ended.stderr.contains("chmod 600"), "{subcommand}: {}", ended.stderr);
        assert!(!ended.stderr.contains(TOKEN), "{subcommand}");
    }
}

#[tokio::test]
async fn a_reload_takes_another_token_and_keeps_the_old_one_when_it_cannot() {
    let (backend, file) = (Backend::plain("app-1"), TokenFile::new());
    let homing = Setup::new([&backend]).section(&file.section()).start().await;
    let old = Operator::of(&homing).token(TOKEN);
    file.write("another-token-of-the-tests", 0o644);
    let refused = old.post("reload", json!({})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text().contains("chmod 600"), "{}", refused.text());
    assert_eq!(old.read("status").await["config"]["last_reload_ok"], false);
    file.write("another-token-of-the-tests", 0o600);
    let told = format!("token file {}: changed", file.path().display());
    assert_eq!(old.change("reload", json!({})).await["applied"], json!([told]));
    assert_eq!(old.post("reload", json!({})).await.status, StatusCode::UNAUTHORIZED);
    let new = Operator::of(&homing).token("another-token-of-the-tests");
    assert_eq!(new.post("reload", json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_page_says_what_it_may_load() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let answer = Operator::of(&homing).get("/").await;
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn requests_are_counted_by_result() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let operator = Operator::of(&homing);
    operator.get("/api/v1/status").await;
    operator.get("/api/v1/nothing").await;
    operator.post(DRAIN, json!({})).await;
    let metrics = Metrics::fetch(&homing).await;
    for (result, count) in [("invalid", 1.0), ("forbidden", 1.0), ("unauthorized", 0.0), ("failed", 0.0)] {
        assert_eq!(metrics.value("homing_admin_requests_total", &[("result", result)]), count, "{result}");
    }
}

/// Starts a program whose admin listener is on every address.
async fn on_the_network(setup: Setup) -> Homing {
    let (directory, file) = setup.write();
    let arguments =
        ["serve".as_ref(), "--config".as_ref(), file.as_os_str(), "--admin".as_ref(), "0.0.0.0:0".as_ref()];
    Homing::ready(Process::spawn(arguments), false, directory).await
}

/// A request over a Unix socket.
async fn over(socket: &std::path::Path, method: Method, path: &str) -> (StatusCode, Value) {
    let exchange = async {
        let stream = UnixStream::connect(socket).await.expect("the socket");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.body(full("")).expect("a valid request");
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    };
    within("an answer over the socket", exchange).await
}
