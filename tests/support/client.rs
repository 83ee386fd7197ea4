//! A client of the front door: real TLS, HTTP/1.1 or HTTP/2 as the test says.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    ext,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        version::{TLS12, TLS13},
    },
};
use tokio_tungstenite::{WebSocketStream, tungstenite};

use super::{
    BoxError,
    call::{Call, Via},
    flow::{Body, full},
    pki::{Authority, Leaf},
    process::Homing,
    raw::Raw,
    within,
};

/// What a client offers in ALPN, and then speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A client; clones share their TLS sessions.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    host: String,
    protocol: Protocol,
    tls: Arc<ClientConfig>,
    shows: Option<Leaf>,
    /// What is sent before the handshake, and whether byte by byte.
    preface: (Vec<u8>, bool),
}

/// One connection that is kept.
pub(crate) struct Connection {
    sender: Sender,
    authority: String,
    /// What the handshake agreed on.
    pub(crate) handshake: Handshake,
}

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    pub(crate) version: ProtocolVersion,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) resumed: bool,
    /// The server's leaf, in DER.
    pub(crate) leaf: CertificateDer<'static>,
}

enum Sender {
    Http1(Mutex<http1::SendRequest<Body>>),
    Http2(http2::SendRequest<Body>),
}

/// Both protocols, for tests that hold for each.
pub(crate) const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

// === impl Client ===

impl Client {
    /// Speaks HTTP/1.1 to this program.
    pub(crate) fn h1(homing: &Homing) -> Self {
        Self::new(homing, Protocol::Http1)
    }

    /// Speaks HTTP/2 to this program.
    pub(crate) fn h2(homing: &Homing) -> Self {
        Self::new(homing, Protocol::Http2)
    }

    /// Speaks this protocol to this program.
    pub(crate) fn new(homing: &Homing, protocol: Protocol) -> Self {
        Self::at(homing.https, protocol)
    }

    /// Speaks this protocol to whoever is at this address.
    pub(crate) fn at(address: SocketAddr, protocol: Protocol) -> Self {
        let tls = config(&[&TLS13, &TLS12], &[protocol.alpn()], None);
        Self {
            address,
            host: "localhost".to_owned(),
            protocol,
            tls,
            shows: None,
            preface: Default::default(),
        }
    }

    /// Names this host in SNI and in its requests.
    #[must_use]
    pub(crate) fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Offers only this version of TLS.
    #[must_use]
    pub(crate) fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.tls = config(&[version], &[self.protocol.alpn()], self.shows.as_ref());
        self
    }

    /// Offers these protocols in ALPN, whatever it speaks then.
    #[must_use]
    pub(crate) fn alpn(mut self, protocols: &[&[u8]]) -> Self {
        self.tls = config(&[&TLS13, &TLS12], protocols, self.shows.as_ref());
        self
    }

    /// Shows this certificate when it is asked for one.
    #[must_use]
    pub(crate) fn showing(mut self, leaf: &Leaf) -> Self {
        self.shows = Some(leaf.clone());
        self.tls = config(&[&TLS13, &TLS12], &[self.protocol.alpn()], self.shows.as_ref());
        self
    }

    /// Sends these bytes before the handshake.
    #[must_use]
    pub(crate) fn preface(mut self, bytes: &[u8]) -> Self {
        self.preface.0 = bytes.to_vec();
        self
    }

    /// Sends them byte by byte.
    #[must_use]
    pub(crate) fn dripping(mut self) -> Self {
        self.preface.1 = true;
        self
    }

    /// Names no host in SNI.
    #[must_use]
    pub(crate) fn nameless(mut self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.enable_sni = false;
        self.tls = Arc::new(tls);
        self
    }

    /// A GET on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.request(Method::GET, path)
    }

    /// A POST on a connection of its own.
    pub(crate) fn post(&self, path: &str) -> Call<'_> {
        self.request(Method::POST, path)
    }

    /// A request on a connection of its own.
    pub(crate) fn request(&self, method: Method, path: &str) -> Call<'_> {
        Call::new(Via::Fresh(self), method, path)
    }

    /// A connection to keep.
    pub(crate) async fn connect(&self) -> Connection {
        within("a connection", self.try_connect()).await.expect("a connection")
    }

    /// A connection to keep, or why there is none.
    pub(crate) async fn try_connect(&self) -> Result<Connection, BoxError> {
        let tls = self.handshake().await?;
        let handshake = Handshake::of(&tls);
        let io = TokioIo::new(tls);
        let sender = match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection.with_upgrades());
                Sender::Http1(Mutex::new(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, authority: self.authority(), handshake })
    }

    /// A connection on which the test writes and reads bytes.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::new(within("a handshake", self.handshake()).await.expect("a handshake"))
    }

    /// Sends these bytes on a connection of their own; everything that came back until the close.
    pub(crate) async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.raw().await;
        raw.write(bytes).await;
        raw.read_to_end().await
    }

    /// A WebSocket, with this Cookie field unless empty.
    pub(crate) async fn websocket(&self, path: &str, cookie: &str) -> WebSocketStream<TlsStream<TcpStream>> {
        use tungstenite::client::IntoClientRequest;

        let tls = within("a handshake", self.handshake()).await.expect("a handshake");
        let url = format!("wss://{}{path}", self.authority());
        let mut request = url.into_client_request().expect("a valid address");
        if !cookie.is_empty() {
            request.headers_mut().insert(http::header::COOKIE, cookie.parse().expect("a valid field"));
        }
        let opening = tokio_tungstenite::client_async(request, tls);
        within("a WebSocket", opening).await.expect("a WebSocket").0
    }

    /// Host and port as requests name them.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.address.port())
    }

    async fn handshake(&self) -> Result<TlsStream<TcpStream>, BoxError> {
        let mut tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let (preface, drips) = &self.preface;
        for piece in preface.chunks(if *drips { 1 } else { preface.len().max(1) }) {
            tcp.write_all(piece).await?;
            // So that the other side has a chance to see it alone.
            tokio::task::yield_now().await;
        }
        let name = ServerName::try_from(self.host.clone())?;
        Ok(TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?)
    }
}

// === impl Connection ===

impl Connection {
    /// A GET on this connection.
    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.request(Method::GET, path)
    }

    /// A request on this connection.
    pub(crate) fn request(&self, method: Method, path: &str) -> Call<'_> {
        Call::new(Via::Kept(self), method, path)
    }

    /// Asks for a stream that speaks this protocol (RFC 8441), over HTTP/2: the answer, and the stream if it is one.
    pub(crate) async fn extended(
        &self,
        protocol: &'static str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (Response<Incoming>, Option<TokioIo<Upgraded>>) {
        // By then the server has said that it allows this.
        self.get("/").send().await;
        let uri = format!("https://{}{path}", self.authority);
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri)
            .extension(ext::Protocol::from_static(protocol));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(full("")).expect("a valid request");
        let mut response = within("an answer", self.send(request)).await.expect("an answer");
        let stream = match response.status().is_success() {
            true => Some(TokioIo::new(hyper::upgrade::on(&mut response).await.expect("a stream"))),
            false => None,
        };
        (response, stream)
    }

    /// Host and port as requests name them.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        }
    }

    /// Sends a complete request; the answer's head, with its body to come.
    pub(crate) async fn send(&self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &self.sender {
            Sender::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Whether the server has closed it.
    pub(crate) async fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.lock().await.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

// === impl Handshake ===

impl Handshake {
    fn of(tls: &TlsStream<TcpStream>) -> Self {
        let connection = tls.get_ref().1;
        Self {
            version: connection.protocol_version().expect("the handshake is over"),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            leaf: connection.peer_certificates().expect("a server has one")[0].clone().into_owned(),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

fn config(
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
    shows: Option<&Leaf>,
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions of the provider")
        .with_root_certificates(Authority::get().roots());
    let mut config = match shows {
        None => config.with_no_client_auth(),
        Some(leaf) => {
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
            config.with_client_auth_cert(vec![leaf.der.clone()], key).expect("a key that fits")
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
