//! Text of the user's, made safe to print.

use std::{borrow::Cow, fmt::Write as _};

/// `text` in a form that is safe to print on a terminal and not too long to read.
pub(super) fn shown(text: &str) -> String {
    let mut safe = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_MAX {
            safe.push('…');
            break;
        }
        push_safe(&mut safe, c);
    }
    safe
}

/// The part of a line that is shown, and where in it the marked text stands.
pub(super) struct Excerpt {
    pub(super) text: String,
    /// Columns before the mark.
    pub(super) indent: usize,
    /// Columns of the mark; at least one.
    pub(super) width: usize,
}

impl Excerpt {
    /// Cuts `line` to a window around the bytes `from..to`.
    pub(super) fn cut(line: &str, from: usize, to: usize) -> Self {
        let column = line.get(..from).map_or(0, |before| before.chars().count());
        let marked = line.get(from..to).map_or(0, |marked| marked.chars().count());
        let skipped = if column > LINE_MAX - LINE_AFTER { column - LINE_MAX / 2 } else { 0 };

        let (mut text, mut indent, mut width) = (String::new(), 0, 0);
        if skipped > 0 {
            text.push('…');
            indent = 1;
        }
        for (at, c) in line.chars().enumerate().skip(skipped) {
            if at - skipped == LINE_MAX {
                text.push('…');
                break;
            }
            let added = push_safe(&mut text, c);
            if at < column {
                indent += added;
            } else if at < column + marked {
                width += added;
            }
        }
        Self { text, indent, width: width.max(1) }
    }
}

/// The line with the password of a URL in it masked, byte for byte, so that places in it stay what they are.
pub(super) fn without_password(line: &str) -> Cow<'_, str> {
    let secret = line.find("://").and_then(|scheme| {
        let start = scheme + 3;
        let end = start + line[start..].rfind('@')?;
        let colon = start + line[start..end].find(':')?;
        Some((colon + 1, end))
    });
    match secret {
        Some((start, end)) => Cow::Owned([&line[..start], &"*".repeat(end - start), &line[end..]].concat()),
        None => Cow::Borrowed(line),
    }
}

/// Appends `c`, or its escape where a terminal would obey it or not show it. Returns the width.
fn push_safe(text: &mut String, c: char) -> usize {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    if c == '\t' {
        text.push_str("    ");
        4
    } else if c.is_control() || invisible {
        let start = text.len();
        write!(text, "{}", c.escape_unicode()).expect("writing to a String cannot fail");
        text.len() - start
    } else {
        text.push(c);
        1
    }
}

/// Characters of a quoted text that a message shows.
const SHOWN_MAX: usize = 80;
/// Characters of a source line that are shown at most.
const LINE_MAX: usize = 120;
/// Of these, kept behind the column that is marked.
const LINE_AFTER: usize = 30;
