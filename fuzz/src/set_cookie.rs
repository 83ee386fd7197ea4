//! What an answer says about its session: Set-Cookie fields with their dates, a header field.

use homing::affinity::{Answerer, Effect, KeyHasher, KeySource};

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
            let effect = Effect::of(&sources, carried, &hasher, "GET", &answer, wall);
            if let Effect::Set { lasts: Some(lasts), .. } = effect {
                assert!(!lasts.is_zero(), "a cookie that lasts no time is deleted");
            }
        }
    }
    // The client has no cookie but the last one of the name.
    let cookie = &sources[..1];
    let of = |fields: Vec<&[u8]>| {
        Effect::of(cookie, Some(0), &hasher, "GET", &Answer { status: 200, fields }, 784_111_777)
    };
    let last = answer.fields.iter().rev().map(|field| of(vec![field])).find(|said| *said != Effect::Silent);
    assert_eq!(of(answer.fields.clone()), last.unwrap_or(Effect::Silent));
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
