//! What an answer says about its session: Set-Cookie fields with their dates, a header field.

use homing::affinity::{Answerer, Effect, Effects, Exchange, KeyHasher, KeySource, Target};

/// The first two bytes are the status; each line after them is a Set-Cookie field, and the first one of them the
/// value of every header field.
pub fn run(data: &[u8]) {
    let Some((status, fields)) = data.split_first_chunk() else { return };
    let fields: Vec<&[u8]> = fields.split(|byte| *byte == b'\n').collect();
    let answer = Answer { status: u16::from_be_bytes(*status), fields };
    let hasher = KeyHasher::new([1; 16]);
    let sources =
        [KeySource::Cookie("session".into()), KeySource::Header("x-session".into()), KeySource::Bearer];
    for carried in [None, Some(0), Some(1), Some(2)] {
        for wall in [i64::MIN, -1, 0, 784_111_777, i64::MAX] {
            let effects = Effects::of(&sources, &hasher, &exchange(carried, wall), &answer);
            let mut scopes = Vec::new();
            for effect in effects.iter() {
                assert!(!scopes.contains(&effect.scope()), "one word for each scope");
                scopes.push(effect.scope());
                if let Effect::Set { lasts: Some(lasts), .. } = effect {
                    assert!(!lasts.is_zero(), "a cookie that lasts no time is deleted");
                }
            }
        }
    }
    // Of a cookie, the client has what was said last.
    let cookie = &sources[..1];
    let of = |fields: Vec<&[u8]>| {
        Effects::of(cookie, &hasher, &exchange(Some(0), 784_111_777), &Answer { status: 200, fields })
    };
    let last = answer.fields.iter().rev().map(|field| of(vec![field])).find(|said| !said.is_silent());
    let all = of(answer.fields.clone());
    if answer.fields.iter().filter(|field| !of(vec![field]).is_silent()).count() <= Effects::MAX {
        assert_eq!(all.iter().last(), last.and_then(|last| last.iter().next()));
    }
}

fn exchange<'a>(carried: Option<usize>, wall_unix: i64) -> Exchange<'a> {
    Exchange { carried, method: "GET", target: Target { host: b"shop.test", path: b"/a/b" }, wall_unix }
}

struct Answer<'a> {
    status: u16,
    fields: Vec<&'a [u8]>,
}

impl Answerer for Answer<'_> {
    fn set_cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().copied()
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        self.fields.first().copied()
    }

    fn status(&self) -> u16 {
        self.status
    }
}
