//! Which backend owns which session: the pure core of the product.
//!
//! Nothing in here does I/O, spawns, reads a clock or draws random numbers of its own: time and
//! randomness are arguments, requests and answers are borrowed bytes. It imports nothing of ours but
//! itself, so a simulation can drive all of it.

#[cfg_attr(not(test), expect(dead_code, reason = "its callers, decide and settle, are still to come"))]
mod expiry;
#[cfg_attr(not(test), expect(dead_code, reason = "its callers, decide and settle, are still to come"))]
mod member;
#[cfg_attr(not(test), expect(dead_code, reason = "its callers, decide and settle, are still to come"))]
mod placement;
#[cfg_attr(not(test), expect(dead_code, reason = "its callers, decide and settle, are still to come"))]
mod rendezvous;
#[cfg_attr(not(test), expect(dead_code, reason = "its callers, decide and settle, are still to come"))]
mod roster;
mod settings;
mod tick;
mod verdict;

pub use self::{
    member::{Admin, Member, Slot},
    roster::Roster,
    settings::{Balance, KeySource, OnDown, PathPattern, Settings},
    tick::Tick,
    verdict::{EndReason, MoveReason, Reason, Verdict},
};
