//! The requests that loads make. `wrk.lua` and `loads.py` write session ids the same way.

/// What every session id begins with, so that ids are as long as those of applications.
const PREFIX: &str = "b7f3a1c09e5d4286a1f07c3e";

/// The id of a session, 32 characters.
pub(crate) fn session(number: u32) -> String {
    format!("{PREFIX}{:08}", 10_000_000 + number)
}

/// A GET of `path` that belongs to a session, over HTTP/1.1.
pub(crate) fn get(path: &str, number: u32) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: homing-bench\r\nAccept: */*\r\nCookie: session={}\r\n\r\n",
        session(number)
    )
    .into_bytes()
}

/// The request by which a session begins.
pub(crate) fn login(number: u32) -> Vec<u8> {
    format!("GET /login?id={} HTTP/1.1\r\nHost: bench.test\r\n\r\n", session(number)).into_bytes()
}

/// The numbers from 0 to `count` in an order that jumps about, without end.
pub(crate) fn numbers(count: u32) -> impl Iterator<Item = u32> {
    // A linear congruential generator of full period (Knuth, MMIX); its high bits are the random ones.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(count.max(1))) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_long_as_those_of_applications() {
        assert_eq!(session(0).len(), 32);
        assert_eq!(session(1_999_999).len(), 32);
    }

    #[test]
    fn numbers_stay_below_the_count_and_reach_most_of_it() {
        let seen: std::collections::HashSet<_> = numbers(100).take(1_000).collect();
        assert!(seen.iter().all(|number| *number < 100));
        assert!(seen.len() > 90, "{}", seen.len());
    }
}
