//! `homing serve`.

use std::process::ExitCode;

use super::{args::ServeArgs, check::count, notify};
use crate::{
    app::App,
    config::{Listen, format_duration},
    control::Source,
    handover::Taker,
    listener::Inherited,
    world::Snapshot,
};

/// Runs the proxy.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    // While there is one thread: it takes the variables away.
    let mut inherited = Inherited::from_environment();
    let config = match args.to_config() {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let socket = config.admin.socket.clone();
    let source = Source {
        load: Box::new({
            let args = args.clone();
            move || args.to_config()
        }),
        file: args.config.clone(),
        hangup: true,
    };
    let handover = config.state.handover.as_deref();
    let taker = args.takeover.then(|| Taker::connect(handover, &mut inherited)).transpose()?;
    App::bind(config, source, inherited, taker)?.run(|bound, snapshot| {
        announce(bound);
        if let Some(socket) = &socket {
            eprintln!("listening admin unix:{}", socket.display());
        }
        eprint!("{}", summary(snapshot));
        notify::ready();
    })?;
    Ok(ExitCode::SUCCESS)
}

/// One line per listener, in a form that scripts can read.
pub fn announce(bound: &Listen) {
    eprintln!("listening https https://{}", bound.https);
    if let Some(address) = bound.http {
        eprintln!("listening http http://{address}");
    }
    if let Some(address) = bound.admin {
        eprintln!("listening admin http://{address}");
    }
}

/// What is served with what, once that is known.
fn summary(snapshot: &Snapshot) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let config = &snapshot.config;
    for (pool, running) in config.pools.iter().zip(&snapshot.pools) {
        let found = running.backends.iter().filter(|backend| backend.discovered.is_some()).count();
        let by_dns = pool.backends.iter().any(|backend| backend.discover.is_some());
        let by_dns = if by_dns { format!(" ({found} by DNS)") } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "pool {}: {}{by_dns}, sessions by {}, live for {}, kept for {}",
            pool.name,
            count(running.backends.len(), "backend"),
            running.key_text(),
            format_duration(pool.affinity.session_timeout),
            format_duration(pool.affinity.ttl),
        );
    }
    let workers = count(config.workers.get(), "worker");
    let _ = writeln!(text, "homing {}: ready with {workers}", env!("CARGO_PKG_VERSION"));
    text
}
