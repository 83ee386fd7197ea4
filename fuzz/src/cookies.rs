//! Where a request carries its session id: Cookie fields, a header field, a bearer token.

use std::net::{IpAddr, Ipv4Addr};

use homing::affinity::{Carrier, KeyHasher, KeySource, Keys, SessionKey};

/// Each line is a Cookie field; the first one is also the value of every header field.
pub fn run(data: &[u8]) {
    let request = Request(data.split(|byte| *byte == b'\n').collect());
    let hasher = KeyHasher::new([1; 16]);
    let sources = [
        KeySource::Cookie("session".into()),
        KeySource::Header("x-session".into()),
        KeySource::Bearer,
        KeySource::Address { v4: 24, v6: 64 },
    ];
    let all = Keys::find(&sources, &hasher, &request);
    assert!((1..=Keys::MAX).contains(&all.as_slice().len()), "an address is always there");
    let in_cookies = keys(&Keys::find(&sources[..1], &hasher, &request));
    assert!(in_cookies.iter().enumerate().all(|(at, key)| !in_cookies[..at].contains(key)), "each once");
    // RFC 9113 §8.2.3: crumbs and the field that they are joined to say the same.
    let joined = request.0.join(&b"; "[..]);
    assert_eq!(in_cookies, keys(&Keys::find(&sources[..1], &hasher, &Request(vec![&joined]))));
}

struct Request<'a>(Vec<&'a [u8]>);

impl Carrier for Request<'_> {
    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().copied()
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        self.0.first().copied()
    }

    fn client(&self) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

fn keys(found: &Keys) -> Vec<SessionKey> {
    found.as_slice().to_vec()
}
