//! Which backend owns which session: the pure core of the product.
//!
//! Nothing in here does I/O, spawns, reads a clock or draws random numbers of its own: time and
//! randomness are arguments, requests and answers are borrowed bytes. It imports nothing of ours but
//! itself, so a simulation can drive all of it.

mod cookie_date;
mod key;
mod session_id;
mod set_cookie;
mod settings;
mod tick;
mod verdict;

pub use self::{
    key::{Fingerprint, KeyBuildHasher, KeyHasher, KeyTableHasher, SessionKey},
    session_id::{Carrier, Keys},
    set_cookie::{Answerer, Effect},
    settings::{Balance, KeySource, OnDown, PathPattern, Settings},
    tick::Tick,
    verdict::{EndReason, MoveReason, Reason, Verdict},
};
