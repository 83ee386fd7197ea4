//! Writing compressed fields (RFC 7541 §6).
//!
//! What is remembered is coded by Huffman, since it is written once and its bytes count for as long as the peer keeps
//! them; what is not remembered is written as it is, which costs a few bytes and saves the time.

use std::collections::VecDeque;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{DEFAULT_TABLE, OVERHEAD, huffman, integer, table::static_name};
use crate::http2::head::is_of_connection;

/// The fields that our peer remembers.
#[derive(Debug)]
pub struct Encoder {
    /// The latest first.
    entries: VecDeque<Entry>,
    /// What is compared before an entry is: one for each.
    tags: VecDeque<Tag>,
    /// What all count for.
    size: usize,
    /// What all may count for.
    max: usize,
    /// What the peer has to be told before the next field: the smallest size since it was told, and the last one.
    resized: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Entry {
    name: HeaderName,
    /// It has memory of its own.
    value: HeaderValue,
}

/// A few bits of a field's name, and of its value: what differs in them differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    name: u32,
    value: u32,
}

/// What a field is written as that is not remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Remember,
    /// It is another one each time.
    Pass,
    /// It must not be remembered by anybody on the way (§7.1.3).
    Never,
}

/// Values of one name that are remembered: what has more of them changes each time.
const VALUES: usize = 4;
/// What a field may count for to be remembered: no more than a part of the table.
const LARGEST: usize = DEFAULT_TABLE / 4;
/// Static entries (appendix A).
const STATIC: usize = 61;

/// Representations, by the bits that they begin with (§6).
const INDEXED: u8 = 0x80;
const REMEMBERED: u8 = 0x40;
const RESIZE: u8 = 0x20;
const NEVER: u8 = 0x10;
const PASSED: u8 = 0;

/// Strings by Huffman begin with it (§5.2).
const HUFFMAN: u8 = 0x80;

// === impl Encoder ===

impl Encoder {
    /// An encoder for a peer that has not said how much it remembers. Nothing is allocated yet.
    pub const fn new() -> Self {
        Self { entries: VecDeque::new(), tags: VecDeque::new(), size: 0, max: DEFAULT_TABLE, resized: None }
    }

    /// Obeys the peer's SETTINGS_HEADER_TABLE_SIZE, from the next fields on.
    pub fn set_max_size(&mut self, size: u32) {
        let size = usize::try_from(size).unwrap_or(DEFAULT_TABLE).min(DEFAULT_TABLE);
        if size == self.max {
            return;
        }
        let smallest = self.resized.map_or(self.max, |(smallest, _)| smallest).min(size);
        self.resized = Some((smallest, size));
        self.max = size;
        self.evict(size);
        if size == 0 {
            (self.entries, self.tags) = (VecDeque::new(), VecDeque::new());
        }
    }

    /// Appends the fields of an answer's head. Those of one connection, which HTTP/2 has not, are left out.
    pub fn response(&mut self, out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
        self.tell(out);
        match status.as_u16() {
            200 => integer::write(out, 8, 7, INDEXED),
            204 => integer::write(out, 9, 7, INDEXED),
            206 => integer::write(out, 10, 7, INDEXED),
            304 => integer::write(out, 11, 7, INDEXED),
            400 => integer::write(out, 12, 7, INDEXED),
            404 => integer::write(out, 13, 7, INDEXED),
            500 => integer::write(out, 14, 7, INDEXED),
            _ => {
                integer::write(out, 8, 4, PASSED);
                squeezed(out, status.as_str().as_bytes());
            }
        }
        self.fields(out, headers);
    }

    /// Appends trailers. Those of one connection, which HTTP/2 has not, are left out.
    pub fn trailers(&mut self, out: &mut BytesMut, trailers: &HeaderMap) {
        self.tell(out);
        self.fields(out, trailers);
    }

    /// Tells how much is remembered from now on, if that has changed (§4.2).
    fn tell(&mut self, out: &mut BytesMut) {
        if let Some((smallest, size)) = self.resized.take() {
            if smallest < size {
                integer::write(out, smallest, 5, RESIZE);
            }
            integer::write(out, size, 5, RESIZE);
        }
    }

    fn fields(&mut self, out: &mut BytesMut, fields: &HeaderMap) {
        for (name, value) in fields {
            if !is_of_connection(name) {
                self.field(out, name, value);
            }
        }
    }

    fn field(&mut self, out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
        out.reserve(name.as_str().len() + value.len() + 16);
        let known = static_name(name.as_str());
        let policy = if value.is_sensitive() { Policy::Never } else { Policy::of(name) };
        let size = name.as_str().len() + value.len() + OVERHEAD;
        if policy != Policy::Remember || size > LARGEST.min(self.max) {
            let pattern = if policy == Policy::Never { NEVER } else { PASSED };
            naming(out, name, known, 4, pattern);
            plain(out, value.as_bytes());
            return;
        }
        let tag = Tag::of(name, value);
        let mut values = 0;
        let mut named = None;
        for (index, other) in self.tags.iter().enumerate() {
            if other.name == tag.name {
                let entry = &self.entries[index];
                if entry.name == *name {
                    if *other == tag && entry.value == *value {
                        integer::write(out, index + STATIC + 1, 7, INDEXED);
                        return;
                    }
                    values += 1;
                    named = Some(index + STATIC + 1);
                }
            }
        }
        let known = known.or(named);
        if values >= VALUES {
            naming(out, name, known, 4, PASSED);
            plain(out, value.as_bytes());
            return;
        }
        naming(out, name, known, 6, REMEMBERED);
        text(out, value.as_bytes());
        self.evict(self.max - size);
        self.size += size;
        // The value that came shares its memory with a whole head.
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        self.entries.push_front(Entry { name: name.clone(), value });
        self.tags.push_front(tag);
    }

    /// Forgets the oldest fields until no more than `size` is left.
    fn evict(&mut self, size: usize) {
        while self.size > size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.name.as_str().len() + entry.value.len() + OVERHEAD;
            self.tags.pop_back();
        }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends the number of a name, or the name.
fn naming(out: &mut BytesMut, name: &HeaderName, known: Option<usize>, bits: u32, pattern: u8) {
    integer::write(out, known.unwrap_or(0), bits, pattern);
    if known.is_none() {
        text(out, name.as_str().as_bytes());
    }
}

/// Appends a string, by Huffman if that makes it shorter.
fn text(out: &mut BytesMut, text: &[u8]) {
    if huffman::encoded_len(text) < text.len() { squeezed(out, text) } else { plain(out, text) }
}

/// Appends a string by Huffman.
fn squeezed(out: &mut BytesMut, text: &[u8]) {
    integer::write(out, huffman::encoded_len(text), 7, HUFFMAN);
    huffman::encode(out, text);
}

/// Appends a string as it is.
fn plain(out: &mut BytesMut, text: &[u8]) {
    integer::write(out, text.len(), 7, 0);
    out.extend_from_slice(text);
}

// === impl Tag ===

impl Tag {
    fn of(name: &HeaderName, value: &HeaderValue) -> Self {
        Self { name: tag(name.as_str().as_bytes()), value: tag(value.as_bytes()) }
    }
}

/// The length, and what the ends are.
fn tag(text: &[u8]) -> u32 {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let ends = match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => u32::from_le_bytes(*first) ^ u32::from_le_bytes(*last).rotate_left(7),
        _ => text.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)),
    };
    ends ^ length.rotate_left(20)
}

// === impl Policy ===

impl Policy {
    fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "set-cookie" | "authorization" | "proxy-authorization" | "cookie" => Self::Never,
            "content-length" | "date" | "x-request-id" | "etag" | "last-modified" | "location"
            | "expires" | "age" | "content-range" | "x-response-time" | "server-timing" => Self::Pass,
            _ => Self::Remember,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn written(encoder: &mut Encoder, fields: &[(&'static str, &str)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        encoder.response(&mut out, StatusCode::OK, &map(fields));
        out.to_vec()
    }

    #[test]
    fn what_is_remembered_is_a_number_from_then_on() {
        let mut encoder = Encoder::new();
        let fields = [("content-type", "text/html"), ("x-frame-options", "DENY")];
        let first = written(&mut encoder, &fields);
        assert_eq!(first[..2], [0x88, 0x40 | 31], "a name of the static table");
        assert_eq!(written(&mut encoder, &fields), [0x88, 0xbf, 0xbe]);
        assert_eq!(written(&mut encoder, &fields[1..]), [0x88, 0xbe]);
    }

    #[test]
    fn statuses_are_numbers_or_written_out() {
        let mut out = BytesMut::new();
        for status in [200, 204, 206, 304, 400, 404, 500, 302, 431] {
            let status = StatusCode::from_u16(status).unwrap();
            Encoder::new().response(&mut out, status, &HeaderMap::new());
        }
        assert_eq!(out, &b"\x88\x89\x8a\x8b\x8c\x8d\x8e\x08\x82\x64\x02\x08\x83\x69\x90\xff"[..]);
    }

    #[test]
    fn credentials_are_never_remembered_and_what_changes_is_not() {
        let mut encoder = Encoder::new();
        let cookie = [("set-cookie", "a=1")];
        for _ in 0..2 {
            // The name's number does not fit four bits.
            assert_eq!(written(&mut encoder, &cookie), b"\x88\x1f\x28\x03a=1");
            assert_eq!(written(&mut encoder, &[("content-length", "17")]), b"\x88\x0f\x0d\x0217");
        }
        let mut sensitive = map(&[("x-a", "b")]);
        sensitive.get_mut("x-a").unwrap().set_sensitive(true);
        let mut out = BytesMut::new();
        encoder.trailers(&mut out, &sensitive);
        assert_eq!(out[0], NEVER);
        assert_eq!((encoder.entries.len(), encoder.size), (0, 0));
    }

    #[test]
    fn a_name_with_many_values_takes_no_more_of_the_table() {
        let mut encoder = Encoder::new();
        for number in 0..20 {
            let value = format!("value {number}");
            written(&mut encoder, &[("x-trace", &value)]);
            assert!(encoder.entries.len() <= VALUES);
        }
        let other = written(&mut encoder, &[("x-trace", "another")]);
        assert_eq!(other[1..3], [0x0f, 65 - 15], "at least by its name");
    }

    #[test]
    fn fields_of_one_connection_are_left_out() {
        let fields = [
            ("connection", "x"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "x"),
            ("upgrade", "x"),
        ];
        assert_eq!(written(&mut Encoder::new(), &fields), [0x88]);
    }

    #[test]
    fn the_peer_decides_how_much_is_remembered_and_is_told() {
        let mut encoder = Encoder::new();
        encoder.set_max_size(u32::MAX);
        assert_eq!(written(&mut encoder, &[("x-a", "b")])[0], 0x88, "never more than the default");
        encoder.set_max_size(0);
        assert_eq!(encoder.size, 0);
        encoder.set_max_size(100);
        // The smallest, and the last (§4.2).
        assert_eq!(written(&mut encoder, &[("x-a", "b")])[..3], [0x20, 0x3f, 100 - 31]);
        assert_eq!(written(&mut encoder, &[("x-a", "b")]), [0x88, 0xbe]);
        encoder.set_max_size(30);
        assert_eq!(written(&mut encoder, &[("x-a", "b")])[..2], [0x3e, 0x88]);
        assert!(encoder.entries.is_empty(), "it does not fit");
    }

    #[test]
    fn the_table_holds_no_more_than_it_may() {
        let mut encoder = Encoder::new();
        for number in 0..500 {
            let name = format!("x-{number}");
            let mut fields = HeaderMap::new();
            fields.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("y"));
            encoder.trailers(&mut BytesMut::new(), &fields);
            assert!(encoder.size <= DEFAULT_TABLE && encoder.tags.len() == encoder.entries.len());
        }
        assert!(encoder.size > DEFAULT_TABLE - 64);
        let large = "z".repeat(LARGEST);
        let before = encoder.size;
        written(&mut encoder, &[("x-large", &large)]);
        assert_eq!(encoder.size, before);
    }
}
