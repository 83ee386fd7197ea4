//! What runs beside the data plane, on a thread of its own: health checks, discovery, expiry, signals.
//!
//! Nothing here is in a request's path, and nothing a worker does can starve it.

mod advice;
mod courier;
mod discovery;
mod drain;
mod expiry;
mod health;
mod plan;
mod reload;
mod signals;
mod supervisor;

pub use self::{
    advice::advise,
    courier::carry,
    discovery::{Discovery, Metrics as DiscoveryMetrics, written},
    drain::end_drains,
    expiry::expire,
    health::watch_health,
    reload::{Metrics as ReloadMetrics, Reloader, Source},
    signals::{Stop, heed_reopening, stop_signals},
};
