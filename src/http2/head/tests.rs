use proptest::prelude::*;

use super::*;

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/t?q")];

/// Fields, each written out.
fn written(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn block(kind: Kind, limit: usize, fields: &[(&str, &str)]) -> Block {
    let mut block = Block::new(kind, limit);
    block.push(written(fields).into(), true, &mut Decoder::new()).expect("compressed well");
    block
}

fn read(fields: &[(&str, &str)]) -> Result<Head, &'static str> {
    block(Kind::Request, 10_000, fields).request().map_err(|refused| match refused {
        Refused::Malformed(rule) => rule,
        Refused::TooLarge(_) => "too large",
    })
}

/// A request of GET with these fields after it.
fn with(fields: &[(&'static str, &'static str)]) -> Result<Head, &'static str> {
    read(&[&GET, fields].concat())
}

/// A request of GET with a pseudo-header field changed, or without it.
fn changed(name: &str, value: Option<&'static str>) -> Result<Head, &'static str> {
    let others = GET.iter().copied().filter(|(other, _)| *other != name);
    read(&others.chain(value.map(|value| (name, value))).collect::<Vec<_>>())
}

#[test]
fn a_plain_head_is_read() {
    let Head { request, length } = with(&[("cookie", "a=1"), ("x", "\t"), ("cookie", "b=2")]).unwrap();
    assert_eq!((request.method(), request.version(), length), (&Method::GET, Version::HTTP_2, None));
    assert_eq!(request.uri().to_string(), "https://a/t?q");
    assert_eq!(request.headers().get_all("cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(with(&[("content-length", "17"), ("te", "trailers")]).unwrap().length, Some(17));
    assert_eq!(changed(":authority", None).unwrap().request.uri().to_string(), "/t?q");
}

#[test]
fn pseudo_header_fields_are_there_once_and_first() {
    for (name, _) in [GET[0], GET[1], GET[3]] {
        assert!(changed(name, None).is_err(), "{name}");
    }
    for field in [GET[0], GET[1], GET[2], GET[3]] {
        assert_eq!(with(&[field]).unwrap_err(), REPEATED);
        let late = [&GET[..], &[("x", "y"), field]].concat();
        assert_eq!(read(&late).unwrap_err(), "a pseudo-header field after another one");
    }
    assert_eq!(with(&[(":x", "y")]).unwrap_err(), "an unknown pseudo-header field");
    assert_eq!(with(&[(":", "y")]).unwrap_err(), "an unknown pseudo-header field");
    assert_eq!(with(&[(":Path", "y")]).unwrap_err(), "an unknown pseudo-header field");
    assert_eq!(with(&[(":status", "200")]).unwrap_err(), "a status in a request");
    assert!(read(&[]).is_err());
}

#[test]
fn pseudo_header_fields_have_values_that_fit() {
    for (name, value) in [
        (":method", ""),
        (":method", "GET /x"),
        (":method", "G\u{e9}T"),
        (":scheme", ""),
        (":scheme", "http://b/x?"),
        (":scheme", "https\r\nx: y"),
        (":authority", ""),
        (":authority", "a/b"),
        (":authority", "a b"),
        (":authority", "a\r\nx: y"),
        (":path", ""),
        (":path", "/a b"),
        (":path", "/a\tb"),
        (":path", "/a\0b"),
        (":path", "/a\x7f"),
        (":path", "/ HTTP/1.1\r\n\r\n"),
        (":path", "/t#x"),
        (":path", "/t?q#x"),
    ] {
        assert!(changed(name, Some(value)).is_err(), "{name}: {value:?}");
    }
    let foreign = [(":method", "GET"), (":scheme", "ftp"), (":path", "/"), ("host", "a")];
    assert!(read(&foreign).is_err());
    let star = [(":method", "OPTIONS"), (":scheme", "https"), (":authority", "a"), (":path", "*")];
    assert_eq!(read(&star).unwrap().request.uri().path(), "*");
}

#[test]
fn connect_has_an_authority_and_no_path_unless_it_is_extended() {
    let [_, scheme, authority, path] = GET;
    let connect = (":method", "CONNECT");
    let plain = read(&[connect, (":authority", "a:443")]).unwrap();
    assert_eq!(plain.request.uri().to_string(), "a:443");
    assert!(read(&[connect]).is_err());
    assert!(read(&[connect, authority, path]).is_err());
    assert!(read(&[connect, authority, scheme]).is_err());
    let socket = (":protocol", "websocket");
    let extended = read(&[connect, socket, scheme, authority, path]).unwrap();
    assert_eq!(extended.request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    assert_eq!(extended.request.uri().to_string(), "https://a/t?q");
    assert!(read(&[connect, socket, authority]).is_err());
    assert!(read(&[connect, socket, scheme, authority]).is_err());
    assert!(read(&[connect, (":protocol", "a b"), scheme, authority, path]).is_err());
    assert!(read(&[connect, (":protocol", ""), scheme, authority, path]).is_err());
    assert!(with(&[socket]).is_err());
}

#[test]
fn fields_of_one_connection_are_refused() {
    for field in [
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", ""),
    ] {
        assert_eq!(with(&[field]).unwrap_err(), "a field of one connection", "{field:?}");
        assert!(block(Kind::Trailers, 1000, &[field]).trailers().is_err(), "{field:?}");
    }
}

#[test]
fn names_and_values_that_none_can_have_are_refused() {
    for name in
        ["X-A", "x a", "x:a", "", "x\ta", "x\r\na", "\u{e9}", "x\0", "x\"", "transfer-encoding: chunked\r\nx"]
    {
        assert!(with(&[(name, "b")]).is_err(), "{name:?}");
    }
    for value in ["\r", "a\nb", "\0", "a\x7f", "\x1f", "1\r\n\r\nGET /x HTTP/1.1"] {
        assert!(with(&[("x-a", value)]).is_err(), "{value:?}");
    }
    assert_eq!(with(&[("x!#$%&'*+-.^_`|~9", "\u{e9}")]).unwrap().request.headers().len(), 1);
}

#[test]
fn lengths_are_plain_digits() {
    for value in ["", "+4", "-4", "4, 4", "4 ", "0x4", "18446744073709551616"] {
        assert!(with(&[("content-length", value)]).is_err(), "{value:?}");
    }
}

#[test]
fn trailers_have_no_pseudo_header_fields() {
    let trailers = block(Kind::Trailers, 1000, &[("x-sum", "1"), ("x-sum", "2")]).trailers().unwrap();
    assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(block(Kind::Trailers, 1000, &[(":path", "/x")]).trailers().is_err());
    assert!(block(Kind::Trailers, 1000, &[("X-Sum", "1")]).trailers().is_err());
    assert!(matches!(
        block(Kind::Trailers, 66, &[("x-sum", "1"), ("a", "")]).trailers(),
        Err(Refused::TooLarge(None))
    ));
}

#[test]
fn what_is_too_large_tells_what_it_was_for() {
    let size: usize = GET.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let fields = [&GET[..], &[("x", "y")]].concat();
    assert!(block(Kind::Request, size + 34, &fields).request().is_ok());
    let refused = block(Kind::Request, size + 33, &fields).request().unwrap_err();
    let Refused::TooLarge(Some(line)) = refused else { panic!("{refused:?}") };
    assert_eq!((line.method(), line.uri().to_string()), (&Method::GET, "https://a/t?q".to_owned()));
    assert!(matches!(block(Kind::Request, 40, &fields).request(), Err(Refused::TooLarge(None))));
    // What is malformed is told first.
    let fields = [&GET[..], &[("X", "y")]].concat();
    assert!(matches!(block(Kind::Request, size + 34, &fields).request(), Err(Refused::Malformed(_))));
}

#[test]
fn what_is_malformed_or_unwanted_is_remembered_nevertheless() {
    // x: NUL, and y: z, both to be remembered; the second by its number afterwards.
    let (spoilt, number) = (&b"\x40\x01x\x01\0\x40\x01y\x01z"[..], &b"\xbe"[..]);
    for kind in [Kind::Request, Kind::Trailers, Kind::Nothing] {
        let mut decoder = Decoder::new();
        let mut first = Block::new(kind, 100);
        first.push(Bytes::from_static(spoilt), true, &mut decoder).unwrap();
        if kind == Kind::Trailers {
            assert!(matches!(first.trailers(), Err(Refused::Malformed(_))));
        }
        let mut second = Block::new(Kind::Trailers, 100);
        second.push(Bytes::from_static(number), true, &mut decoder).unwrap();
        assert_eq!(second.trailers().unwrap()["y"], "z");
        // The name of the malformed field is as good as any.
        let mut third = Block::new(Kind::Trailers, 100);
        third.push(Bytes::from_static(b"\x0f\x30\x01z"), true, &mut decoder).unwrap();
        assert_eq!(third.trailers().unwrap()["x"], "z");
    }
}

#[test]
fn a_block_may_be_spoilt_from_outside() {
    let mut block = Block::new(Kind::Request, 1000);
    block.spoil("a stream that is its own parent");
    block.push(written(&GET).into(), true, &mut Decoder::new()).unwrap();
    assert!(matches!(block.request(), Err(Refused::Malformed("a stream that is its own parent"))));
}

#[test]
fn an_endless_block_is_an_error_of_the_connection() {
    let mut decoder = Decoder::new();
    let mut block = Block::new(Kind::Request, 1000);
    let part = Bytes::from(vec![0x82; 1000]);
    for _ in 0..SLACK {
        block.push(part.clone(), false, &mut decoder).unwrap();
    }
    let error = block.push(part, false, &mut decoder).unwrap_err();
    assert!(matches!(error, Error::Connection(Code::ENHANCE_YOUR_CALM, _)));
}

proptest! {
    #[test]
    fn the_cut_of_a_block_makes_no_difference(
        fields in proptest::collection::vec(("[a-zA-Z:-]{0,6}", "[ -~]{0,9}"), 0..6),
        piece in 1..20_usize,
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let fields = [&GET[..], &fields].concat();
        let bytes = Bytes::from(written(&fields));
        let mut torn = Block::new(Kind::Request, 300);
        let mut decoder = Decoder::new();
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + piece).min(bytes.len());
            torn.push(bytes.slice(at..end), end == bytes.len(), &mut decoder).unwrap();
            at = end;
        }
        let whole = block(Kind::Request, 300, &fields);
        prop_assert_eq!(format!("{:?}", whole.request()), format!("{:?}", torn.request()));
    }
}
