//! The list of places where a pool looks for session ids.

use std::ops::Deref;

use memchr::memchr;

use super::{
    session_id::{trim, trim_start, unquoted},
    settings::KeySource,
};

/// Key sources in the order of precedence, prepared so that the Cookie field is read once however many of them
/// are cookies.
#[derive(Clone, Debug, Default)]
pub struct KeySources {
    list: Vec<KeySource>,
    /// First bytes of the cookies' names (bit `byte % 128`), and [shapes](shape): nearly every other cookie is told
    /// apart by one of them.
    starts: u128,
    shapes: u128,
}

// === impl KeySources ===

impl KeySources {
    /// Sources that one list may have. The number of a source fits a bit of a `u64`.
    pub const MAX: usize = 64;

    /// What a pool reads that configures no key: the session cookies of frameworks and application servers, as
    /// they are called when nothing else is configured.
    pub fn well_known() -> Self {
        WELL_KNOWN.iter().map(|name| KeySource::Cookie((*name).into())).collect::<Vec<_>>().into()
    }

    /// Whether no key is configured.
    pub fn are_well_known(&self) -> bool {
        let names = WELL_KNOWN.iter().copied();
        self.list.len() == WELL_KNOWN.len()
            && self.list.iter().zip(names).all(|(source, name)| source.cookie() == Some(name))
    }

    /// Whether responses set the ids, all of them: then one that never does may be a mistake.
    pub fn are_set_by_responses(&self) -> bool {
        !self.list.is_empty()
            && self.list.iter().all(|source| matches!(source, KeySource::Cookie(_) | KeySource::Header(_)))
    }

    /// The number of the source whose cookie this is, and the cookie's value; `pair` is `name=value` out of a
    /// Cookie or Set-Cookie field.
    pub(super) fn cookie_in<'a>(&self, pair: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let pair = trim_start(pair);
        let start = 1_u128 << (pair.first()? % 128);
        if self.starts & start == 0 {
            return None;
        }
        let equals = memchr(b'=', pair)?;
        let name = trim(&pair[..equals]);
        if self.shapes & shape(name) == 0 {
            return None;
        }
        let named = |source: &KeySource| source.cookie().is_some_and(|cookie| cookie.as_bytes() == name);
        let at = self.list.iter().position(named)?;
        Some((at, unquoted(trim(&pair[equals + 1..]))))
    }
}

impl From<Vec<KeySource>> for KeySources {
    fn from(list: Vec<KeySource>) -> Self {
        let names = || list.iter().filter_map(KeySource::cookie).map(str::as_bytes);
        let starts = names().filter_map(<[u8]>::first).fold(0, |starts, byte| starts | 1 << (byte % 128));
        let shapes = names().fold(0, |shapes, name| shapes | shape(name));
        Self { list, starts, shapes }
    }
}

impl Deref for KeySources {
    type Target = [KeySource];

    fn deref(&self) -> &[KeySource] {
        &self.list
    }
}

impl PartialEq for KeySources {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

/// A bit for the first byte and the length together.
fn shape(name: &[u8]) -> u128 {
    let first = name.first().copied().unwrap_or_default();
    1 << ((usize::from(first) + 31 * name.len()) % 128)
}

/// In the order of precedence. Left out: names that other things than sessions have as well (`sid`, `token`), names
/// that contain the application's (Rails, Phoenix, Drupal), and cookies that prove who somebody is but lead to no
/// state (`.AspNetCore.Cookies`, `JSESSIONIDSSO`).
const WELL_KNOWN: [&str; 20] = [
    // Flask, Starlette, gorilla, scs, and what this list was before.
    "session",
    // Servlets: Tomcat, Jetty, Undertow, WebLogic.
    "JSESSIONID",
    "PHPSESSID",
    // express-session, connect.
    "connect.sid",
    // Django.
    "sessionid",
    "ASP.NET_SessionId",
    ".AspNetCore.Session",
    // Laravel, before and since version 12.
    "laravel_session",
    "laravel-session",
    // Rails and Sinatra.
    "_session_id",
    "rack.session",
    // Spring Session.
    "SESSION",
    // CodeIgniter, CakePHP.
    "ci_session",
    "CAKEPHP",
    // Koa, Sails, Fastify.
    "koa.sess",
    "sails.sid",
    "sessionId",
    // Odoo, CherryPy.
    "session_id",
    // Play.
    "PLAY_SESSION",
    // CGI::Session.
    "CGISESSID",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_well_known_cookie_is_found_by_its_name() {
        let sources = KeySources::well_known();
        for (at, name) in WELL_KNOWN.iter().enumerate() {
            for pair in [format!("{name}=a"), format!(" {name} = \"a\" ")] {
                assert_eq!(sources.cookie_in(pair.as_bytes()), Some((at, &b"a"[..])), "{pair}");
            }
        }
        assert!(sources.are_well_known() && sources.are_set_by_responses());
    }

    #[test]
    fn names_that_only_resemble_a_well_known_one_are_not_found() {
        let sources = KeySources::well_known();
        for pair in [
            "Session=a",
            "sessio=a",
            "sessions=a",
            "PHPSESSID",
            "=a",
            "",
            "_ga=a",
            "csrftoken=a",
            "jsessionid=a",
        ] {
            assert_eq!(sources.cookie_in(pair.as_bytes()), None, "{pair}");
        }
    }

    #[test]
    fn a_configured_list_is_not_the_well_known_one() {
        for list in [vec![], vec![KeySource::Cookie("session".into())]] {
            assert!(!KeySources::from(list).are_well_known());
        }
        assert!(
            !KeySources::from(vec![KeySource::Cookie("a".into()), KeySource::Bearer]).are_set_by_responses()
        );
    }
}
