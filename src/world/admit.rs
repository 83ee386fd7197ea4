//! Connections and requests against the limits of all workers.

use std::net::IpAddr;

use super::{Snapshot, World};
use crate::{
    admission::{Permit, RequestPermit},
    clock,
};

// === impl World ===

impl World {
    /// Counts a client connection in, unless `limits.connections` is reached.
    pub fn admit(&self) -> Option<Permit> {
        self.gate.connection(self.snapshot.load().config.limits.connections.get())
    }

    /// Counts it for the client's address, too, once that is known: after accept, or after the header of the PROXY
    /// protocol. False when that address has `limits.connections_per_address` already; trusted proxies may have any
    /// number.
    pub fn admit_address(&self, permit: &mut Permit, address: IpAddr) -> bool {
        let snapshot = self.snapshot.load();
        let Some(limit) = snapshot.config.edge.connections_per_address else { return true };
        if snapshot.config.trusts(address) || permit.count_for(address, limit) {
            return true;
        }
        if self.gate.may_complain(clock::uptime()) {
            tracing::warn!(
                %address,
                limit,
                "refusing connections of an address that has as many as `limits.connections_per_address`; if it is a \
                 balancer, name it in `trusted_proxies` (told once a minute)"
            );
        }
        false
    }

    /// Whether it is time to complain about a balancer that sends no PROXY header.
    pub fn may_complain_of_header(&self) -> bool {
        self.gate.may_complain_of_header(clock::uptime())
    }

    /// Counts a request in, unless `limits.requests` is reached.
    pub fn admit_request(&self, snapshot: &Snapshot) -> Option<RequestPermit> {
        self.gate.request(snapshot.config.edge.requests.get())
    }
}
