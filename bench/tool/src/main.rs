//! What wrk and h2load cannot do for `bench/run`: backends, a relay, and loads with a schedule, without keep-alive, or
//! without requests.
//!
//! Every command prints one line of JSON, and ends when its standard input does. It fails at the first answer that is
//! not what was asked for: a load that meets errors measures something else.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

mod answers;
mod backend;
mod client;
mod control;
mod handshakes;
mod hold;
mod learn;
mod percentiles;
mod rate;
mod relay;
mod requests;
mod schedule;

#[derive(Parser)]
#[command(name = "homing-bench", about = "Backends, a relay and loads of the side-by-side measurement")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Static backends on ports of their own: /1k, /64k, /1m, POST /up, /login?id=X. Prints the ports, and for each
    /// line on standard input how many requests have been answered
    Backend {
        #[arg(long, default_value_t = 3)]
        count: usize,
    },
    /// The kernel floor: passes bytes on, reads none of them
    Relay {
        #[arg(long)]
        to: SocketAddr,
    },
    /// An open loop: requests start when they are due, whatever became of those before
    Rate {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_enum)]
        protocol: Protocol,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Requests a second over all connections
        #[arg(long)]
        rate: f64,
        #[arg(long, value_parser = seconds)]
        warm_up: Duration,
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Connections of one request each
    Handshakes {
        #[command(flatten)]
        target: Target,
        /// Clients that do so at the same time
        #[arg(long, default_value_t = 16)]
        concurrent: usize,
        /// By tickets, but for the first of each client
        #[arg(long)]
        resume: bool,
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
    },
    /// Connections that made a request and are idle since
    Hold {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_enum)]
        protocol: Protocol,
        #[arg(long)]
        count: usize,
    },
    /// Logs sessions in, so that the proxy knows them
    Learn {
        #[command(flatten)]
        target: Target,
        /// Number of the first one
        #[arg(long, default_value_t = 0)]
        first: u32,
        #[arg(long)]
        count: u32,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Target {
    /// Address of the proxy
    #[arg(long)]
    to: SocketAddr,
    /// How many sessions requests belong to
    #[arg(long, default_value_t = 10_000)]
    sessions: u32,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    H1,
    H2,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Backend { count } => backend::run(count),
        Command::Relay { to } => relay::run(to),
        Command::Rate { target, protocol, connections, rate, warm_up, seconds } => {
            control::local(rate::run(target, protocol, connections, rate, warm_up, seconds))
        }
        Command::Handshakes { target, concurrent, resume, seconds } => {
            control::local(handshakes::run(target, concurrent, resume, seconds))
        }
        Command::Hold { target, protocol, count } => control::local(hold::run(target, protocol, count)),
        Command::Learn { target, first, count } => control::local(learn::run(target, first, count)),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
