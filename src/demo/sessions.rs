//! The shop's memory: who is logged in, and what is in their cart.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header};
use tokio::time::Instant;

/// All sessions of one shop; a lock around [`State`], where the rules are.
#[derive(Debug)]
pub(crate) struct Sessions(Mutex<State>);

/// 128 random bits. Whoever knows them is the user, so they are not printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; 16]);

/// What a request offered as session cookies.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    ids: Vec<SessionId>,
    /// Whether there was any cookie of the name, well-formed or not.
    any: bool,
}

/// What the shop knows of a visitor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) standing: Standing,
    pub(crate) id: Option<SessionId>,
    pub(crate) user: Option<Box<str>>,
    pub(crate) cart: usize,
}

/// How a request's session cookie stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// One of this shop.
    Known,
    /// Made by this very request.
    New,
    /// There was no cookie.
    None,
    /// There was one, but it means nothing here: expired, made up, or of another instance.
    Unknown,
}

/// Why a session cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many sessions.
    Sessions,
    /// Too many things in this cart.
    Cart,
}

#[derive(Debug)]
struct State {
    sessions: HashMap<SessionId, Session>,
    idle: Duration,
    capacity: usize,
}

#[derive(Debug)]
struct Session {
    user: Option<Box<str>>,
    cart: Vec<Box<str>>,
    last_seen: Instant,
}

// === impl Sessions ===

impl Sessions {
    /// Sessions end after `idle` without a request; there are never more than `capacity`.
    pub(crate) fn new(idle: Duration, capacity: usize) -> Self {
        Self(Mutex::new(State { sessions: HashMap::new(), idle, capacity }))
    }

    /// Looks the visitor up, which counts as activity.
    pub(crate) fn visit(&self, offered: &Offered, now: Instant) -> Visit {
        let mut state = self.state();
        let Some(id) = state.find(offered, now) else {
            let standing = if offered.any { Standing::Unknown } else { Standing::None };
            return Visit { standing, id: None, user: None, cart: 0 };
        };
        let session = &state.sessions[&id];
        Visit {
            standing: Standing::Known,
            id: Some(id),
            user: session.user.clone(),
            cart: session.cart.len(),
        }
    }

    /// Makes `fresh` the session of `user`. The offered session ends, its cart is kept: an id that
    /// somebody may have planted before the login is worth nothing after it. Returns the cart size.
    pub(crate) fn login(
        &self,
        offered: &Offered,
        user: &str,
        fresh: SessionId,
        now: Instant,
    ) -> Result<usize, Full> {
        let mut state = self.state();
        let cart = match state.find(offered, now).and_then(|id| state.sessions.remove(&id)) {
            Some(old) => old.cart,
            None => Vec::new(),
        };
        let count = cart.len();
        state.insert(fresh, Session { user: Some(user.into()), cart, last_seen: now }, now)?;
        Ok(count)
    }

    /// Puts `item` into the offered session's cart, or into that of a new session with the id
    /// `fresh`.
    pub(crate) fn add(
        &self,
        offered: &Offered,
        item: &str,
        fresh: SessionId,
        now: Instant,
    ) -> Result<Visit, Full> {
        let mut state = self.state();
        let (id, standing) = match state.find(offered, now) {
            Some(id) => (id, Standing::Known),
            None => {
                state.insert(fresh, Session { user: None, cart: Vec::new(), last_seen: now }, now)?;
                (fresh, Standing::New)
            }
        };
        let session = state.sessions.get_mut(&id).expect("found or made above");
        if session.cart.len() >= CART_SIZE {
            return Err(Full::Cart);
        }
        session.cart.push(item.into());
        Ok(Visit { standing, id: Some(id), user: session.user.clone(), cart: session.cart.len() })
    }

    /// What is in the offered session's cart, and how the session stands.
    pub(crate) fn cart(&self, offered: &Offered, now: Instant) -> (Visit, Vec<Box<str>>) {
        let visit = self.visit(offered, now);
        let state = self.state();
        let items = visit.id.and_then(|id| state.sessions.get(&id)).map(|session| session.cart.clone());
        (visit, items.unwrap_or_default())
    }

    /// Ends every offered session.
    pub(crate) fn end(&self, offered: &Offered) {
        let mut state = self.state();
        for id in &offered.ids {
            state.sessions.remove(id);
        }
    }

    /// Counts as activity of a session that may be gone.
    pub(crate) fn touch(&self, id: SessionId, now: Instant) {
        self.state().live(id, now);
    }

    /// Forgets what has been idle for too long.
    pub(crate) fn expire(&self, now: Instant) {
        self.state().expire(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method of `State` leaves it half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// The first offered session that lives; touched.
    fn find(&mut self, offered: &Offered, now: Instant) -> Option<SessionId> {
        offered.ids.iter().copied().find(|id| self.live(*id, now))
    }

    /// Touches the session, or forgets it if it has been idle for too long.
    fn live(&mut self, id: SessionId, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        if now.saturating_duration_since(session.last_seen) >= self.idle {
            self.sessions.remove(&id);
            return false;
        }
        session.last_seen = now;
        true
    }

    fn insert(&mut self, id: SessionId, session: Session, now: Instant) -> Result<(), Full> {
        if self.sessions.len() >= self.capacity {
            self.expire(now);
        }
        if self.sessions.len() >= self.capacity {
            return Err(Full::Sessions);
        }
        self.sessions.insert(id, session);
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        let idle = self.idle;
        self.sessions.retain(|_, session| now.saturating_duration_since(session.last_seen) < idle);
    }
}

// === impl SessionId ===

impl SessionId {
    /// A new one.
    pub(crate) fn random() -> Self {
        Self(random_bytes())
    }

    /// As it stands in the cookie.
    pub(crate) fn to_hex(self) -> String {
        hex(&self.0)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let well_formed = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = well_formed.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(redacted)")
    }
}

// === impl Offered ===

impl Offered {
    /// The session cookies of a request, over all its Cookie fields (RFC 6265 §5.4, RFC 9113
    /// §8.2.3); only the first few, since each is looked up.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut offered = Self::default();
        let cookies = headers.get_all(header::COOKIE).into_iter();
        for cookie in cookies.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')) {
            let Some(value) = cookie.trim_ascii().strip_prefix(COOKIE_PREFIX) else {
                continue;
            };
            offered.any = true;
            if let Some(id) = SessionId::parse(value)
                && offered.ids.len() < OFFERS
            {
                offered.ids.push(id);
            }
        }
        offered
    }
}

// === impl Standing ===

impl Standing {
    /// The word in the shop's answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::New => "new",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// `N` random bytes.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Name of the cookie, as it begins a cookie pair.
const COOKIE_PREFIX: &[u8] = b"session=";
const CART_SIZE: usize = 100;
const OFFERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const IDLE: Duration = Duration::from_secs(60);

    fn offered(ids: &[SessionId]) -> Offered {
        Offered { ids: ids.to_vec(), any: !ids.is_empty() }
    }

    fn logged_in(sessions: &Sessions, now: Instant) -> SessionId {
        let id = SessionId::random();
        sessions.login(&Offered::default(), "ada", id, now).unwrap();
        id
    }

    #[test]
    fn an_idle_session_ends() {
        let (sessions, now) = (Sessions::new(IDLE, 10), clock::now());
        let id = logged_in(&sessions, now);
        let almost = now + IDLE - Duration::from_millis(1);
        assert_eq!(sessions.visit(&offered(&[id]), almost).standing, Standing::Known);
        assert_eq!(sessions.visit(&offered(&[id]), almost + IDLE).standing, Standing::Unknown);
    }

    #[test]
    fn expiry_frees_the_memory_of_sessions_nobody_asks_for() {
        let (sessions, now) = (Sessions::new(IDLE, 10), clock::now());
        logged_in(&sessions, now);
        sessions.expire(now + IDLE);
        assert!(sessions.state().sessions.is_empty());
    }

    #[test]
    fn login_changes_the_id_and_keeps_the_cart() {
        let (sessions, now) = (Sessions::new(IDLE, 10), clock::now());
        let first = SessionId::random();
        sessions.add(&Offered::default(), "tea", first, now).unwrap();
        let second = SessionId::random();
        assert_eq!(sessions.login(&offered(&[first]), "ada", second, now), Ok(1));
        assert_eq!(sessions.visit(&offered(&[first]), now).standing, Standing::Unknown);
        assert_eq!(sessions.visit(&offered(&[second]), now).user.as_deref(), Some("ada"));
    }

    #[test]
    fn of_several_offered_ids_the_first_living_one_counts() {
        let (sessions, now) = (Sessions::new(IDLE, 10), clock::now());
        let id = logged_in(&sessions, now);
        assert_eq!(sessions.visit(&offered(&[SessionId::random(), id]), now).id, Some(id));
    }

    #[test]
    fn sessions_beyond_the_capacity_are_refused_until_one_expires() {
        let (sessions, now) = (Sessions::new(IDLE, 1), clock::now());
        logged_in(&sessions, now);
        let fresh = SessionId::random();
        assert_eq!(sessions.login(&Offered::default(), "bob", fresh, now), Err(Full::Sessions));
        assert_eq!(sessions.login(&Offered::default(), "bob", fresh, now + IDLE), Ok(0));
    }

    #[test]
    fn a_login_at_full_capacity_may_replace_its_own_session() {
        let (sessions, now) = (Sessions::new(IDLE, 1), clock::now());
        let id = logged_in(&sessions, now);
        assert_eq!(sessions.login(&offered(&[id]), "ada", SessionId::random(), now), Ok(0));
    }

    #[test]
    fn a_cart_has_an_end() {
        let (sessions, now) = (Sessions::new(IDLE, 1), clock::now());
        let id = logged_in(&sessions, now);
        for _ in 0..CART_SIZE {
            sessions.add(&offered(&[id]), "tea", SessionId::random(), now).unwrap();
        }
        assert_eq!(sessions.add(&offered(&[id]), "tea", SessionId::random(), now), Err(Full::Cart));
    }

    #[test]
    fn ids_are_found_in_all_cookie_fields_and_malformed_ones_are_noticed() {
        let id = SessionId::random();
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; session=zz".parse().unwrap());
        headers.append(header::COOKIE, format!("xsession=1;session={}", id.to_hex()).parse().unwrap());
        let offered = Offered::of(&headers);
        assert!(offered.any);
        assert_eq!(offered.ids, [id]);
        assert!(!Offered::of(&HeaderMap::new()).any);
    }

    #[test]
    fn only_the_canonical_form_of_an_id_is_read() {
        let hex = SessionId([0xab; 16]).to_hex();
        assert_eq!(SessionId::parse(hex.as_bytes()), Some(SessionId([0xab; 16])));
        for text in [hex.to_uppercase(), format!("+{}", &hex[1..]), format!("{hex}0"), String::new()] {
            assert_eq!(SessionId::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_id_is_not_printed() {
        let id = SessionId::random();
        assert!(!format!("{id:?}").contains(&id.to_hex()));
    }
}
