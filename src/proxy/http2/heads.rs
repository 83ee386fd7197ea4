//! Heads of requests and trailers: what begins a stream, and what ends one.

use bytes::Bytes;
use http::{Method, Request, Version, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    STREAM_WINDOW,
    channel::{Body, Channel},
    connection::{Connection, Farewell, PLACES},
    incoming::Stop,
    stream::{Answering, State, Stream},
};
use crate::{
    error::Fault,
    http2::{
        Code,
        head::{Block, Head, Kind as Part, Refused},
        write,
    },
    proxy::{flood::Kind, request_body::Incoming, service},
};

/// A head or trailers of which not all frames have come.
pub(super) struct HalfHead {
    stream: u32,
    block: Block,
    purpose: Purpose,
    /// Whether nothing follows them.
    end: bool,
}

/// What a head is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Request,
    Trailers,
    /// The stream is one too many.
    Refuse,
    /// The stream is closed.
    Nothing,
}

/// What a stream depends on of its request.
struct Asked {
    end: bool,
    length: Option<u64>,
    expects: bool,
    head: bool,
}

/// In the place of a request of which nothing could be read.
fn unread() -> Box<Request<()>> {
    Request::builder().method("-").uri("-").body(()).map(Box::new).unwrap_or_default()
}

// === impl Connection ===

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<'_, IO> {
    pub(super) fn headers(
        &mut self,
        number: u32,
        fragment: Bytes,
        end: bool,
        whole: bool,
        depends_on_itself: bool,
    ) -> Result<(), Stop> {
        let purpose = if self.streams.find(number).is_some() {
            Purpose::Trailers
        } else if number.is_multiple_of(2) {
            return Err(Stop::broken(Code::PROTOCOL_ERROR, "a client begins a stream of an even number"));
        } else if number <= self.last {
            self.count(Kind::Crossed)?;
            Purpose::Nothing
        } else {
            self.last = number;
            if let Farewell::Said(_) = self.farewell {
                // It has been told that this would not be looked at.
                self.count(Kind::Crossed)?;
                Purpose::Nothing
            } else {
                self.meter.request();
                if self.has_place() { Purpose::Request } else { Purpose::Refuse }
            }
        };
        let part = match purpose {
            Purpose::Request => Part::Request,
            Purpose::Trailers => Part::Trailers,
            Purpose::Refuse | Purpose::Nothing => Part::Nothing,
        };
        let mut block = Block::new(part, self.list_limit);
        if depends_on_itself {
            block.spoil("a stream that depends on itself");
        }
        self.more(HalfHead { stream: number, block, purpose, end }, fragment, whole)
    }

    /// Whether one more stream may be open.
    fn has_place(&mut self) -> bool {
        let all = self.streams.len();
        if all < self.most {
            return true;
        }
        let open = self.streams.each().filter(|(_, stream)| stream.is_open()).count();
        open < self.most && all < self.most * PLACES
    }

    /// A part of a head.
    pub(super) fn more(&mut self, mut head: HalfHead, fragment: Bytes, whole: bool) -> Result<(), Stop> {
        head.block.push(fragment, whole, &mut self.decoder).map_err(Stop::Broken)?;
        if !whole {
            if self.head_by.is_none() {
                self.await_head();
            }
            self.head = Some(head);
            return Ok(());
        }
        self.head_by = None;
        match head.purpose {
            Purpose::Request => self.request(head),
            Purpose::Trailers => self.trailers(head),
            Purpose::Refuse => {
                self.count(Kind::Broken)?;
                self.output.frames(|out| write::reset(out, head.stream, Code::REFUSED_STREAM));
                Ok(())
            }
            Purpose::Nothing => Ok(()),
        }
    }

    /// A request's head is whole.
    fn request(&mut self, head: HalfHead) -> Result<(), Stop> {
        let HalfHead { stream: number, block, end, .. } = head;
        let (request, length) = match block.request() {
            Ok(Head { length: Some(1..), .. }) if end => {
                return self.refuse(number, "a length, but no body");
            }
            Ok(Head { request, length }) => (request, length),
            Err(Refused::Malformed(rule)) => return self.refuse(number, rule),
            Err(Refused::TooLarge(line)) => {
                let mut line = line.unwrap_or_else(unread);
                *line.version_mut() = Version::HTTP_2;
                let asked = Asked { end, length: None, expects: false, head: *line.method() == Method::HEAD };
                let place = self.begin(number, &asked, false);
                let response = service::refuse(self.client, Fault::HeadTooLarge, Some(line));
                if let Some(stream) = self.streams.at(place) {
                    stream.channel.abandon();
                    stream.state = State::Answering(Answering::new(response, asked.head, &stream.waker));
                }
                self.tend(place);
                return Ok(());
            }
        };
        let connects = *request.method() == Method::CONNECT;
        let expects = request.headers().get(header::EXPECT);
        let expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let asked = Asked { end, length, expects, head: *request.method() == Method::HEAD };
        let place = self.begin(number, &asked, connects);
        let client = self.client;
        if let Some(stream) = self.streams.at(place) {
            let body = if connects { Body::none(&stream.channel) } else { Body::new(&stream.channel) };
            let mut request = request.map(|()| Incoming::Http2(body));
            *request.version_mut() = Version::HTTP_2;
            stream.state = State::Serving(Box::pin(service::serve(client.clone(), request)));
        }
        self.ready.mark(place);
        Ok(())
    }

    /// A stream begins.
    fn begin(&mut self, number: u32, asked: &Asked, connects: bool) -> usize {
        let window = self.initial;
        self.streams.insert(number, &self.ready, |waker| Stream {
            number,
            state: State::Said,
            channel: Channel::new(waker.clone(), asked.end, asked.length, asked.expects),
            waker,
            window,
            receives: i64::from(STREAM_WINDOW),
            held: 0,
            credit: 0,
            // What comes on a tunnel has no end that could be known.
            expected: asked.length.filter(|_| !connects),
            discarded: 0,
            received: asked.end,
            in_line: false,
            parked: false,
            head: asked.head,
            connects,
            linger: None,
        })
    }

    /// The head of a stream is malformed.
    fn refuse(&mut self, number: u32, rule: &'static str) -> Result<(), Stop> {
        self.stream_error(number, Code::PROTOCOL_ERROR, rule)
    }

    fn trailers(&mut self, head: HalfHead) -> Result<(), Stop> {
        let HalfHead { stream: number, block, end, .. } = head;
        let trailers = block.trailers();
        let Some(stream) = self.streams.find(number).and_then(|place| self.streams.at(place)) else {
            return Ok(());
        };
        if stream.received {
            return self.stream_error(number, Code::STREAM_CLOSED, "a head after the end");
        }
        if !end {
            return self.refuse(number, "trailers that do not end the stream");
        }
        match trailers {
            Ok(trailers) if stream.expected.unwrap_or(0) == 0 => self.end(number, trailers),
            Ok(_) => return self.refuse(number, "less than the announced length"),
            Err(Refused::Malformed(rule)) => return self.refuse(number, rule),
            Err(Refused::TooLarge(_)) => return self.refuse(number, "trailers larger than allowed"),
        }
        Ok(())
    }
}
