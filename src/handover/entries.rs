//! Bindings as bytes, many to a frame: this is done a million times, so it is no JSON.
//!
//! A frame is the name of a pool and then entries until its end: the key (16 bytes), a byte for what follows,
//! and that. Numbers are big endian; names are a length (u16) and their bytes.

use std::{io, time::Duration};

use super::link::MAX_FRAME;
use crate::{
    affinity::{Scope, SessionKey},
    clock::millis,
    store::{Entry, Session},
};

/// A frame of entries in the making.
#[derive(Debug)]
pub(super) struct Entries {
    payload: Vec<u8>,
    /// Bytes before the first entry.
    begin: usize,
}

/// Reads the entries of a frame.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// A frame that has grown to this is sent.
const FULL: usize = 64 * 1024;
const _: () = assert!(FULL + 2 * (1 << 16) + 128 < MAX_FRAME, "a full frame and one more entry are a frame");

const SESSION: u8 = 0;
const RENAMED: u8 = 1;
const ENDED: u8 = 2;
const GONE: u8 = 3;

/// Flags of a session.
const MOVED: u8 = 1;
const OWN_TTL: u8 = 2;
const UNLEARNED: u8 = 4;

// === impl Entries ===

impl Entries {
    /// No entry yet, of this pool. `number` comes before all else, in questions and answers.
    pub(super) fn new(number: Option<u64>, pool: &str) -> Self {
        let mut payload = Vec::with_capacity(FULL + 1024);
        if let Some(number) = number {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        put_name(&mut payload, pool);
        Self { begin: payload.len(), payload }
    }

    /// Adds one; whether the frame should be sent now.
    pub(super) fn add(&mut self, key: SessionKey, entry: &Entry) -> bool {
        let out = &mut self.payload;
        out.extend_from_slice(&key.to_bytes());
        match entry {
            Entry::Session(session) => {
                out.push(SESSION);
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                out.push(
                    flag(session.from.is_some(), MOVED)
                        | flag(session.ttl.is_some(), OWN_TTL)
                        | flag(session.unlearned, UNLEARNED),
                );
                out.extend_from_slice(&session.scope.to_bits().to_be_bytes());
                put_name(out, &session.home);
                for number in [session.instance, session.created, session.placed, session.seen] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                if let Some(from) = &session.from {
                    put_name(out, from);
                }
                if let Some(ttl) = session.ttl {
                    out.extend_from_slice(&millis(ttl).to_be_bytes());
                }
            }
            Entry::Renamed { to, until } => {
                out.push(RENAMED);
                out.extend_from_slice(&to.to_bytes());
                out.extend_from_slice(&until.to_be_bytes());
            }
            Entry::Ended { home, until } => {
                out.push(ENDED);
                out.extend_from_slice(&until.to_be_bytes());
                put_name(out, home);
            }
            Entry::Gone => out.push(GONE),
        }
        out.len() >= FULL
    }

    /// The frame, if there is anything in it; the next one begins empty.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        if self.payload.len() == self.begin {
            return None;
        }
        let next = self.payload[..self.begin].to_vec();
        Some(std::mem::replace(&mut self.payload, next))
    }
}

/// Names are far shorter than this; one that is not is cut, which no backend is called then.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&name.as_bytes()[..usize::from(length)]);
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Of this payload.
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The number of a question.
    pub(super) fn number(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A name: of the pool, before all entries.
    pub(super) fn name(&mut self) -> io::Result<&'a str> {
        let length = usize::from(self.array().map(u16::from_be_bytes)?);
        let (name, rest) = self.rest.split_at_checked(length).ok_or_else(malformed)?;
        self.rest = rest;
        std::str::from_utf8(name).map_err(|_| malformed())
    }

    /// Whether all has been read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next entry; none when there is no more.
    pub(super) fn entry(&mut self) -> io::Result<Option<(SessionKey, Entry)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = SessionKey::from_bytes(self.array()?);
        let entry = match self.byte()? {
            SESSION => Entry::Session(self.session()?),
            RENAMED => {
                let to = SessionKey::from_bytes(self.array()?);
                Entry::Renamed { to, until: self.number()? }
            }
            ENDED => Entry::Ended { until: self.number()?, home: self.name()?.into() },
            GONE => Entry::Gone,
            _ => return Err(malformed()),
        };
        Ok(Some((key, entry)))
    }

    fn session(&mut self) -> io::Result<Session> {
        let flags = self.byte()?;
        let scope = Scope::from_bits(self.array().map(u16::from_be_bytes)?);
        Ok(Session {
            scope,
            home: self.name()?.into(),
            instance: self.number()?,
            created: self.number()?,
            placed: self.number()?,
            seen: self.number()?,
            from: if flags & MOVED == 0 { None } else { Some(self.name()?.into()) },
            ttl: if flags & OWN_TTL == 0 { None } else { Some(Duration::from_millis(self.number()?)) },
            unlearned: flags & UNLEARNED != 0,
        })
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> io::Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// The next bytes.
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(malformed)?;
        self.rest = rest;
        Ok(*array)
    }
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "entries that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SessionKey {
        SessionKey::from_bytes([n; 16])
    }

    fn session(n: u64) -> Entry {
        Entry::Session(Session {
            home: "app-1".into(),
            instance: n,
            from: (n % 2 == 1).then(|| "app-2".into()),
            created: 1_000 + n,
            placed: 2_000 + n,
            seen: 3_000 + n,
            ttl: (n % 3 == 1).then(|| Duration::from_secs(n)),
            unlearned: n % 5 == 1,
            scope: Scope::from_bits((n % 4) as u16),
        })
    }

    fn read(payload: &[u8]) -> io::Result<(String, Vec<(SessionKey, Entry)>)> {
        let mut reader = Reader::new(payload);
        let pool = reader.name()?.to_owned();
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry()? {
            entries.push(entry);
        }
        Ok((pool, entries))
    }

    fn all() -> Vec<(SessionKey, Entry)> {
        let mut all: Vec<_> = (0..30).map(|n| (key(n), session(u64::from(n)))).collect();
        all.push((key(100), Entry::Renamed { to: key(1), until: 7 }));
        all.push((key(101), Entry::Ended { home: "app-1".into(), until: 8 }));
        all.push((key(102), Entry::Gone));
        all
    }

    #[test]
    fn what_is_written_is_read() {
        let mut entries = Entries::new(None, "shop");
        for (key, entry) in &all() {
            assert!(!entries.add(*key, entry));
        }
        assert_eq!(read(&entries.take().unwrap()).unwrap(), ("shop".to_owned(), all()));
        assert_eq!(entries.take(), None, "it begins anew");
        entries.add(key(1), &Entry::Gone);
        assert_eq!(read(&entries.take().unwrap()).unwrap().1, [(key(1), Entry::Gone)]);
    }

    #[test]
    fn a_frame_says_when_it_is_full() {
        let mut entries = Entries::new(None, "shop");
        let count = (0..).take_while(|n| !entries.add(key(1), &session(*n))).count();
        assert!(count > 500, "{count}");
        assert!(entries.take().unwrap().len() < MAX_FRAME);
    }

    #[test]
    fn what_is_cut_or_made_up_is_refused_at_any_place() {
        let mut entries = Entries::new(None, "shop");
        let whole: Vec<_> = all().into_iter().take(3).collect();
        let mut ends = vec![entries.payload.len()];
        for (key, entry) in &whole {
            entries.add(*key, entry);
            ends.push(entries.payload.len());
        }
        let payload = entries.take().unwrap();
        for cut in (0..payload.len()).filter(|cut| !ends.contains(cut)) {
            assert!(read(&payload[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = payload;
        other[ends[0] + 16] = 99;
        assert!(read(&other).is_err());
    }
}
