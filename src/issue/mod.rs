//! The proxy's own sealed cookie, for applications that have no session cookie (`issue`).
//!
//! What a token says, and how it is sealed, is the business of [`affinity`](crate::affinity); here it gets
//! its keys (from files), its name and attributes, and its counters. Nothing in here decides anything.

mod key_file;

use std::{
    fmt,
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

use http::HeaderValue;

pub use self::key_file::KeyFileError;
use crate::{
    affinity::{Life, Sealer, SealingKey, Token, TokenId, Unsealed},
    backend::TokenMetrics,
    clock,
    config::{self, Config, SameSite},
};

/// The keys of every pool, in the order of the pools; none where a pool issues no cookie.
#[derive(Debug, PartialEq, Eq)]
pub struct Keyrings(Vec<Vec<SealingKey>>);

/// Every fault of the key files, never none.
#[derive(Debug)]
pub struct KeyFileErrors(Vec<KeyFileError>);

/// What one pool needs to issue its cookie.
#[derive(Debug)]
pub struct Issuer {
    sealer: Sealer,
    cookie: Box<str>,
    same_site: SameSite,
    /// What follows a token in a Set-Cookie field.
    attributes: Box<str>,
    metrics: TokenMetrics,
}

// === impl Keyrings ===

impl Keyrings {
    /// Reads all key files. A pool without one gets a key that lives as long as the process: a reload
    /// keeps it, a restart does not, which is worth a warning.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(config: &Config) -> Result<Self, KeyFileErrors> {
        let mut faults = Vec::new();
        let mut keys_of = |pool: &config::Pool| {
            let Some(issue) = &pool.issue else { return Vec::new() };
            let keys = match &issue.key_file {
                Some(file) => key_file::read(file),
                None => {
                    tracing::warn!(
                        pool = &*pool.name,
                        "`issue` has no `key_file`: its cookies die with this process, and no replica knows them"
                    );
                    process_key().map(|key| vec![key])
                }
            };
            keys.unwrap_or_else(|fault| {
                faults.push(fault);
                Vec::new()
            })
        };
        let keyrings = config.pools.iter().map(&mut keys_of).collect();
        if faults.is_empty() { Ok(Self(keyrings)) } else { Err(KeyFileErrors(faults)) }
    }

    /// Each pool's keys.
    pub fn iter(&self) -> impl Iterator<Item = &[SealingKey]> {
        self.0.iter().map(Vec::as_slice)
    }
}

// === impl KeyFileErrors ===

impl KeyFileErrors {
    /// The faults, in the order of the pools.
    pub fn iter(&self) -> std::slice::Iter<'_, KeyFileError> {
        self.0.iter()
    }
}

/// One fault a line.
impl fmt::Display for KeyFileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for KeyFileErrors {}

// === impl Issuer ===

impl Issuer {
    /// The issuer of a pool; none when the pool issues nothing.
    pub fn new(
        pool: &config::Pool,
        keys: &[SealingKey],
        metrics: impl FnOnce() -> TokenMetrics,
    ) -> Option<Self> {
        let issue = pool.issue.as_ref()?;
        let life = Life { ttl: pool.affinity.ttl, max_age: pool.affinity.max_age };
        let sealer = Sealer::new(keys, &pool.name, &issue.cookie, life);
        let same_site = match issue.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        // Whole seconds, rounded up. Longer than a token is good: while a stream is open, its session lives
        // on, and the client gets no new token.
        let max_age = life.lasts().max(pool.affinity.max_ttl).as_millis().div_ceil(1000);
        let attributes =
            format!("; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite={same_site}").into();
        Some(Self {
            sealer,
            cookie: issue.cookie.clone(),
            same_site: issue.same_site,
            attributes,
            metrics: metrics(),
        })
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// To which requests browsers add the cookie.
    pub fn same_site(&self) -> SameSite {
        self.same_site
    }

    /// What became of this pool's tokens.
    pub fn metrics(&self) -> &TokenMetrics {
        &self.metrics
    }

    /// Opens a value of the cookie, and counts it. `knows` says whether there is still a session of an id.
    pub fn open(&self, value: &[u8], knows: impl FnOnce(&TokenId) -> bool) -> Option<Token> {
        let opened = match self.sealer.open(value, since_1970()) {
            Ok(token) if token.idle && !knows(&token.id) => Err(Unsealed::Expired),
            opened => opened,
        };
        match &opened {
            Ok(_) => self.metrics.accepted.inc(),
            Err(why) => self.metrics.ignored(*why),
        }
        opened.ok()
    }

    /// The Set-Cookie value of a token for this session at this backend. None only if the system gives
    /// no randomness.
    pub fn set_cookie(&self, id: &TokenId, born: Duration, backend: &str) -> Option<HeaderValue> {
        let nonce = random::<{ Sealer::NONCE_LEN }>()?;
        let token = self.sealer.seal(id, born, backend, nonce, since_1970())?;
        let mut field =
            HeaderValue::try_from([&*self.cookie, "=", &token, &self.attributes].concat()).ok()?;
        // Not for the compression state of HTTP/2, nor for logs.
        field.set_sensitive(true);
        Some(field)
    }
}

/// An id for a new session, and when it began. None only if the system gives no randomness.
pub fn begin_session() -> Option<(TokenId, Duration)> {
    Some((TokenId::new(random()?), since_1970()))
}

/// One key for all pools without a file; tokens are bound to their pool anyway.
/// The key of cookies without a key file, in hexadecimal digits; none when none was needed. For the process that
/// takes over, which must know these cookies.
pub fn process_key_hex() -> Option<String> {
    KEY.get().map(|key| data_encoding::HEXLOWER.encode(key.bytes()))
}

/// Takes the key that [`process_key_hex`] gave in the process before; before any configuration is loaded.
pub fn adopt_process_key(digits: &str) {
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok();
    if let Some(bytes) = bytes.and_then(|bytes| bytes.try_into().ok()) {
        // The first one counts.
        let _ = KEY.set(SealingKey::new(bytes));
    }
}

static KEY: OnceLock<SealingKey> = OnceLock::new();

fn process_key() -> Result<SealingKey, KeyFileError> {
    if let Some(key) = KEY.get() {
        return Ok(key.clone());
    }
    let key = random().map(SealingKey::new).ok_or(KeyFileError::NoRandomness)?;
    Ok(KEY.get_or_init(|| key).clone())
}

fn random<const LEN: usize>() -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// The wall clock, since replicas and restarts must agree on the age of a token.
fn since_1970() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}
