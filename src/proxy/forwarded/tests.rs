use proptest::prelude::*;

use super::*;

const PEER: &str = "10.0.0.1";

fn map(fields: &[(&str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

fn trusted(address: IpAddr) -> bool {
    address.to_string().starts_with("10.")
}

fn origin(headers: &HeaderMap) -> Origin {
    Origin::of(headers, PEER.parse().unwrap(), trusted)
}

/// The client that these fields tell of, or the last hop before it with a question mark.
fn client(fields: &[(&str, &[u8])]) -> String {
    let Origin { address, known, .. } = origin(&map(fields));
    format!("{address}{}", if known { "" } else { "?" })
}

fn by_x(value: impl AsRef<[u8]>) -> String {
    client(&[("x-forwarded-for", value.as_ref())])
}

fn by_forwarded(value: impl AsRef<[u8]>) -> String {
    client(&[("forwarded", value.as_ref())])
}

#[test]
fn a_hop_is_an_address_however_it_is_written() {
    for (hop, wanted) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:51234", "192.0.2.1"),
        ("192.0.2.1:", "192.0.2.1"),
        ("192.0.2.1:_port", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:DB8:0:0::0001", "2001:db8::1"),
        ("2001:db8:1:2:3:4:5:6:443", "2001:db8:1:2:3:4:5:6"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("::ffff:192.0.2.1:443", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("\"192.0.2.1\"", "192.0.2.1"),
        ("\"[2001:db8::1]:443\"", "2001:db8::1"),
        ("\t 192.0.2.1 \t", "192.0.2.1"),
    ] {
        assert_eq!(by_x(hop), wanted, "{hop}");
        let quoted = format!("for=\"{}\"", hop.trim().trim_matches('"'));
        assert_eq!(by_forwarded(quoted), wanted, "{hop}");
    }
}

#[test]
fn what_is_no_address_leaves_the_last_hop_that_is_known() {
    for hop in [
        "unknown",
        "_hidden",
        "_SEVKISEK:443",
        "-",
        "localhost",
        "192.0.2",
        "192.0.2.1.5",
        "192.0.2.010",
        "192.0.2.1:http",
        "192.0.2.1:123456",
        "192.0.2.1 192.0.2.2",
        "http://192.0.2.1",
        "[2001:db8::1",
        "[192.0.2.1]",
        "[2001:db8::1]443",
        "2001:db8::1%",
        "unix:",
        "for=192.0.2.1",
        "\u{e9}",
    ] {
        assert_eq!(by_x(hop), "10.0.0.1?", "{hop}");
        assert_eq!(by_x(format!("{hop}, 10.0.0.2:99")), "10.0.0.2?", "{hop}");
        assert_eq!(by_x(format!("{hop}, 192.0.2.1")), "192.0.2.1", "nobody looks at {hop}");
    }
    assert_eq!(by_x(b"\xff, 192.0.2.1"), "192.0.2.1");
    assert_eq!(by_x(b"192.0.2.1, \xff, 10.0.0.2"), "10.0.0.2?");
}

#[test]
fn the_client_is_the_last_hop_that_nobody_trusted_vouches_for() {
    assert_eq!(by_x("1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
    assert_eq!(by_x("203.0.113.9, ::ffff:10.0.0.9, 10.0.0.2:80"), "203.0.113.9", "10.0.0.9 is trusted");
    assert_eq!(by_x("203.0.113.9,, ,10.0.0.2,"), "203.0.113.9", "empty elements do not count");
    assert_eq!(by_x("10.0.0.3, 10.0.0.2"), "10.0.0.3", "which asks for itself");
    assert_eq!((by_x(""), by_x(" , ,")), (PEER.to_owned(), PEER.to_owned()));
    let several: [(&str, &[u8]); 2] =
        [("x-forwarded-for", b"1.1.1.1, 203.0.113.9"), ("x-forwarded-for", b"10.0.0.2")];
    assert_eq!(client(&several), "203.0.113.9");
}

#[test]
fn what_a_stranger_says_of_others_is_not_looked_at() {
    let headers = map(&[("x-forwarded-for", b"1.1.1.1"), ("forwarded", b"for=1.1.1.1")]);
    let stranger = "198.51.100.1".parse().unwrap();
    let origin = Origin::of(&headers, stranger, trusted);
    assert_eq!((origin.client(), origin.told_by), (Some(stranger), Told::Nowhere));
}

#[test]
fn forwarded_is_read_from_its_end() {
    for (value, wanted) in [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=\"[2001:db8::1]:443\";proto=https;by=10.0.0.1", "2001:db8::1"),
        ("by=10.0.0.1;host=\"a,b;for\";FOR = 192.0.2.1", "192.0.2.1"),
        ("for=1.1.1.1, for=192.0.2.1;proto=http, for=10.0.0.2", "192.0.2.1"),
        ("for=192.0.2.1,, for=10.0.0.2,", "192.0.2.1"),
        ("for=\", for=192.0.2.1", "192.0.2.1"),
        ("for=\", for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("for=\"\\, for=\"[2001:db8::1]\"", "2001:db8::1"),
        ("for=unknown", "10.0.0.1?"),
        ("for=_gazonk, for=10.0.0.2", "10.0.0.2?"),
        ("proto=https", "10.0.0.1?"),
        ("for=192.0.2.1;for=192.0.2.2", "10.0.0.1?"),
        ("for=192.0.2.1;host=\"a;for=192.0.2.2\"", "10.0.0.1?"),
        ("192.0.2.1", "10.0.0.1?"),
    ] {
        assert_eq!(by_forwarded(value), wanted, "{value}");
    }
    assert_eq!(by_forwarded(b"\xff, for=192.0.2.1"), "192.0.2.1");
    assert_eq!(by_forwarded(b"for=192.0.2.1;x=\xff"), "192.0.2.1");
}

#[test]
fn x_forwarded_for_wins_and_forwarded_goes_on_where_it_ends() {
    let both = |x: &'static str, forwarded: &'static str| {
        let headers = map(&[("x-forwarded-for", x.as_bytes()), ("forwarded", forwarded.as_bytes())]);
        let Origin { address, known, told_by } = origin(&headers);
        (address.to_string(), known, told_by)
    };
    let told = |address: &str, known, told_by| (address.to_owned(), known, told_by);
    assert_eq!(both("192.0.2.1", "for=1.1.1.1"), told("192.0.2.1", true, Told::XForwardedFor(false)));
    assert_eq!(both("192.0.2.1", "for=192.0.2.1:4"), told("192.0.2.1", true, Told::XForwardedFor(true)));
    assert_eq!(both("unknown", "for=1.1.1.1"), told("10.0.0.1", false, Told::XForwardedFor(false)));
    let https = Told::Forwarded(Some("https"));
    assert_eq!(both("10.0.0.2", "for=192.0.2.1;proto=HTTPS"), told("192.0.2.1", true, https));
    assert_eq!(both("10.0.0.2", "for=_x"), told("10.0.0.2", false, Told::Forwarded(None)));
}

/// What a backend is told of this request: `X-Forwarded-For`, its scheme, and `Forwarded` but for the host.
fn told(fields: &[(&str, &str)]) -> [String; 3] {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let headers = map(&fields);
    let peer = HeaderValue::from_static(PEER);
    let sender = Sender { peer: &peer, node: PEER, trusted: true, origin: origin(&headers) };
    let mut out = BytesMut::new();
    sender.tell(&mut out, &headers, &HeaderValue::from_static("a"));
    let text = std::str::from_utf8(&out).unwrap().replace(";host=\"a\";proto=https", "");
    ["x-forwarded-for: ", "x-forwarded-proto: ", "forwarded: "].map(|name| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let line = lines.next().unwrap_or("as it was").to_owned();
        assert!(lines.next().is_none(), "{text}");
        line
    })
}

#[test]
fn a_backend_hears_of_one_client_in_both_fields() {
    assert_eq!(told(&[]), ["10.0.0.1", "https", "for=10.0.0.1"]);
    assert_eq!(
        told(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "http")]),
        ["192.0.2.1, 10.0.0.1", "as it was", "for=192.0.2.1, for=10.0.0.1"]
    );
    assert_eq!(
        told(&[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1;by=_a")]),
        ["192.0.2.1, 10.0.0.1", "https", "for=192.0.2.1;by=_a, for=10.0.0.1"]
    );
    assert_eq!(
        told(&[("x-forwarded-for", "2001:db8::1"), ("forwarded", "for=1.1.1.1")]),
        ["2001:db8::1, 10.0.0.1", "https", "for=\"[2001:db8::1]\", for=10.0.0.1"]
    );
    assert_eq!(
        told(&[("forwarded", "for=192.0.2.1;proto=http")]),
        ["192.0.2.1, 10.0.0.1", "http", "for=192.0.2.1;proto=http, for=10.0.0.1"]
    );
    assert_eq!(
        told(&[("forwarded", "for=_hidden")]),
        ["unknown, 10.0.0.1", "https", "for=_hidden, for=10.0.0.1"]
    );
    assert_eq!(
        told(&[("x-forwarded-for", "_a"), ("forwarded", "for=1.1.1.1")]),
        ["_a, 10.0.0.1", "https", "for=unknown, for=10.0.0.1"]
    );
}

proptest! {
    #[test]
    fn what_a_client_writes_changes_nothing_of_what_its_proxy_appends(
        before in "[ -~]{0,40}", quoted: bool,
    ) {
        let hop = if quoted { "\"[2001:db8::1]:443\"" } else { "192.0.2.1" };
        let client = if quoted { "2001:db8::1" } else { "192.0.2.1" };
        prop_assert_eq!(by_forwarded(format!("{before}, for={hop};proto=https")), client);
        prop_assert_eq!(by_x(format!("{before}, {hop}")), client);
    }
}
