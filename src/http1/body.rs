//! Where a message's body ends (RFC 9112 §6.3), as pure state over a buffer of received bytes.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{
    chunked::{Decoder, Forbidden},
    fields::Malformed,
    framing::Length,
};

/// Takes one message's body out of a buffer, and not a byte of what follows it.
#[derive(Debug)]
pub struct BodyReader(State);

/// What a buffer holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A part of the content, never empty.
    Data(Bytes),
    /// The fields after the last chunk; at most once, and followed by the end.
    Trailers(HeaderMap),
    /// The body is whole; what is left in the buffer does not belong to it.
    End,
    /// More bytes are needed.
    More,
}

#[derive(Debug)]
enum State {
    /// This many bytes are to come.
    Exact(u64),
    Chunked(Decoder),
    UntilClose,
    Ended,
}

// === impl BodyReader ===

impl BodyReader {
    /// A reader of a body that is framed like this.
    pub const fn new(length: Length, forbidden: Forbidden) -> Self {
        Self(match length {
            Length::None | Length::Exact(0) => State::Ended,
            Length::Exact(length) => State::Exact(length),
            Length::Chunked => State::Chunked(Decoder::new(forbidden)),
            Length::UntilClose => State::UntilClose,
        })
    }

    /// Takes the next part out of `buffer`.
    ///
    /// # Errors
    ///
    /// When chunks are malformed; the reader must not be used any more.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        match &mut self.0 {
            State::Ended => Ok(Step::End),
            _ if buffer.is_empty() => Ok(Step::More),
            State::Exact(left) => {
                let take = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                *left -= take as u64;
                if *left == 0 {
                    self.0 = State::Ended;
                }
                Ok(Step::Data(buffer.split_to(take).freeze()))
            }
            State::Chunked(decoder) => {
                let step = decoder.step(buffer)?;
                if decoder.is_ended() {
                    self.0 = State::Ended;
                }
                Ok(step)
            }
            State::UntilClose => Ok(Step::Data(buffer.split().freeze())),
        }
    }

    /// Tells that the peer has ended its side, with nothing left in the buffer that [`step`](Self::step)
    /// would take.
    ///
    /// # Errors
    ///
    /// When the body is not whole.
    pub fn close(&mut self) -> Result<(), Malformed> {
        match self.0 {
            State::Ended => Ok(()),
            State::UntilClose => {
                self.0 = State::Ended;
                Ok(())
            }
            State::Exact(_) | State::Chunked(_) => Err(Malformed("the body broke off")),
        }
    }

    /// Whether the body is whole.
    pub const fn is_ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }

    /// Whether the body ends with the connection.
    pub const fn is_until_close(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Bytes that are still to come, where that is known.
    pub const fn left(&self) -> Option<u64> {
        match self.0 {
            State::Exact(left) => Some(left),
            State::Ended => Some(0),
            State::Chunked(_) | State::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(length: Length) -> BodyReader {
        BodyReader::new(length, Forbidden::Refuse)
    }

    #[test]
    fn an_exact_body_takes_its_bytes_and_no_more() {
        let mut reader = reader(Length::Exact(5));
        let mut buffer = BytesMut::from("hel");
        assert_eq!(reader.step(&mut buffer), Ok(Step::Data(Bytes::from("hel"))));
        assert_eq!((reader.step(&mut buffer), reader.left()), (Ok(Step::More), Some(2)));
        buffer.extend_from_slice(b"loNEXT");
        assert_eq!(reader.step(&mut buffer), Ok(Step::Data(Bytes::from("lo"))));
        assert_eq!(reader.step(&mut buffer), Ok(Step::End));
        assert_eq!(&buffer[..], b"NEXT");
    }

    #[test]
    fn no_body_leaves_the_buffer_alone() {
        for length in [Length::None, Length::Exact(0)] {
            let mut buffer = BytesMut::from("NEXT");
            assert_eq!(reader(length).step(&mut buffer), Ok(Step::End));
            assert_eq!(&buffer[..], b"NEXT");
        }
    }

    #[test]
    fn only_a_body_that_ends_with_the_connection_may_end_with_it() {
        assert_eq!(reader(Length::UntilClose).close(), Ok(()));
        assert_eq!(reader(Length::None).close(), Ok(()));
        assert!(reader(Length::Exact(1)).close().is_err());
        assert!(reader(Length::Chunked).close().is_err());
    }

    #[test]
    fn a_body_until_the_close_takes_everything() {
        let mut reader = reader(Length::UntilClose);
        let mut buffer = BytesMut::from("all");
        assert_eq!(reader.step(&mut buffer), Ok(Step::Data(Bytes::from("all"))));
        assert_eq!(reader.step(&mut buffer), Ok(Step::More));
        reader.close().unwrap();
        assert_eq!(reader.step(&mut buffer), Ok(Step::End));
    }

    #[test]
    fn a_chunked_body_ends_with_its_trailers() {
        let mut reader = reader(Length::Chunked);
        let mut buffer = BytesMut::from("1\r\na\r\n0\r\nX: y\r\n\r\nNEXT");
        assert_eq!(reader.step(&mut buffer), Ok(Step::Data(Bytes::from("a"))));
        assert!(matches!(reader.step(&mut buffer), Ok(Step::Trailers(_))));
        assert!(reader.is_ended());
        assert_eq!(reader.step(&mut buffer), Ok(Step::End));
        assert_eq!(&buffer[..], b"NEXT");
    }
}
