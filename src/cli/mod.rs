//! The commands of the `homing` program.

pub mod args;
pub mod check;
pub mod demo_app;
pub mod print_config;
pub mod serve;
