//! PROXY headers of balancers: who may send one, what it changes, and what becomes of a bad one.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::support::{
    backend::Backend,
    client::{BOTH, Client, Protocol},
    plain,
    process::Homing,
    setup::Setup,
    within,
};

const HEADERS: &str = "homing_proxy_headers_total";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[tokio::test]
async fn both_versions_and_families_name_the_client() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.0/8\"]", &backend).await;
    let v4 = v2(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 1, 187]);
    let v6 =
        [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 15], &[1, 0x30, 0x39, 1, 187, 4, 0, 1, 0]].concat();
    let heads = [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 12345 443\r\n".to_vec(), "2001:db8::9"),
        (v4, "203.0.113.9"),
        (v2(0x21, 0x21, &v6), "2001:db8::9"),
    ];
    for protocol in BOTH {
        for (index, (head, client)) in heads.iter().enumerate() {
            let path = format!("/{protocol:?}/{index}");
            let got = Client::new(&homing, protocol).preface(head).get(&path).send().await;
            assert_eq!(got.status, StatusCode::OK);
            assert_eq!(backend.one_at(&path).one("x-forwarded-for"), *client);
            let forwarded = backend.one_at(&path).one("forwarded").to_owned();
            assert!(forwarded.contains(client), "{forwarded}");
            let record =
                homing.process.access_record("a record", |record| record["path"] == path.as_str()).await;
            assert_eq!(record["client"], *client);
        }
    }
    homing.wait_for_metric(HEADERS, &[("result", "client")], 8.0).await;
}

#[tokio::test]
async fn plain_http_after_a_header_is_told_so() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.1\"]", &backend).await;
    let request = "PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = plain::exchange(homing.https, request).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("use https://a/"), "{text:?}");
}

#[tokio::test]
async fn a_header_may_arrive_in_pieces() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.1\"]", &backend).await;
    let v4 = v2(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 1, 187]);
    for (index, head) in [b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n", &v4[..]].into_iter().enumerate() {
        let path = format!("/{index}");
        Client::h1(&homing).preface(head).dripping().get(&path).send().await;
        assert_eq!(backend.one_at(&path).one("x-forwarded-for"), "203.0.113.9");
    }
}

#[tokio::test]
async fn a_balancer_that_speaks_for_itself_is_the_client() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.0/8\"]", &backend).await;
    let unknown = b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec();
    for (index, head) in [unknown, v2(0x20, 0, &[])].iter().enumerate() {
        let path = format!("/{index}");
        Client::h1(&homing).preface(head).get(&path).send().await;
        assert_eq!(backend.one_at(&path).one("x-forwarded-for"), "127.0.0.1");
    }
    homing.wait_for_metric(HEADERS, &[("result", "local")], 2.0).await;
}

#[tokio::test]
async fn what_is_no_header_is_closed_and_counted() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.0/8\"]", &backend).await;
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 500]].concat();
    let bad = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.256 10.0.0.1 1 2\r\n".to_vec(),
        endless,
        v2(0x21, 0x11, &[0; 5000]),
        v2(0x21, 0x12, &[0; 12]),
    ];
    for head in &bad {
        let mut stream = TcpStream::connect(homing.https).await.expect("it listens");
        // It may close before all of it is written.
        let _ = stream.write_all(head).await;
        assert_eq!(rest(&mut stream).await, b"", "{}", head.escape_ascii());
    }
    // A client that speaks TLS at once.
    assert!(Client::h1(&homing).get("/").try_send().await.is_err());
    homing.wait_for_metric(HEADERS, &[("result", "malformed")], 6.0).await;
    let said = homing.process.stderr.text();
    assert_eq!(
        said.matches("closing connections of an address in `listen.proxy_protocol`").count(),
        1,
        "{said}"
    );
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn a_header_of_somebody_else_is_never_read() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"192.0.2.0/24\", \"2001:db8::/32\"]", &backend).await;
    let forged = b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n";
    assert!(Client::h1(&homing).preface(forged).get("/").try_send().await.is_err());
    homing.wait_for_metric("homing_tls_handshakes_total", &[("result", "failed")], 1.0).await;
    Client::h1(&homing).get("/x").send().await;
    assert_eq!(backend.one_at("/x").one("x-forwarded-for"), "127.0.0.1");
    let mut plain = TcpStream::connect(homing.http()).await.expect("it listens");
    plain.write_all(forged).await.expect("room");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("room");
    let told = String::from_utf8_lossy(&rest(&mut plain).await).into_owned();
    assert!(told.starts_with("HTTP/1.1 400"), "{told}");
}

#[tokio::test]
async fn the_named_client_and_not_the_balancer_is_trusted_or_not() {
    let backend = Backend::plain("app-1");
    let top = "trusted_proxies = [\"127.0.0.0/8\"]";
    let homing = setup("[\"127.0.0.0/8\"]", &backend).top(top).start().await;
    let client = Client::h1(&homing).preface(b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n");
    client.get("/stranger").header("x-forwarded-for", "198.51.100.1").send().await;
    assert_eq!(backend.one_at("/stranger").one("x-forwarded-for"), "203.0.113.9");
    let client = Client::h1(&homing).preface(b"PROXY TCP4 127.0.0.9 10.0.0.1 12345 443\r\n");
    client.get("/proxy").header("x-forwarded-for", "198.51.100.1").send().await;
    assert_eq!(backend.one_at("/proxy").one("x-forwarded-for"), "198.51.100.1, 127.0.0.9");
}

#[tokio::test]
async fn the_redirecting_listener_reads_it_too() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.0/8\"]", &backend).await;
    let request = "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut plain = TcpStream::connect(homing.http()).await.expect("it listens");
    let head = format!("PROXY TCP4 203.0.113.9 10.0.0.1 12345 80\r\n{request}");
    plain.write_all(head.as_bytes()).await.expect("room");
    let told = String::from_utf8_lossy(&rest(&mut plain).await).into_owned();
    assert!(told.starts_with("HTTP/1.1 308"), "{told}");
    let mut plain = TcpStream::connect(homing.http()).await.expect("it listens");
    plain.write_all(request.as_bytes()).await.expect("room");
    assert_eq!(rest(&mut plain).await, b"");
    homing.wait_for_metric(HEADERS, &[("result", "malformed")], 1.0).await;
}

#[tokio::test]
async fn a_balancer_that_only_looks_whether_somebody_listens_is_no_error() {
    let backend = Backend::plain("app-1");
    let homing = behind("[\"127.0.0.0/8\"]", &backend).await;
    for _ in 0..3 {
        drop(TcpStream::connect(homing.https).await.expect("it listens"));
    }
    homing.wait_for_metric(HEADERS, &[("result", "closed")], 3.0).await;
    let said = homing.process.stderr.text();
    assert!(!said.contains("WARN") && !said.contains("ERROR") && !said.contains("PROXY"), "{said}");
    assert!(homing.process.access_records().is_empty());
}

#[tokio::test]
async fn a_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake() {
    let backend = Backend::plain("app-1");
    let setup = setup("[\"127.0.0.0/8\"]", &backend).section("[timeouts]\nhandshake = \"200ms\"");
    let homing = setup.start().await;
    for address in [homing.https, homing.http()] {
        let mut silent = TcpStream::connect(address).await.expect("it listens");
        silent.write_all(b"PROXY TCP4 203.0.113.9 10.0").await.expect("room");
        assert_eq!(rest(&mut silent).await, b"");
    }
    homing.wait_for_metric(HEADERS, &[("result", "timeout")], 2.0).await;
}

#[tokio::test]
async fn a_reload_changes_who_may_send_one() {
    let backend = Backend::plain("app-1");
    let homing = setup("[\"192.0.2.0/24\"]", &backend).top("watch = true").start().await;
    let file = homing.directory().join("homing.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let new = homing.directory().join("new.toml");
    std::fs::write(&new, text.replace("192.0.2.0/24", "127.0.0.0/8")).expect("a file");
    std::fs::rename(new, file).expect("the same directory");
    let line = homing.process.stderr.wait_for("listen.proxy_protocol").await;
    assert!(line.contains("+ 127.0.0.0/8"), "{line}");
    let client =
        Client::new(&homing, Protocol::Http2).preface(b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n");
    client.get("/x").send().await;
    assert_eq!(backend.one_at("/x").one("x-forwarded-for"), "203.0.113.9");
}

fn setup(networks: &str, backend: &Backend) -> Setup {
    Setup::new([backend]).redirecting().proxy_protocol(networks)
}

async fn behind(networks: &str, backend: &Backend) -> Homing {
    setup(networks, backend).start().await
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [V2, &[command, family], &length, body].concat()
}

/// What comes until the close, orderly or not.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = within("the close", stream.read_to_end(&mut bytes)).await;
    bytes
}
