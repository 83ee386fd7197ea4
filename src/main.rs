//! The `homing` program: arguments in, exit code out.

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Parser;
use homing::{
    cli::{
        args::{Cli, Command},
        check, demo, demo_app, print_config, serve,
    },
    config::Config,
    tls,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    let filter = EnvFilter::try_from_env("HOMING_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colours);
    match command {
        // What it says is read at once.
        Command::Check(_) => log.without_time().init(),
        _ => log.init(),
    }
    let result = match &command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => Ok(check::run(args, certificates)),
        Command::PrintConfig(args) => Ok(print_config::run(args)),
        Command::Demo(args) => demo::run(args),
        Command::DemoApp(args) => demo_app::run(args),
    };
    result.unwrap_or_else(|error| {
        // One line: causes after the colon.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What is wrong with the certificates; what is merely wrong with their dates is logged.
fn certificates(config: &Config) -> Vec<String> {
    match tls::load_certificates(&config.certificates) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}
