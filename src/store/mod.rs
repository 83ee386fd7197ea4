//! Bindings outside the process: what leaves it, what comes back, and who hears of changes.
//!
//! Everything that leaves carries names and wall-clock times, never slots or ticks, and keyed hashes, never
//! session ids. Nothing in here is in the path of a request whose session is known.

mod courier;
mod entry;
pub mod file;
pub mod redis;
#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    courier::{Batch, Courier, Delivery},
    entry::{Entry, Session, each},
};
