//! Bodies that are made and checked as they flow, never held.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};

use super::BoxError;

/// The body type of every request and answer in the tests.
pub(crate) type Body = BoxBody<Bytes, BoxError>;

/// A body of these bytes, with a Content-Length.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body of these frames; chunked in HTTP/1.1.
pub(crate) fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    stream(futures_util::stream::iter(frames.into_iter().map(Ok)))
}

/// A body of what a stream yields; an error breaks it off. Chunked in HTTP/1.1.
pub(crate) fn stream(
    frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static,
) -> Body {
    // A boxed body must be Sync; only one task ever polls it, so the lock is never contended.
    let frames = std::sync::Mutex::new(Box::pin(frames));
    let frames = futures_util::stream::poll_fn(move |context| {
        frames.lock().expect("no panic under it").poll_next_unpin(context)
    });
    BodyExt::boxed(StreamBody::new(frames))
}

/// A body that sends `head`, and then neither more nor an end.
pub(crate) fn endless(head: &'static [u8]) -> Body {
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(head)))]);
    stream(first.chain(futures_util::stream::pending()))
}

/// A body of `length` bytes of [`pattern`]; `produced` counts what has been asked for.
pub(crate) fn patterned(length: u64, produced: Arc<AtomicU64>) -> Body {
    Patterned { length, at: 0, produced }.map_err(|never: Infallible| match never {}).boxed()
}

/// Reads a body to its end and checks that it is [`pattern`] from the start; its length.
pub(crate) async fn drain_pattern<B>(mut body: B) -> Result<u64, BoxError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut at = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(Into::into)?.into_data() else { continue };
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            if piece != pattern(at, piece.len()) {
                return Err(format!("the bytes from {at} are not those that were sent").into());
            }
            at += piece.len() as u64;
        }
    }
    Ok(at)
}

struct Patterned {
    length: u64,
    at: u64,
    produced: Arc<AtomicU64>,
}

impl http_body::Body for Patterned {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = usize::try_from(self.length - self.at).unwrap_or(PIECE).min(PIECE);
        if piece == 0 {
            return Poll::Ready(None);
        }
        let data = pattern(self.at, piece);
        self.at += piece as u64;
        self.produced.store(self.at, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.at)
    }
}

/// `length` bytes of the pattern from offset `at`; a view, not a copy.
fn pattern(at: u64, length: usize) -> Bytes {
    static BYTES: LazyLock<Bytes> =
        LazyLock::new(|| (0..PIECE + PERIOD).map(|i| (i % PERIOD) as u8).collect());
    let start = (at % PERIOD as u64) as usize;
    BYTES.slice(start..start + length)
}

/// Bytes of one frame.
const PIECE: usize = 64 * 1024;
/// A prime below 256, so that no power of two of bytes lost or doubled goes unseen.
const PERIOD: usize = 251;
