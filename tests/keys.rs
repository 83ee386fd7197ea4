//! Where session ids are found, seen from outside: the well-known cookies, ids in the target, ids that clients make.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderValue, Method, Response, header::SET_COOKIE};

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client},
    metrics::Metrics,
    operator,
    setup::Setup,
};

const UNFIT: &str = "homing_affinity_key_unfit";

#[tokio::test]
async fn the_default_key_finds_the_well_known_session_cookies() {
    for name in ["session", "JSESSIONID", "PHPSESSID", "connect.sid", "ASP.NET_SessionId", "CGISESSID"] {
        let apps = setting(name, 3);
        let homing = Setup::new(&apps).key("").start().await;
        let client = Client::h1(&homing);
        for _ in 0..4 {
            let first = client.get("/").send().await;
            let id = first.cookie(name).expect("a cookie").to_owned();
            for _ in 0..3 {
                let next = client.get("/").header("cookie", &format!("_ga=1; {name}={id}")).send().await;
                assert_eq!(next.text(), first.text(), "{name}");
            }
        }
        assert_eq!(homing.metric("homing_sessions", &[]).await, 4.0, "{name}");
    }
}

#[tokio::test]
async fn another_applications_cookie_does_not_hide_the_one_that_responses_set() {
    let apps = setting("PHPSESSID", 3);
    let homing = Setup::new(&apps).key("").start().await;
    let client = Client::h1(&homing);
    for user in 0..8 {
        // Of another application on this host, and an earlier name in the list.
        let first = client.get("/").cookie("JSESSIONID", &format!("other-{user}")).send().await;
        let id = first.cookie("PHPSESSID").expect("a cookie").to_owned();
        for changed in 0..3 {
            let cookies = format!("JSESSIONID=other-{user}-{changed}; PHPSESSID={id}");
            let next = client.get("/").header("cookie", &cookies).send().await;
            assert_eq!(next.text(), first.text());
        }
    }
}

#[tokio::test]
async fn a_path_parameter_and_the_cookie_of_one_id_are_one_session() {
    let apps = setting("JSESSIONID", 3);
    let keys = "[\"cookie:JSESSIONID\", \"path-parameter:jsessionid\"]";
    let homing = Setup::new(&apps).key(keys).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for _ in 0..6 {
            let first = client.get("/").send().await;
            let id = first.cookie("JSESSIONID").expect("a cookie").to_owned();
            for path in [format!("/a;jsessionid={id}"), format!("/a;v=1;jsessionid={id}/b?c=d")] {
                assert_eq!(client.get(&path).send().await.text(), first.text(), "{path}");
            }
        }
    }
    assert_eq!(homing.metric("homing_sessions", &[]).await, 12.0);
}

#[tokio::test]
async fn a_query_id_of_a_body_follows_its_connection_and_is_then_known_on_all() {
    // As Engine.IO does it: the first body tells the id, and only its server knows it.
    let apps = several(3, |_, _| answer(http::StatusCode::OK, ""));
    let homing = Setup::new(&apps).key("query:sid").start().await;
    for protocol in BOTH {
        for user in 0..12 {
            let connection = Client::new(&homing, protocol).connect().await;
            let first = connection.get("/socket.io/?EIO=4&transport=polling").send().await;
            let path = format!("/socket.io/?EIO=4&transport=polling&sid=of-{protocol:?}-{user}");
            let next = connection.get(&path).send().await;
            assert_eq!(next.header("x-backend"), first.header("x-backend"));
            let encoded = path.replace("of-", "of%2D");
            let elsewhere = Client::new(&homing, protocol).get(&encoded).send().await;
            assert_eq!(elsewhere.header("x-backend"), first.header("x-backend"));
        }
    }
}

#[tokio::test]
async fn ids_in_the_target_are_not_logged() {
    let apps = several(1, |_, _| answer(http::StatusCode::OK, ""));
    let homing = Setup::new(&apps).key("query:sid").top("log_query = true").start().await;
    let client = Client::h1(&homing);
    client.get("/a;jsessionid=verysecret?x=1&sid=verysecret&y=2").send().await;
    let record = homing.process.access_record("the request", |record| record["method"] == "GET").await;
    assert_eq!(record["path"], "/a;jsessionid=-?x=1&sid=-&y=2");
}

#[tokio::test]
async fn unknown_ids_are_spread_by_the_balance_if_so_configured() {
    let apps = several(4, |_, _| answer(http::StatusCode::OK, ""));
    let homing = Setup::new(&apps).key("bearer").affinity("on_unknown = \"place\"").start().await;
    let client = Client::h1(&homing);
    let mut homes: BTreeMap<String, usize> = BTreeMap::new();
    for user in 0..8 {
        let token = format!("Bearer token-{user}");
        let home =
            client.get("/").header("authorization", &token).send().await.header("x-backend").to_owned();
        let again = client.get("/").header("authorization", &token).send().await;
        assert_eq!(again.header("x-backend"), home);
        *homes.entry(home).or_default() += 1;
    }
    assert_eq!(homes.values().copied().collect::<Vec<_>>(), [2, 2, 2, 2], "{homes:?}");
    let explained = operator::run_reading(&homing, &["explain", "-"], "token-unknown").await;
    assert!(explained.stderr.contains("placed like one without an id"), "{explained:?}");
}

#[tokio::test]
async fn the_answer_to_a_preflight_begins_no_session() {
    let apps = setting("session", 2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    for _ in 0..3 {
        let preflight = client.request(Method::OPTIONS, "/").header("origin", "https://other.test");
        let answer = preflight.header("access-control-request-method", "PUT").send().await;
        assert!(answer.cookie("session").is_some(), "it passes as it is");
    }
    assert_eq!(homing.metric("homing_sessions", &[]).await, 0.0);
    client.request(Method::OPTIONS, "/").send().await;
    homing.wait_for_metric("homing_sessions", &[("state", "live")], 1.0).await;
}

#[tokio::test]
async fn a_key_that_no_response_sets_is_told_with_the_one_that_they_do_set() {
    let apps = setting("SHOPSESSID", 2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    homing.process.stderr.wait_for("sessions by cookie:session,").await;
    // What one client has left over proves nothing, although backends accept it.
    client.get("/").header("cookie", "session=left-over").send().await;
    for _ in 0..60 {
        client.get("/").send().await;
    }
    let said = homing.process.stderr.wait_for("no response sets cookie:session").await;
    assert!(said.contains("`SHOPSESSID`") && said.contains("key = \"cookie:SHOPSESSID\""), "{said}");
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value(UNFIT, &[("cookie", "SHOPSESSID")]), 1.0);
    let status = operator::run(&homing, &["status"]).await.stdout;
    assert!(status.contains("WARNING") && status.contains("cookie:SHOPSESSID"), "{status}");
    assert_eq!(homing.process.stderr.text().matches("no response sets").count(), 1, "once");
}

#[tokio::test]
async fn an_application_without_a_cookie_is_pointed_to_issue() {
    let apps = several(1, |_, _| answer(http::StatusCode::OK, ""));
    let homing = Setup::new(&apps).key("").start().await;
    let client = Client::h1(&homing);
    for _ in 0..60 {
        client.get("/").send().await;
    }
    let said = homing.process.stderr.wait_for("set no session cookie at all").await;
    assert!(said.contains("`issue = {}`") && said.contains("--issue"), "{said}");
}

#[tokio::test]
async fn status_and_log_say_by_which_cookie_sessions_are_kept() {
    let apps = setting("PHPSESSID", 2);
    let homing = Setup::new(&apps).key("").start().await;
    let client = Client::h1(&homing);
    for _ in 0..60 {
        client.get("/").send().await;
    }
    homing.process.stderr.wait_for("cookie:PHPSESSID").await;
    homing.wait_for_metric("homing_affinity_ids_set_total", &[("key", "cookie:PHPSESSID")], 60.0).await;
    assert_eq!(homing.metric(UNFIT, &[]).await, 0.0);
    let status = operator::run(&homing, &["status"]).await.stdout;
    assert!(status.contains("sessions by cookie:PHPSESSID (set by 60)"), "{status}");
    assert!(!status.contains("WARNING"), "{status}");
}

/// Applications that name themselves in the body and give each request without their cookie a new one.
fn setting(name: &'static str, count: usize) -> Vec<Backend> {
    several(count, move |cookies, number| {
        let mut answer = answer(http::StatusCode::OK, "");
        if !cookies.contains(&format!("{name}=id-of-")) {
            let cookie = format!("{name}=id-of-session-{number}; Path=/; HttpOnly");
            answer.headers_mut().insert(SET_COOKIE, HeaderValue::from_str(&cookie).expect("a value"));
        }
        answer
    })
}

/// Applications that answer as they are told, given the Cookie field and a number that no other request has, and name
/// themselves in `x-backend` and the body.
fn several(
    count: usize,
    answer: impl Fn(&str, usize) -> Response<support::flow::Body> + Copy + Send + Sync + 'static,
) -> Vec<Backend> {
    let next = Arc::new(AtomicUsize::new(0));
    (1..=count)
        .map(|app| {
            let (name, next) = (format!("app-{app}"), Arc::clone(&next));
            Backend::start(&name.clone(), move |request| {
                let cookies = request.headers().get("cookie").and_then(|value| value.to_str().ok());
                let told = answer(cookies.unwrap_or_default(), next.fetch_add(1, Ordering::Relaxed));
                let (mut parts, _) = told.into_parts();
                parts.headers.insert("x-backend", HeaderValue::from_str(&name).expect("a value"));
                let named = support::backend::answer(http::StatusCode::OK, name.clone()).into_body();
                std::future::ready(Response::from_parts(parts, named))
            })
        })
        .collect()
}
