//! Requests as streams of a few connections, each on the next one.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Request, StatusCode};
use tokio::task::spawn_local;

use super::Book;
use crate::{Protocol, Target, client::Client, requests};

pub(super) struct Load {
    senders: Vec<SendRequest<Bytes>>,
    /// Copied for each use.
    requests: Vec<Request<()>>,
    started: usize,
    book: Book,
}

// === impl Load ===

impl Load {
    pub(super) async fn open(target: Target, connections: usize, book: &Book) -> Result<Self> {
        let client = Client::new(target.to, Protocol::H2, false)?;
        let mut senders = Vec::with_capacity(connections);
        for _ in 0..connections {
            senders.push(open(&client).await?);
        }
        let requests = requests::numbers(target.sessions).take(9_973).map(request).collect::<Result<_>>()?;
        Ok(Self { senders, requests, started: 0, book: book.clone() })
    }

    pub(super) fn start(&mut self, due: Instant) {
        let sender = self.senders[self.started % self.senders.len()].clone();
        let request = self.requests[self.started % self.requests.len()].clone();
        self.started += 1;
        let book = self.book.clone();
        spawn_local(async move {
            let result = exchange(sender, request).await;
            book.ended(due, result);
        });
    }
}

/// A connection, driven by a task of its own.
///
/// # Errors
///
/// When it cannot be opened.
pub(crate) async fn open(client: &Client) -> Result<SendRequest<Bytes>> {
    let stream = client.connect().await?;
    let (sender, connection) = client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake(stream)
        .await?;
    spawn_local(async move {
        // Requests learn of its errors.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The request of a session for 1 KiB.
///
/// # Errors
///
/// None but those of `http`.
pub(crate) fn request(session: u32) -> Result<Request<()>> {
    Ok(Request::get("https://bench.test/1k")
        .header("user-agent", "homing-bench")
        .header("accept", "*/*")
        .header("cookie", format!("session={}", requests::session(session)))
        .body(())?)
}

/// Sends a request and takes all of its answer.
///
/// # Errors
///
/// When the answer is no 200, or breaks off.
pub(crate) async fn exchange(sender: SendRequest<Bytes>, request: Request<()>) -> Result<()> {
    let (answer, _) = sender.ready().await.context("no stream")?.send_request(request, true)?;
    let answer = answer.await.context("no answer")?;
    ensure!(answer.status() == StatusCode::OK, "an answer that is no 200: {}", answer.status());
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(part) = body.data().await {
        let part = part.context("an answer that breaks off")?;
        length += part.len();
        body.flow_control().release_capacity(part.len())?;
    }
    ensure!(length == 1024, "an answer of {length} bytes");
    Ok(())
}
