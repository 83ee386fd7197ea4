//! TLS of the front door: certificates are read, checked, chosen by SNI, and put into one
//! [`rustls::ServerConfig`].
//!
//! Everything here happens at start-up and at a reload, never per connection, except
//! `resolver`, which a handshake asks once. It must not open a socket or read configuration
//! text. Invariants:
//! - Every fault of every certificate is reported at once, each naming its file.
//! - A config is built aside and handed over whole; whoever gets an error keeps the old one.
//! - Session tickets outlive a reload: the [`Ticketer`] belongs to the process, not to the config.
//! - No key bytes reach an error, a log line or a `Debug`.

mod certificate;
mod client;
mod error;
mod pem;
mod resolver;
mod server;

pub(crate) use self::pem::{read_chain, read_key};
pub use self::{
    certificate::{Certificate, Validity},
    client::{BackendTls, ClientTls},
    error::{TlsError, TlsErrors},
    server::{Ticketer, load_certificates, provider, server_config_with},
};
