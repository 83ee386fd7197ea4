//! What is done with bytes of which an attacker, or a broken disk, chooses every one.
//!
//! Each target is a function that must not panic, whatever it is given, and checks what it gets beside that:
//! that the result does not depend on how bytes were cut, that what is written again reads the same. The same
//! functions run over the corpora in `tests/corpora.rs`, without any fuzzer.

pub mod chunked;
pub mod config;
pub mod cookies;
pub mod frames;
pub mod hpack;
pub mod proxy_header;
pub mod request;
pub mod response;
pub mod sealed_cookie;
pub mod set_cookie;
pub mod state_file;
