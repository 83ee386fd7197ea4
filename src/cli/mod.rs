//! The commands of the `homing` program.

pub mod args;
pub mod check;
pub mod demo;
pub mod demo_app;
pub mod demo_files;
mod notify;
pub mod operator;
pub mod print_config;
pub mod serve;
