//! Percentiles of everything that was measured, without buckets.

use std::time::Duration;

/// By nearest rank: the smallest value that is not below `share` of all. Zero if there are none.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<_> = (1..=1_000).map(Duration::from_micros).collect();
        assert_eq!(percentile(&values, 0.5), Duration::from_micros(500));
        assert_eq!(percentile(&values, 0.99), Duration::from_micros(990));
        assert_eq!(percentile(&values, 0.999), Duration::from_micros(999));
        assert_eq!(percentile(&values, 1.0), Duration::from_micros(1_000));
        assert_eq!(percentile(&values[..1], 0.5), Duration::from_micros(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
