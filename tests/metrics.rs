//! What operators see: metrics and the access log.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::StatusCode;
use serde_json::Value;

use self::support::{
    app,
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually,
    flow::full,
    metrics::Metrics,
    operator::Operator,
    plain,
    raw_backend::RawBackend,
    setup::Setup,
};

#[tokio::test]
async fn every_series_that_is_known_is_there_from_the_start() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let metrics = Metrics::fetch(&homing).await;
    for backend in ["app-1", "app-2"] {
        let own = [("pool", "app"), ("backend", backend)];
        for state in ["live", "retained"] {
            has(&metrics, "homing_sessions", &own, &[("state", state)]);
        }
        for verdict in ["home", "placed", "provisional", "moved", "skipped"] {
            has(&metrics, "homing_affinity_requests_total", &own, &[("verdict", verdict)]);
        }
        for reason in ["down", "removed", "restarted", "maintenance"] {
            has(&metrics, "homing_affinity_moves_total", &own, &[("reason", reason)]);
        }
        for reason in ["expired", "logout", "capacity"] {
            has(&metrics, "homing_affinity_ended_total", &own, &[("reason", reason)]);
        }
        for code in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            has(&metrics, "homing_backend_requests_total", &own, &[("code", code)]);
        }
        has(&metrics, "homing_backend_in_flight", &own, &[]);
        has(&metrics, "homing_backend_request_duration_seconds_count", &own, &[]);
        assert_eq!(metrics.value("homing_backend_up", &own), 1.0);
    }
    for name in [
        "homing_connections",
        "homing_tls_handshakes_total",
        "homing_http_requests_total",
        "homing_affinity_table_entries",
        "homing_build_info",
        "process_resident_memory_bytes",
    ] {
        has(&metrics, name, &[], &[]);
    }
    // Refusals have no backend, but a pool.
    has(&metrics, "homing_affinity_requests_total", &[("pool", "app")], &[("verdict", "refused")]);
}

#[tokio::test]
async fn counters_start_at_zero() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let metrics = Metrics::fetch(&homing).await;
    for name in [
        "homing_sessions",
        "homing_affinity_requests_total",
        "homing_affinity_moves_total",
        "homing_backend_requests_total",
        "homing_backend_in_flight",
        "homing_http_requests_total",
        "homing_connections",
    ] {
        assert_eq!(metrics.value(name, &[]), 0.0, "{name}");
    }
}

#[tokio::test]
async fn connections_handshakes_and_requests_are_counted() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut connections = Vec::new();
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        connection.get("/1").send().await;
        connection.get("/2").send().await;
        connections.push(connection);
    }
    homing.wait_for_metric("homing_http_requests_total", &[], 4.0).await;
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value("homing_connections", &[]), 2.0);
    assert_eq!(metrics.value("homing_tls_handshakes_total", &[]), 2.0);
    drop(connections);
    homing.wait_for_metric("homing_connections", &[], 0.0).await;
}

#[tokio::test]
async fn every_request_has_exactly_one_access_record() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let (jar, _) = app::login(&client, "anna").await;
        for _ in 0..5 {
            client.get("/whoami").jar(&jar).send().await;
        }
    }
    homing.process.terminate();
    homing.process.wait_exit().await;
    let records = homing.process.access_records();
    assert_eq!(records.len(), 12, "{records:#?}");
    let mut ids: Vec<&str> = records.iter().filter_map(|record| record["request_id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 12, "one id a request");
}

#[tokio::test]
async fn an_access_record_tells_what_happened() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h2(&homing);
    let (jar, _) = app::login(&client, "anna").await;
    client.post("/whoami").jar(&jar).body(full("12345")).send().await;
    let record = homing.process.access_record("record", |record| record["path"] == "/whoami").await;
    for (field, wanted) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "POST".into()),
        ("host", client.authority().into()),
        ("status", 200.into()),
        ("bytes_in", 5.into()),
        ("bytes_out", 4.into()),
        ("pool", "app".into()),
        ("backend", "app-1".into()),
        ("verdict", "home".into()),
        ("reason", "known".into()),
        ("attempts", 1.into()),
    ] {
        if field == "client" {
            let client = record[field].as_str().unwrap_or_default();
            assert!(client.starts_with("127.0.0.1"), "{record:#}");
        } else {
            assert_eq!(record[field], wanted, "{field} of {record:#}");
        }
    }
    assert!(record["protocol"].as_str().is_some_and(|protocol| protocol.contains('2')), "{record:#}");
    assert!(record["time"].as_str().is_some_and(|time| time.contains('T')), "{record:#}");
    for field in ["duration_ms", "head_ms"] {
        assert!(record[field].as_f64().is_some_and(|time| (0.0..20_000.0).contains(&time)), "{record:#}");
    }
    assert!(record.get("aborted").is_none_or(|aborted| aborted == false), "{record:#}");
}

#[tokio::test]
async fn what_a_client_aborts_is_recorded_once_as_aborted() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.read_to_end().await;
    });
    let homing = Setup::new([&backend]).start().await;
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("GET /h1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    eventually("the request arrives", async || backend.count("GET /h1") == 1).await;
    raw.abandon();
    aborted(&homing.process.access_record("record", |record| record["path"] == "/h1").await);
    let client = Client::h2(&homing);
    let call = tokio::spawn(async move { client.get("/h2").send().await });
    eventually("the request arrives", async || backend.count("GET /h2") == 1).await;
    call.abort();
    aborted(&homing.process.access_record("record", |record| record["path"] == "/h2").await);
    homing.process.terminate();
    homing.process.wait_exit().await;
    assert_eq!(homing.process.access_records().len(), 2);
}

#[tokio::test]
async fn a_download_that_the_client_leaves_is_recorded_as_aborted() {
    let backend =
        Backend::start("app-1", |_| async { http::Response::new(support::flow::endless(b"first")) });
    let homing = Setup::new([&backend]).start().await;
    for protocol in BOTH {
        let path = format!("/{protocol:?}");
        let opened = Client::new(&homing, protocol).get(&path).open().await;
        drop(opened);
        let record = homing.process.access_record("record", |record| record["path"] == *path).await;
        assert_eq!(record["status"], 200);
        aborted(&record);
    }
}

#[tokio::test]
async fn requests_that_are_refused_are_recorded_too() {
    let backend = Backend::plain("app-1");
    let route = "[[route]]\nhost = \"shop.example\"\npool = \"app\"";
    let homing = Setup::new([&backend]).section(route).start().await;
    Client::h1(&homing).get("/nowhere").send().await;
    let record = homing.process.access_record("record", |record| record["path"] == "/nowhere").await;
    assert_eq!(record["status"], 404);
    homing.wait_for_metric("homing_http_requests_total", &[], 1.0).await;
}

#[tokio::test]
async fn the_access_log_hides_queries_unless_it_is_told_to_show_them() {
    let backend = Backend::plain("app-1");
    for shown in [false, true] {
        let homing = Setup::new([&backend]).top(&format!("log_query = {shown}")).start().await;
        Client::h1(&homing).get("/search?q=private").send().await;
        let of_it = |record: &Value| record["path"].as_str().is_some_and(|path| path.starts_with("/search"));
        let record = homing.process.access_record("record", of_it).await;
        assert_eq!(record.to_string().contains("private"), shown, "{record}");
    }
}

#[tokio::test]
async fn no_session_id_is_shown_anywhere() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).checked().start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    apps[0].stop().await;
    for (_, jar, _) in &users {
        client.get("/public").jar(jar).send().await;
        client.get("/rotate").jar(jar).send().await;
        client.get("/logout").jar(jar).send().await;
    }
    client.get("/whoami").cookie("session", "secret-made-up").send().await;
    let metrics = Metrics::fetch(&homing).await.text;
    let unknown = plain::get(homing.admin(), "/").await.map(|answer| answer.text().to_owned());
    homing.process.terminate();
    let ended = homing.process.wait_exit().await;
    assert!(!homing.process.access_records().is_empty());
    for text in [metrics, unknown.unwrap_or_default(), ended.stderr, ended.stdout] {
        assert!(!text.contains("secret-"), "{text}");
    }
}

#[tokio::test]
async fn an_access_log_may_be_a_file() {
    let backend = Backend::start("app-1", |_| async { answer(StatusCode::OK, "") });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("access.log");
    let (own, config) = Setup::new([&backend]).write();
    let text = std::fs::read_to_string(&config).expect("just written");
    let named = format!("access_log = {:?}", file.display().to_string());
    std::fs::write(&config, text.replace("access_log = true", &named)).expect("a file");
    let process =
        support::process::Process::spawn(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let homing = support::process::Homing::ready(process, false, own).await;
    Client::h1(&homing).get("/logged").send().await;
    eventually("the record is written", async || {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let records: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        records.iter().any(|record| record["path"] == "/logged")
    })
    .await;
    assert_eq!(homing.process.stdout.text(), "");
}

#[tokio::test]
async fn a_log_that_is_off_makes_no_file_of_that_name() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).access_log("off".as_ref()).start().await;
    Client::h1(&homing).get("/").send().await;
    homing.wait_for_metric("homing_http_requests_total", &[], 1.0).await;
    assert!(!homing.directory().join("off").exists());
    assert_eq!(homing.process.stdout.text(), "");
}

#[tokio::test]
async fn a_log_to_stdout_or_stderr_goes_there() {
    let backend = Backend::plain("app-1");
    for (word, out) in [("stdout", true), ("stderr", false)] {
        let homing = Setup::new([&backend]).access_log(word.as_ref()).start().await;
        Client::h1(&homing).get("/logged").send().await;
        let (there, other) = (&homing.process.stdout, &homing.process.stderr);
        let (there, other) = if out { (there, other) } else { (other, there) };
        eventually(word, async || there.text().contains("\"path\":\"/logged\"")).await;
        assert!(!other.text().contains("/logged"));
        assert!(!homing.directory().join(word).exists());
    }
}

#[tokio::test]
async fn a_log_of_errors_leaves_out_what_went_well() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        let head = connection.head().await.unwrap_or_default();
        let status = if head.starts_with("GET /broken") { "500 Oops" } else { "404 No" };
        connection
            .write(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
            .await;
    });
    for top in ["", "access_log_filter = \"errors\"\n"] {
        let word = if top.is_empty() { "errors" } else { "stdout" };
        let homing = Setup::new([&backend]).access_log(word.as_ref()).top(top).start().await;
        for path in ["/well", "/broken", "/well", "/broken"] {
            Client::h1(&homing).get(path).send().await;
        }
        eventually("two records", async || homing.process.access_records().len() == 2).await;
        for record in homing.process.access_records() {
            assert_eq!((&record["path"], &record["status"]), (&"/broken".into(), &500.into()));
        }
    }
}

#[tokio::test]
async fn a_record_shows_the_fingerprint_by_which_operators_know_the_session() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "ann").await;
    client.get("/whoami").jar(&jar).send().await;
    let operator = Operator::of(&homing);
    let listed = operator.read(&format!("pools/app/backends/{home}/sessions")).await;
    let fingerprint = listed["sessions"][0]["fingerprint"].as_str().expect("one session");
    assert_eq!(fingerprint.len(), 8);
    for path in ["/login", "/whoami"] {
        let record = homing.process.access_record(path, |record| record["path"] == path).await;
        assert_eq!(record["session"], fingerprint, "{record}");
    }
}

#[tokio::test]
async fn a_record_of_a_new_id_shows_the_new_session_and_of_a_logout_the_old() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let (mut jar, _) = app::login(&client, "ann").await;
    let rotated = client.get("/rotate").jar(&jar).send().await;
    jar.store(&rotated.headers);
    client.get("/whoami").jar(&jar).send().await;
    client.get("/logout").jar(&jar).send().await;
    let session = async |path: &str| {
        let record = homing.process.access_record(path, |record| record["path"] == path).await;
        record["session"].as_str().expect("a session").to_owned()
    };
    let (first, second) = (session("/login").await, session("/rotate").await);
    assert_ne!(first, second);
    assert_eq!((session("/whoami").await, session("/logout").await), (second.clone(), second));
}

#[tokio::test]
async fn a_record_without_a_session_shows_none() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    client.get("/public").send().await;
    client.get("/unknown").cookie("session", "made-up").send().await;
    for path in ["/public", "/unknown"] {
        let record = homing.process.access_record(path, |record| record["path"] == path).await;
        assert_eq!(record.get("session"), None, "{record}");
    }
}

fn has(metrics: &Metrics, name: &str, labels: &[(&str, &str)], more: &[(&str, &str)]) {
    let labels = [labels, more].concat();
    assert!(metrics.has(name, &labels), "no {name}{labels:?} in\n{}", metrics.text);
}

fn aborted(record: &Value) {
    assert_eq!(record["aborted"], true, "{record:#}");
}
