//! Sessions stay at home, seen from outside: real TLS, real connections, applications that know only
//! their own sessions.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use tokio::task::JoinSet;

use self::support::{
    app,
    backend::Backend,
    call::Jar,
    client::{BOTH, Client},
    metrics::Metrics,
    operator::{self, Operator},
    setup::Setup,
};

#[tokio::test]
async fn a_login_is_known_to_the_very_next_connection() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for number in 0..20 {
            let user = format!("{protocol:?}-{number}");
            let (jar, home) = app::login(&client, &user).await;
            let next = client.get("/whoami").jar(&jar).send().await;
            assert_eq!((next.status, next.text()), (StatusCode::OK, &*user));
            assert_eq!(next.header("x-backend"), home);
        }
    }
}

#[tokio::test]
async fn a_session_is_the_same_over_both_protocols() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let (h1, h2) = (Client::h1(&homing), Client::h2(&homing));
    for (user, jar, home) in app::login_all(&h1, 9).await {
        let answer = h2.get("/whoami").jar(&jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (&*user, &*home));
    }
}

#[tokio::test]
async fn an_unknown_id_goes_to_the_same_backend_each_time() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    unknown_ids_agree(&[Client::h1(&homing), Client::h2(&homing), Client::h1(&homing)]).await;
}

#[tokio::test]
async fn an_unknown_id_goes_to_the_same_backend_through_each_replica() {
    let apps = app::several(3);
    let folder = tempfile::tempdir().unwrap();
    let secret = format!("secret_file = {:?}", folder.path().join("secret"));
    let one = Setup::new(&apps).top(&secret).start().await;
    let other = Setup::new(&apps).top(&secret).start().await;
    unknown_ids_agree(&[Client::h1(&one), Client::h1(&other)]).await;
}

#[tokio::test]
async fn an_unknown_id_is_no_session() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    for number in 0..10 {
        client.get("/whoami").cookie("session", &format!("made-up-{number}")).send().await;
    }
    let labels = [("verdict", "provisional")];
    homing.wait_for_metric("homing_affinity_requests_total", &labels, 10.0).await;
    assert_eq!(homing.metric("homing_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn among_several_cookies_of_the_name_the_known_one_decides() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    for (user, jar, _) in app::login_all(&client, 6).await {
        let id = jar.value("session").expect("logged in");
        for cookies in [
            format!("session=stale; session={id}"),
            format!("session={id}; session=stale"),
            format!("xsession=no; theme=dark; session=; session={id}"),
        ] {
            let answer = client.get("/whoami").header("cookie", &cookies).send().await;
            assert_eq!(answer.text(), user, "{}", cookies.replace(id, "ID"));
        }
    }
}

#[tokio::test]
async fn cookies_split_over_http2_fields_are_found_and_joined_for_the_backend() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h2(&homing);
    for (user, jar, home) in app::login_all(&client, 6).await {
        let id = jar.value("session").expect("logged in");
        let path = format!("/split/{user}");
        let call = client.get(&path).cookie("theme", "dark").cookie("session", id).cookie("lang", "en");
        assert_eq!(call.send().await.text(), user);
        let home = apps.iter().find(|app| app.name == home).expect("one of them");
        // RFC 9113, section 8.2.3
        assert_eq!(home.one_at(&path).one("cookie"), format!("theme=dark; session={id}; lang=en"));
    }
}

#[tokio::test]
async fn two_hundred_clients_at_once_never_see_the_wrong_backend() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let mut clients = JoinSet::new();
    for number in 0..200 {
        let client = Client::new(&homing, BOTH[number % 2]);
        clients.spawn(async move {
            let user = format!("user-{number}");
            let (jar, home) = app::login(&client, &user).await;
            for _ in 0..50 {
                let answer = client.get("/whoami").jar(&jar).send().await;
                assert_eq!((answer.status, answer.text()), (StatusCode::OK, &*user));
                assert_eq!(answer.header("x-backend"), home);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a client that always came home");
    }
    assert_eq!(homing.metric("homing_sessions", &[("state", "live")]).await, 200.0);
    // Nothing is lost or counted twice, over all workers.
    homing.wait_for_metric("homing_http_requests_total", &[], 200.0 * 51.0).await;
    let metrics = Metrics::fetch(&homing).await;
    for (verdict, count) in [("placed", 200.0), ("home", 10_000.0), ("moved", 0.0), ("provisional", 0.0)] {
        assert_eq!(
            metrics.value("homing_affinity_requests_total", &[("verdict", verdict)]),
            count,
            "{verdict}"
        );
    }
    homing.wait_for_metric("homing_connections", &[], 0.0).await;
    homing.wait_for_metric("homing_backend_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn the_sessions_of_all_backends_sum_to_the_logins_and_are_spread() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let mut homes = BTreeMap::<String, f64>::new();
    for (_, _, home) in app::login_all(&Client::h1(&homing), 30).await {
        *homes.entry(home).or_default() += 1.0;
    }
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value("homing_sessions", &[]), 30.0);
    for app in &apps {
        let labels = [("pool", "app"), ("backend", &*app.name), ("state", "live")];
        let live = metrics.value("homing_sessions", &labels);
        assert_eq!(Some(&live), homes.get(&app.name), "{}", app.name);
        assert!((8.0..=12.0).contains(&live), "{}: {live} of 30 sessions", app.name);
    }
}

#[tokio::test]
async fn a_logout_ends_the_session() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).affinity("grace = \"100ms\"").start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 4).await;
    client.get("/logout").jar(&users[0].1).send().await;
    homing.wait_for_metric("homing_sessions", &[], 3.0).await;
    homing.wait_for_metric("homing_affinity_ended_total", &[("reason", "logout")], 1.0).await;
}

#[tokio::test]
async fn a_session_whose_id_is_rotated_stays_one_session_at_one_home() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    for (user, mut jar, home) in app::login_all(&client, 6).await {
        for _ in 0..3 {
            let rotated = client.get("/rotate").jar(&jar).send().await;
            assert_eq!((rotated.text(), rotated.header("x-backend")), (&*user, &*home));
            jar.store(&rotated.headers);
        }
        let answer = client.get("/whoami").jar(&jar).send().await;
        assert_eq!((answer.text(), answer.header("x-backend")), (&*user, &*home));
    }
    assert_eq!(homing.metric("homing_sessions", &[]).await, 6.0);
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_first_retained_and_then_gone() {
    let apps = app::several(2);
    let setup = Setup::new(&apps).session_timeout("500ms").affinity("ttl = \"3s\"");
    let homing = setup.start().await;
    app::login_all(&Client::h1(&homing), 4).await;
    homing.wait_for_metric("homing_sessions", &[("state", "retained")], 4.0).await;
    homing.wait_for_metric("homing_sessions", &[], 0.0).await;
    assert_eq!(homing.metric("homing_affinity_ended_total", &[("reason", "expired")]).await, 4.0);
}

#[tokio::test]
async fn when_a_backend_dies_its_users_move_and_all_others_stay() {
    let mut apps = app::several(3);
    let homing = Setup::new(&apps).start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 12).await;
    apps[1].stop().await;
    let mut moved = 0.0;
    for (user, jar, home) in &users {
        let answer = client.get("/public").jar(jar).send().await;
        assert_eq!(answer.status, StatusCode::OK, "{user}, whose home is {home}");
        if home == "app-2" {
            moved += 1.0;
            let new_home = answer.header("x-backend").to_owned();
            assert_ne!(new_home, "app-2");
            let again = client.get("/public").jar(jar).send().await;
            assert_eq!(again.header("x-backend"), new_home, "{user} has a new home");
        } else {
            assert_eq!(answer.header("x-backend"), home, "{user}");
            assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
        }
    }
    assert!(moved > 0.0, "nobody lived at app-2");
    let left = [("backend", "app-2"), ("reason", "down")];
    homing.wait_for_metric("homing_affinity_moves_total", &left, moved).await;
    let metrics = Metrics::fetch(&homing).await;
    assert_eq!(metrics.value("homing_affinity_moves_total", &[]), moved);
    assert_eq!(metrics.value("homing_sessions", &[]), 12.0);
    assert_eq!(metrics.value("homing_sessions", &[("backend", "app-2")]), 0.0);
    let record = homing.process.access_record("moved request", |record| record["verdict"] == "moved").await;
    assert_eq!(record["reason"], "down");
    assert_eq!(record["path"], "/public");
}

#[tokio::test]
async fn a_home_that_was_down_keeps_the_sessions_that_did_not_move() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).checked().start().await;
    let client = Client::h1(&homing);
    let users = app::login_all(&client, 6).await;
    apps[0].stop().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    apps[0].restart();
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 1.0).await;
    for (user, jar, _) in &users {
        assert_eq!(client.get("/whoami").jar(jar).send().await.text(), user);
    }
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn requests_without_an_id_follow_the_first_of_their_connection() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).pool("balance = \"round-robin\"").start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        let mut backends = BTreeSet::new();
        for _ in 0..6 {
            backends.insert(connection.get("/public").send().await.header("x-backend").to_owned());
        }
        assert_eq!(backends.len(), 1, "{protocol:?}: {backends:?}");
    }
}

#[tokio::test]
async fn users_one_after_another_over_one_connection_are_spread() {
    let apps = app::several(4);
    let homing = Setup::new(&apps).start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        let mut homes = BTreeMap::<String, usize>::new();
        for number in 0..20 {
            let user = format!("user-{number}");
            let login = connection.get(&format!("/login?{user}")).send().await;
            let mut jar = Jar::default();
            jar.store(&login.headers);
            assert_eq!(connection.get("/whoami").jar(&jar).send().await.text(), user);
            *homes.entry(login.header("x-backend").to_owned()).or_default() += 1;
        }
        assert!(homes.len() == 4 && homes.values().all(|users| *users <= 8), "{protocol:?}: {homes:?}");
    }
}

#[tokio::test]
async fn an_address_with_many_sessions_on_few_connections_is_told_of_once() {
    let apps = app::several(2);
    let homing = Setup::new(&apps).start().await;
    let connection = Client::h1(&homing).connect().await;
    for number in 0..60 {
        connection.get(&format!("/login?user-{number}")).send().await;
    }
    let told = "many sessions begin on few connections";
    let log = homing.process.stderr.wait_for(told).await;
    assert!(log.contains("127.0.0.1") && log.contains("trusted_proxies"), "{log}");
    assert_eq!(homing.process.stderr.text().matches(told).count(), 1);
    let status = Operator::of(&homing).read("status").await;
    let crowd = serde_json::json!([{ "address": "127.0.0.1", "sessions": 60, "connections": 1 }]);
    assert_eq!(status["crowds"], crowd);
    let shown = operator::run(&homing, &["status"]).await.stdout;
    assert!(shown.contains("60 sessions begin on 1 connection of 127.0.0.1"), "{shown}");
}

#[tokio::test]
async fn requests_that_become_no_session_are_spread_whoever_has_a_session_less() {
    let apps = app::several(3);
    let homing = Setup::new(&apps).affinity("skip = [\"/healthz\"]").start().await;
    let client = Client::h1(&homing);
    app::login_all(&client, 11).await;
    for (path, most) in [("/healthz", 20), ("/public", 36)] {
        let mut got = BTreeMap::<String, usize>::new();
        for _ in 0..60 {
            let answer = client.get(path).send().await;
            *got.entry(answer.header("x-backend").to_owned()).or_default() += 1;
        }
        assert!(got.values().all(|count| *count <= most), "{path}: {got:?}");
    }
}

#[tokio::test]
async fn a_skipped_path_is_balanced_freely() {
    let apps = app::several(3);
    let setup = Setup::new(&apps).pool("balance = \"round-robin\"").affinity("skip = [\"/public\"]");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let (jar, _) = app::login(&client, "anna").await;
    let mut backends = BTreeSet::new();
    for _ in 0..6 {
        let answer = client.get("/public").jar(&jar).send().await;
        backends.insert(answer.header("x-backend").to_owned());
    }
    assert_eq!(backends.len(), 3, "{backends:?}");
    homing.wait_for_metric("homing_affinity_requests_total", &[("verdict", "skipped")], 6.0).await;
}

#[tokio::test]
async fn routes_lead_to_pools_with_sessions_of_their_own() {
    let (shop, forum) = (app::start("shop-1"), Backend::plain("forum-1"));
    let forum_pool = format!(
        "[[route]]\nhost = \"localhost\"\npath = \"/forum\"\npool = \"forum\"\n\
         [[route]]\nhost = \"localhost\"\npath = \"/\"\npool = \"app\"\n\
         [[pool]]\nname = \"forum\"\n[pool.affinity]\nkey = \"cookie:forum\"\nsession_timeout = \"10m\"\n\
         [[pool.backend]]\nname = \"forum-1\"\nurl = \"http://{}\"",
        forum.address()
    );
    let homing = Setup::new([&shop]).section(&forum_pool).start().await;
    let client = Client::h1(&homing);
    assert_eq!(client.get("/forum/threads").send().await.text(), "forum-1");
    assert_eq!(client.get("/forum").send().await.text(), "forum-1");
    let elsewhere = client.get("/forums").jar(&Jar::default()).send().await;
    assert_eq!(elsewhere.header("x-backend"), "shop-1", "a prefix ends at a segment's end");
}

/// Made-up ids go to one backend each, whichever client brings them, and not all to the same one.
async fn unknown_ids_agree(clients: &[Client]) {
    let mut chosen = BTreeSet::new();
    for number in 0..30 {
        let id = format!("made-up-{number}");
        let mut backends = BTreeSet::new();
        for client in clients {
            let answer = client.get("/whoami").cookie("session", &id).send().await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            backends.insert(answer.header("x-backend").to_owned());
        }
        assert_eq!(backends.len(), 1, "{id} went to {backends:?}");
        chosen.append(&mut backends);
    }
    assert_eq!(chosen.len(), 3, "thirty ids went to {chosen:?} only");
}
