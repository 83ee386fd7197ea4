//! Which names and versions a handshake may have, and which hosts may be asked for on its connection.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::StatusCode;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use self::support::{
    backend::Backend,
    client::{BOTH, Client},
    pki::Authority,
    process::Homing,
    setup::Setup,
    within,
};

const HANDSHAKES: &str = "homing_tls_handshakes_total";

#[tokio::test]
async fn the_oldest_version_can_be_raised() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[tls]\nmin_version = \"1.3\"").start().await;
    for protocol in BOTH {
        let old = Client::new(&homing, protocol).only(&TLS12).try_connect().await;
        assert!(old.err().expect("refused").to_string().contains("ProtocolVersion"));
        assert_eq!(Client::new(&homing, protocol).only(&TLS13).get("/").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn strict_names_turn_away_whoever_names_none_that_is_served() {
    let backend = Backend::plain("app-1");
    let homing = strict(&backend, true).await;
    for version in [&TLS12, &TLS13] {
        let before = homing.metric(HANDSHAKES, &[("result", "unknown-name")]).await;
        for client in [
            Client::h1(&homing).host("other.example").only(version),
            Client::h1(&homing).host("a.b.wild.example").only(version),
            Client::h1(&homing).host("one.example").only(version).nameless(),
        ] {
            let error = within("an alert", client.try_connect()).await.err().expect("turned away");
            assert!(error.to_string().contains("UnrecognisedName"), "{error}");
        }
        homing.wait_for_metric(HANDSHAKES, &[("result", "unknown-name")], before + 3.0).await;
        for name in ["one.example", "ONE.example", "x.wild.example", "two.example"] {
            let client = Client::h1(&homing).host(name).only(version);
            assert_eq!(client.get("/").send().await.status, StatusCode::OK, "{name}");
        }
    }
}

#[tokio::test]
async fn under_strict_names_a_host_of_another_certificate_is_misdirected() {
    let backend = Backend::plain("app-1");
    let homing = strict(&backend, true).await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).host("one.example").connect().await;
        for (host, status) in [
            ("one.example", StatusCode::OK),
            ("ONE.example:8443", StatusCode::OK),
            ("www.one.example", StatusCode::OK),
            ("two.example", StatusCode::MISDIRECTED_REQUEST),
        ] {
            assert_eq!(connection.get("/").authority(host).send().await.status, status, "{host}");
        }
        let connection = Client::new(&homing, protocol).host("one.example").connect().await;
        let unknown = connection.get("/").authority("unknown.example").send().await;
        assert_eq!(unknown.status, StatusCode::MISDIRECTED_REQUEST);
    }
    let record = homing.process.access_record("a refusal", |record| record["status"] == 421).await;
    assert_eq!(record["error"], "misdirected");
}

#[tokio::test]
async fn one_host_in_all_its_spellings_has_one_certificate_and_one_route() {
    let backend = Backend::plain("app-1");
    let homing = routed(&backend, true).await;
    for protocol in BOTH {
        for (name, host) in [
            ("one.example", "one.example."),
            ("one.example", "One.Example.:8443"),
            ("one.example", "one.example:443"),
            ("x.wild.example", "x.wild.example."),
            ("x.wild.example", "Y.wild.example.:443"),
        ] {
            let client = Client::new(&homing, protocol).host(name);
            let got = client.get("/").authority(host).send().await;
            assert_eq!(got.status, StatusCode::OK, "{host} over {protocol:?}");
            assert_eq!(backend.seen().pop().expect("a request").one("host"), host, "as it was written");
        }
    }
}

#[tokio::test]
async fn a_request_that_names_no_host_is_for_that_of_the_handshake() {
    let backend = Backend::plain("app-1");
    for strict in [true, false] {
        let homing = routed(&backend, strict).await;
        let text = Client::h1(&homing).host("one.example").exchange("GET /none HTTP/1.0\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        assert_eq!(backend.seen().pop().expect("a request").one("host"), "one.example");
        let text = Client::h1(&homing).host("two.example").exchange("GET / HTTP/1.0\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 404 "), "two.example has no route: {text}");
        let text = Client::h1(&homing).host("one.example").exchange("GET / HTTP/1.1\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 400 "), "HTTP/1.1 needs one: {text}");
    }
}

#[tokio::test]
async fn an_absolute_target_may_spell_the_host_in_another_way() {
    let backend = Backend::plain("app-1");
    let homing = routed(&backend, true).await;
    for (target, host, status) in [
        ("https://one.example/", "One.Example.:443", 200),
        ("https://one.example:443/", "one.example", 200),
        ("https://one.example/", "one.example:8443", 400),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let text = Client::h1(&homing).host("one.example").exchange(&request).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {host}: {text}");
    }
}

/// As [`strict`], with routes for `one.example` and the wildcard alone.
async fn routed(backend: &Backend, strict: bool) -> Homing {
    let leaves = [&["one.example"][..], &["two.example"], &["*.wild.example"]];
    let leaves = leaves.map(|names| Authority::get().leaf(names));
    let setup = leaves.iter().fold(Setup::new([backend]), Setup::certificate);
    let routes = ["One.Example.", "*.wild.example"]
        .map(|host| format!("[[route]]\nhost = \"{host}\"\npool = \"app\"\n"))
        .concat();
    setup.section(&format!("[tls]\nstrict_sni = {strict}\n{routes}")).start().await
}

#[tokio::test]
async fn without_strict_names_any_host_may_be_asked_for() {
    let backend = Backend::plain("app-1");
    let homing = strict(&backend, false).await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).host("one.example").connect().await;
        assert_eq!(connection.get("/").authority("two.example").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_handshake_deadline_of_more_than_thirty_seconds_is_an_error() {
    let backend = Backend::plain("app-1");
    let ended = Setup::new([&backend]).section("[timeouts]\nhandshake = \"31s\"").run_to_end("check").await;
    assert!(!ended.status.success() && ended.stderr.contains("30s"), "{}", ended.stderr);
}

/// Three certificates, one of them a wildcard.
async fn strict(backend: &Backend, strict: bool) -> Homing {
    let leaves = [&["one.example", "www.one.example"][..], &["two.example"], &["*.wild.example"]]
        .map(|names| Authority::get().leaf(names));
    let setup = leaves.iter().fold(Setup::new([backend]), Setup::certificate);
    setup.section(&format!("[tls]\nstrict_sni = {strict}")).start().await
}
