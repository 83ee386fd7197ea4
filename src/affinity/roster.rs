//! The backends of a pool at one moment.

use std::sync::Arc;

use super::{Member, Slot};

/// The backends of one pool at one moment, in configured order; immutable.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    members: Vec<Arc<Member>>,
    /// Slot number to index in `members`, [`NO_INDEX`] for slots that have no member here.
    by_slot: Box<[u16]>,
}

impl Roster {
    /// The roster of these members, which have different slots.
    pub(super) fn new(members: Vec<Arc<Member>>) -> Self {
        let slots = members.iter().map(|member| usize::from(member.slot().get()) + 1).max().unwrap_or(0);
        let mut by_slot = vec![NO_INDEX; slots].into_boxed_slice();
        for (index, member) in (0..NO_INDEX).zip(&members) {
            let entry = &mut by_slot[usize::from(member.slot().get())];
            debug_assert_eq!(*entry, NO_INDEX, "two members share a slot");
            *entry = index;
        }
        Self { members, by_slot }
    }

    /// The members, in configured order.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The member of this name, or else one that had it until it was renamed.
    pub fn named(&self, name: &str) -> Option<&Arc<Member>> {
        let has = |member: &&Arc<Member>| member.name() == name;
        self.members.iter().find(has).or_else(|| self.members.iter().find(|member| member.was_called(name)))
    }

    /// Index into [`members`](Self::members), and into lists that run in parallel to it.
    pub fn index_of(&self, slot: Slot) -> Option<usize> {
        let index = *self.by_slot.get(usize::from(slot.get()))?;
        (index != NO_INDEX).then_some(usize::from(index))
    }

    /// The member of this slot; none when it has left the pool.
    pub fn member(&self, slot: Slot) -> Option<&Arc<Member>> {
        self.index_of(slot).map(|index| &self.members[index])
    }
}

const NO_INDEX: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_finds_members_by_slot() {
        let slots = [4, 0, 7];
        let roster =
            Roster::new(slots.iter().map(|&n| Arc::new(Member::new("x", Slot::new(n), 1))).collect());
        for (index, number) in slots.into_iter().enumerate() {
            assert_eq!(roster.index_of(Slot::new(number)), Some(index));
            assert_eq!(roster.member(Slot::new(number)).map(|m| m.slot().get()), Some(number));
        }
        for missing in [1, 5, 8, u16::MAX] {
            assert_eq!(roster.index_of(Slot::new(missing)), None);
        }
        assert_eq!(Roster::default().index_of(Slot::default()), None);
    }
}
