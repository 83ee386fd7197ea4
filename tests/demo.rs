//! The first thing that people run: the demo, with curl only; and the shop as separate processes.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use self::support::{
    curl::shell,
    eventually, plain,
    port::Port,
    process::{Homing, Process},
    setup::Setup,
};

#[tokio::test]
async fn what_the_demo_prints_works_as_printed() {
    let demo = demo().await;
    // The last line of the guide, which follows the listeners.
    demo.process.stderr.wait_for("Ctrl-C here stops everything").await;
    let printed = format!("{}\n{}", demo.process.stdout.text(), demo.process.stderr.text());
    let mut tried = 0;
    for line in printed.lines().map(str::trim) {
        // Events go on for as long as one likes to watch them.
        if !["curl ", "for ", "case "].iter().any(|start| line.starts_with(start)) || line.contains("/events")
        {
            continue;
        }
        let ran = shell(&format!("set -e; {}", line.replace("curl ", "curl --fail --noproxy '*' "))).await;
        assert_eq!(ran.code, 0, "{line}\n{}", ran.stderr);
        tried += 1;
    }
    assert!(tried >= 9, "{tried} commands in\n{printed}");
    assert!(demo.directory().join("cookies.jar").exists(), "cookies are kept elsewhere");
    // One of them stops an application.
    demo.process.stderr.wait_for("is gone; its sessions move to the others").await;
}

#[tokio::test]
async fn a_cart_is_whole_after_twenty_requests_on_fresh_connections() {
    let demo = demo().await;
    let curl = Curl::of(&demo);
    let login = curl.json("", "/login -d user=ada").await;
    let items = ["tea", "milk", "sugar"];
    for number in 0..20 {
        let protocol = if number % 2 == 0 { "--http1.1" } else { "--http2" };
        if let Some(item) = items.get(number / 6).filter(|_| number % 6 == 0) {
            curl.json(&format!("{protocol} -X POST"), &format!("/cart/add?item={item}")).await;
        } else {
            let who = curl.json(protocol, "/whoami").await;
            assert_eq!(who["backend"], login["session_app"], "{who}");
        }
    }
    let cart = curl.json("", "/cart").await.to_string();
    assert!(items.iter().all(|item| cart.contains(item)), "{cart}");
    assert_eq!(demo.metric("homing_sessions", &[]).await, 1.0);
}

#[tokio::test]
async fn the_demo_keeps_its_certificates() {
    let certs = tempfile::tempdir().expect("a temporary directory");
    let mut generations = Vec::new();
    for _ in 0..2 {
        let process = Process::spawn(arguments(certs.path()));
        let demo = Homing::ready(process, true, tempfile::tempdir().expect("a temporary directory")).await;
        generations.push(fs::read(certs.path().join("ca.pem")).expect("a certificate"));
        demo.process.terminate();
        assert_eq!(demo.process.wait_exit().await.status.code(), Some(0));
    }
    assert_eq!(generations[0], generations[1]);
    let mut keys = 0;
    for entry in fs::read_dir(certs.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if fs::read_to_string(&path).expect("PEM").contains("PRIVATE KEY") {
            let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            keys += 1;
        }
    }
    assert!(keys > 0, "no key in {}", certs.path().display());
}

#[tokio::test]
async fn a_busy_port_of_the_demo_is_an_error_that_names_it_and_its_flag() {
    let busy = Port::reserve();
    let _listener = busy.listen();
    let address = busy.address.to_string();
    for flag in ["--https", "--http", "--admin"] {
        let certs = tempfile::tempdir().expect("a temporary directory");
        let mut arguments = arguments(certs.path());
        let at = arguments.iter().position(|argument| argument == flag).expect("one of them");
        arguments[at + 1].clone_from(&address);
        let ended = Process::run(arguments).await;
        assert!(ended.status.code().is_some_and(|code| code != 0 && code != 101), "{ended:?}");
        for part in [&*address, flag] {
            assert!(ended.stderr.contains(part), "no {part} in\n{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn a_busy_port_of_an_application_is_an_error_that_names_it_and_its_flag() {
    let busy = Port::reserve();
    let _listener = busy.listen();
    let port = busy.address.port().to_string();
    for (port, part) in [(&*port, &*busy.address.to_string()), ("65534", "3 ports from 65534")] {
        let certs = tempfile::tempdir().expect("a temporary directory");
        let mut arguments = arguments(certs.path());
        let at = arguments.iter().position(|argument| argument == "--app-port").expect("one of them");
        port.clone_into(&mut arguments[at + 1]);
        let ended = Process::run(arguments).await;
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let one_line = ended.stderr.lines().count() == 1;
        assert!(one_line && ended.stderr.contains(part) && ended.stderr.contains("--app-port"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_an_error_that_names_it_and_its_flag() {
    let ended = Process::run(arguments(Path::new("/dev/null/certs"))).await;
    assert!(ended.status.code().is_some_and(|code| code != 0 && code != 101), "{ended:?}");
    for part in ["/dev/null/certs", "--certs"] {
        assert!(ended.stderr.contains(part), "no {part} in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn users_of_a_killed_application_are_served_by_another_and_all_others_stay() {
    let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
    let names = ["app-1", "app-2", "app-3"];
    let apps: Vec<Process> = names.iter().zip(&ports).map(|(name, port)| shop(name, port)).collect();
    for port in &ports {
        let address = port.address;
        eventually("a shop is up", async || plain::get(address, "/healthz").await.is_ok()).await;
    }
    let members = names.into_iter().zip(&ports).map(|(name, port)| (name, port.address));
    let homing = Setup::new(members).checked().start().await;
    let client = support::client::Client::h2(&homing);
    let mut users = Vec::new();
    for number in 0..9 {
        let login = client.post(&format!("/login?user=user-{number}")).send().await;
        assert_eq!(login.status, StatusCode::OK, "{login:?}");
        let mut jar = support::call::Jar::default();
        jar.store(&login.headers);
        client.post("/cart/add?item=tea").jar(&jar).send().await;
        users.push((jar, login.header("x-backend").to_owned()));
    }
    apps[1].kill();
    for (jar, home) in &users {
        let page = client.get("/").jar(jar).send().await;
        assert_eq!(page.status, StatusCode::OK);
        let cart = client.get("/cart").jar(jar).send().await;
        let whole = cart.status == StatusCode::OK && cart.text().contains("tea");
        assert_eq!(whole, home != "app-2", "home {home}: {}", cart.text());
        assert_eq!(page.header("x-backend") == home, home != "app-2");
    }
    let left = [("backend", "app-2"), ("reason", "down")];
    assert!(homing.metric("homing_affinity_moves_total", &left).await > 0.0);
}

#[tokio::test]
async fn a_killed_application_is_reported_and_can_be_started_again() {
    let demo = demo().await;
    let mut users = Vec::new();
    for number in 0..6 {
        let curl = Curl::of(&demo);
        let login = curl.json("", &format!("/login -d user=user-{number}")).await;
        curl.json("-X POST", "/cart/add?item=tea").await;
        users.push((curl, login["session_app"].as_str().expect("a name").to_owned()));
    }
    let (name, pid, address) = applications(&demo).await.swap_remove(1);
    kill("KILL", pid);
    let line = demo.process.stderr.wait_for(&format!("{name} (pid {pid}) is gone")).await;
    assert!(plain::get(address, "/healthz").await.is_err(), "the port still takes connections");
    for (curl, home) in &users {
        let cart = curl.json("", "/cart").await;
        let whole = cart["items"][0] == "tea";
        assert_eq!((whole, cart["backend"] == **home), (*home != name, *home != name), "home {home}: {cart}");
    }
    demo.wait_for_metric("homing_backend_up", &[("backend", &name)], 0.0).await;
    let again = line.split_once("Start it again with: ").expect("a command").1;
    let arguments = again.strip_prefix(env!("CARGO_BIN_EXE_homing")).expect("this program");
    let _again = Process::spawn(arguments.split_whitespace());
    demo.wait_for_metric("homing_backend_up", &[("backend", &name)], 1.0).await;
}

#[tokio::test]
async fn a_signal_ends_the_demo_and_all_of_its_applications() {
    for signal in ["TERM", "INT"] {
        let demo = demo().await;
        let applications = applications(&demo).await;
        demo.process.signal(signal);
        let ended = demo.process.wait_exit().await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("is gone"), "{}", ended.stderr);
        for (name, pid, _) in applications {
            assert!(!runs(pid), "{name} ({pid}) still runs after SIG{signal}");
        }
    }
}

#[tokio::test]
async fn requests_are_finished_before_the_applications_end() {
    let demo = demo().await;
    let curl = Curl::of(&demo);
    let slow = curl.json("", "/slow?ms=1000");
    let stop = async {
        demo.wait_for_metric("homing_backend_in_flight", &[], 1.0).await;
        demo.process.terminate();
    };
    let (answer, ()) = tokio::join!(slow, stop);
    assert_eq!(answer["slept_ms"], 1000);
    assert_eq!(demo.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn applications_do_not_outlive_a_demo_that_was_killed() {
    let demo = demo().await;
    let applications = applications(&demo).await;
    assert!(applications.iter().all(|(_, pid, _)| runs(*pid)));
    demo.process.kill();
    for (name, pid, _) in applications {
        eventually(&format!("{name} ({pid}) ends"), async || !runs(pid)).await;
    }
}

/// A demo on ports of its own, with fresh certificates.
async fn demo() -> Homing {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let process = Process::spawn(arguments(directory.path()));
    let demo = Homing::ready(process, true, directory).await;
    for shop in ["app-1", "app-2", "app-3"] {
        demo.wait_for_metric("homing_backend_up", &[("backend", shop)], 1.0).await;
    }
    demo
}

/// Name, process id and address of each application that a demo says it runs.
async fn applications(demo: &Homing) -> Vec<(String, u32, SocketAddr)> {
    demo.process.stderr.wait_for("Ctrl-C").await;
    let parse = |line: &str| {
        let (name, rest) = line.trim().split_once("  http://")?;
        let (address, rest) = rest.split_once("/  ")?;
        let pid = rest.split_once("pid ")?.1.strip_suffix(')')?;
        Some((name.trim().to_owned(), pid.parse().ok()?, address.parse().ok()?))
    };
    let applications: Vec<_> = demo.process.stderr.all().iter().filter_map(|line| parse(line)).collect();
    assert_eq!(applications.len(), 3, "{}", demo.process.stderr.text());
    applications
}

fn kill(signal: &str, pid: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().expect("a shell");
    assert!(sent.success(), "no process {pid}");
}

/// Whether there is such a process, and not only what is left of one that nobody has waited for.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

fn arguments(certs: &Path) -> Vec<String> {
    let certs = certs.to_str().expect("plain characters");
    let flags = ["demo", "--certs", certs, "--app-port", "0"];
    let listeners = ["--https", "--http", "--admin"].map(|flag| [flag, "127.0.0.1:0"]);
    flags.into_iter().chain(listeners.into_iter().flatten()).map(str::to_owned).collect()
}

/// One shop, as a process.
fn shop(name: &str, port: &Port) -> Process {
    Process::spawn(["demo-app", "--name", name, "--listen", &port.address.to_string()])
}

/// curl as one user of a demo.
struct Curl {
    base: String,
    url: String,
    _jar: TempDir,
}

impl Curl {
    fn of(demo: &Homing) -> Self {
        let jar = tempfile::tempdir().expect("a temporary directory");
        let cookies = jar.path().join("jar");
        let (ca, cookies) = (demo.directory().join("ca.pem"), cookies.display());
        let base =
            format!("curl -sS --fail --noproxy '*' --cacert {} -c {cookies} -b {cookies}", ca.display());
        Self { base, url: format!("https://localhost:{}", demo.https.port()), _jar: jar }
    }

    /// A request; the JSON that it is answered by.
    async fn json(&self, flags: &str, target: &str) -> Value {
        let (path, more) = target.split_once(' ').unwrap_or((target, ""));
        let ran = shell(&format!("{} {flags} '{}{path}' {more}", self.base, self.url)).await;
        assert_eq!(ran.code, 0, "{target}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{target}: {error}: {}", ran.stdout))
    }
}
