//! Where a request carries its session id: Cookie fields, a header field, a bearer token, its target.

use std::net::{IpAddr, Ipv4Addr};

use homing::affinity::{Carrier, KeyHasher, KeySource, KeySources, Keys, SessionKey};

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
    let all = Keys::find(&sources.to_vec().into(), &hasher, &request);
    let cookie = sources[..1].to_vec().into();
    assert!((1..=Keys::MAX).contains(&all.as_slice().len()), "an address is always there");
    let in_cookies = keys(&Keys::find(&cookie, &hasher, &request));
    assert!(in_cookies.iter().enumerate().all(|(at, key)| !in_cookies[..at].contains(key)), "each once");
    // Of the well-known ones, whatever the order of preference, each key is found once.
    for set in [0, 1, u64::MAX, 1 << 19] {
        let found = keys(&Keys::find_preferring(set, &KeySources::well_known(), &hasher, &request));
        assert!(found.iter().enumerate().all(|(at, key)| !found[..at].contains(key)), "each once");
    }
    let target = vec![KeySource::Query("a".into()), KeySource::PathParameter("a".into())].into();
    assert!(Keys::find(&target, &hasher, &request).as_slice().len() <= Keys::MAX);
    // RFC 9113 §8.2.3: crumbs and the field that they are joined to say the same.
    let joined = request.0.join(&b"; "[..]);
    assert_eq!(in_cookies, keys(&Keys::find(&cookie, &hasher, &Request(vec![&joined]))));
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

    fn path(&self) -> &str {
        self.query().unwrap_or_default()
    }

    fn query(&self) -> Option<&str> {
        std::str::from_utf8(self.0.first()?).ok()
    }
}

fn keys(found: &Keys) -> Vec<SessionKey> {
    found.as_slice().to_vec()
}
