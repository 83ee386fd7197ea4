//! Requests without TLS, for the admin listener and the redirecting one.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    BoxError,
    call::Answer,
    flow::{Body, full},
    within,
};

/// Sends these bytes on a connection of their own; everything that came back until the close.
pub(crate) async fn exchange(address: SocketAddr, bytes: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(bytes.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    within("the end", exchange).await.expect("an answer and an end")
}

/// GETs `path` over plain HTTP/1.1, naming the address as host.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Answer, BoxError> {
    let request = Request::builder().uri(path).header("host", address.to_string()).body(full(""))?;
    send(address, request).await
}

/// Sends a request over plain HTTP/1.1, on a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<Body>) -> Result<Answer, BoxError> {
    within("a plain answer", async {
        let tcp = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        let driver = tokio::spawn(connection);
        let answer = read(sender.send_request(request).await?).await;
        driver.abort();
        answer
    })
    .await
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Answer, BoxError> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    Ok(Answer {
        status: head.status,
        version: head.version,
        headers: head.headers,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    })
}
