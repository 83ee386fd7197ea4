//! The commands of operators: they speak to a running proxy by its admin API.
//!
//! Tables are for people, `--json` is for machines; the exit code says how it went (see [`args`]).

pub mod args;
mod change;
mod client;
mod cluster;
mod find;
mod probe;
mod screen;
mod session;
mod show;
mod table;
mod top;
mod trouble;
mod wait;

use std::process::ExitCode;

use self::{args::Operator, trouble::Trouble};

/// Runs one command to its end.
///
/// # Errors
///
/// Only when the process cannot wait for anything.
pub fn run(command: &Operator) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(match runtime.block_on(dispatch(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => trouble.tell(),
    })
}

async fn dispatch(command: &Operator) -> Result<(), Trouble> {
    match command {
        Operator::Status(connect) => show::status(connect).await,
        Operator::Backends(connect) => show::backends(connect).await,
        Operator::Cluster(connect) => cluster::cluster(connect).await,
        Operator::Sessions(args) => show::sessions(args).await,
        Operator::Explain(args) => session::explain(args).await,
        Operator::Forget(args) => session::forget(args).await,
        Operator::Move(args) => session::move_to(args).await,
        Operator::Drain(args) => change::drain(args).await,
        Operator::Undrain(target) => change::undrain(target).await,
        Operator::Maintenance(target) => change::maintenance(target).await,
        Operator::Weight(args) => change::weight(args).await,
        Operator::Reload(args) => change::reload(args).await,
        Operator::LogLevel(args) => change::log_level(args).await,
        Operator::Top(args) => top::top(args).await,
        Operator::Probe(args) => probe::probe(args.url.as_deref()).await,
    }
}
