//! The commands of operators, as people and scripts use them.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use self::support::{
    app,
    client::Client,
    operator::{Operator, TOKEN, TokenFile, place, rewrite, run, run_reading, start},
    process::{Ended, Homing, Process},
    setup::Setup,
    within,
};

const OPEN: &str = "[admin]\nallow_changes = true";
/// A pool whose sessions are live for two seconds.
const SHORT: &str = "2s";

#[tokio::test]
async fn status_and_backends_are_tables_for_people() {
    let (_apps, homing) = shop(2, "30m").await;
    app::login_all(&Client::h1(&homing), 4).await;
    let status = done(run(&homing, &["status"]).await);
    assert!(
        status.contains("homing ") && status.contains("ready") && status.contains("4 requests"),
        "{status}"
    );
    assert!(row(&status, "app").contains("2 up"), "{status}");
    let backends = done(run(&homing, &["backends"]).await);
    for name in ["app/app-1", "app/app-2"] {
        let cells: Vec<_> = row(&backends, name).split_whitespace().collect();
        assert_eq!(cells[..5], [name, "up", "1", "2", "50%"], "{backends}");
    }
    let starts: Vec<_> =
        backends.lines().map(|line| line.find("up").or_else(|| line.find("STATE"))).collect();
    assert!(starts.windows(2).all(|pair| pair[0] == pair[1]), "aligned:\n{backends}");
}

#[tokio::test]
async fn what_is_shown_is_json_for_machines() {
    let (_apps, homing) = shop(2, "30m").await;
    app::login_all(&Client::h1(&homing), 2).await;
    let status: Value = parsed(&done(run(&homing, &["status", "--json"]).await));
    assert_eq!(status["pools"][0]["learned"], 2);
    let pools: Value = parsed(&done(run(&homing, &["backends", "--json", "--pool", "app"]).await));
    assert_eq!(pools[0]["backends"][1]["name"], "app-2");
    let page: Value = parsed(&done(run(&homing, &["sessions", "app-1", "--json"]).await));
    assert_eq!(page["sessions"][0]["state"], "live");
    let drained: Value = parsed(&done(run(&homing, &["drain", "app-2", "--json"]).await));
    assert_eq!(drained["state"], "draining");
}

#[tokio::test]
async fn sessions_are_listed_by_fingerprint() {
    let (_apps, homing) = shop(1, "30m").await;
    app::login_all(&Client::h1(&homing), 3).await;
    let first = done(run(&homing, &["sessions", "app/app-1", "--limit", "2"]).await);
    assert!(first.contains("there are more: --skip 2"), "{first}");
    assert!(!first.contains("secret"), "{first}");
    let rest = done(run(&homing, &["sessions", "app-1", "--skip", "2"]).await);
    assert_eq!(rest.lines().count(), 2, "{rest}");
}

#[tokio::test]
async fn a_session_id_is_read_from_standard_input_or_given() {
    let (_apps, homing) = shop(2, "30m").await;
    let (jar, home) = app::login(&Client::h1(&homing), "anna").await;
    let id = jar.value("session").expect("a session");
    for ended in [
        run_reading(&homing, &["explain"], &format!("{id}\n")).await,
        run_reading(&homing, &["explain", "-"], id).await,
        run(&homing, &["explain", id]).await,
    ] {
        let text = done(ended);
        assert!(text.contains(&format!("home     {home} (live)")), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let nothing = run_reading(&homing, &["explain"], "\n").await;
    assert_eq!(nothing.status.code(), Some(2), "{}", nothing.stderr);
}

#[tokio::test]
async fn explain_of_an_unknown_session_says_where_it_would_go_and_ends_with_4() {
    let (_apps, homing) = shop(1, "30m").await;
    let ended = run_reading(&homing, &["explain"], "secret-nobody").await;
    assert_eq!(ended.status.code(), Some(4));
    assert!(ended.stderr.contains("would go to app-1"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    let ended = run_reading(&homing, &["explain", "--json"], "secret-nobody").await;
    assert_eq!(parsed(&ended.stdout)["known"], false);
    assert_eq!(ended.status.code(), Some(4));
}

#[tokio::test]
async fn a_session_is_moved_and_forgotten() {
    let (_apps, homing) = shop(2, "30m").await;
    let (jar, home) = app::login(&Client::h1(&homing), "anna").await;
    let id = jar.value("session").expect("a session");
    let other = if home == "app-1" { "app-2" } else { "app-1" };
    assert_eq!(done(run_reading(&homing, &["move", "--to", other], id).await), format!("moved to {other}"));
    let explained = done(run_reading(&homing, &["explain"], id).await);
    assert!(explained.contains(&format!("{home} -> {other}")) && explained.contains("admin"), "{explained}");
    let again = done(run_reading(&homing, &["move", "--to", &format!("app/{other}")], id).await);
    assert_eq!(again, format!("it lives on {other} already"));
    done(run_reading(&homing, &["forget"], id).await);
    for command in [&["forget"][..], &["move", "--to", other]] {
        assert_eq!(run_reading(&homing, command, id).await.status.code(), Some(4), "{command:?}");
    }
}

#[tokio::test]
async fn drain_wait_prints_a_line_per_change_and_returns_at_zero() {
    let (_apps, homing) = shop(2, SHORT).await;
    app::login_all(&Client::h1(&homing), 2).await;
    let text = done(run(&homing, &["drain", "app-1", "--wait", "--timeout", "15s"]).await);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("app/app-1 draining: 1 live session, 0 open streams"), "{text}");
    assert!(lines[1].starts_with("app/app-1 draining: 0 live sessions"), "{text}");
    assert_eq!(lines[2], "app/app-1 is drained (1 retained)");
    assert!(!text.contains('\x1b'), "nothing is drawn where nobody looks");
}

#[tokio::test]
async fn drain_wait_of_a_backend_without_sessions_returns_at_once() {
    let (_apps, homing) = shop(2, "30m").await;
    let text = done(run(&homing, &["drain", "app-1", "--wait"]).await);
    assert!(text.ends_with("app/app-1 is drained (0 retained)"), "{text}");
}

#[tokio::test]
async fn drain_wait_tells_its_changes_as_json() {
    let (_apps, homing) = shop(1, SHORT).await;
    app::login(&Client::h1(&homing), "anna").await;
    let text = done(run(&homing, &["drain", "app-1", "--wait", "--json"]).await);
    let changes: Vec<Value> = text.lines().map(parsed).collect();
    assert_eq!(changes.first().map(|change| &change["live"]), Some(&json!(1)), "{text}");
    assert_eq!(changes.last().map(|change| &change["done"]), Some(&json!(true)), "{text}");
}

#[tokio::test]
async fn drain_wait_gives_up_with_3_and_the_drain_goes_on() {
    let (_apps, homing) = shop(1, "30m").await;
    app::login(&Client::h1(&homing), "anna").await;
    let ended = run(&homing, &["drain", "app-1", "--wait", "--timeout", "500ms"]).await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("app/app-1 still has 1 live session"), "{}", ended.stderr);
    assert_eq!(Operator::of(&homing).backend("app-1").await["state"], "draining");
}

#[tokio::test]
async fn drain_wait_ends_with_3_when_the_deadline_passes_with_sessions_left() {
    let (_apps, homing) = shop(2, "30m").await;
    app::login_all(&Client::h1(&homing), 2).await;
    let ended = run(&homing, &["drain", "app-1", "--wait", "--deadline", "500ms"]).await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("came with 1 live session, 0 open streams, 0 requests, which move"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn drain_wait_notices_that_the_drain_was_ended() {
    let (_apps, homing) = shop(1, "30m").await;
    app::login(&Client::h1(&homing), "anna").await;
    let waiting = start(&homing, &["drain", "app-1", "--wait"]);
    waiting.stdout.wait_for("1 live session").await;
    assert_eq!(done(run(&homing, &["undrain", "app-1"]).await), "app/app-1 serves");
    let ended = waiting.wait_exit().await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("does not drain any more"), "{}", ended.stderr);
}

#[tokio::test]
async fn drain_wait_ends_with_3_when_the_backend_is_cut_from_the_configuration() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).pool("leave = \"cut\"").section(OPEN).start().await;
    app::login_all(&Client::h1(&homing), 2).await;
    let waiting = start(&homing, &["drain", "app-1", "--wait"]);
    waiting.stdout.wait_for("1 live session").await;
    rewrite(&homing, |text| text.replace(&table(&apps[0]), ""));
    assert!(done(run(&homing, &["reload"]).await).contains("- app-1"));
    let ended = waiting.wait_exit().await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("has left the configuration with 1 live session"), "{}", ended.stderr);
}

#[tokio::test]
async fn drain_wait_goes_on_when_the_backend_leaves_the_configuration() {
    let (apps, homing) = shop(2, SHORT).await;
    app::login_all(&Client::h1(&homing), 2).await;
    let waiting = start(&homing, &["drain", "app-1", "--wait"]);
    waiting.stdout.wait_for("1 live session").await;
    rewrite(&homing, |text| text.replace(&table(&apps[0]), ""));
    let said = done(run(&homing, &["reload"]).await);
    assert!(said.contains("reloaded: pool app: app-1 leaves: 1 live session stays until idle"), "{said}");
    done(waiting.wait_exit().await);
}

#[tokio::test]
async fn a_dry_run_tells_what_a_reload_does_and_does_nothing() {
    let (apps, homing) = shop(3, "30m").await;
    app::login_all(&Client::h1(&homing), 3).await;
    rewrite(&homing, |text| {
        text.replace(&table(&apps[0]), "").replace("\"app-2\"", "\"blue\"").replace("\"30m\"", "\"20m\"")
    });
    for _ in 0..2 {
        let said = done(run(&homing, &["reload", "--dry-run"]).await);
        for part in [
            "session_timeout 30m -> 20m",
            "would reload: pool app: app-1 leaves: 1 live session stays until idle",
            "would reload: pool app: app-2 is renamed to blue: 1 live session stays",
        ] {
            assert!(said.contains(part), "no {part:?} in\n{said}");
        }
        let table = done(run(&homing, &["backends"]).await);
        assert!(
            ["app-1", "app-2", "app-3"].iter().all(|name| row(&table, &format!("app/{name}")).contains("up"))
        );
    }
    let changes = parsed(&done(run(&homing, &["reload", "--dry-run", "--json"]).await));
    assert_eq!((&changes["dry_run"], &changes["lost"]), (&json!(true), &json!(0)), "{changes:#}");
    assert_eq!(changes["effects"][0]["what"], "leaves", "{changes:#}");
}

#[tokio::test]
async fn a_dry_run_ends_with_3_when_sessions_would_end_and_with_1_at_a_mistake() {
    let (_apps, homing) = shop(1, "30m").await;
    app::login_all(&Client::h1(&homing), 2).await;
    rewrite(&homing, |text| text.replace("cookie:session", "cookie:other"));
    let ended = run(&homing, &["reload", "--dry-run"]).await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    assert!(ended.stdout.contains("2 live sessions known by the former key only"), "{}", ended.stdout);
    rewrite(&homing, |text| text.replace("session_timeout", "sesion_timeout"));
    let ended = run(&homing, &["reload", "--dry-run"]).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("did you mean `session_timeout`?"), "{}", ended.stderr);
    let status = Operator::of(&homing).read("status").await;
    assert_eq!(status["config"]["last_reload_ok"], true, "a dry run is no reload");
    assert_eq!(Operator::of(&homing).post("reload?dryrun=true", json!({})).await.status, 400);
}

#[tokio::test]
async fn drain_wait_ends_with_3_although_the_cut_sessions_have_moved_by_then() {
    let (_apps, homing) = shop(2, "30m").await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 2).await;
    let waiting = start(&homing, &["drain", "app-1", "--wait", "--deadline", "300ms"]);
    while waiting.exit_status().is_none() {
        for (_, jar, _) in &users {
            client.get("/public").jar(jar).send().await;
        }
    }
    let ended = waiting.wait_exit().await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
}

#[tokio::test]
async fn an_interrupted_wait_ends_with_130() {
    let (_apps, homing) = shop(1, "30m").await;
    app::login(&Client::h1(&homing), "anna").await;
    let waiting = start(&homing, &["drain", "app-1", "--wait"]);
    waiting.stdout.wait_for("1 live session").await;
    waiting.signal("INT");
    assert_eq!(waiting.wait_exit().await.status.code(), Some(130));
}

#[tokio::test]
async fn on_a_terminal_the_picture_is_redrawn_in_place() {
    let (_apps, homing) = shop(1, SHORT).await;
    app::login(&Client::h1(&homing), "anna").await;
    let text = on_a_terminal(&homing, "drain app-1 --wait").await;
    assert!(text.contains("app/app-1 draining  [.....") && text.contains("[##########"), "{text}");
    assert!(text.contains("\x1b[F"), "drawn over: {text}");
    assert!(text.trim_end().ends_with("app/app-1 is drained (1 retained)"), "{text}");
    let text = on_a_terminal(&homing, "top --count 2 --interval 100ms").await;
    assert!(text.contains("\x1b[?1049h") && text.trim_end().ends_with("\x1b[?1049l"), "given back: {text:?}");
    let longest = text.lines().map(|line| line.chars().count()).max();
    assert!(longest.is_some_and(|longest| longest < 120), "{longest:?} columns of 80, controls included");
}

#[tokio::test]
async fn top_prints_lines_where_it_is_piped() {
    let (_apps, homing) = shop(2, "30m").await;
    let text = done(run(&homing, &["top", "--count", "2", "--interval", "100ms"]).await);
    assert_eq!(
        text.lines().filter(|line| line.contains("app/app-1 up weight=1 live=0")).count(),
        2,
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
}

#[tokio::test]
async fn weight_maintenance_and_log_level_say_what_holds_now() {
    let (_apps, homing) = shop(2, "30m").await;
    assert_eq!(done(run(&homing, &["weight", "app-2", "5"]).await), "app/app-2 has weight 5");
    let rested = done(run(&homing, &["maintenance", "app-2"]).await);
    assert!(rested.starts_with("app/app-2 is in maintenance"), "{rested}");
    let backends = done(run(&homing, &["backends"]).await);
    assert_eq!(row(&backends, "app/app-2").split_whitespace().nth(2), Some("5"), "{backends}");
    assert_eq!(done(run(&homing, &["log-level"]).await), "info");
    assert_eq!(done(run(&homing, &["log-level", "debug"]).await), "debug");
    assert_eq!(run(&homing, &["log-level", "loud"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_reload_tells_what_changed_or_why_nothing_did() {
    let (_apps, homing) = shop(1, "30m").await;
    assert_eq!(done(run(&homing, &["reload"]).await), "reloaded: nothing has changed");
    rewrite(&homing, |text| text.replace("\"30m\"", "\"20m\"").replace("workers = 2", "workers = 3"));
    let text = done(run(&homing, &["reload"]).await);
    assert!(text.contains("reloaded: pool app: session_timeout 30m -> 20m"), "{text}");
    assert!(text.contains("only after a restart: workers 2 -> 3"), "{text}");
    rewrite(&homing, |text| text.replace("session_timeout", "sesion_timeout"));
    let ended = run(&homing, &["reload"]).await;
    assert_eq!(ended.status.code(), Some(1));
    for part in ["the old configuration stays", "did you mean `session_timeout`?", "homing.toml:"] {
        assert!(ended.stderr.contains(part), "no {part:?} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn the_token_comes_from_a_file() {
    let (apps, file) = (app::several(1), TokenFile::new());
    let homing = Setup::new(&apps).section(&file.section()).start().await;
    let without = run(&homing, &["drain", "app-1"]).await;
    assert_eq!(without.status.code(), Some(1));
    assert!(without.stderr.contains("--token-file"), "{}", without.stderr);
    let path = file.path().display().to_string();
    done(run(&homing, &["drain", "app-1", "--token-file", &path]).await);
    let status = Command::new(env!("CARGO_BIN_EXE_homing"))
        .args(["undrain", "app-1"])
        .env("HOMING_ADMIN", place(&homing))
        .env("HOMING_TOKEN_FILE", &path)
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("our program").success(), "the environment serves as well");
    file.write(TOKEN, 0o640);
    let exposed = run(&homing, &["drain", "app-1", "--token-file", &path]).await;
    assert_eq!(exposed.status.code(), Some(2));
    assert!(exposed.stderr.contains("chmod 600"), "{}", exposed.stderr);
}

#[tokio::test]
async fn commands_speak_over_the_unix_socket() {
    let apps = app::several(1);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("admin.sock");
    let section = format!("[admin]\nsocket = \"{}\"", socket.display());
    let _homing = Setup::new(&apps).section(&section).start().await;
    let place = format!("unix:{}", socket.display());
    let text = done(Process::run(["drain", "app-1", "--admin", &place]).await);
    assert!(text.starts_with("app/app-1 drains: 0 live sessions"), "{text}");
}

#[tokio::test]
async fn a_probe_is_the_health_check_of_the_proxy_and_of_an_application() {
    let (apps, homing) = shop(1, "30m").await;
    let proxy = place(&homing);
    assert_eq!(done(Process::run(["probe", &format!("{proxy}/readyz")]).await), "ready");
    let mut default = Command::new(env!("CARGO_BIN_EXE_homing"));
    let default = default.arg("probe").env("HOMING_ADMIN", &proxy).output().expect("our program");
    assert_eq!(String::from_utf8_lossy(&default.stdout), "ready\n");
    let app = format!("http://{}", apps[0].address());
    done(Process::run(["probe", &format!("{app}/healthz")]).await);
    for (url, code, said) in [
        (format!("{app}/whoever"), 1, "status 401"),
        ("http://127.0.0.1:1/".to_owned(), 1, "cannot reach http://127.0.0.1:1"),
        ("https://127.0.0.1:1/".to_owned(), 2, "is not such as"),
    ] {
        let ended = Process::run(["probe", &url]).await;
        assert_eq!(ended.status.code(), Some(code), "{url}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{url}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn mistakes_have_exit_codes_of_their_own() {
    let (_apps, homing) = shop(1, "30m").await;
    for (arguments, code, said) in [
        (&["drain", "app-9"][..], 4, "there are app/app-1"),
        (&["drain", "shop/app-1"], 4, "there are app/app-1"),
        (&["status", "--pool", "six"], 4, "there are app"),
        (&["drain"], 2, "BACKEND"),
        (&["weight", "app-1", "0"], 2, "1..=1000"),
        (&["drain", "app-1", "--timeout", "1s"], 2, "--wait"),
        (&["drain", "app-1", "--deadline", "60"], 2, "unit"),
    ] {
        let ended = run(&homing, arguments).await;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
    let nobody = Process::run(["status", "--admin", "http://127.0.0.1:1"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    let said = "cannot reach the admin listener at http://127.0.0.1:1";
    assert!(nobody.stderr.contains(said) && nobody.stderr.contains("set --admin"), "{}", nobody.stderr);
    assert_eq!(Process::run(["status", "--admin", "https://x"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn help_documents_exit_codes_and_the_danger_of_arguments() {
    let drain = done(Process::run(["drain", "--help"]).await);
    for part in ["Exit codes", "3 with --wait", "preStop"] {
        assert!(drain.contains(part), "{drain}");
    }
    assert!(done(Process::run(["explain", "--help"]).await).contains("list of processes"));
}

/// A program in front of so many applications, which operators may change.
async fn shop(count: usize, session_timeout: &'static str) -> (Vec<support::backend::Backend>, Homing) {
    let apps = app::several(count);
    let homing = Setup::new(&apps).session_timeout(session_timeout).section(OPEN).start().await;
    (apps, homing)
}

/// What a command that went well printed.
/// The table of a backend in the configuration.
fn table(app: &support::backend::Backend) -> String {
    format!("[[pool.backend]]\nname = \"{}\"\nurl = \"http://{}\"", app.name, app.address())
}

fn done(ended: Ended) -> String {
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stderr, "");
    ended.stdout.trim_end().to_owned()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The row of a table that begins with this.
fn row<'a>(table: &'a str, first: &str) -> &'a str {
    let found = table.lines().find(|line| line.split_whitespace().next() == Some(first));
    found.unwrap_or_else(|| panic!("no {first} in\n{table}"))
}

/// Runs a command on a terminal of 80 columns, by script(1); everything that was written to it.
async fn on_a_terminal(homing: &Homing, command: &str) -> String {
    let line = format!(
        "stty cols 80 rows 24; exec {} {command} --admin {}",
        env!("CARGO_BIN_EXE_homing"),
        place(homing)
    );
    let running = tokio::task::spawn_blocking(move || {
        Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output()
    });
    let output = within("the end of a command", running).await.expect("no panic").expect("script(1)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
