//! What operators see and change through the admin API.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::support::{
    app,
    client::Client,
    eventually,
    metrics::Metrics,
    operator::{Operator, rewrite},
    process::Homing,
    setup::Setup,
    within,
};

const OPEN: &str = "[admin]\nallow_changes = true";

#[tokio::test]
async fn the_status_tells_of_pools_backends_and_sessions() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    app::login_all(&Client::h1(&homing), 4).await;
    let status = Operator::of(&homing).read("status").await;
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["requests_total"], 4);
    assert!(
        status["config"]["file"].as_str().is_some_and(|file| file.ends_with("homing.toml")),
        "{status:#}"
    );
    let pool = &status["pools"][0];
    for (field, wanted) in [
        ("name", json!("app")),
        ("balance", "least-sessions".into()),
        ("entries", 4.into()),
        ("learned", 4.into()),
        ("skew", 1.0.into()),
        ("session_timeout_seconds", 1800.0.into()),
    ] {
        assert_eq!(pool[field], wanted, "{field} of {pool:#}");
    }
    assert_eq!(pool["verdicts"]["placed"], 4);
    assert_eq!(pool["verdicts"]["refused"], 0);
    for (index, backend) in pool["backends"].as_array().expect("backends").iter().enumerate() {
        assert_eq!(backend["url"], format!("http://{}", apps[index].address()));
        for (field, wanted) in [
            ("state", json!("up")),
            ("live", 2.into()),
            ("retained", 0.into()),
            ("share", 0.5.into()),
            ("weight", 1.into()),
            ("requests_total", 2.into()),
            ("errors_total", 0.into()),
            ("drain_eta_seconds", Value::Null),
        ] {
            assert_eq!(backend[field], wanted, "{field} of {backend:#}");
        }
        assert!(backend["latency_seconds"]["p99"].as_f64().is_some_and(|p99| p99 > 0.0), "{backend:#}");
    }
}

#[tokio::test]
async fn events_bring_the_status_at_once_and_again() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let mut stream = follow(&homing).await;
    let mut text = String::new();
    within("two events", async {
        while text.matches("event: status\ndata: {").count() < 2 {
            let mut buffer = [0; 16 * 1024];
            let length = stream.read(&mut buffer).await.expect("more");
            assert!(length > 0, "closed after {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    })
    .await;
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    assert!(text.contains("\"changes\":\"refused\""), "{text}");
}

#[tokio::test]
async fn followers_of_events_are_bounded_and_make_room_when_they_go() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let mut followers = Vec::new();
    for _ in 0..16 {
        let mut stream = follow(&homing).await;
        let mut first = [0; 15];
        within("an answer", stream.read_exact(&mut first)).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        followers.push(stream);
    }
    assert_eq!(Operator::of(&homing).get("/api/v1/events").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        Operator::of(&homing).get("/metrics").await.status,
        StatusCode::OK,
        "there is room for a scrape"
    );
    drop(followers);
    eventually("there is room again", async || {
        let mut stream = follow(&homing).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.is_ok() && &first == b"HTTP/1.1 200"
    })
    .await;
}

#[tokio::test]
async fn the_sessions_of_a_backend_are_paged_and_show_no_id() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    app::login_all(&Client::h1(&homing), 5).await;
    let operator = Operator::of(&homing);
    let mut seen = Vec::new();
    for (skip, length, more) in [(0, 2, true), (2, 2, true), (4, 1, false)] {
        let path = format!("pools/app/backends/app-1/sessions?skip={skip}&limit=2");
        let page = operator.read(&path).await;
        assert_eq!(page["more"], more);
        let sessions = page["sessions"].as_array().expect("sessions");
        assert_eq!(sessions.len(), length);
        assert!(!page.to_string().contains("secret"), "{page}");
        assert_eq!(sessions[0]["state"], "live");
        seen.extend(sessions.iter().map(|session| session["fingerprint"].to_string()));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5, "each once");
}

#[tokio::test]
async fn explain_tells_the_home_before_and_after_it_went_down() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).checked().start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let id = jar.value("session").expect("a session");
    let operator = Operator::of(&homing);
    let before = operator.explain(id).await;
    assert_eq!(
        (&before["home"], &before["state"], &before["moves"]),
        (&json!(home), &json!("live"), &json!([]))
    );
    let index = apps.iter().position(|app| app.name == home).expect("one of them");
    apps[index].stop().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", &home)], 0.0).await;
    let other = apps[1 - index].name.clone();
    // Public, since the other backend does not know the session.
    client.get("/public").jar(&jar).send().await;
    let after = operator.explain(id).await;
    assert_eq!(after["home"], other);
    assert_eq!(after["moves"].as_array().map(Vec::len), Some(1), "{after:#}");
    let step = &after["moves"][0];
    assert_eq!((&step["from"], &step["to"], &step["reason"]), (&json!(home), &json!(other), &json!("down")));
}

#[tokio::test]
async fn an_unknown_id_goes_where_explain_says() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    for number in 0..5 {
        let id = format!("made-up-{number}");
        let explained = Operator::of(&homing).explain(&id).await;
        assert_eq!(explained["known"], false);
        let answer = Client::h1(&homing).get("/public").cookie("session", &id).send().await;
        assert_eq!(explained["would_go_to"], answer.header("x-backend"), "{id}");
    }
}

#[tokio::test]
async fn an_operator_moves_a_session() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let id = jar.value("session").expect("a session");
    let other = if home == "app-1" { "app-2" } else { "app-1" };
    let operator = Operator::of(&homing);
    let wish = json!({ "id": id, "to": other });
    assert_eq!(operator.change("sessions/move", wish.clone()).await, json!({ "moved": true, "known": true }));
    assert_eq!(client.get("/public").jar(&jar).send().await.header("x-backend"), other);
    assert_eq!(operator.explain(id).await["moves"][0]["reason"], "admin");
    assert_eq!(operator.change("sessions/move", wish).await, json!({ "moved": false, "known": true }));
    let unknown = operator.change("sessions/move", json!({ "id": "x", "to": other })).await;
    assert_eq!(unknown, json!({ "moved": false, "known": false }));
}

#[tokio::test]
async fn a_session_is_moved_only_to_a_backend_that_serves() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let (jar, home) = app::login(&Client::h1(&homing), "anna").await;
    let id = jar.value("session").expect("a session");
    let other = if home == "app-1" { "app-2" } else { "app-1" };
    let operator = Operator::of(&homing);
    operator.steer(other, "maintenance", json!({})).await;
    let wish = |to: &str| json!({ "id": id, "to": to });
    assert_eq!(operator.post("sessions/move", wish(other)).await.status, StatusCode::CONFLICT);
    assert_eq!(operator.post("sessions/move", wish("app-9")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(operator.explain(id).await["home"], home);
}

#[tokio::test]
async fn a_forgotten_session_is_known_no_more() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let (jar, home) = app::login(&Client::h1(&homing), "anna").await;
    let id = jar.value("session").expect("a session");
    let operator = Operator::of(&homing);
    assert_eq!(operator.change("sessions/forget", json!({ "id": id })).await["forgotten"], true);
    assert_eq!(operator.change("sessions/forget", json!({ "id": id })).await["forgotten"], false);
    assert_eq!(operator.explain(id).await["known"], false);
    assert_eq!(operator.backend(&home).await["ended"]["admin"], 1);
}

#[tokio::test]
async fn where_there_are_several_pools_a_session_needs_the_name_of_one() {
    let apps = app::several(1);
    let two = format!(
        "[[route]]\npath = \"/\"\npool = \"app\"\n[[route]]\npath = \"/two\"\npool = \"two\"\n\
         [[pool]]\nname = \"two\"\nbackend = [{{ name = \"app-1\", url = \"http://{}\" }}]",
        apps[0].address()
    );
    let homing = Setup::new(&apps).section(&two).start().await;
    let operator = Operator::of(&homing);
    let answer = operator.post("explain", json!({ "id": "x" })).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("app, two"), "{}", answer.text());
    assert_eq!(operator.change("explain", json!({ "id": "x", "pool": "two" })).await["pool"], "two");
    assert_eq!(
        operator.post("explain", json!({ "id": "x", "pool": "six" })).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_weight_changes_where_new_sessions_go() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    assert_eq!(operator.steer("app-2", "weight", json!({ "weight": 3 })).await["weight"], 3);
    app::login_all(&Client::h1(&homing), 12).await;
    assert_eq!(operator.backend("app-1").await["live"], 3);
    assert_eq!(operator.backend("app-2").await["live"], 9);
    assert_eq!(operator.read("status").await["pools"][0]["skew"], 1.0);
    for wrong in [json!({ "weight": 0 }), json!({ "weight": 1001 }), json!({ "weight": "3" }), json!({})] {
        let answer = operator.post("pools/app/backends/app-2/weight", wrong.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn drains_and_weights_survive_a_reload_that_does_not_change_them() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({ "deadline_seconds": 600 })).await;
    operator.steer("app-2", "weight", json!({ "weight": 7 })).await;
    rewrite(&homing, |text| text.replace("session_timeout = \"30m\"", "session_timeout = \"20m\""));
    let changes = operator.change("reload", json!({})).await;
    assert!(changes["applied"][0].as_str().is_some_and(|change| change.contains("30m -> 20m")), "{changes}");
    let draining = operator.backend("app-1").await;
    assert_eq!(draining["state"], "draining");
    assert!(draining["drain_deadline_seconds"].as_f64().is_some_and(|left| left > 500.0), "{draining:#}");
    assert_eq!(operator.backend("app-2").await["weight"], 7);
    // A weight that the configuration changes is the configuration's again.
    let last = format!("url = \"http://{}\"", apps[1].address());
    rewrite(&homing, |text| text.replace(&last, &format!("{last}\nweight = 2")));
    operator.change("reload", json!({})).await;
    assert_eq!(operator.backend("app-2").await["weight"], 2);
}

#[tokio::test]
async fn a_reload_with_a_typo_is_refused_with_its_place_and_the_old_configuration_stays() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    rewrite(&homing, |text| text.replace("workers", "wrokers"));
    let answer = operator.post("reload", json!({})).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let error = error["error"].as_str().expect("a text");
    assert!(error.contains("did you mean `workers`?") && error.contains("homing.toml:1:1"), "{error}");
    let config = operator.read("status").await["config"].clone();
    assert_eq!(config["last_reload_ok"], false);
    assert_eq!(config["error"], error);
    app::login(&Client::h1(&homing), "anna").await;
    rewrite(&homing, |text| text.replace("wrokers", "workers"));
    operator.change("reload", json!({})).await;
    assert_eq!(operator.read("status").await["config"]["last_reload_ok"], true);
}

#[tokio::test]
async fn the_history_of_a_backends_health_says_what_found_out_and_why() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).checked().start().await;
    let operator = Operator::of(&homing);
    apps[0].stop().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    apps[0].restart();
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 1.0).await;
    let health = operator.backend("app-1").await["health"].clone();
    assert_eq!((&health[0]["up"], &health[1]["up"]), (&json!(false), &json!(true)), "{health:#}");
    assert_eq!(health[0]["by"], "health check");
    assert!(health[0]["why"].as_str().is_some_and(|why| why.contains("refused")), "{health:#}");
    assert_eq!(health[1]["why"], "passed");
    assert_eq!(operator.backend("app-2").await["health"], json!([]));
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    assert_eq!(operator.read("log").await, json!({ "filter": "info" }));
    let put = async |filter: &str| {
        let body = json!({ "filter": filter }).to_string();
        operator.send(Method::PUT, "/api/v1/log", Some(body)).await.status
    };
    assert_eq!(put("off").await, StatusCode::OK);
    operator.steer("app-1", "drain", json!({})).await;
    assert_eq!(put("inof").await, StatusCode::BAD_REQUEST);
    assert_eq!(put("info").await, StatusCode::OK);
    operator.steer("app-1", "undrain", json!({})).await;
    homing.process.stderr.wait_for("undrain by=127.0.0.1:").await;
    assert!(!homing.process.stderr.text().contains(" drain by="), "it was off");
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    for (method, path, body, status) in [
        ("GET", "/api/v1/nothing", None, 404),
        ("GET", "/api/v1/pools/six/backends/app-1/drain", None, 404),
        ("GET", "/api/v1/pools/app/backends/app-6/sessions", None, 404),
        ("GET", "/api/v1/pools/app/backends/app-1/sessions?limit=1001", None, 400),
        ("GET", "/api/v1/pools/app/backends/app-1/sessions?skip=-1", None, 400),
        ("GET", "/api/v1/pools/app/backends/app-1/drain?wait_seconds=301", None, 400),
        ("GET", "/api/v1/pools/app/backends/app-1/drain?wait_seconds=NaN", None, 400),
        ("GET", "/api/v1/explain", None, 405),
        ("DELETE", "/api/v1/status", None, 405),
        ("POST", "/api/v1/pools/app/backends/app-1/drain", Some("{\"deadline_seconds\": -1}"), 400),
        ("POST", "/api/v1/pools/app/backends/app-1/drain", Some("{\"dead_line\": 1}"), 400),
        ("POST", "/api/v1/explain", Some("{\"id\": secret-thing}"), 400),
        ("POST", "/api/v1/explain", Some("{\"id\": [\"secret-thing\"]}"), 400),
        ("POST", "/api/v1/explain", Some("{\"id\": \"secret-thing\", \"secret-field\": 1}"), 400),
        ("POST", "/api/v1/explain", Some("{\"id\": \"\"}"), 400),
    ] {
        let method = method.parse().expect("a method");
        let answer = operator.send(method, path, body.map(str::to_owned)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(error["error"].as_str().is_some_and(|error| !error.contains("secret")), "{error}");
    }
    let large = json!({ "id": "x".repeat(17 * 1024) });
    assert_eq!(operator.post("explain", large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(operator.read("status").await["pools"][0]["backends"][0]["state"], "up");
}

#[tokio::test]
async fn no_session_id_gets_into_the_log_or_an_answer_whatever_is_logged() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let operator = Operator::of(&homing);
    let body = json!({ "filter": "trace" }).to_string();
    operator.send(Method::PUT, "/api/v1/log", Some(body)).await;
    let (jar, home) = app::login(&Client::h1(&homing), "anna").await;
    let id = jar.value("session").expect("a session").to_owned();
    assert!(id.contains("secret-"));
    let other = if home == "app-1" { "app-2" } else { "app-1" };
    let mut said = operator.explain(&id).await.to_string();
    for (path, body) in [
        ("sessions/move", json!({ "id": id, "to": other })),
        ("sessions/forget", json!({ "id": id })),
        ("explain", json!({ "id": id })),
        ("explain", json!({ "id": id, "pool": id })),
        ("sessions/move", json!({ "id": id, "to": 5 })),
        ("sessions/forget", json!([id])),
    ] {
        let text = operator.post(path, body).await.text().to_owned();
        // Whoever gives an id as the name of a pool is told that there is none of that name.
        if !text.contains("there is no pool") {
            said.push_str(&text);
        }
    }
    said.push_str(&Metrics::fetch(&homing).await.text);
    homing.process.terminate();
    let ended = homing.process.wait_exit().await;
    assert!(ended.stderr.contains("forget session"), "{}", ended.stderr);
    for text in [said, ended.stderr, ended.stdout] {
        assert!(!text.contains("secret-"), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_sends_its_body_never_is_not_waited_for_for_ever() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).section(OPEN).start().await;
    let mut stream = tokio::net::TcpStream::connect(homing.admin()).await.expect("a connection");
    let head = "POST /api/v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("room");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "still open");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// A connection that has asked for events.
async fn follow(homing: &Homing) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(homing.admin()).await.expect("a connection");
    let head = "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("room");
    stream
}
