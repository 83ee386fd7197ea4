//! The end-to-end harness: the real program, real TLS, scripted backends.
//!
//! Nothing in here waits a fixed time. What must become true is awaited by its own event (a line of
//! output, an answer) or polled by [`eventually`], which holds the only pause there is.

use std::time::Duration;

use homing::clock;

pub(crate) mod app;
pub(crate) mod backend;
pub(crate) mod call;
pub(crate) mod client;
pub(crate) mod curl;
pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod flow;
pub(crate) mod frames;
pub(crate) mod lines;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod operator;
pub(crate) mod pki;
pub(crate) mod plain;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod raw_backend;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod replicas;
pub(crate) mod setup;
pub(crate) mod shop;
pub(crate) mod tls_front;
pub(crate) mod webdriver;

/// How long anything may take before a test gives up; generous, since only failures wait for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Any error of a client or a body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Polls `holds` until it says yes; panics with `what` when [`DEADLINE`] passes first.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(DEADLINE, what, holds).await;
}

/// Polls `holds` until it says yes; panics with `what` when `deadline` passes first.
pub(crate) async fn eventually_within(deadline: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = clock::now() + deadline;
    while !holds().await {
        assert!(clock::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Awaits `event`; panics with `what` when [`DEADLINE`] passes first.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// From one look at a polled condition to the next.
const POLL: Duration = Duration::from_millis(10);
