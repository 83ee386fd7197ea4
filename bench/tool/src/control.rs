//! How a command ends, and on what it runs.

use std::io::Read;

use anyhow::Result;
use tokio::{runtime::Builder, task::LocalSet};

/// Runs `work` on this thread alone.
///
/// # Errors
///
/// Those of `work`.
pub(crate) fn local<F: Future<Output = Result<()>>>(work: F) -> Result<()> {
    end_with_input(|| {});
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// Calls `each` for every byte of standard input, and ends the program when there are no more: whoever started it
/// leaves nothing behind, however it ends itself.
pub(crate) fn end_with_input(each: impl Fn() + Send + 'static) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {
            each();
        }
        std::process::exit(0);
    });
}
