//! When requests of an open loop are due.

use std::time::{Duration, Instant};

/// Requests fall due in groups: a timer for each of them would cost the load more than the requests do.
const TICK: Duration = Duration::from_micros(100);

/// Evenly spaced moments, each put off to the end of its tick. Whoever is late finds all that have passed.
pub(crate) struct Schedule {
    begin: Instant,
    rate: f64,
    given: u64,
}

impl Schedule {
    pub(crate) fn new(begin: Instant, rate: f64) -> Self {
        Self { begin, rate, given: 0 }
    }

    /// The next moment.
    pub(crate) fn next(&self) -> Instant {
        let ticks = self.given as f64 / self.rate / TICK.as_secs_f64();
        // What rounding adds to a whole number of ticks begins no other one.
        self.begin + TICK * (ticks - 1e-6).ceil() as u32
    }

    /// The next moment if it has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        let next = self.next();
        (next <= now).then(|| {
            self.given += 1;
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_late_find_every_moment_that_has_passed_as_it_was_planned() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 1_000.0);
        let late = begin + Duration::from_micros(3_500);
        let due: Vec<_> = std::iter::from_fn(|| schedule.due(late)).map(|due| due - begin).collect();
        assert_eq!(due, [0, 1, 2, 3].map(Duration::from_millis));
        assert_eq!(schedule.next() - begin, Duration::from_millis(4));
    }

    #[test]
    fn what_falls_into_one_tick_is_due_at_its_end() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 25_000.0);
        let late = begin + Duration::from_micros(200);
        let due: Vec<_> =
            std::iter::from_fn(|| schedule.due(late)).map(|due| (due - begin).as_micros()).collect();
        assert_eq!(due, [0, 100, 100, 200, 200, 200]);
    }

    #[test]
    fn rounding_does_not_add_up() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 30_000.0);
        let end = begin + Duration::from_secs(10);
        let count = std::iter::from_fn(|| schedule.due(end)).count();
        assert_eq!(count, 300_001);
    }
}
