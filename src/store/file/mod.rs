//! tmp
mod codec;
mod place;
