//! What each side tells the other about itself (RFC 9113 §6.5).

use super::{Code, Error, MAX_WINDOW};

/// What a SETTINGS frame says; none where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the dynamic table that the sender keeps for what it receives.
    pub header_table_size: Option<u32>,
    /// Whether the sender takes promises.
    pub enable_push: Option<bool>,
    /// Streams that the receiver may have open.
    pub max_concurrent_streams: Option<u32>,
    /// The window of each stream towards the sender.
    pub initial_window_size: Option<u32>,
    /// Bytes of a frame's payload that the sender takes.
    pub max_frame_size: Option<u32>,
    /// Bytes of a head, unpacked, that the sender takes.
    pub max_header_list_size: Option<u32>,
    /// Whether the sender takes CONNECT with a protocol (RFC 8441 §3).
    pub enable_connect_protocol: Option<bool>,
    /// Whether the sender says nothing by the priorities of RFC 7540 (RFC 9218 §2.1).
    pub no_rfc7540_priorities: Option<bool>,
}

/// Bytes of one setting.
pub(super) const SETTING: usize = 6;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
const NO_RFC7540_PRIORITIES: u16 = 9;

// === impl Settings ===

impl Settings {
    /// Reads a payload. Of what is said twice, the last counts; what is unknown is ignored.
    ///
    /// # Errors
    ///
    /// Values that a setting cannot have. They are errors of the connection.
    pub(super) fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut settings = Self::default();
        let (entries, rest) = payload.as_chunks::<SETTING>();
        if !rest.is_empty() {
            return Err(Error::Connection(Code::FRAME_SIZE_ERROR, "SETTINGS that break off"));
        }
        for &[a, b, value @ ..] in entries {
            settings.set(u16::from_be_bytes([a, b]), u32::from_be_bytes(value))?;
        }
        Ok(settings)
    }

    fn set(&mut self, id: u16, value: u32) -> Result<(), Error> {
        let flag = |rule| match value {
            0 => Ok(Some(false)),
            1 => Ok(Some(true)),
            _ => Err(Error::Connection(Code::PROTOCOL_ERROR, rule)),
        };
        match id {
            HEADER_TABLE_SIZE => self.header_table_size = Some(value),
            ENABLE_PUSH => self.enable_push = flag("ENABLE_PUSH is neither 0 nor 1")?,
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = Some(value),
            INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(Error::Connection(Code::FLOW_CONTROL_ERROR, "a window beyond the largest"));
            }
            INITIAL_WINDOW_SIZE => self.initial_window_size = Some(value),
            MAX_FRAME_SIZE if !(0x4000..=0xff_ffff).contains(&value) => {
                return Err(Error::Connection(Code::PROTOCOL_ERROR, "MAX_FRAME_SIZE out of its range"));
            }
            MAX_FRAME_SIZE => self.max_frame_size = Some(value),
            MAX_HEADER_LIST_SIZE => self.max_header_list_size = Some(value),
            ENABLE_CONNECT_PROTOCOL => {
                self.enable_connect_protocol = flag("ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")?;
            }
            NO_RFC7540_PRIORITIES => {
                self.no_rfc7540_priorities = flag("NO_RFC7540_PRIORITIES is neither 0 nor 1")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What is said, in the order of the identifiers.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u16, u32)> {
        [
            (HEADER_TABLE_SIZE, self.header_table_size),
            (ENABLE_PUSH, self.enable_push.map(u32::from)),
            (MAX_CONCURRENT_STREAMS, self.max_concurrent_streams),
            (INITIAL_WINDOW_SIZE, self.initial_window_size),
            (MAX_FRAME_SIZE, self.max_frame_size),
            (MAX_HEADER_LIST_SIZE, self.max_header_list_size),
            (ENABLE_CONNECT_PROTOCOL, self.enable_connect_protocol.map(u32::from)),
            (NO_RFC7540_PRIORITIES, self.no_rfc7540_priorities.map(u32::from)),
        ]
        .into_iter()
        .filter_map(|(id, value)| Some((id, value?)))
    }
}
