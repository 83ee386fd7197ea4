//! What another configuration does to backends and sessions: pure, so that it can be told without being done.
//!
//! A backend that leaves drains, as one that leaves DNS does; one whose URL is there under another name is renamed.

use std::{collections::HashMap, num::NonZeroU32};

use crate::{
    affinity::{Left, Settings},
    backend::{Backend, Listed},
    config::{self, Config, Effect, Leave, Place, What, renames},
    world::{Pool, Snapshot},
};

/// What a reload does, pool by pool.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) pools: HashMap<Box<str>, Steps>,
    /// What that means for sessions.
    pub(super) effects: Vec<Effect>,
}

/// What a reload does to the backends of a pool that stays.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Old and new names.
    pub(super) renames: Vec<(Box<str>, Box<str>)>,
    /// Those that leave and drain, by their new names.
    pub(super) leaving: Vec<Listed>,
}

/// Backends of a pool that leave and drain; more are cut.
const MAX_LEAVING: usize = 256;

// === impl Plan ===

impl Plan {
    /// What changes between a snapshot and this configuration, whose pools have the backends of `lists`.
    pub(super) fn between(old: &Snapshot, config: &Config, lists: &[Vec<Listed>]) -> Self {
        let mut plan = Self::default();
        for before in &old.pools {
            let stays = config.pools.iter().zip(lists).find(|(pool, _)| pool.name == before.name);
            match stays {
                Some((pool, list)) => {
                    plan.rekey(before, old, pool);
                    let steps = plan.steps(before, pool, list);
                    plan.pools.insert(pool.name.clone(), steps);
                }
                None => plan.add(&before.name, None, What::Cut("no route leads there"), whole(before)),
            }
        }
        plan
    }

    /// Sessions whose ids are not looked for any more are lost to the application.
    fn rekey(&mut self, before: &Pool, old: &Snapshot, pool: &config::Pool) {
        let Some(was) = old.config.pools.iter().find(|was| was.name == pool.name) else { return };
        let gone =
            |Settings { keys, .. }: &Settings| keys.iter().any(|key| !pool.affinity.keys.contains(key));
        let cookie = |pool: &config::Pool| pool.issue.as_ref().map(|issue| issue.cookie.clone());
        if gone(&was.affinity) || (was.issue.is_some() && cookie(was) != cookie(pool)) {
            let Left { sessions, .. } = whole(before);
            self.add(&pool.name, None, What::Rekeyed, Left { sessions, ..Left::default() });
        }
    }

    /// Notes an effect; none where nothing is left, of which the other words of the reload tell.
    fn add(&mut self, pool: &str, backend: Option<&str>, what: What, left: Left) {
        if !left.is_nothing() {
            self.effects.push(Effect { pool: pool.into(), backend: backend.map(Box::from), what, left });
        }
    }

    fn steps(&mut self, before: &Pool, pool: &config::Pool, list: &[Listed]) -> Steps {
        let old: Vec<_> = before.backends.iter().map(|backend| place_of(backend)).collect();
        let new: Vec<_> = list.iter().map(|listed| Place::from(&listed.config)).collect();
        let pairs = renames(&old, &new);
        let mut steps = Steps::default();
        for (index, backend) in before.backends.iter().enumerate() {
            let named = new.iter().position(|place| place.name == backend.name());
            // Another backend may have its name from now on.
            let kept = named.filter(|to| !pairs.iter().any(|(_, taken)| taken == to));
            let leaves_already = backend.standing.steering.is_leaving();
            let what = match (pairs.iter().find(|(from, _)| *from == index), kept) {
                (Some(&(_, to)), _) => {
                    let name = list[to].config.name.clone();
                    steps.renames.push((backend.name().into(), name.clone()));
                    What::Renamed(name)
                }
                (None, Some(to)) if (new[to].host, new[to].port) != (&*backend.host, backend.port) => {
                    What::Moved
                }
                (None, Some(_)) if leaves_already && backend.discovered.is_none() => What::Returns,
                (None, Some(_)) => continue,
                (None, None) => match cut(backend, pool, steps.leaving.len()) {
                    Some(why) => What::Cut(why),
                    None => {
                        steps.leave(backend, &new);
                        if leaves_already {
                            continue;
                        }
                        What::Leaves
                    }
                },
            };
            self.add(&pool.name, Some(backend.name()), what, backend.left());
        }
        steps
    }
}

// === impl Steps ===

impl Steps {
    fn leave(&mut self, backend: &Backend, new: &[Place<'_>]) {
        let is_taken = |name: &str| {
            new.iter().any(|place| place.name == name)
                || self.leaving.iter().any(|other| &*other.config.name == name)
        };
        let mut name = backend.name().to_owned();
        while is_taken(&name) {
            // No name that a configuration could have.
            name.push('~');
        }
        if name != backend.name() {
            self.renames.push((backend.name().into(), name.as_str().into()));
        }
        let weight = backend.member.configured_weight().try_into().unwrap_or(NonZeroU32::MIN);
        let config = config::Backend {
            name: name.into(),
            host: backend.host.clone(),
            port: backend.port,
            weight,
            discover: None,
            tls: None,
        };
        self.leaving.push(Listed {
            config,
            discovered: backend.discovered.clone(),
            told: None,
            leaving: true,
        });
    }
}

/// Why a backend that leaves does not drain, if it does not; empty when there is nothing to wait for.
fn cut(backend: &Backend, pool: &config::Pool, leaving: usize) -> Option<&'static str> {
    if backend.left().is_nothing() {
        return Some("");
    }
    if pool.leave == Leave::Cut {
        return Some("leave = \"cut\"");
    }
    if !backend.member.is_up() {
        return Some("it is down");
    }
    if !backend.member.serves_home() {
        return Some("it is in maintenance");
    }
    (leaving >= MAX_LEAVING).then_some("too many backends leave at once")
}

fn whole(pool: &Pool) -> Left {
    let mut left = Left::default();
    for of in pool.backends.iter().map(|backend| backend.left()) {
        left.requests = left.requests.saturating_add(of.requests);
        left.sessions = left.sessions.saturating_add(of.sessions);
        left.streams = left.streams.saturating_add(of.streams);
    }
    left
}

fn place_of(backend: &Backend) -> Place<'_> {
    Place {
        name: backend.name(),
        host: &backend.host,
        port: backend.port,
        secure: backend.tls.is_some(),
        discovers: false,
    }
}
