//! What the command line may say.

use std::{
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use http::HeaderName;

use super::operator::args::Operator;
use crate::{
    affinity::Balance,
    config::{
        AccessLog, BackendFlag, CertificateFiles, Config, ConfigErrors, Flags, LogWish, Overrides,
        parse_access_log, parse_balance, parse_duration, parse_listen,
    },
};

/// An HTTPS front door that keeps every session on its home backend
///
/// homing ends TLS, finds the application's own session cookie in each request and sends the request to the
/// backend that holds that session. Without a command, it serves.
#[derive(Clone, Debug, Parser)]
#[command(name = "homing", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the proxy (the default)
    Serve(ServeArgs),
    /// Show every mistake in a configuration file, at once
    Check(CheckArgs),
    /// Print the configuration with all defaults filled in
    PrintConfig(ServeArgs),
    /// Run the proxy in front of three small applications, with a certificate for localhost
    Demo(DemoArgs),
    /// Run one of the demo's applications alone
    DemoApp(DemoAppArgs),
    /// Make the certificates, the secret and the operators' token that the demo cluster in containers shares
    DemoFiles(DemoFilesArgs),
    #[command(flatten)]
    Operator(Operator),
}

/// Where the proxy listens and what else flags change in any configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// Address of the HTTPS listener; ":8443" is port 8443 on all addresses, port 0 any free one
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    https: Option<SocketAddr>,
    /// Address of the plain HTTP listener that redirects to HTTPS, or "off"
    #[arg(long, value_name = "ADDR", value_parser = parse_switch)]
    http: Option<Switch>,
    /// Address of the admin listener (metrics), or "off"
    #[arg(long, value_name = "ADDR", value_parser = parse_switch)]
    admin: Option<Switch>,
    /// Threads that serve requests; one for each core by default
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    workers: Option<NonZeroUsize>,
    /// Log each request as a line of JSON, to standard output or to a file; "stderr", "errors" and "off", too
    #[arg(long, value_name = "PATH", num_args = 0..=1, value_parser = parse_access_log)]
    access_log: Option<Option<LogWish>>,
}

/// `homing serve` and `homing print-config`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Configuration file
    #[arg(
        long,
        short,
        value_name = "FILE",
        conflicts_with_all = [
            "cert", "key", "backends", "cookie", "issue", "session_timeout", "ttl", "health_path", "balance",
        ],
    )]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
    /// Take over from the running process (`[state] handover`): its sockets, its sessions, its clients
    #[arg(long, requires = "config")]
    pub takeover: bool,
    /// Certificate chain, PEM; repeat together with --key, the client's SNI chooses
    #[arg(long, value_name = "FILE", help_heading = NO_FILE)]
    cert: Vec<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = NO_FILE)]
    key: Vec<PathBuf>,
    /// A backend, as http://host:port or NAME=http://host:port; repeat for each
    #[arg(long = "backend", value_name = "URL", help_heading = NO_FILE)]
    backends: Vec<String>,
    /// Name of the application's session cookie [default: session, JSESSIONID, PHPSESSID and other well-known ones]
    #[arg(long, value_name = "NAME", help_heading = NO_FILE)]
    cookie: Option<String>,
    /// Set a cookie of the proxy's own, for an application that has none (its key dies with the process: to keep
    /// sessions over a restart, use a configuration file with `issue` and a `key_file`)
    #[arg(long, conflicts_with = "cookie", help_heading = NO_FILE)]
    issue: bool,
    /// The idle timeout of the application's sessions [default: 30m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = NO_FILE)]
    session_timeout: Option<Duration>,
    /// Idle time after which a session's home is forgotten [default: 1.5 times --session-timeout]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = NO_FILE)]
    ttl: Option<Duration>,
    /// Path of the active health check [default: no active checks]
    #[arg(long, value_name = "PATH", help_heading = NO_FILE)]
    health_path: Option<String>,
    /// Where new sessions go: least-sessions, least-requests or round-robin [default: least-sessions]
    #[arg(long, value_name = "BALANCE", value_parser = parse_balance, help_heading = NO_FILE)]
    balance: Option<Balance>,
}

/// `homing check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

/// `homing demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Folder for the certificates, which are kept and used again
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub certs: PathBuf,
    /// How many applications are started
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub apps: u16,
    /// Port of the first application, the others follow; 0 for any free ones
    #[arg(long, value_name = "PORT", default_value_t = 3001)]
    pub app_port: u16,
}

/// `homing demo-app`.
#[derive(Args, Clone, Debug)]
pub struct DemoAppArgs {
    /// Address the application listens at
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3001", value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// Take socket and lifeline from `homing demo`, see [`crate::demo::apps`]
    #[arg(long, hide = true, conflicts_with = "listen")]
    pub listen_stdin: bool,
    /// Name it gives itself in its answers
    #[arg(long, value_name = "NAME", default_value = "app-1")]
    pub name: String,
    /// Idle time after which it forgets a session
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub session_timeout: Duration,
}

/// `homing demo-files`.
#[derive(Args, Clone, Debug)]
pub struct DemoFilesArgs {
    /// Folder for the files; those that are there and good are kept
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub certs: PathBuf,
    /// Number of the user that the proxy runs as, who gets the secret files; the folder's owner gets the others
    #[arg(long, value_name = "UID")]
    pub owner: Option<u32>,
}

/// A listener that may be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    Off,
    At(SocketAddr),
}

// === impl Cli ===

impl Cli {
    /// The command to run: the one that was given, or `serve`.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

// === impl CommonArgs ===

impl CommonArgs {
    /// What these flags change in a configuration.
    pub fn overrides(&self) -> Overrides {
        let stdout = LogWish { to: AccessLog::Stdout, filter: None };
        let access_log = self.access_log.clone().map(|wish| wish.unwrap_or(stdout));
        Overrides {
            https: self.https,
            http: self.http.map(Switch::address),
            admin: self.admin.map(Switch::address),
            workers: self.workers,
            access_log,
        }
    }
}

// === impl ServeArgs ===

impl ServeArgs {
    /// The configuration that these arguments mean: of a file, or of the flags alone.
    ///
    /// # Errors
    /// All errors of the file or of the flags at once.
    pub fn to_config(&self) -> Result<Config, ConfigErrors> {
        if let Some(path) = &self.config {
            let mut config = Config::load(path)?;
            config.override_with(&self.common.overrides());
            return Ok(config);
        }
        if self.backends.is_empty() {
            return Err(ConfigErrors::whole(NOTHING_TO_SERVE));
        }
        if self.cert.len() != self.key.len() {
            return Err(ConfigErrors::whole(format!(
                "each `--cert` needs its `--key`: there are {} and {}",
                self.cert.len(),
                self.key.len()
            )));
        }
        let files = self.cert.iter().zip(&self.key);
        Config::from_flags(&Flags {
            certificates: files
                .map(|(cert, key)| CertificateFiles { cert: cert.clone(), key: key.clone() })
                .collect(),
            backends: self.backends.iter().map(|backend| BackendFlag::from(&**backend)).collect(),
            cookie: self.cookie.clone(),
            issue: self.issue,
            session_timeout: self.session_timeout,
            ttl: self.ttl,
            health_path: self.health_path.clone(),
            balance: self.balance,
            overrides: self.common.overrides(),
        })
    }
}

// === impl DemoArgs ===

impl DemoArgs {
    /// The configuration of the demo, for its certificate and its running applications: what
    /// `config/demo.toml` says, changed by the flags.
    ///
    /// # Errors
    /// None in practice; the flags are made here.
    pub fn to_config(
        &self,
        certificate: CertificateFiles,
        apps: &[(String, SocketAddr)],
    ) -> Result<Config, ConfigErrors> {
        let mut overrides = self.common.overrides();
        overrides.http = overrides.http.or(Some(Some(DEMO_HTTP)));
        let mut config = Config::from_flags(&Flags {
            certificates: vec![certificate],
            backends: apps
                .iter()
                .map(|(name, address)| BackendFlag::from(format!("{name}=http://{address}")))
                .collect(),
            cookie: Some("session".to_owned()),
            session_timeout: Some(DEMO_SESSION_TIMEOUT),
            health_path: Some("/healthz".to_owned()),
            overrides,
            ..Flags::default()
        })?;
        // Whoever runs the demo may drain its backends.
        config.admin.allow_changes = true;
        config.timeouts.drain = DEMO_DRAIN;
        for pool in &mut config.pools {
            pool.instance_header = Some(HeaderName::from_static("x-instance"));
            if let Some(health) = &mut pool.health {
                health.interval = DEMO_HEALTH_INTERVAL;
            }
        }
        Ok(config)
    }
}

// === impl Switch ===

impl Switch {
    const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

fn parse_switch(text: &str) -> Result<Switch, String> {
    if text == "off" { Ok(Switch::Off) } else { parse_listen(text).map(Switch::At) }
}

fn parse_workers(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().ok().filter(|n: &NonZeroUsize| n.get() <= 1024).ok_or_else(|| "use 1 to 1024".to_owned())
}

const NO_FILE: &str = "Without a configuration file";
const NOTHING_TO_SERVE: &str = "nothing to serve: give a configuration file or at least one backend

    homing serve --config config/homing.toml
    homing serve --cert cert.pem --key key.pem --backend http://127.0.0.1:3001

`homing demo` shows it all at work without either.";
const DEMO_HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8080);

/// Short, so that one can watch a session end. The default of `homing demo-app`, too.
const DEMO_SESSION_TIMEOUT: Duration = Duration::from_mins(10);
/// Short, so that one does not wait for what one has started again.
const DEMO_HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// Short, since a browser's open event stream would otherwise hold up Ctrl-C for half a minute.
const DEMO_DRAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("homing").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(Cli::into_command)
    }

    fn serve(line: &str) -> Result<Config, String> {
        match parse(line) {
            Ok(Command::Serve(args)) => args.to_config().map_err(|errors| errors.to_string()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        let flags = "--cert c --key k --backend http://127.0.0.1:3001 --workers 1";
        assert_eq!(serve(flags), serve(&format!("serve {flags}")));
    }

    #[test]
    fn flags_alone_make_a_configuration() {
        let config = serve(
            "serve --cert C --key K --backend http://127.0.0.1:3001 --backend b=http://127.0.0.1:3002 \
             --cookie sid --session-timeout 20m --health-path /up --balance round-robin --http :0 --admin off",
        )
        .unwrap();
        let names: Vec<&str> = config.pools[0].backends.iter().map(|backend| &*backend.name).collect();
        assert_eq!(names, ["127.0.0.1:3001", "b"]);
        assert_eq!(config.pools[0].affinity.ttl, Duration::from_mins(30));
        assert_eq!(config.pools[0].health.as_ref().map(|health| &*health.path), Some("/up"));
        assert_eq!(config.listen.http.map(|address| address.port()), Some(0));
        assert_eq!(config.listen.admin, None);
        assert_eq!(Config::parse(&config.to_toml(), "f", Path::new("")).unwrap(), config);
    }

    #[test]
    fn flags_that_do_not_fit_together_are_shown() {
        let error =
            serve("--cert C --key K --backend a=http://x:1/p --backend http://y --ttl 20m --cookie a=b")
                .unwrap_err();
        assert_eq!(
            error,
            "\
error: a backend has no path: leave out `/p`
 --> command line
   |
   | --backend a=http://x:1/p
   |             ^^^^^^^^^^^^

error: `ttl` (20m) is not longer than `session_timeout` (30m): the proxy would forget sessions that the \
application still holds
 --> command line
   |
   | --ttl 20m
   |       ^^^

error: `a=b` cannot be the name of a cookie
 --> command line
   |
   | --cookie a=b
   |          ^^^

3 errors in command line"
        );
    }

    #[test]
    fn without_file_and_backends_both_ways_are_shown() {
        for line in ["", "serve", "--http :80"] {
            let error = serve(line).unwrap_err();
            assert!(error.contains("--config") && error.contains("--backend"), "{error}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let error = serve("--cert C --backend http://127.0.0.1:3001").unwrap_err();
        assert!(error.contains("`--key`"), "{error}");
        let error = serve("--backend http://127.0.0.1:3001").unwrap_err();
        assert!(error.contains("give `--cert` and `--key`"), "{error}");
    }

    #[test]
    fn a_file_and_flags_of_a_pool_exclude_each_other() {
        for flag in ["--backend http://x", "--cert C", "--cookie c", "--ttl 1h", "--health-path /"] {
            let error = serve(&format!("--config F {flag}")).unwrap_err();
            let name = flag.split(' ').next().unwrap();
            assert!(error.contains("--config") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn listeners_of_flags_win_over_those_of_the_file() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
        let line =
            format!("--config {} --https 127.0.0.1:0 --http off --workers 3 --access-log", file.display());
        let config = serve(&line).unwrap();
        assert_eq!(config.listen.https, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.listen.http, None);
        assert_eq!(config.workers.get(), 3);
        assert_eq!(config.access_log, AccessLog::Stdout);
    }

    #[test]
    fn bad_values_say_what_is_wrong() {
        for (line, said) in [
            ("--session-timeout 30", "add a unit"),
            ("--https localhost:1", "not an address"),
            ("--balance least-session", "did you mean `least-sessions`?"),
            ("--workers 0", "1 to 1024"),
            ("demo --apps 0", "1..=64"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn the_demo_is_what_its_file_says() {
        let Ok(Command::Demo(args)) = parse("demo") else { panic!("no demo") };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
        let expected = Config::load(&file).unwrap();
        let apps: Vec<(String, SocketAddr)> = (0..args.apps)
            .map(|n| (format!("app-{}", n + 1), SocketAddr::from(([127, 0, 0, 1], args.app_port + n))))
            .collect();
        assert_eq!(args.to_config(expected.certificates[0].clone(), &apps).unwrap(), expected);
    }

    #[test]
    fn an_application_forgets_no_session_earlier_than_the_demo_says() {
        let Ok(Command::DemoApp(args)) = parse("demo-app") else { panic!("no application") };
        assert_eq!(args.session_timeout, DEMO_SESSION_TIMEOUT);
    }
}
