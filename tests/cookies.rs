//! A cookie is its name, its domain and its path, seen from outside: what browsers keep beside each other are
//! sessions beside each other, and each id that a browser may still have leads home.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::path::Path;

use futures_util::future::join_all;
use http::{
    HeaderValue, StatusCode,
    header::{DATE, SET_COOKIE},
};

use self::support::{
    backend::{Backend, answer},
    client::{BOTH, Client},
    eventually,
    process::Homing,
    redis::RedisServer,
    replicas::Replicas,
    setup::Setup,
};

const USERS: usize = 8;

#[tokio::test]
async fn two_applications_with_one_cookie_name_keep_each_their_sessions() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    let mut homes = Vec::new();
    for n in 0..USERS {
        let (root, shop) = (format!("session=root-{n}"), format!("session=shop-{n}"));
        let home = ask(&client, "/", &[], &[&format!("{root}; Path=/")]).await;
        // The other application does not know the id that it gets.
        let other = ask(&client, "/shop", &[&root], &[&format!("{shop}; Path=/shop")]).await;
        assert_eq!(other, home);
        homes.push((root, shop, home));
    }
    assert_eq!(sessions(&homing).await, 2 * USERS);
    grace_is_over(&homing).await;
    for (root, shop, home) in &homes {
        assert_eq!(&ask(&client, "/", &[root], &[]).await, home, "{root}");
        // Longer paths come first (RFC 6265 §5.4).
        assert_eq!(&ask(&client, "/shop", &[shop, root], &[]).await, home, "{shop}");
    }
}

#[tokio::test]
async fn of_two_ids_in_one_request_the_one_in_the_same_cookie_is_replaced() {
    let (homing, _apps) = start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let mut homes = Vec::new();
        for n in 0..USERS {
            let (root, shop, home) = two(&client, &format!("{protocol:?}-{n}")).await;
            let next = format!("{root}-next");
            ask(&client, "/shop", &[&shop, &root], &[&format!("{next}; Path=/")]).await;
            homes.push((next, shop, home));
        }
        grace_is_over(&homing).await;
        for (root, shop, home) in &homes {
            assert_eq!(&ask(&client, "/shop", &[shop], &[]).await, home, "{shop}");
            // The shop's backend gave it its new id.
            assert_eq!(&ask(&client, "/", &[root], &[]).await, home, "{root}");
        }
    }
}

#[tokio::test]
async fn of_two_ids_in_one_request_the_one_in_the_deleted_cookie_ends() {
    let (homing, _apps) = start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        let before = sessions(&homing).await;
        let mut homes = Vec::new();
        for n in 0..USERS {
            let (root, shop, home) = two(&client, &format!("{protocol:?}-{n}")).await;
            ask(&client, "/shop", &[&shop, &root], &["session=; Path=/; Max-Age=0"]).await;
            homes.push((shop, home));
        }
        assert_eq!(sessions(&homing).await - before, USERS);
        grace_is_over(&homing).await;
        for (shop, home) in &homes {
            assert_eq!(&ask(&client, "/shop", &[shop], &[]).await, home, "{shop}");
        }
    }
}

#[tokio::test]
async fn http2_cookies_in_fields_of_their_own_are_kept_apart() {
    let (homing, _apps) = start().await;
    let client = Client::h2(&homing);
    let mut homes = Vec::new();
    for n in 0..USERS {
        let (root, shop, home) = two(&client, &format!("crumbs-{n}")).await;
        let call = client.get("/shop").header("cookie", &shop).header("cookie", "lang=en");
        call.header("cookie", &root).header("x-set", "session=; Path=/; Max-Age=0").send().await;
        homes.push((shop, home));
    }
    assert_eq!(sessions(&homing).await, USERS);
    grace_is_over(&homing).await;
    for (shop, home) in &homes {
        assert_eq!(&ask(&client, "/shop", &[shop], &[]).await, home, "{shop}");
    }
}

#[tokio::test]
async fn a_deletion_for_another_path_or_domain_ends_nothing() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    ask(&client, "/", &[], &["session=one; Path=/"]).await;
    for deletion in [
        "session=; Path=/shop; Max-Age=0",
        "session=gone; Path=/; Domain=localhost; Max-Age=-1",
        "session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/shop/",
    ] {
        ask(&client, "/shop/x", &["session=one"], &[deletion]).await;
        assert_eq!(sessions(&homing).await, 1, "{deletion}");
    }
    // Without a path, it is for the directory that was asked.
    ask(&client, "/shop/x", &["session=one"], &["session=; Max-Age=0"]).await;
    assert_eq!(sessions(&homing).await, 1);
    ask(&client, "/x", &["session=one"], &["session=; Max-Age=0"]).await;
    assert_eq!(sessions(&homing).await, 0);
}

#[tokio::test]
async fn a_new_id_and_the_deletion_of_a_leftover_are_read_each_by_its_scope() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    let mut homes = Vec::new();
    for n in 0..USERS {
        let home = ask(&client, "/", &[], &[&format!("session=old-{n}; Path=/")]).await;
        let new = format!("session=new-{n}; Path=/");
        let mut sets = [&*new, "session=; Path=/shop; Max-Age=0"];
        if n % 2 == 0 {
            sets.reverse();
        }
        ask(&client, "/", &[&format!("session=old-{n}")], &sets).await;
        homes.push(home);
    }
    assert_eq!(sessions(&homing).await, USERS);
    grace_is_over(&homing).await;
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(&ask(&client, "/", &[&format!("session=new-{n}")], &[]).await, home, "{n}");
    }
}

#[tokio::test]
async fn a_replaced_id_leads_home_long_after_the_grace() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    let mut homes = Vec::new();
    for n in 0..USERS {
        homes.push(rotated(&client, n, 3).await);
    }
    assert_eq!(sessions(&homing).await, USERS);
    grace_is_over(&homing).await;
    for (n, home) in homes.iter().enumerate() {
        for step in 0..=3 {
            let id = format!("session=of-{n}-{step}");
            assert_eq!(&ask(&client, "/", &[&id], &[]).await, home, "{id}");
        }
    }
}

#[tokio::test]
async fn every_value_of_a_cookie_that_parallel_answers_encrypt_leads_home() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    let mut all = vec!["session=first".to_owned()];
    let home = ask(&client, "/", &[], &["session=first; Path=/"]).await;
    for round in 0..5 {
        let has = all.last().expect("one").clone();
        let values: Vec<String> = (0..16).map(|n| format!("session=value-{round}-{n}")).collect();
        let asked = values.iter().map(|value| {
            let (client, has) = (&client, &has);
            async move { ask(client, "/", &[has], &[&format!("{value}; Path=/")]).await }
        });
        assert!(join_all(asked).await.iter().all(|backend| *backend == home));
        all.extend(values);
    }
    grace_is_over(&homing).await;
    for value in &all {
        assert_eq!(ask(&client, "/", &[value], &[]).await, home, "{value}");
    }
}

#[tokio::test]
async fn expires_is_judged_by_the_clock_of_its_backend() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    let ask = async |cookie: &str, date: &str, set: &str| {
        let call = client.get("/").header("cookie", cookie).header("x-date", date);
        call.header("x-set", set).send().await;
        sessions(&homing).await
    };
    // A clock that is far behind, and one that is far ahead.
    let (behind, ahead) = ("Thu, 01 Jan 2015 10:00:00 GMT", "Thu, 01 Jan 2099 10:00:00 GMT");
    let set = "session=one; Path=/; Expires=Thu, 01 Jan 2015 12:00:00 GMT";
    assert_eq!(ask("other=1", behind, set).await, 1, "set for two hours");
    let deleted = "session=x; Path=/; Expires=Thu, 01 Jan 2099 09:00:00 GMT";
    assert_eq!(ask("session=one", ahead, deleted).await, 0, "deleted an hour ago");
}

#[tokio::test]
async fn a_session_that_begins_on_a_skipped_path_goes_home() {
    let (homing, _apps) = start_with(|setup| setup.affinity("skip = [\"/public\"]")).await;
    let client = Client::h1(&homing);
    let mut homes = Vec::new();
    for n in 0..USERS {
        homes.push(ask(&client, "/public", &[], &[&format!("session=of-{n}; Path=/")]).await);
    }
    assert_eq!(sessions(&homing).await, USERS);
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(&ask(&client, "/", &[&format!("session=of-{n}")], &[]).await, home, "{n}");
    }
}

#[tokio::test]
async fn an_answer_on_a_skipped_path_moves_no_session() {
    let (homing, _apps) = start_with(|setup| setup.affinity("skip = [\"/public\"]")).await;
    let client = Client::h1(&homing);
    let home = ask(&client, "/", &[], &["session=one; Path=/"]).await;
    for _ in 0..USERS {
        ask(&client, "/public", &["session=one"], &["session=one; Path=/"]).await;
        assert_eq!(ask(&client, "/", &["session=one"], &[]).await, home);
    }
    assert_eq!((moves(&homing).await, sessions(&homing).await), (0, 1));
}

#[tokio::test]
async fn one_cookie_is_the_same_in_all_its_spellings() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    for (asked, first, next, others) in [
        ("/shop/cart", "Path=/shop", "HttpOnly", 0),
        ("/shop", "Path=/", "Secure", 0),
        ("/shop", "Path=/", "Path=shop", 0),
        ("/", "Domain=.LOCALHOST; Path=/", "path=/; domain=localhost", 0),
        ("/", "Path=/a; Path=/", "Path=/", 0),
        ("/shop/cart", "Path=/shop", "Path=/shop/", 1),
        ("/", "Domain=localhost; Path=/", "Path=/", 1),
        ("/shop/", "Path=/", "Secure", 1),
    ] {
        let before = sessions(&homing).await;
        let (one, two) = (format!("session=1-{before}"), format!("session=2-{before}"));
        ask(&client, asked, &[], &[&format!("{one}; {first}")]).await;
        ask(&client, asked, &[&one], &[&format!("{two}; {next}")]).await;
        assert_eq!(sessions(&homing).await - before, 1 + others, "{asked}: {first}, then {next}");
    }
}

#[tokio::test]
async fn cookies_of_two_hosts_are_two() {
    let (homing, _apps) = start().await;
    let client = Client::h1(&homing);
    let ask = async |host: &str, cookie: &str, set: &str| {
        let call = client.get("/").authority(host).header("cookie", cookie);
        call.header("x-set", set).send().await;
        sessions(&homing).await
    };
    assert_eq!(ask("a.test", "other=1", "session=1; Path=/").await, 1);
    assert_eq!(ask("A.test:8443", "session=1", "session=2; Path=/").await, 1, "replaced");
    assert_eq!(ask("www.a.test", "session=2", "session=3; Path=/").await, 2, "beside");
    assert_eq!(ask("www.a.test", "session=2", "session=; Path=/; Max-Age=0").await, 2, "of another host");
}

#[tokio::test]
async fn a_restart_forgets_neither_scope_nor_replaced_ids() {
    let (apps, directory) = (puppets(), tempfile::tempdir().expect("a directory"));
    let setup = || with_state(&apps, "file", &directory.path().join("state"));
    let homing = setup().start().await;
    let home = rotated(&Client::h1(&homing), 0, 3).await;
    homing.process.terminate();
    let ended = homing.process.wait_exit().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let homing = setup().start().await;
    goes_on(&homing, &home).await;
}

#[tokio::test]
async fn a_take_over_forgets_neither_scope_nor_replaced_ids() {
    let (apps, directory) = (puppets(), tempfile::tempdir().expect("a directory"));
    let setup = || with_state(&apps, "handover", &directory.path().join("socket"));
    let old = setup().start().await;
    let home = rotated(&Client::h1(&old), 0, 3).await;
    let new = setup().takeover().start().await;
    assert!(old.process.wait_exit().await.status.success());
    goes_on(&new, &home).await;
}

#[tokio::test]
async fn a_replica_that_starts_later_knows_scope_and_replaced_ids() {
    let (apps, redis, replicas) = (puppets(), RedisServer::start().await, Replicas::new());
    let one = replicas.start(Setup::new(&apps), "one", &redis.url(), "").await;
    let home = rotated(&Client::h1(&one), 0, 30).await;
    let two = replicas.start(Setup::new(&apps), "two", &redis.url(), "").await;
    let client = Client::h1(&two);
    for step in 0..30 {
        let id = format!("session=of-0-{step}");
        assert_eq!(ask(&client, "/", &[&id], &[]).await, home, "{id}");
    }
    assert_eq!(sessions(&two).await, 1);
    ask(&client, "/", &["session=of-0-30"], &["session=next; Path=/"]).await;
    assert_eq!(sessions(&two).await, 1, "replaced");
    ask(&client, "/", &["session=next"], &["session=shop; Path=/shop"]).await;
    assert_eq!(sessions(&two).await, 2, "beside");
}

/// A session goes on in another process as it would have in its first.
async fn goes_on(homing: &Homing, home: &str) {
    let client = Client::h1(homing);
    for step in 0..=3 {
        let id = format!("session=of-0-{step}");
        assert_eq!(ask(&client, "/", &[&id], &[]).await, home, "{id}");
    }
    ask(&client, "/", &["session=of-0-3"], &["session=next; Path=/"]).await;
    assert_eq!(sessions(homing).await, 1, "replaced");
    ask(&client, "/", &["session=next"], &["session=shop; Path=/shop"]).await;
    assert_eq!(sessions(homing).await, 2, "beside");
    ask(&client, "/", &["session=next"], &["session=; Path=/; Max-Age=0"]).await;
    assert_eq!(sessions(homing).await, 1, "ended");
}

/// Begins a session and gives it another id as often; its home.
async fn rotated(client: &Client, n: usize, times: usize) -> String {
    let home = ask(client, "/", &[], &[&format!("session=of-{n}-0; Path=/")]).await;
    for step in 0..times {
        let set = format!("session=of-{n}-{}; Path=/", step + 1);
        assert_eq!(ask(client, "/", &[&format!("session=of-{n}-{step}")], &[&set]).await, home);
    }
    home
}

/// Begins a session for `/` and one for `/shop`; their cookies, and the home of the latter.
async fn two(client: &Client, user: &str) -> (String, String, String) {
    let (root, shop) = (format!("session=root-{user}"), format!("session=shop-{user}"));
    ask(client, "/", &[], &[&format!("{root}; Path=/")]).await;
    let home = ask(client, "/shop", &[], &[&format!("{shop}; Path=/shop")]).await;
    (root, shop, home)
}

/// Asks with these cookies an application that sets those; who answered.
async fn ask(client: &Client, path: &str, cookies: &[&str], sets: &[&str]) -> String {
    let mut call = client.get(path);
    if !cookies.is_empty() {
        call = call.header("cookie", &cookies.join("; "));
    }
    for set in sets {
        call = call.header("x-set", set);
    }
    call.send().await.header("x-backend").to_owned()
}

async fn start() -> (Homing, Vec<Backend>) {
    start_with(|setup| setup).await
}

async fn start_with(more: impl FnOnce(Setup) -> Setup) -> (Homing, Vec<Backend>) {
    let apps = puppets();
    let homing = more(Setup::new(&apps).affinity("grace = \"100ms\"")).start().await;
    (homing, apps)
}

fn with_state(apps: &[Backend], key: &str, file: &Path) -> Setup {
    Setup::new(apps).section(&format!("[state]\n{key} = {:?}", file.display().to_string()))
}

/// Three applications that set what a request's `x-set` fields say, and tell the time of its `x-date`.
fn puppets() -> Vec<Backend> {
    (1..=3).map(|number| puppet(&format!("app-{number}"))).collect()
}

fn puppet(name: &str) -> Backend {
    let own: HeaderValue = name.parse().expect("a valid field value");
    Backend::start(name, move |request| {
        let mut response = answer(StatusCode::OK, "");
        let headers = response.headers_mut();
        headers.insert("x-backend", own.clone());
        for set in request.headers().get_all("x-set") {
            headers.append(SET_COOKIE, set.clone());
        }
        if let Some(date) = request.headers().get("x-date") {
            headers.insert(DATE, date.clone());
        }
        std::future::ready(response)
    })
}

async fn sessions(homing: &Homing) -> usize {
    homing.metric("homing_sessions", &[]).await as usize
}

async fn moves(homing: &Homing) -> usize {
    homing.metric("homing_affinity_moves_total", &[]).await as usize
}

/// Waits until a session that ends now is forgotten.
async fn grace_is_over(homing: &Homing) {
    let client = Client::h1(homing);
    let marker = format!("session=marker-{}", sessions(homing).await);
    let unknown =
        async || homing.metric("homing_affinity_requests_total", &[("verdict", "provisional")]).await;
    ask(&client, "/marker/", &[], &[&format!("{marker}; Path=/marker")]).await;
    ask(&client, "/marker/", &[&marker], &["session=; Path=/marker; Max-Age=0"]).await;
    let before = unknown().await;
    eventually("the grace is over", async || {
        ask(&client, "/marker/", &[&marker], &[]).await;
        unknown().await > before
    })
    .await;
}
