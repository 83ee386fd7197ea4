//! Files beside the configuration: logs that rotate, secrets that are made, names that lead nowhere.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::Response;
use serde_json::json;

use self::support::{
    app,
    backend::Backend,
    client::{BOTH, Client},
    eventually,
    flow::{drain_pattern, patterned},
    operator::{Operator, rewrite},
    process::{Homing, Process},
    setup::Setup,
    within,
};

#[tokio::test]
async fn a_log_file_that_is_renamed_is_followed_by_a_new_one() {
    let backend = Backend::plain("app-1");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, renamed) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let homing = Setup::new([&backend]).access_log(&file).start().await;
    let client = Client::h1(&homing);
    client.get("/before").send().await;
    eventually("the first record", async || holds(&file, "/before")).await;
    fs::rename(&file, &renamed).expect("our file");
    client.get("/after").send().await;
    eventually("a new file", async || holds(&file, "/after")).await;
    assert_eq!(paths(&renamed), ["/before"]);
    assert_eq!(paths(&file), ["/after"]);
    client.get("/later").send().await;
    eventually("the same file", async || holds(&file, "/later")).await;
    assert_eq!(paths(&file), ["/after", "/later"]);
}

#[tokio::test]
async fn a_log_file_that_is_removed_is_made_again() {
    let backend = Backend::plain("app-1");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("access.log");
    let homing = Setup::new([&backend]).access_log(&file).start().await;
    fs::remove_file(&file).expect("made at the start");
    Client::h1(&homing).get("/after").send().await;
    eventually("a new file", async || holds(&file, "/after")).await;
}

#[tokio::test]
async fn the_signal_of_log_rotators_ends_nothing() {
    let backend = Backend::plain("app-1");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, renamed) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let homing = Setup::new([&backend]).access_log(&file).start().await;
    let client = Client::h1(&homing);
    client.get("/before").send().await;
    eventually("the first record", async || holds(&file, "/before")).await;
    fs::rename(&file, &renamed).expect("our file");
    homing.process.signal("USR1");
    eventually("it is said", async || homing.process.stderr.text().contains("SIGUSR1")).await;
    client.get("/after").send().await;
    eventually("a new file", async || holds(&file, "/after")).await;
}

#[tokio::test]
async fn programs_that_start_at_once_agree_on_the_secret_they_make() {
    let apps = app::several(3);
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("secret");
        let secret = format!("secret_file = {:?}", file.display().to_string());
        let start = async || Setup::new(&apps).top(&secret).start().await;
        let (one, two, three) = tokio::join!(start(), start(), start());
        for number in 0..20 {
            let id = format!("made-up-{number}");
            let home = async |homing: &Homing| {
                let got = Client::h1(homing).get("/whoami").cookie("session", &id).send().await;
                got.header("x-backend").to_owned()
            };
            let homes = [home(&one).await, home(&two).await, home(&three).await];
            assert!(homes.iter().all(|home| *home == homes[0]), "{id} went to {homes:?}");
        }
        let left: Vec<_> = fs::read_dir(folder.path()).expect("ours").flatten().collect();
        assert_eq!(left.len(), 1, "drafts are left: {left:?}");
        assert_eq!(fs::metadata(&file).expect("made").permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_reload_during_a_long_download_loses_nothing_of_it() {
    const LENGTH: u64 = 64 << 20;
    for protocol in BOTH {
        let produced = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&produced);
        let backend = Backend::start("app-1", move |_| {
            std::future::ready(Response::new(patterned(LENGTH, Arc::clone(&counter))))
        });
        let new = Backend::plain("app-2");
        let homing = Setup::new([&backend]).section("[admin]\nallow_changes = true").start().await;
        let opened = Client::new(&homing, protocol).get("/large").open().await;
        eventually("it is under way", async || produced.load(Ordering::Relaxed) > 0).await;
        // Everything that the download could hang on: its pool, its backend, its address, its deadlines.
        let (from, to) = (backend.address().to_string(), new.address().to_string());
        rewrite(&homing, |text| {
            let text = text.replace(&from, &to).replace("\"app\"", "\"shop\"").replace("app-1", "app-2");
            format!("{text}\n[timeouts]\nbody = \"30s\"\nidle = \"1s\"\n")
        });
        Operator::of(&homing).change("reload", json!({})).await;
        assert_eq!(Client::h1(&homing).get("/").send().await.text(), "app-2", "the reload counts");
        assert!(produced.load(Ordering::Relaxed) < LENGTH, "the download was over by then");
        let got = within("the rest", drain_pattern(opened.body)).await;
        assert_eq!(got.expect("a whole body"), LENGTH, "{protocol:?}");
        let whole = |record: &serde_json::Value| record["path"] == "/large";
        let record = homing.process.access_record("the download", whole).await;
        assert!(record.get("aborted").is_none() && record["bytes_out"] == LENGTH, "{record}");
    }
}

#[tokio::test]
async fn a_token_file_that_is_missing_is_named_by_check() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).section("[admin]\ntoken_file = \"no-such.token\"");
    let ended = setup.run_to_end("check").await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no-such.token"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_key_file_that_is_missing_is_named_by_check() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).issue("cookie = \"home\", key_file = \"no-such.keys\"");
    let ended = setup.run_to_end("check").await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no-such.keys"), "{}", ended.stderr);
}

#[tokio::test]
async fn all_files_that_are_missing_are_named_at_once() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend])
        .issue("cookie = \"home\", key_file = \"no-such.keys\"")
        .section("[admin]\ntoken_file = \"no-such.token\"");
    let ended = setup.run_to_end("check").await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for name in ["no-such.keys", "no-such.token"] {
        assert!(ended.stderr.contains(name), "no {name} in {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_the_state_needs_is_checked_as_a_start_would_and_nothing_is_made() {
    let backend = Backend::plain("app-1");
    let state = "[state]\nhandover = \"no-run/handover.sock\"\nfile = \"no-data/homing.state\"\n\
        redis = \"rediss://127.0.0.1:1\"\nredis_password_file = \"password\"\nredis_ca = \"ca.pem\"";
    let wrong = ["no-run", "no-data", "no-etc", "`redis_password_file`", "`redis_ca`"];
    let (directory, file) =
        Setup::new([&backend]).top("secret_file = \"no-etc/secret\"").section(state).write();
    for (password, ca) in [(None, None), (Some(""), Some("")), (Some("one\ntwo\n"), Some("no PEM"))] {
        for (name, content) in [("password", password), ("ca.pem", ca)] {
            if let Some(content) = content {
                fs::write(directory.path().join(name), content).expect("a file");
            }
        }
        let before = fs::read_dir(directory.path()).expect("ours").count();
        for subcommand in ["check", "serve"] {
            let ended = Process::run([subcommand.as_ref(), "--config".as_ref(), file.as_os_str()]).await;
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            for what in wrong {
                assert!(ended.stderr.contains(what), "{subcommand}: no {what} in {}", ended.stderr);
            }
        }
        assert_eq!(fs::read_dir(directory.path()).expect("ours").count(), before);
    }
}

#[tokio::test]
async fn a_socket_is_not_to_take_the_place_of_a_file_says_check() {
    let backend = Backend::plain("app-1");
    let (directory, file) = Setup::new([&backend]).section("[state]\nhandover = \"notes.txt\"").write();
    fs::write(directory.path().join("notes.txt"), "keep").expect("a file");
    let ended = Process::run(["check".as_ref(), "--config".as_ref(), file.as_os_str()]).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("notes.txt is no socket"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_secret_file_that_is_missing_is_no_mistake_and_not_made_by_check() {
    let backend = Backend::plain("app-1");
    let (directory, file) = Setup::new([&backend]).top("secret_file = \"fresh.secret\"").write();
    let ended = Process::run(["check".as_ref(), "--config".as_ref(), file.as_os_str()]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(!directory.path().join("fresh.secret").exists(), "a check changes nothing");
}

#[tokio::test]
async fn a_secret_file_that_cannot_be_used_is_named_by_check() {
    let backend = Backend::plain("app-1");
    for (content, mode) in
        [("correct horse battery staple", 0o600), ("0123456789abcdef0123456789abcdef", 0o644)]
    {
        let (directory, file) = Setup::new([&backend]).top("secret_file = \"bad.secret\"").write();
        let secret = directory.path().join("bad.secret");
        fs::write(&secret, content).expect("a file");
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("our file");
        let ended = Process::run(["check".as_ref(), "--config".as_ref(), file.as_os_str()]).await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("bad.secret") && !ended.stderr.contains("horse"), "{}", ended.stderr);
    }
}

/// Whether the log in this file has a whole record of this path.
fn holds(file: &Path, path: &str) -> bool {
    file.exists() && paths(file).iter().any(|logged| logged == path)
}

/// The paths of all whole records in this file.
fn paths(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("the log");
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let records = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    records.map(|record| record["path"].as_str().expect("a path").to_owned()).collect()
}
