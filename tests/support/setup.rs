//! The configuration of a test, from its parts.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    backend::Backend,
    dns::Dns,
    pki::Leaf,
    process::{Ended, Homing, Process},
    raw_backend::RawBackend,
};

/// A configuration in the making: one pool `app` whose sessions have the cookie `session`, TLS for
/// `localhost`, every listener on a port of its own, and whatever the test adds.
#[must_use]
pub(crate) struct Setup {
    top: String,
    pool: String,
    issue: Option<String>,
    affinity: String,
    pool_sections: String,
    sections: String,
    members: String,
    certificates: Vec<Leaf>,
    redirects: bool,
    listen: String,
    proxy_protocol: Option<String>,
    key: &'static str,
    session_timeout: &'static str,
    workers: usize,
    https: SocketAddr,
    access_log: String,
    files: Option<usize>,
    takeover: bool,
    activated: Option<TcpListener>,
    beside: Vec<(String, String)>,
}

/// A backend as the configuration names it.
pub(crate) struct Member {
    name: String,
    address: SocketAddr,
}

// === impl Setup ===

impl Setup {
    /// With these backends.
    pub(crate) fn new<M: Into<Member>>(members: impl IntoIterator<Item = M>) -> Self {
        let setup = Self {
            top: String::new(),
            pool: String::new(),
            issue: None,
            affinity: String::new(),
            pool_sections: String::new(),
            sections: String::new(),
            members: String::new(),
            certificates: Vec::new(),
            redirects: false,
            listen: String::new(),
            proxy_protocol: None,
            key: "cookie:session",
            session_timeout: "30m",
            workers: 2,
            https: SocketAddr::from(([127, 0, 0, 1], 0)),
            access_log: "true".to_owned(),
            files: None,
            takeover: false,
            activated: None,
            beside: Vec::new(),
        };
        members.into_iter().fold(setup, Self::backend)
    }

    /// And with this one.
    pub(crate) fn backend(mut self, member: impl Into<Member>) -> Self {
        let Member { name, address } = member.into();
        let lines = format!("[[pool.backend]]\nname = \"{name}\"\nurl = \"http://{address}\"\n\n");
        self.members.push_str(&lines);
        self
    }

    /// And with one of this name at this URL, and more lines about it.
    pub(crate) fn backend_at(mut self, name: &str, url: &str, lines: &str) -> Self {
        let lines = format!("[[pool.backend]]\nname = \"{name}\"\nurl = \"{url}\"\n{lines}\n\n");
        self.members.push_str(&lines);
        self
    }

    /// And with those behind this name, as this DNS server knows it: their names begin with `app-`.
    pub(crate) fn discovering(mut self, dns: &Dns, host: &str, port: u16) -> Self {
        let url = format!("url = \"http://{host}:{port}\"");
        let lines = format!("[[pool.backend]]\nname = \"app\"\n{url}\ndiscover = \"dns\"\n\n");
        self.members.push_str(&lines);
        self.top(&format!("resolver = \"{}\"", dns.address))
    }

    /// Adds top-level lines.
    pub(crate) fn top(mut self, lines: &str) -> Self {
        push(&mut self.top, lines);
        self
    }

    /// Its access log in this file instead of on standard output.
    pub(crate) fn access_log(mut self, file: &Path) -> Self {
        self.access_log = format!("{:?}", file.display().to_string());
        self
    }

    /// With no more file descriptors than these.
    pub(crate) fn files(mut self, files: usize) -> Self {
        self.files = Some(files);
        self
    }

    /// Gets this socket as systemd passes it, and has its front door there.
    pub(crate) fn activated(mut self, socket: TcpListener) -> Self {
        self.https = socket.local_addr().expect("a bound socket");
        self.activated = Some(socket);
        self
    }

    /// Takes over from the program that runs with the same `[state] handover`.
    pub(crate) fn takeover(mut self) -> Self {
        self.takeover = true;
        self
    }

    /// Adds tables after the pool: `[timeouts]`, routes, other pools.
    pub(crate) fn section(mut self, text: &str) -> Self {
        push(&mut self.sections, text);
        self
    }

    /// Adds lines to the pool.
    pub(crate) fn pool(mut self, lines: &str) -> Self {
        push(&mut self.pool, lines);
        self
    }

    /// Adds lines to the pool's affinity.
    pub(crate) fn affinity(mut self, lines: &str) -> Self {
        push(&mut self.affinity, lines);
        self
    }

    /// Has a cookie of the proxy's own, with these keys, instead of the application's.
    pub(crate) fn issue(mut self, keys: &str) -> Self {
        self.issue = Some(format!("issue = {{ {keys} }}"));
        self
    }

    /// Adds tables of the pool: `[pool.health]`, `[pool.timeouts]`, `[pool.passive]`.
    pub(crate) fn pool_section(mut self, text: &str) -> Self {
        push(&mut self.pool_sections, text);
        self
    }

    /// Checks `/healthz` of every backend so often that a test notices a change soon.
    pub(crate) fn checked(self) -> Self {
        let check = "interval = \"50ms\"\ntimeout = \"1s\"\nrise = 1\nfall = 2";
        self.pool_section(&format!("[pool.health]\npath = \"/healthz\"\n{check}"))
    }

    /// Another key than the cookie `session`: one, or a list in brackets, or none with "".
    pub(crate) fn key(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    /// Another session timeout than half an hour.
    pub(crate) fn session_timeout(mut self, timeout: &'static str) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// With one worker, hence one pool of backend connections.
    pub(crate) fn one_worker(mut self) -> Self {
        self.workers = 1;
        self
    }

    /// With as many workers.
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// With its front door at this address.
    pub(crate) fn https(mut self, address: SocketAddr) -> Self {
        self.https = address;
        self
    }

    /// Has this file beside its configuration.
    pub(crate) fn file(mut self, name: &str, content: &str) -> Self {
        self.beside.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Serves this certificate; the first one is the default one.
    pub(crate) fn certificate(mut self, leaf: &Leaf) -> Self {
        self.certificates.push(leaf.clone());
        self
    }

    /// Listens for plain HTTP as well.
    pub(crate) fn redirecting(mut self) -> Self {
        self.redirects = true;
        self
    }

    /// Adds lines to `[listen]`.
    pub(crate) fn listen(mut self, lines: &str) -> Self {
        push(&mut self.listen, lines);
        self
    }

    /// Expects PROXY headers from these networks.
    pub(crate) fn proxy_protocol(mut self, networks: &str) -> Self {
        self.proxy_protocol = Some(networks.to_owned());
        self
    }

    /// Writes it all down and starts the program, until it is ready.
    pub(crate) async fn start(mut self) -> Homing {
        let (redirects, files, takeover) = (self.redirects, self.files, self.takeover);
        let activated = self.activated.take();
        let (directory, file) = self.write();
        let mut arguments = vec!["serve".as_ref(), "--config".as_ref(), file.as_os_str()];
        if takeover {
            arguments.push("--takeover".as_ref());
        }
        let process = match (files, activated) {
            (Some(files), _) => Process::spawn_with_files(files, arguments),
            (None, Some(socket)) => Process::spawn_activated(socket, arguments),
            (None, None) => Process::spawn(arguments),
        };
        Homing::ready(process, redirects, directory).await
    }

    /// Writes it all down and runs the program with it, to the end that it should come to by itself.
    pub(crate) async fn run_to_end(self, subcommand: &str) -> Ended {
        let takeover = self.takeover.then_some("--takeover".as_ref());
        let (_directory, file) = self.write();
        let arguments = [subcommand.as_ref(), "--config".as_ref(), file.as_os_str()];
        Process::run(arguments.into_iter().chain(takeover)).await
    }

    /// Writes it all down: the directory that holds it, and the configuration file in it.
    pub(crate) fn write(mut self) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if self.certificates.is_empty() {
            self.certificates.push(Leaf::localhost().clone());
        }
        for (index, leaf) in self.certificates.iter().enumerate() {
            fs::write(directory.path().join(format!("cert-{index}.pem")), &leaf.cert).expect("a file");
            fs::write(directory.path().join(format!("key-{index}.pem")), &leaf.key).expect("a file");
        }
        for (name, content) in &self.beside {
            fs::write(directory.path().join(name), content).expect("a file");
        }
        let file = directory.path().join("homing.toml");
        fs::write(&file, self.text(&directory)).expect("a file");
        (directory, file)
    }

    fn text(&self, directory: &TempDir) -> String {
        let mut text = format!("workers = {}\naccess_log = {}\n{}", self.workers, self.access_log, self.top);
        let listen = format!("https = \"{}\"\nadmin = \"127.0.0.1:0\"", self.https);
        writeln!(text, "\n[listen]\n{listen}\n{}", self.listen).expect("a String");
        if self.redirects {
            text.push_str("http = \"127.0.0.1:0\"\n");
        }
        if let Some(networks) = &self.proxy_protocol {
            writeln!(text, "proxy_protocol = {networks}").expect("a String");
        }
        for index in 0..self.certificates.len() {
            let base = directory.path().display();
            let pair = format!("cert = \"{base}/cert-{index}.pem\"\nkey = \"{base}/key-{index}.pem\"");
            writeln!(text, "\n[[certificate]]\n{pair}").expect("a String");
        }
        let Self { pool, affinity, pool_sections, members, sections, key, issue, session_timeout, .. } = self;
        writeln!(text, "\n[[pool]]\nname = \"app\"\n{pool}").expect("a String");
        let key = issue.clone().unwrap_or_else(|| match *key {
            "" => String::new(),
            list if list.starts_with('[') => format!("key = {list}"),
            key => format!("key = \"{key}\""),
        });
        let always = format!("{key}\nsession_timeout = \"{session_timeout}\"");
        writeln!(text, "[pool.affinity]\n{always}\n{affinity}").expect("a String");
        writeln!(text, "{pool_sections}\n{members}{sections}").expect("a String");
        text
    }
}

// === impl Member ===

impl From<&Backend> for Member {
    fn from(backend: &Backend) -> Self {
        Self { name: backend.name.clone(), address: backend.address() }
    }
}

impl From<&RawBackend> for Member {
    fn from(backend: &RawBackend) -> Self {
        Self { name: backend.name.clone(), address: backend.address() }
    }
}

impl From<(&str, SocketAddr)> for Member {
    fn from((name, address): (&str, SocketAddr)) -> Self {
        Self { name: name.to_owned(), address }
    }
}

fn push(text: &mut String, lines: &str) {
    text.push_str(lines);
    text.push('\n');
}
