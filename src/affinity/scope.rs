//! Which cookie of a name an id is kept in.
//!
//! A browser keeps two cookies of one name beside each other when their domain or path differ (RFC 6265
//! §5.3 step 11, with the host-only flag as in RFC 6265bis §5.7), and sends both. So a response that sets or
//! deletes a cookie speaks only of the session whose id came in the *same* cookie.

use super::key::KeyHasher;

/// The identity of a cookie (name, domain and whether it is the host's only, path), as far as a binding
/// remembers it: 16 bits of a keyed hash. Two scopes of one client are taken for the same by chance in one of
/// 65,000 cases; then a session is renamed that should not have been, and its old id still leads to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope(u16);

/// The attributes of a Set-Cookie field that say where a browser keeps the cookie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes<'a> {
    /// `Domain`, as it was sent.
    pub(super) domain: Option<&'a [u8]>,
    /// `Path`, as it was sent.
    pub(super) path: Option<&'a [u8]>,
}

/// What a request asked for, as its client knows it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Host that was asked, without a port.
    pub host: &'a [u8],
    /// Path that was asked, without a query.
    pub path: &'a [u8],
}

/// Longest name of a host (RFC 1035 §2.3.4); longer ones are compared as they are.
const MAX_HOST: usize = 255;

// === impl Scope ===

impl Scope {
    /// No response has told it.
    pub const UNKNOWN: Self = Self(0);
    /// The id is kept in no cookie of the application's, and a later one replaces it: a header field, the
    /// proxy's own cookie.
    pub const WHOLE: Self = Self(1);
    /// The id is kept in several cookies, so that none of them says what becomes of the session.
    pub const SEVERAL: Self = Self(2);
    const FIRST: u16 = 3;

    /// The scope of a cookie.
    pub(super) fn of_cookie(
        hasher: &KeyHasher,
        name: &str,
        attributes: Attributes<'_>,
        target: Target<'_>,
    ) -> Self {
        let (only, domain) = match attributes.domain.map(|domain| domain.strip_prefix(b".").unwrap_or(domain))
        {
            None | Some([]) => (b"host", target.host),
            Some(domain) => (b"net.", domain),
        };
        let mut lower = [0; MAX_HOST];
        let domain = match lower.get_mut(..domain.len()) {
            Some(lower) => {
                lower.copy_from_slice(domain);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => domain,
        };
        let path = match attributes.path {
            Some(path @ [b'/', ..]) => path,
            _ => default_path(target.path),
        };
        let hash = hasher.scope(&[name.as_bytes(), only, domain, path]);
        Self(if hash < Self::FIRST { hash + Self::FIRST } else { hash })
    }

    /// Whether a response can speak of this very cookie.
    pub const fn is_known(self) -> bool {
        !matches!(self, Self::UNKNOWN | Self::SEVERAL)
    }

    /// The scope of an id that is kept in this scope, and in another.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::UNKNOWN, scope) | (scope, Self::UNKNOWN) => scope,
            (one, two) if one == two => one,
            _ => Self::SEVERAL,
        }
    }

    /// Its number, the same in every process with the same secret; 0 for an unknown one.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The scope that has this number.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

/// The directory of a path (RFC 6265 §5.1.4).
fn default_path(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at @ 1..) if path[0] == b'/' => &path[..at],
        _ => b"/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(domain: Option<&str>, path: Option<&str>, host: &str, asked: &str) -> Scope {
        let attributes = Attributes { domain: domain.map(str::as_bytes), path: path.map(str::as_bytes) };
        let target = Target { host: host.as_bytes(), path: asked.as_bytes() };
        Scope::of_cookie(&KeyHasher::new([1; 16]), "session", attributes, target)
    }

    #[test]
    fn the_default_path_is_the_directory_of_the_request() {
        for (path, directory) in [
            ("/", "/"),
            ("/a", "/"),
            ("/a/", "/a"),
            ("/a/b", "/a"),
            ("/a/b/c;x", "/a/b"),
            ("", "/"),
            ("*", "/"),
            ("a/b", "/"),
        ] {
            assert_eq!(default_path(path.as_bytes()), directory.as_bytes(), "{path}");
            assert_eq!(
                scope(None, None, "a.test", path),
                scope(None, Some(directory), "a.test", "/x"),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_that_is_none_counts_as_not_there() {
        for path in ["", "shop", "\"/shop\""] {
            assert_eq!(
                scope(None, Some(path), "a.test", "/x/y"),
                scope(None, None, "a.test", "/x/y"),
                "{path}"
            );
        }
    }

    #[test]
    fn another_path_is_another_cookie() {
        let all =
            ["/", "/shop", "/shop/", "/Shop", "/shop/a"].map(|path| scope(None, Some(path), "a.test", "/"));
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one) && one.is_known());
        }
    }

    #[test]
    fn a_domain_is_not_the_host_of_that_name() {
        let host = scope(None, Some("/"), "a.test", "/");
        let domain = scope(Some("a.test"), Some("/"), "a.test", "/");
        assert_ne!(host, domain);
        assert_eq!(scope(Some(""), Some("/"), "a.test", "/"), host);
        for same in [".a.test", "A.Test", ".A.TEST"] {
            assert_eq!(scope(Some(same), Some("/"), "www.a.test", "/"), domain, "{same}");
        }
        assert_eq!(scope(None, Some("/"), "A.TEST", "/"), host);
        assert_ne!(scope(None, Some("/"), "b.test", "/"), host);
    }

    #[test]
    fn hosts_that_are_too_long_are_hosts() {
        let long = "x".repeat(MAX_HOST + 1);
        assert_ne!(scope(None, Some("/"), &long, "/"), scope(None, Some("/"), "x", "/"));
    }

    #[test]
    fn an_id_in_two_cookies_is_in_several_for_good() {
        let (a, b) = (scope(None, Some("/a"), "x", "/"), scope(None, Some("/b"), "x", "/"));
        assert_eq!((a.and(a), Scope::UNKNOWN.and(a), a.and(Scope::UNKNOWN)), (a, a, a));
        assert_eq!((a.and(b), a.and(b).and(a)), (Scope::SEVERAL, Scope::SEVERAL));
        assert!(!Scope::SEVERAL.is_known() && !Scope::UNKNOWN.is_known() && Scope::WHOLE.is_known());
    }

    #[test]
    fn scopes_are_the_same_on_every_machine() {
        // A wire format: replicas and state files have these numbers.
        let golden = [
            (scope(None, Some("/"), "a.test", "/"), GOLDEN[0]),
            (scope(Some("a.test"), Some("/shop"), "a.test", "/"), GOLDEN[1]),
        ];
        for (scope, number) in golden {
            assert_eq!(scope.to_bits(), number);
            assert_eq!(Scope::from_bits(number), scope);
        }
    }

    const GOLDEN: [u16; 2] = [19_485, 55_383];
}
