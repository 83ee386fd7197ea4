//! Notices that a pool's key fits nothing: no response sets the cookie that is looked for.
//!
//! Until a response has set an id, each response is counted, and what other cookies responses set is remembered by
//! name. After that only responses with a Set-Cookie field are looked at. Names come from backends, so they are taken
//! only if they are tokens, at most [`NAME`] bytes, and at most [`STRANGERS`] of them.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    session_id::{cut, header_id, trim, unquoted},
    set_cookie::Answerer,
    settings::KeySource,
    sources::KeySources,
};

/// What responses of one pool set; shared by every worker, kept by every reload.
#[derive(Debug)]
pub struct Watch {
    /// A bit for each source that a response has set. Written by requests.
    learned: AtomicU64,
    /// Responses that set an id, by source.
    set: [AtomicU64; KeySources::MAX],
    /// Responses seen before the first that set one; [`ENOUGH`] at most.
    responses: AtomicU64,
    /// WebSockets among them.
    websockets: AtomicU64,
    /// Other cookies of those responses. Never waited for by requests.
    strangers: Mutex<Vec<Stranger>>,
    /// The sources that the numbers belong to.
    sources: Mutex<KeySources>,
}

/// A cookie that responses set and no key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its name: a token.
    pub name: String,
    /// How many responses have set it.
    pub count: u64,
    /// How much it resembles a session's: HttpOnly, its name, the length of its value.
    likeness: u8,
}

/// What a [`Watch`] has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The sources that responses have set, with how many did.
    pub set: Vec<(KeySource, u64)>,
    /// Responses without an id, if none has set one.
    pub responses: u64,
    /// WebSockets among them.
    pub websockets: u64,
    /// The cookie that is most likely the session's, if none of the sources is.
    pub stranger: Option<Stranger>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            learned: AtomicU64::new(0),
            set: std::array::from_fn(|_| AtomicU64::new(0)),
            responses: AtomicU64::new(0),
            websockets: AtomicU64::new(0),
            strangers: Mutex::default(),
            sources: Mutex::default(),
        }
    }

    /// From now on, these are the sources. Begins to count again unless they were before.
    pub fn follow(&self, sources: &KeySources) {
        let mut current = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != *sources {
            *current = sources.clone();
            self.learned.store(0, Relaxed);
            self.set
                .iter()
                .chain([&self.responses, &self.websockets])
                .for_each(|count| count.store(0, Relaxed));
            self.strangers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// A bit for each source that a response has set.
    pub fn learned(&self) -> u64 {
        self.learned.load(Relaxed)
    }

    /// Looks at a response to a request that might have begun a session.
    pub fn observe(&self, sources: &KeySources, answer: &impl Answerer) {
        let learned = self.learned();
        for field in answer.set_cookies() {
            let (pair, attributes) = cut(field);
            match sources.cookie_in(pair) {
                Some((_, [])) => {}
                Some((source, _)) => self.was_set(source),
                None if learned == 0 => self.meet(pair, attributes),
                None => {}
            }
        }
        if learned == 0 {
            for (at, source) in sources.iter().enumerate() {
                if let KeySource::Header(name) = source
                    && answer.header(name).and_then(header_id).is_some()
                {
                    self.was_set(at);
                }
            }
            if answer.status() < 400 && self.responses.load(Relaxed) < ENOUGH {
                self.responses.fetch_add(1, Relaxed);
                self.websockets.fetch_add(u64::from(answer.status() == 101), Relaxed);
            }
        }
    }

    /// What there is to tell.
    pub fn seen(&self) -> Seen {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = self.learned();
        let bits = 0..KeySources::MAX;
        let set = sources.iter().zip(bits).filter(|(_, at)| learned >> at & 1 == 1);
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        strangers.sort_by_key(|stranger| (stranger.likeness, stranger.count));
        Seen {
            set: set.map(|(source, at)| (source.clone(), self.set[at].load(Relaxed))).collect(),
            responses: self.responses.load(Relaxed),
            websockets: self.websockets.load(Relaxed),
            stranger: strangers.pop().filter(|_| learned == 0),
        }
    }

    fn was_set(&self, source: usize) {
        if let Some(count) = self.set.get(source) {
            count.fetch_add(1, Relaxed);
            if self.learned() >> source & 1 == 0 {
                self.learned.fetch_or(1 << source, Relaxed);
            }
        }
    }

    /// A cookie that no key names.
    fn meet(&self, pair: &[u8], attributes: Option<&[u8]>) {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { return };
        let (name, value) = (trim(&pair[..equals]), unquoted(trim(&pair[equals + 1..])));
        let Some(name) = token(name) else { return };
        // Too short to be hard to guess, or gone at once.
        if value.len() < 8 || is_no_session(name) {
            return;
        }
        let http_only = attributes.into_iter().flat_map(|text| text.split(|&byte| byte == b';'));
        let http_only = http_only.map(trim).any(|attribute| attribute.eq_ignore_ascii_case(b"httponly"));
        let lower = name.to_ascii_lowercase();
        let called = lower.contains("sess") || lower.contains("sid");
        let likeness = u8::from(http_only) * 2 + u8::from(called) * 2 + u8::from(value.len() >= 16);
        // One response less does not matter.
        let Ok(mut strangers) = self.strangers.try_lock() else { return };
        if let Some(stranger) = strangers.iter_mut().find(|stranger| stranger.name == name) {
            stranger.count = stranger.count.saturating_add(1);
        } else if strangers.len() < STRANGERS {
            strangers.push(Stranger { name: name.to_owned(), count: 1, likeness });
        }
    }
}

fn token(name: &[u8]) -> Option<&str> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let fits = (1..=NAME).contains(&name.len()) && name.iter().all(is_token);
    std::str::from_utf8(name).ok().filter(|_| fits)
}

/// Cookies of frameworks, analytics and edges that are never a session's id.
fn is_no_session(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["csrf", "xsrf", "locale", "lang", "theme", "consent", "flash", "tz", "timezone", "remember"]
        .iter()
        .any(|part| lower.contains(part))
        || ["_ga", "_gid", "__cf", "cf_", "_fbp", "awsalb", "ai_", "utm"]
            .iter()
            .any(|start| lower.starts_with(start))
}

/// Responses after which it says something that none has set an id.
pub const ENOUGH: u64 = 48;
const STRANGERS: usize = 8;
const NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    struct Response(Vec<String>, u16);

    impl Answerer for Response {
        fn set_cookies(&self) -> impl Iterator<Item = &[u8]> {
            self.0.iter().map(String::as_bytes)
        }

        fn header(&self, _: &str) -> Option<&[u8]> {
            None
        }

        fn status(&self) -> u16 {
            self.1
        }
    }

    fn watching(sources: &KeySources) -> Watch {
        let watch = Watch::new();
        watch.follow(sources);
        watch
    }

    fn session() -> KeySources {
        vec![KeySource::Cookie("session".into())].into()
    }

    fn told(fields: &[&str]) -> Response {
        Response(fields.iter().map(|field| (*field).to_owned()).collect(), 200)
    }

    #[test]
    fn the_cookie_most_like_a_session_is_named_however_often_others_are_set() {
        let watch = watching(&session());
        for _ in 0..5 {
            watch
                .observe(&session(), &told(&["_ga=GA1.2.123456789", "csrftoken=0123456789abcdef; HttpOnly"]));
            watch.observe(&session(), &told(&["cart=0123456789abcdef0123"]));
        }
        watch.observe(&session(), &told(&["SHOPSESSID=0123456789abcdef; Path=/; HTTPOnly"]));
        let seen = watch.seen();
        assert_eq!(
            seen.stranger.map(|stranger| (stranger.name, stranger.count)),
            Some(("SHOPSESSID".into(), 1))
        );
        assert_eq!((seen.responses, seen.set.len()), (11, 0));
    }

    #[test]
    fn names_that_are_no_tokens_or_too_many_are_not_remembered() {
        let watch = watching(&session());
        let long = format!("{}=0123456789abcdef", "x".repeat(65));
        for field in ["a\u{7}b=0123456789abcdef", "é=0123456789abcdef", "=0123456789abcdef", &long, "x=1"] {
            watch.observe(&session(), &told(&[field]));
        }
        assert_eq!(watch.seen().stranger, None);
        for n in 0..100 {
            watch.observe(&session(), &told(&[&format!("name{n}=0123456789abcdef")]));
        }
        assert_eq!(watch.strangers.lock().unwrap().len(), STRANGERS);
    }

    #[test]
    fn nothing_is_counted_once_an_id_was_set() {
        let watch = watching(&session());
        watch.observe(&session(), &told(&["session=a; HttpOnly"]));
        watch.observe(&session(), &told(&["session="]));
        watch.observe(&session(), &told(&["OTHERSESSID=0123456789abcdef; HttpOnly"]));
        let seen = watch.seen();
        assert_eq!(seen.set, [(KeySource::Cookie("session".into()), 1)]);
        assert_eq!((seen.stranger, watch.learned()), (None, 1));
    }

    #[test]
    fn responses_are_counted_up_to_what_is_enough() {
        let watch = watching(&session());
        for _ in 0..ENOUGH * 2 {
            watch.observe(&session(), &Response(Vec::new(), 101));
            watch.observe(&session(), &Response(Vec::new(), 500));
        }
        assert_eq!((watch.seen().responses, watch.seen().websockets), (ENOUGH, ENOUGH));
    }

    #[test]
    fn a_reload_begins_to_count_again_only_with_other_keys() {
        let watch = watching(&session());
        watch.observe(&session(), &told(&["session=a"]));
        watch.follow(&session());
        assert_eq!(watch.learned(), 1);
        watch.follow(&KeySources::well_known());
        assert_eq!((watch.learned(), watch.seen().responses), (0, 0));
    }
}
