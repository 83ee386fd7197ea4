//! tmp
mod codec;
mod database;
mod names;
mod place;
