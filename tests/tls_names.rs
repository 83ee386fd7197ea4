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
