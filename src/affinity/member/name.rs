//! What a member is called, and was called before it was renamed.

use std::sync::OnceLock;

use super::super::rendezvous::Seed;

/// Names are added, never changed, so that readers may keep what they have read. At most [`MAX_NAMES`].
#[derive(Debug)]
pub(super) struct Name {
    text: Box<str>,
    /// The name as rendezvous hashing sees it.
    seed: Seed,
    /// The one that it was given next.
    next: OnceLock<Box<Self>>,
}

/// Names of one member, since all are kept. One that is renamed once more counts as another backend.
const MAX_NAMES: usize = 64;

// === impl Name ===

impl Name {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.into(), seed: Seed::of(text), next: OnceLock::new() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The one that counts.
    pub(super) fn latest(&self) -> &Self {
        let mut latest = self;
        while let Some(next) = latest.next.get() {
            latest = next;
        }
        latest
    }

    /// All of them, the first one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |name| name.next.get().map(|next| &**next))
    }

    /// Adds one; false when there are too many.
    pub(super) fn give(&self, text: &str) -> bool {
        self.all().count() < MAX_NAMES && self.latest().next.set(Box::new(Self::new(text))).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_name_counts_and_their_number_is_bounded() {
        let name = Name::new("0");
        for number in 1..MAX_NAMES {
            assert!(name.give(&number.to_string()));
        }
        assert!(!name.give("one more"));
        assert_eq!(name.latest().text(), (MAX_NAMES - 1).to_string());
        assert_eq!(name.all().count(), MAX_NAMES);
    }
}
