//! Frames (RFC 9113 §4, §6), taken whole out of a buffer that grows.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    Code, Error, FRAME_HEAD, MAX_FRAME,
    settings::{SETTING, Settings},
};

/// One frame, without its padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A part of a body. It shares the buffer that was read into.
    Data {
        /// Never 0.
        stream: u32,
        /// The content, which may be empty.
        data: Bytes,
        /// Bytes that count for the windows: the content, and the padding with its length (§6.1).
        flow: u32,
        /// Whether the stream ends.
        end_stream: bool,
    },
    /// The beginning of a head or of trailers.
    Headers {
        /// Never 0.
        stream: u32,
        /// A part of the compressed fields. It must reach the decoder, whatever becomes of the stream.
        fragment: Bytes,
        /// Whether the stream ends.
        end_stream: bool,
        /// Whether this is the last part.
        end_headers: bool,
        /// Whether the stream is said to depend on itself, which is malformed (RFC 7540 §5.3.1).
        depends_on_itself: bool,
    },
    /// The next part of a head or of trailers; only between a [`Headers`](Frame::Headers) without its end and that end.
    Continuation {
        /// That of the beginning.
        stream: u32,
        /// A part of the compressed fields.
        fragment: Bytes,
        /// Whether this is the last part.
        end_headers: bool,
    },
    /// An order of streams, which nobody keeps any more (§5.3.2).
    Priority {
        /// Never 0.
        stream: u32,
    },
    /// The end of a stream.
    Reset {
        /// Never 0.
        stream: u32,
        /// Why.
        code: Code,
    },
    /// What the peer tells about itself, to be acknowledged.
    Settings(Settings),
    /// The peer has read our settings.
    SettingsAck,
    /// A question whether we are there, or the answer to one of ours.
    Ping {
        /// Whether it is an answer.
        ack: bool,
        /// What the answer has to repeat.
        payload: [u8; 8],
    },
    /// The peer begins nothing any more.
    GoAway {
        /// The last of our streams that it looks at.
        last: u32,
        /// Why.
        code: Code,
    },
    /// The peer takes more.
    WindowUpdate {
        /// 0 for the connection.
        stream: u32,
        /// Bytes, never 0.
        increment: u32,
    },
    /// Of a type that we do not know.
    Unknown {
        /// The type.
        kind: u8,
    },
}

/// Reads frames.
#[derive(Debug, Default)]
pub struct Reader {
    /// The stream of a head that is not whole, which nothing but its next part may follow.
    open: Option<u32>,
}

/// Types of frames (§6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Flags of frames (§6).
pub(super) mod flag {
    pub(in super::super) const ACK: u8 = 0x1;
    pub(in super::super) const END_STREAM: u8 = 0x1;
    pub(in super::super) const END_HEADERS: u8 = 0x4;
    pub(in super::super) const PADDED: u8 = 0x8;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

/// A frame's head.
#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Bytes of what a PRIORITY frame says.
const DEPENDENCY: usize = 5;

// === impl Reader ===

impl Reader {
    /// Takes the next frame out of `buffer`; none while it is not whole, with room for the rest of it reserved. The caller
    /// has taken off the preface.
    ///
    /// # Errors
    ///
    /// After an error of a stream, the frame is gone and what follows can be read; after one of the connection, nothing
    /// must be read any more.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        let Some(bytes) = buffer.first_chunk::<FRAME_HEAD>() else { return Ok(None) };
        let head = Head::read(*bytes);
        // Before the payload is waited for: it may never come.
        self.admit(&head)?;
        if buffer.len() < FRAME_HEAD + head.length {
            buffer.reserve(FRAME_HEAD + head.length - buffer.len());
            return Ok(None);
        }
        buffer.advance(FRAME_HEAD);
        let payload = buffer.split_to(head.length);
        let frame = head.frame(payload)?;
        self.open = match frame {
            Frame::Headers { stream, end_headers: false, .. }
            | Frame::Continuation { stream, end_headers: false, .. } => Some(stream),
            _ => None,
        };
        Ok(Some(frame))
    }

    /// The stream of a head that has begun and not ended.
    pub const fn open_head(&self) -> Option<u32> {
        self.open
    }

    /// What can be told of a frame by its head alone.
    fn admit(&self, head: &Head) -> Result<(), Error> {
        let connection = |code, rule| Err(Error::Connection(code, rule));
        match (self.open, head.kind) {
            (Some(stream), kind::CONTINUATION) if stream == head.stream => {}
            (Some(_), _) => {
                return connection(Code::PROTOCOL_ERROR, "another frame between the parts of a head");
            }
            (None, kind::CONTINUATION) => {
                return connection(Code::PROTOCOL_ERROR, "a CONTINUATION of nothing");
            }
            (None, _) => {}
        }
        if head.length > MAX_FRAME {
            return connection(Code::FRAME_SIZE_ERROR, "a frame larger than allowed");
        }
        let (of_stream, length) = match head.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION => (Some(true), None),
            kind::PRIORITY => (Some(true), Some(DEPENDENCY)),
            kind::RST_STREAM => (Some(true), Some(4)),
            kind::SETTINGS => (Some(false), None),
            kind::PUSH_PROMISE => {
                return connection(Code::PROTOCOL_ERROR, "a promise by a client");
            }
            kind::PING => (Some(false), Some(8)),
            kind::GOAWAY => (Some(false), None),
            kind::WINDOW_UPDATE => (None, Some(4)),
            _ => return Ok(()),
        };
        if of_stream.is_some_and(|of_stream| of_stream != (head.stream != 0)) {
            return connection(Code::PROTOCOL_ERROR, "a frame of the wrong stream");
        }
        let fits = match head.kind {
            // Errors of a stream only, which are told when the frame is whole.
            kind::PRIORITY => true,
            kind::SETTINGS if head.has(flag::ACK) => head.length == 0,
            kind::SETTINGS => head.length.is_multiple_of(SETTING),
            kind::GOAWAY => head.length >= 8,
            _ => length.is_none_or(|length| length == head.length),
        };
        if fits { Ok(()) } else { connection(Code::FRAME_SIZE_ERROR, "a frame of the wrong size") }
    }
}

// === impl Head ===

impl Head {
    fn read([a, b, c, kind, flags, stream @ ..]: [u8; FRAME_HEAD]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The reserved bit means nothing (§4.1).
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & super::MAX_STREAM }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The frame with this payload, whose length has been checked where it is fixed.
    fn frame(&self, mut payload: BytesMut) -> Result<Frame, Error> {
        let stream = self.stream;
        Ok(match self.kind {
            kind::DATA => {
                let flow = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                let padding = self.padding(&mut payload)?;
                self.cut(&mut payload, padding)?;
                Frame::Data { stream, data: payload.freeze(), flow, end_stream: self.has(flag::END_STREAM) }
            }
            kind::HEADERS => {
                let padding = self.padding(&mut payload)?;
                let mut depends_on_itself = false;
                if self.has(flag::PRIORITY) {
                    let parent = number(&payload).filter(|_| payload.len() >= DEPENDENCY);
                    let Some(parent) = parent else {
                        return Err(Error::Connection(Code::FRAME_SIZE_ERROR, "HEADERS that break off"));
                    };
                    depends_on_itself = parent & super::MAX_STREAM == stream;
                    payload.advance(DEPENDENCY);
                }
                self.cut(&mut payload, padding)?;
                Frame::Headers {
                    stream,
                    fragment: payload.freeze(),
                    end_stream: self.has(flag::END_STREAM),
                    end_headers: self.has(flag::END_HEADERS),
                    depends_on_itself,
                }
            }
            kind::CONTINUATION => Frame::Continuation {
                stream,
                fragment: payload.freeze(),
                end_headers: self.has(flag::END_HEADERS),
            },
            kind::PRIORITY if payload.len() != DEPENDENCY => {
                return Err(Error::Stream(stream, Code::FRAME_SIZE_ERROR, "PRIORITY of the wrong size"));
            }
            kind::PRIORITY => Frame::Priority { stream },
            kind::RST_STREAM => Frame::Reset { stream, code: Code(number(&payload).unwrap_or_default()) },
            kind::SETTINGS if self.has(flag::ACK) => Frame::SettingsAck,
            kind::SETTINGS => Frame::Settings(Settings::read(&payload)?),
            kind::PING => {
                let payload = payload.first_chunk().copied().unwrap_or_default();
                Frame::Ping { ack: self.has(flag::ACK), payload }
            }
            kind::GOAWAY => Frame::GoAway {
                last: number(&payload).unwrap_or_default() & super::MAX_STREAM,
                code: Code(number(&payload[4..]).unwrap_or_default()),
            },
            kind::WINDOW_UPDATE => {
                let increment = number(&payload).unwrap_or_default() & super::MAX_WINDOW;
                match (stream, increment) {
                    (0, 0) => {
                        let rule = "the connection's window grows by nothing";
                        return Err(Error::Connection(Code::PROTOCOL_ERROR, rule));
                    }
                    (stream, 0) => {
                        return Err(Error::Stream(stream, Code::PROTOCOL_ERROR, "a window grows by nothing"));
                    }
                    _ => Frame::WindowUpdate { stream, increment },
                }
            }
            kind => Frame::Unknown { kind },
        })
    }

    /// Takes off the length of the padding.
    fn padding(&self, payload: &mut BytesMut) -> Result<usize, Error> {
        if !self.has(flag::PADDED) {
            return Ok(0);
        }
        let Some(length) = payload.first().copied() else {
            return Err(Error::Connection(Code::FRAME_SIZE_ERROR, "padding without a length"));
        };
        payload.advance(1);
        Ok(usize::from(length))
    }

    /// Takes off the padding, whatever is in it (§6.1 lets us).
    fn cut(&self, payload: &mut BytesMut, padding: usize) -> Result<(), Error> {
        let Some(length) = payload.len().checked_sub(padding) else {
            return Err(Error::Connection(Code::PROTOCOL_ERROR, "more padding than there is"));
        };
        payload.truncate(length);
        Ok(())
    }
}

/// The number that bytes begin with.
fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
