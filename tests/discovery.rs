//! Backends that are found in DNS: they come, drain when they leave, and are not mistaken for one another.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::StatusCode;
use serde_json::json;

use self::support::{
    app,
    backend::Backend,
    call::Jar,
    client::Client,
    dns::{Dns, HOST, Says},
    eventually,
    metrics::Metrics,
    operator::{self, Operator, rewrite},
    port::Port,
    process::Homing,
    setup::Setup,
};

const TWO: &str = "app-127.0.0.2";
const THREE: &str = "app-127.0.0.3";
const LOOKUPS: &str = "homing_discovery_lookups_total";
const OPEN: &str = "[admin]\nallow_changes = true";
const INSTANCES: &str = "instance_header = \"x-instance\"";

#[tokio::test]
async fn the_pool_grows_with_its_addresses() {
    let fleet = Fleet::new();
    let _two = fleet.start(2, "");
    let dns = Dns::knowing(&[ip(2)]).await;
    let homing = fleet.setup(&dns).pool("slow_start = \"0s\"").start().await;
    let client = Client::h1(&homing);
    assert_eq!(app::login(&client, "anna").await.1, TWO);
    let _three = fleet.start(3, "");
    dns.know(&[ip(3), ip(2)]);
    homing.process.stderr.wait_for("backend discovered").await;
    homing.wait_for_metric("homing_backend_up", &[("backend", THREE)], 1.0).await;
    assert_eq!(app::login(&client, "ben").await.1, THREE, "it has fewer");
    homing.wait_for_metric("homing_discovery_addresses", &[("entry", "app")], 2.0).await;
    let shown = Operator::of(&homing).backend(THREE).await;
    assert_eq!((&shown["discovered"], &shown["left_dns"]), (&json!("app"), &json!(false)));
    assert_eq!(shown["url"], format!("http://127.0.0.3:{}", fleet.port()));
    let table = operator::run(&homing, &["backends"]).await.stdout;
    assert!(table.contains("app/app-127.0.0.3") && table.contains("discovered: app"), "{table}");
    dns.know(&[ip(3), ip(2), IpAddr::from(Ipv6Addr::LOCALHOST)]);
    homing.wait_for_metric("homing_discovery_addresses", &[("entry", "app")], 3.0).await;
    homing.process.stderr.wait_for("app-::1").await;
}

#[tokio::test]
async fn without_a_resolver_the_system_knows_the_name() {
    let local = app::start("app-127.0.0.1");
    let port = local.address().port();
    let entry =
        format!("[[pool.backend]]\nname = \"app\"\nurl = \"http://localhost:{port}\"\ndiscover = \"dns\"\n");
    // It may have ::1 as well, where nobody listens: checks take that out.
    let homing = Setup::new::<&Backend>([]).checked().section(&entry).start().await;
    homing.wait_for_metric("homing_backend_up", &[], 1.0).await;
    assert_eq!(app::login(&Client::h1(&homing), "anna").await.1, "app-127.0.0.1");
}

#[tokio::test]
async fn an_entry_without_an_address_shows_with_the_name_that_is_followed() {
    let fleet = Fleet::new();
    let _two = fleet.start(2, "");
    let dns = Dns::start(Says::Failure).await;
    let homing = fleet.setup(&dns).start().await;
    let line = homing.process.stderr.wait_for("DNS look-up failed: nothing is known of it yet").await;
    assert!(line.contains(&format!("servers={}", dns.address)), "{line}");
    homing.process.stderr.wait_for("pool app: 0 backends (0 by DNS)").await;
    let table = operator::run(&homing, &["backends"]).await.stdout;
    assert!(table.contains("app/app") && table.contains(&format!("no address of {HOST}")), "{table}");
    let pools = operator::run(&homing, &["status"]).await.stdout;
    assert!(pools.lines().any(|line| line.starts_with("app") && line.ends_with("none")), "{pools}");
    dns.say(Says::Addresses(vec![ip(2)]));
    homing.wait_for_metric("homing_discovery_addresses", &[("entry", "app")], 1.0).await;
    eventually("it is in its place", async || {
        let table = operator::run(&homing, &["backends"]).await.stdout;
        table.contains(TWO) && !table.contains("no address of")
    })
    .await;
    dns.say(Says::Failure);
    homing.process.stderr.wait_for("DNS look-up failed: what was known last stays").await;
}

#[tokio::test]
async fn an_address_that_leaves_keeps_its_sessions_and_goes_when_it_has_none() {
    let (fleet, dns, homing, _apps) = two_and_three("").await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    dns.know(&[ip(2)]);
    wait_for_drain(&homing, THREE).await;
    for (user, jar, home) in &users {
        let answer = client.get("/whoami").jar(jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (&**user, &**home));
    }
    assert_eq!(app::login(&client, "late").await.1, TWO);
    let shown = Operator::of(&homing).backend(THREE).await;
    assert_eq!((&shown["state"], &shown["left_dns"]), (&json!("draining"), &json!(true)));
    for (_, jar, _) in users.iter().filter(|(_, _, home)| home == THREE) {
        assert_eq!(client.get("/logout").jar(jar).send().await.status, StatusCode::OK);
    }
    wait_for_removal(&homing, THREE).await;
    let metrics = Metrics::fetch(&homing).await;
    for name in ["homing_sessions", "homing_backend_requests_total"] {
        assert!(metrics.has(name, &[("backend", TWO)]), "{name}");
        assert!(!metrics.has(name, &[("backend", THREE)]), "{name}");
    }
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
    drop(fleet);
}

#[tokio::test]
async fn an_address_that_is_back_before_it_is_removed_serves_as_before_unless_an_operator_drains_it() {
    let (_fleet, dns, homing, _apps) = two_and_three("").await;
    let client = Client::h1(&homing);
    app::login_all(&client, 4).await;
    let operator = Operator::of(&homing);
    operator.steer(TWO, "drain", json!({})).await;
    dns.know(&[ip(9)]);
    eventually("both have left", async || {
        operator.backend(TWO).await["left_dns"] == json!(true)
            && operator.backend(THREE).await["left_dns"] == json!(true)
    })
    .await;
    let undrained = operator.steer(THREE, "undrain", json!({})).await;
    assert_eq!(undrained["state"], "draining", "it is still not in DNS");
    dns.know(&[ip(2), ip(3)]);
    eventually("it serves", async || operator.backend(THREE).await["state"] == json!("up")).await;
    let two = operator.backend(TWO).await;
    assert_eq!((&two["state"], &two["left_dns"]), (&json!("draining"), &json!(false)));
    assert_eq!(app::login(&client, "late").await.1, THREE);
}

#[tokio::test]
async fn another_instance_at_the_address_of_one_that_left_gets_none_of_its_sessions() {
    let (fleet, dns, homing, [_two, three]) = two_and_three(INSTANCES).await;
    let (user, jar) = session_at_three(&homing).await;
    leave(&dns, &homing, three).await;
    let _again = fleet.start(3, "another");
    dns.know(&[ip(2), ip(3)]);
    homing.wait_for_metric("homing_backend_up", &[("backend", THREE)], 1.0).await;
    let ended = [("backend", THREE), ("reason", "restarted")];
    homing.wait_for_metric("homing_affinity_ended_total", &ended, 1.0).await;
    let answer = Client::h1(&homing).get("/whoami").jar(&jar).send().await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{user} is logged in nowhere");
    let record = homing.process.access_record("the move", |record| record["verdict"] == json!("moved")).await;
    assert_eq!(record["reason"], "restarted");
}

#[tokio::test]
async fn the_same_instance_that_comes_back_gets_its_sessions_again() {
    let (_fleet, dns, homing, [_two, mut three]) = two_and_three(INSTANCES).await;
    let (user, jar) = session_at_three(&homing).await;
    three.stop().await;
    dns.know(&[ip(2)]);
    wait_for_removal(&homing, THREE).await;
    three.restart();
    dns.know(&[ip(2), ip(3)]);
    homing.wait_for_metric("homing_backend_up", &[("backend", THREE)], 1.0).await;
    let answer = Client::h1(&homing).get("/whoami").jar(&jar).send().await;
    assert_eq!((answer.text(), answer.header("x-backend")), (&*user, THREE));
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn without_an_instance_header_an_address_that_was_removed_counts_as_restarted() {
    let (fleet, dns, homing, [_two, three]) = two_and_three("").await;
    let (_, jar) = session_at_three(&homing).await;
    leave(&dns, &homing, three).await;
    let _again = fleet.start(3, "");
    dns.know(&[ip(2), ip(3)]);
    let ended = [("backend", THREE), ("reason", "restarted")];
    homing.wait_for_metric("homing_affinity_ended_total", &ended, 1.0).await;
    Client::h1(&homing).get("/whoami").jar(&jar).send().await;
    let record = homing.process.access_record("the move", |record| record["verdict"] == json!("moved")).await;
    assert_eq!(record["reason"], "restarted");
}

#[tokio::test]
async fn what_dns_cannot_say_changes_nothing() {
    let (_fleet, dns, homing, _apps) = two_and_three("").await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    // Few look-ups, since they grow apart.
    for (says, result, times) in [(Says::Failure, "failed", 2.0), (Says::Addresses(Vec::new()), "empty", 1.0)]
    {
        let before = homing.metric(LOOKUPS, &[("result", result)]).await;
        dns.say(says);
        eventually("it was looked up", async || {
            homing.metric(LOOKUPS, &[("result", result)]).await >= before + times
        })
        .await;
        assert_eq!(homing.metric("homing_backend_up", &[]).await, 2.0);
        assert_eq!(homing.metric("homing_backend_draining", &[]).await, 0.0);
    }
    for (user, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
    let said = homing.process.stderr.text();
    assert_eq!(said.matches("DNS look-up failed").count(), 1, "once, not per look-up");
    dns.know(&[ip(2)]);
    homing.process.stderr.wait_for("DNS answers again").await;
    wait_for_drain(&homing, THREE).await;
}

#[tokio::test]
async fn a_reload_keeps_what_was_found_and_what_drains() {
    let (_fleet, dns, homing, _apps) = two_and_three("leave = \"cut\"").await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    dns.know(&[ip(2)]);
    wait_for_drain(&homing, THREE).await;
    rewrite(&homing, |text| text.replace("discover = \"dns\"", "discover = \"dns\"\nweight = 7"));
    homing.process.signal("HUP");
    homing.wait_for_metric("homing_backend_weight", &[("backend", TWO)], 7.0).await;
    assert_eq!(homing.metric("homing_backend_weight", &[("backend", THREE)]).await, 7.0);
    assert_eq!(homing.metric("homing_backend_draining", &[("backend", THREE)]).await, 1.0);
    for (user, jar, home) in &users {
        let answer = client.get("/whoami").jar(jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (&**user, &**home));
    }
    dns.asked_again(2).await;
    rewrite(&homing, |text| text.replace("discover = \"dns\"\n", ""));
    homing.process.signal("HUP");
    wait_for_removal(&homing, TWO).await;
    assert!(!Metrics::fetch(&homing).await.has(LOOKUPS, &[]), "the series of the entry are gone");
}

#[tokio::test]
async fn without_dns_the_proxy_starts_and_serves_as_soon_as_a_backend_is_found() {
    let fleet = Fleet::new();
    let _two = fleet.start(2, "");
    let dns = Dns::start(Says::Nothing).await;
    let homing = fleet.setup(&dns).start().await;
    homing.process.stderr.wait_for("no backend is known yet").await;
    let client = Client::h1(&homing);
    assert_eq!(client.get("/public").send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    let text = client.exchange("GET /public HTTP/1.0\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 503 "), "nor is there one whose name stands for the host: {text}");
    assert!(Metrics::fetch(&homing).await.has(LOOKUPS, &[("result", "ok")]), "0 from the start");
    dns.know(&[ip(2)]);
    homing.wait_for_metric("homing_backend_up", &[("backend", TWO)], 1.0).await;
    assert_eq!(client.get("/public").send().await.status, StatusCode::OK);
}

/// Backends on one port of several loopback addresses.
struct Fleet {
    /// Keeps the port, whose number is free on the other addresses, too.
    port: Port,
}

impl Fleet {
    fn new() -> Self {
        Self { port: Port::reserve() }
    }

    fn port(&self) -> u16 {
        self.port.address.port()
    }

    fn start(&self, last: u8, instance: &str) -> Backend {
        let port = Port::at(SocketAddr::new(ip(last), self.port()));
        app::start_at(port, &format!("app-{}", ip(last)), instance)
    }

    fn setup(&self, dns: &Dns) -> Setup {
        Setup::new::<&Backend>([]).discovering(dns, HOST, self.port()).section(OPEN)
    }
}

/// A proxy that has found two backends, which are checked actively.
async fn two_and_three(pool: &str) -> (Fleet, Dns, Homing, [Backend; 2]) {
    let fleet = Fleet::new();
    let apps = [2, 3].map(|last| fleet.start(last, &format!("first-{last}")));
    let dns = Dns::knowing(&[ip(2), ip(3)]).await;
    let homing = fleet.setup(&dns).pool(pool).checked().start().await;
    assert_eq!(homing.metric("homing_backend_up", &[]).await, 2.0, "found before it serves");
    (fleet, dns, homing, apps)
}

/// Logs in until somebody has their session there.
async fn session_at_three(homing: &Homing) -> (String, Jar) {
    let users = app::login_all(&Client::h1(homing), 2).await;
    let found = users.into_iter().find(|(_, _, home)| home == THREE);
    found.map(|(user, jar, _)| (user, jar)).expect("new sessions are spread")
}

/// The backend of `.3` ends and leaves DNS, until it is forgotten.
async fn leave(dns: &Dns, homing: &Homing, mut three: Backend) {
    three.stop().await;
    dns.know(&[ip(2)]);
    wait_for_removal(homing, THREE).await;
}

async fn wait_for_drain(homing: &Homing, name: &str) {
    homing.wait_for_metric("homing_backend_draining", &[("backend", name)], 1.0).await;
}

async fn wait_for_removal(homing: &Homing, name: &str) {
    eventually(&format!("{name} is removed"), async || {
        !Metrics::fetch(homing).await.has("homing_backend_up", &[("backend", name)])
    })
    .await;
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}
