//! Backends that cost as little as can be, since they share a core with the load: one thread, prepared answers.
//!
//! Edge-triggered: a read that does not fill the buffer has emptied the socket (epoll(7)), so an exchange is one
//! `recv` and one `writev`.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, bail};
use memchr::memmem;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use crate::{answers, control};

/// What a request's head has at most.
const LONGEST_HEAD: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// Serves on `count` ports until standard input ends.
pub(crate) fn run(count: usize) -> Result<()> {
    let answered = Arc::new(AtomicU64::new(0));
    let mut backends = Backends::bind(count, Arc::clone(&answered))?;
    let ports: Vec<_> = backends.ports()?.iter().map(u16::to_string).collect();
    println!("{{\"ports\": [{}]}}", ports.join(", "));
    control::end_with_input(move || println!("{{\"answered\": {}}}", answered.load(Relaxed)));
    backends.serve()
}

struct Backends {
    poll: Poll,
    listeners: Vec<TcpListener>,
    answers: Vec<Answers>,
    /// The token of a connection is its place here, after the listeners.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    body: Vec<u8>,
    answered: Arc<AtomicU64>,
}

/// Heads of what one backend answers.
struct Answers {
    small: Rc<[u8]>,
    middle: Rc<[u8]>,
    large: Rc<[u8]>,
    uploaded: Rc<[u8]>,
    missing: Rc<[u8]>,
    backend: usize,
}

struct Connection {
    stream: TcpStream,
    backend: usize,
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    /// Bytes of an upload that are still to come.
    upload: usize,
    answers: VecDeque<Answer>,
}

/// What is left to send.
struct Answer {
    head: Rc<[u8]>,
    body: usize,
    sent: usize,
}

// === impl Backends ===

impl Backends {
    fn bind(count: usize, answered: Arc<AtomicU64>) -> Result<Self> {
        let poll = Poll::new()?;
        let mut listeners = Vec::with_capacity(count);
        for number in 0..count {
            let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            poll.registry().register(&mut listener, Token(number), Interest::READABLE)?;
            listeners.push(listener);
        }
        let answers = (0..count).map(Answers::new).collect();
        let body = (b'a'..=b'z').cycle().take(MIB).collect();
        Ok(Self { poll, listeners, answers, connections: Vec::new(), free: Vec::new(), body, answered })
    }

    fn ports(&self) -> io::Result<Vec<u16>> {
        self.listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
    }

    fn serve(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error).context("epoll");
                }
                _ => {}
            }
            for event in &events {
                let token = event.token().0;
                if token < self.listeners.len() {
                    self.accept(token)?;
                    continue;
                }
                let place = token - self.listeners.len();
                let Some(connection) = self.connections[place].as_mut() else { continue };
                let ended = event.is_read_closed();
                let backend = &self.answers[connection.backend];
                match connection.go_on(backend, &self.body, &mut buffer, ended, &self.answered) {
                    Ok(true) => {}
                    Ok(false) => self.close(place),
                    Err(error) => {
                        // A load that is over resets what is under way.
                        if error.downcast_ref::<io::Error>().is_none() {
                            eprintln!("backend: {error:#}");
                        }
                        self.close(place);
                    }
                }
            }
        }
    }

    fn accept(&mut self, backend: usize) -> Result<()> {
        loop {
            let mut stream = match self.listeners[backend].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = Token(self.listeners.len() + place);
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.connections[place] =
                Some(Connection { stream, backend, head: Vec::new(), upload: 0, answers: VecDeque::new() });
        }
    }

    fn close(&mut self, place: usize) {
        self.connections[place] = None;
        self.free.push(place);
    }
}

// === impl Answers ===

impl Answers {
    fn new(backend: usize) -> Self {
        let head = |status: &str, length: usize| {
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nX-Backend: {backend}\r\n\r\n"
            )
            .into_bytes()
            .into()
        };
        Self {
            small: head("200 OK", 1024),
            middle: head("200 OK", 64 * 1024),
            large: head("200 OK", MIB),
            uploaded: head("200 OK", 2),
            missing: head("404 Not Found", 0),
            backend,
        }
    }

    /// The answer to a head, and how much of an upload follows it.
    fn to(&self, head: &[u8]) -> Result<(Answer, usize)> {
        let (head, body, upload) = if head.starts_with(b"GET /1k ") {
            (Rc::clone(&self.small), 1024, 0)
        } else if head.starts_with(b"GET /64k ") {
            (Rc::clone(&self.middle), 64 * 1024, 0)
        } else if head.starts_with(b"GET /1m ") {
            (Rc::clone(&self.large), MIB, 0)
        } else if head.starts_with(b"POST /up ") {
            let Some(upload) = answers::field(head, b"content-length") else {
                bail!("an upload without a length")
            };
            (Rc::clone(&self.uploaded), 2, upload)
        } else if let Some(id) = head.strip_prefix(b"GET /login?id=") {
            let id = id.split(|byte| *byte == b' ').next().unwrap_or_default();
            (self.login(id), 2, 0)
        } else {
            (Rc::clone(&self.missing), 0, 0)
        };
        Ok((Answer { head, body, sent: 0 }, upload))
    }

    fn login(&self, id: &[u8]) -> Rc<[u8]> {
        let id = String::from_utf8_lossy(id);
        let backend = self.backend;
        format!(
            "HTTP/1.1 200 OK\r\nSet-Cookie: session={id}; Path=/; HttpOnly\r\nContent-Length: 2\r\nX-Backend: {backend}\r\n\r\n"
        )
        .into_bytes()
        .into()
    }
}

// === impl Connection ===

impl Connection {
    /// Reads and writes what can be; whether the connection goes on.
    fn go_on(
        &mut self,
        answers: &Answers,
        body: &[u8],
        buffer: &mut [u8],
        ended: bool,
        answered: &AtomicU64,
    ) -> Result<bool> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            self.take(&buffer[..read], answers, answered)?;
            if read < buffer.len() && !ended {
                break;
            }
        }
        self.send(body)?;
        Ok(true)
    }

    fn take(&mut self, mut read: &[u8], answers: &Answers, answered: &AtomicU64) -> Result<()> {
        loop {
            let upload = self.upload.min(read.len());
            self.upload -= upload;
            read = &read[upload..];
            if upload > 0 && self.upload == 0 {
                answered.fetch_add(1, Relaxed);
            }
            if read.is_empty() {
                return Ok(());
            }
            let (answer, upload) = if self.head.is_empty()
                && let Some(end) = memmem::find(read, b"\r\n\r\n")
            {
                let answer = answers.to(&read[..end])?;
                read = &read[end + 4..];
                answer
            } else {
                let before = self.head.len();
                self.head.extend_from_slice(read);
                let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else {
                    if self.head.len() > LONGEST_HEAD {
                        bail!("a head without an end");
                    }
                    return Ok(());
                };
                let answer = answers.to(&self.head[..end])?;
                read = &read[end + 4 - before..];
                self.head.clear();
                answer
            };
            self.upload = upload;
            self.answers.push_back(answer);
            if upload == 0 {
                answered.fetch_add(1, Relaxed);
            }
        }
    }

    /// Sends answers as far as the socket takes them; the last one not before its upload is over.
    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        while self.answers.len() > usize::from(self.upload > 0)
            && let Some(answer) = self.answers.front_mut()
        {
            let head = answer.head.get(answer.sent..).unwrap_or_default();
            let rest = &body[answer.sent.saturating_sub(answer.head.len())..answer.body];
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(rest)]) {
                Ok(sent) => answer.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if answer.sent == answer.head.len() + answer.body {
                self.answers.pop_front();
            }
        }
        Ok(())
    }
}
