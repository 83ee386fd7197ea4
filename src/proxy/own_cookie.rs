//! The proxy's own cookie on its way: read and taken out of a request, kept from coming out of a backend,
//! set on an answer.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use memchr::memmem;

use super::burst::Burst;
use crate::{
    affinity::{Effects, KeyHasher, Keys, Token, TokenId, value_if_named},
    issue::{self, Issuer},
    world::Pool,
};

/// One request's dealings with its pool's cookie.
#[derive(Debug)]
pub(super) struct OwnCookie<'a> {
    issuer: &'a Issuer,
    brought: Brought,
}

#[derive(Debug)]
enum Brought {
    /// A good token.
    Token(Box<Token>),
    /// None that is good: here is a new session, to be issued with the answer.
    Nothing(TokenId, Duration),
    /// Its path is skipped, or the client would not keep a cookie: nothing is issued.
    Skipped,
}

// === impl OwnCookie ===

impl<'a> OwnCookie<'a> {
    /// Takes the cookie out of a request. None when the pool issues none. `keeps` tells whether the client would keep
    /// a new one; one that is good counts in any case. `burst` is that of the client's
    /// connection, if the connection is one client's.
    pub(super) fn take(
        pool: &'a Pool,
        headers: &mut HeaderMap,
        hasher: &KeyHasher,
        skip: bool,
        keeps: bool,
        burst: Option<&Burst>,
    ) -> Option<Self> {
        let issuer = pool.issuer.as_ref()?;
        let mut token = None;
        let mut tried = 0;
        take_out(headers, issuer.cookie(), |value| {
            if !skip && token.is_none() && tried < Keys::MAX {
                tried += 1;
                token = issuer.open(value, |id| pool.affinity.knows(id.key(hasher)));
            }
        });
        let new = || match burst {
            Some(burst) => burst.session(&pool.affinity),
            None => issue::begin_session(),
        };
        let brought = match token {
            Some(token) => Brought::Token(Box::new(token)),
            None if skip || !keeps => Brought::Skipped,
            None => new().map_or(Brought::Skipped, |(id, born)| Brought::Nothing(id, born)),
        };
        Some(Self { issuer, brought })
    }

    /// The session's key, if the request brought one.
    pub(super) fn keys(&self, hasher: &KeyHasher) -> Keys {
        match &self.brought {
            Brought::Token(token) => Keys::issued(token.id.key(hasher)),
            Brought::Nothing(..) | Brought::Skipped => Keys::default(),
        }
    }

    /// The backend that the session's token names.
    pub(super) fn home(&self) -> Option<&str> {
        match &self.brought {
            Brought::Token(token) => Some(token.backend()),
            Brought::Nothing(..) | Brought::Skipped => None,
        }
    }

    /// What an answer of this status changes: a session begins with the first one that is no failure.
    pub(super) fn effects(&self, hasher: &KeyHasher, status: u16) -> Effects {
        match &self.brought {
            Brought::Nothing(id, _) if status < 500 => Effects::begins(id.key(hasher)),
            _ => Effects::SILENT,
        }
    }

    /// Sets the cookie on an answer by this backend where need be, and removes what the backend says
    /// about it.
    pub(super) fn put(self, headers: &mut HeaderMap, status: u16, backend: &str) {
        keep_out(headers, self.issuer.cookie());
        let (id, born, counter) = match &self.brought {
            Brought::Nothing(id, born) if status < 500 => (id, *born, &self.issuer.metrics().issued),
            Brought::Token(token) => {
                // As in the table: a session moves only when its new backend could do something with it.
                let moved = token.backend() != backend;
                if (moved && status >= 500) || (!moved && !token.due) {
                    return;
                }
                (&token.id, token.born, &self.issuer.metrics().renewed)
            }
            Brought::Nothing(..) | Brought::Skipped => return,
        };
        if let Some(field) = self.issuer.set_cookie(id, born, backend) {
            headers.append(SET_COOKIE, field);
            counter.inc();
        }
    }
}

/// Takes all cookies of this name out of the Cookie fields, and shows `found` their values. What else is in
/// the fields stays as it is, byte for byte; a field that nothing is left of goes.
fn take_out(headers: &mut HeaderMap, name: &str, mut found: impl FnMut(&[u8])) {
    let holds = |field: &HeaderValue| memmem::find(field.as_bytes(), name.as_bytes()).is_some();
    if !headers.get_all(COOKIE).iter().any(holds) {
        return;
    }
    let fields: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for field in fields {
        let mut left = Vec::with_capacity(field.len());
        let mut taken = false;
        for pair in field.as_bytes().split(|&byte| byte == b';') {
            match value_if_named(name.as_bytes(), pair) {
                Some(value) => {
                    found(value);
                    taken = true;
                }
                None if left.is_empty() => left.extend_from_slice(pair),
                None => {
                    left.push(b';');
                    left.extend_from_slice(pair);
                }
            }
        }
        if !taken {
            headers.append(COOKIE, field);
            continue;
        }
        let left = left.trim_ascii_start();
        if !left.is_empty() {
            let field = HeaderValue::from_bytes(left).expect("a part of a field value is one");
            headers.append(COOKIE, field);
        }
    }
}

/// Removes what a backend sets under the name of the proxy's cookie.
fn keep_out(headers: &mut HeaderMap, name: &str) {
    let ours = |field: &HeaderValue| {
        let pair = field.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
        value_if_named(name.as_bytes(), pair).is_some()
    };
    if !headers.get_all(SET_COOKIE).iter().any(ours) {
        return;
    }
    let others: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter(|field| !ours(field)).cloned().collect();
    headers.remove(SET_COOKIE);
    for field in others {
        headers.append(SET_COOKIE, field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "__Host-homing";

    /// What is left of these Cookie fields, and what was found.
    fn taken(fields: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_str(field).unwrap());
        }
        let mut found = Vec::new();
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
        take_out(&mut headers, NAME, |value| found.push(text(value)));
        (headers.get_all(COOKIE).iter().map(|field| text(field.as_bytes())).collect(), found)
    }

    #[test]
    fn the_cookie_is_taken_out_wherever_it_stands_and_others_stay_byte_for_byte() {
        for (field, left) in [
            ("__Host-homing=T", vec![]),
            ("__Host-homing=T; a=1; b=\"x y\"", vec!["a=1; b=\"x y\""]),
            ("a=1; __Host-homing=T;b=2", vec!["a=1;b=2"]),
            ("a=1;  b=2 ; __Host-homing=T", vec!["a=1;  b=2 "]),
            ("a=1;__Host-homing = \"T\" ;", vec!["a=1;"]),
        ] {
            let left: Vec<String> = left.into_iter().map(str::to_owned).collect();
            assert_eq!(taken(&[field]), (left, vec!["T".to_owned()]), "{field}");
        }
    }

    #[test]
    fn every_one_of_several_is_found_in_order_and_taken_out() {
        let (left, found) = taken(&["__Host-homing=1; a=1; __Host-homing=2", "b=2", "__Host-homing=3"]);
        assert_eq!(
            (left, found),
            (vec!["a=1".into(), "b=2".into()], vec!["1".into(), "2".into(), "3".into()])
        );
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for field in [
            "x__Host-homing=T",
            "__Host-homing2=T",
            "a=__Host-homing",
            "a=__Host-homing=T",
            "__host-homing=T",
        ] {
            assert_eq!(taken(&[field]), (vec![field.to_owned()], vec![]));
        }
    }

    #[test]
    fn a_backend_cannot_set_it() {
        let mut headers = HeaderMap::new();
        for field in ["a=1", "__Host-homing=stolen; Path=/", "b=__Host-homing; Path=/", "__Host-homing="] {
            headers.append(SET_COOKIE, HeaderValue::from_static(field));
        }
        keep_out(&mut headers, NAME);
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["a=1", "b=__Host-homing; Path=/"]);
    }
}
