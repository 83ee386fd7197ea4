//! Where a request carries its session id.

use std::{fmt, net::IpAddr};

use memchr::memchr;

use super::{
    key::{KeyHasher, SessionKey},
    settings::KeySource,
};

/// What the core may look at of a request; borrowed bytes only.
pub trait Carrier {
    /// The values of the Cookie fields, in order. HTTP/2 clients may split the field (RFC 9113 §8.2.3).
    fn cookies(&self) -> impl Iterator<Item = &[u8]>;
    /// The first value of a header field (lower-case name).
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The client's address (as believed after trusted proxies); none when they do not tell it.
    fn client(&self) -> Option<IpAddr>;
}

/// The keys a request carries, at most [`Keys::MAX`], in the order in which they are tried; repeated
/// values once. All come from one source.
#[derive(Clone)]
pub struct Keys {
    keys: [SessionKey; Self::MAX],
    len: usize,
    source: Option<usize>,
    client_made: bool,
}

// === impl Keys ===

impl Keys {
    /// As many as are tried. A client sends several cookies of one name when they differ in path or
    /// domain; more than a few are an attack on the table's lookups.
    pub const MAX: usize = 8;

    /// What the first of `sources` that yields anything yields. Never allocates.
    pub fn find(sources: &[KeySource], hasher: &KeyHasher, carrier: &impl Carrier) -> Self {
        let mut found = Self::default();
        for (at, source) in sources.iter().enumerate() {
            found.read(source, hasher, carrier);
            if !found.is_empty() {
                found.source = Some(at);
                found.client_made = source.is_client_made();
                break;
            }
        }
        found
    }

    /// The key of a session that the proxy itself began, found by none of the sources.
    pub fn issued(key: SessionKey) -> Self {
        let mut keys = Self::default();
        keys.insert(key);
        keys
    }

    #[cfg(test)]
    pub(super) fn of(keys: &[SessionKey]) -> Self {
        let mut found = Self::default();
        keys.iter().for_each(|&key| found.insert(key));
        found.source = (!keys.is_empty()).then_some(0);
        found
    }

    /// The keys, in the order in which they are tried.
    pub fn as_slice(&self) -> &[SessionKey] {
        &self.keys[..self.len]
    }

    /// Whether the request carries none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which of the pool's key sources these came from (so that the response is read accordingly).
    pub fn source(&self) -> Option<usize> {
        self.source
    }

    /// Whether the client rather than the application chose this key (see
    /// [`KeySource::is_client_made`]).
    pub fn is_client_made(&self) -> bool {
        self.client_made
    }

    /// Whether the request carries more than one distinct value, so that only the table can tell
    /// which is meant.
    pub fn ambiguous(&self) -> bool {
        self.len > 1
    }

    fn read(&mut self, source: &KeySource, hasher: &KeyHasher, carrier: &impl Carrier) {
        match source {
            KeySource::Cookie(name) => {
                for field in carrier.cookies() {
                    for value in values_of(name.as_bytes(), field) {
                        if !value.is_empty() {
                            self.insert(hasher.key(value));
                        }
                        if self.len == Self::MAX {
                            return;
                        }
                    }
                }
            }
            KeySource::Header(name) => {
                if let Some(id) = carrier.header(name).and_then(header_id) {
                    self.insert(hasher.key(id));
                }
            }
            KeySource::Bearer => {
                if let Some(token) = carrier.header("authorization").and_then(bearer_token) {
                    self.insert(hasher.tagged(BEARER, token));
                }
            }
            KeySource::Address { v4, v6 } => {
                if let Some(client) = carrier.client() {
                    self.insert(address_key(hasher, client, *v4, *v6));
                }
            }
        }
    }

    fn insert(&mut self, key: SessionKey) {
        if self.len < Self::MAX && !self.as_slice().contains(&key) {
            self.keys[self.len] = key;
            self.len += 1;
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { keys: [SessionKey::from_words([0; 4]); Self::MAX], len: 0, source: None, client_made: false }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("keys", &self.as_slice())
            .field("source", &self.source)
            .field("client_made", &self.client_made)
            .finish()
    }
}

// === impl KeySource ===

impl KeySource {
    /// Whether the client alone makes this key: no response will ever set, confirm or delete it.
    pub fn is_client_made(&self) -> bool {
        matches!(self, Self::Bearer | Self::Address { .. })
    }

    /// The key of an id that an operator gives: the value of the cookie or header field, the token, or the
    /// address. None when it cannot be one.
    pub fn key_of(&self, hasher: &KeyHasher, id: &[u8]) -> Option<SessionKey> {
        let id = trim(id);
        match self {
            Self::Cookie(_) => (!id.is_empty()).then(|| hasher.key(id)),
            Self::Header(_) => header_id(id).map(|id| hasher.key(id)),
            Self::Bearer => header_id(id).map(|token| hasher.tagged(BEARER, token)),
            Self::Address { v4, v6 } => {
                let address = std::str::from_utf8(id).ok()?.parse().ok()?;
                Some(address_key(hasher, address, *v4, *v6))
            }
        }
    }
}

/// The key of the network that an address is in.
fn address_key(hasher: &KeyHasher, address: IpAddr, v4: u8, v6: u8) -> SessionKey {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4).min(32)).unwrap_or(0);
            hasher.tagged(ADDRESS, &(u32::from(address) & mask).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6).min(128)).unwrap_or(0);
            hasher.tagged(ADDRESS, &(u128::from(address) & mask).to_be_bytes())
        }
    }
}

/// The values, maybe empty, of the cookies of this name in one Cookie field. Follows RFC 6265 §4.2
/// and §5.4 the way servers do: whitespace around names and values is no part of them, nor are
/// quotes around a value.
fn values_of<'a>(name: &'a [u8], field: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let (pair, tail) = cut(rest?);
        rest = tail;
        Some(pair)
    })
    .filter_map(move |pair| value_if_named(name, pair))
}

/// What is before the first `;`, and, if there is one, what is after it.
pub(super) fn cut(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b';', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// The value of `name=value` if it has this name, which holds no `=`; names are case-sensitive
/// (RFC 6265 §5.3 step 11 compares them as they are).
pub fn value_if_named<'a>(name: &[u8], pair: &'a [u8]) -> Option<&'a [u8]> {
    let value = trim_start(trim_start(pair).strip_prefix(name)?).strip_prefix(b"=")?;
    let value = trim(value);
    Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
}

/// A header field's value as an id: not empty.
pub(super) fn header_id(value: &[u8]) -> Option<&[u8]> {
    Some(trim(value)).filter(|id| !id.is_empty())
}

/// Without the whitespace (SP and HTAB, RFC 9110 §5.6.3) at either end.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let mut text = trim_start(text);
    while let [inner @ .., b' ' | b'\t'] = text {
        text = inner;
    }
    text
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', inner @ ..] = text {
        text = inner;
    }
    text
}

/// The token of RFC 6750 §2.1 credentials; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer_token(credentials: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = trim_start(credentials).split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) || !token.starts_with(b" ") {
        return None;
    }
    header_id(token)
}

const SCHEME: &[u8] = b"bearer";

// Name spaces of keys that are no session ids; part of every such key, so never to be renumbered.
const BEARER: u8 = 1;
const ADDRESS: u8 = 2;
pub(super) const ISSUED: u8 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Request {
        cookies: Vec<Vec<u8>>,
        headers: Vec<(&'static str, Vec<u8>)>,
        client: Option<IpAddr>,
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
        };
        for (source, id) in [
            (cookie("session"), "abc"),
            (KeySource::Header("x-session".into()), " abc "),
            (KeySource::Bearer, "abc"),
            (address, "192.0.2.200"),
        ] {
            let found = Keys::find(std::slice::from_ref(&source), &hasher(), &request);
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
        Keys::find(&[cookie("session")], &hasher(), &request)
    }

    fn in_header(source: KeySource, name: &'static str, value: &str) -> Keys {
        let request = Request { headers: vec![(name, value.into())], ..Request::default() };
        Keys::find(&[source], &hasher(), &request)
    }

    fn at_address(v4: u8, v6: u8, client: &str) -> SessionKey {
        let request = Request { client: Some(client.parse().unwrap()), ..Request::default() };
        let keys = Keys::find(&[KeySource::Address { v4, v6 }], &hasher(), &request);
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
    fn only_the_first_eight_values_are_tried() {
        let field: String = (0..12).map(|n| format!("session={n};session={n};")).collect();
        let keys = in_cookies(&[&field]);
        assert_eq!(keys.as_slice(), keys_of(&["0", "1", "2", "3", "4", "5", "6", "7"]));
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
        let keys = Keys::find(&sources, &hasher(), &request);
        assert_eq!((keys.as_slice(), keys.source()), (&*keys_of(&["a"]), Some(2)));
        assert!(!keys.is_client_made());
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
            expected.truncate(Keys::MAX);
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
            let request = Request { cookies, headers, client: Some(client) };
            for at in 0..sources.len() {
                let keys = Keys::find(&sources[at..], &hasher(), &request);
                prop_assert!(keys.as_slice().len() <= Keys::MAX && !keys.is_empty());
            }
        }
    }
}
