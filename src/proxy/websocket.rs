//! Just enough of RFC 6455 to end a WebSocket between two frames instead of in the middle of one.

use crate::config::CloseCode;

/// Follows one direction of a WebSocket and knows where its frames end (RFC 6455 §5.2). Payloads are not
/// looked at.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The header being read.
    header: [u8; 2],
    /// Bytes of it seen so far, the extended length included.
    seen: usize,
    /// Extended length, while it is read.
    length: u64,
    /// Bytes of masking key and payload still to come.
    left: u64,
}

/// A close frame of a server, with this code (RFC 6455 §5.5.1).
pub(super) fn close(code: CloseCode) -> [u8; 4] {
    let [high, low] = code.get().to_be_bytes();
    [0x88, 0x02, high, low]
}

const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7F;
/// Bytes of a masking key.
const KEY: u64 = 4;

// === impl Frames ===

impl Frames {
    /// These bytes have passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            bytes = rest;
            match self.seen {
                0 | 1 => self.header[self.seen] = byte,
                _ => self.length = self.length << 8 | u64::from(byte),
            }
            self.seen += 1;
            self.complete();
        }
    }

    /// Whether a frame could begin here.
    pub(super) fn between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }

    /// Goes on to the payload when the header is whole.
    fn complete(&mut self) {
        if self.seen < 2 {
            return;
        }
        let short = self.header[1] & LENGTH;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.seen < 2 + extended {
            return;
        }
        let payload = if extended == 0 { u64::from(short) } else { self.length };
        let key = if self.header[1] & MASKED == 0 { 0 } else { KEY };
        *self = Self { left: payload.saturating_add(key), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut frame = vec![0x82];
        match length {
            0..=125 => frame.push(mask | length as u8),
            126..=65_535 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length + if masked { 4 } else { 0 }, 0xFF);
        frame
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_cut(
            lengths in prop::collection::vec((prop_oneof![0..130_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
            cut in 1..4000_usize,
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (length, masked) in lengths {
                bytes.extend(frame(length, masked));
                ends.push(bytes.len());
            }
            let mut frames = Frames::default();
            let mut passed = 0;
            for piece in bytes.chunks(cut) {
                frames.pass(piece);
                passed += piece.len();
                prop_assert_eq!(frames.between(), ends.contains(&passed));
            }
        }
    }

    #[test]
    fn a_frame_of_any_claimed_length_does_not_overflow() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
        assert!(!frames.between());
    }
}
