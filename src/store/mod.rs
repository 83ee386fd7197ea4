//! tmp
mod file;
