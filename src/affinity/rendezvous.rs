//! Weighted rendezvous hashing: where a session lives that nobody here knows.
//!
//! Every replica, and a proxy that lost its table, gives the same answer for the same names, weights
//! and key, so what is computed here is a wire format: the hash is named and its key is fixed, the
//! arithmetic is integers only, and golden vectors freeze the outcome. A member is its name, never
//! its position; when one leaves, only its own sessions move.
//!
//! Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; the weights as in
//! Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005: the score of a member is
//! `-weight / ln(h)` with `h` uniform in (0, 1), and the highest score wins.

use std::{cmp::Ordering, hash::Hasher};

use siphasher::sip::SipHasher24;

use super::Member;

/// The hash of a member's name, ready to take a key.
#[derive(Clone, Debug)]
pub(super) struct Seed(SipHasher24);

/// The member on which all replicas agree for the session key of these words; none when there is no
/// candidate with a weight. The order of the candidates does not matter, nor does a slow start.
pub(super) fn pick<'a>(
    candidates: impl IntoIterator<Item = &'a Member>,
    key: [u32; 4],
) -> Option<&'a Member> {
    let mut best: Option<(&Member, Cost)> = None;
    for member in candidates {
        let weight = member.weight();
        if weight == 0 {
            continue;
        }
        let hash = member.seed().hash(key);
        let Some((first, lowest)) = best else {
            best = Some((member, Cost { distance: distance(hash), weight }));
            continue;
        };
        // Most candidates are told to lose without a logarithm.
        if (Cost { distance: distance_at_least(hash), weight }).compare(lowest).is_gt() {
            continue;
        }
        let cost = Cost { distance: distance(hash), weight };
        if cost.compare(lowest).then_with(|| member.name().cmp(first.name())).is_lt() {
            best = Some((member, cost));
        }
    }
    best.map(|(member, _)| member)
}

/// The inverse of a score, `-log2(h) / weight`, as a fraction: the lowest wins.
#[derive(Clone, Copy)]
struct Cost {
    /// See [`distance`]; below 2^39.
    distance: u64,
    weight: u32,
}

// === impl Seed ===

impl Seed {
    /// The seed of the member of this name.
    pub(super) fn of(name: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(HASH_KEY);
        hasher.write(name.as_bytes());
        // Ends the name, so that no name and key run together like another name and key.
        hasher.write(&[0]);
        Self(hasher)
    }

    /// SipHash-2-4 of name, zero byte and key words (little endian).
    fn hash(&self, key: [u32; 4]) -> u64 {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(key) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let mut hasher = self.0;
        hasher.write(&bytes);
        hasher.finish()
    }
}

// === impl Cost ===

impl Cost {
    /// Compares the fractions exactly, by cross-multiplication.
    fn compare(self, other: Self) -> Ordering {
        let product = |cost: Self, weight: u32| u128::from(cost.distance) * u128::from(weight);
        product(self, other.weight).cmp(&product(other, self.weight))
    }
}

/// `-log2(h)` in units of 2^-32, for `h = (hash | 1) / 2^64`, which is never 0 nor 1. Floating-point
/// logarithms differ in their last bits from one platform to the next; this does not.
///
/// Bit by bit: squaring a number in [1, 2) doubles its logarithm, whose whole part is the next bit.
fn distance(hash: u64) -> u64 {
    let number = hash | 1;
    let zeros = number.leading_zeros();
    // In units of 2^-63, so in [1, 2).
    let mut mantissa = number << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carry = (square >> 127) as u64;
        fraction = fraction << 1 | carry;
        mantissa = (square >> (63 + carry)) as u64;
    }
    let logarithm = u64::from(63 - zeros) << FRACTION_BITS | fraction;
    (64 << FRACTION_BITS) - logarithm
}

/// At most [`distance`]: `log2(1 + x) <= x + 0.0860713…` for `x` in [0, 1).
fn distance_at_least(hash: u64) -> u64 {
    let number = hash | 1;
    let zeros = number.leading_zeros();
    // `x` in units of 2^-32, rounded up.
    let x = ((number << zeros) << 1 >> (64 - FRACTION_BITS)) + 1;
    let fraction = (x + LOG2_SLACK).min(1 << FRACTION_BITS);
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

/// 0.08608 in units of 2^-32.
const LOG2_SLACK: u64 = 369_710_785;
/// Part of the format. No secret: it only has to be the same everywhere.
const HASH_KEY: &[u8; 16] = b"homing-rendezv-1";
const FRACTION_BITS: u32 = 32;

#[cfg(test)]
mod tests {
    use super::{
        super::{Slot, Tick},
        *,
    };

    #[test]
    fn no_distance_is_less_than_its_bound() {
        let hashes = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, 3 << bit >> 1]);
        let many = (0..200_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for hash in hashes.chain(many).chain([u64::MAX]) {
            assert!(distance_at_least(hash) <= distance(hash), "{hash:x}");
        }
    }

    fn members(weights: &[(&str, u32)]) -> Vec<Member> {
        weights
            .iter()
            .zip(0..)
            .map(|(&(name, weight), slot)| Member::new(name, Slot::new(slot), weight))
            .collect()
    }

    /// Keys as uniform as a keyed hash makes them.
    fn keys(count: u32) -> impl Iterator<Item = [u32; 4]> {
        (0..count).map(|n| {
            let mut hasher = SipHasher24::new();
            hasher.write_u32(n);
            let (low, high) =
                (hasher.finish(), hasher.finish().rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32]
        })
    }

    #[test]
    fn the_distance_is_the_binary_logarithm() {
        assert_eq!(distance(0), 64 << 32);
        assert_eq!(distance(1), 64 << 32);
        assert_eq!(distance(u64::MAX), 1);
        for hash in [3, 1 << 20 | 1, 1 << 63 | 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211] {
            let exact = -((hash as f64) / 2f64.powi(64)).log2();
            let ours = distance(hash) as f64 / 2f64.powi(32);
            assert!((exact - ours).abs() < 1e-8, "{hash:#x}: {exact} is not {ours}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [("app-1", 1), ("app-2", 2), ("app-3", 5), ("other", 2)];
        let members = members(&weights);
        let count = 100_000;
        let mut hits = [0u32; 4];
        for key in keys(count) {
            hits[usize::from(pick(&members, key).unwrap().slot().get())] += 1;
        }
        for ((name, weight), hits) in weights.into_iter().zip(hits) {
            let expected = f64::from(weight * count) / 10.0;
            let off = (f64::from(hits) - expected).abs() / f64::from(count);
            assert!(off < 0.005, "{name} got {hits} instead of {expected}");
            assert!(
                (f64::from(hits) / expected - 1.0).abs() < 0.02,
                "{name} got {hits} instead of {expected}"
            );
        }
    }

    #[test]
    fn only_the_keys_of_a_member_that_leaves_move() {
        let members = members(&[("app-1", 1), ("app-2", 3), ("app-3", 1), ("app-4", 2)]);
        for leaver in &members {
            for key in keys(2_000) {
                let before = pick(&members, key).unwrap();
                let after =
                    pick(members.iter().filter(|member| member.slot() != leaver.slot()), key).unwrap();
                assert!(after.slot() == before.slot() || before.slot() == leaver.slot());
            }
        }
    }

    #[test]
    fn a_greater_weight_only_attracts_keys() {
        let members = members(&[("app-1", 1), ("app-2", 1), ("app-3", 1)]);
        let before: Vec<_> = keys(2_000).map(|key| pick(&members, key).unwrap().slot()).collect();
        members[1].set_weight(2);
        for (key, before) in keys(2_000).zip(before) {
            let after = pick(&members, key).unwrap().slot();
            assert!(after == before || after == members[1].slot());
        }
    }

    #[test]
    fn neither_order_nor_slot_nor_a_slow_start_matters() {
        let ours = members(&[("app-1", 1), ("app-2", 2), ("app-3", 3)]);
        let theirs = members(&[("app-3", 3), ("app-1", 1), ("app-2", 2)]);
        theirs[0].start_ramp(Tick::ZERO);
        for key in keys(2_000) {
            assert_eq!(pick(&ours, key).unwrap().name(), pick(&theirs, key).unwrap().name());
        }
    }

    #[test]
    fn a_member_without_weight_is_never_picked() {
        let members = members(&[("app-1", 0), ("app-2", 1)]);
        assert!(keys(200).all(|key| pick(&members, key).unwrap().name() == "app-2"));
        members[1].set_weight(0);
        assert!(pick(&members, [0; 4]).is_none());
        assert!(pick([], [0; 4]).is_none());
    }

    #[test]
    fn costs_are_compared_without_rounding() {
        let a = Cost { distance: 6, weight: 2 };
        let b = Cost { distance: 9, weight: 3 };
        assert_eq!(a.compare(b), Ordering::Equal);
        assert_eq!(a.compare(Cost { distance: 9, weight: 4 }), Ordering::Greater);
    }

    #[test]
    fn golden_hashes() {
        let found: Vec<_> = NAMES
            .iter()
            .flat_map(|name| {
                GOLDEN_KEYS.map(|key| (Seed::of(name).hash(key), distance(Seed::of(name).hash(key))))
            })
            .collect();
        assert_eq!(found, GOLDEN_HASHES, "this is a wire format: replicas of other versions disagree now");
    }

    #[test]
    fn golden_picks() {
        let weights = [1, 2, 3, 1];
        let members = members(&NAMES.into_iter().zip(weights).collect::<Vec<_>>());
        let found: String =
            keys(64).map(|key| char::from(b'0' + pick(&members, key).unwrap().slot().get() as u8)).collect();
        assert_eq!(found, GOLDEN_PICKS, "this is a wire format: replicas of other versions disagree now");
    }

    // Also computed by a separate implementation in another language, with exact logarithms.
    const NAMES: [&str; 4] = ["app-1", "app-2", "shop.eu-west.example:8443", "ä"];
    const GOLDEN_KEYS: [[u32; 4]; 3] =
        [[0; 4], [1, 2, 3, 4], [0xdead_beef, 0x0123_4567, 0x89ab_cdef, 0xffff_ffff]];
    const GOLDEN_HASHES: [(u64, u64); 12] = [
        (0x8aa2_ea79_c803_0598, 3_800_349_472),
        (0x7d3f_92b7_d1b4_fad0, 4_429_624_890),
        (0x703a_6b3a_0b25_db9d, 5_109_759_506),
        (0x5ae3_6612_f01e_a48a, 6_416_585_331),
        (0x35f4_6c19_ff10_79c5, 9_647_876_411),
        (0x3095_2971_236a_339e, 10_297_743_793),
        (0xabb0_3c4e_5be8_71e4, 2_475_409_008),
        (0x03b1_381d_97ac_e47c, 26_265_850_480),
        (0x976e_6c56_4f6e_80d4, 3_253_351_787),
        (0x406b_926d_a616_9f7f, 8_549_384_503),
        (0x9552_c6d9_f427_59a3, 3_340_213_511),
        (0xddc2_7c59_8542_d1a4, 889_687_593),
    ];
    const GOLDEN_PICKS: &str = "2102222132123122332201222221010232222102213122202302202223111112";
}
