//! `homing`: an HTTPS front door that keeps every session on its home backend.
//!
//! # Life of a request
//!
//! 1. [`listener`] accepts a connection on one of the worker threads, each of which has a socket of its own
//!    on the same port.
//! 2. [`tls`] and [`proxy`] shake hands; HTTP/1.1 or HTTP/2 is agreed on.
//! 3. [`proxy`] checks the head, finds the pool by [`route`], and the session's key by [`affinity`]; for
//!    applications without a session cookie, in the proxy's own ([`issue`]).
//! 4. [`affinity`] decides: home, placed, provisional, moved, refused.
//! 5. [`upstream`] lends a connection to the chosen [`backend`]; the request is sent, its body streamed.
//! 6. The answer's head comes: [`affinity`] learns, renames or ends, *before* the head goes on.
//! 7. The answer's body streams to the client; when it ends, the connection goes back to the pool and the
//!    request's record is written.
//!
//! Beside that, on a thread of their own: [`control`] (health checks, expiry, signals) and [`admin`]
//! (metrics). [`store`] is told of every change of a binding, for those who keep or share them. All of them read one immutable snapshot of the configuration ([`world`]).

pub mod admin;
pub mod admission;
pub mod affinity;
pub mod app;
pub mod backend;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod error;
pub mod handover;
pub mod host;
pub mod http1;
pub mod http2;
pub mod issue;
pub mod listener;
pub mod logging;
pub mod materials;
pub mod path;
pub mod proxy;
pub mod route;
pub mod secret;
pub mod socket;
pub mod store;
pub mod tls;
pub mod upstream;
pub mod world;
