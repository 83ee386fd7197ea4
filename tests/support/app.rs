//! An application that keeps its sessions in memory: on the wrong backend, a user is logged out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{COOKIE, SET_COOKIE},
};
use hyper::body::Incoming;

use super::{
    backend::{Backend, answer},
    call::Jar,
    client::Client,
    echo,
    flow::Body,
    port::Port,
};

/// Starts one copy of the application:
///
/// - `/login?NAME` begins a session, cookie `session`, and answers its name
/// - `/rotate` gives the session a new id
/// - `/logout` ends it
/// - `/public` and `/healthz` are well, whoever asks
/// - `/ws` is a WebSocket that echoes
/// - anything else answers the user's name, 401 when the session is not known *here*
///
/// Every answer names the backend in `x-backend`.
pub(crate) fn start(name: &str) -> Backend {
    start_at(Port::reserve(), name, "")
}

/// Starts one on this port, which names its instance in `x-instance`, unless that is empty.
pub(crate) fn start_at(port: Port, name: &str, instance: &str) -> Backend {
    let sessions = Arc::new(Mutex::new(Sessions { backend: name.to_owned(), ..Sessions::default() }));
    let instance: Option<HeaderValue> =
        (!instance.is_empty()).then(|| instance.parse().expect("a valid field value"));
    Backend::start_at(port, name, move |request| {
        let mut answer = match request.uri().path() {
            "/ws" => echo::accept(request),
            _ => sessions.lock().expect("no panic under it").answer(&request),
        };
        answer.headers_mut().extend(instance.clone().map(|id| (HeaderName::from_static("x-instance"), id)));
        std::future::ready(answer)
    })
}

/// Starts as many copies, named `app-1` and so on.
pub(crate) fn several(count: usize) -> Vec<Backend> {
    (1..=count).map(|number| start(&format!("app-{number}"))).collect()
}

/// Logs a user in; their cookies, and the backend that is their home.
pub(crate) async fn login(client: &Client, user: &str) -> (Jar, String) {
    let answer = client.get(&format!("/login?{user}")).send().await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, user), "login of {user}");
    let mut jar = Jar::default();
    jar.store(&answer.headers);
    (jar, answer.header("x-backend").to_owned())
}

/// Logs in `user-0` and so on, one after the other.
pub(crate) async fn login_all(client: &Client, count: usize) -> Vec<(String, Jar, String)> {
    let mut users = Vec::new();
    for number in 0..count {
        let user = format!("user-{number}");
        let (jar, home) = login(client, &user).await;
        users.push((user, jar, home));
    }
    users
}

#[derive(Default)]
struct Sessions {
    backend: String,
    users: HashMap<String, String>,
    made: u64,
}

impl Sessions {
    fn answer(&mut self, request: &Request<Incoming>) -> Response<Body> {
        let mut response = match request.uri().path() {
            "/healthz" | "/public" => answer(StatusCode::OK, "well"),
            "/login" => {
                let user = request.uri().query().unwrap_or("nobody").to_owned();
                let id = self.begin(user.clone());
                setting(answer(StatusCode::OK, user), &format!("session={id}; Path=/; HttpOnly"))
            }
            "/rotate" => match self.end(request.headers()) {
                Some(user) => {
                    let id = self.begin(user.clone());
                    setting(answer(StatusCode::OK, user), &format!("session={id}; Path=/"))
                }
                None => answer(StatusCode::UNAUTHORIZED, "no session here"),
            },
            "/logout" => {
                self.end(request.headers());
                setting(answer(StatusCode::OK, "bye"), "session=; Path=/; Max-Age=0")
            }
            _ => match ids(request.headers()).find_map(|id| self.users.get(id)) {
                Some(user) => answer(StatusCode::OK, user.clone()),
                None => answer(StatusCode::UNAUTHORIZED, "no session here"),
            },
        };
        let backend = self.backend.parse().expect("a name that is a valid field value");
        response.headers_mut().insert("x-backend", backend);
        response
    }

    fn begin(&mut self, user: String) -> String {
        self.made += 1;
        // Readable on purpose: a test searches logs and metrics for it.
        let id = format!("secret-{}-{}", self.backend, self.made);
        self.users.insert(id.clone(), user);
        id
    }

    fn end(&mut self, headers: &HeaderMap) -> Option<String> {
        ids(headers).find_map(|id| self.users.remove(id))
    }
}

fn setting(mut response: Response<Body>, cookie: &str) -> Response<Body> {
    response.headers_mut().append(SET_COOKIE, cookie.parse().expect("a valid field value"));
    response
}

/// All values of the cookie `session`.
fn ids(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == "session").map(|(_, value)| value)
}
