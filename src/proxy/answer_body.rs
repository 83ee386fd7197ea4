//! An answer's body on its way to the client: counted, and given up when nothing moves.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    Worker,
    answers::{Progress, Tracked},
    record::Record,
    request_body::RequestBody,
    stall::Stall,
    stream::Holding,
};
use crate::{
    backend::{Evidence, InFlight},
    error::Fault,
    upstream::{self, Finish},
};

/// An answer's body on its way to the client.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// Made here, or there is none.
    Whole(Option<Bytes>),
    /// The backend's.
    Passing(Box<Answer>),
}

/// A backend's answer on its way to the client, and all that must happen once when it ends.
#[derive(Debug)]
pub(super) struct Answer {
    /// Gives back its connection when the whole answer has passed; closes it otherwise.
    pub(super) body: Box<upstream::Body<RequestBody>>,
    pub(super) keep_alive: usize,
    pub(super) record: Record,
    pub(super) worker: Rc<Worker>,
    pub(super) stall: Stall,
    pub(super) tracked: Tracked,
    pub(super) holding: Holding,
    pub(super) in_flight: Option<InFlight>,
}

// === impl AnswerBody ===

impl AnswerBody {
    /// How far the client is with it, where that is watched.
    pub(super) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Whole(_) => None,
            Self::Passing(answer) => Some(Rc::clone(answer.tracked.progress())),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passing(answer) => answer.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Passing(answer) => answer.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passing(answer) => answer.body.size_hint(),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.tracked.taken();
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.stall.poll(cx));
                return self.cut();
            }
        };
        self.stall.progress();
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                self.tracked.handed(frame.data_ref().map_or(0, Bytes::len));
                if let Some(data) = frame.data_ref() {
                    self.holding.passed(data.len());
                    self.record.sent(data.len() as u64);
                }
                // Whoever asks may drop a body after its trailers without asking for its end.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => self.cut(),
        }
    }

    /// The backend broke off, or stands still. The client must see a cut, never a complete message: an
    /// error here resets the stream, or closes the connection without the final chunk.
    fn cut(&mut self) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.record.broken(Fault::AnswerCut);
        if let Some(in_flight) = &self.in_flight {
            in_flight.backend().passed(Evidence::Broken);
        }
        Poll::Ready(Some(Err(Fault::AnswerCut)))
    }

    /// The whole answer has passed. The connection is of use again only if the request has, too; an upload goes on
    /// as long as its backend takes it, and keeps its place there.
    pub(super) fn end(&mut self) {
        self.record.complete();
        let in_flight = self.in_flight.take();
        self.holding = Holding::Not;
        let keep = self.keep_alive;
        match self.body.finish() {
            Finish::Whole(connection) => self.worker.upstream.give_back(connection, keep),
            Finish::Sending(upload) => {
                let worker = Rc::clone(&self.worker);
                let limit = worker.world.snapshot.load().config.timeouts.body;
                tokio::task::spawn_local(async move {
                    let _place = in_flight;
                    if let Some(connection) = upload.run(limit).await {
                        worker.upstream.give_back(connection, keep);
                    }
                });
            }
            Finish::Closed => {}
        }
    }
}
