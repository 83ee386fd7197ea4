//! Session ids in the target of a request: in its query, and in parameters of its path's segments.
//!
//! Ids are compared as they are after percent-decoding, since one client encodes what another one does not.
//! `+` stays `+`: what an application makes of it is its own affair, and the same for all clients.

use std::{borrow::Cow, ops::Range};

/// The ids, maybe empty, of the query parameters of this name, in order.
pub(super) fn in_query<'a>(name: &'a str, query: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    places_in_query(query)
        .filter_map(move |pair| value_of(name, &query[pair]).map(|(_, value)| decoded(value)))
}

/// The ids, maybe empty, of the path parameters of this name: `;jsessionid=…` at the end of any segment.
pub(super) fn in_path<'a>(name: &'a str, path: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    places_in_path(path).filter_map(move |pair| value_of(name, &path[pair]).map(|(_, value)| decoded(value)))
}

/// Where in a query the values of this parameter are.
pub fn values_in_query<'a>(name: &'a str, query: &'a str) -> impl Iterator<Item = Range<usize>> {
    places_in_query(query).filter_map(move |pair| place_of_value(name, query, pair))
}

/// Where in a path the values of this parameter are.
pub fn values_in_path<'a>(name: &'a str, path: &'a str) -> impl Iterator<Item = Range<usize>> {
    places_in_path(path).filter_map(move |pair| place_of_value(name, path, pair))
}

fn place_of_value(name: &str, text: &str, pair: Range<usize>) -> Option<Range<usize>> {
    let (before, _) = value_of(name, &text[pair.clone()])?;
    Some(pair.start + before..pair.end)
}

fn places_in_query(query: &str) -> impl Iterator<Item = Range<usize>> {
    split(query, |byte| byte == b'&')
}

/// What follows a `;`, up to the next one or the end of the segment.
fn places_in_path(path: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = path.as_bytes();
    split(path, |byte| matches!(byte, b';' | b'/'))
        .filter(|part| part.start > 0 && bytes[part.start - 1] == b';')
}

fn split(text: &str, is_end: impl Fn(u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let length = text.as_bytes()[start..].iter().position(|&byte| is_end(byte));
        next = length.map(|length| start + length + 1);
        Some(start..length.map_or(text.len(), |length| start + length))
    })
}

/// The value of `name=value` if it has this name, and where it begins. Names are case-sensitive, as Tomcat and
/// Node compare them, and may be encoded as well.
fn value_of<'a>(name: &str, pair: &'a str) -> Option<(usize, &'a str)> {
    let (written, value) = pair.split_once('=')?;
    let same = written == name || (written.contains('%') && *decoded(written) == *name.as_bytes());
    same.then_some((written.len() + 1, value))
}

/// Without its percent-encoding; a `%` that begins none stands for itself.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut left = text.as_bytes();
    let mut bytes = Vec::with_capacity(left.len());
    while let [byte, rest @ ..] = left {
        match rest {
            [high, low, after @ ..]
                if *byte == b'%' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                bytes.push(digit(*high) << 4 | digit(*low));
                left = after;
            }
            _ => {
                bytes.push(*byte);
                left = rest;
            }
        }
    }
    Cow::Owned(bytes)
}

/// Of a hexadecimal digit.
const fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(ids: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
        ids.map(|id| String::from_utf8(id.as_ref().to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_query_parameter_is_found_anywhere_and_compared_decoded() {
        let table: [(&str, &[&str]); 12] = [
            ("", &[]),
            ("sid", &[]),
            ("sid=a", &["a"]),
            ("EIO=4&transport=polling&sid=a-_b&t=1", &["a-_b"]),
            ("sid=a%2Db", &["a-b"]),
            ("sid=a%2db", &["a-b"]),
            ("s%69d=a", &["a"]),
            ("sid=a=b+c", &["a=b+c"]),
            ("sid=%&sid=%4&sid=%zz", &["%", "%4", "%zz"]),
            ("sid=a&sid=b&&sid=", &["a", "b", ""]),
            ("SID=a&xsid=b&sidx=c&x=sid=d", &[]),
            ("sid=a;sid=b", &["a;sid=b"]),
        ];
        for (query, ids) in table {
            assert_eq!(text(in_query("sid", query)), ids, "{query}");
        }
    }

    #[test]
    fn a_path_parameter_is_found_in_any_segment() {
        let table: [(&str, &[&str]); 10] = [
            ("/", &[]),
            ("/jsessionid=a", &[]),
            ("/a;jsessionid=X.route1", &["X.route1"]),
            ("/a;v=1;jsessionid=X;w=2/b", &["X"]),
            ("/a;jsessionid=X/b/c", &["X"]),
            ("/;jsessionid=X", &["X"]),
            ("/a;jsessionid=X/b;jsessionid=Y", &["X", "Y"]),
            ("/a;jsessionid=%58", &["X"]),
            ("/a;JSESSIONID=X;xjsessionid=Y;jsessionid", &[]),
            (";jsessionid=X", &["X"]),
        ];
        for (path, ids) in table {
            assert_eq!(text(in_path("jsessionid", path)), ids, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_target_makes_it_panic(target in "[;/&=%a-c0é]{0,24}", name in "[a-c%é]{1,3}") {
            for place in values_in_query(&name, &target).chain(values_in_path(&name, &target)) {
                prop_assert!(target.get(place).is_some());
            }
            prop_assert_eq!(in_query(&name, &target).count(), values_in_query(&name, &target).count());
            prop_assert_eq!(in_path(&name, &target).count(), values_in_path(&name, &target).count());
        }
    }
}
