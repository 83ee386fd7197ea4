//! Faults while users go on asking: real replicas, real applications, a real Redis, each a process.
//!
//! Every test prints what the fault cost, in one line that begins with `fault:`:
//! `cargo test --test faults -- --nocapture | grep fault:`. A session is *lost* when the application does not know
//! the user any more, whoever answered; it is *moved* when another backend answered than the one where it began.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
#[path = "../support/mod.rs"]
mod support;

mod backend;
mod cluster;
mod file;
mod partition;
mod replica;
mod shared;
