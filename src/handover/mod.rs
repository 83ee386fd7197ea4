//! A running process hands over to a new one: sockets, backends' state, bindings, and then every change, until it
//! has ended. Nobody is refused, no request fails, no session is lost.
//!
//! The running process ([`Giver`]) listens at a Unix socket; the new one ([`Taker`]) connects, and says that it is
//! ready when its workers accept. Only then the former stops accepting. The sockets are the same in both
//! processes (one open file description each), so whoever waits in their queues is served by either.
//!
//! ```text
//! taker                                 giver
//! HELLO version            ──────▶
//!                          ◀──────      HELLO version | REFUSED why
//!                          ◀──────      OFFER secret, backends; SOCKETS …
//! TABLE                    ──────▶
//!                          ◀──────      ENTRIES … TABLE_END
//!                          ◀─────▶      ENTRIES as things change, ASK and TOLD
//! (workers accept) READY   ──────▶      accepts no more
//!                          ◀──────      RELEASED
//!                          ◀──────      FREED, once it has closed its files
//!                          ◀─────▶      ENTRIES, ASK, TOLD until the giver has drained and ends
//!                          ◀──────      CARRIED, EARLIER: what it still carries, and how many processes before it do
//! STEERED                  ──────▶      what operators want of backends now
//! ```
//!
//! Whether the giver acts on READY or the taker gives up is decided once, by whoever is first ([`verdict`]), so that
//! a process that stands still for a while neither ends nor serves beside one that has gone on without it.
//!
//! Invariants: a failure before READY changes nothing for the running process; every frame, queue and wait is
//! bounded; the peer is the same user, or root; session ids never cross the link, only keys.

mod backends;
mod carried;
mod entries;
mod exchange;
mod give;
mod kin;
mod link;
mod message;
mod steered;
mod take;
mod tally;
mod verdict;

use std::{os::unix::net::UnixStream, path::Path};

pub use self::{
    exchange::Exchange,
    give::Giver,
    kin::Kin,
    take::{TakeError, Taker, Taking},
};

/// Whether a process can be taken over from at this socket.
pub fn is_running(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

#[cfg(test)]
mod tests;
