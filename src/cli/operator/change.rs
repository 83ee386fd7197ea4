//! Commands that change something.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    args::{Drain, LogLevel, Reload, Target, Weight},
    client::Client,
    find::Found,
    screen::{print, print_lines},
    show::{print_json, text},
    table::{count, human_seconds},
    trouble::Trouble,
    wait,
};
use crate::admin::api::{BackendStatus, LogFilter, Reloaded};

/// Begins a drain, and waits for it if that is wished.
pub(super) async fn drain(args: &Drain) -> Result<(), Trouble> {
    let connect = &args.target.connect;
    let client = Client::new(connect)?;
    let found = Found::find(&client, &args.target.backend, connect.pool.as_deref()).await?;
    let wish = match args.deadline {
        Some(deadline) => json!({ "deadline_seconds": deadline.as_secs_f64() }),
        // A deadline that was set before stays.
        None => json!({}),
    };
    let backend: BackendStatus = client.post(&found.path("drain"), &wish).await?;
    if args.wait {
        return wait::wait(&client, &found, args.timeout, connect.json).await;
    }
    if connect.json {
        return print_json(&backend);
    }
    let eta = match backend.drain_eta_seconds {
        Some(eta) if eta > 0.0 => format!("empty in {} if they stay idle", human_seconds(eta)),
        _ => "drained".to_owned(),
    };
    let mut line = format!(
        "{} drains: {}, {}, {}, {} retained; {eta}",
        found.name(),
        count(backend.live, "live session"),
        count(backend.streams, "stream"),
        count((backend.in_flight + backend.queued).saturating_sub(backend.streams), "request"),
        backend.retained,
    );
    if let Some(deadline) = backend.drain_deadline_seconds {
        line.push_str(&format!("; deadline in {}", human_seconds(deadline)));
    }
    print_lines([line])
}

/// Ends a drain or maintenance.
pub(super) async fn undrain(target: &Target) -> Result<(), Trouble> {
    change(target, "undrain", &json!({}), |backend| match &*backend.state {
        "down" => "serves again as soon as it is up".to_owned(),
        _ => "serves".to_owned(),
    })
    .await
}

/// Takes a backend out at once.
pub(super) async fn maintenance(target: &Target) -> Result<(), Trouble> {
    change(target, "maintenance", &json!({}), |backend| {
        let sessions = count(backend.live, "live session");
        format!("is in maintenance: {sessions} to move with the next request of each")
    })
    .await
}

/// Gives a backend another weight.
pub(super) async fn weight(args: &Weight) -> Result<(), Trouble> {
    let wish = json!({ "weight": args.weight });
    change(&args.target, "weight", &wish, |backend| format!("has weight {}", backend.weight)).await
}

/// Loads the configuration anew.
pub(super) async fn reload(args: &Reload) -> Result<(), Trouble> {
    let (connect, dry) = (&args.connect, args.dry_run);
    let client = Client::new(connect)?;
    let path = if dry { "/api/v1/reload?dry_run=true" } else { "/api/v1/reload" };
    let changes = client.post(path, &json!({})).await.map_err(|trouble| match trouble {
        Trouble::Failed(why) if dry => Trouble::Failed(format!("would not be reloaded:\n{why}")),
        Trouble::Failed(why) => Trouble::Failed(format!("not reloaded, the old configuration stays:\n{why}")),
        trouble => trouble,
    });
    let changes: Reloaded = changes?;
    let (did, nothing) =
        if dry { ("would reload", "nothing would change") } else { ("reloaded", "nothing has changed") };
    if connect.json {
        print_json(&changes)?;
    } else if changes.applied.is_empty() && changes.restart.is_empty() {
        print_lines([format!("{did}: {nothing}")])?;
    } else {
        let applied = changes.applied.iter().map(|change| format!("{did}: {change}"));
        let restart = changes.restart.iter().map(|change| format!("only after a restart: {change}"));
        let warnings = changes.warnings.iter().map(|warning| format!("warning: {warning}"));
        print_lines(applied.chain(warnings).chain(restart))?;
    }
    if dry && changes.lost > 0 {
        return Err(Trouble::SessionsLeft(format!("{} would end", count(changes.lost, "live session"))));
    }
    Ok(())
}

/// Shows or changes what is logged.
pub(super) async fn log_level(args: &LogLevel) -> Result<(), Trouble> {
    let client = Client::new(&args.connect)?;
    let (method, body) = match &args.filter {
        None => (Method::GET, None),
        Some(filter) => (Method::PUT, Some(json!({ "filter": filter }))),
    };
    let answer = client.send(method, "/api/v1/log", body.as_ref(), Duration::ZERO).await?;
    if args.connect.json {
        return print(&text(&answer));
    }
    let filter: LogFilter = serde_json::from_slice(&answer)
        .map_err(|error| Trouble::Failed(format!("the answer cannot be understood: {error}")))?;
    print_lines([filter.filter])
}

async fn change(
    target: &Target,
    action: &str,
    wish: &Value,
    tell: impl FnOnce(&BackendStatus) -> String,
) -> Result<(), Trouble> {
    let client = Client::new(&target.connect)?;
    let found = Found::find(&client, &target.backend, target.connect.pool.as_deref()).await?;
    let backend: BackendStatus = client.post(&found.path(action), wish).await?;
    if target.connect.json {
        return print_json(&backend);
    }
    print_lines([format!("{} {}", found.name(), tell(&backend))])
}
