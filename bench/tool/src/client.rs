//! Connections to the proxy: TLS 1.3 with X25519, so that every proxy does the same work, and whatever certificate.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Protocol, answers::Answers};

/// A client: what it offers, and the tickets that it was given.
#[derive(Clone)]
pub(crate) struct Client {
    connector: TlsConnector,
    to: SocketAddr,
    name: ServerName<'static>,
    protocol: Protocol,
}

/// A connection over HTTP/1.1.
pub(crate) struct Connection {
    pub(crate) stream: TlsStream<TcpStream>,
    answers: Answers,
    buffer: Vec<u8>,
}

// === impl Client ===

impl Client {
    /// # Errors
    ///
    /// None but those of TLS libraries.
    pub(crate) fn new(to: SocketAddr, protocol: Protocol, resume: bool) -> Result<Self> {
        let provider =
            CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.resumption = if resume { Resumption::in_memory_sessions(16) } else { Resumption::disabled() };
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        let name = ServerName::try_from("bench.test")?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), to, name, protocol })
    }

    /// # Errors
    ///
    /// When nobody takes the connection, or agrees to the protocol.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.to).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let stream = self.connector.connect(self.name.clone(), tcp).await.context("handshake")?;
        let agreed = stream.get_ref().1.alpn_protocol();
        ensure!(agreed == Some(self.protocol.alpn()), "the proxy agreed to {agreed:?}");
        Ok(stream)
    }

    /// # Errors
    ///
    /// As [`Self::connect`].
    pub(crate) async fn open(&self) -> Result<Connection> {
        let stream = self.connect().await?;
        Ok(Connection { stream, answers: Answers::default(), buffer: vec![0; 16 * 1024] })
    }
}

// === impl Connection ===

impl Connection {
    /// Sends requests and waits for `count` answers, all of them.
    ///
    /// # Errors
    ///
    /// When an answer is no 200, or the connection ends.
    pub(crate) async fn exchange(&mut self, requests: &[u8], count: usize) -> Result<()> {
        self.stream.write_all(requests).await.context("send")?;
        self.stream.flush().await.context("send")?;
        let mut ended = 0;
        while ended < count {
            let read = self.stream.read(&mut self.buffer).await.context("receive")?;
            if read == 0 {
                bail!("the proxy closed a connection before its answer");
            }
            ended += self.answers.feed(&self.buffer[..read])?;
        }
        ensure!(ended == count, "{ended} answers to {count} requests");
        Ok(())
    }
}

// === impl Protocol ===

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }
}

/// Takes any certificate, and does not look at what it signed: a client's work is not what is measured.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
