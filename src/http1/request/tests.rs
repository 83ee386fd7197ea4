use proptest::prelude::*;

use super::{
    super::write::{end_head, fields, request_line},
    *,
};

const LIMITS: Limits = Limits { head: 4096, fields: 8, target: 1024 };

/// What comes of these bytes when they arrive in pieces of this length, and what is left of them.
fn in_pieces(bytes: &[u8], length: usize, limits: &Limits) -> (Result<Option<Head>, Refused>, usize) {
    let mut parser = Parser::default();
    let mut buffer = BytesMut::new();
    let mut taken = 0;
    for piece in bytes.chunks(length) {
        buffer.extend_from_slice(piece);
        taken += piece.len();
        match parser.parse(&mut buffer, limits) {
            Ok(None) => {}
            done => return (done, buffer.len() + bytes.len() - taken),
        }
    }
    (Ok(None), buffer.len())
}

fn parse(text: &str) -> Result<Head, Refusal> {
    let (found, _) = in_pieces(text.as_bytes(), text.len(), &LIMITS);
    found.map(|head| head.expect(text)).map_err(|refused| refused.why)
}

fn refused(line: &str) {
    let found = parse(&format!("{line}\r\nHost: a\r\n\r\n"));
    assert!(matches!(found, Err(Refusal::Malformed(_))), "{line:?}: {found:?}");
}

#[test]
fn a_head_is_taken_out_and_what_follows_stays() {
    let text = "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET";
    let (found, left) = in_pieces(text.as_bytes(), text.len(), &LIMITS);
    let head = found.unwrap().unwrap();
    assert_eq!((head.request.method(), head.request.uri().to_string()), (&Method::POST, "/a?b".to_owned()));
    assert_eq!((head.length, head.keep_alive, left), (Length::Exact(3), true, 6));
    assert_eq!(head.request.headers()["host"], "a");
}

#[test]
fn one_empty_line_before_a_head_is_taken_off_and_no_second() {
    assert!(parse("\r\nGET / HTTP/1.1\r\n\r\n").is_ok());
    assert!(parse("\r\n\r\nGET / HTTP/1.1\r\n\r\n").is_err());
    assert!(parse("\nGET / HTTP/1.1\r\n\r\n").is_err());
    assert!(parse("\rGET / HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn malformed_request_lines_are_refused() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET /",
        "GET / ",
        "GET",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/3",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1,1",
        "GET / HTTPS/1.1",
        "G(T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        " / HTTP/1.1",
        "PRI * HTTP/2.0",
    ] {
        refused(line);
    }
}

#[test]
fn targets_that_do_not_fit_the_method_are_refused() {
    for line in [
        "GET * HTTP/1.1",
        "GET ** HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET a.example:80 HTTP/1.1",
        "GET path HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET http://a/#b HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http://user@a/ HTTP/1.1",
        "GET http://user:secret@a/ HTTP/1.1",
        "GET //a\x7f HTTP/1.1",
    ] {
        refused(line);
    }
    for line in ["OPTIONS *", "GET http://a", "GET HTTPS://a:8443/b?c", "CONNECT a:22", "GET //a/../b"] {
        let found = parse(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(found.is_ok(), "{line:?}: {found:?}");
    }
}

#[test]
fn options_of_an_absolute_target_without_a_path_are_about_the_server() {
    for (target, asked) in [
        ("http://a", "*"),
        ("HTTPS://a:8443", "*"),
        ("http://a/", "/"),
        ("http://a?q", "?q"),
        ("http://a/b", "/b"),
    ] {
        let head = parse(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n")).expect("served");
        let uri = head.request.uri();
        assert_eq!(uri.path_and_query().expect("one").as_str(), asked, "{target}");
        assert!(uri.authority().is_some(), "{target} is compared with Host");
    }
}

#[test]
fn a_line_that_never_ends_is_a_target_that_is_too_long() {
    let endless = vec![b'x'; 8192];
    for length in [1, 100, 8192] {
        let (found, _) = in_pieces(&endless, length, &LIMITS);
        assert_eq!(found.unwrap_err().why, Refusal::TargetTooLong);
    }
}

#[test]
fn limits_are_met_to_the_byte() {
    let with_target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - 1));
    assert!(parse(&with_target(1024)).is_ok());
    assert_eq!(parse(&with_target(1025)).unwrap_err(), Refusal::TargetTooLong);

    let with_fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(parse(&with_fields(8)).is_ok());
    assert_eq!(parse(&with_fields(9)).unwrap_err(), Refusal::HeadTooLarge);
    let many = Limits { fields: 500, ..LIMITS };
    let text = with_fields(500);
    assert!(in_pieces(text.as_bytes(), text.len(), &many).0.is_ok());
    let text = with_fields(501);
    assert_eq!(in_pieces(text.as_bytes(), 7, &many).0.unwrap_err().why, Refusal::HeadTooLarge);

    let with_head = |length: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(length - 23));
    assert_eq!(with_head(4096).len(), 4096);
    assert!(parse(&with_head(4096)).is_ok());
    assert_eq!(parse(&with_head(4097)).unwrap_err(), Refusal::HeadTooLarge);
}

#[test]
fn a_refusal_tells_as_much_as_was_understood() {
    let text = b"HEAD /a?b HTTP/1.0\r\nA : b\r\n\r\n";
    let line = in_pieces(text, text.len(), &LIMITS).0.unwrap_err().line.expect("a good first line");
    assert_eq!((line.method(), line.version()), (&Method::HEAD, Version::HTTP_10));
    assert_eq!(line.uri(), "/a?b");
    let text = b"\x16\x03\x01 nonsense\r\n\r\n";
    assert!(in_pieces(text, text.len(), &LIMITS).0.unwrap_err().line.is_none());
}

#[test]
fn connections_are_kept_by_the_rules_of_their_version() {
    let kept = |version: &str, value: &str| {
        parse(&format!("GET / HTTP/{version}\r\nConnection: {value}\r\n\r\n")).unwrap().keep_alive
    };
    assert!(kept("1.1", "") && kept("1.1", "upgrade, te") && kept("1.0", "x, Keep-Alive"));
    assert!(!kept("1.1", "Close") && !kept("1.1", "keep-alive ,close") && !kept("1.0", ""));
    assert!(!parse("CONNECT a:22 HTTP/1.1\r\nHost: a:22\r\n\r\n").unwrap().keep_alive);
}

#[test]
fn only_http_1_1_waits_for_a_word_before_the_body() {
    let waits = |version: &str, value: &str| {
        parse(&format!("GET / HTTP/{version}\r\nExpect: {value}\r\n\r\n")).unwrap().expects_continue
    };
    assert!(waits("1.1", "100-Continue") && !waits("1.0", "100-continue") && !waits("1.1", "200-ok"));
}

#[test]
fn whole_bodies_of_two_readings_are_refused() {
    let found = parse("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(matches!(found, Err(Refusal::Malformed(_))), "{found:?}");
}

/// Heads that are nearly well-formed, and what may follow them.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(&b"\r\n"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"\r"[..]),
        2 => Just(&b"GET /a HTTP/1.1\r\n"[..]),
        1 => Just(&b"GET http://a HTTP/1.0\r\n"[..]),
        2 => Just(&b"Host: a\r\n"[..]),
        1 => Just(&b"Content-Length: 3\r\n"[..]),
        1 => Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        1 => Just(&b"X:\t\xe9 \r\n"[..]),
        1 => Just(&b" folded\r\n"[..]),
        1 => Just(&b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..]),
        1 => Just(&b"\0"[..]),
    ];
    let valid =
        Just(b"POST /p?q HTTP/1.1\r\nHost: a\r\nX-A: \xe9 b \r\nContent-Length: 3\r\n\r\nabc".to_vec());
    prop_oneof![
        1 => valid,
        4 => prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat()),
    ]
}

proptest! {
    #[test]
    fn the_same_is_found_however_the_bytes_are_cut(bytes in heads(), length in 1..40_usize) {
        let limits = Limits { head: 200, fields: 4, target: 16 };
        let (whole, left) = in_pieces(&bytes, bytes.len(), &limits);
        let (cut, cut_left) = in_pieces(&bytes, length, &limits);
        match (whole, cut) {
            (Ok(None), Ok(None)) => {}
            (Ok(Some(whole)), Ok(Some(cut))) => {
                prop_assert_eq!(left, cut_left);
                prop_assert_eq!(format!("{:?}", whole), format!("{:?}", cut));
            }
            (Err(whole), Err(cut)) => prop_assert_eq!(whole.why, cut.why),
            (whole, cut) => prop_assert!(false, "{:?}, cut: {:?}", whole, cut),
        }
    }

    #[test]
    fn what_is_accepted_is_written_in_one_way_that_means_the_same(bytes in heads()) {
        let Ok(Some(head)) = in_pieces(&bytes, bytes.len(), &LIMITS).0 else { return Ok(()) };
        let write = |head: &Head| {
            let mut out = BytesMut::new();
            let target = head.request.uri().path_and_query().map_or("/", |path| path.as_str());
            request_line(&mut out, head.request.method(), target);
            fields(&mut out, head.request.headers(), |name| *name != http::header::CONTENT_LENGTH);
            end_head(&mut out, head.length);
            out
        };
        let written = write(&head);
        let again = in_pieces(&written, written.len(), &LIMITS).0.unwrap().unwrap();
        prop_assert_eq!(head.length, again.length);
        prop_assert_eq!(head.request.uri().path(), again.request.uri().path());
        prop_assert_eq!(&written[..], &write(&again)[..]);
    }
}
