//! What `[limits]` allows one client, and all of them at one time.

use std::{
    fmt::{self, Display, Write as _},
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use toml::de::DeValue;

use super::{
    errors::Report,
    excerpt::shown,
    quantity::format_size,
    section::{Field, Section, kind, number, size},
};

/// What one client may take, and all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Connections of one address, or of one IPv6 network of 64 bits; any number when none.
    pub connections_per_address: Option<NonZeroU32>,
    /// Requests under way over all workers, WebSockets and unfinished answers included.
    pub requests: NonZeroUsize,
    /// Requests served on one connection, which is then closed with grace; any number when none.
    pub requests_per_connection: Option<NonZeroU32>,
    /// Requests of one address, or of one IPv6 network of 64 bits, over time; any number when none.
    pub rate: Option<Rate>,
    /// Bytes a second that a client must bring of its body, and take of its answer, but for as long as it may stand
    /// still (`timeouts.body`); zero asks for none.
    pub min_rate: u32,
}

/// So many requests in this time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests in `per`.
    pub count: NonZeroU32,
    /// A second, a minute or an hour.
    pub per: Period,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// The time that a rate is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

/// [`Edge`] as it is written.
#[derive(Debug, Default)]
pub(super) struct RawEdge {
    connections_per_address: Field<Option<NonZeroU32>>,
    requests: Field<NonZeroUsize>,
    requests_per_connection: Field<Option<NonZeroU32>>,
    rate: Field<(NonZeroU32, Period)>,
    rate_burst: Field<NonZeroU32>,
    min_rate: Field<u32>,
}

// === impl RawEdge ===

impl RawEdge {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            connections_per_address: section.take("connections_per_address", count_or_unlimited),
            requests: section.count_usize("requests", COUNT_MAX),
            requests_per_connection: section.take("requests_per_connection", count_or_unlimited),
            rate: section.text("rate", parse_rate),
            rate_burst: section.count("rate_burst", COUNT_MAX),
            min_rate: section.take("min_rate", min_rate),
        }
    }

    pub(super) fn convert(self, report: &Report) -> Edge {
        if let (Some(span), true) = (self.rate_burst.span(), self.rate.is_absent()) {
            report.add(span, "`rate_burst` belongs to `rate`, which is not set: add e.g. rate = \"100/s\"");
        }
        let burst = self.rate_burst.value();
        let rate = self.rate.value().map(|(count, per)| Rate { count, per, burst: burst.unwrap_or(count) });
        Edge {
            connections_per_address: self.connections_per_address.or(NonZeroU32::new(1000)),
            requests: self.requests.or(const { NonZeroUsize::new(20_000).unwrap() }),
            requests_per_connection: self.requests_per_connection.or(NonZeroU32::new(10_000)),
            rate,
            min_rate: self.min_rate.or(64),
        }
    }
}

// === impl Edge ===

impl Edge {
    /// Its keys of `[limits]`.
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        let count = |count: Option<NonZeroU32>| {
            count.map_or_else(|| format!("\"{UNLIMITED}\""), |count| count.to_string())
        };
        writeln!(out, "connections_per_address = {}", count(self.connections_per_address))?;
        writeln!(out, "requests = {}", self.requests)?;
        writeln!(out, "requests_per_connection = {}", count(self.requests_per_connection))?;
        if let Some(rate) = self.rate {
            writeln!(out, "rate = \"{rate}\"\nrate_burst = {}", rate.burst)?;
        }
        writeln!(out, "min_rate = \"{}\"", format_size(self.min_rate.into()))
    }
}

// === impl Rate ===

impl Rate {
    /// The time after which one more request is allowed.
    pub fn interval(self) -> Duration {
        // One in an hour is the slowest, a million in a second the fastest.
        self.per.length() / self.count.get()
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.unit())
    }
}

// === impl Period ===

impl Period {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    const fn unit(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    const fn length(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => Duration::from_secs(60),
            Self::Hour => Duration::from_secs(60 * 60),
        }
    }
}

fn parse_rate(text: &str) -> Result<(NonZeroU32, Period), String> {
    let wrong = || format!("`{}` is not a rate such as \"100/s\", \"600/m\" or \"5000/h\"", shown(text));
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = Period::ALL.into_iter().find(|per| per.unit() == unit.trim()).ok_or_else(wrong)?;
    let digits = count.trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match digits.parse().ok().and_then(NonZeroU32::new) {
        Some(count) if count.get() <= COUNT_MAX => Ok((count, per)),
        _ => Err(format!("a rate is of 1 to {COUNT_MAX} requests, not `{}`", shown(digits))),
    }
}

fn count_or_unlimited(value: &DeValue<'_>) -> Result<Option<NonZeroU32>, String> {
    match value {
        DeValue::String(text) if text == UNLIMITED => Ok(None),
        DeValue::Integer(_) => number(value, &(1..=COUNT_MAX)).map(NonZeroU32::new),
        other => Err(format!("expected a whole number or \"{UNLIMITED}\", found {}", kind(other))),
    }
}

fn min_rate(value: &DeValue<'_>) -> Result<u32, String> {
    let size = size(value)?;
    match u32::try_from(size) {
        Ok(size) if size <= MIN_RATE_MAX => Ok(size),
        _ => Err(format!("{} a second is more than {}", format_size(size), format_size(MIN_RATE_MAX.into()))),
    }
}

const UNLIMITED: &str = "unlimited";
const COUNT_MAX: u32 = 1_000_000;
/// What more than this asks of a client is no question of whether it is alive.
const MIN_RATE_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_count_and_a_unit() {
        let rate = |text| parse_rate(text).map(|(count, per)| (count.get(), per));
        assert_eq!(rate("100/s"), Ok((100, Period::Second)));
        assert_eq!(rate(" 6 / m"), Ok((6, Period::Minute)));
        for wrong in ["", "100", "/s", "100/", "100/d", "-1/s", "+1/s", "1.5/s", "100/s/s"] {
            assert!(rate(wrong).unwrap_err().contains("is not a rate"), "{wrong}");
        }
        assert!(rate("0/s").unwrap_err().contains("1 to 1000000"));
        assert!(rate("99999999999999/s").unwrap_err().contains("1 to 1000000"));
    }

    #[test]
    fn the_interval_is_the_time_for_one_request() {
        let rate = |text| {
            let (count, per) = parse_rate(text).unwrap();
            Rate { count, per, burst: count }.interval()
        };
        assert_eq!(rate("100/s"), Duration::from_millis(10));
        assert_eq!(rate("1/h"), Duration::from_hours(1));
        assert_eq!(rate("1000000/s"), Duration::from_micros(1));
    }
}
