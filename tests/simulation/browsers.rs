//! Browsers: what they send, what answers tell them, and what they may expect.

use std::collections::{HashMap, HashSet};

use homing::affinity::{Answerer, Keys};

use crate::{
    jar::{Cookie, Jar, Place, SetCookie},
    model::{About, Home, Id, Outcome, Said, ticks},
    world::{Flight, World},
};

#[derive(Default)]
pub(crate) struct Client {
    pub(crate) jar: Jar,
    /// Where the session of a cookie must be, since when it was last told so.
    pub(crate) promises: HashMap<Place, (Home, u32)>,
}

/// Who sends a request, and what for.
#[derive(Clone)]
pub(crate) struct Sender {
    /// None for somebody who sends made-up ids.
    pub(crate) client: Option<usize>,
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    /// The first cookie that its browser sent, if nothing else went before it.
    pub(crate) first: Option<Cookie>,
}

/// The head of an answer.
pub(crate) struct Reply<'a> {
    pub(crate) status: u16,
    pub(crate) set_cookies: &'a [String],
}

const HOSTS: [&str; 2] = ["a.test", "www.a.test"];
const PATHS: [&str; 4] = ["/", "/shop", "/shop/x", "/shopping"];
const PATH_ATTRIBUTES: [&str; 6] =
    ["", "; Path=/", "; Path=/", "; Path=/shop", "; Path=/shop/x", "; Path=shop"];
const DOMAIN_ATTRIBUTES: [&str; 6] =
    ["", "", "", "; Domain=a.test", "; Domain=.A.test", "; domain=www.a.test"];

impl World {
    /// Somebody's request: who, and the ids in it.
    pub(crate) fn sender(&mut self) -> (Sender, Vec<Id>) {
        let client = (!self.chance(8)).then(|| self.rng.usize(..self.clients.len()));
        let host = *self.rng.choice(&HOSTS).expect("some");
        let path = *self.rng.choice(&PATHS).expect("some");
        let mut carried: Vec<Id> = Vec::new();
        let mut first = None;
        match client {
            // Made up, or once somebody's.
            None if self.honest || self.chance(60) || self.next_id == 0 => carried.push(self.fresh_id()),
            None => carried.push(self.rng.u32(1..=self.next_id)),
            Some(client) => {
                let sent = self.clients[client].jar.sent(host, path, self.model.now);
                let ids: Vec<Id> = sent.iter().filter_map(|cookie| id_in(&cookie.value)).collect();
                if self.chance(5) {
                    carried.push(self.fresh_id());
                } else {
                    first = sent.into_iter().find(|cookie| id_in(&cookie.value).is_some());
                }
                carried.extend(ids);
                if self.chance(5) && self.next_id > 0 && !self.honest {
                    carried.push(self.rng.u32(1..=self.next_id));
                }
                if self.chance(4) {
                    carried.clear();
                    first = None;
                }
            }
        }
        let mut seen = HashSet::new();
        carried.retain(|id| seen.insert(*id));
        carried.truncate(Keys::MAX);
        (Sender { client, host, path, first }, carried)
    }

    /// A live session is at home, whatever was set or deleted beside it.
    pub(crate) fn promised(&self, sender: &Sender) -> Option<usize> {
        let (client, first) = (sender.client?, sender.first.as_ref()?);
        let &(home, told) = self.clients[client].promises.get(&first.place)?;
        let holds = self.model.now - told < ticks(self.settings.session_timeout)
            && self.settings.max_age.is_none()
            && self.model.backends[home.0].configured
            && !self.model.is_ghost(home)
            && self.model.serves(home.0);
        holds.then_some(home.0)
    }

    /// The Set-Cookie fields of an answer.
    pub(crate) fn set_cookies(&mut self, flight: &Flight) -> Vec<String> {
        // Who makes room is told from who is missing; so several at once need none.
        let room = self.settings.max_sessions.get().saturating_sub(self.model.sessions.len());
        let count = match self.rng.u8(0..100) {
            0..8 if room > 8 => self.rng.usize(2..7),
            0..36 => 1,
            _ if flight.carried.is_empty() => 1,
            _ => 0,
        };
        (0..count).map(|_| self.set_cookie(flight, count == 1)).collect()
    }

    fn set_cookie(&mut self, flight: &Flight, alone: bool) -> String {
        let Sender { client, host, path, .. } = flight.sender;
        let has = client.map(|client| self.clients[client].jar.sent(host, path, self.model.now));
        let has = has.unwrap_or_default();
        let has = if has.is_empty() { None } else { Some(self.rng.choice(&has).expect("some").clone()) };
        let wild = [
            *self.rng.choice(&DOMAIN_ATTRIBUTES).expect("some"),
            self.rng.choice(&PATH_ATTRIBUTES).expect("some"),
        ];
        let wild = wild.concat();
        let own = has.as_ref().filter(|_| self.rng.u8(..100) < 60);
        let own_id = own.and_then(|cookie| id_in(&cookie.value));
        let attributes = own.map_or(wild, |cookie| format!("; {}", cookie.place.attributes()));
        let lasts =
            if self.chance(15) { format!("; Max-Age={}", self.rng.u64(1..400)) } else { String::new() };
        let id = match self.rng.u8(0..100) {
            0..20 if !(alone && flight.carried.is_empty()) => {
                return match self.rng.u8(..3) {
                    0 => format!("session={attributes}; Max-Age=0"),
                    1 => format!("session=id-0{attributes}; Max-Age=0"),
                    _ => format!("session={attributes}"),
                };
            }
            // Sliding cookies.
            20..30 if own_id.is_some() => own_id.expect("just seen"),
            // The id that a parallel answer set.
            30..38 if let Some(current) = own_id.and_then(|id| self.model.current(id)) => current,
            38..45 if !flight.carried.is_empty() && !self.honest => {
                *self.rng.choice(&flight.carried).expect("some")
            }
            45..52 if self.next_id > 0 && !self.honest => self.rng.u32(1..=self.next_id),
            _ => self.fresh_id(),
        };
        format!("session=id-{id}{attributes}{lasts}")
    }

    /// The sessions whose ids, homes or ends an answer decides on.
    pub(crate) fn affected(&self, flight: &Flight, says: &[Said]) -> HashSet<Id> {
        let about = match flight.about {
            About::Known { id, .. } | About::Moving { id, .. } => self.model.current(id),
            _ => None,
        };
        let mut all: HashSet<Id> = self.moving(flight).into_iter().collect();
        for said in says {
            if let Said::Set(id, ..) = said {
                all.extend(self.model.current(*id));
            }
            all.extend(about.and_then(|about| self.model.kept(said.place(), about, &flight.carried)));
        }
        all
    }

    /// The session of a request that must have another home.
    pub(crate) fn moving(&self, flight: &Flight) -> Option<Id> {
        let About::Moving { id, .. } = flight.about else { return None };
        self.model.current(id)
    }

    /// Clients whose cookies lead to these sessions may expect nothing, but for one, which is told what becomes
    /// of them: the places of its cookies.
    pub(crate) fn break_promises(
        &mut self,
        sessions: &HashSet<Id>,
        but: Option<usize>,
        about: Option<Id>,
        says: &[Said],
    ) -> Vec<Place> {
        let (model, honest) = (&self.model, self.honest);
        let is_set = |place: &Place| says.iter().any(|said| said.place() == place);
        let mut told = Vec::new();
        for (at, client) in self.clients.iter_mut().enumerate() {
            for cookie in client.jar.all() {
                let session = id_in(&cookie.value).and_then(|id| model.current(id));
                if !session.is_some_and(|session| sessions.contains(&session)) {
                    continue;
                }
                if Some(at) == but {
                    // Where each id is in one cookie, what is said of one concerns no other.
                    if honest && session != about && !is_set(&cookie.place) {
                        continue;
                    }
                    told.push(cookie.place.clone());
                } else {
                    client.promises.remove(&cookie.place);
                }
            }
        }
        told
    }

    /// What the client makes of the answer, and what it may expect from then on.
    pub(crate) fn receive(
        &mut self,
        sender: &Sender,
        carried: &[Id],
        about: About,
        set_cookies: &[String],
        told: &[Place],
        outcome: Outcome,
    ) {
        let Sender { client: Some(client), host, path, .. } = *sender else { return };
        let read: Vec<SetCookie> = set_cookies.iter().map(|text| SetCookie::read(text, host, path)).collect();
        // Parallel answers come in any order.
        let jar = &self.clients[client].jar;
        let parallel = jar.all().iter().any(|cookie| {
            let newer = id_in(&cookie.value).is_some_and(|id| !carried.contains(&id));
            newer && read.iter().any(|set| set.place == cookie.place)
        });
        let lost = self.chance(5) || (parallel && self.chance(50));
        let now = self.model.now;
        for set in read.iter().filter(|_| !lost) {
            if self.clients[client].jar.store(set, host, now) {
                self.clients[client].promises.remove(&set.place);
            }
        }
        let Client { jar, promises } = &mut self.clients[client];
        let about = match about {
            About::Known { id, .. } | About::Moving { id, .. } => self.model.current(id),
            About::Unknown { .. } => outcome.0,
            _ => None,
        };
        for cookie in jar.all() {
            let place = &cookie.place;
            let session = id_in(&cookie.value).and_then(|id| self.model.current(id));
            let home = session.and_then(|id| self.model.sessions.get(&id));
            // Nothing is promised by a backend that has left.
            let home = home.filter(|session| self.model.counts(session)).map(|session| session.home);
            let is_new = !lost && read.iter().any(|set| set.place == *place && set.value == cookie.value);
            let was_used = about.is_some() && session == about;
            let was_used = was_used && sender.first.as_ref().is_some_and(|first| first.place == *place);
            if is_new || was_used {
                promises.remove(place);
                promises.extend(home.map(|home| (place.clone(), (home, now))));
            } else if told.contains(place)
                && let Some((_, since)) = promises.remove(place)
            {
                promises.extend(home.map(|home| (place.clone(), (home, since))));
            }
        }
        let kept: HashSet<&Place> = jar.all().iter().map(|cookie| &cookie.place).collect();
        promises.retain(|place, _| kept.contains(place));
        if lost {
            // What became of these, it does not know.
            read.iter().for_each(|set| _ = promises.remove(&set.place));
        }
    }
}

impl Answerer for Reply<'_> {
    fn set_cookies(&self) -> impl Iterator<Item = &[u8]> {
        self.set_cookies.iter().map(String::as_bytes)
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn status(&self) -> u16 {
        self.status
    }
}

/// The id in a cookie; none in one that was emptied.
pub(crate) fn id_in(value: &str) -> Option<Id> {
    value.strip_prefix("id-").map(|number| number.parse().expect("a number"))
}
