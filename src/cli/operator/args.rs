//! What the commands of operators may be told.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use crate::config::parse_duration;

/// The commands that speak to a running proxy.
#[derive(Clone, Debug, Subcommand)]
pub enum Operator {
    /// Show what a running proxy does, pool by pool
    #[command(after_help = EXIT)]
    Status(Connect),
    /// Show every backend: state, sessions, share, latency
    #[command(after_help = EXIT)]
    Backends(Connect),
    /// Show the replicas that share sessions through Redis, and how many sessions live where
    #[command(after_help = EXIT)]
    Cluster(Connect),
    /// List the sessions of a backend, by the short form of their keys
    #[command(after_help = EXIT)]
    Sessions(Sessions),
    /// Say where a session lives, since when, and why it was moved
    #[command(after_help = EXIT)]
    Explain(Session),
    /// Give a backend no new sessions, and wait until it has none left
    #[command(after_help = EXIT_DRAIN)]
    Drain(Drain),
    /// End a drain or maintenance: the backend serves again
    #[command(after_help = EXIT)]
    Undrain(Target),
    /// Take a backend out at once: its sessions move with their next request
    #[command(after_help = EXIT)]
    Maintenance(Target),
    /// Give a backend another weight, until the configuration does
    #[command(after_help = EXIT)]
    Weight(Weight),
    /// End a session: its next request is placed afresh
    #[command(after_help = EXIT)]
    Forget(Session),
    /// Make a session live on another backend
    #[command(after_help = EXIT)]
    Move(Move),
    /// Load the configuration and the certificates anew; a mistake keeps the old ones
    #[command(after_help = EXIT_RELOAD)]
    Reload(Reload),
    /// Show or change what is logged: a level, or e.g. "info,homing=debug"
    #[command(after_help = EXIT)]
    LogLevel(LogLevel),
    /// Watch pools and backends, once a second
    #[command(after_help = EXIT)]
    Top(Top),
    /// Succeed if the proxy accepts clients: the health check of a container
    #[command(after_help = EXIT_PROBE)]
    Probe(Probe),
}

/// How the proxy is reached, and how it answers.
#[derive(Args, Clone, Debug, Default)]
pub struct Connect {
    /// Admin listener: http://HOST:PORT or unix:PATH [default: $HOMING_ADMIN or http://127.0.0.1:9090]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// File with the token that `token_file` names in the configuration [default: $HOMING_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON, for machines
    #[arg(long)]
    pub json: bool,
    /// Only this pool; needed where a name is in several
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
}

/// A backend.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Backend, as NAME where only one pool has it, or as POOL/NAME
    #[arg(value_name = "BACKEND")]
    pub backend: String,
    #[command(flatten)]
    pub connect: Connect,
}

/// `homing sessions`.
#[derive(Args, Clone, Debug)]
pub struct Sessions {
    #[command(flatten)]
    pub target: Target,
    /// Sessions to pass over
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: usize,
    /// Sessions to show, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
}

/// `homing explain`, `homing forget`.
#[derive(Args, Clone, Debug)]
pub struct Session {
    /// Session id: the value of the application's cookie. Without it, or for "-", it is read from standard
    /// input, which is better: an argument shows in the list of processes and in the shell's history
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    #[command(flatten)]
    pub connect: Connect,
}

/// `homing move`.
#[derive(Args, Clone, Debug)]
pub struct Move {
    #[command(flatten)]
    pub session: Session,
    /// Backend that it goes to; what it has in memory stays behind
    #[arg(long, value_name = "BACKEND")]
    pub to: String,
}

/// `homing drain`.
#[derive(Args, Clone, Debug)]
pub struct Drain {
    #[command(flatten)]
    pub target: Target,
    /// Time after which the sessions that are left are moved, and streams closed; e.g. "1h"
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// Return when no live session, no open stream and no request is left
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this, with exit code 3; the drain goes on
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// `homing reload`.
#[derive(Args, Clone, Debug)]
pub struct Reload {
    /// Only show what would change, and what it would do to how many sessions
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connect: Connect,
}

/// `homing weight`.
#[derive(Args, Clone, Debug)]
pub struct Weight {
    #[command(flatten)]
    pub target: Target,
    /// Share of new sessions in relation to the other backends, 1 to 1000
    #[arg(value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub weight: u16,
}

/// `homing log-level`.
#[derive(Args, Clone, Debug)]
pub struct LogLevel {
    /// error, warn, info, debug, trace or off, also by module
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    #[command(flatten)]
    pub connect: Connect,
}

/// `homing top`.
#[derive(Args, Clone, Debug)]
pub struct Top {
    #[command(flatten)]
    pub connect: Connect,
    /// From one look to the next
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
    /// End after as many looks [default: on Ctrl-C]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `homing probe`.
#[derive(Args, Clone, Debug)]
pub struct Probe {
    /// What has to answer 2xx, also of another program: http://HOST:PORT/PATH [default: /readyz of
    /// $HOMING_ADMIN or http://127.0.0.1:9090]
    #[arg(value_name = "URL")]
    pub url: Option<String>,
}

const EXIT: &str = "Exit codes: 0 done, 1 error, 2 wrong usage, 4 no such pool, backend or session.";
const EXIT_RELOAD: &str = "Exit codes: 0 done, 1 error (also one in the configuration), 2 wrong usage, \
    3 with --dry-run: live sessions would end.";
const EXIT_PROBE: &str = "Exit codes: 0 it answers 2xx, 1 it does not, 2 wrong usage. No token is sent.";
const EXIT_DRAIN: &str = "Exit codes: 0 done (with --wait: no live session, open stream or request is left), \
    1 error, 2 wrong usage, 3 with --wait: the timeout came with something left, or sessions, streams or requests \
    were left at the deadline or lost otherwise, \
    4 no such pool or backend, 130 interrupted (the drain goes on).\n\n\
    In a container's preStop hook: homing drain app-1 --wait --timeout 10m";
