//! Whom an address stands for.

use std::net::IpAddr;

/// An IPv4 address, or an IPv6 network of 64 bits: what one customer of a provider gets at least, and can draw any
/// number of addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// All of it.
    V4(u32),
    /// Its first half.
    V6(u64),
}

// === impl Network ===

impl Network {
    /// The one that this address belongs to; an IPv4 address within IPv6 is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}
