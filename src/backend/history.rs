//! How a backend's health changed, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// The last changes of one backend's health.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<HealthChange>>);

/// A backend came up or went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// When.
    pub at: SystemTime,
    /// Whether it came up.
    pub up: bool,
    /// What found out.
    pub by: &'static str,
    /// What was found.
    pub why: Box<str>,
}

/// Changes remembered.
const MAX_CHANGES: usize = 16;

// === impl History ===

impl History {
    /// The last changes, the latest last.
    pub fn changes(&self) -> Vec<HealthChange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn push(&self, change: HealthChange) {
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() == MAX_CHANGES {
            changes.pop_front();
        }
        changes.push_back(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_last_sixteen_changes_are_kept() {
        let history = History::default();
        for number in 0..20 {
            let why = number.to_string().into();
            history.push(HealthChange { at: clock::wall(), up: number % 2 == 0, by: "test", why });
        }
        let changes = history.changes();
        assert_eq!(changes.len(), MAX_CHANGES);
        assert_eq!((&*changes[0].why, &*changes[15].why), ("4", "19"));
    }
}
