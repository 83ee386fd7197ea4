//! Trials of a backend that is down, made by requests that nothing else serves: one at a time, with a pause between two, so
//! that a thousand requests a second do not hammer a backend that starts.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::Standing;
use crate::{affinity::Tick, clock};

/// Whether a trial may begin.
#[derive(Debug, Default)]
pub struct Trials(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// When the next one may begin.
    next: Tick,
}

/// The right to try a backend, until it is dropped.
#[derive(Debug)]
pub struct Trial {
    standing: Arc<Standing>,
    pause: Duration,
}

// === impl Trial ===

impl Trial {
    /// The right to try, if no other trial runs and the pause after the last one is over; `pause` follows this one.
    pub(super) fn begin(standing: &Arc<Standing>, pause: Duration) -> Option<Self> {
        let begun = standing.trials.with(|state| {
            let may = !state.running && state.next <= clock::tick();
            state.running |= may;
            may
        });
        begun.then(|| Self { standing: Arc::clone(standing), pause })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.standing
            .trials
            .with(|state| *state = State { running: false, next: clock::tick().after(self.pause) });
    }
}

// === impl Trials ===

impl Trials {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trials_do_not_overlap_and_keep_a_pause() {
        let standing = Arc::new(Standing::default());
        let second = Duration::from_secs(1);
        let begin = || Trial::begin(&standing, second);
        let first = begin();
        assert!(first.is_some() && begin().is_none(), "one at a time");
        drop(first);
        assert!(begin().is_none(), "the pause has just begun");
        advance(second + Tick::LENGTH).await;
        assert!(begin().is_some());
    }
}
