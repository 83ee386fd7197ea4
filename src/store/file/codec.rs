//! What the values of the state file look like: a few bytes for each binding.
//!
//! Numbers are LEB128, backends are numbers of the `backends` table, times are Unix milliseconds, the later
//! ones of a binding as differences to the first. What is read is not trusted: one spelling for each value,
//! no byte too many, nothing out of range.

use std::time::Duration;

use crate::clock;

/// A binding; `home` and `from` are numbers of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// Where the session lives.
    pub(super) home: u32,
    /// Hash of the instance that has it; 0 for unknown.
    pub(super) instance: u64,
    /// The home before.
    pub(super) from: Option<u32>,
    /// When it was bound, came to its home, was last seen.
    pub(super) created: u64,
    pub(super) placed: u64,
    pub(super) seen: u64,
    /// A TTL of its own.
    pub(super) ttl: Option<Duration>,
    /// Whether the application has never set it here.
    pub(super) unlearned: bool,
    /// Which of the client's cookies holds its id; 0 for unknown.
    pub(super) scope: u16,
}

/// What is left of an id that was replaced or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    /// It leads to this key.
    Renamed { to: [u8; 16], until: u64 },
    /// Requests that were under way still go to this backend.
    Ended { home: u32, until: u64 },
}

/// A backend: what its number stands for, and what survives of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The number of its pool.
    pub(super) pool: u16,
    /// Its name.
    pub(super) name: Box<str>,
    /// Hash of the latest instance that answered under its name; 0 for unknown.
    pub(super) instance: u64,
    /// Since when that one is known; 0 when none is.
    pub(super) since: u64,
    /// What operators want of it.
    pub(super) steered: Steered,
}

/// What operators want of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Steered {
    /// That it takes no new sessions, or serves nobody.
    pub(super) admin: Wish,
    /// When a drain ends in maintenance.
    pub(super) deadline: Option<u64>,
    /// Another weight than the configured one.
    pub(super) weight: Option<Weight>,
}

/// What a backend is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// Take new sessions.
    #[default]
    Ready,
    /// Keep its own.
    Draining,
    /// Serve nobody.
    Maintenance,
}

/// A weight that an operator has set, which holds until the configured one changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// The operator's.
    pub(super) set: u32,
    /// The configured one at that time.
    pub(super) configured: u32,
}

/// Bytes that are no value of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value of this table")]
pub(super) struct Malformed;

/// Reads a value from its beginning to its end.
struct Reader<'a>(&'a [u8]);

/// The longest binding: flags, seven numbers.
pub(super) const BINDING_MAX: usize = 1 + 5 + 8 + 5 + 3 * 10 + 10 + 2;
/// Past the year 10000: no time of ours.
const TIME_MAX: u64 = 1 << 48;
/// Longer than any TTL that can be configured.
const TTL_MAX: u64 = 200 * 365 * 24 * 3600 * 1000;
/// Names of backends are far shorter.
const NAME_MAX: usize = 1024;

const UNLEARNED: u8 = 1;
const HAS_INSTANCE: u8 = 1 << 1;
const HAS_FROM: u8 = 1 << 2;
const HAS_TTL: u8 = 1 << 3;
const HAS_SCOPE: u8 = 1 << 4;

/// Read only: format 1 told ids that last from those that did not.
const RENAMED_BRIEFLY: u8 = 0;
const RENAMED: u8 = 1;
const ENDED: u8 = 2;

const HAS_DEADLINE: u8 = 1 << 4;
const HAS_WEIGHT: u8 = 1 << 5;
const KNOWS_INSTANCE: u8 = 1 << 6;

// === impl Binding ===

impl Binding {
    /// Appends its bytes.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        into.push(
            flag(self.unlearned, UNLEARNED)
                | flag(self.instance != 0, HAS_INSTANCE)
                | flag(self.from.is_some(), HAS_FROM)
                | flag(self.ttl.is_some(), HAS_TTL)
                | flag(self.scope != 0, HAS_SCOPE),
        );
        number(into, u64::from(self.home));
        if self.instance != 0 {
            into.extend(self.instance.to_be_bytes());
        }
        if let Some(from) = self.from {
            number(into, u64::from(from));
        }
        number(into, self.created);
        difference(into, self.created, self.placed);
        difference(into, self.created, self.seen);
        if let Some(ttl) = self.ttl {
            number(into, millis(ttl));
        }
        if self.scope != 0 {
            into.extend(self.scope.to_be_bytes());
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let flags = reader.byte()?;
        if flags & !(UNLEARNED | HAS_INSTANCE | HAS_FROM | HAS_TTL | HAS_SCOPE) != 0 {
            return Err(Malformed);
        }
        let home = reader.small()?;
        let instance = if flags & HAS_INSTANCE != 0 { reader.instance()? } else { 0 };
        let from = (flags & HAS_FROM != 0).then(|| reader.small()).transpose()?;
        let created = reader.time()?;
        let placed = reader.time_from(created)?;
        let seen = reader.time_from(created)?;
        let ttl = (flags & HAS_TTL != 0).then(|| reader.ttl()).transpose()?;
        let scope = if flags & HAS_SCOPE != 0 { reader.scope()? } else { 0 };
        reader.end()?;
        Ok(Self {
            home,
            instance,
            from,
            created,
            placed,
            seen,
            ttl,
            unlearned: flags & UNLEARNED != 0,
            scope,
        })
    }
}

// === impl Alias ===

impl Alias {
    /// Its bytes.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        match *self {
            Self::Renamed { to, until } => {
                into.push(RENAMED);
                number(into, until);
                into.extend(to);
            }
            Self::Ended { home, until } => {
                into.push(ENDED);
                number(into, until);
                number(into, u64::from(home));
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let kind = reader.byte()?;
        let until = reader.time()?;
        let alias = match kind {
            RENAMED_BRIEFLY | RENAMED => Self::Renamed { to: reader.array()?, until },
            ENDED => Self::Ended { home: reader.small()?, until },
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(alias)
    }
}

// === impl Known ===

impl Known {
    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Steered { admin, deadline, weight } = self.steered;
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let instance = self.instance != 0;
        let mut bytes = vec![
            admin as u8
                | flag(instance, KNOWS_INSTANCE)
                | flag(deadline.is_some(), HAS_DEADLINE)
                | flag(weight.is_some(), HAS_WEIGHT),
        ];
        number(&mut bytes, u64::from(self.pool));
        if instance {
            bytes.extend(self.instance.to_be_bytes());
            number(&mut bytes, self.since);
        }
        if let Some(deadline) = deadline {
            number(&mut bytes, deadline);
        }
        if let Some(weight) = weight {
            number(&mut bytes, u64::from(weight.set));
            number(&mut bytes, u64::from(weight.configured));
        }
        bytes.extend(self.name.as_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let flags = reader.byte()?;
        let admin = match flags & !(KNOWS_INSTANCE | HAS_DEADLINE | HAS_WEIGHT) {
            0 => Wish::Ready,
            1 => Wish::Draining,
            2 => Wish::Maintenance,
            _ => return Err(Malformed),
        };
        let pool = u16::try_from(reader.small()?).map_err(|_| Malformed)?;
        let (instance, since) =
            if flags & KNOWS_INSTANCE != 0 { (reader.instance()?, reader.time()?) } else { (0, 0) };
        let deadline = (flags & HAS_DEADLINE != 0).then(|| reader.time()).transpose()?;
        let weight = (flags & HAS_WEIGHT != 0)
            .then(|| Ok(Weight { set: reader.small()?, configured: reader.small()? }))
            .transpose()?;
        let name = text(reader.0)?;
        Ok(Self { pool, name, instance, since, steered: Steered { admin, deadline, weight } })
    }
}

/// The name that these bytes are.
pub(super) fn text(bytes: &[u8]) -> Result<Box<str>, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    if text.is_empty() || text.len() > NAME_MAX {
        return Err(Malformed);
    }
    Ok(text.into())
}

// === impl Reader ===

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (&array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(array)
    }

    /// LEB128, in its shortest spelling.
    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (shift > 0 && byte == 0) {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn small(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed)
    }

    fn instance(&mut self) -> Result<u64, Malformed> {
        let instance = u64::from_be_bytes(self.array()?);
        // Zero is written as no instance at all.
        if instance == 0 { Err(Malformed) } else { Ok(instance) }
    }

    fn scope(&mut self) -> Result<u16, Malformed> {
        let scope = u16::from_be_bytes(self.array()?);
        // Zero is written as no scope at all.
        if scope == 0 { Err(Malformed) } else { Ok(scope) }
    }

    fn time(&mut self) -> Result<u64, Malformed> {
        self.number().and_then(checked_time)
    }

    fn time_from(&mut self, first: u64) -> Result<u64, Malformed> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        first.checked_add_signed(difference).ok_or(Malformed).and_then(checked_time)
    }

    fn ttl(&mut self) -> Result<Duration, Malformed> {
        let millis = self.number()?;
        if millis > TTL_MAX { Err(Malformed) } else { Ok(Duration::from_millis(millis)) }
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

fn checked_time(time: u64) -> Result<u64, Malformed> {
    if time < TIME_MAX { Ok(time) } else { Err(Malformed) }
}

/// A duration in whole milliseconds, none longer than what is read back.
fn millis(duration: Duration) -> u64 {
    clock::millis(duration).min(TTL_MAX)
}

fn number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// How far `later` is from `first`, in either direction: a small number for a small distance.
fn difference(into: &mut Vec<u8>, first: u64, later: u64) {
    let difference = later.wrapping_sub(first).cast_signed();
    number(into, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests;
