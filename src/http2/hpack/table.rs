//! The fields that can be meant by a number (RFC 7541 §2.3): those of the RFC, and those of the connection.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use super::{DEFAULT_TABLE, Field, OVERHEAD, Pseudo};

/// The fields that are the same for everybody (appendix A), from index 1 on.
pub(super) static STATIC: [Field; 61] = [
    pseudo(Pseudo::Authority, ""),
    pseudo(Pseudo::Method, "GET"),
    pseudo(Pseudo::Method, "POST"),
    pseudo(Pseudo::Path, "/"),
    pseudo(Pseudo::Path, "/index.html"),
    pseudo(Pseudo::Scheme, "http"),
    pseudo(Pseudo::Scheme, "https"),
    pseudo(Pseudo::Status, "200"),
    pseudo(Pseudo::Status, "204"),
    pseudo(Pseudo::Status, "206"),
    pseudo(Pseudo::Status, "304"),
    pseudo(Pseudo::Status, "400"),
    pseudo(Pseudo::Status, "404"),
    pseudo(Pseudo::Status, "500"),
    regular(header::ACCEPT_CHARSET, ""),
    regular(header::ACCEPT_ENCODING, "gzip, deflate"),
    regular(header::ACCEPT_LANGUAGE, ""),
    regular(header::ACCEPT_RANGES, ""),
    regular(header::ACCEPT, ""),
    regular(header::ACCESS_CONTROL_ALLOW_ORIGIN, ""),
    regular(header::AGE, ""),
    regular(header::ALLOW, ""),
    regular(header::AUTHORIZATION, ""),
    regular(header::CACHE_CONTROL, ""),
    regular(header::CONTENT_DISPOSITION, ""),
    regular(header::CONTENT_ENCODING, ""),
    regular(header::CONTENT_LANGUAGE, ""),
    regular(header::CONTENT_LENGTH, ""),
    regular(header::CONTENT_LOCATION, ""),
    regular(header::CONTENT_RANGE, ""),
    regular(header::CONTENT_TYPE, ""),
    regular(header::COOKIE, ""),
    regular(header::DATE, ""),
    regular(header::ETAG, ""),
    regular(header::EXPECT, ""),
    regular(header::EXPIRES, ""),
    regular(header::FROM, ""),
    regular(header::HOST, ""),
    regular(header::IF_MATCH, ""),
    regular(header::IF_MODIFIED_SINCE, ""),
    regular(header::IF_NONE_MATCH, ""),
    regular(header::IF_RANGE, ""),
    regular(header::IF_UNMODIFIED_SINCE, ""),
    regular(header::LAST_MODIFIED, ""),
    regular(header::LINK, ""),
    regular(header::LOCATION, ""),
    regular(header::MAX_FORWARDS, ""),
    regular(header::PROXY_AUTHENTICATE, ""),
    regular(header::PROXY_AUTHORIZATION, ""),
    regular(header::RANGE, ""),
    regular(header::REFERER, ""),
    regular(header::REFRESH, ""),
    regular(header::RETRY_AFTER, ""),
    regular(header::SERVER, ""),
    regular(header::SET_COOKIE, ""),
    regular(header::STRICT_TRANSPORT_SECURITY, ""),
    regular(header::TRANSFER_ENCODING, ""),
    regular(header::USER_AGENT, ""),
    regular(header::VARY, ""),
    regular(header::VIA, ""),
    regular(header::WWW_AUTHENTICATE, ""),
];

/// The fields that a peer has asked to remember, the latest first.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    /// What all count for.
    size: usize,
    /// What all may count for.
    max: usize,
}

#[derive(Debug)]
struct Entry {
    field: Field,
    /// Bytes of the name, which a malformed one does not tell.
    name: usize,
    size: usize,
}

/// What an index means.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) field: &'a Field,
    /// Bytes of its name.
    pub(super) name: usize,
    /// What it counts for.
    pub(super) size: usize,
}

const fn pseudo(name: Pseudo, value: &'static str) -> Field {
    Field::Pseudo(name, Bytes::from_static(value.as_bytes()))
}

const fn regular(name: HeaderName, value: &'static str) -> Field {
    Field::Regular(name, HeaderValue::from_static(value))
}

// === impl Table ===

impl Table {
    /// A table of the default size, for which nothing is allocated yet.
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: DEFAULT_TABLE }
    }

    /// What an index means; none when it means nothing.
    pub(super) fn get(&self, index: usize) -> Option<Known<'_>> {
        let index = index.checked_sub(1)?;
        if let Some(field) = STATIC.get(index) {
            let (name, value) = field.lengths();
            return Some(Known { field, name, size: name + value + OVERHEAD });
        }
        let entry = self.entries.get(index - STATIC.len())?;
        Some(Known { field: &entry.field, name: entry.name, size: entry.size })
    }

    /// Remembers a field that counts for `size`, of that `name` bytes for its name, and forgets the oldest ones for it.
    /// What is larger than the table empties it (§4.4).
    pub(super) fn insert(&mut self, field: Field, name: usize, size: usize) {
        if size > self.max {
            self.clear();
            return;
        }
        self.evict(self.max - size);
        self.size += size;
        self.entries.push_front(Entry { field, name, size });
    }

    /// Forgets all fields.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.size = 0;
    }

    /// Says how much may be remembered.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
        if max == 0 {
            self.entries = VecDeque::new();
        }
    }

    /// What all may count for.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// What all count for.
    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Forgets the oldest fields until no more than `size` is left.
    fn evict(&mut self, size: usize) {
        while self.size > size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size;
        }
    }
}

// === impl Field ===

impl Field {
    /// Bytes of its name and its value, unless it is malformed.
    fn lengths(&self) -> (usize, usize) {
        match self {
            Self::Pseudo(name, value) => (name.as_str().len(), value.len()),
            Self::Regular(name, value) => (name.as_str().len(), value.len()),
            Self::Malformed(..) => (0, 0),
        }
    }
}

/// The index of a static field of this name.
pub(super) fn static_name(name: &str) -> Option<usize> {
    Some(match name.len() {
        3 => match name {
            "age" => 21,
            "via" => 60,
            _ => return None,
        },
        4 => match name {
            "date" => 33,
            "etag" => 34,
            "from" => 37,
            "host" => 38,
            "link" => 45,
            "vary" => 59,
            _ => return None,
        },
        5 => match name {
            "allow" => 22,
            "range" => 50,
            _ => return None,
        },
        6 => match name {
            "accept" => 19,
            "cookie" => 32,
            "expect" => 35,
            "server" => 54,
            _ => return None,
        },
        7 => match name {
            "expires" => 36,
            "referer" => 51,
            "refresh" => 52,
            _ => return None,
        },
        8 => match name {
            "if-match" => 39,
            "if-range" => 42,
            "location" => 46,
            _ => return None,
        },
        10 => match name {
            "set-cookie" => 55,
            "user-agent" => 58,
            _ => return None,
        },
        11 if name == "retry-after" => 53,
        12 => match name {
            "content-type" => 31,
            "max-forwards" => 47,
            _ => return None,
        },
        13 => match name {
            "accept-ranges" => 18,
            "authorization" => 23,
            "cache-control" => 24,
            "content-range" => 30,
            "if-none-match" => 41,
            "last-modified" => 44,
            _ => return None,
        },
        14 => match name {
            "accept-charset" => 15,
            "content-length" => 28,
            _ => return None,
        },
        15 => match name {
            "accept-encoding" => 16,
            "accept-language" => 17,
            _ => return None,
        },
        16 => match name {
            "content-encoding" => 26,
            "content-language" => 27,
            "content-location" => 29,
            "www-authenticate" => 61,
            _ => return None,
        },
        17 if name == "if-modified-since" => 40,
        18 if name == "proxy-authenticate" => 48,
        19 => match name {
            "content-disposition" => 25,
            "if-unmodified-since" => 43,
            "proxy-authorization" => 49,
            _ => return None,
        },
        25 if name == "strict-transport-security" => 56,
        27 if name == "access-control-allow-origin" => 20,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_are() {
        for (index, field) in STATIC.iter().enumerate() {
            let Field::Regular(name, _) = field else { continue };
            // It is never written.
            let expected = (name != header::TRANSFER_ENCODING).then_some(index + 1);
            assert_eq!(static_name(name.as_str()), expected, "{name}");
        }
        assert_eq!(static_name("x-frame-options"), None);
    }

    #[test]
    fn what_is_remembered_never_counts_for_more_than_allowed() {
        let field = |name| Field::Malformed(None, name);
        let mut table = Table::new();
        assert!(table.get(0).is_none() && table.get(62).is_none());
        for name in ["a", "b", "c", "d"] {
            table.insert(field(name), 1, 1024);
        }
        assert_eq!(table.get(65).unwrap().field, &field("a"));
        table.insert(field("e"), 1, 1025);
        assert_eq!((table.get(62).unwrap().field, table.size), (&field("e"), 3073));
        assert!(table.get(65).is_none(), "two had to go");
        table.resize(2048);
        assert_eq!((table.entries.len(), table.size), (1, 1025));
        table.insert(field("f"), 1, 2049);
        assert_eq!((table.entries.len(), table.size), (0, 0));
        table.resize(0);
        table.insert(field("g"), 1, 33);
        assert!(table.get(62).is_none());
    }
}
