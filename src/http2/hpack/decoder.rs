//! Reading compressed fields (RFC 7541 §3, §6).
//!
//! The text of a section's fields goes into one buffer that all of them share; what the table remembers has memory of
//! its own, so that a short field never keeps a long section.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use super::{Field, OVERHEAD, Pseudo, Stop, huffman, integer, table::Table};
use crate::{
    http1::fields::is_token,
    http2::{Code, Error},
};

/// The fields that a peer may refer to.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

/// What is known of one field section (RFC 9113 §4.3) while its parts come.
#[derive(Debug)]
pub struct Section {
    /// What the fields count for that have been read.
    size: usize,
    limit: usize,
    /// Whether a field has been read.
    begun: bool,
    /// Where the text of fields goes.
    text: BytesMut,
}

/// A string, as it is written.
#[derive(Clone, Copy, Debug)]
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

/// A field's name.
#[derive(Clone, Debug)]
enum Name {
    Pseudo(Pseudo),
    Regular(HeaderName),
    Malformed(&'static str),
}

/// How a field's name is written.
#[derive(Clone, Copy, Debug)]
enum Naming<'a> {
    /// As that of the field with this number.
    Index(usize),
    Text(Text<'a>),
}

/// How a field is written (§6).
#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    /// By its number.
    Indexed(usize),
    /// By a name and a value; and whether to remember it.
    Literal(Naming<'a>, Text<'a>, bool),
    /// None, but how much is remembered from now on.
    Resize(usize),
}

const NAME: &str = "a field name that is no lower-case token";
const VALUE: &str = "a control character in a field value";
const UNKNOWN: &str = "an unknown pseudo-header field";

// === impl Decoder ===

impl Decoder {
    /// A decoder for a peer that has not been told how much is remembered here. Nothing is allocated yet.
    pub const fn new() -> Self {
        Self { table: Table::new() }
    }

    /// Reads the fields that `block` begins with and gives them to `sink`; gives the bytes that they take. What is left is
    /// the beginning of a field, to which more has to come; with `last`, nothing is left. Fields beyond what `section`
    /// allows are read and thrown away.
    ///
    /// # Errors
    ///
    /// Of the connection: COMPRESSION_ERROR. The tables do not agree any more.
    pub fn decode(
        &mut self,
        block: &[u8],
        last: bool,
        section: &mut Section,
        mut sink: impl FnMut(Field),
    ) -> Result<usize, Error> {
        let mut at = 0;
        while at < block.len() {
            match self.step(&block[at..], section, &mut sink) {
                Ok(length) => at += length,
                Err(Stop::Short) if !last => return Ok(at),
                Err(Stop::Short) => return Err(broken("fields that break off")),
                Err(Stop::Broken(rule)) => return Err(broken(rule)),
            }
        }
        Ok(at)
    }

    /// Reads one field; gives the bytes that it takes.
    fn step(
        &mut self,
        bytes: &[u8],
        section: &mut Section,
        sink: &mut impl FnMut(Field),
    ) -> Result<usize, Stop> {
        let (form, length) = form(bytes)?;
        match form {
            Form::Indexed(index) => {
                let known = self.table.get(index).ok_or(NOTHING)?;
                if section.count(known.size) {
                    sink(known.field.clone());
                }
            }
            Form::Literal(name, value, remember) => {
                section.prepare(bytes.len());
                self.literal((name, value), remember, section, sink)?;
            }
            Form::Resize(max) => {
                if section.begun {
                    return Err(Stop::Broken("a table is resized between fields"));
                }
                if max > super::DEFAULT_TABLE {
                    return Err(Stop::Broken("a table is larger than allowed"));
                }
                self.table.resize(max);
                return Ok(length);
            }
        }
        section.begun = true;
        Ok(length)
    }

    fn literal(
        &mut self,
        (name, value): (Naming<'_>, Text<'_>),
        remember: bool,
        section: &mut Section,
        sink: &mut impl FnMut(Field),
    ) -> Result<(), Stop> {
        // Nothing longer is of any use, neither here nor there.
        let most = section.left().max(if remember { self.table.max() } else { 0 });
        // Empty between fields.
        let text = &mut section.text;
        let (name, name_length, mut whole) = match name {
            Naming::Index(index) => {
                let known = self.table.get(index).ok_or(NOTHING)?;
                (Name::of(known.field), known.name, true)
            }
            Naming::Text(name) => {
                let whole = name.read(text, most)?;
                let name = (Name::new(text), text.len(), whole);
                text.clear();
                name
            }
        };
        whole = whole && value.read(text, most)?;
        if !whole {
            text.clear();
            section.burst();
            if remember {
                // It is larger than the table (§4.4).
                self.table.clear();
            }
            return Ok(());
        }
        let size = name_length + text.len() + OVERHEAD;
        let wanted = section.count(size);
        if remember {
            let value = Bytes::copy_from_slice(&section.text);
            section.text.clear();
            let field = name.with(value);
            if wanted {
                sink(field.clone());
            }
            self.table.insert(field, name_length, size);
        } else if wanted {
            sink(name.with(section.text.split().freeze()));
        } else {
            section.text.clear();
        }
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

const NOTHING: Stop = Stop::Broken("an index of nothing");

const fn broken(rule: &'static str) -> Error {
    Error::Connection(Code::COMPRESSION_ERROR, rule)
}

/// The field that bytes begin with, and how many of them it takes.
fn form(bytes: &[u8]) -> Result<(Form<'_>, usize), Stop> {
    let (bits, remember) = match bytes.first().ok_or(Stop::Short)? {
        0x80.. => {
            let (index, length) = integer::read(bytes, 7)?;
            return Ok((Form::Indexed(index), length));
        }
        0x40.. => (6, true),
        0x20.. => {
            let (max, length) = integer::read(bytes, 5)?;
            return Ok((Form::Resize(max), length));
        }
        // Never to be remembered, or only not here: what we write does not depend on it.
        0x00.. => (4, false),
    };
    let (index, mut at) = integer::read(bytes, bits)?;
    let name = match index {
        0 => {
            let (name, length) = Text::take(&bytes[at..])?;
            at += length;
            Naming::Text(name)
        }
        index => Naming::Index(index),
    };
    let (value, length) = Text::take(&bytes[at..])?;
    Ok((Form::Literal(name, value, remember), at + length))
}

// === impl Text ===

impl<'a> Text<'a> {
    /// The string that bytes begin with (§5.2), and how many of them it takes.
    fn take(bytes: &'a [u8]) -> Result<(Self, usize), Stop> {
        let is_huffman = bytes.first().ok_or(Stop::Short)? & 0x80 != 0;
        let (length, at) = integer::read(bytes, 7)?;
        let bytes = bytes[at..].get(..length).ok_or(Stop::Short)?;
        Ok((Self { bytes, is_huffman }, at + length))
    }

    /// Appends it, up to `most` bytes; whether that is all.
    fn read(self, out: &mut BytesMut, most: usize) -> Result<bool, Stop> {
        if self.is_huffman {
            return huffman::decode(out, self.bytes, most);
        }
        let fits = self.bytes.len() <= most;
        if fits {
            out.extend_from_slice(self.bytes);
        }
        Ok(fits)
    }
}

// === impl Name ===

impl Name {
    fn new(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return Pseudo::find(name).map_or(Self::Malformed(UNKNOWN), Self::Pseudo);
        }
        // The library takes a quotation mark for a part of a name.
        match HeaderName::from_lowercase(name) {
            Ok(found) if name.iter().copied().all(is_token) => Self::Regular(found),
            _ => Self::Malformed(NAME),
        }
    }

    /// That of a field.
    fn of(field: &Field) -> Self {
        match field {
            Field::Pseudo(name, _) => Self::Pseudo(*name),
            Field::Regular(name, _) | Field::Malformed(Some(name), _) => Self::Regular(name.clone()),
            Field::Malformed(None, rule) => Self::Malformed(rule),
        }
    }

    /// The field of this name and a value.
    fn with(self, value: Bytes) -> Field {
        match self {
            Self::Pseudo(name) => Field::Pseudo(name, value),
            Self::Regular(name) => match HeaderValue::from_maybe_shared(value) {
                Ok(value) => Field::Regular(name, value),
                Err(_) => Field::Malformed(Some(name), VALUE),
            },
            Self::Malformed(rule) => Field::Malformed(None, rule),
        }
    }
}

// === impl Section ===

impl Section {
    /// A section of which no more than `limit` is taken, counted as SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub fn new(limit: usize) -> Self {
        Self { size: 0, limit, begun: false, text: BytesMut::new() }
    }

    /// Makes room for the text of fields in so many bytes.
    fn prepare(&mut self, bytes: usize) {
        if self.text.capacity() == 0 {
            // No code is shorter than five bits.
            self.text.reserve((bytes * 8 / 5).min(self.limit));
        }
    }

    /// Whether more has come than allowed. What was given out before that is not all.
    pub const fn is_too_large(&self) -> bool {
        self.size > self.limit
    }

    /// What may still come.
    const fn left(&self) -> usize {
        self.limit.saturating_sub(self.size)
    }

    /// Counts a field; whether it is allowed.
    fn count(&mut self, size: usize) -> bool {
        self.size = self.size.saturating_add(size);
        !self.is_too_large()
    }

    /// Counts a field that is larger than allowed, by how much ever.
    const fn burst(&mut self) {
        self.size = usize::MAX;
    }
}

#[cfg(test)]
mod tests;
