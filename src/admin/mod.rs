//! The admin listener: metrics and readiness, served by the control thread so that a scrape never
//! delays a request.

mod collector;
mod server;

pub use self::{
    collector::AffinityCollector,
    server::{Admin, serve},
};
