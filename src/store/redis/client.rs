//! Connections: one server, the master that sentinels know, or a cluster.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike as _, MultiplexedConnection, PubSub},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use crate::config::{Node, Password, RedisUrl, Topology};

/// Where Redis is and how to log in there.
#[derive(Clone, Debug)]
pub(super) struct Server {
    url: RedisUrl,
    password: Option<Password>,
    /// Certificates of those who may vouch for it, PEM; the public ones when none.
    ca: Option<Arc<[u8]>>,
}

/// A connection for commands; clones share it, and may be used on any thread.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Longest wait for a new connection, greeting included.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait of the client library itself, when nobody gives up earlier.
const ANSWER: Duration = Duration::from_secs(5);
/// Commands that wait to be written to one connection.
const BUFFER: usize = 1024;

// === impl Server ===

impl Server {
    pub(super) fn new(url: RedisUrl, password: Option<Password>, ca: Option<Vec<u8>>) -> Self {
        let password = password.or_else(|| url.password.clone());
        Self { url, password, ca: ca.map(Arc::from) }
    }

    pub(super) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// A connection for commands and one that hears announcements, which is not subscribed to anything yet.
    /// Asks the sentinels anew each time.
    pub(super) async fn connect(&self) -> RedisResult<(Connection, PubSub)> {
        let connect = async {
            match &self.url.topology {
                Topology::Single => self.connect_client(&self.client(&self.url.nodes[0])?).await,
                Topology::Sentinel { master } => self.connect_client(&self.master(master).await?).await,
                Topology::Cluster => self.connect_cluster().await,
            }
        };
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(result) => result,
            Err(_) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        }
    }

    async fn connect_client(&self, client: &Client) -> RedisResult<(Connection, PubSub)> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_pipeline_buffer_size(BUFFER);
        let heard = client.get_async_pubsub().await?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((Connection::Single(connection), heard))
    }

    /// Announcements go to all nodes, so any one of them will do to hear them.
    async fn connect_cluster(&self) -> RedisResult<(Connection, PubSub)> {
        let mut heard = Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::NotConnected)));
        for node in &self.url.nodes {
            heard = self.client(node)?.get_async_pubsub().await;
            if heard.is_ok() {
                break;
            }
        }
        let heard = heard?;
        let connection = self.cluster()?.get_async_connection().await?;
        Ok((Connection::Cluster(connection), heard))
    }

    fn client(&self, node: &Node) -> RedisResult<Client> {
        let info = self.info(node)?;
        match self.certificates() {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        }
    }

    fn cluster(&self) -> RedisResult<ClusterClient> {
        let nodes = self.url.nodes.iter().map(|node| self.info(node)).collect::<RedisResult<Vec<_>>>()?;
        let mut builder =
            ClusterClientBuilder::new(nodes).connection_timeout(CONNECT).response_timeout(ANSWER).retries(2);
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        builder.build()
    }

    async fn master(&self, name: &str) -> RedisResult<Client> {
        let nodes: Vec<_> = self.url.nodes.iter().map(|node| self.address(node)).collect();
        let mut builder = SentinelClientBuilder::new(nodes, name, SentinelServerType::Master)?
            .set_client_to_redis_db(self.url.database.unwrap_or_default().into());
        if let Some(user) = &self.url.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password.reveal());
        }
        if self.url.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        builder.build()?.async_get_client().await
    }

    fn info(&self, node: &Node) -> RedisResult<ConnectionInfo> {
        let mut login = RedisConnectionInfo::default().set_db(self.url.database.unwrap_or_default().into());
        if let Some(user) = &self.url.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.reveal());
        }
        Ok(self.address(node).into_connection_info()?.set_redis_settings(login))
    }

    fn address(&self, node: &Node) -> ConnectionAddr {
        let host = node.host.to_string();
        if self.url.tls {
            ConnectionAddr::TcpTls { host, port: node.port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, node.port)
        }
    }

    /// None for the public authorities, and without TLS.
    fn certificates(&self) -> Option<TlsCertificates> {
        let ca = self.ca.as_ref().filter(|_| self.url.tls)?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) })
    }
}

// === impl Connection ===

impl Connection {
    /// Sends a command and waits for its answer.
    pub(super) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
        .and_then(Value::extract_error)
    }
}
