//! Whom a request comes from, as trusted proxies in front tell it.
//!
//! The chain of hops is read from its end, byte by byte, as far as those that vouch for it are trusted; what a client
//! wrote before them is never looked at. A hop that cannot be read ends it: then nobody knows who the client is, and
//! whatever is counted counts for the last hop that is known. What cannot be read exempts nobody.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use memchr::{memchr, memrchr};

use crate::http1::write::line;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is known about the sender of a request.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    /// The peer's address as a field value.
    pub(super) peer: &'a HeaderValue,
    /// The peer's address as a node of `Forwarded` (RFC 7239 §6).
    pub(super) node: &'a str,
    /// Whether what the peer says about earlier hops is believed.
    pub(super) trusted: bool,
    /// Where the request comes from.
    pub(super) origin: Origin,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client's address, or that of the last hop that is known.
    pub(super) address: IpAddr,
    /// Whether it is the client's.
    pub(super) known: bool,
    /// What tells of it.
    pub(super) told_by: Told,
}

/// In which field proxies tell of earlier hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// In none: nobody vouches for the peer, or it speaks for itself.
    Nowhere,
    /// `X-Forwarded-For`; whether a `Forwarded` beside it says the same.
    XForwardedFor(bool),
    /// `Forwarded` (RFC 7239); the scheme that the client used, if it says so.
    Forwarded(Option<&'static str>),
}

// === impl Origin ===

impl Origin {
    /// Reads the chain of a request that came from `peer`. `X-Forwarded-For` goes first: nearly every proxy writes it, and
    /// passes on a `Forwarded` that it does not know as its client wrote it. Where it ends at a trusted proxy, it may be
    /// one that writes `Forwarded`.
    pub(super) fn of(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> Self {
        let mut this = Self { address: peer, known: true, told_by: Told::Nowhere };
        if !trusted(peer) {
            return this;
        }
        let fields = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
        for hop in fields.flat_map(|value| value.rsplit(|byte| *byte == b',')) {
            if !this.follow(hop, node(hop), Told::XForwardedFor(true)) || !trusted(this.address) {
                break;
            }
        }
        if this.told_by == Told::Nowhere || this.known && trusted(this.address) {
            return this.by_forwarded(headers, trusted);
        }
        if headers.contains_key(FORWARDED) {
            let other = Self::unread(peer).by_forwarded(headers, trusted);
            let agrees = (this.address, this.known) == (other.address, other.known);
            this.told_by = Told::XForwardedFor(agrees);
        }
        this
    }

    /// A peer of whose request nothing can be read, and whose client nobody knows if it is trusted.
    pub(super) const fn unread(peer: IpAddr) -> Self {
        Self { address: peer, known: false, told_by: Told::Nowhere }
    }

    /// The client's address, if that is known.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.known.then_some(self.address)
    }

    fn by_forwarded(mut self, headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> Self {
        let read = |element: &[u8]| node(parameter(element, b"for")?);
        let fields = headers.get_all(FORWARDED).iter().rev().map(HeaderValue::as_bytes);
        for element in fields.flat_map(|value| Elements(Some(value))) {
            if !self.follow(element, read(element), Told::Forwarded(scheme(element)))
                || !trusted(self.address)
            {
                break;
            }
        }
        self
    }

    /// Goes one hop on; whether it could be read. Empty elements of lists do not count (RFC 9110 §5.6.1.2).
    fn follow(&mut self, hop: &[u8], address: Option<IpAddr>, told_by: Told) -> bool {
        if hop.trim_ascii().is_empty() {
            return true;
        }
        self.told_by = told_by;
        self.known = address.is_some();
        self.address = address.unwrap_or(self.address);
        self.known
    }
}

// === impl Sender ===

impl Sender<'_> {
    /// Writes `X-Forwarded-*` and `Forwarded`, inbound ones kept only from a trusted peer. Both tell of one client,
    /// whichever the peer has written.
    pub(super) fn tell(&self, out: &mut BytesMut, headers: &HeaderMap, host: &HeaderValue) {
        let Origin { address, known, told_by } = self.origin;
        out.extend_from_slice(b"x-forwarded-for: ");
        if matches!(told_by, Told::Forwarded(_)) {
            let client = if known { address.to_string().into() } else { UNKNOWN };
            out.extend_from_slice(client.as_bytes());
            out.extend_from_slice(b", ");
        }
        self.keep(out, headers, &X_FORWARDED_FOR);
        out.extend_from_slice(self.peer.as_bytes());
        out.extend_from_slice(b"\r\n");
        if !self.trusted || !headers.contains_key(X_FORWARDED_PROTO) {
            let scheme = if let Told::Forwarded(Some(scheme)) = told_by { scheme } else { "https" };
            line(out, &X_FORWARDED_PROTO, scheme.as_bytes());
        }
        if !self.trusted || !headers.contains_key(X_FORWARDED_HOST) {
            line(out, &X_FORWARDED_HOST, host.as_bytes());
        }
        out.extend_from_slice(b"forwarded: ");
        match told_by {
            Told::XForwardedFor(agrees) if !agrees || !headers.contains_key(FORWARDED) => {
                let client = if known { node_of(address).into() } else { UNKNOWN };
                for part in [b"for=", client.as_bytes(), b", "] {
                    out.extend_from_slice(part);
                }
            }
            _ => self.keep(out, headers, &FORWARDED),
        }
        // Node and host have been checked to hold no quote and no control.
        for part in [b"for=", self.node.as_bytes(), b";host=\"", host.as_bytes(), b"\";proto=https\r\n"] {
            out.extend_from_slice(part);
        }
    }

    /// Writes what a trusted peer has said, and goes on with it.
    fn keep(&self, out: &mut BytesMut, headers: &HeaderMap, name: &HeaderName) {
        if self.trusted {
            for value in headers.get_all(name).iter().filter(|value| !value.is_empty()) {
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b", ");
            }
        }
    }
}

/// An address as a node of `Forwarded` (RFC 7239 §6).
pub(super) fn node_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

/// Who nobody knows (RFC 7239 §6.2), which applications know in `X-Forwarded-For`, too.
const UNKNOWN: Cow<'static, str> = Cow::Borrowed("unknown");

/// The elements of a `Forwarded` field, the last one first. They are cut at commas outside of quotes, which are looked
/// for from the end, too: an odd quote that a client wrote changes nothing of what its proxy has appended.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let whole = self.0?;
        let mut end = whole.len();
        loop {
            match memchr::memrchr2(b',', b'"', &whole[..end]) {
                None => {
                    self.0 = None;
                    return Some(whole);
                }
                Some(at) if whole[at] == b',' => {
                    self.0 = Some(&whole[..at]);
                    return Some(&whole[at + 1..]);
                }
                // A quote without another one before it makes all that is left of the field unreadable.
                Some(at) => match opening_quote(&whole[..at]) {
                    Some(open) => end = open,
                    None => {
                        self.0 = None;
                        return Some(whole);
                    }
                },
            }
        }
    }
}

/// Where the quote is that opens what a quote after `text` closes.
fn opening_quote(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    loop {
        let at = memrchr(b'"', &text[..end])?;
        let escapes = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if escapes % 2 == 0 {
            return Some(at);
        }
        end = at;
    }
}

/// The value of a parameter that an element has once.
fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    // Neither a node nor a scheme holds a `;`, quoted or not; one in another value makes nothing readable.
    let mut values = element.split(|byte| *byte == b';').filter_map(|pair| {
        let at = memchr(b'=', pair)?;
        pair[..at].trim_ascii().eq_ignore_ascii_case(name).then(|| pair[at + 1..].trim_ascii())
    });
    let value = values.next();
    value.filter(|_| values.next().is_none())
}

fn scheme(element: &[u8]) -> Option<&'static str> {
    let scheme = unquoted(parameter(element, b"proto")?);
    ["https", "http"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// The address of a hop: with or without a port, quotes, brackets around an IPv6 address, and a zone. None for
/// `unknown`, obfuscated names (RFC 7239 §6) and whatever else is no address.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(unquoted(text.trim_ascii()).trim_ascii()).ok()?;
    let address = if let Some(text) = text.strip_prefix('[') {
        let (address, port) = text.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        v6(address).map(IpAddr::V6)?
    } else {
        // An IPv6 address that has no brackets and reads as a whole has no port.
        let with_port = || {
            let (address, port) = text.rsplit_once(':')?;
            is_port(port).then(|| bare(address))?
        };
        bare(text).or_else(with_port)?
    };
    Some(address.to_canonical())
}

fn bare(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| v6(text).map(IpAddr::V6))
}

/// An IPv6 address, whose zone (RFC 4007 §11) says something to its own host alone.
fn v6(text: &str) -> Option<Ipv6Addr> {
    let address = match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address,
        Some(_) => return None,
        None => text,
    };
    address.parse().ok()
}

/// A port, or an obfuscated one (RFC 7239 §6.2).
fn is_port(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.strip_prefix('_') {
        Some(name) => name.bytes().all(known),
        None => text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests;
