use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Request {
    cookies: Vec<Vec<u8>>,
    headers: Vec<(&'static str, Vec<u8>)>,
    client: Option<IpAddr>,
    path: &'static str,
    query: Option<&'static str>,
}

impl Carrier for Request {
    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.cookies.iter().map(Vec::as_slice)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(field, _)| *field == name).map(|(_, value)| &**value)
    }

    fn client(&self) -> Option<IpAddr> {
        self.client
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        self.query
    }
}

fn hasher() -> KeyHasher {
    KeyHasher::new([1; 16])
}

fn cookie(name: &str) -> KeySource {
    KeySource::Cookie(name.into())
}

#[test]
fn an_id_that_an_operator_gives_has_the_key_of_requests() {
    let address = KeySource::Address { v4: 24, v6: 64 };
    let request = Request {
        cookies: vec![b"session=abc".to_vec()],
        headers: vec![("x-session", b"abc".to_vec()), ("authorization", b"Bearer abc".to_vec())],
        client: Some("192.0.2.7".parse().unwrap()),
        ..Request::default()
    };
    for (source, id) in [
        (cookie("session"), "abc"),
        (KeySource::Header("x-session".into()), " abc "),
        (KeySource::Bearer, "abc"),
        (address, "192.0.2.200"),
    ] {
        let found = Keys::find(&vec![source.clone()].into(), &hasher(), &request);
        assert_eq!(source.key_of(&hasher(), id.as_bytes()), found.as_slice().first().copied());
        assert_eq!(source.key_of(&hasher(), b" "), None);
    }
}

fn keys_of(ids: &[&str]) -> Vec<SessionKey> {
    ids.iter().map(|id| hasher().key(id.as_bytes())).collect()
}

fn in_cookies(fields: &[&str]) -> Keys {
    let request = Request {
        cookies: fields.iter().map(|field| field.as_bytes().to_vec()).collect(),
        ..Request::default()
    };
    Keys::find(&vec![cookie("session")].into(), &hasher(), &request)
}

fn in_header(source: KeySource, name: &'static str, value: &str) -> Keys {
    let request = Request { headers: vec![(name, value.into())], ..Request::default() };
    Keys::find(&vec![source].into(), &hasher(), &request)
}

fn at_address(v4: u8, v6: u8, client: &str) -> SessionKey {
    let request = Request { client: Some(client.parse().unwrap()), ..Request::default() };
    let keys = Keys::find(&vec![KeySource::Address { v4, v6 }].into(), &hasher(), &request);
    assert_eq!((keys.as_slice().len(), keys.is_client_made()), (1, true));
    keys.as_slice()[0]
}

#[test]
fn cookies_are_read_as_servers_read_them() {
    let table: [(&[&str], &[&str]); 19] = [
        (&[], &[]),
        (&[""], &[]),
        (&["session=a"], &["a"]),
        (&["x=1; session=a; y=2"], &["a"]),
        (&["x=1;session=a;y=2"], &["a"]),
        (&["x=1", "session=a"], &["a"]),
        (&["\tsession \t= a\t ;"], &["a"]),
        (&["session=\"a\""], &["a"]),
        (&["session=\"a"], &["\"a"]),
        (&["session=\""], &["\""]),
        (&["session=a=b=="], &["a=b=="]),
        (&["session=a b,c"], &["a b,c"]),
        (&["session="], &[]),
        (&["session=\"\"; session"], &[]),
        (&["Session=a; sessions=b; xsession=c; x=session=d; =session"], &[]),
        (&["session=a; session=b"], &["a", "b"]),
        (&["session=a; session=\"a\"", "session=b; session=a"], &["a", "b"]),
        (&["session=; session=a"], &["a"]),
        (&[";;; ;session=é;="], &["é"]),
    ];
    for (fields, ids) in table {
        assert_eq!(in_cookies(fields).as_slice(), keys_of(ids), "{fields:?}");
    }
}

#[test]
fn two_values_are_ambiguous_and_one_twice_is_not() {
    assert!(in_cookies(&["session=a; session=b"]).ambiguous());
    assert!(!in_cookies(&["session=a; session=a"]).ambiguous());
    assert!(!in_cookies(&[]).ambiguous());
}

#[test]
fn the_first_source_that_has_an_id_is_used() {
    let sources = [cookie("none"), cookie("empty"), cookie("session"), KeySource::Bearer];
    let request = Request {
        cookies: vec![b"session=a; empty=".to_vec()],
        headers: vec![("authorization", b"Bearer t".to_vec())],
        ..Request::default()
    };
    let keys = Keys::find(&sources.to_vec().into(), &hasher(), &request);
    assert_eq!((keys.as_slice(), keys.source()), (&*keys_of(&["a"]), Some(2)));
    assert!(!keys.is_client_made());
}

fn found(sources: &[KeySource], set: u64, request: &Request) -> Keys {
    Keys::find_preferring(set, &sources.to_vec().into(), &hasher(), request)
}

fn with_cookies(field: &str) -> Request {
    Request { cookies: vec![field.into()], ..Request::default() }
}

#[test]
fn cookies_of_several_names_are_tried_in_the_order_of_the_list() {
    let request = with_cookies("three=c; two=b; one=a; two=d");
    let keys = found(&[cookie("one"), cookie("two"), cookie("three")], 0, &request);
    assert_eq!(keys.as_slice(), keys_of(&["a", "b", "d", "c"]));
    let sources: Vec<_> = keys.with_sources().map(|(_, source)| source).collect();
    assert_eq!((sources, keys.ambiguous()), (vec![0, 1, 1, 2], true));
    assert!(!found(&[cookie("one"), cookie("three")], 0, &request).ambiguous());
}

#[test]
fn cookies_that_responses_set_are_tried_before_all_others() {
    let request = with_cookies("one=a; two=b; three=c");
    let sources = [cookie("one"), cookie("two"), cookie("three")];
    assert_eq!(found(&sources, 0b100, &request).as_slice(), keys_of(&["c", "a", "b"]));
    assert_eq!(found(&sources, 0b110, &request).as_slice(), keys_of(&["b", "c", "a"]));
}

#[test]
fn many_cookies_of_a_later_name_leave_room_for_an_earlier_one() {
    let field: String = (0..Keys::MAX).map(|n| format!("two={n};")).chain(["one=a".to_owned()]).collect();
    let keys = found(&[cookie("one"), cookie("two")], 0, &with_cookies(&field));
    assert_eq!(keys.as_slice().len(), Keys::MAX);
    assert_eq!(keys.as_slice()[..3], keys_of(&["a", "0", "1"]));
}

#[test]
fn a_header_field_keeps_its_place_between_cookies() {
    let request = Request { headers: vec![("x", b"h".to_vec())], ..with_cookies("one=a; two=b") };
    let header = || KeySource::Header("x".into());
    assert_eq!(found(&[cookie("one"), header(), cookie("two")], 0, &request).as_slice(), keys_of(&["a"]));
    assert_eq!(found(&[header(), cookie("one")], 0, &request).as_slice(), keys_of(&["h"]));
    assert_eq!(found(&[cookie("none"), header(), cookie("two")], 0, &request).as_slice(), keys_of(&["h"]));
}

#[test]
fn ids_in_the_target_share_the_name_space_and_do_not_end_the_search() {
    let request = Request {
        path: "/a;jsessionid=X.r1",
        query: Some("t=1&sid=S%2D1"),
        client: Some("192.0.2.7".parse().unwrap()),
        ..with_cookies("JSESSIONID=X.r1; x=1")
    };
    let path = || KeySource::PathParameter("jsessionid".into());
    let query = || KeySource::Query("sid".into());
    let address = KeySource::Address { v4: 32, v6: 128 };
    assert_eq!(found(&[path()], 0, &request).as_slice(), keys_of(&["X.r1"]));
    assert_eq!(found(&[cookie("JSESSIONID"), path()], 0, &request).as_slice(), keys_of(&["X.r1"]));
    assert_eq!(found(&[cookie("x"), path()], 0, &request).as_slice(), keys_of(&["1", "X.r1"]));
    let keys = found(&[query(), address.clone()], 0, &request);
    assert_eq!((keys.as_slice()[0], keys.as_slice().len()), (keys_of(&["S-1"])[0], 2));
    assert!(keys.are_in_target() && !keys.is_client_made());
    assert!(!found(&[address, query()], 0, &request).are_in_target());
}

#[test]
fn a_request_without_an_id_has_no_source() {
    let keys = in_cookies(&["x=1"]);
    assert_eq!((keys.source(), keys.is_empty(), keys.is_client_made()), (None, true, false));
}

#[test]
fn a_header_id_is_the_trimmed_value_and_shares_the_cookies_name_space() {
    let source = || KeySource::Header("mcp-session-id".into());
    assert_eq!(in_header(source(), "mcp-session-id", " a\t").as_slice(), keys_of(&["a"]));
    assert!(in_header(source(), "mcp-session-id", " \t").is_empty());
    assert!(in_header(source(), "session-id", "a").is_empty());
}

#[test]
fn a_bearer_token_has_a_name_space_of_its_own() {
    for value in ["Bearer t", "bEARER   t ", "bearer t"] {
        let keys = in_header(KeySource::Bearer, "authorization", value);
        assert_eq!(keys.as_slice(), [hasher().tagged(BEARER, b"t")], "{value}");
        assert!(keys.is_client_made());
    }
    for value in ["", "Bearer", "Bearer ", "Bearert", "Basic t", "Bearer=t"] {
        assert!(in_header(KeySource::Bearer, "authorization", value).is_empty(), "{value}");
    }
}

#[test]
fn addresses_are_cut_to_their_prefix() {
    assert_eq!(at_address(24, 64, "192.0.2.1"), at_address(24, 64, "192.0.2.255"));
    assert_ne!(at_address(24, 64, "192.0.2.1"), at_address(24, 64, "192.0.3.1"));
    assert_ne!(at_address(32, 128, "192.0.2.1"), at_address(32, 128, "192.0.2.2"));
    assert_eq!(at_address(24, 64, "2001:db8::1"), at_address(24, 64, "2001:db8::ffff:0:0:1"));
    assert_ne!(at_address(24, 64, "2001:db8::1"), at_address(24, 64, "2001:db8:0:1::1"));
    assert_ne!(at_address(32, 128, "2001:db8::1"), at_address(32, 128, "2001:db8::2"));
}

#[test]
fn an_ipv4_mapped_address_counts_as_ipv4() {
    assert_eq!(at_address(24, 64, "::ffff:192.0.2.1"), at_address(24, 64, "192.0.2.7"));
}

#[test]
fn prefix_lengths_out_of_range_do_no_harm() {
    assert_eq!(at_address(255, 255, "192.0.2.1"), at_address(32, 128, "192.0.2.1"));
    assert_eq!(at_address(255, 255, "2001:db8::1"), at_address(32, 128, "2001:db8::1"));
    assert_eq!(at_address(0, 0, "192.0.2.1"), at_address(0, 0, "198.51.100.1"));
    assert_eq!(at_address(0, 0, "2001:db8::1"), at_address(0, 0, "fe80::1"));
    assert_ne!(at_address(0, 0, "2001:db8::1"), at_address(0, 0, "192.0.2.1"));
}

#[test]
fn of_too_many_cookies_the_first_and_the_last_are_tried() {
    let values: Vec<String> = (0..Keys::MAX * 3).map(|n| format!("v{n}")).collect();
    let field: String = values.iter().map(|value| format!("session={value}; session={value};")).collect();
    let keys = in_cookies(&[&field]);
    let half = Keys::MAX / 2;
    let tried = values[..half].iter().chain(&values[values.len() - half..]);
    let expected: Vec<_> = tried.map(|value| hasher().key(value.as_bytes())).collect();
    assert_eq!(keys.as_slice(), expected);
}

#[test]
fn cookies_of_a_name_behind_do_not_displace_those_of_the_first() {
    let many: String = (0..Keys::MAX).map(|n| format!("one=v{n}; ")).collect();
    let field = format!("two=a; {many} two=b");
    let request = Request { cookies: vec![field.into()], ..Request::default() };
    let keys = found(&[cookie("one"), cookie("two")], 0, &request);
    let expected: Vec<_> = (0..Keys::MAX).map(|n| hasher().key(format!("v{n}").as_bytes())).collect();
    assert_eq!(keys.as_slice(), expected);
}

#[test]
fn debug_does_not_show_ids() {
    let shown = format!("{:?}", in_cookies(&["session=verysecret"]));
    assert!(shown.starts_with("Keys { keys: [SessionKey("), "{shown}");
    assert!(!shown.contains("verysecret"), "{shown}");
}

fn field() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("session=a;"), 2 => Just("session=b;"), 4 => Just("session"), 1 => Just("Session"), 1 => Just("sess"), 1 => Just("x"),
        4 => Just("="), 4 => Just(";"), 2 => Just(" "), 1 => Just("\t"), 2 => Just("\""),
        2 => Just("a"), 1 => Just("b"), 1 => Just(","), 1 => Just("é"),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cookies_are_read_as_the_cookie_crate_reads_them(fields in prop::collection::vec(field(), 0..4)) {
        let mut expected = Vec::new();
        for cookie in fields.iter().flat_map(::cookie::Cookie::split_parse).flatten() {
            let key = hasher().key(cookie.value_trimmed().as_bytes());
            if cookie.name() == "session" && !cookie.value_trimmed().is_empty() && !expected.contains(&key)
            {
                expected.push(key);
            }
        }
        if expected.len() > Keys::MAX {
            expected.drain(Keys::MAX / 2..expected.len() - Keys::MAX / 2);
        }
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let keys = in_cookies(&fields);
        prop_assert_eq!(keys.as_slice(), expected);
    }

    #[test]
    fn no_bytes_make_it_panic(
        name in prop::collection::vec(any::<u8>(), 0..3),
        cookies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..3),
        header in prop::collection::vec(any::<u8>(), 0..30),
        (v4, v6, client) in any::<(u8, u8, IpAddr)>(),
    ) {
        let sources = [
            cookie(&String::from_utf8_lossy(&name)),
            KeySource::Header("x".into()),
            KeySource::Bearer,
            KeySource::Address { v4, v6 },
        ];
        let headers = vec![("x", header.clone()), ("authorization", header)];
        let request = Request { cookies, headers, client: Some(client), ..Request::default() };
        for at in 0..sources.len() {
            let keys = Keys::find(&sources[at..].to_vec().into(), &hasher(), &request);
            prop_assert!(keys.as_slice().len() <= Keys::MAX && !keys.is_empty());
        }
    }
}
