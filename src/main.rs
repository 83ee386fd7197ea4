//! The `homing` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use homing::{
    cli::{
        args::{Cli, Command},
        check, demo_app, operator, print_config, serve,
    },
    config::Config,
    world::Snapshot,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    homing::logging::start();
    let result = match &command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => Ok(check::run(args, deeper)),
        Command::PrintConfig(args) => Ok(print_config::run(args)),
        Command::Demo(_) => Ok(ExitCode::FAILURE),
        Command::DemoApp(args) => demo_app::run(args),
        Command::Operator(command) => operator::run(command),
    };
    result.unwrap_or_else(|error| {
        // One line: causes after the colon.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Mistakes in what a configuration refers to.
fn deeper(config: &Config) -> Vec<String> {
    Snapshot::load_token(config).err().map(|error| error.to_string()).into_iter().collect()
}
