//! A real Redis server of the test's own, which can be stopped, emptied, and made to hang.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection, cmd,
};
use tempfile::TempDir;

use super::{DEADLINE, eventually, pki::Leaf, port::Port};

/// A server that keeps nothing on disk; killed when dropped.
pub(crate) struct RedisServer {
    port: Port,
    tls: bool,
    directory: TempDir,
    /// Its configuration file, which only a Sentinel needs.
    config: Option<PathBuf>,
    arguments: Vec<String>,
    child: Option<Child>,
}

// === impl RedisServer ===

impl RedisServer {
    /// Starts one and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with these options, as on its command line.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let arguments = options.iter().map(|option| (*option).to_owned()).collect();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server =
            Self { port: Port::reserve(), tls: false, directory, config: None, arguments, child: None };
        server.restart().await;
        server
    }

    /// Starts one that speaks TLS only, with this certificate.
    pub(crate) async fn start_tls(leaf: &Leaf) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(file("cert.pem"), &leaf.cert).expect("a file");
        std::fs::write(file("key.pem"), &leaf.key).expect("a file");
        let arguments = ["--tls-cert-file", &file("cert.pem"), "--tls-key-file", &file("key.pem")]
            .into_iter()
            .chain(["--tls-ca-cert-file", &file("cert.pem"), "--tls-auth-clients", "no"])
            .map(str::to_owned)
            .collect();
        let mut server =
            Self { port: Port::reserve(), tls: true, directory, config: None, arguments, child: None };
        server.spawn();
        eventually("the server listens", async || {
            tokio::net::TcpStream::connect(server.port.address).await.is_ok()
        })
        .await;
        server
    }

    /// Starts a Sentinel that watches a master under this name.
    pub(crate) async fn start_sentinel(name: &str, master: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("sentinel.conf");
        let watch = format!("sentinel monitor {name} {} {} 1\n", master.ip(), master.port());
        std::fs::write(&file, watch).expect("a file");
        let arguments = vec!["--sentinel".to_owned()];
        let port = Port::reserve();
        let mut server = Self { port, tls: false, directory, arguments, config: Some(file), child: None };
        server.restart().await;
        server
    }

    /// Where it is, or will be again.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The URL of the server behind this address: its own, or that of a relay to it.
    pub(crate) fn url_at(address: SocketAddr) -> String {
        format!("redis://{address}")
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        if self.tls {
            format!("rediss://localhost:{}", self.address().port())
        } else {
            Self::url_at(self.address())
        }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills it: connections break, and all it held is gone.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, empty, at the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.spawn();
        eventually("redis answers", async || {
            assert!(
                self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))),
                "redis-server has ended: is it installed?"
            );
            match self.query::<String>(&cmd("PING")).await {
                Ok(_) => true,
                // It is there, and does not know us.
                Err(error) => error.code() == Some("NOAUTH"),
            }
        })
        .await;
    }

    /// Stops it in its tracks; connections stay open and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Asks it directly.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connect().await?).await
    }

    /// All keys that match a pattern.
    pub(crate) async fn keys(&self, pattern: &str) -> Vec<String> {
        self.query(cmd("KEYS").arg(pattern)).await.expect("keys")
    }

    /// The values of all string keys that match a pattern.
    pub(crate) async fn values(&self, pattern: &str) -> BTreeMap<String, String> {
        let mut connection = self.connect().await.expect("redis answers");
        let keys: Vec<String> = cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("keys");
        let mut values = BTreeMap::new();
        for key in keys {
            if let Ok(Some(value)) = cmd("GET").arg(&key).query_async::<Option<String>>(&mut connection).await
            {
                values.insert(key, value);
            }
        }
        values
    }

    /// Times that each command was called by clients or scripts so far, by `INFO commandstats`.
    pub(crate) async fn calls(&self) -> BTreeMap<String, u64> {
        let text: String = self.query(cmd("INFO").arg("commandstats")).await.expect("statistics");
        let count = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        text.lines().filter_map(count).collect()
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let client = Client::open(Self::url_at(self.address()))?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn spawn(&mut self) {
        let port = self.address().port().to_string();
        let listen = if self.tls {
            ["--port", "0", "--tls-port", &port]
        } else {
            ["--port", &port, "--tls-port", "0"]
        };
        let mut command = Command::new("redis-server");
        command.args(&self.config).args(listen).args(["--bind", "127.0.0.1"]);
        if self.config.is_none() {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        let child = command
            .args(["--dir", &self.directory.path().display().to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server: see tests/run for the packages that tests need"));
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id();
        let kill = format!("kill -{name} {pid}");
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(sent.success(), "{kill}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
