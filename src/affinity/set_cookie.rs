//! What a response says about its session.

use std::time::Duration;

use super::{
    cookie_date,
    key::{KeyHasher, SessionKey},
    session_id::{cut, header_id, trim, value_if_named},
    settings::KeySource,
};

/// What a response says about its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: the session goes on as it is.
    Silent,
    /// From now on the client carries this key.
    Set {
        /// The key.
        key: SessionKey,
        /// How long the client keeps it, by its Max-Age or Expires: more than nothing. `None` when
        /// the response does not say.
        lasts: Option<Duration>,
    },
    /// The client carries no key any more: the session ends.
    Deleted,
}

/// What the core may look at of a response; borrowed bytes only.
pub trait Answerer {
    /// The values of the Set-Cookie fields, in order.
    fn set_cookies(&self) -> impl Iterator<Item = &[u8]>;
    /// The first value of a header field (lower-case name).
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The status code.
    fn status(&self) -> u16;
}

// === impl Effect ===

impl Effect {
    /// Reads a response to a `method` request whose keys came from the source number `carried`.
    /// `wall_unix` is the time in seconds since 1970, for Expires.
    ///
    /// Sources are read in their order, up to the carried one if the response leaves that alone:
    /// whatever later ones say, the client goes on to present the carried id first, and a session
    /// renamed to the other would be lost to it. For the same reason, deleting another source's id
    /// than the carried one ends nothing.
    pub fn of(
        sources: &[KeySource],
        carried: Option<usize>,
        hasher: &KeyHasher,
        method: &str,
        answer: &impl Answerer,
        wall_unix: i64,
    ) -> Self {
        let mut deleted = false;
        for (at, source) in sources.iter().enumerate() {
            let is_carried = carried == Some(at);
            let effect = match source {
                KeySource::Cookie(name) => of_cookie(name, hasher, answer, wall_unix),
                KeySource::Header(_) if is_carried && ends_by_status(method, answer.status()) => {
                    Self::Deleted
                }
                KeySource::Header(name) => of_header(name, hasher, answer),
                KeySource::Bearer | KeySource::Address { .. } => Self::Silent,
            };
            match effect {
                Self::Set { .. } => return effect,
                Self::Deleted => deleted |= is_carried || carried.is_none(),
                Self::Silent if is_carried => break,
                Self::Silent => {}
            }
        }
        if deleted { Self::Deleted } else { Self::Silent }
    }
}

/// The last Set-Cookie of the name counts, as in a browser, which takes them in order.
fn of_cookie(name: &str, hasher: &KeyHasher, answer: &impl Answerer, wall_unix: i64) -> Effect {
    let mut last = None;
    for field in answer.set_cookies() {
        let (pair, attributes) = cut(field);
        if let Some(value) = value_if_named(name.as_bytes(), pair) {
            last = Some((value, attributes));
        }
    }
    match last {
        None => Effect::Silent,
        Some(([], _)) => Effect::Deleted,
        Some((value, attributes)) => match Life::of(attributes, wall_unix) {
            Life::Over => Effect::Deleted,
            Life::Unsaid => Effect::Set { key: hasher.key(value), lasts: None },
            Life::Lasts(time) => Effect::Set { key: hasher.key(value), lasts: Some(time) },
        },
    }
}

fn of_header(name: &str, hasher: &KeyHasher, answer: &impl Answerer) -> Effect {
    match answer.header(name).and_then(header_id) {
        None => Effect::Silent,
        Some(id) => Effect::Set { key: hasher.key(id), lasts: None },
    }
}

/// How a session that a header names ends: its client deletes it, or its server knows it no more
/// (Model Context Protocol 2025-06-18, "Session Management").
fn ends_by_status(method: &str, status: u16) -> bool {
    status == 404 || (method == "DELETE" && (200..300).contains(&status))
}

/// How long a cookie lives, by its attributes.
#[derive(Clone, Copy)]
enum Life {
    Unsaid,
    Lasts(Duration),
    Over,
}

// === impl Life ===

impl Life {
    /// Max-Age wins over Expires; of several of one name the last valid one counts; one that is not
    /// valid is as if it were not there (RFC 6265 §5.2.1, §5.2.2, §5.3 step 3).
    fn of(attributes: Option<&[u8]>, wall_unix: i64) -> Self {
        let (mut max_age, mut expires) = (None, None);
        let mut rest = attributes;
        while let Some(text) = rest {
            let (attribute, tail) = cut(text);
            rest = tail;
            let Some(equals) = attribute.iter().position(|&byte| byte == b'=') else { continue };
            let (name, value) = (trim(&attribute[..equals]), trim(&attribute[equals + 1..]));
            if name.eq_ignore_ascii_case(b"max-age") {
                max_age = Self::of_max_age(value).or(max_age);
            } else if name.eq_ignore_ascii_case(b"expires") {
                expires = cookie_date::parse(value).or(expires);
            }
        }
        max_age
            .or_else(|| expires.map(|date| Self::of_seconds(date.saturating_sub(wall_unix))))
            .unwrap_or(Self::Unsaid)
    }

    fn of_max_age(value: &[u8]) -> Option<Self> {
        let digits = value.strip_prefix(b"-").unwrap_or(value);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        if digits.len() < value.len() {
            return Some(Self::Over);
        }
        let seconds = digits
            .iter()
            .fold(0_i64, |seconds, digit| seconds.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
        Some(Self::of_seconds(seconds))
    }

    fn of_seconds(seconds: i64) -> Self {
        match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Self::Lasts(Duration::from_secs(seconds)),
            _ => Self::Over,
        }
    }
}

#[cfg(test)]
mod tests {
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

    fn set(id: &str) -> Effect {
        Effect::Set { key: hasher().key(id.as_bytes()), lasts: None }
    }

    fn set_for(id: &str, seconds: u64) -> Effect {
        let lasts = Some(Duration::from_secs(seconds));
        Effect::Set { key: hasher().key(id.as_bytes()), lasts }
    }

    fn of(fields: &[&str]) -> Effect {
        Effect::of(&[cookie("session")], Some(0), &hasher(), "GET", &setting(fields), NOW)
    }

    fn of_mcp(carried: Option<usize>, method: &str, status: u16, id: Option<&str>) -> Effect {
        let header = id.map(|id| ("mcp-session-id", id.into()));
        let source = KeySource::Header("mcp-session-id".into());
        Effect::of(
            &[source],
            carried,
            &hasher(),
            method,
            &Response { set_cookies: Vec::new(), header, status },
            NOW,
        )
    }

    #[test]
    fn a_cookie_is_set_to_its_trimmed_and_unquoted_value() {
        for field in ["session=a", " session = a\t", "session=\"a\"", "session=a; Path=/; HttpOnly; Secure"] {
            assert_eq!(of(&[field]), set("a"), "{field}");
        }
        assert_eq!(of(&["session=a=b, c; Domain=x"]), set("a=b, c"));
    }

    #[test]
    fn other_cookies_say_nothing() {
        for field in ["", "session", "Session=a", "sessions=a", "x=session=a", "x=1; session=a", "=a", ";"] {
            assert_eq!(of(&[field]), Effect::Silent, "{field}");
        }
        assert_eq!(of(&[]), Effect::Silent);
    }

    #[test]
    fn the_last_set_cookie_wins() {
        assert_eq!(of(&["session=a", "session=b", "x=c"]), set("b"));
        assert_eq!(of(&["session=; Max-Age=0", "session=b; Max-Age=60"]), set_for("b", 60));
        assert_eq!(of(&["session=a", "session="]), Effect::Deleted);
        assert_eq!(of(&["session=a; Max-Age=60", "session=a"]), set("a"));
    }

    #[test]
    fn an_empty_value_deletes() {
        for field in ["session=", "session=\"\"", "session= ; Max-Age=60"] {
            assert_eq!(of(&[field]), Effect::Deleted, "{field}");
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
            assert_eq!(of(&[&format!("session=a; Path=/;{attribute}")]), Effect::Deleted, "{attribute}");
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
        let effect = of(&["session=a; Max-Age=99999999999999999999999999"]);
        assert_eq!(effect, set_for("a", i64::MAX as u64));
        let Effect::Set { lasts: Some(lasts), .. } = effect else { unreachable!() };
        assert!(lasts.checked_add(lasts).is_some());
    }

    #[test]
    fn a_header_sets_and_lasts_unsaid() {
        assert_eq!(of_mcp(None, "POST", 200, Some(" a ")), set("a"));
        assert_eq!(of_mcp(Some(0), "POST", 200, Some("b")), set("b"));
        assert_eq!(of_mcp(Some(0), "POST", 200, Some(" ")), Effect::Silent);
        assert_eq!(of_mcp(Some(0), "POST", 200, None), Effect::Silent);
    }

    #[test]
    fn a_header_session_ends_by_a_successful_delete() {
        assert_eq!(of_mcp(Some(0), "DELETE", 204, None), Effect::Deleted);
        assert_eq!(of_mcp(Some(0), "DELETE", 200, Some("a")), Effect::Deleted);
        assert_eq!(of_mcp(Some(0), "DELETE", 405, None), Effect::Silent);
        assert_eq!(of_mcp(None, "DELETE", 204, None), Effect::Silent);
        assert_eq!(of_mcp(Some(0), "delete", 204, None), Effect::Silent);
    }

    #[test]
    fn a_header_session_ends_by_404() {
        assert_eq!(of_mcp(Some(0), "POST", 404, None), Effect::Deleted);
        assert_eq!(of_mcp(Some(0), "GET", 404, Some("a")), Effect::Deleted);
        assert_eq!(of_mcp(None, "POST", 404, None), Effect::Silent);
    }

    #[test]
    fn neither_404_nor_delete_ends_a_cookies_session() {
        let answer = Response { status: 404, ..Response::default() };
        let effect = Effect::of(&[cookie("session")], Some(0), &hasher(), "DELETE", &answer, NOW);
        assert_eq!(effect, Effect::Silent);
    }

    #[test]
    fn what_the_client_makes_is_never_set() {
        for source in [KeySource::Bearer, KeySource::Address { v4: 32, v6: 64 }] {
            let answer = Response {
                header: Some(("authorization", b"Bearer t".to_vec())),
                status: 404,
                ..setting(&["session=a"])
            };
            let effect = Effect::of(&[source], Some(0), &hasher(), "DELETE", &answer, NOW);
            assert_eq!(effect, Effect::Silent);
        }
    }

    #[test]
    fn of_several_sources_the_first_that_is_set_counts() {
        let sources = [cookie("one"), KeySource::Header("x-two".into()), cookie("three"), KeySource::Bearer];
        let answer =
            |header, fields| Response { header: Some(("x-two", Vec::from(header))), ..setting(fields) };
        let of = |carried, answer: Response| Effect::of(&sources, carried, &hasher(), "GET", &answer, NOW);

        assert_eq!(of(None, answer("b", &["three=c", "one=a"])), set("a"));
        assert_eq!(of(None, answer("b", &["three=c"])), set("b"));
        assert_eq!(of(None, answer("", &["three=c"])), set("c"));
        assert_eq!(of(Some(3), answer("", &["three=c"])), set("c"));
    }

    #[test]
    fn a_carried_id_left_alone_outranks_what_later_sources_set() {
        let sources = [cookie("one"), cookie("two")];
        let of = |carried, fields: &[&str]| {
            Effect::of(&sources, Some(carried), &hasher(), "GET", &setting(fields), NOW)
        };
        assert_eq!(of(0, &["two=b"]), Effect::Silent);
        assert_eq!(of(0, &["one=", "two=b"]), set("b"));
        assert_eq!(of(1, &["one=a"]), set("a"));
    }

    #[test]
    fn only_the_carried_id_can_be_deleted() {
        let sources = [cookie("one"), cookie("two")];
        let of = |carried, fields: &[&str]| {
            Effect::of(&sources, Some(carried), &hasher(), "GET", &setting(fields), NOW)
        };
        assert_eq!(of(1, &["one="]), Effect::Silent);
        assert_eq!(of(1, &["one=", "two="]), Effect::Deleted);
        assert_eq!(of(0, &["one="]), Effect::Deleted);
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
            let mut expected = Effect::Silent;
            for cookie in fields.iter().flat_map(::cookie::Cookie::parse) {
                if cookie.name() != "session" {
                    continue;
                }
                let expires = cookie.expires_datetime().map(|date| date.unix_timestamp() - NOW);
                let life = cookie.max_age().map(|age| age.whole_seconds()).or(expires);
                expected = match (cookie.value_trimmed(), life) {
                    ("", _) | (_, Some(..=0)) => Effect::Deleted,
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
                Effect::of(&sources, Some(1), &hasher(), "DELETE", &answer, wall);
            }
            let dated = setting(&["session=a; Expires=Fri, 31 Dec 9999 23:59:59 GMT"]);
            Effect::of(&sources, None, &hasher(), "GET", &dated, wall);
        }
    }
}
