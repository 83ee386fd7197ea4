//! The harness itself: a test is worth no more than what it stands on.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::sync::Arc;

use bytes::Bytes;
use homing::config::Config;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::net::TcpStream;

use self::support::{
    app,
    backend::Backend,
    call::Jar,
    flow::{drain_pattern, frames, patterned},
    lines::Lines,
    metrics::Metrics,
    plain,
    port::Port,
    raw_backend::RawBackend,
    setup::Setup,
};

#[tokio::test]
async fn a_reserved_port_refuses_until_somebody_listens() {
    let port = Port::reserve();
    assert!(TcpStream::connect(port.address).await.is_err());
    let listener = port.listen();
    assert!(TcpStream::connect(port.address).await.is_ok());
    drop(listener);
    assert!(TcpStream::connect(port.address).await.is_err());
    let _again = port.listen();
    assert!(TcpStream::connect(port.address).await.is_ok());
}

#[tokio::test]
async fn a_stopped_backend_refuses_and_a_restarted_one_answers() {
    let mut backend = Backend::plain("app-1");
    assert_eq!(plain::get(backend.address(), "/").await.expect("an answer").text(), "app-1");
    backend.stop().await;
    assert!(plain::get(backend.address(), "/").await.is_err());
    backend.restart();
    assert_eq!(plain::get(backend.address(), "/").await.expect("an answer").text(), "app-1");
    assert_eq!((backend.seen().len(), backend.connections()), (2, 2));
}

#[tokio::test]
async fn a_raw_backend_records_what_arrives() {
    let backend = RawBackend::answering("app-1", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(plain::get(backend.address(), "/path").await.expect("an answer").text(), "ok");
    assert_eq!((backend.count("GET /path HTTP/1.1\r\n"), backend.arrived().len()), (1, 1));
}

#[tokio::test]
async fn the_application_knows_only_its_own_sessions() {
    let (one, two) = (app::start("app-1"), app::start("app-2"));
    let login = plain::get(one.address(), "/login?anna").await.expect("an answer");
    let mut jar = Jar::default();
    jar.store(&login.headers);
    let cookie = format!("session={}", jar.value("session").expect("logged in"));
    for (backend, status) in [(&one, 200), (&two, 401)] {
        let request = http::Request::builder().uri("/whoami").header("host", "x").header("cookie", &cookie);
        let request = request.body(support::flow::full("")).expect("a valid request");
        assert_eq!(plain::send(backend.address(), request).await.expect("an answer").status, status);
    }
}

#[tokio::test]
async fn a_patterned_body_is_checked_byte_by_byte() {
    let length = 3 * 64 * 1024 + 17;
    assert_eq!(drain_pattern(patterned(length, Arc::default())).await.expect("the pattern"), length);
    let mut bytes =
        patterned(length, Arc::default()).collect().await.expect("a whole body").to_bytes().to_vec();
    let lost = [&bytes[..70_000], &bytes[70_001..]].concat();
    assert!(drain_pattern(frames(vec![Frame::data(Bytes::from(lost))])).await.is_err());
    bytes[100_000] ^= 1;
    assert!(drain_pattern(frames(vec![Frame::data(Bytes::from(bytes))])).await.is_err());
}

#[tokio::test]
async fn a_setup_is_a_valid_configuration() {
    let backend = Backend::plain("app-1");
    let setup = Setup::new([&backend])
        .checked()
        .redirecting()
        .top("trusted_proxies = [\"127.0.0.0/8\"]\nlog_query = true\nhsts = \"1h\"")
        .pool("balance = \"round-robin\"")
        .session_timeout("300ms")
        .affinity("ttl = \"1s\"\ngrace = \"100ms\"\nskip = [\"/public\"]")
        .pool_section("[pool.timeouts]\nhead = \"200ms\"\n[pool.passive]\nretry = \"100ms\"")
        .section("[timeouts]\nhandshake = \"200ms\"\ndrain = \"1h\"")
        .section("[limits]\nbody_size = \"10KiB\"\nheaders = 20\nhead_size = \"16KiB\"")
        .section("[[route]]\nhost = \"*.shop.example\"\npath = \"/eu\"\npool = \"app\"");
    let (_directory, file) = setup.write();
    let config = Config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((config.pools.len(), config.pools[0].backends.len()), (1, 1));
    assert!(config.listen.http.is_some() && config.certificates.len() == 1);
}

#[test]
fn metrics_are_summed_over_the_labels_that_are_not_asked_for() {
    let metrics = Metrics::parse(
        "# HELP sessions How many.\n# TYPE sessions gauge\n\
         sessions{pool=\"a\",backend=\"x\"} 1\nsessions{pool=\"a\",backend=\"y\"} 2.5\n\
         sessions{pool=\"b\",backend=\"x \\\"}, \"} 4\nother 8\n",
    );
    assert_eq!(metrics.value("sessions", &[]), 7.5);
    assert_eq!(metrics.value("sessions", &[("pool", "a")]), 3.5);
    assert_eq!(metrics.value("sessions", &[("backend", "x \"}, ")]), 4.0);
    assert_eq!(metrics.value("other", &[]), 8.0);
    assert!(!metrics.has("sessions", &[("pool", "c")]) && !metrics.has("absent", &[]));
}

#[tokio::test]
async fn a_line_is_found_and_an_end_without_it_is_told() {
    let lines = Lines::collect("output", &b"one\ntwo\nthree"[..]);
    let length_of = |wanted: &'static str| move |line: &str| (line == wanted).then_some(wanted.len());
    assert_eq!(lines.find("three", length_of("three")).await, Some(5));
    assert_eq!(lines.find("four", length_of("four")).await, None);
    lines.ended().await;
    assert_eq!(lines.text(), "one\ntwo\nthree");
}
