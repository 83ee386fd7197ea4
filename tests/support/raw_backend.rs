//! A backend that speaks bytes: it answers what a test tells it and records what arrived.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::port::Port;

/// A scripted server of raw bytes.
pub(crate) struct RawBackend {
    /// Its name in the pool.
    pub(crate) name: String,
    port: Port,
    arrived: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

/// One connection of it, in the hands of a script.
pub(crate) struct RawConnection {
    socket: TcpStream,
    /// Which one since the start, from 0.
    pub(crate) index: usize,
    /// What has been read and not been taken yet.
    pending: Vec<u8>,
    arrived: Arc<Mutex<Vec<Vec<u8>>>>,
}

// === impl RawBackend ===

impl RawBackend {
    /// Runs `script` for every connection; the connection closes when the script ends.
    pub(crate) fn start<F, Done>(name: &str, script: F) -> Self
    where
        F: Fn(RawConnection) -> Done + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let port = Port::reserve();
        let listener = port.listen();
        let arrived = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let record = Arc::clone(&arrived);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let index = {
                    let mut record = record.lock().expect("no panic under it");
                    record.push(Vec::new());
                    record.len() - 1
                };
                let arrived = Arc::clone(&record);
                connections.spawn(script(RawConnection { socket, index, pending: Vec::new(), arrived }));
            }
        });
        Self { name: name.to_owned(), port, arrived, accepting }
    }

    /// Answers every request of every connection by these bytes. Requests must have no body.
    pub(crate) fn answering(name: &str, answer: &'static str) -> Self {
        Self::start(name, move |mut connection| async move {
            while connection.head().await.is_some() {
                connection.write(answer).await;
            }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// What arrived, byte for byte, by connection.
    pub(crate) fn arrived(&self) -> Vec<String> {
        let arrived = self.arrived.lock().expect("no panic under it");
        arrived.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// How many times `part` arrived, over all connections.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.arrived().iter().map(|bytes| bytes.matches(part).count()).sum()
    }
}

impl Drop for RawBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

// === impl RawConnection ===

impl RawConnection {
    /// The next request head, with its blank line; `None` when the peer has closed.
    pub(crate) async fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n").await
    }

    /// Reads up to and including `end`; `None` when the peer closes first.
    pub(crate) async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|bytes| bytes == end.as_bytes()) {
                let taken: Vec<u8> = self.pending.drain(..at + end.len()).collect();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            let mut buffer = [0; 16 * 1024];
            let length = self.socket.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            self.pending.extend_from_slice(&buffer[..length]);
            let mut arrived = self.arrived.lock().expect("no panic under it");
            arrived[self.index].extend_from_slice(&buffer[..length]);
        }
    }

    /// Reads so many bytes and throws them away.
    pub(crate) async fn skip(&mut self, mut bytes: usize) {
        let pending = bytes.min(self.pending.len());
        self.pending.drain(..pending);
        bytes -= pending;
        let mut buffer = [0; 16 * 1024];
        while bytes > 0 {
            let room = bytes.min(buffer.len());
            match self.socket.read(&mut buffer[..room]).await {
                Ok(length @ 1..) => bytes -= length,
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Reads a request and opens the WebSocket that it asks for; false, and nothing sent, for any other path.
    pub(crate) async fn opens(&mut self, path: &str) -> bool {
        let Some(head) = self.head().await else { return false };
        if !head.starts_with(&format!("GET {path} ")) {
            return false;
        }
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
        });
        let accept = derive_accept_key(key.expect("a key").as_bytes());
        let fields = format!("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}");
        self.write(&format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n")).await;
        true
    }

    /// Sends `bytes`; whether the peer is still there.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// Says that nothing more will come; reads on.
    pub(crate) async fn finish(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Sends `bytes`; a peer that has gone is no error.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref()).await;
    }

    /// Reads and records until the peer closes.
    pub(crate) async fn read_to_end(&mut self) {
        while self.until("\0 never \0").await.is_some() {}
    }

    /// The other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.socket.peer_addr().expect("a connected socket")
    }

    /// Notes `what` among the bytes that arrived.
    pub(crate) fn mark(&self, what: &str) {
        self.arrived.lock().expect("no panic under it")[self.index].extend_from_slice(what.as_bytes());
    }

    /// Closes by a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
    }
}
