//! Interim answers of a backend (RFC 9110 §15.2) on their way to the client, before the final one.

use std::rc::Rc;

use http::{HeaderMap, StatusCode};

use super::{headers, http1::Channel};

/// Where the interim answers to one request go. Nowhere over HTTP/2 (hyper sends none) and to clients of
/// HTTP/1.0, which do not know them.
#[derive(Clone, Debug, Default)]
pub(super) struct Interim(Option<Rc<Channel>>);

// === impl Interim ===

impl Interim {
    /// Over this connection.
    pub(super) fn new(channel: &Rc<Channel>) -> Self {
        Self(Some(Rc::clone(channel)))
    }

    /// Passes on an interim answer, as far as the client takes them. 100 is not for the client, who is told to
    /// continue here; 101 is none.
    pub(super) fn send(&self, status: StatusCode, fields: &HeaderMap) {
        let Some(channel) = &self.0 else { return };
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        let mut fields = fields.clone();
        headers::strip_hop_by_hop(&mut fields, false);
        channel.interim(status, &fields);
    }
}
