//! Connections of one request each: TCP, a handshake, a request, an answer, an end.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustls::HandshakeKind;
use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::{Protocol, Target, client::Client, requests};

/// Lets `concurrent` clients connect for `seconds`.
pub(crate) async fn run(target: Target, concurrent: usize, resume: bool, seconds: Duration) -> Result<()> {
    let end = Instant::now() + seconds;
    let (count, resumed) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
    let mut clients = JoinSet::new();
    for number in 0..concurrent {
        // Each has tickets of its own.
        let client = Client::new(target.to, Protocol::H1, resume)?;
        let (count, resumed) = (Rc::clone(&count), Rc::clone(&resumed));
        clients.spawn_local(async move {
            let mut sessions = requests::numbers(target.sessions).skip(number * 1_000);
            while Instant::now() < end {
                let session = sessions.next().unwrap_or_default();
                let kind = connect(&client, session).await?;
                count.set(count.get() + 1);
                resumed.set(resumed.get() + u64::from(kind == HandshakeKind::Resumed));
            }
            Result::<()>::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    println!("{{\"succeeded\": {}, \"resumed\": {}}}", count.get(), resumed.get());
    Ok(())
}

async fn connect(client: &Client, session: u32) -> Result<HandshakeKind> {
    let mut connection = client.open().await?;
    connection.exchange(&requests::get("/1k", session), 1).await?;
    let kind = connection.stream.get_ref().1.handshake_kind().context("no handshake")?;
    connection.stream.shutdown().await.context("close")?;
    Ok(kind)
}
