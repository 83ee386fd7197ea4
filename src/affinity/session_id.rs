//! Where a request carries its session id.

use std::{fmt, net::IpAddr};

use memchr::memchr;

use super::{
    key::{KeyHasher, SessionKey},
    settings::KeySource,
    sources::KeySources,
    target_id,
};

/// What the core may look at of a request; borrowed bytes only.
pub trait Carrier {
    /// The values of the Cookie fields, in order. HTTP/2 clients may split the field (RFC 9113 §8.2.3).
    fn cookies(&self) -> impl Iterator<Item = &[u8]>;
    /// The first value of a header field (lower-case name).
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The client's address (as believed after trusted proxies); none when they do not tell it.
    fn client(&self) -> Option<IpAddr>;
    /// The path of its target, as it was sent.
    fn path(&self) -> &str {
        ""
    }
    /// The query of its target, as it was sent.
    fn query(&self) -> Option<&str> {
        None
    }
}

/// The keys a request carries, at most [`Keys::MAX`], in the order in which they are tried; repeated
/// values once. The first one that leads to a session counts.
#[derive(Clone)]
pub struct Keys {
    keys: [SessionKey; Self::MAX],
    /// The number of the source of each.
    sources: [u8; Self::MAX],
    len: usize,
    /// No source has the keys: the proxy's own cookie has.
    issued: bool,
    client_made: bool,
    in_target: bool,
}

/// Cookies of one request that may be ids, in the order in which they are tried.
#[derive(Default)]
struct Cookies<'a> {
    list: [(u8, &'a [u8]); Keys::MAX],
    len: usize,
}

// === impl Keys ===

impl Keys {
    /// As many as are tried. A client sends several cookies of one name when they differ in path or
    /// domain; more than a few are an attack on the table's lookups. Of more, those in the middle are left out: a
    /// client sends the cookies of the longest paths first and those of `/` last (RFC 6265 §5.4).
    pub const MAX: usize = 16;

    /// What the sources yield. Never allocates unless an id in the target is percent-encoded.
    pub fn find(sources: &KeySources, hasher: &KeyHasher, carrier: &impl Carrier) -> Self {
        Self::find_preferring(0, sources, hasher, carrier)
    }

    /// What the sources yield: ids out of the first one that has any, but for
    ///
    /// - cookies: those of other names in the list follow, first of all the sources that responses have set (a bit of
    ///   `set` for each). A browser also sends what other applications of the same host set, and a cookie that this
    ///   one never sets is none of its sessions, unless nothing better is there.
    /// - the target: responses do not tell which ids they put there, so that an unknown one is nothing unusual, and
    ///   what later sources know counts.
    pub fn find_preferring(
        set: u64,
        sources: &KeySources,
        hasher: &KeyHasher,
        carrier: &impl Carrier,
    ) -> Self {
        let mut keys = Self::default();
        let mut cookies = None;
        // Until this source, cookies have been read.
        let mut read = 0;
        let mut solid = false;
        for (at, source) in sources.iter().enumerate() {
            if at < read || (solid && !source.is_in_target()) {
                continue;
            }
            let client_made = keys.is_empty() && source.is_client_made();
            if let KeySource::Cookie(_) = source {
                read = at + sources[at..].iter().take_while(|source| source.cookie().is_some()).count();
                let cookies = cookies.get_or_insert_with(|| Cookies::read(set, sources, carrier));
                for &(number, id) in &cookies.list[..cookies.len] {
                    if (at..read).contains(&number.into()) {
                        keys.insert(hasher.key(id), number.into());
                    }
                }
            } else {
                keys.read(at, source, hasher, carrier);
            }
            solid |= !keys.is_empty() && !source.is_in_target();
            if keys.len > 0 && client_made {
                keys.client_made = true;
            }
        }
        keys.in_target = keys.source().is_some_and(|first| sources[first].is_in_target());
        keys
    }

    /// The key of a session that the proxy itself began, found by none of the sources.
    pub fn issued(key: SessionKey) -> Self {
        let mut keys = Self { issued: true, ..Self::default() };
        keys.insert(key, 0);
        keys
    }

    #[cfg(test)]
    pub(super) fn of(keys: &[SessionKey]) -> Self {
        let mut found = Self::default();
        keys.iter().for_each(|&key| found.insert(key, 0));
        found
    }

    #[cfg(test)]
    pub(super) fn in_target(keys: &[SessionKey]) -> Self {
        Self { in_target: true, ..Self::of(keys) }
    }

    #[cfg(test)]
    pub(super) fn from_sources(keys: &[(SessionKey, usize)]) -> Self {
        let mut found = Self::default();
        keys.iter().for_each(|&(key, source)| found.insert(key, source));
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

    /// Which of the pool's key sources the first key came from.
    pub fn source(&self) -> Option<usize> {
        (self.len > 0 && !self.issued).then(|| self.sources[0].into())
    }

    /// The keys, each with the number of its source.
    pub(super) fn with_sources(&self) -> impl Iterator<Item = (SessionKey, usize)> {
        self.as_slice().iter().zip(self.sources).map(|(&key, source)| (key, source.into()))
    }

    /// Whether the client rather than the application chose this key (see
    /// [`KeySource::is_client_made`]).
    pub fn is_client_made(&self) -> bool {
        self.client_made
    }

    /// Whether the id is in the request's target, where an application puts it by what a body says: no response
    /// was seen to set it.
    pub fn are_in_target(&self) -> bool {
        self.in_target
    }

    /// Whether the request carries more than one distinct value of one source, so that only the table can tell
    /// which is meant.
    pub fn ambiguous(&self) -> bool {
        self.sources[..self.len].windows(2).any(|two| two[0] == two[1])
    }

    fn read(&mut self, at: usize, source: &KeySource, hasher: &KeyHasher, carrier: &impl Carrier) {
        match source {
            KeySource::Cookie(_) => {}
            KeySource::Header(name) => {
                if let Some(id) = carrier.header(name).and_then(header_id) {
                    self.insert(hasher.key(id), at);
                }
            }
            KeySource::Query(name) => {
                let ids = carrier.query().into_iter().flat_map(|query| target_id::in_query(name, query));
                ids.filter(|id| !id.is_empty())
                    .take(Self::MAX)
                    .for_each(|id| self.insert(hasher.key(&id), at));
            }
            KeySource::PathParameter(name) => {
                let ids = target_id::in_path(name, carrier.path());
                ids.filter(|id| !id.is_empty())
                    .take(Self::MAX)
                    .for_each(|id| self.insert(hasher.key(&id), at));
            }
            KeySource::Bearer => {
                if let Some(token) = carrier.header("authorization").and_then(bearer_token) {
                    self.insert(hasher.tagged(BEARER, token), at);
                }
            }
            KeySource::Address { v4, v6 } => {
                if let Some(client) = carrier.client() {
                    self.insert(address_key(hasher, client, *v4, *v6), at);
                }
            }
        }
    }

    fn insert(&mut self, key: SessionKey, source: usize) {
        if self.len < Self::MAX && !self.as_slice().contains(&key) {
            self.keys[self.len] = key;
            self.sources[self.len] = u8::try_from(source).unwrap_or(u8::MAX);
            self.len += 1;
        }
    }
}

// === impl Cookies ===

impl<'a> Cookies<'a> {
    /// One pass over the Cookie fields, whatever the number of sources. Follows RFC 6265 §4.2 and §5.4 the way
    /// servers do: whitespace around names and values is no part of them, nor are quotes around a value.
    fn read(set: u64, sources: &KeySources, carrier: &'a impl Carrier) -> Self {
        let mut found = Self::default();
        for field in carrier.cookies() {
            let mut rest = Some(field);
            while let Some(text) = rest {
                let (pair, tail) = cut(text);
                rest = tail;
                if let Some((source, id)) = sources.cookie_in(pair)
                    && !id.is_empty()
                    && let Ok(source) = u8::try_from(source)
                {
                    found.insert(set, source, id);
                }
            }
        }
        found
    }

    /// Behind those that are tried before it; the last one makes room where there is none.
    fn insert(&mut self, set: u64, source: u8, id: &'a [u8]) {
        let rank = |source: u8| (set.checked_shr(source.into()).unwrap_or(0) & 1 == 0, source);
        let list = &self.list[..self.len];
        let at = list.iter().position(|(other, _)| rank(*other) > rank(source)).unwrap_or(self.len);
        // The same id under two names is one key: the better place counts.
        if list[..at].iter().any(|(_, other)| *other == id) {
            return;
        }
        if at == Keys::MAX {
            let first = list.iter().position(|(other, _)| *other == source).unwrap_or(at);
            let middle = first + (at - first) / 2;
            if middle < at {
                self.list.copy_within(middle + 1.., middle);
                self.list[at - 1] = (source, id);
            }
            return;
        }
        let last = self.len.min(Keys::MAX - 1);
        self.list.copy_within(at..last, at + 1);
        self.list[at] = (source, id);
        self.len = last + 1;
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            keys: [SessionKey::from_words([0; 4]); Self::MAX],
            sources: [0; Self::MAX],
            len: 0,
            issued: false,
            client_made: false,
            in_target: false,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("keys", &self.as_slice())
            .field("sources", &&self.sources[..self.len])
            .field("client_made", &self.client_made)
            .finish()
    }
}

// === impl KeySource ===

impl KeySource {
    /// The name of the cookie, if it is one.
    pub(super) fn cookie(&self) -> Option<&str> {
        match self {
            Self::Cookie(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the id stands in the request's target.
    pub fn is_in_target(&self) -> bool {
        matches!(self, Self::Query(_) | Self::PathParameter(_))
    }

    /// Whether the client alone makes this key: no response will ever set, confirm or delete it.
    pub fn is_client_made(&self) -> bool {
        matches!(self, Self::Bearer | Self::Address { .. })
    }

    /// The key of an id that an operator gives: the value of the cookie or header field, the token, or the
    /// address. None when it cannot be one.
    pub fn key_of(&self, hasher: &KeyHasher, id: &[u8]) -> Option<SessionKey> {
        let id = trim(id);
        match self {
            Self::Cookie(_) | Self::Query(_) | Self::PathParameter(_) => {
                (!id.is_empty()).then(|| hasher.key(id))
            }
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
    Some(unquoted(trim(value)))
}

/// A cookie's value without the quotes around it.
pub(super) fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value)
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

pub(super) fn trim_start(mut text: &[u8]) -> &[u8] {
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
mod tests;
