//! An answer's body as h2 is given it, which keeps what its client has not taken.
//!
//! h2 takes a part as soon as the client's window has room for one byte of it, and a body is dropped with its last
//! part: what waits then is watched by nobody. So the last part is a small one, for which h2 asks when the client has
//! taken those before. And a part must not hold more memory than the bytes that it counts for: h2 keeps thousands.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::answer_body::AnswerBody;
use crate::error::Fault;

/// An answer's body on its way into h2.
#[derive(Debug)]
pub(super) struct Body {
    answer: AnswerBody,
    /// The end of the part before.
    last: Option<Bytes>,
}

/// Parts up to this size are copied out of the buffer that was read into, which is at least twice as large.
const COPIED: usize = 16 * 1024;
/// The end of a larger part may go out by itself; of a smaller one, a frame more would cost as much as the part.
const WHOLE: usize = 8 * 1024;
/// Bytes of the end of a part.
const LAST: usize = 1024;

// === impl Body ===

impl Body {
    pub(super) fn new(answer: AnswerBody) -> Self {
        Self { answer, last: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        let frame = match ready!(Pin::new(&mut this.answer).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                // Where nobody knows how much is to come, each may be the end.
                let ends = || this.answer.size_hint().exact().is_none_or(|left| left == 0);
                if data.len() > WHOLE && ends() {
                    this.last = Some(Bytes::copy_from_slice(&data.split_off(data.len() - LAST)));
                }
                let small = data.len() <= COPIED;
                Frame::data(if small { Bytes::copy_from_slice(&data) } else { data })
            }
            Err(trailers) => trailers,
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.answer.size_hint();
        if let (Some(last), Some(left)) = (&self.last, hint.exact()) {
            hint.set_exact(left + last.len() as u64);
        }
        hint
    }
}
