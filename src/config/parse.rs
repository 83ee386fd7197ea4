//! From a file to a [`Config`].

use std::{
    collections::HashSet,
    fs::File,
    io::{self, ErrorKind, Read as _},
    ops::Range,
    path::Path,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    convert,
    errors::{ConfigErrors, Report, Source},
    excerpt::shown,
    model::Config,
    quantity::format_size,
    raw::RawConfig,
    schema,
    section::Section,
};

impl Config {
    /// Reads a configuration file. Relative paths in it are taken from the file's own folder.
    ///
    /// # Errors
    /// All of the file's errors at once, or the one that keeps it from being read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let text = read(path).map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::NotFound => "there is no such file".to_owned(),
                ErrorKind::PermissionDenied => "permission denied".to_owned(),
                ErrorKind::IsADirectory => "it is a folder".to_owned(),
                _ => error.to_string(),
            };
            ConfigErrors::whole(format!("cannot read {}: {reason}", shown(&name)))
        })?;
        Self::parse(&text, &name, path.parent().unwrap_or_else(|| Path::new("")))
    }

    /// Reads a configuration from `text`. `file_name` is what errors call it; relative paths are taken
    /// from `base_dir`.
    ///
    /// # Errors
    /// All errors of the text at once.
    pub fn parse(text: &str, file_name: &str, base_dir: &Path) -> Result<Self, ConfigErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let report = Report::new(Source::file(file_name, text));
        let (document, errors) = DeTable::parse_recoverable(text);
        let broken_from = syntax_errors(document.get_ref(), &errors, &report);
        let syntax = report.count();

        let raw = RawConfig::read(Section::root(document.get_ref(), &schema::ROOT, &report));
        // Behind a broken place, tables and keys may not be what they look like, and what seems to be
        // missing may be there.
        let config = broken_from.is_none().then(|| convert::config(raw, base_dir, &report));
        report.drop_followers(syntax, broken_from);
        report.finish(config)
    }
}

/// Reports what is wrong with the text as TOML. Returns where the line begins from which on the document
/// cannot be trusted; none when each error is confined to one value.
fn syntax_errors(document: &DeTable<'_>, errors: &[toml::de::Error], report: &Report) -> Option<usize> {
    let text = &report.source().text;
    let mut bare = Vec::new();
    bare_values(document.iter().map(|(_, value)| value), text, &mut bare);

    let mut broken_from: Option<usize> = None;
    // The parser may stumble several times over one mistake; only the first time says what is wrong.
    let mut said = HashSet::new();
    for error in errors.iter().take(SYNTAX_MAX) {
        let span = error.span().unwrap_or(0..0);
        let within = |value: &&Range<usize>| {
            value.start <= span.start && span.end <= value.end && (!span.is_empty() || value.is_empty())
        };
        if let Some(value) = bare.iter().find(within) {
            if said.insert(value.start) {
                report.add(value.clone(), not_a_value(text.get(value.clone()).unwrap_or_default()));
            }
        } else if error.message() == DUPLICATE {
            let key = text.get(span.clone()).unwrap_or_default();
            report.add(span, format!("`{}` is there twice", shown(key)));
        } else {
            let line = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
            broken_from = Some(broken_from.map_or(line, |earlier| earlier.min(line)));
            if said.insert(line) {
                report.add(span, error.message());
            }
        }
    }
    broken_from
}

/// Collects the places of all single values that are not in quotes.
fn bare_values<'d, 'i: 'd>(
    values: impl Iterator<Item = &'d Spanned<DeValue<'i>>>,
    text: &str,
    bare: &mut Vec<Range<usize>>,
) {
    let mut waiting: Vec<&Spanned<DeValue<'i>>> = values.collect();
    while let Some(value) = waiting.pop() {
        match value.get_ref() {
            DeValue::Table(table) => waiting.extend(table.iter().map(|(_, value)| value)),
            DeValue::Array(items) => waiting.extend(items.iter()),
            _ if text.get(value.span()).is_some_and(|text| !text.starts_with(['"', '\''])) => {
                bare.push(value.span());
            }
            _ => {}
        }
    }
}

fn not_a_value(text: &str) -> String {
    match text.trim() {
        "" => "a value is missing".to_owned(),
        text => format!("`{0}` is not a value: a text must be in quotes, as in \"{0}\"", shown(text)),
    }
}

/// Reads a whole file, but no endless one.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("it is larger than {}", format_size(FILE_MAX))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8"))
    })
}

/// What the parser says about a key that is there twice; unlike its other errors, this one leaves the
/// rest of the document as it looks.
const DUPLICATE: &str = "duplicate key";
/// Syntax errors that are looked at; the first ones tell, and each is searched for in the whole document.
const SYNTAX_MAX: usize = 100;
const FILE_MAX: u64 = 4 << 20;
