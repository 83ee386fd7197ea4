//! Heads of requests, and trailers (RFC 9113 §8.1-8.3), as their parts come.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};

use super::{Error, hpack::Decoder};

/// A head or trailers that are being read.
#[derive(Debug)]
pub struct Block {
    /// A representation that has not come whole.
    rest: BytesMut,
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

// === impl Block ===

impl Block {
    /// A block of which no more than `limit` bytes are taken, counted as SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub fn new(kind: Kind, limit: usize) -> Self {
        let _ = (kind, limit);
        Self { rest: BytesMut::new() }
    }

    /// Says that the block is malformed for a reason outside of it. It has to be read nevertheless.
    pub fn spoil(&mut self, rule: &'static str) {
        let _ = rule;
    }

    /// Takes the next part, the last one if `end`.
    ///
    /// # Errors
    ///
    /// Of the connection: the compression is broken, or the block much larger than allowed.
    pub fn push(&mut self, fragment: Bytes, end: bool, decoder: &mut Decoder) -> Result<(), Error> {
        let _ = (fragment, end, decoder, &self.rest);
        Ok(())
    }

    /// The head, after the last part of a request.
    ///
    /// # Errors
    ///
    /// It is malformed or too large.
    pub fn request(self) -> Result<Head, Refused> {
        Err(Refused::Malformed("not yet"))
    }

    /// The trailers, after their last part.
    ///
    /// # Errors
    ///
    /// They are malformed or too large.
    pub fn trailers(self) -> Result<HeaderMap, Refused> {
        Err(Refused::Malformed("not yet"))
    }
}

// === impl Protocol ===

impl Protocol {
    /// Its name.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}
