//! The `homing` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use homing::cli::{
    args::{Cli, Command},
    check, demo_app, print_config, serve,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    homing::logging::start();
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
