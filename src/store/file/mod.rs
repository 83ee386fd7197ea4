//! tmp
mod codec;
