//! HTTP/2 in front, frame by frame: bodies to the byte, interim answers, heads and uploads that do not go on.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use self::support::{
    backend::Backend,
    client::Client,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, Outcome, PING, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, encode, head,
    },
    process::Homing,
    raw_backend::RawBackend,
    setup::Setup,
    within,
};

/// Bytes of a frame, at most.
const LARGEST: usize = 16 * 1024;
const NO_ERROR: u32 = 0;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn request(method: &'static str, path: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")]
}

/// Opens a connection on which as much may come as will.
async fn wide(homing: &Homing) -> Frames {
    let mut connection = Frames::open(&Client::h2(homing)).await;
    connection.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    connection.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
    connection
}

/// Sends so many bytes of a body in frames of the largest size.
async fn upload(connection: &mut Frames, stream: u32, length: usize, last: bool) {
    let mut left = length;
    while left > 0 {
        let part = left.min(LARGEST);
        left -= part;
        let end = if last && left == 0 { END_STREAM } else { 0 };
        connection.send(DATA, end, stream, &vec![b'u'; part]).await;
    }
}

/// The byte of a body at this place: no two stretches of it look the same for long.
fn byte_at(place: usize) -> u8 {
    let place = place as u64;
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (place >> 13) as u8
}

#[tokio::test]
async fn long_bodies_of_many_streams_arrive_to_the_byte() {
    const LENGTH: usize = 2_000_000;
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            // Parts that fit neither frames nor what is read at a time.
            let size = if head.contains(" /small ") { 1_111 } else { 23_456 };
            let body: Vec<u8> = (0..LENGTH).map(byte_at).collect();
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for part in body.chunks(size) {
                connection.write(format!("{:x}\r\n", part.len())).await;
                connection.write(part).await;
                connection.write("\r\n").await;
            }
            connection.write("0\r\n\r\n").await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    for _ in 0..3 {
        let mut connection = wide(&homing).await;
        let streams = [1, 3, 5, 7, 9, 11];
        for stream in streams {
            let path = if stream % 4 == 1 { "/small" } else { "/large" };
            connection.head(stream, &request("GET", path), true).await;
        }
        let mut received = HashMap::<u32, usize>::new();
        let mut ended = 0;
        while ended < streams.len() {
            let frame = within("the next frame", connection.try_next()).await.expect("a frame");
            match frame.kind {
                DATA => {
                    let place = received.entry(frame.stream).or_default();
                    assert!(frame.payload.len() <= LARGEST, "{} bytes", frame.payload.len());
                    for byte in &frame.payload {
                        assert_eq!(*byte, byte_at(*place), "stream {} at {place}", frame.stream);
                        *place += 1;
                    }
                    ended += usize::from(frame.flags & END_STREAM != 0);
                }
                HEADERS => assert!(frame.is_ok()),
                SETTINGS | WINDOW_UPDATE => {}
                kind => panic!("a frame of type {kind}: {frame:?}"),
            }
        }
        assert_eq!(received, streams.into_iter().map(|stream| (stream, LENGTH)).collect());
    }
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let answer =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let backend = RawBackend::answering("app-1", answer);
    let homing = Setup::new([&backend]).start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.get(1).await;
    assert_eq!(connection.outcome(1).await, Outcome::Answer(103));
    assert_eq!(connection.outcome(1).await, Outcome::Answer(200));
}

#[tokio::test]
async fn a_client_that_waits_for_a_word_is_told_to_go_on_once() {
    let backend = Backend::echo("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    let fields = [&request("POST", "/")[..], &[("expect", "100-continue"), ("content-length", "4")]].concat();
    connection.head(1, &fields, false).await;
    assert_eq!(connection.outcome(1).await, Outcome::Answer(100));
    connection.send(DATA, END_STREAM, 1, b"body").await;
    assert_eq!(connection.outcome(1).await, Outcome::Answer(200));
    assert_eq!(connection.next(DATA).await.payload, b"body");
}

#[tokio::test]
async fn nothing_interim_follows_an_answer_that_came_first() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        // It answers, and wants the body nevertheless.
        connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        connection.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        connection.read_to_end().await;
    });
    let homing = Setup::new([&backend]).start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    let fields = [&request("POST", "/")[..], &[("expect", "100-continue"), ("content-length", "4")]].concat();
    connection.head(1, &fields, false).await;
    let mut answered = false;
    // What breaks off ends in a reset.
    while let Some(frame) = within("the next frame", connection.try_next()).await {
        match frame.kind {
            HEADERS if frame.is_ok() => answered = true,
            HEADERS => assert!(!answered, "{frame:?} after the answer"),
            RST_STREAM => break,
            _ => {}
        }
    }
    assert!(answered);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[timeouts]\nhead = \"1s\"\n").start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.send(HEADERS, END_STREAM, 1, &head(&request("GET", "/"))).await;
    connection.send(CONTINUATION, 0, 1, b"").await;
    let outcome = within("the end", connection.outcome(1)).await;
    assert!(matches!(outcome, Outcome::GoAway(_)), "{outcome:?}");
    homing.wait_for_metric("homing_connections", &[], 0.0).await;
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test]
async fn one_upload_that_is_stuck_does_not_hold_up_another() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /stuck ") {
                std::future::pending::<()>().await;
            }
            connection.until(&"u".repeat(400_000)).await;
            connection.write(OK).await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    // The first windows: what a stream may send before the backend has taken anything.
    for stream in [1, 3] {
        connection.head(stream, &request("POST", "/stuck"), false).await;
        upload(&mut connection, stream, 256 * 1024, false).await;
    }
    let fields = [&request("POST", "/")[..], &[("content-length", "400000")]].concat();
    connection.head(5, &fields, false).await;
    upload(&mut connection, 5, 200_000, false).await;
    let update = |frame: &support::frames::Frame| (frame.kind == WINDOW_UPDATE).then_some(frame.stream);
    loop {
        let frame = within("more room for the third", connection.try_next()).await.expect("a frame");
        if update(&frame) == Some(5) {
            break;
        }
    }
    upload(&mut connection, 5, 200_000, true).await;
    assert_eq!(within("its answer", connection.outcome(5)).await, Outcome::Answer(200));
}

#[tokio::test]
async fn an_upload_that_nobody_wants_is_read_on_and_then_reset_after_a_whole_answer() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nbody_size = \"1KiB\"\n").start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.head(1, &request("POST", "/"), false).await;
    upload(&mut connection, 1, 256 * 1024, false).await;
    let (mut answered, mut ended, mut room) = (false, false, false);
    let reason = loop {
        let frame = within("the next frame", connection.try_next()).await.expect("a frame");
        match frame.kind {
            HEADERS => answered = !frame.is_ok(),
            WINDOW_UPDATE if frame.stream == 1 => room = true,
            RST_STREAM => break frame.payload,
            GOAWAY => panic!("{frame:?}"),
            _ => {}
        }
        ended |= frame.stream == 1 && frame.kind <= HEADERS && frame.flags & END_STREAM != 0;
    };
    assert!(answered && ended && room, "answered {answered}, to its end {ended}, read on {room}");
    assert_eq!(reason, NO_ERROR.to_be_bytes());
    // The connection is as good as before.
    connection.get(3).await;
    assert_eq!(connection.outcome(3).await, Outcome::Answer(200));
}

#[tokio::test]
async fn a_refused_stream_leaves_the_compression_as_it_should_be() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).section("[limits]\nstreams = 1\n").start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    connection.head(1, &request("POST", "/"), false).await;
    // One too many, with a field to be remembered (RFC 7541 §6.2.1).
    let refused = [head(&request("GET", "/")), b"\x40\x04x-is\x05there".to_vec()].concat();
    connection.send(HEADERS, END_HEADERS | END_STREAM, 3, &refused).await;
    assert_eq!(connection.outcome(3).await, Outcome::Reset(7));
    connection.send(DATA, END_STREAM, 1, b"").await;
    assert_eq!(connection.outcome(1).await, Outcome::Answer(200));
    // The field by its number.
    let referring = [head(&request("GET", "/after")), vec![0xbe]].concat();
    connection.send(HEADERS, END_HEADERS | END_STREAM, 5, &referring).await;
    assert_eq!(connection.outcome(5).await, Outcome::Answer(200));
    assert_eq!(backend.one_at("/after").headers["x-is"], "there");
}

#[tokio::test]
async fn a_client_that_reads_no_acknowledgements_is_not_read_either() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    // Each request pays for nothing that is answered by itself.
    let pings = encode(PING, 0, 0, &[7; 8]).repeat(5000);
    connection.write(&pings).await;
    let outcome = within("the end", connection.outcome(u32::MAX)).await;
    assert_eq!(outcome, Outcome::GoAway(11));
    assert!(homing.process.peak_resident() < 200 << 20);
}

#[tokio::test]
async fn a_client_that_takes_nothing_and_never_ends_a_head_does_not_stop_its_worker() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /long ") {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
                while connection.try_write(&[b'x'; 100_000]).await {}
                return;
            }
            if head.contains(" /body ") {
                return connection.read_to_end().await;
            }
            connection.write(OK).await;
        }
    });
    let homing = Setup::new([&backend]).workers(1).section("[timeouts]\nhead = \"1s\"").start().await;
    let mut silent = wide(&homing).await;
    for stream in [1, 3, 5, 7] {
        silent.head(stream, &request("GET", "/long"), true).await;
    }
    // Its body is waited for; then its client is told to go, and does not listen.
    silent.head(9, &request("POST", "/body"), false).await;
    let half = encode(HEADERS, 0, 11, &head(&request("GET", "/")));
    silent.write(&half).await;
    // It has been cut by then, and would not let anybody else be served any more.
    let others = async {
        loop {
            let mut other = Frames::open(&Client::h2(&homing)).await;
            other.get(1).await;
            assert_eq!(other.outcome(1).await, Outcome::Answer(200));
        }
    };
    let _ = timeout(Duration::from_secs(4), others).await;
    let mut last = Frames::open(&Client::h2(&homing)).await;
    last.get(1).await;
    assert_eq!(last.outcome(1).await, Outcome::Answer(200));
}

#[tokio::test]
async fn an_upload_goes_on_after_its_answer_has_begun() {
    const LENGTH: usize = 16_000_000;
    let full = Arc::new(Notify::new());
    let reads = Arc::clone(&full);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let reads = Arc::clone(&reads);
        async move {
            connection.head().await;
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe").await;
            // Then all that waits is taken at once, by nothing but the question for the rest of the answer.
            reads.notified().await;
            connection.skip(LENGTH).await;
            connection.write("en").await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let mut connection = wide(&homing).await;
    let length = LENGTH.to_string();
    let fields = [&request("POST", "/")[..], &[("content-length", &length)]].concat();
    connection.head(1, &fields, false).await;
    assert_eq!(connection.outcome(1).await, Outcome::Answer(200));
    // As the proxy has said before its answer.
    let (mut stream, mut whole, mut left) = (256 * 1024_i64, 512 * 1024_i64, LENGTH);
    let mut body = 0;
    let mut ended = false;
    let upload = async {
        while !ended {
            // In bursts, and as much as both windows have room for: only what is given back lets it go on.
            while left > 0 && stream.min(whole) > 0 {
                let part = left.min(LARGEST).min(usize::try_from(stream.min(whole)).unwrap());
                upload(&mut connection, 1, part, part == left).await;
                left -= part;
                stream -= part as i64;
                whole -= part as i64;
            }
            let next = connection.try_next();
            let Ok(frame) = timeout(Duration::from_millis(500), next).await else {
                // Nobody takes any more.
                full.notify_one();
                continue;
            };
            let frame = frame.expect("a frame");
            match frame.kind {
                WINDOW_UPDATE => {
                    let more = i64::from(u32::from_be_bytes(frame.payload[..4].try_into().unwrap()));
                    if frame.stream == 0 { whole += more } else { stream += more }
                }
                DATA => {
                    body += frame.payload.len();
                    ended = frame.flags & END_STREAM != 0;
                }
                _ => {}
            }
        }
    };
    within("the whole upload", upload).await;
    assert_eq!((body, left), (4, 0));
}

#[tokio::test]
async fn an_answer_that_had_to_wait_for_others_goes_on_when_it_has_a_window_of_its_own() {
    let heard = Arc::new(Notify::new());
    let go_on = Arc::clone(&heard);
    let backend = RawBackend::start("app-1", move |mut connection| {
        let go_on = Arc::clone(&go_on);
        async move {
            let Some(head) = connection.head().await else { return };
            if head.contains(" /long ") {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
                connection.write(vec![b'x'; 1_000_000]).await;
                return connection.read_to_end().await;
            }
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe").await;
            go_on.notified().await;
            connection.write("en").await;
        }
    });
    let homing = Setup::new([&backend]).start().await;
    let mut connection = Frames::open(&Client::h2(&homing)).await;
    // No window for any stream, and all that is wished for of the connection.
    connection.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    connection.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
    for stream in (1..40).step_by(2) {
        connection.head(stream, &request("GET", "/long"), true).await;
        assert_eq!(connection.outcome(stream).await, Outcome::Answer(200));
    }
    connection.head(41, &request("GET", "/short"), true).await;
    assert_eq!(connection.outcome(41).await, Outcome::Answer(200));
    connection.send(WINDOW_UPDATE, 0, 41, &[0, 1, 0, 0]).await;
    assert_eq!(connection.next(DATA).await.payload, b"be");
    heard.notify_one();
    assert_eq!(connection.next(DATA).await.payload, b"en");
}
