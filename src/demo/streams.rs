//! The shop's long answers: WebSocket, server-sent events, many bytes.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    answer::Body,
    sessions::SessionId,
    shop::{Shop, Stop},
};
use crate::clock;

/// A connection that becomes a WebSocket once the 101 is out.
pub(crate) struct Upgrade {
    pub(crate) socket: OnUpgrade,
    /// Kept alive while the socket is open.
    pub(crate) session: Option<SessionId>,
}

/// Bytes whose value is their offset modulo [`PERIOD`], so that a lost or doubled piece shows.
pub(crate) struct Pattern {
    left: u64,
}

/// One event each `every`, `count` of them, or until the client or the shop leaves.
pub(crate) fn events(
    shop: Arc<Shop>,
    session: Option<SessionId>,
    every: Duration,
    count: u64,
    stop: Stop,
) -> Body {
    let start = (interval(every), stop, 0);
    let events = stream::unfold(start, move |(mut interval, mut stop, number)| {
        let shop = Arc::clone(&shop);
        async move {
            if number == count {
                return None;
            }
            tokio::select! {
                _ = interval.tick() => {}
                () = stop.stopped() => return None,
            }
            touch(&shop, session);
            let data = json!({ "backend": shop.name(), "instance": shop.instance(), "count": number + 1 });
            let event = format!("id: {}\ndata: {data}\n\n", number + 1);
            Some((Ok(Frame::data(Bytes::from(event))), (interval, stop, number + 1)))
        }
    });
    StreamBody::new(events).boxed_unsync()
}

// === impl Upgrade ===

impl Upgrade {
    /// Says who serves, then echoes; ends with the client or with the shop.
    pub(crate) async fn serve(self, shop: &Shop, mut stop: Stop) {
        let Ok(upgraded) = self.socket.await else {
            return;
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(4 * MESSAGE_SIZE)
            .max_message_size(Some(MESSAGE_SIZE))
            .max_frame_size(Some(MESSAGE_SIZE));
        let upgraded = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        let greeting = json!({ "backend": shop.name(), "instance": shop.instance() }).to_string();
        let mut next = Some(Message::text(greeting));
        let mut alive = interval(shop.session_timeout() / 3);
        // An error of the socket needs no word: the client is gone, or broke the protocol and has
        // been told so by the library.
        loop {
            if let Some(message) = next.take()
                && socket.send(message).await.is_err()
            {
                break;
            }
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        touch(shop, self.session);
                        next = Some(Message::text(format!("{}: {text}", shop.name())));
                    }
                    Some(Ok(Message::Binary(bytes))) => {
                        touch(shop, self.session);
                        next = Some(Message::Binary(bytes));
                    }
                    // Pings and closes are answered by the library, at the next call.
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
                _ = alive.tick() => touch(shop, self.session),
                () = stop.stopped() => {
                    let away = CloseFrame { code: CloseCode::Away, reason: "the shop closes".into() };
                    let _ = socket.close(Some(away)).await;
                    break;
                }
            }
        }
        touch(shop, self.session);
    }
}

// === impl Pattern ===

impl Pattern {
    /// `count` bytes.
    pub(crate) fn new(count: u64) -> Self {
        Self { left: count }
    }
}

impl http_body::Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // Every chunk but the last is whole, and a whole one is a multiple of the period.
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK.len());
        self.left -= size as u64;
        Poll::Ready(Some(Ok(Frame::data(CHUNK.slice(..size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn touch(shop: &Shop, session: Option<SessionId>) {
    if let Some(id) = session {
        shop.sessions().touch(id, clock::now());
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
    // A client that reads slowly gets its events late, not all at once.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// A prime, so that it falls on no buffer size.
const PERIOD: usize = 251;
static CHUNK: LazyLock<Bytes> =
    LazyLock::new(|| (0..=u8::MAX).cycle().filter(|b| usize::from(*b) < PERIOD).take(256 * PERIOD).collect());
const BUFFER: usize = 4096;
const MESSAGE_SIZE: usize = 64 * 1024;
