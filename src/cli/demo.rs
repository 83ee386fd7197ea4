//! `homing demo`: applications, certificates and the proxy in front, by one command.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Context as _;

use super::{args::DemoArgs, serve::announce};
use crate::{
    app::App,
    clock,
    control::Source,
    demo::{
        AppSocket, Apps, Gone, bind_apps, certs,
        guide::{Guide, quoted},
    },
    listener::Inherited,
};

/// Runs it all until a signal. Whatever the user may have to change is tried before anything runs.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let certificates = certs::prepare(&args.certs, clock::wall())?;
    // The one who reads the guide types its commands into another terminal, wherever that is.
    let ca = std::path::absolute(&certificates.ca).unwrap_or(certificates.ca);
    let jar = ca.with_file_name("cookies.jar");
    let sockets = bind_apps(args.apps, args.app_port)?;
    let addresses: Vec<_> = sockets.iter().map(|app| (app.name().to_owned(), app.address())).collect();
    let args = args.clone();
    let load = move || args.to_config(certificates.files.clone(), &addresses);
    let config = load()?;
    let session_timeout = config.pools[0].affinity.session_timeout;
    let proxy = App::bind(
        config,
        Source { load: Box::new(load), file: None, hangup: false },
        Inherited::default(),
        None,
    )?;

    let program = env::current_exe().context("cannot find this program again")?;
    let shown = program.clone();
    let apps = Apps::start(sockets, |app| command(&program, app), move |gone| report(&shown, gone))
        .with_context(|| format!("cannot start {} as an application", program.display()))?;
    let result = proxy.run(|bound, _| {
        announce(bound);
        let guide = Guide {
            https: bound.https,
            http: bound.http,
            admin: bound.admin,
            ca: &ca,
            jar: &jar,
            apps: apps.iter().collect(),
            session_timeout,
        };
        say(&guide.to_string());
    });
    // Only now: until here, requests had to be finished.
    drop(apps);
    result.map(|()| ExitCode::SUCCESS)
}

/// An application of the demo; it has the demo's session timeout by default.
fn command(program: &Path, app: &AppSocket) -> Command {
    let mut command = Command::new(program);
    command.args(["demo-app", "--listen-stdin", "--name", app.name()]);
    command
}

fn report(program: &Path, gone: &Gone) {
    let Gone { name, pid, address, left } = gone;
    let program = program.to_string_lossy();
    let program = quoted(&program);
    let sessions = match left {
        0 => "none is left that this demo has started",
        _ => "its sessions move to the others",
    };
    say(&format!(
        "{name} (pid {pid}) is gone; {sessions}. Start it again with: {program} demo-app --listen {address} --name {name}\n"
    ));
}

/// In one piece, since other threads and processes write there, too. A demo whose reader is gone goes on.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
