//! Everything that is wrong with a configuration, shown where it is wrong.

use std::{
    cell::RefCell,
    fmt::{self, Display, Formatter},
    ops::Range,
};

use super::excerpt::{Excerpt, shown, without_password};

/// All errors of one configuration. `Display` renders each with its place and text, like rustc, and
/// ends without a line feed.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    source: Source,
    problems: Vec<Problem>,
}

/// Where a configuration's text comes from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The file's name as the user gave it; `command line` for flags.
    pub(super) name: String,
    /// The whole text; for flags, one flag a line.
    pub(super) text: String,
    /// Whether line numbers mean anything to the user.
    pub(super) numbered: bool,
}

/// One error.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// Bytes of the source's text that it is about.
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Collects problems while a configuration is read. Reading goes on after a problem, so that the user
/// sees all of them at once.
#[derive(Debug)]
pub(super) struct Report {
    source: Source,
    problems: RefCell<Vec<Problem>>,
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// An error about the configuration as a whole, such as a file that cannot be read.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        let problem = Problem { span: None, message: message.into(), help: None };
        Self { source: Source::file("", ""), problems: vec![problem] }
    }

    /// How many errors there are; at least one.
    pub fn count(&self) -> usize {
        self.problems.len()
    }
}

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.render(&self.source, f)?;
        }
        if self.problems.len() > SHOWN_MAX {
            write!(f, "\n\n... and {} more", self.problems.len() - SHOWN_MAX)?;
        }
        if self.problems.len() > 1 {
            write!(f, "\n\n{} errors in {}", self.problems.len(), shown(&self.source.name))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

// === impl Source ===

impl Source {
    pub(super) fn file(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), numbered: true }
    }

    /// The line around the byte at `offset`: its number (from 1), where it starts, its text.
    fn line(&self, offset: usize) -> (usize, usize, &str) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let number = before.matches('\n').count() + 1;
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        (number, start, line.strip_suffix('\r').unwrap_or(line))
    }
}

// === impl Problem ===

impl Problem {
    fn render(&self, source: &Source, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let mut margin = String::from(" ");
        if let Some(span) = &self.span {
            let (number, start, line) = source.line(span.start);
            let from = span.start.saturating_sub(start).min(line.len());
            let to = span.end.saturating_sub(start).clamp(from, line.len());
            let line = without_password(line);
            let excerpt = Excerpt::cut(&line, from, to);

            let label = if source.numbered { number.to_string() } else { " ".to_owned() };
            margin = " ".repeat(label.len() + 2);
            write!(f, "\n --> {}", shown(&source.name))?;
            if source.numbered {
                write!(f, ":{number}:{}", line.get(..from).unwrap_or_default().chars().count() + 1)?;
            }
            write!(f, "\n{margin}|\n {label} | {}", excerpt.text)?;
            write!(f, "\n{margin}| {}{}", " ".repeat(excerpt.indent), "^".repeat(excerpt.width))?;
        } else if !source.name.is_empty() {
            write!(f, "\n --> {}", shown(&source.name))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n{margin}= help: {help}"),
            None => Ok(()),
        }
    }
}

// === impl Report ===

impl Report {
    pub(super) const fn new(source: Source) -> Self {
        Self { source, problems: RefCell::new(Vec::new()) }
    }

    pub(super) const fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn add(&self, span: Range<usize>, message: impl Into<String>) {
        self.push(Problem { span: Some(span), message: message.into(), help: None });
    }

    pub(super) fn add_whole(&self, message: impl Into<String>, help: Option<&str>) {
        self.push(Problem { span: None, message: message.into(), help: help.map(str::to_owned) });
    }

    pub(super) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The number of the line in which `span` begins.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.source.line(span.start).0
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Of the problems behind the first `count`, drops those that begin where one of the first does, and
    /// those at or behind the byte `end`.
    pub(super) fn drop_followers(&self, count: usize, end: Option<usize>) {
        let start = |problem: &Problem| problem.span.as_ref().map(|span| span.start);
        let mut problems = self.problems.borrow_mut();
        let count = count.min(problems.len());
        let later = problems.split_off(count);
        let said: Vec<_> = problems.iter().map(start).collect();
        problems.extend(later.into_iter().filter(|problem| match start(problem) {
            None => true,
            start if said.contains(&start) => false,
            start => end.is_none() || start < end,
        }));
    }

    /// "line 12", or "an earlier flag"; for errors about two places.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        if self.source.numbered {
            format!("on line {}", self.line(span))
        } else {
            "in an earlier flag".to_owned()
        }
    }

    /// The `value`, unless there were problems; those then come in the order of the text. There is always
    /// a value when there are no problems.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        let mut problems = self.problems.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
                Err(ConfigErrors { source: self.source, problems })
            }
        }
    }
}

/// A file that is no configuration at all may have an error on each line.
const SHOWN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, span: Range<usize>) -> String {
        let report = Report::new(Source::file("f.toml", text));
        report.add(span, "wrong");
        report.finish(Some(())).unwrap_err().to_string()
    }

    #[test]
    fn the_marked_text_is_underlined() {
        assert_eq!(
            one("a = 1\nb = xy\n", 10..12),
            "\
error: wrong
 --> f.toml:2:5
   |
 2 | b = xy
   |     ^^"
        );
    }

    #[test]
    fn control_characters_are_escaped_and_counted_in_the_underline() {
        assert_eq!(
            one("a\t= \u{1b}[2Jx", 4..9),
            "\
error: wrong
 --> f.toml:1:5
   |
 1 | a    = \\u{1b}[2Jx
   |        ^^^^^^^^^^"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let shown = one(&text, 5000..5001);
        assert!(shown.lines().all(|line| line.chars().count() < 140), "{shown}");
        let marked: Vec<&str> = shown.lines().skip(3).collect();
        let at = marked[1].find('^').unwrap();
        assert_eq!(marked[0].chars().nth(at), Some('X'));
    }

    #[test]
    fn spans_outside_the_text_and_inside_characters_are_survived() {
        for span in [100..200, 1..2, 0..100] {
            assert!(one("é\né", span).starts_with("error: wrong\n --> f.toml:"));
        }
        assert!(one("", 0..0).starts_with("error: wrong\n --> f.toml:1:1"));
    }
}
