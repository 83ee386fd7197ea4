//! The `homing` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use homing::{
    cli::{
        args::{Cli, Command},
        check, demo, demo_app, demo_files, operator, print_config, serve,
    },
    config::Config,
    logging,
    materials::{LoadErrors, Materials, losses},
    tls::Ticketer,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().into_command();
    // What `check` says is read at once.
    if let Err(error) = logging::start(!matches!(command, Command::Check(_))) {
        eprintln!("error: {}: {error}", logging::VARIABLE);
        return ExitCode::FAILURE;
    }
    let result = match &command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => Ok(check::run(args, named)),
        Command::PrintConfig(args) => Ok(print_config::run(args)),
        Command::Demo(args) => demo::run(args),
        Command::DemoApp(args) => demo_app::run(args),
        Command::DemoFiles(args) => demo_files::run(args),
        Command::Operator(command) => operator::run(command),
    };
    result.unwrap_or_else(|error| {
        // One line: causes after the colon.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What is wrong with the files that a configuration names; what is merely wrong with dates, or would be set aside,
/// is logged.
fn named(config: &Config) -> Vec<String> {
    if let Some(loss) = losses(config) {
        tracing::warn!("{loss}");
    }
    match Ticketer::new() {
        Ok(ticketer) => {
            Materials::load_first(config, &ticketer).err().map_or_else(Vec::new, LoadErrors::into_vec)
        }
        Err(error) => vec![error.to_string()],
    }
}
