//! Durations and sizes, which always carry a unit.

use std::{fmt::Write as _, time::Duration};

use humantime::DurationError;

use super::excerpt::shown;

/// Reads `30m`, `1h 30m`, `500ms`; five years at most.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(missing_unit(trimmed));
    }
    // humantime adds without checks near the end of u64, so longer numbers do not get that far.
    let longest = trimmed.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest > DIGITS_MAX || trimmed.len() > DURATION_LEN_MAX {
        return Err(format!("`{}` is too long a duration", shown(text)));
    }
    if trimmed.split(|c: char| !c.is_alphabetic()).any(|unit| unit == "M") {
        return Err(format!("`M` in `{}` could be minutes or months: write `m` or `months`", shown(text)));
    }
    let duration = humantime::parse_duration(trimmed).map_err(|error| match error {
        DurationError::Empty => "a duration is missing, e.g. \"30s\"".to_owned(),
        DurationError::UnknownUnit { unit, .. } if unit.is_empty() => missing_unit(text),
        DurationError::UnknownUnit { unit, .. } => {
            format!("unknown unit `{}` in `{}`: use `ms`, `s`, `m`, `h` or `d`", shown(&unit), shown(text))
        }
        DurationError::InvalidCharacter(_)
        | DurationError::NumberExpected(_)
        | DurationError::NumberOverflow => {
            format!("`{}` is not a duration such as \"30s\" or \"1h 30m\"", shown(text))
        }
    })?;
    if duration > DURATION_MAX {
        return Err(format!("`{}` is longer than five years", shown(text)));
    }
    Ok(duration)
}

/// A time that was measured, to the millisecond.
pub fn format_elapsed(elapsed: Duration) -> String {
    format_duration(Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)))
}

/// Writes a duration so that [`parse_duration`] reads the same one.
pub fn format_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1000 % 1000), "us"),
        (u64::from(nanos % 1000), "ns"),
    ];
    let mut text = String::new();
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{count}{unit}").expect("writing to a String cannot fail");
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads `512B`, `64KiB`, `10MB`, `1GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim();
    if number.is_empty() {
        return Err(format!("`{}` is not a size such as \"64KiB\" or \"10MB\"", shown(text)));
    }
    if unit.is_empty() {
        return Err(format!("`{}` has no unit: add a unit, e.g. \"64KiB\"", shown(text)));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        return Err(format!(
            "unknown unit `{}` in `{}`: use `B`, `KiB`, `MiB`, `GiB` (powers of 1024) or `KB`, `MB`, `GB` \
             (powers of 1000)",
            shown(unit),
            shown(text)
        ));
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    size.filter(|size| *size <= SIZE_MAX).ok_or_else(|| format!("`{}` is too large", shown(text)))
}

/// Writes a size so that [`parse_size`] reads the same one.
pub fn format_size(size: u64) -> String {
    let best = UNITS.iter().rev().find(|(_, factor)| size > 0 && size.is_multiple_of(*factor));
    let (unit, factor) = best.unwrap_or(&UNITS[0]);
    format!("{}{unit}", size / factor)
}

fn missing_unit(number: &str) -> String {
    format!("`{}` has no unit: add a unit, e.g. \"30s\"", shown(number.trim()))
}

/// In the order in which [`format_size`] tries them, last first.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// Sizes stay far from the ends of the integers that they are added to.
const SIZE_MAX: u64 = 1 << 60;
/// Half of what a tick can count, so that a time derived from a duration cannot leave that range.
const DURATION_MAX: Duration = Duration::from_hours(5 * 366 * 24);
const DIGITS_MAX: usize = 9;
const DURATION_LEN_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn durations_carry_units() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30").unwrap_err(), "`30` has no unit: add a unit, e.g. \"30s\"");
        assert!(parse_duration("0").unwrap_err().contains("add a unit"));
        assert!(parse_duration("5M").unwrap_err().contains("minutes or months"));
        assert!(parse_duration("6y").unwrap_err().contains("five years"));
    }

    #[test]
    fn sizes_carry_units() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10 MB"), Ok(10_000_000));
        assert!(parse_size("64").unwrap_err().contains("add a unit"));
        assert!(parse_size("64K").unwrap_err().contains("unknown unit"));
        assert!(parse_size("99999999999TiB").unwrap_err().contains("too large"));
    }

    #[test]
    fn the_ends_of_the_integers_do_not_panic() {
        for text in
            ["18446744073709551615s 1000000000ns", "584542046090y 1000000000ns", "999999999y", "0.1ns"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn durations_survive_writing_and_reading(seconds in 0u64..100_000_000, nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn sizes_survive_writing_and_reading(size in 0u64..SIZE_MAX) {
            prop_assert_eq!(parse_size(&format_size(size)), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
