//! The commands of the `homing` program.

pub mod args;
pub mod check;
pub mod print_config;
pub mod serve;
pub mod demo_app;
