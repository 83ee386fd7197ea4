use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_795_000_000_000;

fn encoded(binding: &Binding) -> Vec<u8> {
    let mut bytes = Vec::new();
    binding.encode(&mut bytes);
    bytes
}

fn binding() -> impl Strategy<Value = Binding> {
    let times = (0..TIME_MAX, 0..TIME_MAX, 0..TIME_MAX);
    let rest = (any::<u32>(), any::<u64>(), any::<Option<u32>>(), any::<bool>(), any::<u16>());
    (times, rest, proptest::option::of(0..=TTL_MAX)).prop_map(|(times, rest, ttl)| Binding {
        created: times.0,
        placed: times.1,
        seen: times.2,
        home: rest.0,
        instance: rest.1,
        from: rest.2,
        unlearned: rest.3,
        scope: rest.4,
        ttl: ttl.map(Duration::from_millis),
    })
}

fn alias() -> impl Strategy<Value = Alias> {
    prop_oneof![
        (any::<[u8; 16]>(), 0..TIME_MAX).prop_map(|(to, until)| Alias::Renamed { to, until }),
        (any::<u32>(), 0..TIME_MAX).prop_map(|(home, until)| Alias::Ended { home, until }),
    ]
}

fn known() -> impl Strategy<Value = Known> {
    let admin = prop_oneof![Just(Wish::Ready), Just(Wish::Draining), Just(Wish::Maintenance)];
    let weight = proptest::option::of((any::<u32>(), any::<u32>()));
    let steered = (admin, proptest::option::of(0..TIME_MAX), weight);
    let instance = prop_oneof![Just((0, 0)), (1..=u64::MAX, 0..TIME_MAX)];
    (any::<u16>(), "[a-z0-9:.-]{1,64}", instance, steered).prop_map(|(pool, name, instance, s)| Known {
        pool,
        name: name.into(),
        instance: instance.0,
        since: instance.1,
        steered: Steered {
            admin: s.0,
            deadline: s.1,
            weight: s.2.map(|(set, configured)| Weight { set, configured }),
        },
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(binding in binding(), alias in alias(), known in known()) {
        let bytes = encoded(&binding);
        prop_assert!(bytes.len() <= BINDING_MAX);
        prop_assert_eq!(Binding::decode(&bytes), Ok(binding));
        let mut bytes = Vec::new();
        alias.encode(&mut bytes);
        prop_assert_eq!(Alias::decode(&bytes), Ok(alias));
        prop_assert_eq!(Known::decode(&known.encode()), Ok(known));
    }

    #[test]
    fn whatever_is_read_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
        if let Ok(binding) = Binding::decode(&bytes) {
            prop_assert_eq!(encoded(&binding), bytes.clone());
        }
        if let Ok(alias) = Alias::decode(&bytes) {
            let mut again = Vec::new();
            alias.encode(&mut again);
            prop_assert_eq!(again, bytes.clone());
        }
        if let Ok(known) = Known::decode(&bytes) {
            prop_assert_eq!(known.encode(), bytes);
        }
    }

    #[test]
    fn a_value_that_was_cut_or_grew_is_refused(binding in binding(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&binding);
        prop_assert_eq!(Binding::decode(&bytes[..at.index(bytes.len())]), Err(Malformed));
        bytes.push(0);
        prop_assert_eq!(Binding::decode(&bytes), Err(Malformed));
    }
}

#[test]
fn a_common_binding_is_small() {
    let binding = Binding {
        home: 12,
        instance: 7 << 56,
        from: None,
        created: NOW,
        placed: NOW,
        seen: NOW + 60_000,
        ttl: None,
        unlearned: false,
        scope: 0x0304,
    };
    assert_eq!(encoded(&binding).len(), 22);
}

#[test]
fn the_format_does_not_change_between_releases() {
    let binding = Binding {
        home: 300,
        instance: 0x0102_0304_0506_0708,
        from: Some(2),
        created: NOW,
        placed: NOW + 5,
        seen: NOW - 1,
        ttl: Some(Duration::from_secs(1)),
        unlearned: true,
        scope: 0,
    };
    let golden =
        [0x0f, 0xac, 2, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0x80, 0xbc, 0xd9, 0xf2, 0x9e, 0x34, 10, 1, 0xe8, 7];
    assert_eq!(encoded(&binding), golden);
    let scoped = encoded(&Binding { scope: 0x0304, ..binding });
    assert_eq!(scoped, [&[0x1f], &golden[1..], &[3, 4]].concat());
}

#[test]
fn times_and_names_out_of_range_are_refused() {
    let mut bytes = vec![ENDED];
    number(&mut bytes, TIME_MAX);
    number(&mut bytes, 1);
    assert_eq!(Alias::decode(&bytes), Err(Malformed));
    assert_eq!(text(b""), Err(Malformed));
    assert_eq!(text(b"\xff"), Err(Malformed));
    assert_eq!(text(&[b'a'; NAME_MAX + 1]), Err(Malformed));
}
