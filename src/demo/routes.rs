//! What the shop does with one request.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::{
    answer::{self, Answer, Refusal},
    form,
    sessions::{Offered, SessionId, Visit},
    shop::{Shop, Stop},
    streams::{self, Upgrade},
};
use crate::clock;

/// What a request may use beside itself; one per connection.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) shop: Arc<Shop>,
    pub(crate) stop: Stop,
    /// Where a WebSocket handshake leaves the connection to whoever drives it.
    pub(crate) upgrade: Arc<Mutex<Option<Upgrade>>>,
}

/// Answers `request`; who answered is in every answer.
pub(crate) async fn answer(request: Request<Incoming>, context: Context) -> Result<Answer, Infallible> {
    let shop = Arc::clone(&context.shop);
    let mut answer = match dispatch(request, context).await {
        Ok(answer) => answer,
        Err(refusal) => refusal.answer(),
    };
    answer.headers_mut().insert("x-instance", shop.instance_header());
    answer.headers_mut().insert("x-backend", shop.name_header());
    Ok(answer)
}

#[derive(Clone, Copy)]
enum Route<'a> {
    Page,
    Health,
    Login,
    Logout,
    WhoAmI,
    Cart,
    CartAdd,
    WebSocket,
    Events,
    Slow,
    Bytes,
    Sink,
    Status(&'a str),
}

async fn dispatch(request: Request<Incoming>, context: Context) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let route = Route::of(&path).ok_or(Refusal::NotFound)?;
    let method = route.method();
    if head.method != method && !(head.method == Method::HEAD && method == Method::GET) {
        return Err(Refusal::Method(method));
    }
    let shop = &context.shop;
    let query = head.uri.query().unwrap_or_default().to_owned();
    let offered = Offered::of(&head.headers);
    match route {
        Route::Page => Ok(page()),
        Route::Health => Ok(answer::json(&json!({ "ok": true, "instance": shop.instance() }))),
        Route::Login => login(shop, &query, body, &offered).await,
        Route::Logout => Ok(logout(shop, &offered)),
        Route::WhoAmI => Ok(who_am_i(shop, &offered)),
        Route::Cart => Ok(cart(shop, &offered)),
        Route::CartAdd => cart_add(shop, &query, &offered),
        Route::WebSocket => web_socket(head, &offered, context),
        Route::Events => events(&query, &offered, context),
        Route::Slow => slow(&query).await,
        Route::Bytes => bytes(&query),
        Route::Sink => sink(body).await,
        Route::Status(code) => status(code),
    }
}

// === impl Route ===

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/healthz" => Self::Health,
            "/login" => Self::Login,
            "/logout" => Self::Logout,
            "/whoami" => Self::WhoAmI,
            "/cart" => Self::Cart,
            "/cart/add" => Self::CartAdd,
            "/ws" => Self::WebSocket,
            "/events" => Self::Events,
            "/slow" => Self::Slow,
            "/bytes" => Self::Bytes,
            "/sink" => Self::Sink,
            other => Self::Status(other.strip_prefix("/status/")?),
        })
    }

    fn method(self) -> Method {
        match self {
            Self::Login | Self::Logout | Self::CartAdd | Self::Sink => Method::POST,
            Self::Page
            | Self::Health
            | Self::WhoAmI
            | Self::Cart
            | Self::WebSocket
            | Self::Events
            | Self::Slow
            | Self::Bytes
            | Self::Status(_) => Method::GET,
        }
    }
}

fn page() -> Answer {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let mut answer = answer::body(StatusCode::OK, html, Full::from(PAGE).boxed_unsync());
    let policy = HeaderValue::from_static(PAGE_POLICY);
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

async fn login(shop: &Shop, query: &str, body: Incoming, offered: &Offered) -> Result<Answer, Refusal> {
    let form = read_form(body).await?;
    let user = match form::value(&form, "user")? {
        Some(user) => user,
        None => form::value(query, "user")?.ok_or(Refusal::Bad("no user=NAME"))?,
    };
    check_text(&user)?;
    let fresh = SessionId::random();
    let cart = shop.sessions().login(offered, &user, fresh, clock::now())?;
    let mut answer = answer::json(&json!({
        "user": user,
        "session_app": shop.name(),
        "instance": shop.instance(),
        "cart": cart,
    }));
    set_cookie(&mut answer, fresh);
    Ok(answer)
}

fn logout(shop: &Shop, offered: &Offered) -> Answer {
    shop.sessions().end(offered);
    let mut answer =
        answer::json(&json!({ "user": null, "backend": shop.name(), "instance": shop.instance() }));
    answer.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(COOKIE_END));
    answer
}

fn who_am_i(shop: &Shop, offered: &Offered) -> Answer {
    let visit = shop.sessions().visit(offered, clock::now());
    answer::json(&json!({
        "user": visit.user,
        "backend": shop.name(),
        "instance": shop.instance(),
        "cart": visit.cart,
        "session": visit.standing.as_str(),
    }))
}

fn cart(shop: &Shop, offered: &Offered) -> Answer {
    let (visit, items) = shop.sessions().cart(offered, clock::now());
    answer::json(&json!({
        "items": items,
        "user": visit.user,
        "backend": shop.name(),
        "session": visit.standing.as_str(),
    }))
}

fn cart_add(shop: &Shop, query: &str, offered: &Offered) -> Result<Answer, Refusal> {
    let item = form::value(query, "item")?.ok_or(Refusal::Bad("no item=NAME"))?;
    check_text(&item)?;
    let fresh = SessionId::random();
    let Visit { standing, id, cart, .. } = shop.sessions().add(offered, &item, fresh, clock::now())?;
    let mut answer = answer::json(&json!({
        "added": item,
        "cart": cart,
        "backend": shop.name(),
        "session": standing.as_str(),
    }));
    if id == Some(fresh) {
        set_cookie(&mut answer, fresh);
    }
    Ok(answer)
}

fn web_socket(head: Parts, offered: &Offered, context: Context) -> Result<Answer, Refusal> {
    let mut request = Request::from_parts(head, ());
    let answer = create_response(&request).map_err(Refusal::Handshake)?.map(|()| answer::empty());
    let session = context.shop.sessions().visit(offered, clock::now()).id;
    let upgrade = Upgrade { socket: hyper::upgrade::on(&mut request), session };
    *context.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    Ok(answer)
}

fn events(query: &str, offered: &Offered, context: Context) -> Result<Answer, Refusal> {
    let every = form::number(query, "every", 10, 60_000)?.map_or(EVENT_PERIOD, Duration::from_millis);
    let count = form::number(query, "count", 1, 1_000_000)?.unwrap_or(u64::MAX);
    let session = context.shop.sessions().visit(offered, clock::now()).id;
    let body = streams::events(context.shop, session, every, count, context.stop);
    Ok(answer::body(StatusCode::OK, HeaderValue::from_static("text/event-stream"), body))
}

async fn slow(query: &str) -> Result<Answer, Refusal> {
    let wait = form::number(query, "ms", 0, SLOW_MAX)?.unwrap_or(1000);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    Ok(answer::json(&json!({ "slept_ms": wait })))
}

fn bytes(query: &str) -> Result<Answer, Refusal> {
    let count = form::number(query, "n", 0, BYTES_MAX)?.ok_or(Refusal::Bad("no n=NUMBER"))?;
    let body = streams::Pattern::new(count).boxed_unsync();
    Ok(answer::body(StatusCode::OK, HeaderValue::from_static("application/octet-stream"), body))
}

async fn sink(mut body: Incoming) -> Result<Answer, Refusal> {
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Bad("the body broke off"))?;
        count += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(answer::json(&json!({ "received": count })))
}

fn status(code: &str) -> Result<Answer, Refusal> {
    let status = code.parse().ok().filter(|status: &StatusCode| (200..=599).contains(&status.as_u16()));
    let status = status.ok_or(Refusal::Bad("a status is a number from 200 to 599"))?;
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        let mut answer = Answer::new(answer::empty());
        *answer.status_mut() = status;
        return Ok(answer);
    }
    Ok(answer::with_status(status, &json!({ "status": status.as_u16() })))
}

async fn read_form(body: Incoming) -> Result<String, Refusal> {
    let bytes = Limited::new(body, FORM_SIZE).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Refusal::TooLarge(FORM_SIZE)
        } else {
            Refusal::Bad("the body broke off")
        }
    })?;
    String::from_utf8(bytes.to_bytes().into()).map_err(|_| Refusal::Bad("the form is not UTF-8"))
}

/// Names and items are short and can be printed.
fn check_text(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.chars().count() > TEXT_LENGTH || text.chars().any(char::is_control) {
        return Err(Refusal::Bad("a name has 1 to 100 characters, none of them a control character"));
    }
    Ok(())
}

fn set_cookie(answer: &mut Answer, id: SessionId) {
    let cookie = format!("session={}; Path=/; HttpOnly; Secure; SameSite=Lax", id.to_hex());
    let mut value = HeaderValue::try_from(cookie).expect("hexadecimal and fixed text");
    value.set_sensitive(true);
    answer.headers_mut().append(header::SET_COOKIE, value);
}

const COOKIE_END: &str =
    "session=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax";
const PAGE: &str = include_str!("page.html");
/// The page's script and style stand in it; nothing is fetched from elsewhere.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";
const EVENT_PERIOD: Duration = Duration::from_secs(1);
const FORM_SIZE: usize = 4096;
const TEXT_LENGTH: usize = 100;
/// Milliseconds.
const SLOW_MAX: u64 = 60_000;
const BYTES_MAX: u64 = 64 << 30;
