//! What is counted about the proxy's own cookie.

use prometheus::{IntCounter, IntCounterVec};

use crate::affinity::Unsealed;

/// One pool's tokens by what became of them.
#[derive(Clone, Debug)]
pub struct TokenMetrics {
    /// Set for a new session.
    pub issued: IntCounter,
    /// Set anew for a session that has one.
    pub renewed: IntCounter,
    /// Brought by a client, and good.
    pub accepted: IntCounter,
    tampered: IntCounter,
    expired: IntCounter,
    malformed: IntCounter,
}

/// The values of `result`.
const RESULTS: [&str; 6] = ["issued", "renewed", "accepted", "tampered", "expired", "malformed"];

// === impl TokenMetrics ===

impl TokenMetrics {
    /// This pool's children of the family, exported as 0 from here on.
    pub(super) fn resolve(family: &IntCounterVec, pool: &str) -> Self {
        let [issued, renewed, accepted, tampered, expired, malformed] =
            RESULTS.map(|result| family.with_label_values(&[pool, result]));
        Self { issued, renewed, accepted, tampered, expired, malformed }
    }

    /// Removes them from the family.
    pub(super) fn forget(family: &IntCounterVec, pool: &str) {
        for result in RESULTS {
            // What is not there needs no removal.
            let _ = family.remove_label_values(&[pool, result]);
        }
    }

    /// Counts a token that is ignored.
    pub fn ignored(&self, why: Unsealed) {
        match why {
            Unsealed::Malformed => &self.malformed,
            Unsealed::Tampered => &self.tampered,
            Unsealed::Expired => &self.expired,
        }
        .inc();
    }
}
