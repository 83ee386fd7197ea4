//! Connections that made one request and are idle since.

use std::rc::Rc;

use anyhow::Result;
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Protocol, Target,
    client::{Client, Connection},
    rate::h2 as over_h2,
    requests,
};

/// Handshakes at the same time.
const CONCURRENT: usize = 32;

/// What keeps a connection open.
enum Held {
    H1(#[expect(dead_code, reason = "held")] Box<Connection>),
    H2(#[expect(dead_code, reason = "held")] SendRequest<Bytes>),
}

/// Opens `count` connections, tells so, and keeps them until standard input ends.
pub(crate) async fn run(target: Target, protocol: Protocol, count: usize) -> Result<()> {
    let client = Client::new(target.to, protocol, false)?;
    let turns = Rc::new(Semaphore::new(CONCURRENT));
    let mut opening = JoinSet::new();
    let mut sessions = requests::numbers(target.sessions);
    for session in sessions.by_ref().take(count) {
        let (client, turns) = (client.clone(), Rc::clone(&turns));
        opening.spawn_local(async move {
            let _turn = turns.acquire().await?;
            open(&client, protocol, session).await
        });
    }
    let mut held = Vec::with_capacity(count);
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    println!("{{\"held\": {}}}", held.len());
    std::future::pending().await
}

async fn open(client: &Client, protocol: Protocol, session: u32) -> Result<Held> {
    match protocol {
        Protocol::H1 => {
            let mut connection = client.open().await?;
            connection.exchange(&requests::get("/1k", session), 1).await?;
            Ok(Held::H1(Box::new(connection)))
        }
        Protocol::H2 => {
            let sender = over_h2::open(client).await?;
            over_h2::exchange(sender.clone(), over_h2::request(session)?).await?;
            Ok(Held::H2(sender))
        }
    }
}
