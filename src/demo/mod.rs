//! The demo: a shop that keeps its sessions in memory, three of it behind one front door, with
//! certificates made on the spot.
//!
//! The shop is what the proxy exists for: an application whose users are known to one process
//! only. It is also the backend of the end-to-end tests, so it is parse-safe and bounded like
//! everything else that listens: hostile input is answered 4xx, never by a panic, and nothing it
//! holds grows without limit. It imports nothing of the data plane: `config` (and its `affinity`
//! settings), `clock` and `tls` only.

pub mod apps;
pub mod certs;
pub mod shop;

mod answer;
mod form;
pub(crate) mod guide;
mod routes;
mod sessions;
mod streams;

pub use self::{
    apps::{AppSocket, Apps, AppsError, Gone, bind_apps, inherited},
    certs::{CertsError, DevelopmentCertificates},
    shop::{Shop, ShopError, ShopOptions, run},
};
