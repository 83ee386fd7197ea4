//! The text of a PEM file, cut into its sections (RFC 7468).
//!
//! It takes what editors, shells and other systems make of such files: UTF-16, byte order marks, any line ends,
//! literal `\n`, white space, several markers in one line, text around the sections. What it does not understand
//! is an error, never a section that is missing without a word.

use std::borrow::Cow;

/// What stands between a BEGIN and an END line.
pub(super) struct Section {
    /// `CERTIFICATE`, `PRIVATE KEY`.
    pub(super) label: String,
    /// The line of the file where it begins, from 1.
    pub(super) line: usize,
    body: Vec<u8>,
}

enum Marker {
    Begin(String),
    End(String),
}

/// A line around its first marker.
struct Cut<'a> {
    before: &'a [u8],
    marker: Marker,
    after: &'a [u8],
}

/// The sections of `text`, in its order.
///
/// # Errors
/// What is wrong, and in which line; the text itself is not quoted, since it may be a key.
pub(super) fn sections(text: &[u8]) -> Result<Vec<Section>, String> {
    let text = plain(text)?;
    let mut found = Vec::new();
    let mut open: Option<Section> = None;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let mut rest = line.trim_ascii();
        if open.is_none() && rest.starts_with(b"#") {
            continue;
        }
        while let Some(Cut { before, marker, after }) = next_marker(rest, number)? {
            take(before, open.as_mut(), number)?;
            open = match (marker, open) {
                (Marker::Begin(label), None) => Some(Section { label, line: number, body: Vec::new() }),
                (Marker::Begin(_), Some(section)) => {
                    return Err(format!(
                        "the section of line {} has no END line before another one begins in line {number}",
                        section.line
                    ));
                }
                (Marker::End(label), Some(section)) if label == section.label => {
                    found.push(section);
                    None
                }
                (Marker::End(_), Some(section)) => {
                    return Err(format!(
                        "the section of line {} is ended by the END line of another kind in line {number}",
                        section.line
                    ));
                }
                (Marker::End(_), None) => return Err(format!("the END line {number} has no BEGIN line")),
            };
            rest = after;
        }
        take(rest, open.as_mut(), number)?;
    }
    match open {
        Some(section) => Err(format!("the section of line {} has no END line", section.line)),
        None => Ok(found),
    }
}

// === impl Section ===

impl Section {
    /// Whether it has header fields, which only encrypted keys have (RFC 1421 §4.6).
    pub(super) fn has_headers(&self) -> bool {
        self.body.contains(&b':')
    }

    /// As a file of its own, under this label.
    pub(super) fn as_pem(&self, label: &str) -> Vec<u8> {
        let mut pem = format!("-----BEGIN {label}-----\n").into_bytes();
        pem.extend_from_slice(&self.body);
        pem.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
        pem
    }
}

/// As ASCII with `\n` at the ends of lines.
fn plain(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = utf8(text);
    if text.contains(&0) {
        return Err("it has NUL bytes: two files of different encodings in one, or no text".to_owned());
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = &text[..];
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, length) = match rest {
            [0xef, 0xbb, 0xbf, ..] => (None, 3),
            [b'\r', b'\n', ..] | [b'\\', b'n', ..] => (Some(b'\n'), 2),
            [b'\\', b'r', ..] => (None, 2),
            [b'\r', ..] => (Some(b'\n'), 1),
            _ => (Some(byte), 1),
        };
        plain.extend(byte);
        rest = after.get(length - 1..).unwrap_or_default();
    }
    Ok(plain)
}

/// UTF-16 as Windows writes it becomes UTF-8; it is known by its byte order mark, or by the dashes that it begins with.
fn utf8(text: &[u8]) -> Cow<'_, [u8]> {
    let units = |text: &[u8], of: fn([u8; 2]) -> u16| -> Vec<u16> {
        text.chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect()
    };
    let units = match text {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        [b'-', 0, ..] => units(text, u16::from_le_bytes),
        [0, b'-', ..] => units(text, u16::from_be_bytes),
        _ => return text.into(),
    };
    String::from_utf16_lossy(&units).into_bytes().into()
}

/// The first BEGIN or END in `line`, with what is before and after it.
fn next_marker(line: &[u8], number: usize) -> Result<Option<Cut<'_>>, String> {
    let at = |what: &[u8]| line.windows(what.len()).position(|window| window == what);
    let (start, word, is_begin) = match (at(BEGIN), at(END)) {
        (Some(begin), end) if end.is_none_or(|end| begin < end) => (begin, BEGIN, true),
        (_, Some(end)) => (end, END, false),
        _ => return Ok(None),
    };
    let inner = &line[start + word.len()..];
    let label =
        inner.windows(DASHES.len()).position(|window| window == DASHES).map(|end| inner.split_at(end));
    let Some((label, after)) = label.filter(|(label, _)| label.iter().all(|byte| is_of_label(*byte))) else {
        return Err(broken(number));
    };
    let label = String::from_utf8_lossy(label).trim().to_owned();
    let marker = if is_begin { Marker::Begin(label) } else { Marker::End(label) };
    // More dashes than there should be are not part of what stands before.
    let dashes = line[..start].iter().rev().take_while(|byte| **byte == b'-').count();
    Ok(Some(Cut { before: &line[..start - dashes], marker, after: &after[DASHES.len()..] }))
}

/// Takes text of one line, inside or outside of a section.
fn take(text: &[u8], open: Option<&mut Section>, number: usize) -> Result<(), String> {
    let text = text.trim_ascii();
    match open {
        Some(section) if !text.is_empty() => {
            section.body.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
            section.body.push(b'\n');
        }
        None if is_like_a_marker(text) => return Err(broken(number)),
        _ => {}
    }
    Ok(())
}

/// A marker with too few dashes, or with those of a word processor.
fn is_like_a_marker(text: &[u8]) -> bool {
    let dash = text.starts_with(b"-")
        || matches!(text, [0xe2, 0x80, 0x90..=0x95, ..] | [0xe2, 0x88, 0x92, ..])
        || text.ends_with(b"--");
    dash && {
        let text = String::from_utf8_lossy(text).to_ascii_uppercase();
        let after = |word| text.split_once(word).map_or("", |(_, after)| after);
        [after("BEGIN "), after("END ")]
            .iter()
            .any(|label| LABELS.iter().any(|start| label.starts_with(start)))
    }
}

fn broken(line: usize) -> String {
    format!("line {line} is a broken BEGIN or END line: it needs five plain dashes on either side")
}

fn is_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" .#+_/".contains(&byte)
}

const DASHES: &[u8] = b"-----";
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
/// How labels begin that a file of certificates and keys has.
const LABELS: [&str; 10] =
    ["CERTIFICATE", "X509", "TRUSTED", "PRIVATE", "RSA", "EC ", "ENCRYPTED", "PKCS7", "OPENSSH", "PUBLIC"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Label and body of each.
    fn read(text: impl AsRef<[u8]>) -> Result<Vec<(String, String)>, String> {
        let both = |section: Section| (section.label, String::from_utf8(section.body).unwrap());
        Ok(sections(text.as_ref())?.into_iter().map(both).collect())
    }

    fn two() -> Vec<(String, String)> {
        [("A", "AAAA\n"), ("B", "BBBB\n")].map(|(label, body)| (label.to_owned(), body.to_owned())).into()
    }

    const TWO: &str = "-----BEGIN A-----\nAAAA\n-----END A-----\n-----BEGIN B-----\nBBBB\n-----END B-----\n";

    #[test]
    fn sections_are_read_whatever_separates_them() {
        for text in [
            TWO.to_owned(),
            TWO.replace('\n', "\r\n"),
            TWO.replace('\n', "\r"),
            TWO.replace('\n', "\\n"),
            TWO.replace('\n', " "),
            TWO.replace("A-----\n-----BEGIN", "A----------BEGIN"),
            TWO.replace("-----\n", "-----  \t\n"),
            TWO.replace("-----B", "    -----B").replace("AAAA", "\tAA AA"),
            TWO.replace("-----B", "\u{feff}-----B"),
            TWO.trim_end().to_owned(),
            format!("Bag Attributes\n    friendlyName: x\n{TWO}subject=CN = x\n\n"),
            format!("# -----BEGIN C-----\n# CCCC\n{TWO}"),
            format!("\"{TWO}\""),
        ] {
            assert_eq!(read(&text), Ok(two()), "{text}");
        }
    }

    #[test]
    fn utf16_is_read_with_and_without_a_mark() {
        for mark in ["\u{feff}", ""] {
            let units: Vec<u16> = format!("{mark}{TWO}").encode_utf16().collect();
            for of in [u16::to_le_bytes, u16::to_be_bytes] {
                let text: Vec<u8> = units.iter().copied().flat_map(of).collect();
                assert_eq!(read(text), Ok(two()));
            }
        }
    }

    #[test]
    fn what_cannot_be_cut_into_sections_is_an_error_with_its_line() {
        for (text, line) in [
            (TWO.replace("-----END A-----\n", ""), "line 3"),
            (TWO.replace("-----END B-----\n", ""), "line 4"),
            (TWO.replace("-----BEGIN B-----\n", ""), "END line 5"),
            (TWO.replace("END B", "END C"), "line 6"),
            (TWO.replace("BEGIN B-----", "BEGIN B----"), "line 4"),
            (TWO.replace("-----BEGIN B", "----BEGIN CERTIFICATE"), "line 4"),
            (TWO.replace("-----BEGIN B", "\u{2014}BEGIN CERTIFICATE"), "line 4"),
            (TWO.replace("A-----\n-----BEGIN B", "A--------BEGIN CERTIFICATE"), "line 3"),
            (format!("{TWO}\0"), "NUL"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(line) && !error.contains("BBBB"), "{error}\n{text}");
        }
    }

    #[test]
    fn text_around_sections_is_not_taken_for_markers() {
        for line in ["---- end of chain ----", "--begin--", "Begin Certificate", "====="] {
            assert_eq!(read(format!("{line}\n{TWO}")), Ok(two()), "{line}");
        }
    }
}
