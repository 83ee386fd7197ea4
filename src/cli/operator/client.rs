//! A small HTTP/1.1 client of the admin listener: a connection for each request, a deadline for each step.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{args::Connect, trouble::Trouble};
use crate::{
    admin::api::Failed,
    config::{Token, format_duration},
};

/// A client of one admin listener.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    token: Option<Token>,
}

/// Where an admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Host and port.
    Tcp(String),
    Socket(PathBuf),
}

const DEFAULT: &str = "http://127.0.0.1:9090";
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an answer, beside what the request asks the proxy to wait.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

// === impl Client ===

impl Client {
    /// A client of the listener that flags or the environment name.
    pub(super) fn new(connect: &Connect) -> Result<Self, Trouble> {
        let place = place(connect)?;
        let from_environment = || env::var_os("HOMING_TOKEN_FILE").filter(|file| !file.is_empty());
        let file = connect.token_file.clone().or_else(|| from_environment().map(PathBuf::from));
        let token = file.as_deref().map(Token::load).transpose();
        Ok(Self { place, token: token.map_err(|error| Trouble::Usage(error.to_string()))? })
    }

    /// A client of the listener that flags or the environment name, which is shown no token.
    ///
    /// `base` may be any `http://HOST:PORT`: a token is for the admin listener only.
    pub(super) fn without_token(base: Option<&str>) -> Result<Self, Trouble> {
        let connect = Connect { admin: base.map(str::to_owned), ..Connect::default() };
        Ok(Self { place: place(&connect)?, token: None })
    }

    /// GETs JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.read(&self.send(Method::GET, path, None, Duration::ZERO).await?)
    }

    /// GETs JSON that the proxy may take some time for.
    pub(super) async fn wait<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, Trouble> {
        self.read(&self.send(Method::GET, path, None, wait).await?)
    }

    /// POSTs JSON, and reads JSON.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Trouble> {
        self.read(&self.send(Method::POST, path, Some(body), Duration::ZERO).await?)
    }

    /// Sends a request; the body of its answer as it came.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<Bytes, Trouble> {
        let (status, body) = self.answer(method, path, body, wait).await?;
        if status.is_success() {
            return Ok(body);
        }
        let Ok(Failed { error }) = serde_json::from_slice(&body) else {
            return Err(self.strange(format!("status {status}")));
        };
        Err(match status {
            StatusCode::NOT_FOUND => Trouble::NotFound(error),
            StatusCode::UNAUTHORIZED => {
                Trouble::Failed(format!("{error} (give its file by --token-file or HOMING_TOKEN_FILE)"))
            }
            _ => Trouble::Failed(error),
        })
    }

    /// Sends a request; status and body of its answer, whatever they are.
    pub(super) async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let exchange = async {
            match &self.place {
                Place::Tcp(address) => {
                    self.exchange(self.connect(TcpStream::connect(address)).await?, method, path, body).await
                }
                Place::Socket(file) => {
                    self.exchange(self.connect(UnixStream::connect(file)).await?, method, path, body).await
                }
            }
        };
        timeout(ANSWER + wait, exchange)
            .await
            .map_err(|_| self.strange(format!("no answer within {}", format_duration(ANSWER + wait))))?
    }

    async fn connect<S>(&self, connecting: impl Future<Output = std::io::Result<S>>) -> Result<S, Trouble> {
        let late = || {
            std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no connection within {}", format_duration(CONNECT)),
            )
        };
        timeout(CONNECT, connecting)
            .await
            .unwrap_or_else(|_| Err(late()))
            .map_err(|error| Trouble::Unreachable { place: self.place.to_string(), error })
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let broken = |error: hyper::Error| self.strange(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the exchange; its error is the exchange's.
        let driver = tokio::spawn(connection);
        let response = sender.send_request(self.request(method, path, body)).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        driver.abort();
        Ok((status, body.map_err(|error| self.strange(error.to_string()))?.to_bytes()))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
        let content = body.map(|body| Bytes::from(body.to_string()));
        let mut request = Request::new(Full::new(content.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::try_from(path).expect("our own paths and names that the proxy gave us");
        let headers = request.headers_mut();
        let host = match &self.place {
            Place::Tcp(address) => HeaderValue::try_from(address).expect("checked when it was parsed"),
            Place::Socket(_) => HeaderValue::from_static("localhost"),
        };
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if content.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, token.credentials());
        }
        request
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Trouble> {
        // What serde says may repeat parts of the answer, which is about sessions at most by fingerprint.
        serde_json::from_slice(body).map_err(|error| self.strange(error.to_string()))
    }

    fn strange(&self, why: String) -> Trouble {
        Trouble::Strange { place: self.place.to_string(), why }
    }
}

/// Where flags or the environment say that the listener is.
fn place(connect: &Connect) -> Result<Place, Trouble> {
    let admin = connect.admin.clone().or_else(|| env::var("HOMING_ADMIN").ok().filter(|url| !url.is_empty()));
    Place::parse(admin.as_deref().unwrap_or(DEFAULT)).map_err(Trouble::Usage)
}

// === impl Place ===

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("unix: needs a path".to_owned())
            } else {
                Ok(Self::Socket(Path::new(path).to_owned()))
            };
        }
        let wrong = || {
            format!(
                "`{}` is not an admin listener such as http://127.0.0.1:9090 or unix:/run/homing/admin.sock",
                text.escape_debug()
            )
        };
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        Ok(Self::Tcp(match authority.port_u16() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{}:80", authority.host()),
        }))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_urls_addresses_and_sockets() {
        for (text, place) in [
            ("http://127.0.0.1:9090", Place::Tcp("127.0.0.1:9090".to_owned())),
            ("http://[::1]:9090/", Place::Tcp("[::1]:9090".to_owned())),
            ("localhost:1", Place::Tcp("localhost:1".to_owned())),
            ("http://ops.example", Place::Tcp("ops.example:80".to_owned())),
            ("unix:/run/a.sock", Place::Socket("/run/a.sock".into())),
            ("unix:///run/a.sock", Place::Socket("/run/a.sock".into())),
            ("unix:a.sock", Place::Socket("a.sock".into())),
        ] {
            assert_eq!(Place::parse(text), Ok(place), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_told_what_is() {
        for text in ["https://127.0.0.1:9090", "http://a/b", "http://u@a", "", "unix:", "http://", "a b"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
