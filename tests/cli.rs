//! The command line: configurations that are checked and printed, and errors that help.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::fs;

use homing::config::Config;

use self::support::{
    backend::Backend,
    client::Client,
    pki::{Authority, Leaf},
    process::{Ended, Homing, Process},
    setup::Setup,
};

#[tokio::test]
async fn a_good_configuration_checks() {
    let backend = Backend::plain("app-1");
    let ended = Setup::new([&backend]).run_to_end("check").await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_an_error_that_names_both_files() {
    let backend = Backend::plain("app-1");
    let (directory, file) = Setup::new([&backend]).write();
    let other = Authority::get().leaf(&["localhost"]);
    fs::write(directory.path().join("key-0.pem"), &other.key).expect("a file");
    let ended = Process::run(["check", "--config", path(&file)]).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for part in ["key-0.pem", "cert-0.pem", "does not belong"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn an_expired_certificate_checks_with_a_warning_that_names_the_file() {
    let backend = Backend::plain("app-1");
    let (directory, file) = Setup::new([&backend]).write();
    let expired = Authority::get().expired_leaf(&["localhost"]);
    fs::write(directory.path().join("cert-0.pem"), &expired.cert).expect("a file");
    fs::write(directory.path().join("key-0.pem"), &expired.key).expect("a file");
    let ended = Process::run(["check", "--config", path(&file)]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for part in ["WARN", "EXPIRED", "cert-0.pem"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_misspelt_key_is_shown_where_it_stands_with_the_right_one() {
    let ended = check("workers = 2\nacess_log = true\n").await;
    assert!(!ended.status.success());
    for part in ["homing.toml:2:1", "acess_log", "access_log"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_log_filter_that_cannot_be_read_is_an_error_at_the_start() {
    let backend = Backend::plain("app-1");
    for (filter, part) in
        [("nonsense", "`nonsense` is no level"), ("info,homng=debug", "nothing logs as `homng`")]
    {
        let (_directory, file) = Setup::new([&backend]).write();
        let line = format!("export HOMING_LOG={filter}");
        let ended = Process::spawn_after(&line, ["serve", "--config", path(&file)]).wait_exit().await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for part in ["HOMING_LOG", part] {
            assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn an_empty_log_filter_is_the_default_one() {
    let backend = Backend::plain("app-1");
    let (_directory, file) = Setup::new([&backend]).write();
    let line = "export HOMING_LOG=";
    let ended = Process::spawn_after(line, ["check", "--config", path(&file)]).wait_exit().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn all_errors_are_shown_at_once() {
    let ended = check(
        "workers = 0\n[[pool]]\nname = \"app\"\nbalance = \"fastest\"\n\
         [pool.affinity]\nsession_timeout = 30\n[[pool.backend]]\nname = \"a\"\nurl = \"ftp://a\"\n",
    )
    .await;
    assert!(!ended.status.success());
    for part in ["workers", "fastest", "least-sessions", "session_timeout", "ftp"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_ttl_that_is_not_longer_than_the_session_timeout_is_an_error_that_says_why() {
    let backend = Backend::plain("app-1");
    let ended = Setup::new([&backend]).affinity("ttl = \"30m\"").run_to_end("check").await;
    assert!(!ended.status.success());
    for part in ["ttl", "session_timeout", "longer"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_an_error_that_names_it() {
    for subcommand in ["check", "print-config", "serve"] {
        let ended = Process::run([subcommand, "--config", "/nowhere/homing.toml"]).await;
        assert!(!ended.status.success(), "{subcommand}");
        assert!(ended.stderr.contains("/nowhere/homing.toml"), "{subcommand}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_print_config_prints_is_a_configuration_that_prints_the_same() {
    let backend = Backend::plain("app-1");
    let (directory, file) = Setup::new([&backend]).checked().write();
    let print = || Process::run(["print-config".as_ref(), "--config".as_ref(), file.as_os_str()]);
    let first = print().await;
    assert_eq!(first.status.code(), Some(0), "{}", first.stderr);
    for default in ["ttl", "least-sessions", "on_down", "drain", "weight"] {
        assert!(first.stdout.contains(default), "no {default} in\n{}", first.stdout);
    }
    fs::write(&file, &first.stdout).expect("a file");
    let second = print().await;
    assert_eq!(second.stdout, first.stdout);
    drop(directory);
}

#[tokio::test]
async fn an_unknown_flag_or_subcommand_is_an_error() {
    for arguments in [&["serve", "--no-such-flag"][..], &["no-such-command"], &["check", "--confg", "x"]] {
        let ended = Process::run(arguments).await;
        assert!(!ended.status.success(), "{arguments:?}");
        assert!(ended.stderr.contains("error"), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn serve_without_configuration_says_what_it_needs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ended = Process::run(["serve"]).await;
    assert!(!ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("--config") && ended.stderr.contains("--backend"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    drop(directory);
}

#[tokio::test]
async fn serve_takes_everything_from_flags() {
    let backend = Backend::plain("app-1");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&cert, &Leaf::localhost().cert).expect("a file");
    fs::write(&key, &Leaf::localhost().key).expect("a file");
    let url = format!("http://{}", backend.address());
    let mut arguments = vec!["serve", "--cert", path(&cert), "--key", path(&key), "--backend", &url];
    arguments.extend(["--cookie", "session", "--session-timeout", "30m", "--workers", "1"]);
    for listener in ["--https", "--http", "--admin"] {
        arguments.extend([listener, "127.0.0.1:0"]);
    }
    let process = Process::spawn(arguments);
    let homing = Homing::ready(process, true, directory).await;
    assert_eq!(Client::h2(&homing).get("/").send().await.text(), "app-1");
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 1.0);
}

#[tokio::test]
async fn flags_change_what_the_file_says() {
    let backend = Backend::plain("app-1");
    let busy = support::port::Port::reserve();
    let _listener = busy.listen();
    let (directory, file) = Setup::new([&backend]).https(busy.address).write();
    let arguments = ["serve", "--config", path(&file), "--https", "127.0.0.1:0"];
    let homing = Homing::ready(Process::spawn(arguments), false, directory).await;
    assert_eq!(Client::h1(&homing).get("/").send().await.text(), "app-1");
}

#[test]
fn the_configurations_that_the_readme_shows_are_valid() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "no ```toml block");
    for block in blocks {
        let directory = std::path::Path::new("/etc/homing");
        Config::parse(block, "README.md", directory).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[tokio::test]
async fn version_and_help_are_printed() {
    let version = Process::run(["--version"]).await;
    assert!(version.status.success() && version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let help = Process::run(["--help"]).await;
    for subcommand in ["serve", "check", "print-config", "demo"] {
        assert!(help.stdout.contains(subcommand), "no {subcommand} in\n{}", help.stdout);
    }
}

/// Checks a configuration of this text.
async fn check(text: &str) -> Ended {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("homing.toml");
    fs::write(&file, text).expect("a file");
    Process::run(["check", "--config", path(&file)]).await
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("a temporary directory of plain characters")
}
