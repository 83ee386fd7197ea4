//! Reads one table of the file key by key. A wrong value is reported and reading goes on.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    errors::{Problem, Report},
    excerpt::shown,
    quantity::{parse_duration, parse_size},
    schema::{ALL, Shape},
    suggest::nearest,
};

/// What a key was found to hold.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// The key is not there: its default holds.
    #[default]
    Absent,
    /// Its value is wrong, which has been reported; nothing that depends on it may be reported too.
    Bad,
    /// Its value, and where it stands.
    Set(Spanned<T>),
}

/// A list of tables.
#[derive(Debug)]
pub(super) struct Tables<T> {
    pub(super) list: Vec<T>,
    /// Whether something in it was no table, which has been reported.
    pub(super) bad: bool,
}

/// One table of the file. [`Section::finish`] must follow the last key.
#[derive(Debug)]
#[must_use]
pub(super) struct Section<'a> {
    shape: &'static Shape,
    span: Range<usize>,
    present: bool,
    /// What has not been taken yet.
    entries: BTreeMap<&'a str, Entry<'a>>,
    report: &'a Report,
}

#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    key: &'a Spanned<DeString<'a>>,
    value: &'a Spanned<DeValue<'a>>,
}

// === impl Field ===

impl<T> Field<T> {
    /// A value that stands at `span`.
    pub(super) fn set(span: Range<usize>, value: T) -> Self {
        Self::Set(Spanned::new(span, value))
    }

    /// The value, or else its default. The configuration is refused when it is [`Field::Bad`], so what
    /// stands for it then does not matter.
    pub(super) fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    /// Like [`Field::or`], for defaults that cost something to make.
    pub(super) fn or_else(self, default: impl FnOnce() -> T) -> T {
        self.value().unwrap_or_else(default)
    }

    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value.into_inner()),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value.get_ref()),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(super) fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Set(value) => Some(value.span()),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(super) const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) const fn is_bad(&self) -> bool {
        matches!(self, Self::Bad)
    }

    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Bad => Field::Bad,
            Self::Set(value) => Field::Set(Spanned::new(value.span(), f(value.into_inner()))),
        }
    }
}

// === impl Tables ===

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self { list: Vec::new(), bad: false }
    }
}

impl<T> Tables<T> {
    /// Whether there is none, and nothing that was meant as one.
    pub(super) const fn is_missing(&self) -> bool {
        self.list.is_empty() && !self.bad
    }
}

impl<T> From<Vec<T>> for Tables<T> {
    fn from(list: Vec<T>) -> Self {
        Self { list, bad: false }
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The top level of a document.
    pub(super) fn root(document: &'a DeTable<'a>, shape: &'static Shape, report: &'a Report) -> Self {
        Self::of(Some(document), 0..0, shape, report)
    }

    fn of(
        table: Option<&'a DeTable<'a>>,
        span: Range<usize>,
        shape: &'static Shape,
        report: &'a Report,
    ) -> Self {
        let entries = table.into_iter().flat_map(DeTable::iter);
        let entries = entries.map(|(key, value)| (&**key.get_ref(), Entry { key, value })).collect();
        Self { shape, span, present: table.is_some(), entries, report }
    }

    /// Whether the file has this table.
    pub(super) const fn is_present(&self) -> bool {
        self.present
    }

    /// Where the table begins: its header.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key, as `read` understands it.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        let Some(entry) = self.entry(key) else { return Field::Absent };
        match read(entry.value.get_ref()) {
            Ok(value) => Field::set(entry.value.span(), value),
            Err(message) => self.bad(key, entry.value.span(), &message),
        }
    }

    /// A text that `parse` understands.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Field<T> {
        self.take(key, |value| text(value, parse))
    }

    /// A list of values, or one value alone.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<Vec<Spanned<T>>> {
        let Some(entry) = self.entry(key) else { return Field::Absent };
        let items = match entry.value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![entry.value],
        };
        let mut list = Vec::with_capacity(items.len());
        let mut bad = false;
        for item in items {
            match read(item.get_ref()) {
                Ok(value) => list.push(Spanned::new(item.span(), value)),
                Err(message) => bad = self.bad::<T>(key, item.span(), &message).is_bad(),
            }
        }
        if bad { Field::Bad } else { Field::set(entry.value.span(), list) }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Field<bool> {
        self.take(key, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("expected true or false, found {}", kind(other))),
        })
    }

    /// A duration; zero is allowed.
    pub(super) fn duration(&mut self, key: &'static str) -> Field<Duration> {
        self.take(key, duration)
    }

    /// A duration longer than zero.
    pub(super) fn positive(&mut self, key: &'static str) -> Field<Duration> {
        self.take(key, |value| match duration(value)? {
            Duration::ZERO => Err("must be longer than zero".to_owned()),
            value => Ok(value),
        })
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Field<u32> {
        self.take(key, |value| number(value, &range))
    }

    /// A whole number of at least one.
    pub(super) fn count(&mut self, key: &'static str, max: u32) -> Field<NonZeroU32> {
        self.number(key, 1..=max).map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN))
    }

    /// A whole number of at least one.
    pub(super) fn count_usize(&mut self, key: &'static str, max: u32) -> Field<NonZeroUsize> {
        self.count(key, max).map(|n| NonZeroUsize::try_from(n).unwrap_or(NonZeroUsize::MAX))
    }

    /// A table within this one; an absent table is one without keys.
    pub(super) fn section(&mut self, key: &'static str, shape: &'static Shape) -> Self {
        let entry = self.entry(key);
        let table = entry.and_then(|entry| match entry.value.get_ref() {
            DeValue::Table(table) => Some((table, entry.value.span())),
            other => {
                let message = format!("expected a table {}, found {}", shape.title, kind(other));
                self.bad::<()>(key, entry.value.span(), &message);
                None
            }
        });
        let (table, span) = table.map_or_else(|| (None, self.span()), |(table, span)| (Some(table), span));
        Self::of(table, span, shape, self.report)
    }

    /// The tables of a list of tables, each read by `read`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        shape: &'static Shape,
        mut read: impl FnMut(Self) -> T,
    ) -> Tables<T> {
        let mut tables = Tables::default();
        let Some(entry) = self.entry(key) else { return tables };
        let mut wrong = |what: &str, value: &Spanned<DeValue<'_>>| {
            let message = format!("expected {what} {}, found {}", shape.title, kind(value.get_ref()));
            tables.bad = self.bad::<()>(key, value.span(), &message).is_bad();
        };
        match entry.value.get_ref() {
            DeValue::Array(items) => {
                for item in items.iter() {
                    if let DeValue::Table(table) = item.get_ref() {
                        tables.list.push(read(Self::of(Some(table), item.span(), shape, self.report)));
                    } else {
                        wrong("a table", item);
                    }
                }
            }
            _ => wrong("a list of tables", entry.value),
        }
        tables
    }

    /// Reports every key that nobody took.
    pub(super) fn finish(self) {
        for (key, entry) in &self.entries {
            let place = if self.shape.title.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in {}", self.shape.title)
            };
            let mut message = format!("unknown key `{}` {place}", shown(key));
            let mut help = None;
            let near = nearest(key, self.shape.keys.iter().copied());
            let homes: Vec<&str> =
                ALL.iter().filter(|shape| shape.keys.contains(key)).map(|shape| shape.title).collect();
            if self.shape.title == "[pool.tls]"
                && ["verify", "insecure"].iter().any(|word| key.contains(word))
            {
                help = Some(
                    "certificates of backends are always verified: `ca` may name the backend's own certificate, and \
                     `server_name` the name that it has"
                        .to_owned(),
                );
            } else if let Some(near) = near {
                message.push_str(&format!(", did you mean `{near}`?"));
            } else if homes.is_empty() {
                help = Some(format!("known keys are {}", self.shape.keys.join(", ")));
            } else {
                let homes: Vec<&str> = homes
                    .into_iter()
                    .map(|home| if home.is_empty() { "the top level" } else { home })
                    .collect();
                message.push_str(&format!("; it belongs to {}", homes.join(" or ")));
            }
            self.report.push(Problem { span: Some(entry.key.span()), message, help });
        }
    }

    fn entry(&mut self, key: &'static str) -> Option<Entry<'a>> {
        debug_assert!(self.shape.keys.contains(&key), "{key} is not in the schema of {}", self.shape.title);
        self.entries.remove(key)
    }

    fn bad<T>(&self, key: &str, span: Range<usize>, message: &str) -> Field<T> {
        self.report.add(span, format!("`{key}`: {message}"));
        Field::Bad
    }
}

/// A text that `parse` understands.
pub(super) fn text<T>(
    value: &DeValue<'_>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    match value {
        DeValue::String(text) => parse(text),
        other => Err(format!("expected a text in quotes, found {}", kind(other))),
    }
}

/// A size in bytes.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, String> {
    match value {
        DeValue::Integer(number) => parse_size(&number.to_string()),
        value => text(value, parse_size),
    }
}

/// A whole number within `range`.
pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let DeValue::Integer(number) = value else {
        return Err(format!("expected a whole number, found {}", kind(value)));
    };
    u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n)).ok_or_else(|| {
        format!("`{}` is not between {} and {}", shown(&number.to_string()), range.start(), range.end())
    })
}

fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match value {
        DeValue::Integer(number) => parse_duration(&number.to_string()),
        DeValue::Float(number) => {
            Err(format!("`{}` has no unit: add a unit, e.g. \"30s\"", shown(&number.to_string())))
        }
        value => text(value, parse_duration),
    }
}

/// What a value is, for a sentence.
pub(super) const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
