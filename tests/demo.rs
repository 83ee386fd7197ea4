//! The first thing that people run: the demo, with curl only; and the shop as separate processes.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

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
    let cookies = demo.directory().join("jar");
    let printed = format!("{}\n{}", demo.process.stdout.text(), demo.process.stderr.text());
    let mut tried = 0;
    for line in printed.lines().map(str::trim) {
        // Events go on for as long as one likes to watch them.
        if !(line.starts_with("curl ") || line.starts_with("for ")) || line.contains("/events") {
            continue;
        }
        let line = line.replace("/tmp/homing.jar", &cookies.display().to_string());
        let ran = shell(&format!("set -e; {}", line.replace("curl ", "curl --fail --noproxy '*' "))).await;
        assert_eq!(ran.code, 0, "{line}\n{}", ran.stderr);
        tried += 1;
    }
    assert!(tried >= 5, "{tried} commands in\n{printed}");
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
            assert_eq!(who["session_app"], login["session_app"], "{who}");
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
