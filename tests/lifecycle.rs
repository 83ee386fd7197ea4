//! Starting, being ready, redirecting, stopping.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::{net::TcpStream, sync::Notify};

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually, eventually_within,
    flow::{endless, full},
    plain,
    process::Homing,
    setup::Setup,
    within,
};

#[tokio::test]
async fn a_request_under_way_finishes_after_sigterm() {
    for protocol in BOTH {
        let gate = Gate::default();
        let backend = gate.backend();
        let homing = Setup::new([&backend]).start().await;
        let client = Client::new(&homing, protocol);
        let under_way = tokio::spawn(async move { client.get("/gated").send().await });
        within("the request's arrival", gate.arrived.notified()).await;
        homing.process.terminate();
        no_longer_accepts(&homing).await;
        gate.open.notify_one();
        let got = within("the answer", under_way).await.expect("no panic");
        assert_eq!((got.status, got.text()), (StatusCode::OK, "at last"), "{protocol:?}");
        let ended = homing.process.wait_exit().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_download_under_way_finishes_after_sigterm() {
    for protocol in BOTH {
        let gate = Gate::default();
        let backend = gate.backend();
        let homing = Setup::new([&backend]).start().await;
        let mut opened = Client::new(&homing, protocol).get("/stream").open().await;
        within("the first frame", opened.body.frame()).await.expect("a frame").expect("no error");
        homing.process.terminate();
        no_longer_accepts(&homing).await;
        gate.open.notify_one();
        let rest = within("the rest", opened.body.collect()).await.expect("a clean end");
        assert_eq!(rest.to_bytes(), "at last");
        assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
    }
}

#[tokio::test]
async fn idle_connections_are_closed_at_sigterm() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut connections = Vec::new();
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        assert_eq!(connection.get("/").send().await.status, StatusCode::OK);
        connections.push(connection);
    }
    homing.process.terminate();
    for connection in &connections {
        eventually("an idle connection is closed", async || connection.is_closed().await).await;
    }
    assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn sigint_stops_as_sigterm_does() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    homing.process.signal("INT");
    assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn what_is_still_open_at_the_drain_deadline_is_cut() {
    let backend = Backend::start("app-1", |_| async { http::Response::new(endless(b"first")) });
    let homing = Setup::new([&backend]).section("[timeouts]\ndrain = \"200ms\"").start().await;
    let mut opened = Vec::new();
    for protocol in BOTH {
        opened.push(Client::new(&homing, protocol).get("/").open().await);
    }
    homing.process.terminate();
    assert_eq!(homing.process.wait_exit().await.status.code(), Some(0));
    for opened in opened {
        assert!(within("the cut", opened.body.collect()).await.is_err());
    }
}

#[tokio::test]
async fn a_second_signal_forces_the_end() {
    let backend = Backend::start("app-1", |_| async { http::Response::new(endless(b"first")) });
    let homing = Setup::new([&backend]).section("[timeouts]\ndrain = \"1h\"").start().await;
    let _opened = Client::h1(&homing).get("/").open().await;
    homing.process.terminate();
    no_longer_accepts(&homing).await;
    assert!(homing.process.exit_status().is_none(), "it waits for the request");
    homing.process.terminate();
    homing.process.wait_exit().await;
}

#[tokio::test]
async fn it_is_unready_but_alive_while_it_drains() {
    let backend = Backend::start("app-1", |_| async { http::Response::new(endless(b"first")) });
    let homing = Setup::new([&backend]).start().await;
    assert_eq!(probe(&homing, "/readyz").await, Some(StatusCode::OK));
    assert_eq!(probe(&homing, "/livez").await, Some(StatusCode::OK));
    let _opened = Client::h1(&homing).get("/").open().await;
    homing.process.terminate();
    eventually("/readyz says no", async || {
        probe(&homing, "/readyz").await == Some(StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    assert_eq!(probe(&homing, "/livez").await, Some(StatusCode::OK));
}

#[tokio::test]
async fn the_last_answer_of_a_draining_connection_says_close() {
    let gate = Gate::default();
    let backend = gate.backend();
    let homing = Setup::new([&backend]).start().await;
    let client = Client::h1(&homing);
    let under_way = tokio::spawn(async move { client.get("/gated").send().await });
    within("the request's arrival", gate.arrived.notified()).await;
    homing.process.terminate();
    no_longer_accepts(&homing).await;
    gate.open.notify_one();
    let got = within("the answer", under_way).await.expect("no panic");
    assert_eq!(got.header("connection"), "close");
}

#[tokio::test]
async fn plain_http_is_redirected_to_https() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).redirecting().start().await;
    for (method, target) in [("GET", "/cart?item=1&n=2"), ("POST", "/"), ("HEAD", "/a%20b/%C3%BC?q=%2F")] {
        let request = Request::builder().method(method).uri(target).header("host", "localhost");
        let request = request.body(full("")).expect("a valid request");
        let got = plain::send(homing.http(), request).await.expect("an answer");
        assert_eq!(got.status, StatusCode::PERMANENT_REDIRECT);
        let location: Uri = got.header("location").parse().expect("an address");
        assert_eq!((location.scheme_str(), location.host()), (Some("https"), Some("localhost")));
        assert_eq!(location.path_and_query().map(|target| target.as_str()), Some(target));
        assert_eq!(location.port_u16(), None, "the client has come to port 80, so it is not told of ours");
    }
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn a_redirect_names_the_port_of_https_if_the_request_named_one() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).redirecting().start().await;
    let ours = homing.https.port();
    for (host, wanted) in [
        ("shop.example", "https://shop.example/".to_owned()),
        ("shop.example:80", "https://shop.example/".to_owned()),
        ("shop.example:8080", format!("https://shop.example:{ours}/")),
        ("[::1]:8080", format!("https://[::1]:{ours}/")),
    ] {
        assert_eq!(location(&homing, host).await, wanted, "{host}");
    }
}

#[tokio::test]
async fn a_redirect_names_the_port_that_is_configured() {
    let backend = Backend::plain("app-1");
    for (port, wanted) in [(9443, "https://shop.example:9443/"), (443, "https://shop.example/")] {
        let setup = Setup::new([&backend]).redirecting().listen(&format!("redirect_port = {port}"));
        let homing = setup.start().await;
        for host in ["shop.example", "shop.example:8080"] {
            assert_eq!(location(&homing, host).await, wanted, "{host}");
        }
    }
}

/// Where a plain request for this host is sent.
async fn location(homing: &Homing, host: &str) -> String {
    let request = Request::builder().uri("/").header("host", host);
    let request = request.body(full("")).expect("a valid request");
    plain::send(homing.http(), request).await.expect("an answer").header("location").to_owned()
}

#[tokio::test]
async fn a_redirect_needs_a_valid_host() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).redirecting().start().await;
    for host in ["", "evil example", "evil.example/path", "user@evil.example"] {
        let request = Request::builder().uri("/").header("host", host);
        let request = request.body(full("")).expect("a valid request");
        let got = plain::send(homing.http(), request).await.expect("an answer");
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{host:?} gave {:?}", got.headers);
    }
}

#[tokio::test]
async fn several_programs_run_side_by_side_on_port_0() {
    let backend = Backend::plain("app-1");
    let one = Setup::new([&backend]).start().await;
    let other = Setup::new([&backend]).start().await;
    assert_ne!(one.https.port(), other.https.port());
    for homing in [&one, &other] {
        assert_eq!(Client::h2(homing).get("/").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn hsts_is_sent_when_it_is_asked_for() {
    let backend = Backend::plain("app-1");
    let with = Setup::new([&backend]).top("hsts = \"1h\"").start().await;
    let without = Setup::new([&backend]).start().await;
    let field = "strict-transport-security";
    let got = Client::h1(&with).get("/").send().await;
    assert!(got.header(field).starts_with("max-age=3600"), "{:?}", got.headers);
    assert_eq!(Client::h1(&without).get("/").send().await.header(field), "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_its_deadline() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[timeouts]\nidle = \"300ms\"").start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        connection.get("/").send().await;
        let soon = Duration::from_secs(5);
        eventually_within(soon, "it is closed", async || connection.is_closed().await).await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_at_its_deadline() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[timeouts]\nhead = \"300ms\"").start().await;
    let text = Client::h1(&homing).exchange("GET / HTTP/1.1\r\nHost: local").await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text:?}");
    assert_eq!(backend.seen().len(), 0);
}

/// A backend whose answers wait for the test.
#[derive(Clone, Default)]
struct Gate {
    arrived: Arc<Notify>,
    open: Arc<Notify>,
}

impl Gate {
    /// Holds `/gated` before its head and `/stream` after its first frame.
    fn backend(&self) -> Backend {
        let gate = self.clone();
        Backend::start("app-1", move |request| {
            let gate = gate.clone();
            async move {
                gate.arrived.notify_one();
                if request.uri().path() == "/stream" {
                    return http::Response::new(gate.stream());
                }
                gate.open.notified().await;
                answer(StatusCode::OK, "at last")
            }
        })
    }

    fn stream(self) -> support::flow::Body {
        use futures_util::{StreamExt, stream};
        use http_body::Frame;

        let frame = |text: &'static str| Ok(Frame::data(bytes::Bytes::from_static(text.as_bytes())));
        let last = stream::once(async move {
            self.open.notified().await;
            frame("at last")
        });
        support::flow::stream(stream::iter([frame("first")]).chain(last))
    }
}

async fn no_longer_accepts(homing: &Homing) {
    eventually("the front door is closed", async || TcpStream::connect(homing.https).await.is_err()).await;
}

async fn probe(homing: &Homing, path: &str) -> Option<StatusCode> {
    plain::get(homing.admin(), path).await.ok().map(|answer| answer.status)
}
