//! Which backends have only another name: pure.
//!
//! A backend is known by its name. One that has disappeared while its URL is there under another name is the same
//! server, and keeps its sessions.

use super::Backend;

/// What tells a backend from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub name: &'a str,
    pub host: &'a str,
    pub port: u16,
    /// Whether it is spoken to over TLS.
    pub secure: bool,
    /// Whether it stands for backends that are discovered.
    pub discovers: bool,
}

/// The pairs of the old and the new index of backends that have another name now. A URL that several backends of one
/// side have tells nothing.
pub fn renames(old: &[Place<'_>], new: &[Place<'_>]) -> Vec<(usize, usize)> {
    let same = |place: &Place<'_>, list: &[Place<'_>]| list.contains(place);
    let (before, after): (Vec<_>, Vec<_>) = (
        old.iter().enumerate().filter(|(_, place)| !same(place, new)).collect(),
        new.iter().enumerate().filter(|(_, place)| !same(place, old)).collect(),
    );
    let mut pairs = Vec::new();
    for &(to, place) in &after {
        let is_there = |other: &Place<'_>| other.is_where(place);
        let mut candidates = before.iter().filter(|(_, old)| is_there(old));
        let ambiguous = after.iter().filter(|(_, other)| is_there(other)).count() > 1;
        if let (Some(&(from, _)), None, false) = (candidates.next(), candidates.next(), ambiguous) {
            pairs.push((from, to));
        }
    }
    pairs
}

// === impl Place ===

impl Place<'_> {
    fn is_where(&self, other: &Self) -> bool {
        (self.host, self.port, self.secure, self.discovers)
            == (other.host, other.port, other.secure, other.discovers)
    }
}

impl<'a> From<&'a Backend> for Place<'a> {
    fn from(backend: &'a Backend) -> Self {
        Self {
            name: &backend.name,
            host: &backend.host,
            port: backend.port,
            secure: backend.tls.is_some(),
            discovers: backend.discover.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(old: &[(&'static str, u16)], new: &[(&'static str, u16)]) -> Vec<(usize, usize)> {
        let places = |list: &[(&'static str, u16)]| -> Vec<Place<'static>> {
            let place = |&(name, port)| Place { name, host: "a", port, secure: false, discovers: false };
            list.iter().map(place).collect()
        };
        renames(&places(old), &places(new))
    }

    #[test]
    fn a_url_under_another_name_is_the_same_backend() {
        assert_eq!(of(&[("a", 1), ("b", 2)], &[("b", 2), ("c", 1)]), [(0, 1)]);
        assert_eq!(of(&[("a", 1), ("b", 2)], &[("a", 2), ("b", 1)]), [(1, 0), (0, 1)]);
        assert_eq!(of(&[("a", 1), ("b", 2)], &[("a", 2), ("b", 3)]), [(1, 0)]);
    }

    #[test]
    fn another_url_under_the_same_name_is_no_rename() {
        assert_eq!(of(&[("a", 1)], &[("a", 2)]), []);
        assert_eq!(of(&[("a", 1)], &[("b", 2)]), []);
    }

    #[test]
    fn a_url_that_stays_under_its_name_is_nobody_elses() {
        assert_eq!(of(&[("a", 1), ("b", 2)], &[("a", 1), ("c", 1)]), []);
    }

    #[test]
    fn a_url_that_is_there_twice_tells_nothing() {
        assert_eq!(of(&[("a", 1), ("b", 1)], &[("c", 1)]), []);
        assert_eq!(of(&[("a", 1)], &[("b", 1), ("c", 1)]), []);
    }
}
