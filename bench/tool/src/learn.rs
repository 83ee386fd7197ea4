//! Logs sessions in over some connections, many requests at a time.

use anyhow::Result;
use tokio::task::JoinSet;

use crate::{Protocol, Target, client::Client, requests};

const CONNECTIONS: u32 = 16;
/// Requests that are sent at once.
const BATCH: u32 = 32;

/// Logs in `count` sessions from `first` on.
pub(crate) async fn run(target: Target, first: u32, count: u32) -> Result<()> {
    let client = Client::new(target.to, Protocol::H1, false)?;
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        // Each takes its share of the numbers.
        let (from, to) = (share(count, number), share(count, number + 1));
        connections.spawn_local(login(client.clone(), first + from, first + to));
    }
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    println!("{{\"learned\": {count}}}");
    Ok(())
}

fn share(count: u32, number: u32) -> u32 {
    (u64::from(count) * u64::from(number) / u64::from(CONNECTIONS)) as u32
}

async fn login(client: Client, from: u32, to: u32) -> Result<()> {
    let mut connection = client.open().await?;
    for begin in (from..to).step_by(BATCH as usize) {
        let batch = begin..to.min(begin + BATCH);
        let count = batch.len();
        let requests: Vec<u8> = batch.flat_map(requests::login).collect();
        connection.exchange(&requests, count).await?;
    }
    Ok(())
}
