//! The `homing` program: arguments in, exit code out.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use homing::cli::{
    args::{Cli, Command},
    check, demo_app, print_config, serve,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::try_from_env("HOMING_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let result = match &command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => Ok(check::run(args, |_| Vec::new())),
        Command::PrintConfig(args) => Ok(print_config::run(args)),
        Command::Demo(_) => Ok(ExitCode::FAILURE),
        Command::DemoApp(args) => demo_app::run(args),
    };
    result.unwrap_or_else(|error| {
        // One line: causes after the colon.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
