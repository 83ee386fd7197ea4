//! Heads of requests, and trailers (RFC 9113 §8.1-8.3), as their parts come.
//!
//! What is malformed, or larger than allowed, is read to its end nevertheless: the peer's table has to be followed.

use std::mem;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, TE},
    uri::{Authority, PathAndQuery, Scheme},
};
use memchr::memchr;

use super::{
    Code, Error,
    hpack::{Decoder, Field, Pseudo, Section},
};
use crate::http1::{
    fields::{Malformed, is_token},
    framing::digits,
};

/// A head or trailers that are being read.
#[derive(Debug)]
pub struct Block {
    kind: Kind,
    section: Section,
    message: Message,
    /// The beginning of a field that has not come whole.
    rest: BytesMut,
    /// Compressed bytes that may still come.
    left: usize,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The head of a request.
    Request,
    /// What follows a request's body.
    Trailers,
    /// What nobody wants, such as the head of a stream that is refused. Its fields are read for the table's sake only.
    Nothing,
}

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    /// Its method, target and fields; the [`Protocol`] of an extended CONNECT is an extension of it.
    pub request: Request<()>,
    /// How long it says that its body is: the first Content-Length, if there are several.
    pub length: Option<u64>,
}

/// What an extended CONNECT is for (RFC 8441 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(Bytes);

/// Why a head, or trailers, are not served. The connection is as good as before.
#[derive(Debug)]
pub enum Refused {
    /// They are malformed: an error of the stream, PROTOCOL_ERROR. The text names the rule.
    Malformed(&'static str),
    /// They are larger than allowed; as much of a request as could be understood, no fields.
    TooLarge(Option<Box<Request<()>>>),
}

/// The fields that have been read.
#[derive(Debug, Default)]
struct Message {
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    fields: HeaderMap,
    /// The first rule that is broken.
    broken: Option<&'static str>,
}

/// How many times the compressed bytes of a block may be what its fields may count for. Whoever sends more is not read
/// any further, although a field that counts for little can be written in many.
const SLACK: usize = 4;
/// Fields for which there is room from the beginning.
const FIELDS: usize = 16;

// === impl Block ===

impl Block {
    /// A block of which no more than `limit` is taken, counted as SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub fn new(kind: Kind, limit: usize) -> Self {
        let taken = if kind == Kind::Nothing { 0 } else { limit };
        Self {
            kind,
            section: Section::new(taken),
            message: Message::default(),
            rest: BytesMut::new(),
            left: limit.saturating_mul(SLACK),
        }
    }

    /// Says that the block is malformed for a reason outside of it. It has to be read nevertheless.
    pub fn spoil(&mut self, rule: &'static str) {
        self.message.spoil(rule);
    }

    /// Takes the next part, the last one if `end`.
    ///
    /// # Errors
    ///
    /// Of the connection: the compression is broken, or the block much larger than allowed.
    pub fn push(&mut self, fragment: Bytes, end: bool, decoder: &mut Decoder) -> Result<(), Error> {
        const ENDLESS: Error = Error::Connection(Code::ENHANCE_YOUR_CALM, "a head much larger than allowed");
        self.left = self.left.checked_sub(fragment.len()).ok_or(ENDLESS)?;
        let Self { kind, section, message, rest, .. } = self;
        let sink = |field| match kind {
            Kind::Request => message.take(field),
            Kind::Trailers => message.trailer(field),
            Kind::Nothing => {}
        };
        if rest.is_empty() {
            let length = decoder.decode(&fragment, end, section, sink)?;
            rest.extend_from_slice(&fragment[length..]);
        } else {
            rest.extend_from_slice(&fragment);
            let length = decoder.decode(rest, end, section, sink)?;
            rest.advance(length);
        }
        Ok(())
    }

    /// The head, after the last part of a request.
    ///
    /// # Errors
    ///
    /// It is malformed or too large.
    pub fn request(self) -> Result<Head, Refused> {
        match self.message.broken {
            Some(rule) => Err(Refused::Malformed(rule)),
            None if self.section.is_too_large() => Err(Refused::TooLarge(self.message.line())),
            None => self.message.request().map_err(|Malformed(rule)| Refused::Malformed(rule)),
        }
    }

    /// The trailers, after their last part.
    ///
    /// # Errors
    ///
    /// They are malformed or too large.
    pub fn trailers(self) -> Result<HeaderMap, Refused> {
        match self.message.broken {
            Some(rule) => Err(Refused::Malformed(rule)),
            None if self.section.is_too_large() => Err(Refused::TooLarge(None)),
            None => Ok(self.message.fields),
        }
    }
}

// === impl Message ===

impl Message {
    fn spoil(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// Takes a field of a request's head.
    fn take(&mut self, field: Field) {
        match field {
            Field::Regular(name, value) => self.regular(name, value),
            Field::Malformed(_, rule) => self.spoil(rule),
            Field::Pseudo(..) if !self.fields.is_empty() => {
                self.spoil("a pseudo-header field after another one");
            }
            Field::Pseudo(Pseudo::Method, value) => match Method::from_bytes(&value) {
                Ok(_) if self.method.is_some() => self.spoil(REPEATED),
                Ok(method) => self.method = Some(method),
                Err(_) => self.spoil("a method that is no token"),
            },
            Field::Pseudo(Pseudo::Scheme, value) => self.once(|message| &mut message.scheme, value),
            Field::Pseudo(Pseudo::Authority, value) => self.once(|message| &mut message.authority, value),
            Field::Pseudo(Pseudo::Path, value) => self.once(|message| &mut message.path, value),
            Field::Pseudo(Pseudo::Protocol, value) => self.once(|message| &mut message.protocol, value),
            Field::Pseudo(Pseudo::Status, _) => self.spoil("a status in a request"),
        }
    }

    /// Takes a field of trailers.
    fn trailer(&mut self, field: Field) {
        match field {
            Field::Regular(name, value) => self.regular(name, value),
            Field::Malformed(_, rule) => self.spoil(rule),
            Field::Pseudo(..) => self.spoil("a pseudo-header field in trailers"),
        }
    }

    fn once(&mut self, place: impl FnOnce(&mut Self) -> &mut Option<Bytes>, value: Bytes) {
        if place(self).replace(value).is_some() {
            self.spoil(REPEATED);
        }
    }

    fn regular(&mut self, name: HeaderName, value: HeaderValue) {
        if is_of_connection(&name) || name == TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            self.spoil("a field of one connection");
        }
        // What is not served needs no fields.
        if self.broken.is_some() {
            return;
        }
        if self.fields.capacity() == 0 {
            self.fields.reserve(FIELDS);
        }
        if self.fields.try_append(name, value).is_err() {
            self.spoil("too many fields");
        }
    }

    fn request(mut self) -> Result<Head, Malformed> {
        let method = self.method.take().ok_or(Malformed("no :method"))?;
        let protocol = self.protocol.take();
        if protocol.is_some() && method != Method::CONNECT {
            return Err(Malformed("a :protocol without CONNECT"));
        }
        if protocol.as_ref().is_some_and(|name| name.is_empty() || !name.iter().copied().all(is_token)) {
            return Err(Malformed("a :protocol that is no token"));
        }
        let uri = match (&method, &protocol) {
            (&Method::CONNECT, None) => self.authority_form()?,
            _ => self.target()?,
        };
        let length = match self.fields.get(CONTENT_LENGTH) {
            Some(length) => Some(digits(length.as_bytes())?),
            None => None,
        };
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = mem::take(&mut self.fields);
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol(protocol));
        }
        Ok(Head { request, length })
    }

    /// The target of a CONNECT (RFC 9113 §8.5).
    fn authority_form(&mut self) -> Result<Uri, Malformed> {
        if self.scheme.is_some() || self.path.is_some() {
            return Err(Malformed("a CONNECT with a :scheme or a :path"));
        }
        let mut parts = http::uri::Parts::default();
        parts.authority = Some(authority(self.authority.take().ok_or(Malformed("no :authority"))?)?);
        Uri::from_parts(parts).map_err(|_| Malformed("a malformed :authority"))
    }

    /// The target of any other request (§8.3.1). Without an authority, it has no place for the scheme, which nobody could
    /// look at later.
    fn target(&mut self) -> Result<Uri, Malformed> {
        let scheme = self.scheme.take().ok_or(Malformed("no :scheme"))?;
        let scheme = match &*scheme {
            b"" => return Err(Malformed("an empty :scheme")),
            scheme => Scheme::try_from(scheme).map_err(|_| Malformed("a malformed :scheme"))?,
        };
        let path = self.path.take().ok_or(Malformed("no :path"))?;
        if path.is_empty() {
            return Err(Malformed("an empty :path"));
        }
        // It would be cut off here, and not elsewhere.
        if memchr(b'#', &path).is_some() {
            return Err(Malformed("the request target has a fragment"));
        }
        let mut parts = http::uri::Parts::default();
        let path = PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed("a malformed :path"))?;
        parts.path_and_query = Some(path);
        if let Some(text) = self.authority.take() {
            parts.authority = Some(authority(text)?);
            parts.scheme = Some(scheme);
        } else if !matches!(scheme.as_str(), "https" | "http") {
            return Err(Malformed("the scheme is not one of HTTP"));
        }
        Uri::from_parts(parts).map_err(|_| Malformed("a malformed request target"))
    }

    /// As much as can be told of a request that is not served, for whoever reads the log.
    fn line(mut self) -> Option<Box<Request<()>>> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.take()?;
        *request.version_mut() = Version::HTTP_2;
        let mut target = || match self.authority_form() {
            Ok(uri) => Ok(uri),
            Err(_) => self.target(),
        };
        *request.uri_mut() = target().ok()?;
        Some(Box::new(request))
    }
}

const REPEATED: &str = "a pseudo-header field twice";

fn authority(text: Bytes) -> Result<Authority, Malformed> {
    Authority::from_maybe_shared(text).map_err(|_| Malformed("a malformed :authority"))
}

/// Whether a field is about one connection (§8.2.2).
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    // The length first: most names are none of these at a glance.
    match name.as_str() {
        name if name.len() == 7 => name == "upgrade",
        name if name.len() == 10 => name == "connection" || name == "keep-alive",
        name if name.len() == 16 => name == "proxy-connection",
        name if name.len() == 17 => name == "transfer-encoding",
        _ => false,
    }
}

// === impl Protocol ===

impl Protocol {
    /// The one with this name, which has to be a token.
    pub const fn new(name: &'static str) -> Self {
        Self(Bytes::from_static(name.as_bytes()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        // It is a token.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
