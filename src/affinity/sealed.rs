//! The proxy's own cookie: whom it names, sealed, so that nobody without the key can read, make or change
//! one.
//!
//! A token is the unpadded base64url (RFC 4648 §5) of a version byte, a nonce (12 bytes), the sealed text,
//! and its tag (16 bytes). The text is the session's random id (16 bytes), when the session was born and
//! when this token was issued (each 8 bytes, big-endian milliseconds since 1970), and the backend's name,
//! filled up with zero bytes so that the length says little about it. Pool and cookie are authenticated
//! with it: what was issued for one is of no use to another.
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452): nonces are random, keys in files live long and are shared by
//! replicas, and with this cipher a repeated nonce gives nothing away but that two texts are the same.

use std::{fmt, time::Duration};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use data_encoding::BASE64URL_NOPAD;

use super::{
    key::{KeyHasher, SessionKey},
    session_id::ISSUED,
};

/// A key that seals and opens tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey([u8; Self::LEN]);

/// The random id of a session that the proxy itself began; a credential like any session id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenId([u8; Self::LEN]);

/// Seals and opens the tokens of one pool.
pub struct Sealer {
    /// The first one seals, all open.
    keys: Box<[LessSafeKey]>,
    /// What is authenticated with each token.
    context: Box<[u8]>,
    life: Life,
}

/// How long tokens are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Idle time after which a session is forgotten.
    pub ttl: Duration,
    /// Age at which it is forgotten even while it is in use.
    pub max_age: Option<Duration>,
}

/// What a token says; only [`Sealer::open`] makes one, so its content is our own.
#[derive(Clone)]
pub struct Token {
    /// Whose session it is.
    pub id: TokenId,
    /// When the session began, since 1970.
    pub born: Duration,
    /// Whether it is time for a new token: this one is well under way to its end, or an old key sealed it.
    pub due: bool,
    /// Whether its client has not been seen for the ttl, as far as a token can tell. An open stream keeps a
    /// session without a new token: it is good while the session is known.
    pub idle: bool,
    name: [u8; NAME_MAX],
    name_len: usize,
}

/// Why a token is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// It does not have the form of a token.
    Malformed,
    /// None of the keys opens it: it was changed, made up, sealed with a key that is gone, or issued for
    /// another pool or cookie. Which of these cannot be known.
    Tampered,
    /// Its session is too old.
    Expired,
}

/// The bytes that a token needs beside its text.
const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Where the sealed text begins.
const TEXT_AT: usize = 1 + NONCE_LEN;
/// Where the name begins within the text.
const NAME_AT: usize = TokenId::LEN + 8 + 8;
/// Longest name of a backend, as the configuration allows it.
const NAME_MAX: usize = 64;
/// Names are filled up to a multiple of this.
const NAME_STEP: usize = 16;
/// Bytes of the longest token.
const BYTES_MAX: usize = TEXT_AT + NAME_AT + NAME_MAX + TAG_LEN;
/// A token is renewed after this part of the ttl, and good for as much longer than the ttl.
const SLACK: u32 = 4;

// === impl SealingKey ===

impl SealingKey {
    /// Bytes of a key.
    pub const LEN: usize = 32;

    /// A key of these bytes.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes, which nobody else may see.
    pub const fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

// === impl TokenId ===

impl TokenId {
    /// Bytes of an id.
    pub const LEN: usize = 16;

    /// An id of these bytes, which must be random.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The key of this session.
    pub fn key(&self, hasher: &KeyHasher) -> SessionKey {
        hasher.tagged(ISSUED, &self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenId(…)")
    }
}

// === impl Sealer ===

impl Sealer {
    /// Bytes of a nonce.
    pub const NONCE_LEN: usize = NONCE_LEN;

    /// A sealer for the cookie of this name in this pool. The first key seals; without any, nothing is
    /// sealed or opened.
    pub fn new(keys: &[SealingKey], pool: &str, cookie: &str, life: Life) -> Self {
        let keys = keys.iter().map(|key| {
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key.0).expect("a key of the cipher's length"))
        });
        // Neither name can hold a zero byte.
        let context = [b"homing issue", &[0, VERSION][..], pool.as_bytes(), &[0], cookie.as_bytes()].concat();
        Self { keys: keys.collect(), context: context.into(), life }
    }

    /// A token for a session at this backend. `nonce` must be random. None without a key, or when the name
    /// is longer than any backend's.
    pub fn seal(
        &self,
        id: &TokenId,
        born: Duration,
        backend: &str,
        nonce: [u8; NONCE_LEN],
        now: Duration,
    ) -> Option<String> {
        let name = Some(backend.as_bytes()).filter(|name| name.len() <= NAME_MAX)?;
        let mut token = [0; BYTES_MAX];
        let tag_at = TEXT_AT + NAME_AT + name.len().next_multiple_of(NAME_STEP);
        token[0] = VERSION;
        token[1..TEXT_AT].copy_from_slice(&nonce);
        let text = &mut token[TEXT_AT..tag_at];
        text[..TokenId::LEN].copy_from_slice(&id.0);
        text[TokenId::LEN..][..8].copy_from_slice(&millis(born).to_be_bytes());
        text[TokenId::LEN + 8..][..8].copy_from_slice(&millis(now).to_be_bytes());
        text[NAME_AT..][..name.len()].copy_from_slice(name);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.keys.first()?.seal_in_place_separate_tag(nonce, self.context(), text).ok()?;
        let end = tag_at + TAG_LEN;
        token[tag_at..end].copy_from_slice(tag.as_ref());
        Some(BASE64URL_NOPAD.encode(&token[..end]))
    }

    /// Opens a cookie's value. Never panics, whatever it is.
    ///
    /// # Errors
    /// Why the value is to be ignored.
    pub fn open(&self, value: &[u8], now: Duration) -> Result<Token, Unsealed> {
        let mut bytes = [0; BYTES_MAX];
        let token = decode(value, &mut bytes).ok_or(Unsealed::Malformed)?;
        let (at, text) = self.unseal(token).ok_or(Unsealed::Tampered)?;
        // From here on it is our own: that it does not fit cannot happen.
        let token = Token::read(&text, at > 0).ok_or(Unsealed::Malformed)?;
        self.life.judge(token, now)
    }

    /// The text, and the number of the key that opened it.
    fn unseal(&self, token: &[u8]) -> Option<(usize, Text)> {
        let nonce: [u8; NONCE_LEN] = token.get(1..TEXT_AT)?.try_into().ok()?;
        self.keys.iter().enumerate().find_map(|(at, key)| {
            // A failed try leaves nothing of the text, so each key has a copy of its own.
            let mut text = Text { bytes: [0; BYTES_MAX], len: 0 };
            let sealed = &mut text.bytes[..token.len() - TEXT_AT];
            sealed.copy_from_slice(&token[TEXT_AT..]);
            let nonce = Nonce::assume_unique_for_key(nonce);
            text.len = key.open_in_place(nonce, self.context(), sealed).ok()?.len();
            Some((at, text))
        })
    }

    fn context(&self) -> Aad<&[u8]> {
        Aad::from(&*self.context)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("keys", &self.keys.len()).field("life", &self.life).finish()
    }
}

/// An opened text.
struct Text {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

// === impl Life ===

impl Life {
    /// A token is issued anew this long after it was issued.
    fn renewed(self) -> Duration {
        self.ttl / SLACK
    }

    /// A token is good for this long by itself: its client may have been seen as late as when the next token was
    /// almost due, and is not idle for the ttl before the ttl has passed from there.
    pub fn lasts(self) -> Duration {
        self.ttl + self.renewed()
    }

    fn judge(self, (mut token, issued): (Token, Duration), now: Duration) -> Result<Token, Unsealed> {
        if self.max_age.is_some_and(|max| now.saturating_sub(token.born) >= max) {
            return Err(Unsealed::Expired);
        }
        token.idle = now.saturating_sub(issued) >= self.lasts();
        // One from the future comes from a replica whose clock is ahead: soon replaced as well.
        token.due |= now.abs_diff(issued) >= self.renewed();
        Ok(token)
    }
}

// === impl Token ===

impl Token {
    /// The backend that it names; there may be none of this name any more.
    pub fn backend(&self) -> &str {
        std::str::from_utf8(&self.name[..self.name_len]).unwrap_or_default()
    }

    /// What a text says, and when it was issued.
    fn read(text: &Text, due: bool) -> Option<(Self, Duration)> {
        let text = &text.bytes[..text.len];
        let (id, rest) = text.split_first_chunk()?;
        let (born, rest) = rest.split_first_chunk()?;
        let (issued, filled) = rest.split_first_chunk()?;
        let len = filled.iter().position(|&byte| byte == 0).unwrap_or(filled.len());
        let mut name = [0; NAME_MAX];
        name.get_mut(..len)?.copy_from_slice(&filled[..len]);
        let since_1970 = |bytes: &[u8; 8]| Duration::from_millis(u64::from_be_bytes(*bytes));
        let token = Self { id: TokenId(*id), born: since_1970(born), due, idle: false, name, name_len: len };
        Some((token, since_1970(issued)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("backend", &self.backend())
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// The bytes of a value that could be a token; nothing is allocated, whatever its length.
fn decode<'a>(value: &[u8], bytes: &'a mut [u8; BYTES_MAX]) -> Option<&'a [u8]> {
    let len = BASE64URL_NOPAD.decode_len(value.len()).ok().filter(|len| *len <= BYTES_MAX)?;
    let len = BASE64URL_NOPAD.decode_mut(value, bytes.get_mut(..len)?).ok()?;
    let token = &bytes[..len];
    (token.first() == Some(&VERSION) && len >= TEXT_AT + NAME_AT + TAG_LEN).then_some(token)
}

fn millis(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const TTL: Duration = Duration::from_secs(1000);
    const ID: TokenId = TokenId([7; 16]);

    fn life() -> Life {
        Life { ttl: TTL, max_age: None }
    }

    fn key(byte: u8) -> SealingKey {
        SealingKey::new([byte; 32])
    }

    fn sealer(keys: &[u8]) -> Sealer {
        let keys: Vec<_> = keys.iter().map(|byte| key(*byte)).collect();
        Sealer::new(&keys, "app", "__Host-homing", life())
    }

    fn sealed_by(sealer: &Sealer, backend: &str) -> String {
        sealer.seal(&ID, NOW - TTL / 10, backend, [9; 12], NOW).unwrap()
    }

    fn refusal(sealer: &Sealer, value: impl AsRef<[u8]>, now: Duration) -> Unsealed {
        sealer.open(value.as_ref(), now).unwrap_err()
    }

    #[test]
    fn what_is_sealed_is_opened() {
        let sealer = sealer(&[1]);
        let longest = "x".repeat(NAME_MAX);
        for backend in ["app-1", "", "exactly-16-bytes", &longest] {
            let token = sealer.open(sealed_by(&sealer, backend).as_bytes(), NOW).unwrap();
            assert_eq!((token.id, token.born, token.backend()), (ID, NOW - TTL / 10, backend));
            assert!(!token.due);
        }
        assert_eq!(sealer.seal(&ID, NOW, &"x".repeat(NAME_MAX + 1), [0; 12], NOW), None);
    }

    #[test]
    fn tokens_never_change_between_releases() {
        // Clients keep them over an upgrade.
        let golden = "AQkJCQkJCQkJCQkJCXY2Z1k9f9f1rzwc-LwDWBwSAJbxRna08enB8aekNAPlclgTcyuomdjc2zXx3TwHBUKCzz4mkLGt1\
            cr3vPu_G6Y";
        assert_eq!(sealed_by(&sealer(&[1]), "app-1"), golden);
    }

    #[test]
    fn the_length_says_little_about_the_name() {
        let sealer = sealer(&[1]);
        assert_eq!(sealed_by(&sealer, "a").len(), sealed_by(&sealer, "sixteen-letters-").len());
    }

    #[test]
    fn the_first_key_seals_and_all_keys_open() {
        let (old, both, new) = (sealer(&[1]), sealer(&[2, 1]), sealer(&[2]));
        let by_old = sealed_by(&old, "app-1");
        let token = both.open(by_old.as_bytes(), NOW).unwrap();
        assert!(token.due, "sealed anew with the first key");
        let by_both = sealed_by(&both, "app-1");
        assert!(!new.open(by_both.as_bytes(), NOW).unwrap().due);
        assert_eq!(refusal(&old, by_both, NOW), Unsealed::Tampered);
        assert_eq!(refusal(&new, by_old, NOW), Unsealed::Tampered);
    }

    #[test]
    fn no_byte_can_be_changed() {
        let sealer = sealer(&[1]);
        let good = sealed_by(&sealer, "app-1");
        let bytes = BASE64URL_NOPAD.decode(good.as_bytes()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let refused = refusal(&sealer, BASE64URL_NOPAD.encode(&changed), NOW);
                let wanted = if at == 0 { Unsealed::Malformed } else { Unsealed::Tampered };
                assert_eq!(refused, wanted, "byte {at}, bit {bit}");
            }
        }
        // Nor can the same bytes be written in another way.
        for at in 0..good.len() {
            let mut text = good.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            refusal(&sealer, text, NOW);
        }
        refusal(&sealer, format!("{good}="), NOW);
        refusal(&sealer, &good[..good.len() - 1], NOW);
    }

    #[test]
    fn a_token_of_another_pool_or_cookie_is_of_no_use() {
        let good = sealed_by(&sealer(&[1]), "app-1");
        for (pool, cookie) in [("other", "__Host-homing"), ("app", "other"), ("app\0__Host", "-homing")] {
            let other = Sealer::new(&[key(1)], pool, cookie, life());
            assert_eq!(refusal(&other, &good, NOW), Unsealed::Tampered);
        }
    }

    #[test]
    fn a_token_is_renewed_after_a_quarter_of_the_ttl() {
        let sealer = sealer(&[1]);
        let token = sealed_by(&sealer, "app-1");
        let due = |now| sealer.open(token.as_bytes(), now).unwrap().due;
        let moment = Duration::from_millis(1);
        assert!(!due(NOW + TTL / 4 - moment));
        assert!(due(NOW + TTL / 4));
        assert!(!due(NOW - TTL / 4 + moment), "a clock that is a little ahead");
        assert!(due(NOW - TTL / 4), "a clock that is far ahead");
    }

    #[test]
    fn a_token_outlives_an_idle_time_of_the_ttl_since_it_was_almost_due() {
        let sealer = sealer(&[1]);
        let token = sealed_by(&sealer, "app-1");
        let last_seen = NOW + TTL / 4 - Duration::from_millis(1);
        assert!(!sealer.open(token.as_bytes(), last_seen + TTL).unwrap().idle);
        assert!(sealer.open(token.as_bytes(), NOW + TTL * 5 / 4).unwrap().idle);
        assert_eq!(life().lasts(), TTL * 5 / 4);
    }

    #[test]
    fn a_session_ends_at_its_greatest_age_however_new_its_token() {
        let life = Life { max_age: Some(TTL * 2), ..life() };
        let sealer = Sealer::new(&[key(1)], "app", "c", life);
        let token = |born| sealer.seal(&ID, born, "app-1", [0; 12], NOW).unwrap();
        assert!(sealer.open(token(NOW - TTL).as_bytes(), NOW).is_ok());
        assert_eq!(refusal(&sealer, token(NOW - TTL * 2), NOW), Unsealed::Expired);
    }

    #[test]
    fn the_key_of_a_session_is_no_other_ids() {
        let hasher = KeyHasher::new([1; 16]);
        assert_eq!(ID.key(&hasher), ID.key(&hasher));
        assert_ne!(ID.key(&hasher), TokenId([8; 16]).key(&hasher));
        assert_ne!(ID.key(&hasher), hasher.key(&[7; 16]));
    }

    #[test]
    fn nothing_secret_can_be_printed() {
        let sealer = sealer(&[1]);
        let token = sealer.open(sealed_by(&sealer, "app-1").as_bytes(), NOW).unwrap();
        let shown = format!("{:?} {:?} {:?} {sealer:?}", key(1), ID, token);
        assert!(!shown.contains("1, 1") && !shown.contains("7, 7") && shown.contains("app-1"), "{shown}");
    }

    #[test]
    fn without_a_key_nothing_is_sealed_or_opened() {
        let (none, some) = (sealer(&[]), sealer(&[1]));
        assert_eq!(none.seal(&ID, NOW, "app-1", [0; 12], NOW), None);
        assert_eq!(refusal(&none, sealed_by(&some, "app-1"), NOW), Unsealed::Tampered);
    }

    proptest! {
        #[test]
        fn no_value_is_opened_or_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(sealer(&[1, 2]).open(&value, NOW).is_err());
        }

        #[test]
        fn no_token_is_opened_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            let value = BASE64URL_NOPAD.encode(&[&[VERSION][..], &bytes].concat());
            prop_assert!(sealer(&[1, 2]).open(value.as_bytes(), NOW).is_err());
        }
    }
}
