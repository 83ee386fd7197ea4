//! What a response says about sessions.

use std::time::Duration;

use super::{
    cookie_date,
    key::{KeyHasher, SessionKey},
    scope::{Attributes, Scope, Target},
    session_id::{cut, header_id, trim, value_if_named},
    settings::KeySource,
};

/// One thing that a response says about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// From now on the client carries this key in this scope.
    Set {
        /// The key.
        key: SessionKey,
        /// Where the client keeps it.
        scope: Scope,
        /// How long the client keeps it, by its Max-Age or Expires: more than nothing. `None` when
        /// the response does not say.
        lasts: Option<Duration>,
    },
    /// The client carries no key in this scope any more: its session ends.
    Deleted {
        /// Where the client kept it.
        scope: Scope,
    },
}

/// Everything that a response says about sessions, at most one [`Effect`] for each scope and
/// [`Effects::MAX`] in all, in the order of the response. Most responses say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    list: [Option<Effect>; Self::MAX],
    len: usize,
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

/// What was asked, as far as it matters for the response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Which of the pool's key sources the request's keys came from.
    pub carried: Option<usize>,
    /// The request's method.
    pub method: &'a str,
    /// The request's host and path.
    pub target: Target<'a>,
    /// The time in seconds since 1970, for Expires when the response has no Date.
    pub wall_unix: i64,
}

// === impl Effects ===

impl Effects {
    /// Scopes of one response that are read. More cookies of one name than this are of no use to anybody.
    pub const MAX: usize = 4;
    /// Sessions go on as they are.
    pub const SILENT: Self = Self { list: [None; Self::MAX], len: 0 };

    /// One session begins, whose id is kept in no cookie of the application's.
    pub fn begins(key: SessionKey) -> Self {
        Self::from(Effect::Set { key, scope: Scope::WHOLE, lasts: None })
    }

    /// Reads a response.
    ///
    /// Sources are read in their order, up to the carried one if the response leaves that alone. A carried cookie goes
    /// on to be presented first, but the cookies behind it may be another application's, and outlive it: what a response
    /// says of those counts, too, each for the session of its own scope.
    pub fn of(
        sources: &[KeySource],
        hasher: &KeyHasher,
        exchange: &Exchange<'_>,
        answer: &impl Answerer,
    ) -> Self {
        let mut all = Self::SILENT;
        let sets_cookies = answer.set_cookies().next().is_some();
        for (at, source) in sources.iter().enumerate() {
            let is_carried = exchange.carried == Some(at);
            let effects = match source {
                // Most responses, however many cookies are looked for.
                KeySource::Cookie(_) if !sets_cookies => Self::SILENT,
                KeySource::Cookie(name) => of_cookie(name, hasher, exchange, answer),
                KeySource::Header(_) if is_carried && ends_by_status(exchange.method, answer.status()) => {
                    Self::from(Effect::Deleted { scope: Scope::WHOLE })
                }
                KeySource::Header(name) => of_header(name, hasher, answer),
                KeySource::Query(_)
                | KeySource::PathParameter(_)
                | KeySource::Bearer
                | KeySource::Address { .. } => Self::SILENT,
            };
            let silent = effects.is_silent();
            let sets = effects.iter().any(|effect| matches!(effect, Effect::Set { .. }));
            if sets || is_carried {
                effects.iter().for_each(|effect| all.add(effect));
            }
            if silent && is_carried {
                let beside = sources[at..].iter().map_while(KeySource::cookie).skip(1);
                let names = beside.filter(|_| sets_cookies);
                let effects = names.map(|name| of_cookie(name, hasher, exchange, answer));
                effects.for_each(|effects| effects.iter().for_each(|effect| all.add(effect)));
            }
            if sets || (silent && is_carried) {
                break;
            }
        }
        all
    }

    /// Whether the response says nothing.
    pub fn is_silent(&self) -> bool {
        self.len == 0
    }

    /// What it says, in its order.
    pub fn iter(&self) -> impl Iterator<Item = Effect> {
        self.list.into_iter().take(self.len).flatten()
    }

    /// What is said later of one scope counts, as in a browser, which takes the fields in order.
    fn add(&mut self, effect: Effect) {
        if let Some(at) =
            self.list[..self.len].iter().flatten().position(|said| said.scope() == effect.scope())
        {
            self.list[at..self.len].rotate_left(1);
            self.list[self.len - 1] = Some(effect);
        } else if self.len < Self::MAX {
            self.list[self.len] = Some(effect);
            self.len += 1;
        }
    }
}

impl From<Effect> for Effects {
    fn from(effect: Effect) -> Self {
        let mut effects = Self::SILENT;
        effects.add(effect);
        effects
    }
}

// === impl Effect ===

impl Effect {
    /// Where the client keeps the id.
    pub const fn scope(&self) -> Scope {
        match self {
            Self::Set { scope, .. } | Self::Deleted { scope } => *scope,
        }
    }
}

fn of_cookie(name: &str, hasher: &KeyHasher, exchange: &Exchange<'_>, answer: &impl Answerer) -> Effects {
    let mut effects = Effects::SILENT;
    for field in answer.set_cookies() {
        let (pair, attributes) = cut(field);
        if let Some(value) = value_if_named(name.as_bytes(), pair) {
            let (life, attributes) = read_attributes(attributes);
            let scope = Scope::of_cookie(hasher, name, attributes, exchange.target);
            effects.add(match life.left(answer, exchange.wall_unix) {
                _ if value.is_empty() => Effect::Deleted { scope },
                Left::Over => Effect::Deleted { scope },
                Left::Unsaid => Effect::Set { key: hasher.key(value), scope, lasts: None },
                Left::Lasts(time) => Effect::Set { key: hasher.key(value), scope, lasts: Some(time) },
            });
        }
    }
    effects
}

fn of_header(name: &str, hasher: &KeyHasher, answer: &impl Answerer) -> Effects {
    match answer.header(name).and_then(header_id) {
        None => Effects::SILENT,
        Some(id) => Effects::begins(hasher.key(id)),
    }
}

/// How a session that a header names ends: its client deletes it, or its server knows it no more
/// (Model Context Protocol 2025-06-18, "Session Management").
fn ends_by_status(method: &str, status: u16) -> bool {
    status == 404 || (method == "DELETE" && (200..300).contains(&status))
}

/// What a cookie's attributes say about its life.
#[derive(Clone, Copy, Default)]
struct Life {
    max_age: Option<Left>,
    /// Seconds since 1970.
    expires: Option<i64>,
}

/// How long a cookie lives.
#[derive(Clone, Copy)]
enum Left {
    Unsaid,
    Lasts(Duration),
    Over,
}

/// Of several attributes of one name the last one counts, but for Max-Age and Expires the last valid one; one
/// that is not valid is as if it were not there (RFC 6265 §5.2, §5.3).
fn read_attributes(attributes: Option<&[u8]>) -> (Life, Attributes<'_>) {
    let (mut life, mut place) = (Life::default(), Attributes::default());
    let mut rest = attributes;
    while let Some(text) = rest {
        let (attribute, tail) = cut(text);
        rest = tail;
        let equals = attribute.iter().position(|&byte| byte == b'=');
        let (name, value) = attribute.split_at(equals.unwrap_or(attribute.len()));
        let (name, value) = (trim(name), trim(value.get(1..).unwrap_or_default()));
        if name.eq_ignore_ascii_case(b"max-age") {
            life.max_age = Left::of_max_age(value).or(life.max_age);
        } else if name.eq_ignore_ascii_case(b"expires") {
            life.expires = cookie_date::parse(value).or(life.expires);
        } else if name.eq_ignore_ascii_case(b"domain") {
            place.domain = Some(value);
        } else if name.eq_ignore_ascii_case(b"path") {
            place.path = Some(value);
        }
    }
    (life, place)
}

// === impl Life ===

impl Life {
    /// Max-Age wins over Expires. Browsers take Expires for a time of the server's clock, which its Date
    /// field tells (RFC 9110 §6.6.1); `wall_unix` stands in for that.
    fn left(self, answer: &impl Answerer, wall_unix: i64) -> Left {
        if let Some(left) = self.max_age {
            return left;
        }
        let Some(expires) = self.expires else { return Left::Unsaid };
        let date = answer.header("date").and_then(cookie_date::parse);
        Left::of_seconds(expires.saturating_sub(date.unwrap_or(wall_unix)))
    }
}

// === impl Left ===

impl Left {
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
#[path = "set_cookie/tests.rs"]
mod tests;
