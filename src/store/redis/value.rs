//! What is written under a key: JSON that people can read with `redis-cli`, and announcements of it.
//!
//! What comes back is not trusted: it is bounded, every field is checked, and what does not fit is refused.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    affinity::{Scope, SessionKey, Settings},
    clock::millis,
    store::{Entry, Session},
};

/// Bytes of a value; longer ones are nobody's of ours.
pub(super) const MAX_VALUE: usize = 1024;
/// Bytes of an announcement.
pub(super) const MAX_ANNOUNCEMENT: usize = 4 * MAX_VALUE;
/// Bytes of the name of a backend or pool.
const MAX_NAME: usize = 256;
/// How far the clock of another replica may be ahead; later times count as this.
const MAX_AHEAD: u64 = 60_000;
/// Beyond the time that is left of a session: what it was used since it was written last, and a bit.
const SLACK: Duration = Duration::from_secs(1);

/// A value; exactly one of `home`, `renamed` and `ended` is there. `home` comes first: the census finds it there.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    home: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    renamed: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ended: Option<Cow<'a, str>>,
    /// Sixteen hexadecimal digits: JSON numbers are not exact beyond 2^53.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    instance: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    placed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    unlearned: bool,
    /// Which of the client's cookies holds the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<u16>,
    /// When it was renamed or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    /// For replicas that know replaced ids that do not last; not read.
    #[serde(default, skip_serializing_if = "is_false")]
    lasting: bool,
}

/// What a replica tells the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Which process says so.
    pub(super) by: Box<str>,
    /// The pool's name.
    pub(super) pool: Box<str>,
    pub(super) key: SessionKey,
    /// Where the session of a replaced id lives.
    pub(super) home: Option<Box<str>>,
    pub(super) entry: Entry,
}

/// An announcement; the script appends the value and a closing brace to what stands before it.
#[derive(Debug, Serialize, Deserialize)]
struct WireAnnouncement<'a> {
    #[serde(borrow)]
    by: Cow<'a, str>,
    #[serde(borrow)]
    pool: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    home: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Wire<'a>,
}

/// The value for what is known of a key, and for how long Redis keeps it; none when there is nothing to keep.
pub(super) fn encode(entry: &Entry, settings: &Settings, now: u64) -> Option<(String, Duration)> {
    let left = match entry {
        Entry::Session(session) => life(session, settings, now)?,
        Entry::Renamed { until, .. } | Entry::Ended { until, .. } => {
            Duration::from_millis(until.checked_sub(now).filter(|left| *left > 0)?)
        }
        Entry::Gone => return None,
    };
    let text = serde_json::to_string(&wire(entry, settings)).ok()?;
    (text.len() <= MAX_VALUE).then_some((text, left))
}

/// What a value says; none when it is not one of ours.
pub(super) fn decode(text: &[u8], now: u64) -> Option<Entry> {
    if text.len() > MAX_VALUE {
        return None;
    }
    entry(serde_json::from_slice(text).ok()?, now)
}

/// What the script puts before a value to announce it. Of a replaced id, `home` says where its session lives.
pub(super) fn announcement_head(by: &str, pool: &str, key: SessionKey, home: Option<&str>) -> String {
    let text = |name: &str| serde_json::to_string(name).unwrap_or_default();
    let home = home.map(|home| format!(r#""home":{},"#, text(home))).unwrap_or_default();
    format!(r#"{{"by":"{by}","pool":{},"key":"{}",{home}"value":"#, text(pool), hex(key))
}

/// What another replica tells; none when it makes no sense.
pub(super) fn decode_announcement(text: &[u8], now: u64) -> Option<Announcement> {
    if text.len() > MAX_ANNOUNCEMENT {
        return None;
    }
    let wire: WireAnnouncement<'_> = serde_json::from_slice(text).ok()?;
    Some(Announcement {
        by: name(&wire.by)?,
        pool: name(&wire.pool)?,
        key: key(&wire.key)?,
        home: match &wire.home {
            None => None,
            Some(home) => Some(name(home)?),
        },
        entry: entry(wire.value, now)?,
    })
}

/// Thirty-two hexadecimal digits.
pub(super) fn hex(key: SessionKey) -> String {
    data_encoding::HEXLOWER.encode(&key.to_bytes())
}

fn key(hex: &str) -> Option<SessionKey> {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    Some(SessionKey::from_bytes(bytes.try_into().ok()?))
}

fn life(session: &Session, settings: &Settings, now: u64) -> Option<Duration> {
    let after = |since: u64, time: Duration| since.saturating_add(millis(time));
    let ttl = session.ttl.map_or(settings.ttl, |own| own.max(settings.ttl));
    let gone = after(session.seen, ttl);
    let gone = settings.max_age.map_or(gone, |age| gone.min(after(session.created, age)));
    let left = Duration::from_millis(gone.checked_sub(now).filter(|left| *left > 0)?);
    // Other uses than the last one that was written are told after an eighth of the TTL.
    Some(left + settings.ttl / 8 + SLACK)
}

fn wire<'a>(entry: &'a Entry, settings: &Settings) -> Wire<'a> {
    let earlier = |until: u64, by: Duration| Some(until.saturating_sub(millis(by)));
    match entry {
        Entry::Session(session) => Wire {
            home: Some(Cow::Borrowed(&session.home)),
            instance: (session.instance != 0).then(|| Cow::Owned(format!("{:016x}", session.instance))),
            from: session.from.as_deref().map(Cow::Borrowed),
            created: Some(session.created),
            placed: Some(session.placed),
            seen: Some(session.seen),
            ttl: session.ttl.map(millis),
            unlearned: session.unlearned,
            scope: Some(session.scope.to_bits()).filter(|scope| *scope != 0),
            ..Wire::default()
        },
        Entry::Renamed { to, until } => Wire {
            renamed: Some(Cow::Owned(hex(*to))),
            at: earlier(*until, settings.ttl),
            until: Some(*until),
            lasting: true,
            ..Wire::default()
        },
        Entry::Ended { home, until } => Wire {
            ended: Some(Cow::Borrowed(home)),
            at: earlier(*until, settings.grace),
            until: Some(*until),
            ..Wire::default()
        },
        Entry::Gone => Wire::default(),
    }
}

fn entry(wire: Wire<'_>, now: u64) -> Option<Entry> {
    let past = |time: Option<u64>| time.map(|time| time.min(now.saturating_add(MAX_AHEAD)));
    match (&wire.home, &wire.renamed, &wire.ended) {
        (Some(home), None, None) => Some(Entry::Session(Session {
            home: name(home)?,
            instance: match &wire.instance {
                None => 0,
                Some(digits) => u64::from_be_bytes(
                    data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()?,
                ),
            },
            from: match &wire.from {
                None => None,
                Some(from) => Some(name(from)?),
            },
            created: past(wire.created)?,
            placed: past(wire.placed)?,
            seen: past(wire.seen)?,
            ttl: wire.ttl.map(Duration::from_millis),
            unlearned: wire.unlearned,
            scope: wire.scope.map_or(Scope::UNKNOWN, Scope::from_bits),
        })),
        (None, Some(to), None) => Some(Entry::Renamed { to: key(to)?, until: wire.until? }),
        (None, None, Some(home)) => Some(Entry::Ended { home: name(home)?, until: wire.until? }),
        _ => None,
    }
}

fn name(text: &str) -> Option<Box<str>> {
    let fits = (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.into())
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests;
