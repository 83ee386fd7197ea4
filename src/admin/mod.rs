//! The admin listener: metrics, readiness, the API of operators and their dashboard, served by the control
//! thread so that nobody who looks delays a request.
//!
//! A request passes [`router`] (what is it?), [`access`] (may it?), [`api`] (do it). Everything is bounded:
//! connections, heads, bodies, waits, followers of events.

mod access;
pub mod api;
mod collector;
mod dashboard;
mod events;
mod metrics;
mod reply;
mod router;
mod server;

pub use self::{
    collector::AffinityCollector,
    events::publish as publish_events,
    server::{Admin, serve, serve_socket},
};
