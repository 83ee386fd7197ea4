use proptest::prelude::*;

use super::*;

/// Sun, 06 Nov 1994 08:49:37 GMT
const NOW: i64 = 784_111_777;

#[derive(Default)]
struct Response {
    set_cookies: Vec<Vec<u8>>,
    header: Option<(&'static str, Vec<u8>)>,
    status: u16,
}

impl Answerer for Response {
    fn set_cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.set_cookies.iter().map(Vec::as_slice)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.header.as_ref().filter(|(field, _)| *field == name).map(|(_, value)| &**value)
    }

    fn status(&self) -> u16 {
        self.status
    }
}

fn hasher() -> KeyHasher {
    KeyHasher::new([1; 16])
}

fn cookie(name: &str) -> KeySource {
    KeySource::Cookie(name.into())
}

fn setting(fields: &[&str]) -> Response {
    let set_cookies = fields.iter().map(|field| field.as_bytes().to_vec()).collect();
    Response { set_cookies, header: None, status: 200 }
}

const TARGET: Target<'_> = Target { host: b"shop.test", path: b"/" };
const SILENT: Effects = Effects::SILENT;

fn exchange(carried: Option<usize>, method: &str) -> Exchange<'_> {
    Exchange { carried, method, target: TARGET, wall_unix: NOW }
}

/// Where a browser keeps a cookie of this name and these attributes.
fn scope_of(name: &str, attributes: &str) -> Scope {
    let (_, attributes) = read_attributes(Some(attributes.as_bytes()));
    Scope::of_cookie(&hasher(), name, attributes, TARGET)
}

fn sets(name: &str, id: &str, lasts: Option<u64>) -> Effect {
    let lasts = lasts.map(Duration::from_secs);
    Effect::Set { key: hasher().key(id.as_bytes()), scope: scope_of(name, ""), lasts }
}

fn deletes(name: &str) -> Effects {
    Effects::from(Effect::Deleted { scope: scope_of(name, "") })
}

fn set(id: &str) -> Effects {
    sets("session", id, None).into()
}

fn set_for(id: &str, seconds: u64) -> Effects {
    sets("session", id, Some(seconds)).into()
}

fn deleted() -> Effects {
    deletes("session")
}

fn of(fields: &[&str]) -> Effects {
    Effects::of(&[cookie("session")], &hasher(), &exchange(Some(0), "GET"), &setting(fields))
}

fn of_mcp(carried: Option<usize>, method: &str, status: u16, id: Option<&str>) -> Effects {
    let header = id.map(|id| ("mcp-session-id", id.into()));
    let source = KeySource::Header("mcp-session-id".into());
    let answer = Response { set_cookies: Vec::new(), header, status };
    Effects::of(&[source], &hasher(), &exchange(carried, method), &answer)
}

fn both(first: Effects, second: Effect) -> Effects {
    let mut effects = first;
    effects.add(second);
    effects
}

fn begins(id: &str) -> Effects {
    Effects::begins(hasher().key(id.as_bytes()))
}

fn ends() -> Effects {
    Effect::Deleted { scope: Scope::WHOLE }.into()
}

#[test]
fn a_cookie_is_set_to_its_trimmed_and_unquoted_value() {
    for field in ["session=a", " session = a\t", "session=\"a\"", "session=a; Path=/; HttpOnly; Secure"] {
        assert_eq!(of(&[field]), set("a"), "{field}");
    }
    assert_eq!(of(&["session=a=b, c; Path=/"]), set("a=b, c"));
}

#[test]
fn other_cookies_say_nothing() {
    for field in ["", "session", "Session=a", "sessions=a", "x=session=a", "x=1; session=a", "=a", ";"] {
        assert_eq!(of(&[field]), SILENT, "{field}");
    }
    assert_eq!(of(&[]), SILENT);
}

#[test]
fn the_last_set_cookie_wins() {
    assert_eq!(of(&["session=a", "session=b", "x=c"]), set("b"));
    assert_eq!(of(&["session=; Max-Age=0", "session=b; Max-Age=60"]), set_for("b", 60));
    assert_eq!(of(&["session=a", "session="]), deleted());
    assert_eq!(of(&["session=a; Max-Age=60", "session=a"]), set("a"));
}

#[test]
fn an_empty_value_deletes() {
    for field in ["session=", "session=\"\"", "session= ; Max-Age=60"] {
        assert_eq!(of(&[field]), deleted(), "{field}");
    }
}

#[test]
fn a_life_of_nothing_deletes() {
    for attribute in [
        "Max-Age=0",
        "max-age = -1 ",
        "MAX-AGE=-99999999999999999999999",
        "Max-Age=000",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "expires=Thu, 01-Jan-1970 00:00:10 GMT",
        "Expires=Thu, 01-Jan-70 00:00:00 GMT",
        "Expires=Thu Jan  1 00:00:00 1970",
        "Expires=Sun, 06 Nov 1994 08:49:37 GMT",
        "Max-Age=0; Expires=Sun, 06 Nov 2094 08:49:37 GMT",
    ] {
        assert_eq!(of(&[&format!("session=a; Path=/;{attribute}")]), deleted(), "{attribute}");
    }
}

#[test]
fn a_life_is_read() {
    let table = [
        ("Max-Age=1800", 1_800),
        ("mAX-aGE =\t1800 ", 1_800),
        ("Max-Age=60; Max-Age=90", 90),
        ("Max-Age=60; Max-Age=soon", 60),
        ("Expires=Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Expires=Sun, 06 Nov 1994 08:50:37 GMT; Expires=never", 60),
        ("Max-Age=90; Expires=Sun, 06 Nov 1994 08:50:37 GMT", 90),
        ("Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=90", 90),
        ("Max-Age=soon; Expires=Sun, 06 Nov 1994 08:50:37 GMT", 60),
    ];
    for (attributes, seconds) in table {
        assert_eq!(of(&[&format!("session=a; {attributes}")]), set_for("a", seconds), "{attributes}");
    }
}

#[test]
fn what_is_no_life_is_ignored() {
    for attribute in [
        "Max-Age",
        "Max-Age=",
        "Max-Age=-",
        "Max-Age=+0",
        "Max-Age=0.5",
        "Max-Age=\"0\"",
        "Max-Age=1e3",
        "Expires=0",
        "Expires=-1",
        "X-Max-Age=0",
    ] {
        assert_eq!(of(&[&format!("session=a; {attribute}")]), set("a"), "{attribute}");
    }
}

#[test]
fn a_huge_life_saturates_and_can_still_be_added_to() {
    let effects = of(&["session=a; Max-Age=99999999999999999999999999"]);
    assert_eq!(effects, set_for("a", i64::MAX as u64));
    let Some(Effect::Set { lasts: Some(lasts), .. }) = effects.iter().next() else { unreachable!() };
    assert!(lasts.checked_add(lasts).is_some());
}

#[test]
fn a_header_sets_and_lasts_unsaid() {
    assert_eq!(of_mcp(None, "POST", 200, Some(" a ")), begins("a"));
    assert_eq!(of_mcp(Some(0), "POST", 200, Some("b")), begins("b"));
    assert_eq!(of_mcp(Some(0), "POST", 200, Some(" ")), SILENT);
    assert_eq!(of_mcp(Some(0), "POST", 200, None), SILENT);
}

#[test]
fn a_header_session_ends_by_a_successful_delete() {
    assert_eq!(of_mcp(Some(0), "DELETE", 204, None), ends());
    assert_eq!(of_mcp(Some(0), "DELETE", 200, Some("a")), ends());
    assert_eq!(of_mcp(Some(0), "DELETE", 405, None), SILENT);
    assert_eq!(of_mcp(None, "DELETE", 204, None), SILENT);
    assert_eq!(of_mcp(Some(0), "delete", 204, None), SILENT);
}

#[test]
fn a_header_session_ends_by_404() {
    assert_eq!(of_mcp(Some(0), "POST", 404, None), ends());
    assert_eq!(of_mcp(Some(0), "GET", 404, Some("a")), ends());
    assert_eq!(of_mcp(None, "POST", 404, None), SILENT);
}

#[test]
fn neither_404_nor_delete_ends_a_cookies_session() {
    let answer = Response { status: 404, ..Response::default() };
    let effects = Effects::of(&[cookie("session")], &hasher(), &exchange(Some(0), "DELETE"), &answer);
    assert_eq!(effects, SILENT);
}

#[test]
fn what_the_client_makes_is_never_set() {
    for source in [KeySource::Bearer, KeySource::Address { v4: 32, v6: 64 }] {
        let answer = Response {
            header: Some(("authorization", b"Bearer t".to_vec())),
            status: 404,
            ..setting(&["session=a"])
        };
        let effects = Effects::of(&[source], &hasher(), &exchange(Some(0), "DELETE"), &answer);
        assert_eq!(effects, SILENT);
    }
}

#[test]
fn of_several_sources_the_first_that_is_set_counts() {
    let sources = [cookie("one"), KeySource::Header("x-two".into()), cookie("three"), KeySource::Bearer];
    let answer = |header, fields| Response { header: Some(("x-two", Vec::from(header))), ..setting(fields) };
    let of = |carried, answer: Response| Effects::of(&sources, &hasher(), &exchange(carried, "GET"), &answer);
    let [one, three] = [("one", "a"), ("three", "c")].map(|(name, id)| Effects::from(sets(name, id, None)));

    assert_eq!(of(None, answer("b", &["three=c", "one=a"])), one);
    assert_eq!(of(None, answer("b", &["three=c"])), begins("b"));
    assert_eq!(of(None, answer("", &["three=c"])), three);
    assert_eq!(of(Some(3), answer("", &["three=c"])), three);
}

#[test]
fn a_carried_cookie_left_alone_has_those_of_later_names_beside_it() {
    let sources = [cookie("one"), cookie("two")];
    let of = |carried, fields: &[&str]| {
        Effects::of(&sources, &hasher(), &exchange(Some(carried), "GET"), &setting(fields))
    };
    assert_eq!(of(0, &["two=b"]), sets("two", "b", None).into());
    assert_eq!(of(0, &["two="]), deletes("two"));
    assert_eq!(of(0, &["one=", "two=b"]), both(deletes("one"), sets("two", "b", None)));
    assert_eq!(of(1, &["one=a"]), sets("one", "a", None).into());
}

#[test]
fn only_the_carried_id_can_be_deleted() {
    let sources = [cookie("one"), cookie("two")];
    let of = |carried, fields: &[&str]| {
        Effects::of(&sources, &hasher(), &exchange(Some(carried), "GET"), &setting(fields))
    };
    assert_eq!(of(1, &["one="]), SILENT);
    assert_eq!(of(1, &["one=", "two="]), deletes("two"));
    assert_eq!(of(0, &["one="]), deletes("one"));
}

#[test]
fn cookies_of_one_name_in_different_scopes_are_told_apart() {
    let at = |path: &str, id| match sets("session", id, None) {
        Effect::Set { key, lasts, .. } => {
            Effect::Set { key, scope: scope_of("session", &format!("Path={path}")), lasts }
        }
        effect => effect,
    };
    let fields = ["session=a; Path=/shop", "session=b; path = /", "session=c; Path=/x; Path=/shop"];
    assert_eq!(of(&fields), both(at("/", "b").into(), at("/shop", "c")));
    let gone = Effect::Deleted { scope: scope_of("session", "Path=/shop") };
    assert_eq!(of(&["session=; Path=/shop", "session=b"]), both(gone.into(), at("/", "b")));
    assert_eq!(of(&["session=a; Domain=shop.test", "session=b"]).iter().count(), 2);
}

#[test]
fn no_more_scopes_are_read_than_the_bound() {
    let fields: Vec<String> = (0..9).map(|n| format!("session={n}; Path=/{n}")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    assert_eq!(of(&fields).iter().count(), Effects::MAX);
}

#[test]
fn expires_is_judged_by_the_date_of_the_response() {
    let dated = |date: &str| {
        let header = Some(("date", date.as_bytes().to_vec()));
        let answer = Response { header, ..setting(&["session=a; Expires=Sun, 06 Nov 1994 08:50:37 GMT"]) };
        Effects::of(&[cookie("session")], &hasher(), &exchange(Some(0), "GET"), &answer)
    };
    assert_eq!(dated("Sun, 06 Nov 1994 08:50:07 GMT"), set_for("a", 30));
    assert_eq!(dated("Sun, 06 Nov 1994 08:20:37 GMT"), set_for("a", 1_800));
    assert_eq!(dated("Sun, 06 Nov 1994 08:50:37 GMT"), deleted());
    assert_eq!(dated("yesterday"), set_for("a", 60));
}

fn field() -> impl Strategy<Value = String> {
    let attribute = prop_oneof![
        4 => Just("Max-Age=60"), 1 => Just("max-age=0"), 1 => Just("MAX-AGE=-5"), 1 => Just("Max-Age=x"),
        1 => Just("Max-Age=99999999999999999999"), 1 => Just("Expires=Sun, 06 Nov 1994 08:49:38 GMT"),
        1 => Just("Expires=Sunday, 06-Nov-94 08:50:37 GMT"), 1 => Just("expires=Sun Nov  6 08:49:36 1994"),
        1 => Just("Expires=Thu, 01-Jan-1970 00:00:10 GMT"), 1 => Just("Expires=x"), 1 => Just("Path=/"),
        1 => Just("Secure"), 1 => Just(" "), 1 => Just(""), 1 => Just("session=z"), 1 => Just("="),
    ];
    let pair = "[ \t]?(session|session|session|Session|x)?[ \t]?=?[ \t]?\"?[ab=,]{0,3}\"?[ \t]?";
    (pair, prop::collection::vec(("[ \t]{0,2}", attribute), 0..5)).prop_map(|(pair, attributes)| {
        let attributes = attributes.iter().map(|(space, attribute)| format!(";{space}{attribute}"));
        std::iter::once(pair).chain(attributes).collect()
    })
}

proptest! {
    #[test]
    fn set_cookies_are_read_as_the_cookie_crate_reads_them(fields in prop::collection::vec(field(), 0..4)) {
        let mut expected = SILENT;
        for cookie in fields.iter().flat_map(::cookie::Cookie::parse) {
            if cookie.name() != "session" {
                continue;
            }
            let expires = cookie.expires_datetime().map(|date| date.unix_timestamp() - NOW);
            let life = cookie.max_age().map(|age| age.whole_seconds()).or(expires);
            expected = match (cookie.value_trimmed(), life) {
                ("", _) | (_, Some(..=0)) => deleted(),
                (id, Some(seconds)) => set_for(id, seconds as u64),
                (id, None) => set(id),
            };
        }
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        prop_assert_eq!(of(&fields), expected);
    }

    #[test]
    fn no_bytes_make_it_panic(
        noise in prop::collection::vec(any::<u8>(), 0..60),
        wall in any::<i64>(),
        status in any::<u16>(),
    ) {
        let set_cookies = [&b""[..], b"session=a;", b"session=a; Max-Age=", b"session=a; Expires="]
            .map(|start| [start, &noise].concat())
            .to_vec();
        let sources = [cookie("session"), KeySource::Header("x".into())];
        for count in 0..=set_cookies.len() {
            let set_cookies = set_cookies[..count].to_vec();
            let answer = Response { set_cookies, header: Some(("x", noise.clone())), status };
            let exchange = Exchange { wall_unix: wall, ..exchange(Some(1), "DELETE") };
            Effects::of(&sources, &hasher(), &exchange, &answer);
        }
        let dated = setting(&["session=a; Expires=Fri, 31 Dec 9999 23:59:59 GMT"]);
        Effects::of(&sources, &hasher(), &Exchange { wall_unix: wall, ..exchange(None, "GET") }, &dated);
    }
}
