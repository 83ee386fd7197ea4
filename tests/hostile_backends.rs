//! Backends that lie, break off, or answer unasked: the client sees an error or a cut, and the next one nothing of it.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;

use self::support::{
    client::{BOTH, Client},
    flow,
    pki::{Authority, Leaf},
    process::Homing,
    raw_backend::{RawBackend, RawConnection},
    setup::Setup,
    tls_front::TlsFront,
    within,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Heads that can be read in two ways, or not at all.
const BAD_HEADS: [&str; 42] = [
    // Status lines (RFC 9112 §4).
    "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200\tOK\r\nContent-Length: 2\r\n\r\nok",
    " HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1\r\nContent-Length: 2\r\n\r\nok",
    "<html>no head at all</html>\r\n\r\n",
    // Lines and fields (RFC 9112 §2.2, §5).
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-A: b\rX-C: d\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n X-A: b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-A: \x08\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok",
    // Lengths and codings (RFC 9112 §6).
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokk",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2 \0\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Nobody asked for another protocol (RFC 9110 §15.2.2).
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
];

/// Bodies that are not what their head says.
const BAD_BODIES: [&str; 12] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhalf of it\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFF\r\nhalf of it",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n-1\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n11111111111111111\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2 \r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A : b\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: b\n\r\n",
];

/// A program whose only backend, on one worker, answers `/bad` by these bytes and everything else well.
async fn with_bad(bytes: &'static str) -> (RawBackend, Homing) {
    let backend = RawBackend::start("app-1", move |mut connection| async move {
        while let Some(head) = connection.head().await {
            connection.write(if head.contains(" /bad ") { bytes } else { OK }).await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    (backend, homing)
}

async fn goes_on(homing: &Homing, after: &str) {
    for protocol in BOTH {
        let got = Client::new(homing, protocol).get("/well").send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "ok"), "{protocol:?} after {after:?}");
    }
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_bad_gateways() {
    // One program for all: what one answer leaves behind would be the next one's.
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            let number = head.split_once("/bad/").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            connection.write(number.map_or(OK, |number: usize| BAD_HEADS[number])).await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().pool_section(PATIENT).start().await;
    for (number, bytes) in BAD_HEADS.iter().enumerate() {
        for protocol in BOTH {
            let client = Client::new(&homing, protocol);
            // Not repeated, so that each is sent once.
            let got = client.post(&format!("/bad/{number}")).send().await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{protocol:?}: {bytes:?}");
            let next = client.get("/well").send().await;
            assert_eq!((next.status, next.text()), (StatusCode::OK, "ok"), "{protocol:?}: {bytes:?}");
        }
    }
    support::eventually("a record of each", async || {
        let records = homing.process.access_records();
        let faults = records.iter().filter(|record| record["error"] == "bad-answer");
        faults.count() == 2 * BAD_HEADS.len()
    })
    .await;
}

#[tokio::test]
async fn bodies_that_are_not_what_their_head_says_are_cut() {
    for bytes in BAD_BODIES {
        let backend = RawBackend::start("app-1", move |mut connection| async move {
            let Some(head) = connection.head().await else { return };
            connection.write(if head.contains(" /bad ") { bytes } else { OK }).await;
        });
        let homing = Setup::new([&backend]).one_worker().pool_section(PATIENT).start().await;
        for protocol in BOTH {
            let opened = Client::new(&homing, protocol).get("/bad").open().await;
            assert_eq!(opened.status, StatusCode::OK);
            let body = within("the end of the body", opened.body.collect()).await;
            assert!(body.is_err(), "{protocol:?} sees a clean end of {bytes:?}");
        }
        goes_on(&homing, bytes).await;
    }
}

#[tokio::test]
async fn what_follows_an_answer_is_nobodys() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay, this is longer than announced",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    ] {
        let (backend, homing) = with_bad(bytes).await;
        for protocol in BOTH {
            let got = Client::new(&homing, protocol).get("/bad").send().await;
            assert!(["ok", ""].contains(&got.text()), "{protocol:?}: {bytes:?}: {got:?}");
            assert!(got.status != StatusCode::NO_CONTENT || got.headers.get("content-length").is_none());
            goes_on(&homing, bytes).await;
        }
        assert_eq!(backend.count(" /well "), 4, "{bytes:?}");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_it_says() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\npoison",
    ] {
        let (_backend, homing) = with_bad(bytes).await;
        for protocol in BOTH {
            let connection = Client::new(&homing, protocol).connect().await;
            let got = connection.request(Method::HEAD, "/bad").send().await;
            assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0), "{protocol:?}: {bytes:?}");
            assert_eq!(connection.get("/well").send().await.text(), "ok", "{protocol:?}: {bytes:?}");
            goes_on(&homing, bytes).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_comes_unasked_on_an_idle_connection_is_nobodys() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            connection.write(OK).await;
            if head.contains(" /bad ") {
                // The proxy has its answer, and the connection is idle.
                tokio::time::sleep(Duration::from_millis(100)).await;
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await;
                connection.mark("<poisoned>");
            }
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let before = backend.count("<poisoned>");
        assert_eq!(client.get("/bad").send().await.text(), "ok");
        support::eventually("it sends more", async || backend.count("<poisoned>") > before).await;
        // A request that must not be sent twice: it is the look before that finds the bytes.
        assert_eq!(client.post("/well").send().await.text(), "ok", "{protocol:?}");
        goes_on(&homing, "an answer unasked").await;
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_a_bad_gateway() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        if connection.index == 0 {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
        }
        serve(connection).await;
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let got = Client::h1(&homing).post("/first").send().await;
    // It may also come so late that nobody can tell it from an answer; then it is this client's own.
    assert!([StatusCode::OK, StatusCode::BAD_GATEWAY].contains(&got.status), "{got:?}");
    goes_on(&homing, "an answer before the request").await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up_by_its_size() {
    for endless in [b"X-A: b\r\n".repeat(64), vec![b'x'; 4096]] {
        let backend = RawBackend::start("app-1", move |mut connection| {
            let endless = endless.clone();
            async move {
                let head = connection.head().await.unwrap_or_default();
                if !head.contains(" /bad ") {
                    return connection.write(OK).await;
                }
                connection.write("HTTP/1.1 200 OK\r\nX-Long: ").await;
                for _ in 0..64 {
                    connection.write(&endless).await;
                }
                connection.read_to_end().await;
            }
        });
        let homing = Setup::new([&backend]).one_worker().start().await;
        for protocol in BOTH {
            let got = Client::new(&homing, protocol).get("/bad").send().await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{protocol:?}");
        }
        goes_on(&homing, "an endless head").await;
    }
}

#[tokio::test]
async fn a_head_that_stands_still_is_given_up_in_time() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        let head = connection.head().await.unwrap_or_default();
        if head.contains(" /bad ") {
            connection.write("HTTP/1.1 200 OK\r\nContent-Le").await;
            connection.read_to_end().await;
        } else {
            connection.write(OK).await;
        }
    });
    let setup = Setup::new([&backend]).pool_section("[pool.timeouts]\nhead = \"300ms\"");
    let homing = setup.one_worker().start().await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).get("/bad").send().await;
        assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{protocol:?}");
    }
    goes_on(&homing, "half a head").await;
}

#[tokio::test]
async fn interim_answers_are_never_taken_for_the_final_one() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 6\r\n\r\n";
    let bytes: &'static str = format!("{interim}{OK}").leak();
    let (_backend, homing) = with_bad(bytes).await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).get("/bad").send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "ok"), "{protocol:?}");
        assert!(got.headers.get("link").is_none());
    }
    goes_on(&homing, "interim answers").await;
}

#[tokio::test]
async fn interim_answers_without_end_are_a_bad_gateway() {
    let bytes: &'static str = format!("{}{OK}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(17)).leak();
    let (_backend, homing) = with_bad(bytes).await;
    for protocol in BOTH {
        assert_eq!(Client::new(&homing, protocol).get("/bad").send().await.status, StatusCode::BAD_GATEWAY);
    }
    goes_on(&homing, "endless interim answers").await;
}

#[tokio::test]
async fn forbidden_trailers_of_an_answer_are_left_out() {
    let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
        Content-Length: 100\r\nSet-Cookie: session=forged\r\nX-Sum: 42\r\n\r\n";
    let (_backend, homing) = with_bad(bytes).await;
    for protocol in BOTH {
        let got = Client::new(&homing, protocol).get("/bad").header("te", "trailers").send().await;
        assert_eq!(got.text(), "ok");
        let names: Vec<_> =
            got.trailers.iter().flat_map(http::HeaderMap::keys).map(http::HeaderName::as_str).collect();
        assert!(names.iter().all(|name| *name == "x-sum"), "{protocol:?}: {names:?}");
    }
}

#[tokio::test]
async fn an_early_answer_arrives_although_its_backend_resets_the_connection() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection
            .write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
            .await;
        // Closed with most of the body unread: the kernel resets.
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    for protocol in BOTH {
        for _ in 0..10 {
            let body = flow::patterned(8 * 1024 * 1024, std::sync::Arc::default());
            let got = Client::new(&homing, protocol).post("/upload").body(body).send().await;
            assert_eq!((got.status, got.text()), (StatusCode::PAYLOAD_TOO_LARGE, "large"), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn the_rest_of_a_request_is_sent_while_its_answer_comes() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /well ") {
                connection.write(OK).await;
                continue;
            }
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbegi").await;
            // The last byte only after the whole request.
            if connection.until("0\r\n\r\n").await.is_some() {
                connection.write("n").await;
            }
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let frames =
            (0..64).map(|_| http_body::Frame::data(bytes::Bytes::from(vec![b'x'; 32 * 1024]))).collect();
        let got = client.post("/upload").body(flow::frames(frames)).send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "begin"), "{protocol:?}");
        assert_eq!(client.get("/well").send().await.text(), "ok");
    }
}

#[tokio::test]
async fn a_connection_whose_answer_is_whole_is_used_again_and_others_are_not() {
    for (bytes, connections) in [
        (OK, 1),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
        ("HTTP/1.1 204 No Content\r\n\r\n", 1),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 1),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 3),
    ] {
        let (backend, homing) = with_bad(bytes).await;
        for _ in 0..3 {
            assert!(Client::h1(&homing).get("/bad").send().await.status.is_success());
            homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
        }
        assert_eq!(backend.arrived().len(), connections, "{bytes:?}");
    }
}

#[tokio::test]
async fn over_tls_the_end_of_the_connection_ends_an_answer_only_if_it_is_told() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        let head = connection.head().await.unwrap_or_default();
        connection.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").await;
        if head.contains(" /cut ") {
            // What is in front of it breaks off without close_notify.
            connection.reset();
        }
    });
    let front = TlsFront::start(backend.address(), Leaf::localhost());
    let setup = Setup::new::<&RawBackend>([]).backend_at("app-1", &front.url("localhost"), "");
    let setup = setup.pool_section("[pool.tls]\nca = \"ca.pem\"").file("ca.pem", &Authority::get().pem);
    let homing = setup.one_worker().start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        assert_eq!(client.get("/whole").send().await.text(), "until the end", "{protocol:?}");
        let cut = within("an answer", client.get("/cut").try_send()).await;
        assert!(cut.is_err(), "{protocol:?} sees a clean end: {cut:?}");
    }
}

async fn serve(mut connection: RawConnection) {
    while connection.head().await.is_some() {
        connection.write(OK).await;
    }
}

/// Bad answers in a row must not take the only backend out.
const PATIENT: &str = "[pool.passive]\nfall = 1000";
