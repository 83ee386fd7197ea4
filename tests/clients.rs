//! Real clients: what people use to speak to the proxy, each with a session that has to stay at its home.
//!
//! The scripts are in `tests/clients/`; they say what is wrong and fail, and those that log in print where their
//! session lives.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    collections::HashMap,
    io::Write as _,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use http::{Request, Response, StatusCode, header::COOKIE};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tempfile::NamedTempFile;

use self::support::{
    backend::{Backend, answer},
    client::Client,
    curl::{Ran, run},
    echo,
    flow::Body,
    pki::Authority,
    process::Homing,
    setup::Setup,
    webdriver::Browser,
};

/// The proxy, its backends, and what clients need to know.
struct Bench {
    homing: Homing,
    backends: Vec<Backend>,
    authority: NamedTempFile,
}

#[tokio::test]
async fn curl_keeps_its_session_in_every_protocol() {
    let bench = Bench::start().await;
    for protocol in ["--http1.0", "--http1.1", "--http2"] {
        let ran = bench.script("sh", "session.sh", &[&bench.base(), &bench.authority(), protocol]).await;
        bench.only_home_saw("/upload", ran.stdout.trim());
    }
}

#[tokio::test]
async fn python_requests_keeps_its_session() {
    let bench = Bench::start().await;
    let ran = bench.script(PYTHON, "session.py", &[&bench.base(), &bench.authority()]).await;
    bench.only_home_saw("/upload", ran.stdout.trim());
}

#[tokio::test]
async fn node_keeps_its_session_over_http2() {
    let bench = Bench::start().await;
    let ran = bench.script("node", "http2.js", &[&bench.base(), &bench.authority()]).await;
    bench.only_home_saw("/upload", ran.stdout.trim());
}

#[tokio::test]
async fn openssl_speaks_the_versions_that_are_safe_and_no_other() {
    // When its wish to negotiate anew is refused, it waits until somebody closes.
    let bench = Bench::with("[timeouts]\nhead = \"4s\"").await;
    let (cookie, home) = bench.login().await;
    let port = bench.homing.https.port().to_string();
    bench.script("sh", "raw.sh", &[&port, &bench.authority(), &cookie, &home]).await;
    bench.only_home_saw("/whoami", &home);
}

#[tokio::test]
async fn websockets_of_python_reach_the_home_of_their_session() {
    let bench = Bench::start().await;
    let (cookie, home) = bench.login().await;
    bench.script(PYTHON, "websocket.py", &[&bench.base(), &bench.authority(), &cookie]).await;
    bench.only_home_saw("/ws", &home);
}

#[tokio::test]
async fn websockets_of_node_reach_the_home_of_their_session() {
    let bench = Bench::start().await;
    let (cookie, home) = bench.login().await;
    bench.script("node", "websocket.js", &[&bench.base(), &bench.authority(), &cookie]).await;
    bench.only_home_saw("/ws", &home);
}

#[tokio::test]
async fn a_browser_keeps_its_session_in_pages_fetches_and_websockets() {
    let bench = Bench::start().await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/login?ada", bench.base())).await;
    let fetched = browser.script(include_str!("clients/fetch.js")).await;
    let home = fetched[0]["home"].as_str().expect("a name").to_owned();
    for answer in fetched.as_array().expect("a list") {
        assert_eq!(*answer, json!({ "status": 200, "text": "ada", "home": home }));
    }
    let echoed = browser.script(include_str!("clients/echo.js")).await;
    let wanted: Vec<_> = (0..20).map(|number| format!("message {number}")).collect();
    assert_eq!(echoed, json!({ "messages": wanted, "code": 1000 }));
    bench.only_home_saw("/whoami", &home);
    bench.only_home_saw("/ws", &home);
}

/// Debian's, which has the packages that `tests/run` installs.
const PYTHON: &str = "/usr/bin/python3";

// === impl Bench ===

impl Bench {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With these tables in the configuration.
    async fn with(section: &str) -> Self {
        let backends: Vec<_> = (1..=3).map(|number| shop(&format!("app-{number}"))).collect();
        let homing = Setup::new(&backends).section(section).start().await;
        let mut authority = NamedTempFile::new().expect("a temporary file");
        authority.write_all(Authority::get().pem.as_bytes()).expect("a temporary file");
        Self { homing, backends, authority }
    }

    fn base(&self) -> String {
        format!("https://localhost:{}", self.homing.https.port())
    }

    fn authority(&self) -> String {
        self.authority.path().display().to_string()
    }

    /// A session: its Cookie field, and its home.
    async fn login(&self) -> (String, String) {
        let answer = Client::h1(&self.homing).get("/login?ada").send().await;
        let id = answer.cookie("session").expect("a session");
        (format!("session={id}"), answer.header("x-backend").to_owned())
    }

    /// Runs a script to its end, which must be a good one.
    async fn script(&self, interpreter: &str, name: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(interpreter);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)).args(arguments);
        // Where Debian puts what it packages, also for a Node that is not Debian's.
        command.env("NODE_PATH", "/usr/share/nodejs").env("NO_PROXY", "*");
        let ran = run(command).await;
        assert_eq!(ran.code, 0, "{name} {arguments:?}: {}\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// Requests for this path with a session's cookie have come, and to no other backend.
    fn only_home_saw(&self, path: &str, home: &str) {
        for backend in &self.backends {
            let seen = backend.seen_at(path).into_iter();
            let count =
                seen.filter(|seen| seen.all("cookie").iter().any(|cookie| is_of(cookie, home))).count();
            assert_eq!(count > 0, backend.name == home, "{} saw {path} {count} times", backend.name);
        }
    }
}

/// Whether a Cookie field has the id of a session that began at this backend.
fn is_of(cookie: &str, home: &str) -> bool {
    cookie.split("; ").any(|pair| pair.starts_with(&format!("session={home}-")))
}

/// An application with its sessions in memory: `/login?NAME`, `/whoami`, `/upload`, which counts, and `/ws`, which
/// echoes.
fn shop(name: &str) -> Backend {
    let users = Arc::new(Mutex::new(HashMap::<String, String>::new()));
    let backend = name.to_owned();
    Backend::start(name, move |request| {
        let (users, backend) = (Arc::clone(&users), backend.clone());
        async move {
            let mut response = respond(request, &users, &backend).await;
            response.headers_mut().insert("x-backend", backend.parse().expect("a field value"));
            response
        }
    })
}

async fn respond(
    request: Request<Incoming>,
    users: &Mutex<HashMap<String, String>>,
    backend: &str,
) -> Response<Body> {
    let fields = request.headers().get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut ids = fields.flat_map(|field| field.split("; ")).filter_map(|pair| pair.strip_prefix("session="));
    let user = ids.find_map(|id| users.lock().expect("no panic under it").get(id).cloned());
    match (request.uri().path(), user) {
        ("/login", _) => {
            let user = request.uri().query().unwrap_or("nobody").to_owned();
            let mut users = users.lock().expect("no panic under it");
            let id = format!("{backend}-{}", users.len());
            let mut response = answer(StatusCode::OK, user.clone());
            let cookie = format!("session={id}; Path=/; Secure; HttpOnly");
            response.headers_mut().insert("set-cookie", cookie.parse().expect("a field value"));
            users.insert(id, user);
            response
        }
        (_, None) => answer(StatusCode::UNAUTHORIZED, "no session here"),
        ("/ws", _) => echo::accept(request),
        ("/upload", Some(user)) => match request.into_body().collect().await {
            Ok(body) => answer(StatusCode::OK, format!("{user} {}", body.to_bytes().len())),
            Err(_) => answer(StatusCode::BAD_REQUEST, "the body broke off"),
        },
        (_, Some(user)) => {
            // Read even if nobody asked for it, so that the connection can be kept.
            let _ = request.into_body().collect().await;
            answer(StatusCode::OK, user)
        }
    }
}
