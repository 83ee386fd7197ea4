//! What is shipped for Prometheus and Grafana fits what the program exports.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use self::support::{
    app,
    client::Client,
    dns::{Dns, HOST},
    flow::full,
    metrics::Metrics,
    plain,
    redis::RedisServer,
    replicas::Replicas,
    setup::Setup,
};

#[tokio::test]
async fn promtool_has_no_complaint_about_the_metrics() {
    let page = page().await;
    let mut promtool = promtool(&["check", "metrics"]);
    let mut child = promtool.stdin(Stdio::piped()).spawn().expect(PROMTOOL);
    child.stdin.take().expect("piped").write_all(page.text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect(PROMTOOL);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_takes_configuration_rules_and_their_tests() {
    check(&["check", "config", "config/prometheus/prometheus.yml"]);
    // Its rules are elsewhere in its container; tests/compose/run sees that they are found there.
    check(&["check", "config", "config/compose/prometheus.yml"]);
    for file in files("config/prometheus/rules").into_iter().chain(files("config/prometheus/alerts")) {
        check(&["check", "rules", path(&file)]);
    }
    for file in files("config/prometheus/tests") {
        check(&["test", "rules", path(&file)]);
    }
}

#[test]
fn every_alert_says_what_it_is_and_what_to_do() {
    for file in files("config/prometheus/alerts") {
        let text = fs::read_to_string(&file).expect("a file");
        let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
        assert!(alerts.len() > 10, "{}", file.display());
        for alert in alerts {
            for wanted in ["severity: ", "summary: ", "description: ", "runbook: "] {
                assert!(alert.contains(wanted), "no {wanted} in {alert}");
            }
        }
    }
}

#[tokio::test]
async fn what_rules_and_dashboard_ask_for_is_exported() {
    let page = page().await;
    let recorded: BTreeSet<String> = files("config/prometheus/rules")
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("a file");
            let records = text.lines().filter_map(|line| line.split_once("record: "));
            records.map(|(_, name)| name.trim().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let mut texts: Vec<String> = grafana_expressions();
    for folder in ["rules", "alerts", "tests"] {
        let files = files(&format!("config/prometheus/{folder}"));
        texts.extend(files.iter().map(|file| fs::read_to_string(file).expect("a file")));
    }
    let mut asked = BTreeSet::new();
    for text in &texts {
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
        asked.extend(names.filter(|name| name.contains("homing_") || name.starts_with("process_")));
    }
    assert!(asked.len() > 20, "{asked:?}");
    let missing: Vec<&&str> =
        asked.iter().filter(|name| !recorded.contains(**name) && !page.has(name, &[])).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
}

#[test]
fn the_expressions_of_the_dashboard_are_promql() {
    let expressions = grafana_expressions();
    assert!(expressions.len() > 30, "only {} expressions seen", expressions.len());
    // promtool checks expressions only within rules.
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| json!({ "record": format!("panel:{number}"), "expr": expression }))
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let groups = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    fs::write(file.path(), groups.to_string()).expect("JSON, which is YAML");
    check(&["check", "rules", path(file.path())]);
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard = grafana();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 38));
    assert!(dashboard["id"].is_null() && dashboard["uid"].is_null());
    let mut sources = Vec::new();
    collect(&dashboard, "uid", &mut sources);
    assert!(sources.len() > 40, "{sources:?}");
    assert!(sources.iter().all(|uid| *uid == "${datasource}" || *uid == "-- Grafana --"), "{sources:?}");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
}

/// The metrics of a program that has served, keeps and shares its sessions, and has a backend that drains.
async fn page() -> Metrics {
    let apps = app::several(2);
    let (dns, redis) = (Dns::knowing(&[]).await, RedisServer::start().await);
    let state = tempfile::tempdir().expect("a directory");
    let file = format!("file = {:?}", state.path().join("homing.state").display().to_string());
    let setup = Setup::new(&apps).discovering(&dns, HOST, 80).redirecting();
    let setup = setup.section("[admin]\nallow_changes = true");
    let homing = Replicas::new().start(setup, "one", &redis.url(), &file).await;
    app::login_all(&Client::h2(&homing), 4).await;
    let drain = Request::builder()
        .method(Method::POST)
        .uri("/api/v1/pools/app/backends/app-1/drain")
        .header("host", homing.admin().to_string())
        .header("content-type", "application/json")
        .body(full("{}"))
        .expect("a valid request");
    let answer = plain::send(homing.admin(), drain).await.expect("the admin listener answers");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    Metrics::fetch(&homing).await
}

fn grafana() -> Value {
    let text = fs::read_to_string(root().join("config/grafana/homing.json")).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// All expressions of the dashboard, with values for its variables.
fn grafana_expressions() -> Vec<String> {
    let mut found = Vec::new();
    collect(&grafana(), "expr", &mut found);
    let fill = |expression: &String| {
        expression.replace("$__rate_interval", "1m").replace("$job", "homing").replace("$pool", ".*")
    };
    found.iter().map(fill).collect()
}

/// All strings under this key, however deep.
fn collect(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == key => found.push(text.to_owned()),
                    _ => collect(value, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, found)),
        _ => {}
    }
}

fn check(arguments: &[&str]) {
    let output = promtool(arguments).output().expect(PROMTOOL);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}\n{}", String::from_utf8_lossy(&said));
}

fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The files of a folder; never none.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

fn path(path: &Path) -> &str {
    path.to_str().expect("plain characters")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const PROMTOOL: &str = "promtool (Debian: prometheus)";
