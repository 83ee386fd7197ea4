//! The proxy's own cookie, for applications that set none: seen from outside.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use futures_util::StreamExt;
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use http::{HeaderValue, Method, StatusCode, header::SET_COOKIE};
use tempfile::TempDir;

use self::support::{
    backend::{Backend, answer},
    call::{Answer, Jar},
    client::{BOTH, Client},
    eventually,
    metrics::Metrics,
    process::Homing,
    setup::Setup,
};

const COOKIE: &str = "__Host-homing";
const TOKENS: &str = "homing_affinity_tokens_total";

#[tokio::test]
async fn the_cookie_is_as_browsers_require_and_as_safe_as_they_allow() {
    let backends = backends(1);
    let homing = Setup::new(&backends).issue("").affinity("max_ttl = \"2h\"").start().await;
    let fields = set(&Client::h1(&homing).get("/").send().await);
    let [field] = &fields[..] else { panic!("{fields:?}") };
    let mut parts = field.split("; ");
    let (name, token) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie");
    assert_eq!(name, COOKIE);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
    // The token itself says when it is over; the browser keeps it for longer, for the sake of open streams.
    let attributes: BTreeSet<_> = parts.collect();
    let wanted = ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=7200"];
    assert_eq!(attributes, BTreeSet::from(wanted));
}

#[tokio::test]
async fn name_and_same_site_are_as_configured() {
    let issue = "cookie = \"sticky\", same_site = \"none\"";
    let backends = backends(1);
    let homing = Setup::new(&backends).issue(issue).start().await;
    let fields = set(&Client::h1(&homing).get("/").send().await);
    assert!(fields[0].starts_with("sticky=") && fields[0].contains("; SameSite=None"), "{fields:?}");
}

#[tokio::test]
async fn a_client_stays_at_one_backend_over_new_connections_and_both_protocols() {
    let backends = backends(3);
    let homing = Setup::new(&backends).issue("").start().await;
    let mut homes = BTreeSet::new();
    for protocol in BOTH {
        for _ in 0..6 {
            let (jar, home) = first_visit(&Client::new(&homing, protocol)).await;
            for protocol in BOTH {
                let again = Client::new(&homing, protocol).get("/").jar(&jar).send().await;
                assert_eq!(again.text(), home);
                assert_eq!(set(&again), [""; 0], "a new token is good for a while");
            }
            homes.insert(home);
        }
    }
    assert_eq!(homes.len(), 3, "{homes:?}");
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value("homing_sessions", &[("state", "live")]), 12.0);
    assert_eq!(metrics.value(TOKENS, &[("result", "issued")]), 12.0);
    assert_eq!(metrics.value(TOKENS, &[("result", "accepted")]), 24.0);
    assert_eq!(metrics.value("homing_affinity_requests_total", &[("verdict", "home")]), 24.0);
}

#[tokio::test]
async fn requests_that_keep_no_cookie_begin_no_session_but_go_home_with_one() {
    let backends = backends(3);
    let homing = Setup::new(&backends).issue("").start().await;
    let client = Client::h1(&homing);
    let preflight = [("origin", "https://other.test"), ("access-control-request-method", "PUT")];
    let image =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")];
    let report = [("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "report")];
    let (jar, home) = first_visit(&client).await;
    for (method, fields) in [
        (Method::OPTIONS, &preflight[..]),
        (Method::GET, &image),
        (Method::POST, &report),
        (Method::OPTIONS, &[]),
    ] {
        let call = |jar: &Jar| {
            let call = client.request(method.clone(), "/").jar(jar);
            fields.iter().fold(call, |call, (name, value)| call.header(name, value))
        };
        for _ in 0..4 {
            assert_eq!(set(&call(&Jar::default()).send().await), [""; 0], "{method} {fields:?}");
        }
        assert_eq!(call(&jar).send().await.text(), home, "{method} {fields:?}");
    }
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value("homing_sessions", &[("state", "live")]), 1.0);
    assert_eq!(metrics.value(TOKENS, &[("result", "issued")]), 1.0);
}

#[tokio::test]
async fn the_backend_never_sees_the_cookie_and_sees_all_others_as_they_are() {
    let backends = backends(1);
    let homing = Setup::new(&backends).issue("").affinity("skip = [\"/static/\"]").start().await;
    let (jar, _) = first_visit(&Client::h1(&homing)).await;
    let token = jar.value(COOKIE).expect("issued");
    for (number, client) in [Client::h1(&homing), Client::h2(&homing)].iter().enumerate() {
        let path = |name: &str| format!("{name}/{number}");
        let send = async |path: String, cookies: &[String]| {
            let call = cookies.iter().fold(client.get(&path), |call, field| call.header("cookie", field));
            call.send().await;
            backends[0].one_at(&path).all("cookie").into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let ours = format!("{COOKIE}={token}");
        let nothing: [&str; 0] = [];
        assert_eq!(send(path("/alone"), std::slice::from_ref(&ours)).await, nothing);
        let among = format!("a=1;  b=\"x y\" ; {ours}; c=%20");
        assert_eq!(send(path("/among"), &[among]).await, ["a=1;  b=\"x y\" ; c=%20"]);
        assert_eq!(send(path("/static/skipped"), &[format!("{ours}; a=1")]).await, ["a=1"]);
        let made_up = format!("{COOKIE}=made-up; a=1; {COOKIE}=again");
        assert_eq!(send(path("/made-up"), &[made_up]).await, ["a=1"]);
    }
    let client = Client::h2(&homing);
    let split = client.get("/split").cookie("a", "1").cookie(COOKIE, token).cookie("b", "2");
    split.send().await;
    assert_eq!(backends[0].one_at("/split").one("cookie"), "a=1; b=2");
}

#[tokio::test]
async fn a_backend_cannot_set_the_cookie() {
    let backend = Backend::start("app-1", |_| async {
        let mut response = answer(StatusCode::OK, "app-1");
        for field in ["theme=dark; Path=/", "__Host-homing=stolen; Path=/; Secure"] {
            response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(field));
        }
        response
    });
    let homing = Setup::new([&backend]).issue("").affinity("skip = [\"/static/\"]").start().await;
    let client = Client::h1(&homing);
    let fields = set(&client.get("/").send().await);
    assert_eq!(fields.len(), 2, "{fields:?}");
    assert!(fields[0] == "theme=dark; Path=/" && !fields[1].contains("stolen"), "{fields:?}");
    assert_eq!(set(&client.get("/static/x").send().await), ["theme=dark; Path=/"]);
}

#[tokio::test]
async fn nothing_is_issued_on_skipped_paths_or_with_failures() {
    let backend = Backend::start("app-1", |request| async move {
        let failing = request.uri().path() == "/fails";
        answer(if failing { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, "app-1")
    });
    let mut backends = [backend];
    let homing = Setup::new(&backends).issue("").affinity("skip = [\"/static/\"]").start().await;
    let client = Client::h1(&homing);
    for path in ["/static/x", "/fails"] {
        assert_eq!(set(&client.get(path).send().await), [""; 0], "{path}");
    }
    backends[0].stop().await;
    let refused = client.get("/").send().await;
    assert!(refused.status.is_server_error() && set(&refused).is_empty(), "{refused:?}");
    assert_eq!(homing.metric("homing_sessions", &[]).await, 0.0);
    assert_eq!(homing.metric(TOKENS, &[]).await, 0.0);
}

#[tokio::test]
async fn parallel_first_requests_of_one_connection_are_one_session() {
    let backends = backends(3);
    let homing = Setup::new(&backends).issue("").start().await;
    let connection = Client::h2(&homing).connect().await;
    let answers = futures_util::future::join_all((0..6).map(|_| connection.get("/").send())).await;
    let homes: BTreeSet<_> = answers.iter().map(Answer::text).collect();
    assert_eq!(homes.len(), 1, "{homes:?}");
    assert_eq!(homing.metric("homing_sessions", &[]).await, 1.0);
    for answer in &answers {
        let mut jar = Jar::default();
        jar.store(&answer.headers);
        let again = Client::h1(&homing).get("/").jar(&jar).send().await;
        assert_eq!(Some(again.text()), homes.first().copied());
    }
}

#[tokio::test]
async fn a_client_that_was_told_its_session_shares_it_with_no_other_on_its_connection() {
    let backends = backends(3);
    let homing = Setup::new(&backends).issue("").start().await;
    let connection = Client::h1(&homing).connect().await;
    for _ in 0..6 {
        connection.get("/").send().await;
    }
    assert_eq!(homing.metric("homing_sessions", &[]).await, 6.0);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_no_burst() {
    let backends = backends(1);
    let setup = Setup::new(&backends).issue("").top("trusted_proxies = [\"127.0.0.1\"]");
    let homing = setup.start().await;
    let connection = Client::h1(&homing).connect().await;
    for _ in 0..5 {
        connection.get("/").send().await;
    }
    assert_eq!(homing.metric("homing_sessions", &[]).await, 5.0);
}

#[tokio::test]
async fn after_a_restart_with_the_same_key_file_everybody_is_at_home() {
    let (backends, keys) = (backends(3), Keys::new(&[1]));
    let users = {
        let homing = Setup::new(&backends).issue(&keys.config()).start().await;
        visitors(&homing, 9).await
    };
    let homing = Setup::new(&backends).issue(&keys.config()).start().await;
    for (jar, home) in &users {
        let back = Client::h1(&homing).get("/").jar(jar).send().await;
        assert_eq!((back.text(), set(&back).len()), (&**home, 0));
    }
    let records =
        homing.process.access_record("a session known by its token", |r| r["reason"] == "token").await;
    assert_eq!(records["verdict"], "home");
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value("homing_sessions", &[("state", "live")]), 9.0);
    assert_eq!(metrics.value("homing_affinity_requests_total", &[("verdict", "home")]), 9.0);
}

#[tokio::test]
async fn replicas_with_the_same_key_file_agree() {
    let (backends, keys) = (backends(3), Keys::new(&[1]));
    let one = Setup::new(&backends).issue(&keys.config()).start().await;
    let other = Setup::new(&backends).issue(&keys.config()).start().await;
    for (jar, home) in visitors(&one, 6).await {
        assert_eq!(Client::h2(&other).get("/").jar(&jar).send().await.text(), home);
    }
}

#[tokio::test]
async fn without_a_key_file_a_warning_says_that_cookies_die_with_the_process() {
    let backends = backends(1);
    let homing = Setup::new(&backends).issue("").start().await;
    let (jar, _) = first_visit(&Client::h1(&homing)).await;
    let said = |line: &str| (line.contains("WARN") && line.contains("die with this process")).then_some(());
    assert!(homing.process.stderr.find("a warning", said).await.is_some());
    let next = Setup::new(&backends).issue("").start().await;
    let replaced = Client::h1(&next).get("/").jar(&jar).send().await;
    assert!(replaced.cookie(COOKIE).is_some_and(|token| Some(token) != jar.value(COOKIE)));
    assert_eq!(next.metric(TOKENS, &[("result", "tampered")]).await, 1.0);
}

#[tokio::test]
async fn keys_are_rotated_without_anybody_leaving_home() {
    let (backends, keys) = (backends(3), Keys::new(&[1]));
    let mut users = {
        let homing = Setup::new(&backends).issue(&keys.config()).start().await;
        visitors(&homing, 6).await
    };
    for (step, renewed) in [(&[1, 2][..], 0), (&[2, 1], 6), (&[2], 0)] {
        keys.write(step);
        let homing = Setup::new(&backends).issue(&keys.config()).start().await;
        for (jar, home) in &mut users {
            let answer = Client::h1(&homing).get("/").jar(jar).send().await;
            assert_eq!(answer.text(), home, "with the keys {step:?}");
            jar.store(&answer.headers);
        }
        assert_eq!(homing.metric(TOKENS, &[("result", "renewed")]).await, f64::from(renewed), "{step:?}");
        assert_eq!(homing.metric(TOKENS, &[("result", "accepted")]).await, 6.0, "{step:?}");
    }
}

#[tokio::test]
async fn a_reload_takes_up_other_keys_and_keeps_the_old_ones_when_they_are_bad() {
    let (backends, keys) = (backends(2), Keys::new(&[1]));
    let homing = Setup::new(&backends).issue(&keys.config()).start().await;
    let reload = async |result, count| {
        homing.process.signal("HUP");
        homing.wait_for_metric("homing_config_reloads_total", &[("result", result)], count).await;
    };
    let client = Client::h1(&homing);
    let (mut jar, home) = first_visit(&client).await;
    let before = homing.metric("homing_config_reloads_total", &[("result", "ok")]).await;
    for (step, ok) in [(&[2, 1][..], before + 1.0), (&[2], before + 2.0)] {
        keys.write(step);
        reload("ok", ok).await;
        let answer = client.get("/").jar(&jar).send().await;
        assert_eq!(answer.text(), home, "with the keys {step:?}");
        jar.store(&answer.headers);
    }
    fs::write(&keys.file, "no key").expect("our file");
    reload("failed", 1.0).await;
    assert_eq!(set(&client.get("/").jar(&jar).send().await), [""; 0], "the last good key still opens");
    assert_eq!(homing.metric(TOKENS, &[("result", "renewed")]).await, 1.0);
    assert_eq!(homing.metric(TOKENS, &[("result", "tampered")]).await, 0.0);
}

#[tokio::test]
async fn a_bad_token_is_replaced_and_counted() {
    let backends = backends(2);
    let homing = Setup::new(&backends).issue("").start().await;
    let client = Client::h1(&homing);
    let (jar, _) = first_visit(&client).await;
    let good = jar.value(COOKIE).expect("issued");
    let other = if good[50..].starts_with('A') { 'B' } else { 'A' };
    let tampered = format!("{}{other}{}", &good[..50], &good[51..]);
    let long = "A".repeat(2000);
    for (token, result, count) in
        [(&*tampered, "tampered", 1.0), ("session-1", "malformed", 1.0), (&long, "malformed", 2.0)]
    {
        let answer = client.get("/").cookie(COOKIE, token).send().await;
        assert!(answer.cookie(COOKIE).is_some_and(|set| set != token && set != good), "{result}");
        assert_eq!(homing.metric(TOKENS, &[("result", result)]).await, count);
    }
    let labels = [("verdict", "placed")];
    assert_eq!(homing.metric("homing_affinity_requests_total", &labels).await, 4.0);
}

#[tokio::test]
async fn of_several_cookies_of_the_name_the_first_good_one_counts() {
    let backends = backends(3);
    let homing = Setup::new(&backends).issue("").start().await;
    for (jar, home) in visitors(&homing, 6).await {
        let token = jar.value(COOKIE).expect("issued");
        for cookies in [
            format!("{COOKIE}=stale; {COOKIE}={token}"),
            format!("{COOKIE}={token}; {COOKIE}=stale"),
            format!("{COOKIE}=; x=1; {COOKIE}=\"{token}\""),
        ] {
            let answer = Client::h1(&homing).get("/").header("cookie", &cookies).send().await;
            assert_eq!((answer.text(), set(&answer).len()), (&*home, 0));
        }
    }
}

#[tokio::test]
async fn a_client_whose_home_died_gets_a_token_for_its_new_one() {
    let (mut backends, keys) = (backends(2), Keys::new(&[1]));
    let homing = Setup::new(&backends).issue(&keys.config()).start().await;
    let client = Client::h1(&homing);
    let (mut jar, home) = first_visit(&client).await;
    let dead = backends.iter_mut().find(|backend| backend.name == home).expect("one of them");
    dead.stop().await;
    let moved = client.get("/").jar(&jar).send().await;
    assert_eq!(moved.status, StatusCode::OK);
    let new_home = moved.text().to_owned();
    assert_ne!(new_home, home);
    assert!(moved.cookie(COOKIE).is_some());
    jar.store(&moved.headers);
    dead.restart();
    drop(homing);
    // Only the token can know.
    let next = Setup::new(&backends).issue(&keys.config()).start().await;
    assert_eq!(Client::h1(&next).get("/").jar(&jar).send().await.text(), new_home);
    assert_eq!(next.metric("homing_sessions", &[]).await, 1.0);
}

#[tokio::test]
async fn a_token_is_renewed_while_it_is_used_and_expires_when_it_is_not() {
    let backends = backends(2);
    let setup = Setup::new(&backends).issue("").session_timeout("1s").affinity("ttl = \"2s\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let (first, home) = first_visit(&client).await;
    let mut jar = first.clone();
    let mut renewals = 0;
    eventually("the token is renewed time and again", async || {
        let answer = client.get("/").jar(&jar).send().await;
        assert_eq!(answer.text(), home);
        renewals += set(&answer).len();
        jar.store(&answer.headers);
        // Five half seconds and more: beyond the end of the first one.
        renewals >= 6
    })
    .await;
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value(TOKENS, &[("result", "issued")]), 1.0, "it is one session all the time");
    assert_eq!(metrics.value("homing_sessions", &[]), 1.0);
    homing.wait_for_metric("homing_sessions", &[], 0.0).await;
    let late = client.get("/").jar(&first).send().await;
    assert!(late.cookie(COOKIE).is_some());
    assert_eq!(homing.metric(TOKENS, &[("result", "expired")]).await, 1.0);
}

#[tokio::test]
async fn a_websocket_opens_and_holds_an_issued_session() {
    let backend = Backend::start("app-1", |request| async { support::echo::accept(request) });
    let setup = Setup::new([&backend]).issue("").session_timeout("300ms").affinity("ttl = \"600ms\"");
    let homing = setup.start().await;
    let socket = Client::h1(&homing).websocket("/ws", "").await;
    homing.wait_for_metric("homing_affinity_streams", &[], 1.0).await;
    assert_eq!(homing.metric(TOKENS, &[("result", "issued")]).await, 1.0);
    drop(socket);
    homing.wait_for_metric("homing_sessions", &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_longer_than_the_ttl_keeps_its_client_at_home() {
    let backend = |name: String| {
        let body = name.clone();
        Backend::start(&name, move |request| {
            let body = body.clone();
            std::future::ready(match request.uri().path() {
                "/ws" => support::echo::accept(request),
                _ => answer(StatusCode::OK, body),
            })
        })
    };
    let backends: Vec<_> = (1..=3).map(|number| backend(format!("app-{number}"))).collect();
    let setup = Setup::new(&backends).issue("").session_timeout("300ms").affinity("ttl = \"600ms\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let (jar, home) = first_visit(&client).await;
    let cookie = format!("{COOKIE}={}", jar.value(COOKIE).expect("issued"));
    let socket = client.websocket("/ws", &cookie).await;
    // Two sessions that come and go, one after the other: twice the ttl.
    for gone in [1.0, 2.0] {
        first_visit(&client).await;
        homing.wait_for_metric("homing_affinity_ended_total", &[("reason", "expired")], gone).await;
    }
    let back = client.get("/").jar(&jar).send().await;
    assert_eq!(back.text(), home);
    assert!(back.cookie(COOKIE).is_some(), "renewed at the first opportunity");
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value(TOKENS, &[("result", "issued")]), 3.0);
    assert_eq!(metrics.value(TOKENS, &[("result", "renewed")]), 1.0);
    drop(socket);
}

#[tokio::test]
async fn a_key_file_is_refused_with_what_to_do_about_it() {
    let backends = backends(1);
    for subcommand in ["serve", "check"] {
        let keys = Keys::new(&[1]);
        fs::set_permissions(&keys.file, Permissions::from_mode(0o644)).expect("our file");
        let ended = Setup::new(&backends).issue(&keys.config()).run_to_end(subcommand).await;
        assert!(!ended.status.success(), "{subcommand}");
        let remedy = format!("chmod 600 {}", keys.file.display());
        assert!(ended.stderr.contains(&remedy), "{subcommand}: {}", ended.stderr);
        fs::remove_file(&keys.file).expect("our file");
        let ended = Setup::new(&backends).issue(&keys.config()).run_to_end(subcommand).await;
        assert!(ended.stderr.contains("openssl rand -base64 32"), "{subcommand}: {}", ended.stderr);
    }
}

/// A key file of a test.
struct Keys {
    _directory: TempDir,
    file: PathBuf,
}

impl Keys {
    /// Each number is a key.
    fn new(keys: &[u8]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("issue.keys");
        let keys_in_file = Self { _directory: directory, file };
        keys_in_file.write(keys);
        keys_in_file
    }

    fn write(&self, keys: &[u8]) {
        let lines: Vec<String> = keys.iter().map(|key| format!("{key:02x}").repeat(32)).collect();
        fs::write(&self.file, lines.join("\n")).expect("our file");
        fs::set_permissions(&self.file, Permissions::from_mode(0o600)).expect("our file");
    }

    fn config(&self) -> String {
        let file: &Path = &self.file;
        format!("key_file = \"{}\"", file.display())
    }
}

/// Applications that set no cookie, and answer their name.
fn backends(count: usize) -> Vec<Backend> {
    (1..=count).map(|number| Backend::plain(&format!("app-{number}"))).collect()
}

/// A client's first request: its cookies, and its home.
async fn first_visit(client: &Client) -> (Jar, String) {
    let answer = client.get("/").send().await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut jar = Jar::default();
    jar.store(&answer.headers);
    (jar, answer.text().to_owned())
}

async fn visitors(homing: &Homing, count: usize) -> Vec<(Jar, String)> {
    let client = Client::h1(homing);
    futures_util::stream::iter(0..count).then(async |_| first_visit(&client).await).collect().await
}

/// The Set-Cookie fields of an answer.
fn set(answer: &Answer) -> Vec<String> {
    let fields = answer.headers.get_all(SET_COOKIE).iter();
    fields.map(|field| field.to_str().expect("ASCII").to_owned()).collect()
}
