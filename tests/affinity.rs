//! Sessions stay at home, seen from outside.
#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;
