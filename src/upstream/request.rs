//! A request as it goes to a backend: a head that is written once, however often it is sent.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method};
use http_body::Body;

use crate::http1::{
    framing::Length,
    write::{end_head, request_line},
};

/// A request on its way to a backend.
#[derive(Debug)]
pub struct Request<B> {
    method: Method,
    /// All of it, the empty line included.
    head: Bytes,
    length: Length,
    /// What it asks to switch to.
    upgrade: Option<HeaderValue>,
    body: B,
}

/// The head of a request, to be completed by its body.
#[derive(Debug)]
pub struct RequestHead {
    method: Method,
    out: BytesMut,
    upgrade: Option<HeaderValue>,
}

// === impl RequestHead ===

impl RequestHead {
    /// Begins with the request line; `target` is the request-target as it goes on the wire, `room` how many bytes of
    /// fields are to be expected.
    pub fn new(method: Method, target: &str, room: usize) -> Self {
        let mut out = BytesMut::with_capacity(method.as_str().len() + target.len() + room + 64);
        request_line(&mut out, &method, target);
        Self { method, out, upgrade: None }
    }

    /// Where its field lines go, all but those that frame the body.
    pub fn fields(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// It asks to switch to this protocol; that has been written among its fields.
    pub fn asks_for(&mut self, upgrade: HeaderValue) {
        self.upgrade = Some(upgrade);
    }

    /// Ends the head so that it tells how long the body is. `announced` says whether the client did.
    pub fn finish<B: Body>(mut self, body: B, announced: bool) -> Request<B> {
        let length = match (body.is_end_stream(), body.size_hint().exact()) {
            (false, Some(length)) => Length::Exact(length),
            (false, None) => Length::Chunked,
            // RFC 9110 §8.6: methods that usually bring content say that there is none.
            (true, _) if announced || matches!(self.method, Method::POST | Method::PUT | Method::PATCH) => {
                Length::Exact(0)
            }
            (true, _) => Length::None,
        };
        end_head(&mut self.out, length);
        Request { method: self.method, head: self.out.freeze(), length, upgrade: self.upgrade, body }
    }
}

// === impl Request ===

impl<B> Request<B> {
    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its body.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// What it asks to switch to.
    pub(super) fn upgrade(&self) -> Option<&HeaderValue> {
        self.upgrade.as_ref()
    }

    /// The same head with another body, which is framed in the same way.
    pub fn copy(&self, body: B) -> Self {
        Self {
            method: self.method.clone(),
            head: self.head.clone(),
            length: self.length,
            upgrade: self.upgrade.clone(),
            body,
        }
    }

    /// Its head, how its body is framed, and its body.
    pub(super) fn into_parts(self) -> (Bytes, Length, B) {
        (self.head, self.length, self.body)
    }
}
