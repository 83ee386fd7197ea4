use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn entry(number: u32, due: u32) -> Entry {
    Entry { key: [number, 0, 0, 0], due: Tick::new(due) }
}

/// Pops until nothing is ready, and returns the first key words and due times.
fn drain(wheel: &mut Wheel) -> BTreeSet<(u32, u32)> {
    let mut out = Vec::new();
    while !wheel.ready_is_empty() {
        assert!(wheel.pop(&mut out, 100) > 0, "a wheel that is ready has something to do");
    }
    let found: BTreeSet<_> = out.iter().map(|entry| (entry.key[0], entry.due.get())).collect();
    assert_eq!(found.len(), out.len(), "every entry comes out once");
    found
}

fn chunks(wheel: &Wheel) -> usize {
    let waiting = wheel.levels.iter().flat_map(|level| &level.slots);
    waiting.chain(&wheel.ready).chain(&wheel.recalled).map(|list| list.0.len()).sum::<usize>()
        + wheel.spare.0.len()
}

#[test]
fn an_entry_takes_twenty_bytes() {
    assert_eq!(size_of::<Entry>(), 20);
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..100_000 {
        wheel.insert(entry(number, 18_000));
    }
    assert_eq!(chunks(&wheel), 100_000_usize.div_ceil(CHUNK));
    assert!(
        wheel
            .levels
            .iter()
            .flat_map(|level| &level.slots)
            .flat_map(|list| &list.0)
            .all(|chunk| chunk.capacity() == CHUNK)
    );
}

#[test]
fn an_entry_comes_out_on_its_tick() {
    for due in [1, 63, 64, 65, 4_095, 4_096, 18_000, 262_144, 16_777_217] {
        let mut wheel = Wheel::new(Tick::ZERO);
        wheel.insert(entry(7, due));
        wheel.advance(Tick::new(due - 1));
        assert!(drain(&mut wheel).is_empty(), "{due} is early");
        wheel.advance(Tick::new(due));
        assert_eq!(drain(&mut wheel), BTreeSet::from([(7, due)]));
        assert_eq!(wheel.len(), 0);
    }
}

#[test]
fn what_is_overdue_is_ready_at_once() {
    let mut wheel = Wheel::new(Tick::new(500));
    wheel.insert(entry(1, 500));
    wheel.insert(entry(2, 3));
    assert_eq!(drain(&mut wheel), BTreeSet::from([(1, 500), (2, 3)]));
}

#[test]
fn time_does_not_go_back() {
    let mut wheel = Wheel::new(Tick::new(1_000));
    wheel.advance(Tick::new(10));
    wheel.insert(entry(1, 1_000));
    wheel.insert(entry(2, 1_001));
    assert_eq!(drain(&mut wheel), BTreeSet::from([(1, 1_000)]));
}

#[test]
fn never_waits_in_the_top_level() {
    let mut wheel = Wheel::new(Tick::ZERO);
    wheel.insert(Entry { key: [9; 4], due: Tick::NEVER });
    assert_ne!(wheel.levels[LEVELS - 1].taken, 0);
    wheel.advance(Tick::new(u32::MAX - 1));
    assert!(drain(&mut wheel).is_empty());
    assert_eq!(wheel.len(), 1);
}

#[test]
fn a_million_entries_in_one_slot_come_out_in_portions() {
    let count = 1_000_000;
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..count {
        // All within one slot of the third level.
        wheel.insert(entry(number, 16_384 + number % 4_096));
    }
    let full = chunks(&wheel);
    wheel.advance(Tick::new(16_384 + 2_000));
    let mut out = Vec::new();
    let mut handled = 0;
    while !wheel.ready_is_empty() {
        let portion = wheel.pop(&mut out, 1_000);
        assert!(portion <= 1_000);
        handled += portion;
        assert_eq!(wheel.len() + out.len(), count as usize);
        assert!(chunks(&wheel) <= full + 2 * SLOTS + SPARE_CHUNKS, "chunks are used again");
    }
    assert_eq!(handled, count as usize);
    assert!(out.iter().all(|entry| entry.due.get() <= 16_384 + 2_000));
    wheel.advance(Tick::new(30_000));
    assert_eq!(drain(&mut wheel).len() + out.len(), count as usize);
    assert!(chunks(&wheel) <= SPARE_CHUNKS);
}

#[test]
fn the_earliest_come_out_slot_by_slot() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for due in [5, 70, 9_000, 18_000, 2] {
        wheel.insert(entry(due, due));
    }
    wheel.advance(Tick::new(3));
    let order: Vec<_> = std::iter::from_fn(|| wheel.earliest()).map(|entry| entry.due.get()).collect();
    assert_eq!(order, [2, 5, 70, 9_000, 18_000]);
    assert_eq!(wheel.len(), 0);
}

#[test]
fn the_earliest_of_a_coarse_slot_come_out_in_the_order_in_which_they_came() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..3_000 {
        // Nearly in order, as sessions fall idle.
        wheel.insert(entry(number, 16_384 + (number ^ 5)));
    }
    let order: Vec<_> = std::iter::from_fn(|| wheel.earliest()).map(|entry| entry.due.get()).collect();
    assert_eq!(order.len(), 3_000);
    assert!(order.is_sorted());
}

#[test]
fn what_is_left_of_the_earliest_still_falls_due() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..1_000 {
        wheel.insert(entry(number, 500));
    }
    for _ in 0..300 {
        assert!(wheel.earliest().is_some());
    }
    assert_eq!(wheel.len(), 700);
    assert!(drain(&mut wheel).is_empty());
    wheel.advance(Tick::new(500));
    assert_eq!(drain(&mut wheel).len(), 700);
}

#[test]
fn what_is_called_back_comes_out_undue() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..1_000 {
        wheel.insert(entry(number, 1 + number * 50));
    }
    wheel.recall();
    wheel.insert(entry(5_000, 30_000));
    assert_eq!(wheel.len(), 1_001);
    assert_eq!(drain(&mut wheel).len(), 1_000);
    assert_eq!(wheel.len(), 1);
    wheel.advance(Tick::new(30_000));
    assert_eq!(drain(&mut wheel), BTreeSet::from([(5_000, 30_000)]));
}

#[test]
fn compacting_drops_stale_entries_in_portions_and_frees_their_memory() {
    let count = 100_000;
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..count {
        wheel.insert(entry(number, 18_000 + number % 20_000));
    }
    let mut calls = 0;
    loop {
        let mut seen = 0;
        let done = wheel.compact(
            |entry| {
                seen += 1;
                entry.key[0].is_multiple_of(10)
            },
            1_000,
        );
        assert!(seen < 1_000 + CHUNK);
        calls += 1;
        if done {
            break;
        }
    }
    assert!(calls >= 80);
    assert_eq!(wheel.len(), 10_000);
    assert!(chunks(&wheel) < 2 * 10_000 / CHUNK + SLOTS + SPARE_CHUNKS);
    wheel.advance(Tick::new(100_000));
    let left = drain(&mut wheel);
    assert!(left.len() == 10_000 && left.iter().all(|(number, _)| number % 10 == 0));
}

#[test]
fn compacting_everything_away_leaves_an_empty_wheel() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for number in 0..1_000 {
        wheel.insert(entry(number, 1 + number * 7));
    }
    while !wheel.compact(|_| false, 10) {}
    assert_eq!(wheel.len(), 0);
    assert!(wheel.earliest().is_none());
    wheel.advance(Tick::new(10_000));
    assert!(wheel.ready_is_empty(), "no empty slot is set aside");
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Advance(u32),
    Pop(usize),
    Earliest,
    Recall,
    /// Keeps the numbers that this does not divide.
    Compact(u32, usize),
}

/// As many short times as long ones.
fn span() -> impl Strategy<Value = u32> {
    (0..28u32, any::<u32>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => span().prop_map(Step::Insert),
        3 => span().prop_map(Step::Advance),
        3 => (0..20usize).prop_map(Step::Pop),
        1 => Just(Step::Earliest),
        1 => Just(Step::Recall),
        1 => (2..9u32, 0..300usize).prop_map(|(by, max)| Step::Compact(by, max)),
    ]
}

proptest! {
    #[test]
    fn the_wheel_agrees_with_a_sorted_map(
        start in any::<u32>().prop_map(|start| start / 2),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut now = start;
        let mut wheel = Wheel::new(Tick::new(now));
        let mut model = BTreeMap::new();
        let mut recalled = false;
        for (number, step) in (0..).zip(steps) {
            let mut out = Vec::new();
            match step {
                Step::Insert(wait) => {
                    // Some of them in the past.
                    let due = now.saturating_add(wait).saturating_sub(3);
                    wheel.insert(entry(number, due));
                    model.insert(number, due);
                }
                Step::Advance(wait) => {
                    now = now.saturating_add(wait).min(u32::MAX - 1);
                    wheel.advance(Tick::new(now));
                }
                Step::Pop(max) => {
                    let handled = wheel.pop(&mut out, max);
                    prop_assert!(out.len() <= handled && handled <= max);
                    prop_assert!(recalled || out.iter().all(|entry| entry.due.get() <= now));
                    recalled &= !wheel.ready_is_empty();
                }
                Step::Earliest => {
                    out.extend(wheel.earliest());
                    prop_assert!(!out.is_empty() || model.is_empty());
                }
                Step::Recall => {
                    wheel.recall();
                    recalled = true;
                }
                Step::Compact(by, max) => {
                    wheel.compact(
                        |entry| {
                            let keep = entry.key[0] % by != 0;
                            if !keep {
                                out.push(*entry);
                            }
                            keep
                        },
                        max,
                    );
                }
            }
            for entry in out {
                prop_assert_eq!(model.remove(&entry.key[0]), Some(entry.due.get()));
            }
            prop_assert_eq!(wheel.len(), model.len());
        }
        // Whatever happened before: now everything that is due comes out, and nothing else.
        wheel.advance(Tick::new(now + 1));
        let due = model.iter().filter(|(_, due)| recalled || **due <= now + 1).map(|(number, due)| (*number, *due));
        let (due, drained) = (due.collect::<BTreeSet<_>>(), drain(&mut wheel));
        prop_assert!(drained == due || (recalled && drained.is_subset(&due)));
    }
}
