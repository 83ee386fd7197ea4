//! `homing serve`.

use std::process::ExitCode;

use super::{args::ServeArgs, notify};
use crate::{
    app::App,
    config::{Config, Listen},
    control::Source,
    handover::Taker,
    listener::Inherited,
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
    let summary = summary(&config);
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
    App::bind(config, source, inherited, taker)?.run(|bound| {
        announce(bound);
        if let Some(socket) = &socket {
            eprintln!("listening admin unix:{}", socket.display());
        }
        eprint!("{summary}");
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

fn summary(config: &Config) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for pool in &config.pools {
        let found = pool.backends.iter().filter(|backend| backend.discover.is_some()).count();
        let found = if found > 0 { format!(", names followed in DNS: {found}") } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "pool {}: {} backends{found}, sessions live for {}, kept for {}",
            pool.name,
            pool.backends.iter().filter(|backend| backend.discover.is_none()).count(),
            crate::config::format_duration(pool.affinity.session_timeout),
            crate::config::format_duration(pool.affinity.ttl),
        );
    }
    let _ = writeln!(text, "homing {}: ready with {} workers", env!("CARGO_PKG_VERSION"), config.workers);
    text
}
