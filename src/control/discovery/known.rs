//! Which addresses are known for each entry that discovers its backends, and what an answer of DNS changes: pure.
//!
//! An address that is not in an answer any more is *absent*: known until it is removed, so that its backend can
//! drain. Bounded: [`MAX_ADDRESSES`] of an entry in DNS, [`MAX_KNOWN`] with the absent ones, and no more than a
//! pool may have.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    backend::Listed,
    config::{self, BACKENDS_MAX, Config, Discover},
};

/// What is known for every entry.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct Known(HashMap<Entry, Addresses>);

/// What is known for one entry.
#[derive(Clone, Debug, Default)]
struct Addresses {
    /// In order.
    list: Vec<Address>,
    /// How many more the last answer had than are taken.
    spare: usize,
}

/// An entry that discovers its backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::control) struct Entry {
    /// The name of its pool.
    pub(in crate::control) pool: Box<str>,
    /// Its own name, with which those of its backends begin.
    pub(in crate::control) name: Box<str>,
    /// The host name that is followed.
    pub(in crate::control) host: Box<str>,
}

/// What a look-up found.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct Found {
    /// The addresses of the A records; none when that could not be found out.
    pub(in crate::control) v4: Option<Vec<IpAddr>>,
    /// Those of the AAAA records.
    pub(in crate::control) v6: Option<Vec<IpAddr>>,
    /// The instance ids that addresses told which had left before.
    pub(in crate::control) told: HashMap<IpAddr, Box<[u8]>>,
}

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Change {
    /// It is new.
    Joined(IpAddr),
    /// It is not in DNS any more.
    Left(IpAddr),
    /// It is in DNS again, and had not been removed yet.
    Returned(IpAddr),
    /// As many more than there may be are in DNS now, and not taken.
    Spare(usize),
}

#[derive(Clone, Debug)]
struct Address {
    ip: IpAddr,
    /// Whether it is in DNS.
    present: bool,
    told: Option<Box<[u8]>>,
}

/// Addresses of an entry that are in DNS at a time.
pub(in crate::control) const MAX_ADDRESSES: usize = 256;
/// Addresses of an entry, those that have left and drain included.
const MAX_KNOWN: usize = 1024;

// === impl Known ===

impl Known {
    /// Takes up what a look-up found for an entry. An answer without any address changes nothing: it is much more
    /// often a fault than the end of all backends, and of those that are gone, health tells.
    pub(in crate::control) fn learn(&mut self, entry: &Entry, mut found: Found, room: usize) -> Vec<Change> {
        if found.is_empty() {
            return Vec::new();
        }
        let Addresses { list: addresses, spare: spare_before } = self.0.entry(entry.clone()).or_default();
        let mut changes = Vec::new();
        let mut present = 0;
        for address in addresses.iter_mut() {
            // Those known come first: whatever the order of an answer that is too long, they stay.
            let is = found.has(address.ip).unwrap_or(address.present) && present < MAX_ADDRESSES;
            present += usize::from(is);
            if is != address.present {
                address.present = is;
                changes.push(if is { Change::Returned(address.ip) } else { Change::Left(address.ip) });
            }
        }
        let known: HashSet<IpAddr> = addresses.iter().map(|address| address.ip).collect();
        let mut new: Vec<IpAddr> = found.iter().filter(|ip| !known.contains(ip)).collect();
        new.sort_unstable();
        new.dedup();
        let room = room.min(MAX_ADDRESSES - present).min(MAX_KNOWN.saturating_sub(addresses.len()));
        let spare = new.split_off(room.min(new.len())).len();
        for &ip in &new {
            addresses.push(Address { ip, present: true, told: found.told.remove(&ip) });
        }
        addresses.sort_unstable_by_key(|address| address.ip);
        changes.extend(new.into_iter().map(Change::Joined));
        if std::mem::replace(spare_before, spare) != spare {
            changes.push(Change::Spare(spare));
        }
        changes
    }

    /// The addresses that have left DNS and are not removed yet.
    pub(in crate::control) fn absent(&self) -> Vec<(Entry, IpAddr)> {
        let absent = |(entry, addresses): (&Entry, &Addresses)| -> Vec<_> {
            let absent = addresses.list.iter().filter(|address| !address.present);
            absent.map(|address| (entry.clone(), address.ip)).collect()
        };
        self.0.iter().flat_map(absent).collect()
    }

    /// The backend of an address is no more.
    pub(in crate::control) fn remove(&mut self, entry: &Entry, ip: IpAddr) {
        if let Some(addresses) = self.0.get_mut(entry) {
            addresses.list.retain(|address| address.ip != ip);
        }
    }

    /// Another configuration: entries that it does not have are forgotten. One that has another host name now
    /// keeps its addresses until that has been looked up, and so does one that has another name for the same host.
    pub(in crate::control) fn follow(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.0);
        for entry in entries(config) {
            let stays = |old: &&Entry| old.pool == entry.pool && old.name == entry.name;
            let renamed = |old: &&Entry| {
                let taken = || entries(config).any(|other| other.pool == old.pool && other.name == old.name);
                old.pool == entry.pool && old.host == entry.host && !taken()
            };
            let old = before.keys().find(stays).or_else(|| before.keys().find(renamed)).cloned();
            if let Some(addresses) = old.and_then(|old| before.remove(&old)) {
                self.0.insert(entry, addresses);
            }
        }
    }

    /// The backends of every pool: those that are written, and those that were found, absent ones included.
    pub(in crate::control) fn lists(&self, config: &Config) -> Vec<Vec<Listed>> {
        config.pools.iter().map(|pool| self.list(pool)).collect()
    }

    /// How many backends a pool may still get.
    pub(in crate::control) fn room(&self, pool: &config::Pool) -> usize {
        BACKENDS_MAX.saturating_sub(self.list(pool).len())
    }

    fn list(&self, pool: &config::Pool) -> Vec<Listed> {
        let mut list = Vec::with_capacity(pool.backends.len());
        for backend in &pool.backends {
            if backend.discover.is_none() {
                list.push(Listed { config: backend.clone(), discovered: None, told: None, leaving: false });
                continue;
            }
            let entry = Entry::of(pool, backend);
            for address in self.0.get(&entry).map_or(&[][..], |addresses| &addresses.list) {
                let config = config::Backend {
                    name: entry.backend(address.ip).into(),
                    host: address.ip.to_string().into(),
                    port: backend.port,
                    weight: backend.weight,
                    discover: None,
                    tls: backend.tls.clone(),
                };
                let discovered = Some(backend.name.clone());
                let told = address.told.clone();
                list.push(Listed { config, discovered, told, leaving: false });
            }
        }
        list.truncate(BACKENDS_MAX);
        list
    }
}

// === impl Entry ===

impl Entry {
    fn of(pool: &config::Pool, backend: &config::Backend) -> Self {
        Self { pool: pool.name.clone(), name: backend.name.clone(), host: backend.host.clone() }
    }

    /// The name of the backend that has this address.
    pub(in crate::control) fn backend(&self, ip: IpAddr) -> String {
        format!("{}-{ip}", self.name)
    }
}

/// The entries that discover their backends.
pub(in crate::control) fn entries(config: &Config) -> impl Iterator<Item = Entry> {
    config.pools.iter().flat_map(|pool| {
        let discovers = |backend: &&config::Backend| backend.discover == Some(Discover::Dns);
        pool.backends.iter().filter(discovers).map(|backend| Entry::of(pool, backend))
    })
}

// === impl Found ===

impl Found {
    /// Whether it names no address.
    pub(in crate::control) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The addresses.
    pub(in crate::control) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        [&self.v4, &self.v6].into_iter().flatten().flatten().copied()
    }

    /// Whether it names this address; none when nothing was found out about its family.
    fn has(&self, ip: IpAddr) -> Option<bool> {
        let family = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        family.as_ref().map(|addresses| addresses.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn entry() -> Entry {
        Entry { pool: "shop".into(), name: "app".into(), host: "app.internal".into() }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn v4(texts: &[&str]) -> Found {
        Found { v4: Some(ips(texts)), v6: Some(Vec::new()), ..Found::default() }
    }

    fn config(backends: &str) -> Config {
        let text = format!(
            "certificate = [{{ cert = \"c\", key = \"k\" }}]\n[[pool]]\nname = \"shop\"\nbackend = [{backends}]"
        );
        Config::parse(&text, "test", Path::new("")).unwrap()
    }

    fn names(known: &Known, config: &Config) -> Vec<String> {
        known.lists(config)[0].iter().map(|listed| listed.config.name.to_string()).collect()
    }

    const APP: &str =
        "{ name = \"app\", url = \"http://app.internal:3000\", discover = \"dns\", weight = 2 }";

    #[test]
    fn addresses_join_leave_and_return() {
        let mut known = Known::default();
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let mut learn = |texts: &[&str]| known.learn(&entry(), v4(texts), 100);
        assert_eq!(learn(&["10.0.0.2", "10.0.0.1"]), [Change::Joined(one), Change::Joined(two)]);
        assert_eq!(learn(&["10.0.0.1", "10.0.0.2"]), []);
        assert_eq!(learn(&["10.0.0.2"]), [Change::Left(one)]);
        assert_eq!(learn(&["10.0.0.2"]), []);
        assert_eq!(learn(&["10.0.0.1"]), [Change::Returned(one), Change::Left(two)]);
        assert_eq!(known.absent(), [(entry(), two)]);
        known.remove(&entry(), two);
        assert_eq!(known.learn(&entry(), v4(&["10.0.0.1", "10.0.0.2"]), 100), [Change::Joined(two)]);
    }

    #[test]
    fn a_family_that_could_not_be_looked_up_stays() {
        let mut known = Known::default();
        let both = Found { v4: Some(ips(&["10.0.0.1"])), v6: Some(ips(&["fd00::1"])), ..Found::default() };
        known.learn(&entry(), both, 100);
        let only = Found { v4: None, v6: Some(ips(&["fd00::2"])), ..Found::default() };
        let [old, new] = ["fd00::1", "fd00::2"].map(|ip| ip.parse().unwrap());
        assert_eq!(known.learn(&entry(), only, 100), [Change::Left(old), Change::Joined(new)]);
    }

    #[test]
    fn an_answer_without_addresses_changes_nothing() {
        let mut known = Known::default();
        known.learn(&entry(), v4(&["10.0.0.1"]), 100);
        assert_eq!(known.learn(&entry(), v4(&[]), 100), []);
        assert_eq!(known.learn(&entry(), Found::default(), 100), []);
        assert_eq!(names(&known, &config(APP)), ["app-10.0.0.1"]);
    }

    #[test]
    fn too_long_an_answer_keeps_those_known_and_is_cut_the_same_way_in_any_order() {
        let mut known = Known::default();
        let last: IpAddr = "10.0.255.255".parse().unwrap();
        known.learn(&entry(), v4(&["10.0.255.255"]), 1000);
        let mut many: Vec<IpAddr> =
            (0..300_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
        many.push(last);
        let found = |ips: &[IpAddr]| Found { v4: Some(ips.to_vec()), ..Found::default() };
        let changes = known.learn(&entry(), found(&many), 1000);
        let joined = changes.iter().filter(|change| matches!(change, Change::Joined(_))).count();
        let spare = 300 - (MAX_ADDRESSES - 1);
        assert_eq!((joined, changes.last()), (MAX_ADDRESSES - 1, Some(&Change::Spare(spare))));
        many.reverse();
        assert_eq!(known.learn(&entry(), found(&many), 1000), []);
    }

    #[test]
    fn a_full_pool_takes_no_more() {
        let mut known = Known::default();
        let one = "10.0.0.1".parse().unwrap();
        let changes = known.learn(&entry(), v4(&["10.0.0.1", "10.0.0.2"]), 1);
        assert_eq!(changes, [Change::Joined(one), Change::Spare(1)]);
    }

    #[test]
    fn an_entry_becomes_its_addresses_in_the_place_where_it_is_written() {
        let mut known = Known::default();
        known.learn(&entry(), v4(&["10.0.0.2", "10.0.0.1"]), 100);
        let config = config(&format!("{{ url = \"http://a:1\" }}, {APP}, {{ url = \"http://b:1\" }}"));
        assert_eq!(names(&known, &config), ["a:1", "app-10.0.0.1", "app-10.0.0.2", "b:1"]);
        let listed = &known.lists(&config)[0][1];
        assert_eq!(
            (&*listed.config.host, listed.config.port, listed.config.weight.get()),
            ("10.0.0.1", 3000, 2)
        );
        assert_eq!(listed.discovered.as_deref(), Some("app"));
    }

    #[test]
    fn a_reload_keeps_the_addresses_of_entries_that_stay() {
        let mut known = Known::default();
        known.learn(&entry(), v4(&["10.0.0.1"]), 100);
        let moved = config(&APP.replace("app.internal", "other.internal"));
        known.follow(&moved);
        assert_eq!(names(&known, &moved), ["app-10.0.0.1"]);
        known.follow(&config("{ url = \"http://a:1\" }"));
        known.follow(&moved);
        assert_eq!(names(&known, &moved), [""; 0]);
    }
}
