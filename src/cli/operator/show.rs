//! `homing status`, `homing backends`, `homing sessions`.

use std::time::Duration;

use http::Method;

use super::{
    args::{Connect, Sessions},
    client::Client,
    find::Found,
    screen::{print, print_lines},
    table::{Align, Table, count, human_seconds},
    trouble::Trouble,
};
use crate::admin::api::{BackendStatus, Discovers, PoolStatus, SessionPage, Status};

/// Shows what the proxy does, pool by pool.
pub(super) async fn status(connect: &Connect) -> Result<(), Trouble> {
    let client = Client::new(connect)?;
    let mut status: Status = client.get("/api/v1/status").await?;
    only(&mut status.pools, connect.pool.as_deref())?;
    if connect.json {
        return print_json(&status);
    }
    let keys = status.pools.iter().flat_map(keys);
    let pools = pools(&status.pools).lines();
    print_lines(summary(&status).into_iter().chain([String::new()]).chain(pools).chain(keys))
}

/// Shows every backend.
pub(super) async fn backends(connect: &Connect) -> Result<(), Trouble> {
    let client = Client::new(connect)?;
    let mut status: Status = client.get("/api/v1/status").await?;
    only(&mut status.pools, connect.pool.as_deref())?;
    if connect.json {
        return print_json(&status.pools);
    }
    print_lines(backend_table(&status.pools).lines())
}

/// Lists the sessions of a backend.
pub(super) async fn sessions(args: &Sessions) -> Result<(), Trouble> {
    let connect = &args.target.connect;
    let client = Client::new(connect)?;
    let found = Found::find(&client, &args.target.backend, connect.pool.as_deref()).await?;
    let path = format!("{}?skip={}&limit={}", found.path("sessions"), args.skip, args.limit);
    if connect.json {
        return print(&text(&client.send(Method::GET, &path, None, Duration::ZERO).await?));
    }
    let page: SessionPage = client.get(&path).await?;
    let mut table = Table::new(&[
        ("SESSION", Align::Left),
        ("STATE", Align::Left),
        ("AGE", Align::Right),
        ("IDLE", Align::Right),
        ("LEFT", Align::Right),
        ("STREAMS", Align::Right),
        ("MOVES", Align::Right),
    ]);
    for session in &page.sessions {
        let note = if session.unlearned { " (unlearned)" } else { "" };
        table.row([
            session.fingerprint.clone(),
            format!("{}{note}", session.state),
            human_seconds(session.age_seconds),
            human_seconds(session.idle_seconds),
            session.left_seconds.map_or_else(|| "held".to_owned(), human_seconds),
            session.streams.to_string(),
            session.moves.to_string(),
        ]);
    }
    print_lines(table.lines())?;
    if page.more {
        print_lines([format!("there are more: --skip {}", args.skip + page.sessions.len())])?;
    }
    Ok(())
}

/// What holds for the whole proxy.
pub(super) fn summary(status: &Status) -> Vec<String> {
    let mut lines = vec![format!(
        "homing {}: {}, up {}, {}, {}",
        status.version,
        status.phase,
        human_seconds(status.uptime_seconds),
        count(status.connections, "connection"),
        count(status.requests_total, "request"),
    )];
    let config = &status.config;
    let file = config.file.as_deref().unwrap_or("from flags");
    lines.push(format!("configuration {file}, loaded at {}", config.loaded_at));
    if let Some(error) = &config.error {
        lines.push("the last reload failed, the configuration before it is in use:".to_owned());
        lines.extend(error.lines().map(|line| format!("  {line}")));
    }
    lines.extend(status.crowds.iter().map(|crowd| {
        format!(
            "{} begin on {} of {}: a proxy or a CDN? name it in `trusted_proxies`, or let it send PROXY headers",
            count(crowd.sessions, "session"),
            count(crowd.connections, "connection"),
            crowd.address
        )
    }));
    lines
}

/// By which keys a pool's sessions are kept, and what seems to be wrong with them.
fn keys(pool: &PoolStatus) -> Vec<String> {
    let set: Vec<_> = pool.keys_set.iter().map(|(key, count)| format!("{key} (set by {count})")).collect();
    let used = match &set[..] {
        [] if pool.has_learned => pool.key.clone(),
        [] => format!("{}; no response has set one yet", pool.key),
        set => set.join(", "),
    };
    let mut lines = vec![format!("pool {}: sessions by {used}", pool.name)];
    lines.extend(pool.key_advice.as_ref().map(|advice| format!("pool {}: WARNING: {advice}", pool.name)));
    lines
}

/// A row for each backend.
pub(super) fn backend_table(pools: &[PoolStatus]) -> Table {
    let mut table = Table::new(&[
        ("BACKEND", Align::Left),
        ("STATE", Align::Left),
        ("WEIGHT", Align::Right),
        ("LIVE", Align::Right),
        ("SHARE", Align::Right),
        ("RETAINED", Align::Right),
        ("STREAMS", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("ERRORS", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for pool in pools {
        for entry in pool.discovers.iter().filter(|entry| entry.backends == 0) {
            table.row(nobody(pool, entry));
        }
        for backend in &pool.backends {
            let latency = |of: fn(&crate::admin::api::Latency) -> f64| {
                backend
                    .latency_seconds
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |latency| human_seconds(of(latency)))
            };
            table.row([
                format!("{}/{}", pool.name, backend.name),
                backend.state.clone(),
                backend.weight.to_string(),
                backend.live.to_string(),
                format!("{:.0}%", backend.share * 100.0),
                backend.retained.to_string(),
                backend.streams.to_string(),
                match backend.queued {
                    0 => backend.in_flight.to_string(),
                    queued => format!("{} + {queued} waiting", backend.in_flight),
                },
                latency(|latency| latency.p50),
                latency(|latency| latency.p99),
                format!("{} of {}", backend.errors_total, backend.requests_total),
                note(backend),
            ]);
        }
    }
    table
}

/// In the place of the backends of an entry for which DNS has none.
fn nobody(pool: &PoolStatus, entry: &Discovers) -> [String; 12] {
    let mut row = [(); 12].map(|()| "-".to_owned());
    row[0] = format!("{}/{}", pool.name, entry.entry);
    row[1] = "none".to_owned();
    row[11] = format!("DNS has told no address of {} yet", entry.host);
    row
}

/// What else there is to say about a backend: where it comes from, how its drain goes, or why it is down.
fn note(backend: &BackendStatus) -> String {
    let mut notes = Vec::new();
    if backend.left_config {
        notes.push("left the configuration".to_owned());
    }
    match &backend.discovered {
        Some(_) if backend.left_dns => notes.push("left DNS".to_owned()),
        Some(entry) => notes.push(format!("discovered: {entry}")),
        None => {}
    }
    match backend.drain_eta_seconds {
        Some(eta) if eta > 0.0 => {
            notes.push(format!("draining{}, empty in {} if it stays idle", left(backend), human_seconds(eta)))
        }
        Some(_) => notes.push("drained".to_owned()),
        None => {}
    }
    if let Some(deadline) = backend.drain_deadline_seconds {
        notes.push(format!("deadline in {}", human_seconds(deadline)));
    }
    if let Some(last) = backend.health.last()
        && !backend.up
    {
        notes.push(format!("{}: {}", last.by, last.why));
    }
    notes.join(", ")
}

/// What is left at a draining backend beside its live sessions, which have a column.
fn left(backend: &BackendStatus) -> String {
    let requests = (backend.in_flight + backend.queued).saturating_sub(backend.streams);
    let all = [(requests, "request"), (backend.streams, "stream")];
    let some: Vec<_> = all.iter().filter(|(n, _)| *n > 0).map(|&(n, what)| count(n, what)).collect();
    if some.is_empty() { String::new() } else { format!(" ({} left)", some.join(", ")) }
}

fn pools(pools: &[PoolStatus]) -> Table {
    let mut table = Table::new(&[
        ("POOL", Align::Left),
        ("BALANCE", Align::Left),
        ("LIVE", Align::Right),
        ("RETAINED", Align::Right),
        ("STREAMS", Align::Right),
        ("SKEW", Align::Right),
        ("TABLE", Align::Right),
        ("MOVED", Align::Right),
        ("BACKENDS", Align::Left),
    ]);
    for pool in pools {
        let sum = |of: fn(&BackendStatus) -> u64| pool.backends.iter().map(of).sum::<u64>();
        let mut states: Vec<(&str, usize)> = Vec::new();
        for backend in &pool.backends {
            match states.iter_mut().find(|(state, _)| *state == backend.state) {
                Some((_, number)) => *number += 1,
                None => states.push((&backend.state, 1)),
            }
        }
        let states: Vec<_> = states.iter().map(|(state, number)| format!("{number} {state}")).collect();
        table.row([
            pool.name.clone(),
            pool.balance.clone(),
            sum(|backend| backend.live).to_string(),
            sum(|backend| backend.retained).to_string(),
            pool.streams.to_string(),
            format!("{:.2}", pool.skew),
            format!("{} of {}", pool.entries, pool.capacity),
            pool.moves.values().sum::<u64>().to_string(),
            if states.is_empty() { "none".to_owned() } else { states.join(", ") },
        ]);
    }
    table
}

/// Keeps only the pool that is asked for.
pub(super) fn only(pools: &mut Vec<PoolStatus>, name: Option<&str>) -> Result<(), Trouble> {
    let Some(name) = name else { return Ok(()) };
    let known: Vec<_> = pools.iter().map(|pool| pool.name.clone()).collect();
    pools.retain(|pool| pool.name == name);
    if pools.is_empty() {
        let name = name.escape_debug();
        return Err(Trouble::NotFound(format!("there is no pool `{name}`; there are {}", known.join(", "))));
    }
    Ok(())
}

/// Prints a line of JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Trouble> {
    let text = serde_json::to_string(value).map_err(|error| Trouble::Failed(error.to_string()))?;
    print_lines([text])
}

/// An answer as it came.
pub(super) fn text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    format!("{}\n", text.trim_end())
}
