//! What can be wrong with a state file, and what has changed while the proxy was off.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use http::StatusCode;

use self::support::{
    app,
    backend::{Backend, answer},
    call::Jar,
    client::Client,
    eventually,
    process::{Homing, Process},
    setup::Setup,
};

fn setup<'a>(apps: impl IntoIterator<Item = &'a Backend>, directory: &Path) -> Setup {
    let file = directory.join("homing.state").display().to_string();
    Setup::new(apps).section(&format!("[state]\nfile = {file:?}"))
}

async fn stop(homing: Homing) {
    homing.process.terminate();
    let ended = homing.process.wait_exit().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

async fn restored(homing: &Homing, result: &str) -> f64 {
    homing.metric("homing_affinity_restored_total", &[("result", result)]).await
}

/// The files that were set aside.
fn aside(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("our directory");
    let paths = entries.map(|entry| entry.expect("a file").path());
    paths.filter(|path| path.display().to_string().contains(".damaged-")).collect()
}

/// Starts with a file that `spoil` has changed, which has to be set aside for this reason.
async fn set_aside(reason: &str, spoil: impl FnOnce(&Path)) {
    let (apps, directory) = (app::several(2), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    app::login_all(&Client::h2(&homing), 5).await;
    stop(homing).await;
    let file = directory.path().join("homing.state");
    spoil(&file);
    let spoilt = fs::read(&file).expect("a file");

    let files = || fs::read_dir(directory.path()).expect("our directory").count();
    let before = files();
    let checked = setup(&apps, directory.path()).run_to_end("check").await;
    assert!(checked.status.success(), "{}", checked.stderr);
    assert!(checked.stderr.contains("a start would set this state file aside"), "{}", checked.stderr);
    assert_eq!(
        (fs::read(&file).expect("a file"), files()),
        (spoilt.clone(), before),
        "a check changes nothing"
    );

    let homing = setup(&apps, directory.path()).start().await;
    let aside = aside(directory.path());
    let [aside] = &aside[..] else { panic!("{aside:?}") };
    assert_eq!(fs::read(aside).expect("a file").len(), spoilt.len());
    let name = aside.display().to_string();
    let told = homing.process.stderr.text();
    let line = told.lines().find(|line| line.contains("set aside")).expect("a warning");
    assert!(line.contains("WARN") && line.contains(reason) && line.contains(&name), "{line}");
    assert_eq!(homing.metric("homing_sessions", &[]).await, 0.0);

    app::login_all(&Client::h2(&homing), 3).await;
    stop(homing).await;
    let homing = setup(&apps, directory.path()).start().await;
    assert_eq!(restored(&homing, "restored").await, 3.0, "the new file is a good one");
}

#[tokio::test]
async fn a_file_that_was_cut_is_set_aside() {
    set_aside("it is damaged", |file| {
        let bytes = fs::read(file).expect("a file");
        fs::write(file, &bytes[..bytes.len() / 2]).expect("a file");
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside() {
    set_aside("it is not a database", |file| fs::write(file, "garbage ".repeat(9999)).expect("a file")).await;
}

#[tokio::test]
async fn a_database_of_another_program_is_set_aside() {
    set_aside("the database of another program", |file| {
        fs::remove_file(file).expect("a file");
        let foreign = redb::Database::create(file).expect("a database");
        let transaction = foreign.begin_write().expect("a transaction");
        let books = redb::TableDefinition::<&str, u64>::new("books");
        transaction.open_table(books).expect("a table").insert("Moby Dick", 1851).expect("a place");
        transaction.commit().expect("a disk");
    })
    .await;
}

#[tokio::test]
async fn a_file_under_another_secret_is_set_aside() {
    set_aside("under another secret", |file| {
        fs::remove_file(file.with_extension("state.key")).expect("the secret beside it");
    })
    .await;
}

#[tokio::test]
async fn a_key_file_of_the_state_is_nobodys_to_copy_and_missed_when_it_is_gone() {
    let (apps, directory) = (app::several(1), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    homing.process.stderr.wait_for("key file of the state file made").await;
    assert!(!homing.process.stderr.text().contains("replicas need a copy"));
    stop(homing).await;
    let key = directory.path().join("homing.state.key");
    fs::remove_file(&key).expect("made");
    let checked = setup(&apps, directory.path()).run_to_end("check").await;
    let gone = format!("its key file {} is missing", key.display());
    assert!(checked.status.success() && checked.stderr.contains(&gone), "{}", checked.stderr);
    assert!(!key.exists(), "a check makes nothing");
    let homing = setup(&apps, directory.path()).start().await;
    homing.process.stderr.wait_for("the key file of the state file was missing").await;
}

#[tokio::test]
async fn a_file_belongs_to_one_process() {
    let (apps, directory) = (app::several(1), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let second = setup(&apps, directory.path()).run_to_end("serve").await;
    assert!(!second.status.success());
    assert!(second.stderr.contains("another process uses this state file"), "{}", second.stderr);
    let checked = setup(&apps, directory.path()).run_to_end("check").await;
    assert!(checked.status.success(), "a check disturbs nobody: {}", checked.stderr);
    app::login(&Client::h2(&homing), "user").await;
    stop(homing).await;
    let checked = setup(&apps, directory.path()).run_to_end("check").await;
    assert!(checked.status.success() && !checked.stderr.contains("aside"), "{}", checked.stderr);
    let homing = setup(&apps, directory.path()).start().await;
    assert_eq!(restored(&homing, "restored").await, 1.0);
}

#[tokio::test]
async fn a_place_that_cannot_be_is_an_error_of_start_and_check() {
    let (apps, directory) = (app::several(1), tempfile::tempdir().expect("a directory"));
    for subcommand in ["serve", "check"] {
        let ended = setup(&apps, &directory.path().join("missing")).run_to_end(subcommand).await;
        assert!(!ended.status.success(), "{subcommand}");
        assert!(ended.stderr.contains("missing"), "{subcommand}: {}", ended.stderr);
        assert!(!ended.stderr.contains("secret"), "nobody named one: {}", ended.stderr);
        let folder = directory.path().join("folder");
        fs::create_dir_all(folder.join("homing.state")).expect("a folder in its place");
        let ended = setup(&apps, &folder).run_to_end(subcommand).await;
        assert!(ended.stderr.contains("is not a regular file"), "{subcommand}: {}", ended.stderr);
        assert!(!folder.join("homing.state.key").exists(), "{subcommand}: no stray key");
        fs::remove_dir_all(folder).expect("ours");
    }
    let checked = setup(&apps, directory.path()).run_to_end("check").await;
    assert!(checked.status.success(), "{}", checked.stderr);
    assert_eq!(fs::read_dir(directory.path()).expect("our directory").count(), 0, "a check makes nothing");
}

#[tokio::test]
async fn a_full_disk_costs_nobody_anything_and_is_made_good_later() {
    let (apps, directory) = (app::several(2), tempfile::tempdir().expect("a directory"));
    let (configured, file) = setup(&apps, directory.path()).write();
    // Then a write beyond the limit fails instead of ending the process.
    let arguments = ["serve".as_ref(), "--config".as_ref(), file.as_os_str()];
    let process = Process::spawn_after("trap '' XFSZ", arguments);
    let homing = Homing::ready(process, false, configured).await;
    let (ok, failed) = ([("result", "ok")], [("result", "failed")]);
    eventually("a first write", async || homing.metric("homing_state_writes_total", &ok).await >= 1.0).await;

    homing.process.limit_file_size(Some(0));
    let users = app::login_all(&Client::h2(&homing), 4).await;
    eventually("failures", async || homing.metric("homing_state_writes_total", &failed).await >= 2.0).await;
    let (user, jar, _) = &users[0];
    assert_eq!(Client::h2(&homing).get("/").jar(jar).send().await.text(), user);
    let told = homing.process.stderr.text();
    assert_eq!(told.matches("the state file cannot be written").count(), 1, "told once:\n{told}");

    let before = homing.metric("homing_state_writes_total", &ok).await;
    homing.process.limit_file_size(None);
    eventually("a write", async || homing.metric("homing_state_writes_total", &ok).await > before).await;
    assert!(homing.process.stderr.text().contains("the state file is written again"));
    homing.process.kill();
    let homing = setup(&apps, directory.path()).start().await;
    for (user, jar, home) in &users {
        let answer = Client::h2(&homing).get("/").jar(jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (user.as_str(), home.as_str()));
    }
}

#[tokio::test]
async fn sessions_of_a_backend_that_is_missing_return_with_it() {
    let (apps, directory) = (app::several(3), tempfile::tempdir().expect("a directory"));
    let homing = setup(&apps, directory.path()).start().await;
    let users = app::login_all(&Client::h2(&homing), 9).await;
    stop(homing).await;
    let homing = setup(&apps[..2], directory.path()).start().await;
    assert_eq!((restored(&homing, "restored").await, restored(&homing, "unknown").await), (6.0, 3.0));
    stop(homing).await;
    let homing = setup(&apps, directory.path()).start().await;
    assert_eq!(restored(&homing, "restored").await, 9.0);
    for (user, jar, home) in &users {
        let answer = Client::h2(&homing).get("/").jar(jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (user.as_str(), home.as_str()));
    }
}

#[tokio::test]
async fn a_backend_that_restarted_meanwhile_has_lost_its_sessions() {
    let directory = tempfile::tempdir().expect("a directory");
    let instance = Arc::new(Mutex::new("first"));
    let shown = Arc::clone(&instance);
    let app = Backend::start("app-1", move |_| {
        let mut answer = answer(StatusCode::OK, "well");
        let headers = answer.headers_mut();
        headers.insert("x-instance", shown.lock().expect("no panic").parse().expect("a field value"));
        headers.insert("set-cookie", "session=secret; Path=/".parse().expect("a field value"));
        std::future::ready(answer)
    });
    let other = Backend::plain("app-2");
    let start = || {
        let setup = setup([&app, &other], directory.path());
        setup.pool("instance_header = \"X-Instance\"\nbalance = \"round-robin\"").checked().start()
    };
    let homing = start().await;
    let client = Client::h2(&homing);
    eventually("a session at app-1", async || {
        client.get("/").send().await;
        homing.metric("homing_sessions", &[("backend", "app-1")]).await >= 1.0
    })
    .await;
    stop(homing).await;
    *instance.lock().expect("no panic") = "second";
    let homing = start().await;
    assert_eq!(restored(&homing, "restored").await, 1.0);
    let restarted = [("reason", "restarted")];
    homing.wait_for_metric("homing_affinity_ended_total", &restarted, 1.0).await;
    let mut jar = Jar::default();
    jar.store(
        &[("set-cookie", "session=secret")]
            .into_iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect(),
    );
    Client::h2(&homing).get("/").jar(&jar).send().await;
    homing.wait_for_metric("homing_affinity_moves_total", &restarted, 1.0).await;
}
