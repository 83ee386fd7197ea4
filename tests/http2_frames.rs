//! HTTP/2 frame by frame: what may not be sent, and what may not be sent so often.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use http::StatusCode;

use self::support::{
    backend::Backend,
    client::Client,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, PING, PRIORITY, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, encode, head,
    },
    process::Homing,
    setup::Setup,
};

const FLOODS: &str = "homing_http2_floods_total";
const ENHANCE_YOUR_CALM: u32 = 11;
const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];

/// Sends a request with these fields; what becomes of it.
async fn ask(homing: &Homing, fields: &[(&str, &str)]) -> Outcome {
    let mut connection = Frames::open(&Client::h2(homing)).await;
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &head(fields)).await;
    connection.outcome(1).await
}

fn with<'a>(base: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [base, more].concat()
}

fn refused(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Answer(status) => (400..500).contains(&status),
        Outcome::Reset(reason) | Outcome::GoAway(reason) => reason != 0,
        Outcome::Closed => false,
    }
}

#[tokio::test]
async fn heads_that_break_a_rule_are_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    assert_eq!(ask(&homing, &GET).await, Outcome::Answer(200));
    let [method, scheme, path, authority] = GET;
    // RFC 9113 §8.2 and §8.3.
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no method", vec![scheme, path, authority]),
        ("no scheme", vec![method, path, authority]),
        ("no path", vec![method, scheme, authority]),
        ("no host", vec![method, scheme, path]),
        ("two methods", with(&GET, &[(":method", "GET")])),
        ("two paths", with(&GET, &[(":path", "/other")])),
        ("two authorities", with(&GET, &[(":authority", "other")])),
        ("an unknown pseudo-header", with(&GET, &[(":foo", "x")])),
        ("that of an answer", with(&GET, &[(":status", "200")])),
        ("a late pseudo-header", vec![method, scheme, authority, ("x-a", "b"), path]),
        ("an empty path", vec![method, scheme, (":path", ""), authority]),
        ("a path without slash", vec![method, scheme, (":path", "x"), authority]),
        ("an asterisk for GET", vec![method, scheme, (":path", "*"), authority]),
        ("a path with a space", vec![method, scheme, (":path", "/a b"), authority]),
        ("an empty authority", vec![method, scheme, path, (":authority", "")]),
        ("userinfo", vec![method, scheme, path, (":authority", "user@localhost")]),
        ("another host", with(&GET, &[("host", "other")])),
        ("two hosts", with(&GET, &[("host", "localhost"), ("host", "localhost")])),
        ("a foreign scheme", vec![method, (":scheme", "ftp"), path, authority]),
        ("CONNECT", vec![(":method", "CONNECT"), authority]),
        ("TRACE", vec![(":method", "TRACE"), scheme, path, authority]),
        ("connection", with(&GET, &[("connection", "close")])),
        ("keep-alive", with(&GET, &[("keep-alive", "5")])),
        ("proxy-connection", with(&GET, &[("proxy-connection", "close")])),
        ("transfer-encoding", with(&GET, &[("transfer-encoding", "chunked")])),
        ("upgrade", with(&GET, &[("upgrade", "h2c")])),
        ("te", with(&GET, &[("te", "gzip")])),
        ("an upper-case name", with(&GET, &[("X-A", "b")])),
        ("a name with a space", with(&GET, &[("x a", "b")])),
        ("a name with a colon", with(&GET, &[("x:a", "b")])),
        ("an empty name", with(&GET, &[("", "b")])),
        ("CR in a value", with(&GET, &[("x-a", "b\rc")])),
        ("LF in a value", with(&GET, &[("x-a", "b\nc")])),
        ("NUL in a value", with(&GET, &[("x-a", "b\0c")])),
        ("a space before a value", with(&GET, &[("x-a", " b")])),
        ("a tab after a value", with(&GET, &[("x-a", "b\t")])),
        ("a length without a body", with(&POST, &[("content-length", "5")])),
        ("a signed length", with(&POST, &[("content-length", "+0")])),
        ("a length that is none", with(&POST, &[("content-length", "x")])),
        ("two lengths", with(&POST, &[("content-length", "0"), ("content-length", "0")])),
        ("two lengths in one", with(&POST, &[("content-length", "0, 0")])),
    ];
    for (what, fields) in &cases {
        let outcome = ask(&homing, fields).await;
        assert!(refused(outcome), "{what}: {outcome:?}");
    }
    assert_eq!(backend.seen().len(), 1, "none of them reaches a backend");
}

#[tokio::test]
async fn a_body_has_the_length_that_was_announced() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    for (length, body, good) in [("4", "body", true), ("3", "body", false), ("5", "body", false)] {
        let mut connection = Frames::open(&Client::h2(&homing)).await;
        let fields = with(&POST, &[("content-length", length)]);
        connection.send(HEADERS, END_HEADERS, 1, &head(&fields)).await;
        connection.send(DATA, END_STREAM, 1, body.as_bytes()).await;
        let outcome = connection.outcome(1).await;
        assert!(
            good == (outcome == Outcome::Answer(200)) && good != refused(outcome),
            "{length}: {outcome:?}"
        );
    }
}

/// Sends `frames` and then looks how the connection ends.
async fn flood(homing: &Homing, frames: &[u8]) -> Outcome {
    let mut connection = Frames::open(&Client::h2(homing)).await;
    connection.write(frames).await;
    // No answer has this stream.
    connection.outcome(u32::MAX).await
}

#[tokio::test]
async fn floods_of_frames_without_a_purpose_end_the_connection() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let rapid: Vec<u8> = (0..1000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let request = encode(HEADERS, END_HEADERS | END_STREAM, stream, &head(&GET));
            [request, encode(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let begun = encode(HEADERS, 0, 1, &head(&GET));
    let posted = encode(HEADERS, END_HEADERS, 1, &head(&POST));
    let many = |frame: Vec<u8>| frame.repeat(4000);
    for (what, label, frames) in [
        ("PING", "ping", many(encode(PING, 0, 0, &[0; 8]))),
        ("SETTINGS", "settings", many(encode(SETTINGS, 0, 0, &[]))),
        ("PRIORITY", "priority", many(encode(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
        ("unknown frames", "priority", many(encode(0x99, 0, 1, b""))),
        ("WINDOW_UPDATE", "window-update", many(encode(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("empty CONTINUATION", "", [begun, many(encode(CONTINUATION, 0, 1, b""))].concat()),
        ("empty DATA", "other", [posted, many(encode(DATA, 0, 1, b""))].concat()),
        ("rapid reset", "", rapid),
    ] {
        let before = homing.metric(FLOODS, &[]).await;
        let labelled = homing.metric(FLOODS, &[("frame", label)]).await;
        let outcome = flood(&homing, &frames).await;
        assert_eq!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM), "{what}");
        homing.wait_for_metric(FLOODS, &[], before + 1.0).await;
        if !label.is_empty() {
            assert_eq!(homing.metric(FLOODS, &[("frame", label)]).await, labelled + 1.0, "{what}");
        }
        homing.wait_for_metric("homing_connections", &[], 0.0).await;
    }
    assert_eq!(Client::h2(&homing).get("/").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_head_that_grows_when_it_is_unpacked_is_refused() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    // A field of 4,000 bytes into the dynamic table (RFC 7541 §6.2.1), then one byte for each time it is meant.
    let mut bomb = head(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'a'; 4000]);
    bomb.resize(16_000, 0xbe);
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
    let outcome = connection.outcome(1).await;
    assert!(refused(outcome), "{outcome:?}");
    assert_eq!(backend.seen().len(), 0);
    let peak = homing.process.peak_resident();
    assert!(peak < 200 << 20, "{peak} bytes for a head of 16 kB that says 48 MB");
}

#[tokio::test]
async fn streams_that_are_made_to_fail_are_numbered() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    // CVE-2025-8671: each request breaks a rule afterwards, so that the proxy resets it.
    let frames: Vec<u8> = (0..1000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let request = encode(HEADERS, END_HEADERS, stream, &head(&POST));
            [request, encode(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
        })
        .collect();
    assert_eq!(flood(&homing, &frames).await, Outcome::GoAway(ENHANCE_YOUR_CALM));
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
}
