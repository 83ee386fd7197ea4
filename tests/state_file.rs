//! Bindings survive: a clean stop, a kill, a damaged file, a full disk.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fs, path::Path};

use serde_json::json;

use self::support::{
    app,
    call::Jar,
    client::Client,
    eventually,
    metrics::Metrics,
    operator::{Operator, rewrite},
    process::Homing,
    setup::Setup,
};

const PLACES: usize = 12;

/// A configuration that keeps its state in this directory.
fn setup(apps: &[support::backend::Backend], directory: &Path) -> Setup {
    Setup::new(apps).section(&state(directory)).section("[admin]\nallow_changes = true")
}

fn state(directory: &Path) -> String {
    format!("[state]\nfile = {:?}", directory.join("homing.state").display().to_string())
}

/// Stops it in good order.
async fn stop(homing: Homing) -> String {
    homing.process.terminate();
    let ended = homing.process.wait_exit().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    ended.stderr
}

/// Waits until everything that has happened so far is in the file.
async fn written(homing: &Homing) {
    let before = Metrics::fetch(homing).await.value("homing_state_writes_total", &[("result", "ok")]);
    // What happened before the scrape is in the second write from then on; another session makes it due.
    for more in 1..=2 {
        app::login(&Client::h2(homing), "one-more").await;
        eventually("a write", async || {
            homing.metric("homing_state_writes_total", &[("result", "ok")]).await >= before + f64::from(more)
        })
        .await;
    }
}

/// Asserts that these users are known where they were.
async fn all_home(homing: &Homing, users: &[(String, Jar, String)]) {
    let client = Client::h2(homing);
    for (user, jar, home) in users {
        let answer = client.get("/").jar(jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (user.as_str(), home.as_str()));
    }
    let moved = homing.metric("homing_affinity_moves_total", &[]).await;
    assert!(moved.abs() < f64::EPSILON, "{moved} moved");
}

async fn restored(homing: &Homing, result: &str) -> f64 {
    homing.metric("homing_affinity_restored_total", &[("result", result)]).await
}

#[tokio::test]
async fn every_session_survives_a_clean_stop() {
    let (apps, directory) = (app::several(3), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let users = app::login_all(&Client::h2(&homing), PLACES).await;
    stop(homing).await;
    let homing = setup(&apps, directory.path()).start().await;
    assert_eq!(restored(&homing, "restored").await, PLACES as f64);
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, PLACES as f64);
    all_home(&homing, &users).await;
}

#[tokio::test]
async fn the_time_of_the_last_request_survives_a_clean_stop() {
    let (apps, directory) = (app::several(1), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let (jar, _) = app::login(&Client::h2(&homing), "user").await;
    written(&homing).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    Client::h2(&homing).get("/").jar(&jar).send().await;
    stop(homing).await;
    let homing = setup(&apps, directory.path()).start().await;
    let explained = Operator::of(&homing).explain("secret-app-1-1").await;
    let (age, idle) = (explained["age_seconds"].as_f64(), explained["idle_seconds"].as_f64());
    assert!(age > idle.map(|idle| idle + 1.9), "bound {age:?} s ago, idle for {idle:?} s: {explained:#}");
}

#[tokio::test]
async fn what_was_learned_survives_a_kill() {
    let (apps, directory) = (app::several(3), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let users = app::login_all(&Client::h2(&homing), PLACES).await;
    written(&homing).await;
    homing.process.kill();
    let homing = setup(&apps, directory.path()).start().await;
    assert!(restored(&homing, "restored").await >= PLACES as f64);
    all_home(&homing, &users).await;
}

#[tokio::test]
async fn a_replaced_id_still_leads_home_after_a_restart() {
    let (apps, directory) = (app::several(3), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let client = Client::h2(&homing);
    let (jar, home) = app::login(&client, "user").await;
    let answer = client.get("/rotate").jar(&jar).send().await;
    let mut fresh = Jar::default();
    fresh.store(&answer.headers);
    stop(homing).await;
    let homing = setup(&apps, directory.path()).start().await;
    let client = Client::h2(&homing);
    for jar in [&jar, &fresh] {
        let answer = client.get("/public").jar(jar).send().await;
        assert_eq!(answer.header("x-backend"), home);
    }
    let home = [("verdict", "home")];
    homing.wait_for_metric("homing_affinity_requests_total", &home, 2.0).await;
}

#[tokio::test]
async fn what_operators_did_survives() {
    let (apps, directory) = (app::several(3), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let operator = Operator::of(&homing);
    operator.steer("app-1", "drain", json!({ "deadline_seconds": 3600 })).await;
    operator.steer("app-2", "maintenance", json!({})).await;
    operator.steer("app-3", "weight", json!({ "weight": 7 })).await;
    stop(homing).await;
    let homing = setup(&apps, directory.path()).start().await;
    let operator = Operator::of(&homing);
    let drained = operator.backend("app-1").await;
    assert_eq!(drained["state"], "draining");
    let left = drained["drain_deadline_seconds"].as_f64().expect("a deadline");
    assert!((3500.0..=3600.0).contains(&left), "{left}");
    assert_eq!(operator.backend("app-2").await["state"], "maintenance");
    assert_eq!(operator.backend("app-3").await["weight"], 7);
}

#[tokio::test]
async fn what_expired_meanwhile_is_not_restored() {
    let (apps, directory) = (app::several(1), tempfile::tempdir().expect("a directory"));
    let short = |setup: Setup| setup.session_timeout("2s").affinity("ttl = \"5s\"\nmax_ttl = \"5s\"");
    let homing = short(setup(&apps, directory.path())).start().await;
    app::login_all(&Client::h2(&homing), 3).await;
    stop(homing).await;
    tokio::time::sleep(std::time::Duration::from_millis(5_200)).await;
    let homing = short(setup(&apps, directory.path())).start().await;
    assert_eq!(restored(&homing, "expired").await, 3.0);
    assert_eq!(homing.metric("homing_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn no_session_id_is_in_the_files() {
    let (apps, directory) = (app::several(2), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    app::login_all(&Client::h2(&homing), PLACES).await;
    written(&homing).await;
    let look = || {
        let mut files = 0;
        for entry in fs::read_dir(directory.path()).expect("our directory") {
            let entry = entry.expect("a file");
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&entry.metadata().expect("a file").permissions());
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
            let bytes = fs::read(entry.path()).expect("a file");
            assert!(memchr::memmem::find(&bytes, b"secret-app").is_none(), "{}", entry.path().display());
            files += 1;
        }
        files
    };
    assert_eq!(look(), 3, "state, key, lock");
    stop(homing).await;
    assert_eq!(look(), 3);
}

#[tokio::test]
async fn the_age_of_the_file_is_known_from_the_start() {
    let (apps, directory) = (app::several(1), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    app::login(&Client::h2(&homing), "user").await;
    stop(homing).await;
    let file = fs::File::options().write(true).open(directory.path().join("homing.state"));
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    file.and_then(|file| file.set_modified(then)).expect("our file");
    let homing = setup(&apps, directory.path()).start().await;
    assert_eq!(homing.metric("homing_state_last_write_timestamp_seconds", &[]).await, 1_700_000_000.0);
}

#[tokio::test]
async fn a_backend_that_was_renamed_keeps_its_sessions_over_a_restart() {
    let (apps, directory) = (app::several(2), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let users = app::login_all(&Client::h2(&homing), PLACES).await;
    written(&homing).await;
    rewrite(&homing, |text| text.replace("\"app-2\"", "\"blue\""));
    Operator::of(&homing).change("reload", json!({})).await;
    stop(homing).await;
    let members = [("app-1", apps[0].address()), ("blue", apps[1].address())];
    let again = Setup::new(members).section(&state(directory.path()));
    all_home(&again.start().await, &users).await;
}
