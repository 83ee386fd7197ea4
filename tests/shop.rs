//! The demo's shop alone, over real sockets.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use homing::demo::{Shop, ShopOptions, run};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message, client::IntoClientRequest, protocol::frame::coding::CloseCode,
};

/// A running shop and what a client of it does.
struct Running {
    address: SocketAddr,
    shop: Arc<Shop>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
}

// === impl Running ===

impl Running {
    async fn start(options: ShopOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shop = Arc::new(Shop::new(options).unwrap());
        let (stop, stopped) = oneshot::channel();
        let running = run(listener, Arc::clone(&shop), async {
            stopped.await.unwrap();
        });
        Self { address, shop, stop, task: tokio::spawn(running) }
    }

    async fn named(name: &str) -> Self {
        Self::start(ShopOptions::named(name)).await
    }

    /// One request on a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, cookie: &str, body: impl Into<Bytes>) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::COOKIE, cookie)
            .body(Full::new(body.into()))
            .unwrap();
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Reply { status: head.status, headers: head.headers, json }
    }

    async fn get(&self, path: &str, cookie: &str) -> Reply {
        self.call(Method::GET, path, cookie, "").await
    }

    async fn post(&self, path: &str, cookie: &str) -> Reply {
        self.call(Method::POST, path, cookie, "").await
    }

    /// Logs in; the cookie to send from now on.
    async fn login(&self, user: &str, cookie: &str) -> String {
        let reply = self.call(Method::POST, "/login", cookie, format!("user={user}")).await;
        assert_eq!(reply.status, StatusCode::OK);
        reply.cookie().unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        within(self.task).await.unwrap();
    }
}

// === impl Reply ===

impl Reply {
    /// What a browser would send back.
    fn cookie(&self) -> Option<String> {
        let cookie = self.headers.get(header::SET_COOKIE)?.to_str().unwrap();
        Some(cookie.split(';').next().unwrap().to_owned())
    }
}

async fn within<F: IntoFuture>(future: F) -> F::Output {
    timeout(Duration::from_secs(10), future).await.expect("in time")
}

#[tokio::test]
async fn login_sets_a_protected_cookie_that_identifies_the_user() {
    let shop = Running::named("app-1").await;
    let reply = shop.call(Method::POST, "/login", "", "user=Ada+L").await;
    assert_eq!(reply.json["user"], "Ada L");
    assert_eq!(reply.json["session_app"], "app-1");
    assert_eq!(reply.json["instance"], shop.shop.instance());
    let set_cookie = reply.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(set_cookie.ends_with("; Path=/; HttpOnly; Secure; SameSite=Lax"), "{set_cookie}");
    let me = shop.get("/whoami", &reply.cookie().unwrap()).await.json;
    assert_eq!(
        (&me["user"], &me["session"], &me["backend"]),
        (&"Ada L".into(), &"known".into(), &"app-1".into())
    );
}

#[tokio::test]
async fn login_takes_the_user_from_the_query_too() {
    let shop = Running::named("app-1").await;
    assert_eq!(shop.post("/login?user=bob", "").await.json["user"], "bob");
}

#[tokio::test]
async fn login_rotates_the_id_and_keeps_the_cart() {
    let shop = Running::named("app-1").await;
    let before = shop.post("/cart/add?item=tea", "").await;
    assert_eq!(before.json["session"], "new");
    let old = before.cookie().unwrap();
    let new = shop.login("ada", &old).await;
    assert_ne!(old, new);
    assert_eq!(shop.get("/whoami", &old).await.json["session"], "unknown");
    assert_eq!(shop.get("/cart", &new).await.json["items"], serde_json::json!(["tea"]));
}

#[tokio::test]
async fn the_cart_is_kept_over_connections() {
    let shop = Running::named("app-1").await;
    let cookie = shop.login("ada", "").await;
    for (item, count) in [("tea", 1), ("milk", 2), ("s%C3%BC%C3%9F", 3)] {
        let reply = shop.post(&format!("/cart/add?item={item}"), &cookie).await;
        assert_eq!(reply.json["cart"], count);
        assert!(reply.cookie().is_none());
    }
    assert_eq!(shop.get("/cart", &cookie).await.json["items"], serde_json::json!(["tea", "milk", "süß"]));
}

#[tokio::test]
async fn logout_ends_the_session_and_deletes_the_cookie() {
    let shop = Running::named("app-1").await;
    let cookie = shop.login("ada", "").await;
    let reply = shop.post("/logout", &cookie).await;
    let set_cookie = reply.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(
        set_cookie.starts_with("session=; ") && set_cookie.contains("; Max-Age=0; Expires=Thu, 01 Jan 1970")
    );
    assert_eq!(shop.get("/whoami", &cookie).await.json["session"], "unknown");
}

#[tokio::test]
async fn who_am_i_makes_no_session() {
    let shop = Running::named("app-1").await;
    let reply = shop.get("/whoami", "").await;
    assert_eq!(reply.json["session"], "none");
    assert!(reply.cookie().is_none());
}

#[tokio::test]
async fn another_shop_does_not_know_the_session() {
    let (one, two) = (Running::named("app-1").await, Running::named("app-2").await);
    let cookie = one.login("ada", "").await;
    let me = two.get("/whoami", &cookie).await.json;
    assert_eq!(
        (&me["user"], &me["session"], &me["backend"]),
        (&Value::Null, &"unknown".into(), &"app-2".into())
    );
}

#[tokio::test]
async fn every_answer_names_instance_and_backend() {
    let shop = Running::named("app-1").await;
    for path in ["/", "/healthz", "/whoami", "/nothing", "/status/503", "/status/204", "/login", "/slow?ms=x"]
    {
        let headers = shop.get(path, "").await.headers;
        assert_eq!(headers["x-instance"], shop.shop.instance(), "{path}");
        assert_eq!(headers["x-backend"], "app-1", "{path}");
    }
}

#[tokio::test]
async fn instances_differ() {
    let (one, two) = (Running::named("app-1").await, Running::named("app-1").await);
    assert_ne!(one.shop.instance(), two.shop.instance());
    let health = one.get("/healthz", "").await.json;
    assert_eq!(health, serde_json::json!({ "ok": true, "instance": one.shop.instance() }));
}

#[tokio::test]
async fn hostile_requests_are_refused() {
    let shop = Running::named("app-1").await;
    let long = "x".repeat(101);
    let cases = [
        (Method::POST, "/login".to_owned(), StatusCode::BAD_REQUEST),
        (Method::POST, "/login?user=%00".to_owned(), StatusCode::BAD_REQUEST),
        (Method::POST, "/login?user=%ff".to_owned(), StatusCode::BAD_REQUEST),
        (Method::POST, "/login?user=%".to_owned(), StatusCode::BAD_REQUEST),
        (Method::POST, format!("/login?user={long}"), StatusCode::BAD_REQUEST),
        (Method::POST, "/cart/add?item=".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/bytes?n=-1".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/bytes?n=99999999999999999999".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/slow?ms=60001".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/events?every=0".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/status/199".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/status/abc".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/ws".to_owned(), StatusCode::BAD_REQUEST),
        (Method::GET, "/login".to_owned(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::DELETE, "/cart".to_owned(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/..%2fetc".to_owned(), StatusCode::NOT_FOUND),
    ];
    for (method, path, expected) in cases {
        assert_eq!(shop.call(method, &path, "session=\u{ff}", "").await.status, expected, "{path}");
    }
    let big = shop.call(Method::POST, "/login", "", vec![b'x'; 5000]).await;
    assert_eq!(big.status, StatusCode::PAYLOAD_TOO_LARGE);
    let binary = shop.call(Method::POST, "/login", "", vec![0xff; 10]).await;
    assert_eq!(binary.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_full_shop_answers_503() {
    let shop = Running::start(ShopOptions { max_sessions: 1, ..ShopOptions::named("app-1") }).await;
    shop.login("ada", "").await;
    let reply = shop.post("/login?user=bob", "").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn bytes_have_a_length_and_a_pattern() {
    let shop = Running::named("app-1").await;
    let request = Request::get("/bytes?n=200000").header("host", "localhost").body(Full::default()).unwrap();
    let response = shop.send(request).await;
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "200000");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 200_000);
    assert!(body.iter().enumerate().all(|(offset, byte)| usize::from(*byte) == offset % 251));
}

#[tokio::test]
async fn the_sink_counts() {
    let shop = Running::named("app-1").await;
    let reply = shop.call(Method::POST, "/sink", "", vec![0; 1_000_000]).await;
    assert_eq!(reply.json["received"], 1_000_000);
}

#[tokio::test]
async fn the_page_is_served_and_fetches_nothing_from_elsewhere() {
    let shop = Running::named("app-1").await;
    let request = Request::get("/").header("host", "localhost").body(Full::default()).unwrap();
    let response = shop.send(request).await;
    assert!(
        response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'")
    );
    let page = response.into_body().collect().await.unwrap().to_bytes();
    let page = String::from_utf8(page.into()).unwrap();
    assert!(page.starts_with("<!doctype html>") && !page.contains("://"));
}

#[tokio::test]
async fn events_come_numbered_and_end_at_the_count() {
    let shop = Running::named("app-1").await;
    let request = Request::get("/events?every=10&count=3").header("host", "localhost");
    let response = shop.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    let text = String::from_utf8(body.into()).unwrap();
    let events: Vec<_> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.len(), 3);
    assert!(events[2].starts_with("id: 3\ndata: ") && events[2].contains(r#""backend":"app-1""#), "{text}");
}

#[tokio::test]
async fn a_web_socket_greets_and_echoes_with_the_name() {
    let shop = Running::named("app-1").await;
    let stream = TcpStream::connect(shop.address).await.unwrap();
    let (mut socket, answer) = tokio_tungstenite::client_async("ws://localhost/ws", stream).await.unwrap();
    assert_eq!(answer.headers()["x-backend"], "app-1");
    let greeting = within(socket.next()).await.unwrap().unwrap().into_text().unwrap();
    let greeting: Value = serde_json::from_str(&greeting).unwrap();
    assert_eq!(greeting["backend"], "app-1");
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(within(socket.next()).await.unwrap().unwrap(), Message::text("app-1: hello"));
    socket.close(None).await.unwrap();
    assert!(matches!(within(socket.next()).await, Some(Ok(Message::Close(_)))));
}

#[tokio::test(start_paused = true)]
async fn an_open_web_socket_keeps_its_session_alive() {
    let shop = Running::named("app-1").await;
    let (held, idle) = (shop.login("ada", "").await, shop.login("bob", "").await);
    let mut request = "ws://localhost/ws".into_client_request().unwrap();
    request.headers_mut().insert(header::COOKIE, held.parse().unwrap());
    let stream = TcpStream::connect(shop.address).await.unwrap();
    let (_socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    // Forty minutes of events, which the paused clock skips through.
    let events = Request::get("/events?every=60000&count=41").header("host", "localhost");
    shop.send(events.body(Full::default()).unwrap()).await.into_body().collect().await.unwrap();
    assert_eq!(shop.get("/whoami", &idle).await.json["session"], "unknown");
    assert_eq!(shop.get("/whoami", &held).await.json["session"], "known");
}

#[tokio::test]
async fn a_stop_ends_streams_and_sockets_and_idle_connections() {
    let shop = Running::named("app-1").await;
    let stream = TcpStream::connect(shop.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/ws", stream).await.unwrap();
    within(socket.next()).await.unwrap().unwrap();
    let request = Request::get("/events?every=60000").header("host", "localhost");
    let mut events = shop.send(request.body(Full::default()).unwrap()).await.into_body();
    within(events.frame()).await.unwrap().unwrap();
    let mut idle = TcpStream::connect(shop.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 15]).await.unwrap();
    let address = shop.address;

    shop.stop().await;

    let Some(Ok(Message::Close(Some(frame)))) = within(socket.next()).await else {
        panic!("no close frame");
    };
    assert_eq!(frame.code, CloseCode::Away);
    assert!(within(events.frame()).await.is_none());
    within(idle.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_running_request_finishes_after_a_stop() {
    let shop = Running::named("app-1").await;
    let mut stream = TcpStream::connect(shop.address).await.unwrap();
    // The first answer proves that the second request, already on its way, is being served.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nPOST /sink HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.contains("100 Continue") {
        let mut piece = [0; 1024];
        let count = within(stream.read(&mut piece)).await.unwrap();
        assert_ne!(count, 0, "{text}");
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    let stopping = tokio::spawn(shop.stop());
    stream.write_all(b"ok").await.unwrap();
    within(stream.read_to_string(&mut text)).await.unwrap();
    assert!(text.contains(r#"{"received":2}"#), "{text}");
    within(stopping).await.unwrap();
}

#[test]
fn a_name_that_cannot_be_a_header_is_refused() {
    for name in ["", "a\nb", "ä", &"x".repeat(65)] {
        assert!(Shop::new(ShopOptions::named(name)).is_err(), "{name:?}");
    }
}
