//! TLS of the front door: certificates are read, checked, chosen by SNI, and put into one
//! [`rustls::ServerConfig`].
//!
//! Everything here happens at start-up and at a reload, never per connection, except
//! `handshake`, and what it asks: `resolver` for a certificate, `vetting` whether the client's is
//! good, `identity` who that is. It must not open a socket or read configuration text. Invariants:
//! - Every fault of every certificate is reported at once, each naming its file.
//! - A config is built aside and handed over whole; whoever gets an error keeps the old one.
//! - Session tickets outlive a reload: the [`Ticketer`] belongs to the process, not to the config.
//! - A ticket resumes nothing under another way of vetting clients than the one it was made under.
//! - No key bytes reach an error, a log line or a `Debug`.

mod certificate;
mod chain;
mod client;
mod error;
mod foreign;
mod handshake;
mod held;
mod identity;
mod pem;
mod resolver;
mod sections;
mod server;
mod vetting;

pub(crate) use self::pem::{read_chain, read_key};
pub use self::{
    certificate::{Certificate, Validity},
    client::{BackendTls, ClientTls},
    error::{TlsError, TlsErrors},
    handshake::{Refused, accept},
    held::Held,
    identity::Identity,
    server::{Front, Ticketer, load_certificates, provider},
    vetting::{Mark, Vetting},
};
