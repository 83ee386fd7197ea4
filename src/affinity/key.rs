//! What stands for a session id everywhere past the parser: a keyed hash of it.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use siphasher::sip128::{Hasher128, SipHasher24};

/// The 128-bit keyed hash of a whole session id.
///
/// Ids are credentials, so nothing past the parser holds one: a key cannot be turned back into an
/// id, nor be guessed from one without the secret. 128 bits make a collision between two of a
/// billion sessions less likely than 2^-68. Four words of 32 bits keep the alignment, and with it a
/// table's entries, small.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey([u32; 4]);

/// The part of a [`SessionKey`] that may be shown: eight hex digits, enough to follow one session
/// through a log, too few to look it up by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u32);

/// Makes [`SessionKey`]s: SipHash-2-4 with 128 bits of output (Aumasson and Bernstein 2012), under a
/// secret. Replicas that share sessions share the secret.
#[derive(Clone)]
pub struct KeyHasher {
    secret: [u8; 16],
}

/// Hashes [`SessionKey`]s for hash tables by taking 64 of their bits as they are: whoever sends ids
/// cannot aim at a bucket without the secret, so a second keyed hash would buy nothing.
///
/// All 64 bits are uniform, which matters since a table uses both ends: hashbrown takes its bucket
/// from the low bits and its control byte from the top seven, DashMap its shard from those below.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyBuildHasher;

/// The hasher of a [`KeyBuildHasher`]; only good for [`SessionKey`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyTableHasher(u64);

// === impl SessionKey ===

impl SessionKey {
    pub(super) const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    pub(super) const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The key as it is stored and shared: 16 bytes, the same on every machine.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *chunk = word.to_be_bytes();
        }
        bytes
    }

    /// The key that was stored so.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(words(&bytes))
    }

    /// The part that may be shown.
    pub const fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.0[0])
    }
}

impl Hash for SessionKey {
    /// One `write_u64` of the half that no fingerprint shows a part of.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [_, _, low, high] = self.words();
        state.write_u64(u64::from(high) << 32 | u64::from(low));
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({}…)", self.fingerprint())
    }
}

// === impl Fingerprint ===

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl KeyHasher ===

impl KeyHasher {
    /// A hasher under this secret.
    pub fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// The key of a session id. Cookies and headers share this name space: an application may take
    /// the same id by either.
    pub fn key(&self, id: &[u8]) -> SessionKey {
        SessionKey::from_words(words(&sip(&self.secret, id)))
    }

    /// A number for the text that these parts make, none of which holds a zero byte at a place where another one
    /// could begin: 16 bits under a secret of its own.
    pub(super) fn scope(&self, parts: &[&[u8]]) -> u16 {
        let mut hasher = SipHasher24::new_with_key(&sip(&self.secret, b"homing cookie scope"));
        for part in parts {
            hasher.write(part);
            hasher.write(&[0]);
        }
        let [low, high, ..] = hasher.finish128().as_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The key of `bytes` in a name space of its own: no id, and nothing under another tag, has the
    /// same key, not even when it has the same bytes.
    pub fn tagged(&self, tag: u8, bytes: &[u8]) -> SessionKey {
        // A secret of its own rather than a prefix: every prefix is also the beginning of some id.
        let mut label = *b"homing name space 0";
        label[label.len() - 1] = tag;
        SessionKey::from_words(words(&sip(&sip(&self.secret, &label), bytes)))
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

fn sip(secret: &[u8; 16], bytes: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(bytes);
    hasher.finish128().as_bytes()
}

/// The digest's words in its own byte order, the same on every machine.
fn words(digest: &[u8; 16]) -> [u32; 4] {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|at| u32::from_be_bytes(words[at]))
}

// === impl KeyBuildHasher ===

impl BuildHasher for KeyBuildHasher {
    type Hasher = KeyTableHasher;

    fn build_hasher(&self) -> KeyTableHasher {
        KeyTableHasher::default()
    }
}

// === impl KeyTableHasher ===

impl Hasher for KeyTableHasher {
    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }

    /// A session key never comes here; anything else still gets a valid, if poor, hash.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn reference() -> KeyHasher {
        KeyHasher::new(std::array::from_fn(|at| at as u8))
    }

    fn hex(key: SessionKey) -> String {
        key.words().map(|word| format!("{word:08x}")).concat()
    }

    #[test]
    fn keys_are_those_of_the_reference_implementation() {
        // vectors_sip128 of https://github.com/veorq/SipHash: key 00..0f, input the bytes 00, 01, ...
        let golden = [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
            (3, "9c70b60c5267a94e5f33b6b02985ed51"),
        ];
        for (length, digest) in golden {
            let id: Vec<u8> = (0..length).collect();
            assert_eq!(hex(reference().key(&id)), digest, "{length} bytes");
        }
    }

    #[test]
    fn a_key_survives_being_stored() {
        let key = reference().key(b"s3ss10n");
        assert_eq!(SessionKey::from_bytes(key.to_bytes()), key);
        assert_eq!(key.to_bytes()[..4], [0x34, 0x7f, 0x05, 0x9f]);
    }

    #[test]
    fn keys_never_change_between_releases() {
        // Shared and persisted bindings depend on these.
        assert_eq!(hex(reference().key(b"s3ss10n")), "347f059fa4e31915bf3d0b6ab29496c7");
        assert_eq!(hex(reference().tagged(1, b"s3ss10n")), "80d3289579949a33a14f0d0924e40e29");
        assert_eq!(hex(reference().tagged(2, b"")), "e4de9dd4e2a976622a2bdd3d42266c5c");
    }

    #[test]
    fn name_spaces_are_apart() {
        let hasher = reference();
        let keys = [hasher.key(b"id"), hasher.tagged(0, b"id"), hasher.tagged(1, b"id")];
        assert_ne!(keys[0], keys[1]);
        assert_ne!(keys[0], keys[2]);
        assert_ne!(keys[1], keys[2]);
        assert_ne!(hasher.key(b"\x01id"), hasher.tagged(1, b"id"));
    }

    #[test]
    fn another_secret_gives_another_key() {
        assert_ne!(reference().key(b"id"), KeyHasher::new([7; 16]).key(b"id"));
    }

    #[test]
    fn debug_shows_eight_digits_at_most_and_no_secret() {
        let key = reference().key(b"");
        assert_eq!(key.fingerprint().to_string(), "a3817f04");
        assert_eq!(format!("{key:?}"), "SessionKey(a3817f04…)");
        assert_eq!(format!("{:?}", reference()), "KeyHasher { .. }");
    }

    #[test]
    fn a_key_keeps_entries_small() {
        assert_eq!((size_of::<SessionKey>(), align_of::<SessionKey>()), (16, 4));
    }

    #[test]
    fn both_ends_of_a_table_hash_vary() {
        let hashes: Vec<u64> =
            (0..2_000_u32).map(|n| KeyBuildHasher.hash_one(reference().key(&n.to_le_bytes()))).collect();
        let control: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        let shard: HashSet<u64> = hashes.iter().map(|hash| hash << 7 >> 57).collect();
        let bucket: HashSet<u64> = hashes.iter().map(|hash| hash & 127).collect();
        assert_eq!((control.len(), shard.len(), bucket.len()), (128, 128, 128));
    }

    #[test]
    fn what_a_fingerprint_shows_says_nothing_of_the_table_hash() {
        let hash = |words| KeyBuildHasher.hash_one(SessionKey::from_words(words));
        assert_eq!(hash([1, 2, 3, 4]), 0x0000_0004_0000_0003);
        assert_eq!(hash([1, 2, 3, 4]), hash([9, 9, 3, 4]));
    }
}
