//! What `/metrics` says.

use super::{plain, process::Homing};

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// The exposition as it came.
    pub(crate) text: String,
    series: Vec<Series>,
}

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

// === impl Metrics ===

impl Metrics {
    /// Scrapes this program.
    pub(crate) async fn fetch(homing: &Homing) -> Self {
        let answer = plain::get(homing.admin(), "/metrics").await.expect("the admin listener answers");
        assert_eq!(answer.status, 200, "/metrics");
        Self::parse(answer.text())
    }

    /// Reads the text exposition format.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series = lines.map(|line| Series::parse(line).unwrap_or_else(|| panic!("not a series: {line}")));
        Self { series: series.collect(), text: text.to_owned() }
    }

    /// The sum of all series of this name that have these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    /// Whether there is a series of this name that has these labels.
    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| {
            let has =
                |(name, value): &(&str, &str)| series.labels.iter().any(|(n, v)| n == name && v == value);
            series.name == name && labels.iter().all(has)
        })
    }
}

// === impl Series ===

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = match head.split_once('{') {
            Some((name, labels)) => (name, pairs(labels.strip_suffix('}')?)?),
            None => (head, Vec::new()),
        };
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}

/// The label pairs between the braces; values may hold commas, braces and escapes.
fn pairs(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        pairs.push((name.to_owned(), value));
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(pairs)
}

/// A label value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}
