//! `homing`: an HTTPS front door that keeps every session on its home backend.

pub mod affinity;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod tls;
