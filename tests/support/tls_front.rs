//! TLS in front of a plain backend of a test: what `url = "https://..."` leads to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        HandshakeKind, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
        version::{TLS12, TLS13},
    },
};

use super::{
    pki::{Authority, Leaf},
    port::Port,
};

/// Decrypts, and passes on to a plain backend.
pub(crate) struct TlsFront {
    port: Port,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// A handshake that came about.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    /// The name that was asked for.
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) resumed: bool,
    /// Whether a client certificate was shown.
    pub(crate) certified: bool,
}

struct Shared {
    target: SocketAddr,
    config: Mutex<Arc<ServerConfig>>,
    handshakes: Mutex<Vec<Handshake>>,
}

/// Which versions are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

// === impl TlsFront ===

impl TlsFront {
    /// Shows this certificate and passes on to `target`.
    pub(crate) fn start(target: SocketAddr, leaf: &Leaf) -> Self {
        Self::at(Port::reserve(), target, leaf)
    }

    /// Likewise, on this port.
    pub(crate) fn at(port: Port, target: SocketAddr, leaf: &Leaf) -> Self {
        Self::with(port, target, config(leaf, None, &[Version::Tls13, Version::Tls12]))
    }

    /// Likewise, in one version of TLS.
    pub(crate) fn only(target: SocketAddr, leaf: &Leaf, version: Version) -> Self {
        Self::with(Port::reserve(), target, config(leaf, None, &[version]))
    }

    /// Likewise, for clients with a certificate of this authority alone.
    pub(crate) fn demanding(target: SocketAddr, leaf: &Leaf, of: &Authority, version: Version) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(of.roots(), provider).build();
        let config = config(leaf, Some(verifier.expect("an authority")), &[version]);
        Self::with(Port::reserve(), target, config)
    }

    /// Shows another certificate from now on.
    pub(crate) fn show(&self, leaf: &Leaf) {
        let config = config(leaf, None, &[Version::Tls13, Version::Tls12]);
        *self.shared.config.lock().expect("no panic under it") = config;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.address.port()
    }

    /// Its URL under this host name or address.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port())
    }

    /// The handshakes so far.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.shared.handshakes.lock().expect("no panic under it").clone()
    }

    fn with(port: Port, target: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = port.listen();
        let shared = Arc::new(Shared { target, config: Mutex::new(config), handshakes: Mutex::default() });
        let accepted = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&accepted)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, shared, accepting }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let acceptor = TlsAcceptor::from(Arc::clone(&*shared.config.lock().expect("no panic under it")));
    // A client that refuses us is what some tests are about.
    let Ok(mut near) = acceptor.accept(socket).await else { return };
    let session = near.get_ref().1;
    let handshake = Handshake {
        sni: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        certified: session.peer_certificates().is_some(),
    };
    shared.handshakes.lock().expect("no panic under it").push(handshake);
    if let Ok(mut far) = TcpStream::connect(shared.target).await {
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}

fn config(
    leaf: &Leaf,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    versions: &[Version],
) -> Arc<ServerConfig> {
    let versions: Vec<_> =
        versions.iter().map(|version| if *version == Version::Tls12 { &TLS12 } else { &TLS13 }).collect();
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&versions)
        .expect("both have cipher suites");
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let key = PrivatePkcs8KeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
    let mut config = builder
        .with_single_cert(vec![leaf.der.clone()], PrivateKeyDer::from(key))
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}
