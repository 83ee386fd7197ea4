//! Which of a request's ids its response is about.

use super::{Affinity, Keys, SessionKey, Tick, settings::KeySource, sources::KeySources, table::Flags};

impl Affinity {
    /// The number of the source whose id is that of the request's session; what a response says by earlier and later
    /// sources is read in relation to it. A cookie that leads to no session that a response began may be another
    /// application's, so it stands in no source's way.
    pub fn carried(&self, sources: &KeySources, keys: &Keys, now: Tick) -> Option<usize> {
        let first = keys.source()?;
        if sources.len() == 1 {
            return Some(first);
        }
        let learned = |key: SessionKey| {
            let key = self.current(key, now).unwrap_or(key);
            self.table.look(key, |binding| !binding.flags.has(Flags::UNLEARNED)).unwrap_or(false)
        };
        let session = keys.with_sources().find(|(key, _)| learned(*key)).map(|(_, source)| source);
        session.or_else(|| (!matches!(sources.get(first), Some(KeySource::Cookie(_)))).then_some(first))
    }
}
