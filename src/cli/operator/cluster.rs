//! `homing cluster`.

use std::{collections::BTreeMap, time::Duration};

use super::{
    args::Connect,
    client::Client,
    screen::print_lines,
    show::print_json,
    table::{Align, Table, count, human},
    trouble::Trouble,
};
use crate::{
    admin::api::ClusterStatus,
    clock,
    store::redis::{Census, Summary},
};

/// Shows the replicas, and the sessions of all of them.
pub(super) async fn cluster(connect: &Connect) -> Result<(), Trouble> {
    let client = Client::new(connect)?;
    let status: ClusterStatus = client.get("/api/v1/cluster").await?;
    if connect.json {
        return print_json(&status);
    }
    let mut lines = vec![format!(
        "{} at replica {}: {}, breaker {}, {} to be told",
        status.redis,
        status.replica,
        if status.connected { "connected" } else { "not connected" },
        status.breaker,
        count(status.pending as u64, "change"),
    )];
    if let Some(refusal) = &status.refusal {
        lines.push(format!("redis refuses to keep sessions: {refusal}"));
    }
    if status.secret_differs {
        lines.push("other replicas have another `secret_file`: none knows the others' sessions".to_owned());
    }
    lines.push(String::new());
    lines.extend(replicas(&status).lines());
    lines.push(String::new());
    match &status.census {
        None => lines.push(status.census_missing.clone().unwrap_or_default()),
        Some(census) => {
            lines.extend(homes(&status, census, connect.pool.as_deref()).lines());
            let more = if census.complete { "" } else { "; there are more than are counted" };
            lines.push(format!("counted {} ago by {}{more}", ago(census.at), census.by));
        }
    }
    print_lines(lines)
}

fn replicas(status: &ClusterStatus) -> Table {
    let mut table = Table::new(&[
        ("REPLICA", Align::Left),
        ("VERSION", Align::Left),
        ("UP", Align::Right),
        ("HEARD", Align::Right),
        ("BREAKER", Align::Left),
        ("LIVE", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("UNTOLD", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for replica in &status.replicas {
        let backends = || replica.pools.iter().flat_map(|pool| &pool.backends);
        table.row([
            replica.replica.clone(),
            replica.version.clone(),
            ago(replica.since),
            ago(replica.at),
            replica.breaker.clone(),
            backends().map(|backend| backend.live).sum::<u64>().to_string(),
            backends().map(|backend| backend.in_flight).sum::<u64>().to_string(),
            replica.pending.to_string(),
            note(replica),
        ]);
    }
    table
}

/// What is wrong with a replica's way to the others.
fn note(replica: &Summary) -> String {
    let notes = [(replica.refused, "redis refuses writes"), (replica.secret_differs, "another secret")];
    notes.into_iter().filter(|(there, _)| *there).map(|(_, words)| words).collect::<Vec<_>>().join(", ")
}

/// Sessions by home: each once in the cluster, and as many as each replica serves.
fn homes(status: &ClusterStatus, census: &Census, only: Option<&str>) -> Table {
    let mut table = Table::new(&[
        ("BACKEND", Align::Left),
        ("SESSIONS", Align::Right),
        ("LIVE AT REPLICAS", Align::Left),
    ]);
    for pool in census.pools.iter().filter(|pool| only.is_none_or(|only| pool.name == only)) {
        let mut rows: BTreeMap<&str, (u64, Vec<String>)> =
            pool.homes.iter().map(|home| (&*home.name, (home.sessions, Vec::new()))).collect();
        for replica in &status.replicas {
            let here = replica.pools.iter().filter(|found| found.name == pool.name);
            for backend in here.flat_map(|found| &found.backends) {
                let live = format!("{} {}", replica.replica, backend.live);
                rows.entry(&backend.name).or_default().1.push(live);
            }
        }
        for (home, (sessions, live)) in rows {
            table.row([format!("{}/{home}", pool.name), sessions.to_string(), live.join(", ")]);
        }
    }
    table
}

fn ago(time: u64) -> String {
    human(Duration::from_secs(clock::unix_ms().saturating_sub(time) / 1000))
}
