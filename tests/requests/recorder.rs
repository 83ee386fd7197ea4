//! A backend that records what arrives, and takes nothing but the narrowest reading of RFC 9112: what it finds
//! fault with, no proxy should ever send.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};

use crate::support::port::Port;

/// A backend that answers every whole request by 200 and `ok`.
pub(crate) struct Recorder {
    port: Port,
    record: Record,
    accepting: JoinHandle<()>,
}

/// What arrived; an entry is completed while its body comes.
type Record = Arc<Mutex<Vec<Arc<Mutex<Arrived>>>>>;

/// One request as it arrived.
#[derive(Clone, Default)]
pub(crate) struct Arrived {
    /// Method and target.
    pub(crate) line: String,
    /// Names, in lower case, and values.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Its end has been seen.
    pub(crate) whole: bool,
    /// What is not canonical about it.
    pub(crate) fault: Option<String>,
}

/// How long a body is.
enum Length {
    Exact(usize),
    Chunked,
}

/// What has been read of a connection and not been taken yet.
struct Incoming {
    socket: TcpStream,
    pending: Vec<u8>,
}

/// Fields that are wrong in trailers, among others.
const FORBIDDEN: [&str; 7] =
    ["content-length", "transfer-encoding", "host", "connection", "cookie", "authorization", "content-type"];

// === impl Recorder ===

impl Recorder {
    pub(crate) fn start() -> Self {
        let port = Port::reserve();
        let listener = port.listen();
        let record = Record::default();
        let recording = Arc::clone(&record);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(Incoming { socket, pending: Vec::new() }, Arc::clone(&recording)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, record, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Everything since the last call.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        let taken = std::mem::take(&mut *self.record.lock().expect("no panic under it"));
        taken.iter().map(|arrived| arrived.lock().expect("no panic under it").clone()).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

// === impl Arrived ===

impl Arrived {
    /// The values of a field, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_slice()).collect()
    }

    /// The request of this head, and how long its body is.
    fn read(head: &[u8]) -> Result<(Self, Length), String> {
        let mut lines = Vec::new();
        for line in split(head, b"\r\n") {
            if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                return Err(format!("a control in {:?}", String::from_utf8_lossy(line)));
            }
            lines.push(line);
        }
        let (first, fields) = lines.split_first().ok_or("an empty head")?;
        let first = std::str::from_utf8(first).map_err(|_| "a request line that is not ASCII")?;
        let [method, target, "HTTP/1.1"] = first.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("not a request line: {first:?}"));
        };
        if !is_token(method.as_bytes()) || !(target.starts_with('/') || target == "*") {
            return Err(format!("method or target: {first:?}"));
        }
        let mut arrived = Self { line: format!("{method} {target}"), ..Self::default() };
        for field in fields {
            let whole = || format!("not a field: {:?}", String::from_utf8_lossy(field));
            let colon = field.iter().position(|byte| *byte == b':').ok_or_else(whole)?;
            let (name, value) = (&field[..colon], &field[colon + 1..]);
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let spaced = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
            if !is_token(name) || spaced(value.first()) || spaced(value.last()) {
                return Err(whole());
            }
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            arrived.fields.push((name, value.to_vec()));
        }
        let length = arrived.length()?;
        Ok((arrived, length))
    }

    fn length(&self) -> Result<Length, String> {
        let hosts = self.values("host");
        if hosts.len() != 1 || hosts[0].is_empty() {
            return Err(format!("{} Host fields: {hosts:?}", hosts.len()));
        }
        for (name, _) in &self.fields {
            let plain = name.replace('_', "-");
            if plain != *name && ["content-length", "transfer-encoding"].contains(&&*plain) {
                return Err(format!("{name}, which some take for {plain}"));
            }
        }
        match (&self.values("content-length")[..], &self.values("transfer-encoding")[..]) {
            ([], []) => Ok(Length::Exact(0)),
            ([length], []) => {
                let text = std::str::from_utf8(length).unwrap_or_default();
                let number = text.parse::<usize>().map_err(|_| format!("a length of {text:?}"))?;
                if number.to_string() != text {
                    return Err(format!("a length of {text:?}"));
                }
                Ok(Length::Exact(number))
            }
            ([], [b"chunked"]) => Ok(Length::Chunked),
            (lengths, codings) => Err(format!("lengths {lengths:?}, codings {codings:?}")),
        }
    }
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        for (name, value) in &self.fields {
            write!(f, "\\r\\n{name}: {}", value.escape_ascii())?;
        }
        write!(f, "\\r\\n\\r\\n{}", self.body.escape_ascii())?;
        f.write_str(if self.whole { "" } else { " (not whole)" })
    }
}

// === impl Incoming ===

impl Incoming {
    /// Up to and without `end`; none when the proxy closes first.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|bytes| bytes == end) {
                let taken: Vec<u8> = self.pending.drain(..at + end.len()).collect();
                return Some(taken[..at].to_vec());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.pending.len() < length {
            self.more().await?;
        }
        Some(self.pending.drain(..length).collect())
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        let length = self.socket.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        self.pending.extend_from_slice(&buffer[..length]);
        Some(())
    }

    /// The body; none when it breaks off.
    async fn body(&mut self, length: Length) -> Option<Result<Vec<u8>, String>> {
        match length {
            Length::Exact(length) => self.exactly(length).await.map(Ok),
            Length::Chunked => self.chunks().await,
        }
    }

    async fn chunks(&mut self) -> Option<Result<Vec<u8>, String>> {
        let mut body = Vec::new();
        loop {
            let size = self.until(b"\r\n").await?;
            let digits = std::str::from_utf8(&size).unwrap_or_default();
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let Some(size) = usize::from_str_radix(digits, 16).ok().filter(|_| plain) else {
                return Some(Err(format!("a chunk size of {:?}", String::from_utf8_lossy(&size))));
            };
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await?);
            if self.exactly(2).await? != b"\r\n" {
                return Some(Err("a chunk without its end".to_owned()));
            }
        }
        loop {
            let trailer = self.until(b"\r\n").await?;
            if trailer.is_empty() {
                return Some(Ok(body));
            }
            let name = trailer.split(|byte| *byte == b':').next().unwrap_or_default();
            // RFC 9110 §6.5.1: some take these for fields of the head.
            let forbidden = FORBIDDEN.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()));
            if forbidden
                || !is_token(name)
                || trailer.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
            {
                return Some(Err(format!("a trailer of {:?}", String::from_utf8_lossy(&trailer))));
            }
        }
    }
}

async fn serve(mut incoming: Incoming, record: Record) {
    let add = |arrived: Arrived| {
        let entry = Arc::new(Mutex::new(arrived));
        record.lock().expect("no panic under it").push(Arc::clone(&entry));
        entry
    };
    let odd = |fault: String| drop(add(Arrived { fault: Some(fault), ..Arrived::default() }));
    loop {
        let Some(head) = incoming.until(b"\r\n\r\n").await else {
            if !incoming.pending.is_empty() {
                odd(format!("a broken head: {:?}", String::from_utf8_lossy(&incoming.pending)));
            }
            return;
        };
        let (arrived, length) = match Arrived::read(&head) {
            Ok(read) => read,
            Err(fault) => return odd(format!("{fault}, in {:?}", String::from_utf8_lossy(&head))),
        };
        let text = if arrived.line.starts_with("HEAD ") { "" } else { "ok" };
        // Before its body, so that what breaks off is known as well.
        let entry = add(arrived);
        match incoming.body(length).await {
            None => return,
            Some(Err(fault)) => {
                entry.lock().expect("no panic under it").fault = Some(fault);
                return;
            }
            Some(Ok(body)) => {
                let mut entry = entry.lock().expect("no panic under it");
                entry.body = body;
                entry.whole = true;
            }
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{text}");
        if incoming.socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn split<'a>(bytes: &'a [u8], separator: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        match bytes.windows(separator.len()).position(|window| window == separator) {
            Some(at) => {
                rest = Some(&bytes[at + separator.len()..]);
                Some(&bytes[..at])
            }
            None => rest.take(),
        }
    })
}
