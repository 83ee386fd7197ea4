//! Bytes over TLS, for what no HTTP client would send or show.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{DEADLINE, within};

/// A TLS connection in the hands of a test.
pub(crate) struct Raw {
    tls: TlsStream<TcpStream>,
    /// What has been read and not been taken yet.
    pending: Vec<u8>,
}

// === impl Raw ===

impl Raw {
    /// Over this connection.
    pub(crate) fn new(tls: TlsStream<TcpStream>) -> Self {
        Self { tls, pending: Vec::new() }
    }

    /// Sends bytes; that the server has closed meanwhile shows when reading.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let write = async {
            self.tls.write_all(bytes.as_ref()).await?;
            self.tls.flush().await
        };
        let _ = within("room for what a test sends", write).await;
    }

    /// Reads up to and including `end`; panics when the server closes first.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|bytes| bytes == end.as_bytes()) {
                let taken: Vec<u8> = self.pending.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let more = within(end, self.read()).await;
            assert!(more > 0, "closed before {end:?}, after {:?}", String::from_utf8_lossy(&self.pending));
        }
    }

    /// As many bytes as asked for; panics when the server closes first.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.pending.len() < length {
            let more = within("the bytes to come", self.read()).await;
            assert!(more > 0, "closed after {} of {length} bytes", self.pending.len());
        }
        self.pending.drain(..length).collect()
    }

    /// As many bytes as asked for; none when the server closes first.
    pub(crate) async fn try_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.pending.len() < length {
            if within("the bytes to come", self.read()).await == 0 {
                return None;
            }
        }
        Some(self.pending.drain(..length).collect())
    }

    /// The next answer's head, with its blank line.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Everything until the server closes; panics when it does not.
    pub(crate) async fn read_to_end(&mut self) -> String {
        self.read_to_end_within(DEADLINE).await
    }

    /// Everything until the server closes; panics when it does not by this deadline.
    pub(crate) async fn read_to_end_within(&mut self, deadline: Duration) -> String {
        let (text, closed) = self.read_within(deadline).await;
        assert!(closed, "still open after {deadline:?}, having said {text:?}");
        text
    }

    /// Everything until the server closes or this deadline passes; whether it has closed.
    pub(crate) async fn read_within(&mut self, deadline: Duration) -> (String, bool) {
        let end = async { while self.read().await > 0 {} };
        let closed = tokio::time::timeout(deadline, end).await.is_ok();
        (String::from_utf8_lossy(&self.pending).into_owned(), closed)
    }

    /// Everything until the server ends, and whether it did so in an orderly way (with `close_notify`).
    pub(crate) async fn all_and_how(&mut self) -> (String, bool) {
        let mut buffer = vec![0; 16 * 1024];
        let orderly = loop {
            match within("the end", self.tls.read(&mut buffer)).await {
                Ok(0) => break true,
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
                Err(_) => break false,
            }
        };
        (String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned(), orderly)
    }

    /// Ends the sending side in an orderly way.
    pub(crate) async fn end(&mut self) {
        let _ = within("the end of what a test sends", self.tls.shutdown()).await;
    }

    /// Closes without a word.
    pub(crate) fn abandon(self) {}

    /// Reads what there is; 0 at the end, orderly or not.
    async fn read(&mut self) -> usize {
        let mut buffer = vec![0; 16 * 1024];
        let length = self.tls.read(&mut buffer).await.unwrap_or(0);
        self.pending.extend_from_slice(&buffer[..length]);
        length
    }
}
