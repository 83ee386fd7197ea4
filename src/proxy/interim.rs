//! Interim answers of a backend (RFC 9110 §15.2) on their way to the client, before the final one.

use std::rc::Rc;

use http::{HeaderMap, StatusCode};

use super::{headers, http1, http2};

/// Where the interim answers to one request go.
#[derive(Clone, Debug)]
pub(super) enum Interim {
    /// To clients of HTTP/1.1; those of HTTP/1.0 do not know them.
    Http1(Rc<http1::Channel>),
    /// To the client of a stream.
    Http2(Rc<http2::Channel>),
}

/// Interim answers that are passed on for one request, and bytes of those that its client has not taken: more are left
/// out, which they may always be (RFC 9110 §15.2).
pub(super) const MAX_COUNT: u32 = 16;
pub(super) const MAX_BYTES: usize = 16 * 1024;

// === impl Interim ===

impl Interim {
    /// Passes on an interim answer, as far as the client takes them. 100 is not for the client, who is told to
    /// continue here; 101 is none.
    pub(super) fn send(&self, status: StatusCode, fields: &HeaderMap) {
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        let mut fields = fields.clone();
        headers::strip_hop_by_hop(&mut fields, false);
        match self {
            Self::Http1(channel) => channel.interim(status, &fields),
            Self::Http2(channel) => channel.interim(status, fields),
        }
    }
}
