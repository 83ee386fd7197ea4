//! What operators are told about a pool's keys: which are in use, and when none of them fits.

use super::Pool;
use crate::{
    affinity::{ENOUGH, Stats},
    config::{describe_keys, format_key},
};

/// Ids that some client may have left over, or made up: any backend accepts them. They prove no key right.
const STRAYS: u64 = 8;

impl Pool {
    /// Where its sessions' ids are, in a few words.
    pub fn key_text(&self) -> String {
        match &self.issuer {
            Some(issuer) => format!("the proxy's own cookie {}", issuer.cookie()),
            None => describe_keys(&self.settings.keys),
        }
    }

    /// Whether a session was seen: some response has set an id, or the table has some that were set earlier, or
    /// backends accept more ids than a few strays. Always true for keys that no response sets.
    pub fn has_learned(&self, stats: &Stats) -> bool {
        !self.settings.keys.are_set_by_responses()
            || self.affinity.watch().learned() != 0
            || stats.restored > 0
            || stats.entries > stats.unlearned
            || stats.unlearned > STRAYS
    }

    /// What to say if dozens of responses have passed and no session was seen.
    pub fn key_advice(&self, stats: &Stats) -> Option<String> {
        if self.has_learned(stats) {
            return None;
        }
        let seen = self.affinity.watch().seen();
        if seen.responses < ENOUGH {
            return None;
        }
        let none = if self.settings.keys.are_well_known() {
            "no response sets a session cookie that homing knows".to_owned()
        } else {
            format!("no response sets {}", describe_keys(&self.settings.keys))
        };
        Some(match seen.stranger {
            Some(stranger) => {
                let (name, count) = (stranger.name, stranger.count);
                format!(
                    "{none}; {count} set `{name}`: if that is the session's, set key = \"cookie:{name}\" in [pool.affinity]"
                )
            }
            None => {
                let streams = if seen.websockets > 0 { " (WebSockets among them)" } else { "" };
                format!(
                    "{none}, {} responses{streams} set no session cookie at all: sessions are not kept on their \
                     backend; if the application has no cookie, `issue = {{}}` in [pool.affinity], or --issue, sets one",
                    seen.responses
                )
            }
        })
    }

    /// The keys that responses have set, each with how many did.
    pub fn keys_set(&self) -> Vec<(String, u64)> {
        let seen = self.affinity.watch().seen();
        seen.set.iter().map(|(source, count)| (format_key(source), *count)).collect()
    }
}
