//! One host in all its spellings: with which of them a client asks makes no difference to routes, certificates,
//! `strict_sni`, or what else is decided by a host.

use std::{borrow::Cow, net::Ipv6Addr};

use memchr::memrchr;

/// The name of a host: without its port, without the dot that a fully qualified name may end in (RFC 3986 §3.2.2), in
/// lower case; an IPv6 literal in brackets in the spelling of RFC 5952.
pub fn canonical(host: &str) -> Cow<'_, str> {
    let name = without_port(host);
    if let Some(address) = literal(name) {
        let written = format!("[{address}]");
        return if written == name { name.into() } else { written.into() };
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// Whether both are one host and one port, where `default` is the port of who names none (RFC 9110 §4.2.3).
pub fn is_same(one: &str, other: &str, default: u32) -> bool {
    let port = |host: &str| match port(host) {
        None | Some("") => Some(default),
        Some(digits) => digits.parse().ok(),
    };
    one.eq_ignore_ascii_case(other)
        || canonical(one) == canonical(other) && port(one).is_some() && port(one) == port(other)
}

/// The host without its port and without the brackets' content touched: `[::1]:8443` gives `[::1]`.
pub fn without_port(host: &str) -> &str {
    match memrchr(b':', host.as_bytes()) {
        Some(colon) if memrchr(b']', &host.as_bytes()[colon..]).is_none() => &host[..colon],
        _ => host,
    }
}

/// The port, maybe empty, that a host names.
pub fn port(host: &str) -> Option<&str> {
    host[without_port(host).len()..].strip_prefix(':')
}

/// The IPv6 address in brackets.
pub fn literal(name: &str) -> Option<Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_cut_off_but_an_address_stays_whole() {
        assert_eq!((without_port("a.example:8443"), port("a.example:8443")), ("a.example", Some("8443")));
        assert_eq!((without_port("[::1]:8443"), port("[::1]:8443")), ("[::1]", Some("8443")));
        assert_eq!((without_port("[::1]"), port("[::1]")), ("[::1]", None));
        assert_eq!((without_port("a:"), port("a:")), ("a", Some("")));
    }

    #[test]
    fn one_host_in_all_its_spellings_is_one() {
        for host in ["shop.test", "SHOP.test", "shop.test.", "Shop.Test.:8443", "shop.test:443", "shop.test:"]
        {
            assert_eq!(canonical(host), "shop.test", "{host}");
        }
        for host in ["[2001:db8::1]", "[2001:DB8:0:0::1]:443", "[2001:0db8::0001]"] {
            assert_eq!(canonical(host), "[2001:db8::1]", "{host}");
        }
        assert_eq!(
            (canonical("a_b.test"), canonical("127.0.0.1:80")),
            ("a_b.test".into(), "127.0.0.1".into())
        );
        assert_ne!(canonical("shop.test.."), "shop.test", "which is no name");
    }

    #[test]
    fn what_is_canonical_is_not_copied() {
        for host in ["shop.test", "shop.test:443", "shop.test.", "127.0.0.1"] {
            assert!(matches!(canonical(host), Cow::Borrowed(_)), "{host}");
        }
    }

    #[test]
    fn a_port_that_is_not_named_is_the_default() {
        for (one, other) in [("a", "A.:443"), ("a:", "a:443"), ("[::1]", "[0::1]:443"), ("a:81", "A:0081")] {
            assert!(is_same(one, other, 443), "{one} {other}");
        }
        for (one, other) in [("a", "a:80"), ("a:81", "a:82"), ("a", "b"), ("a:99999999999", "a.:99999999999")]
        {
            assert!(!is_same(one, other, 443), "{one} {other}");
        }
    }
}
