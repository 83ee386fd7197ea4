//! A browser's cookies of one name, as RFC 6265 §5.2 to §5.4 has them, written down plainly. That a cookie is the host's only
//! belongs to its identity, as in RFC 6265bis §5.7.

use std::time::Duration;

/// Where a browser keeps a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) host_only: bool,
    pub(crate) domain: String,
    pub(crate) path: String,
}

/// A Set-Cookie field as a browser reads it.
#[derive(Clone, Debug)]
pub(crate) struct SetCookie {
    pub(crate) value: String,
    pub(crate) place: Place,
    pub(crate) max_age: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cookie {
    pub(crate) value: String,
    pub(crate) place: Place,
    created: u64,
    /// The tick at which the browser throws it away.
    expires: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Jar {
    cookies: Vec<Cookie>,
    made: u64,
}

const TICKS_PER_SECOND: u32 = 10;

impl SetCookie {
    /// What a response to a request for this host and path says.
    pub(crate) fn read(text: &str, host: &str, path: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let value = parts.next().and_then(|pair| pair.split_once('=')).expect("a pair").1;
        let mut read = Self {
            value: value.to_owned(),
            place: Place { host_only: true, domain: host.to_owned(), path: default_path(path).to_owned() },
            max_age: None,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.to_ascii_lowercase().as_str() {
                "domain" => {
                    let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
                    (read.place.host_only, read.place.domain) = (false, domain);
                }
                "path" if value.starts_with('/') => value.clone_into(&mut read.place.path),
                "max-age" => read.max_age = Some(value.parse().expect("a number")),
                _ => {}
            }
        }
        read
    }

    /// Whether it takes the cookie away.
    pub(crate) fn deletes(&self) -> bool {
        self.max_age == Some(0)
    }

    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.max_age.map(Duration::from_secs)
    }
}

impl Place {
    /// Attributes of a Set-Cookie field for this place.
    pub(crate) fn attributes(&self) -> String {
        match self.host_only {
            true => format!("Path={}", self.path),
            false => format!("Domain={}; Path={}", self.domain, self.path),
        }
    }

    fn is_sent_to(&self, host: &str, path: &str) -> bool {
        let host_fits = match self.host_only {
            true => host == self.domain,
            false => domain_match(host, &self.domain),
        };
        host_fits && path_match(path, &self.path)
    }
}

impl Jar {
    /// Takes up what a response to a request for this host says (§5.3); whether the browser heeds it.
    pub(crate) fn store(&mut self, set: &SetCookie, host: &str, now: u32) -> bool {
        if !set.place.host_only && !domain_match(host, &set.place.domain) {
            return false;
        }
        let had = self.cookies.iter().position(|cookie| cookie.place == set.place);
        let created = match had.map(|at| self.cookies.remove(at)) {
            Some(had) => had.created,
            None => self.made,
        };
        self.made += 1;
        if !set.deletes() {
            let expires = set.max_age.map(|age| now + u32::try_from(age).expect("short") * TICKS_PER_SECOND);
            let (value, place) = (set.value.clone(), set.place.clone());
            self.cookies.push(Cookie { value, place, created, expires });
        }
        true
    }

    /// The cookies of a request, in order (§5.4).
    pub(crate) fn sent(&self, host: &str, path: &str, now: u32) -> Vec<Cookie> {
        let lasts = |cookie: &&Cookie| cookie.expires.is_none_or(|expires| expires > now);
        let mut sent: Vec<Cookie> = self
            .cookies
            .iter()
            .filter(lasts)
            .filter(|cookie| cookie.place.is_sent_to(host, path))
            .cloned()
            .collect();
        sent.sort_by_key(|cookie| (std::cmp::Reverse(cookie.place.path.len()), cookie.created));
        sent
    }

    /// All it holds.
    pub(crate) fn all(&self) -> &[Cookie] {
        &self.cookies
    }
}

/// §5.1.3; no host here is an address.
fn domain_match(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// §5.1.4.
fn path_match(path: &str, cookie: &str) -> bool {
    let rest = path.strip_prefix(cookie);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie.ends_with('/'))
}

/// §5.1.4.
fn default_path(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}
