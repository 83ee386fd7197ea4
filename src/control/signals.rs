//! The signals that end the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT; the first asks, the second insists.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// Takes the signals over from their defaults.
///
/// # Errors
///
/// When the system does not let us.
pub fn stop_signals() -> io::Result<Stop> {
    Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

/// Takes SIGUSR1, by which programs that rotate logs ask to open them anew, from its default, which would end the
/// process. There is nothing to do: each write looks whether its file was renamed or removed.
///
/// # Errors
///
/// When the system does not let us.
pub fn heed_reopening() -> io::Result<impl Future<Output = ()>> {
    let mut reopen = signal(SignalKind::user_defined1())?;
    Ok(async move {
        while reopen.recv().await.is_some() {
            tracing::info!("SIGUSR1: an access log that was renamed or removed goes on in a new file");
        }
        std::future::pending().await
    })
}

// === impl Stop ===

impl Stop {
    /// Resolves with the name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
