//! The backend side: kept connections, retries, deadlines, and when a backend counts as gone.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use homing::clock;
use http::{Method, StatusCode};
use http_body_util::BodyExt;

use self::support::{
    app,
    backend::{Backend, answer},
    client::{BOTH, Client},
    flow::full,
    port::Port,
    raw_backend::{RawBackend, RawConnection},
    setup::Setup,
    within,
};

#[tokio::test]
async fn connections_to_a_backend_are_kept_and_shared_by_clients() {
    let backend = Backend::plain("app-1");
    let homing = Setup::new([&backend]).one_worker().start().await;
    for protocol in BOTH {
        for _ in 0..10 {
            assert_eq!(Client::new(&homing, protocol).get("/").send().await.status, StatusCode::OK);
        }
    }
    assert_eq!((backend.seen().len(), backend.connections()), (20, 1));
}

#[tokio::test]
async fn a_kept_connection_that_closes_under_a_get_is_replaced_unseen() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write(OK).await;
        if connection.index == 0 {
            // A second request arrives, and this server had just decided to close.
            connection.head().await;
        } else {
            serve(connection).await;
        }
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let client = Client::h1(&homing);
    for path in ["/first", "/second", "/third"] {
        let got = client.get(path).send().await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "ok"), "{path}");
    }
    assert_eq!((backend.count("GET /second "), backend.arrived().len()), (2, 2));
}

#[tokio::test]
async fn a_post_whose_bytes_may_have_been_processed_is_not_repeated() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write(OK).await;
        connection.until("order").await;
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    let client = Client::h1(&homing);
    assert_eq!(client.get("/first").send().await.status, StatusCode::OK);
    let got = client.post("/buy").body(full("order")).send().await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY);
    assert_eq!(backend.count("POST /buy "), 1, "{:?}", backend.arrived());
}

#[tokio::test]
async fn a_backend_that_closes_after_each_answer_fails_no_request() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.write(OK).await;
    });
    let homing = Setup::new([&backend]).one_worker().start().await;
    for protocol in BOTH {
        let connection = Client::new(&homing, protocol).connect().await;
        for _ in 0..20 {
            assert_eq!(connection.get("/").send().await.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_request_whose_backend_refuses_the_connection_goes_to_the_next() {
    let (dead, alive) = (Port::reserve(), Backend::echo("app-2"));
    let setup = Setup::new([("app-1", dead.address)]).backend(&alive).pool("balance = \"round-robin\"");
    let homing = setup.start().await;
    for protocol in BOTH {
        let client = Client::new(&homing, protocol);
        for _ in 0..5 {
            assert_eq!(client.get("/").send().await.status, StatusCode::OK);
            // Nothing of it has been sent to anybody, so even a POST may go on.
            let posted = client.post("/").body(full("order")).send().await;
            assert_eq!((posted.status, posted.text()), (StatusCode::OK, "order"));
        }
    }
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    assert_eq!(homing.metric("homing_backend_up", &[("backend", "app-2")]).await, 1.0);
}

#[tokio::test]
async fn one_slow_answer_does_not_take_a_backend_out() {
    let slow = Backend::start("app-1", |request| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        answer(StatusCode::OK, "app-1")
    });
    let setup = Setup::new([&slow]).pool_section("[pool.timeouts]\nhead = \"200ms\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    let got = client.post("/slow").send().await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(homing.metric("homing_backend_up", &[("backend", "app-1")]).await, 1.0);
    assert_eq!(client.get("/").send().await.text(), "app-1");
}

#[tokio::test]
async fn one_failed_request_does_not_move_a_session() {
    let apps = app::several(2);
    let breaking = RawBackend::start("app-3", |mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.contains("/break") {
                return connection.reset();
            }
            connection.write(APP_3).await;
        }
    });
    let homing = Setup::new(&apps).backend(&breaking).start().await;
    let client = Client::h1(&homing);
    // Logins are spread, so one of the first few is placed there and learned.
    for _ in 0..9 {
        client.get("/login?anna").send().await;
    }
    let broken = client.post("/break").cookie("session", "on-3").send().await;
    assert_eq!(broken.status, StatusCode::BAD_GATEWAY);
    assert_eq!(homing.metric("homing_backend_up", &[("backend", "app-3")]).await, 1.0);
    let next = client.get("/").cookie("session", "on-3").send().await;
    assert_eq!(next.header("x-backend"), "app-3");
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_slow_backend_under_many_requests_keeps_its_sessions() {
    let apps = app::several(2);
    let setup = Setup::new(&apps).pool_section("[pool.timeouts]\nhead = \"10s\"");
    let homing = setup.start().await;
    let client = Client::h2(&homing);
    let users = app::login_all(&client, 10).await;
    let connection = client.connect().await;
    let calls = (0..300).map(|number| {
        let (user, jar, home) = &users[number % users.len()];
        let connection = &connection;
        async move {
            let got = connection.get("/whoami").jar(jar).send().await;
            assert_eq!((got.text(), got.header("x-backend")), (&**user, &**home));
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(homing.metric("homing_affinity_moves_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_checked_backend_is_taken_out_and_in_again() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).checked().start().await;
    for app in ["app-1", "app-2"] {
        homing.wait_for_metric("homing_backend_up", &[("backend", app)], 1.0).await;
    }
    apps[1].stop().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-2")], 0.0).await;
    assert_eq!(homing.metric("homing_backend_up", &[("backend", "app-1")]).await, 1.0);
    apps[1].restart();
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-2")], 1.0).await;
}

#[tokio::test]
async fn a_check_that_gets_the_wrong_status_takes_a_backend_out() {
    let well = app::start("app-1");
    let ill = Backend::start("app-2", |request| async move {
        let well = request.uri().path() != "/healthz";
        answer(if well { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, "app-2")
    });
    let homing = Setup::new([&well, &ill]).checked().start().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-2")], 0.0).await;
    for _ in 0..6 {
        assert_eq!(Client::h1(&homing).get("/public").send().await.header("x-backend"), "app-1");
    }
}

#[tokio::test]
async fn an_unchecked_backend_is_taken_in_again_by_a_trial() {
    let mut backend = Backend::plain("app-1");
    let setup = Setup::new([&backend]).pool_section("[pool.passive]\nretry = \"100ms\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    backend.stop().await;
    assert!(client.get("/").send().await.status.is_server_error());
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    backend.restart();
    support::eventually("it serves again", async || client.get("/").send().await.status == StatusCode::OK)
        .await;
    assert_eq!(homing.metric("homing_backend_up", &[("backend", "app-1")]).await, 1.0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_for_the_client_too() {
    for broken in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhalf of it\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFF\r\nhalf of it",
    ] {
        let backend = RawBackend::start("app-1", move |mut connection| async move {
            connection.head().await;
            connection.write(broken).await;
        });
        let homing = Setup::new([&backend]).start().await;
        for protocol in BOTH {
            let opened = Client::new(&homing, protocol).get("/").open().await;
            assert_eq!(opened.status, StatusCode::OK);
            let body = within("the end of the body", opened.body.collect()).await;
            assert!(body.is_err(), "{protocol:?} sees a clean end of {broken:?}");
        }
    }
}

#[tokio::test]
async fn a_get_that_breaks_before_its_answer_is_tried_elsewhere() {
    let breaking = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.reset();
    });
    let alive = Backend::plain("app-2");
    let setup = Setup::new([&breaking]).backend(&alive).pool("balance = \"round-robin\"");
    let homing = setup.start().await;
    let client = Client::h1(&homing);
    for _ in 0..2 {
        assert_eq!(client.get("/").send().await.text(), "app-2");
    }
    assert!(breaking.count("GET / ") >= 1);
    let retried = homing.process.access_record("second attempt", |record| record["attempts"] == 2).await;
    assert_eq!((&retried["backend"], &retried["status"]), (&"app-2".into(), &200.into()));
}

/// A backend whose process ends when it is asked for `/death`.
fn mortal(name: &str) -> RawBackend {
    RawBackend::start(name, |mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /death ") {
                return;
            }
            connection.write(OK).await;
        }
    })
}

#[tokio::test]
async fn a_request_that_kills_its_server_reaches_two_at_most_and_a_post_one() {
    let backends: Vec<_> = ["app-1", "app-2", "app-3", "app-4", "app-5"].map(mortal).into();
    // Over kept connections, too.
    for warm in [false, true] {
        let homing = Setup::new(&backends).one_worker().pool("balance = \"round-robin\"").start().await;
        for (method, most) in [(Method::GET, 2), (Method::DELETE, 2), (Method::POST, 1), (Method::PATCH, 1)] {
            for cookie in ["", "unknown"] {
                for _ in 0..if warm { 10 } else { 0 } {
                    Client::h1(&homing).get("/").send().await;
                }
                let times = || backends.iter().map(|backend| backend.count("/death ")).sum::<usize>();
                let before = times();
                let client = Client::h1(&homing);
                let call = client.request(method.clone(), "/death").cookie("session", cookie);
                assert_eq!(call.send().await.status, StatusCode::BAD_GATEWAY);
                let times = times() - before;
                assert!((1..=most).contains(&times), "{method} {cookie:?} {warm}: {times} times");
            }
        }
        for name in ["app-1", "app-2", "app-3", "app-4", "app-5"] {
            assert_eq!(homing.metric("homing_backend_up", &[("backend", name)]).await, 1.0, "{name}");
        }
    }
}

#[tokio::test]
async fn a_request_that_hangs_its_server_is_sent_once() {
    let backends: Vec<_> = ["app-1", "app-2", "app-3"]
        .map(|name| {
            RawBackend::start(
                name,
                |mut connection| async move { while connection.head().await.is_some() {} },
            )
        })
        .into();
    let homing = Setup::new(&backends).pool_section("[pool.timeouts]\nhead = \"200ms\"").start().await;
    assert_eq!(Client::h1(&homing).get("/hang").send().await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(backends.iter().map(|backend| backend.count("/hang ")).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_request_that_was_refused_everywhere_else_reaches_the_last_backend() {
    let alive = Backend::plain("app-0");
    let gone: Vec<Port> = (0..7).map(|_| Port::reserve()).collect();
    let mut setup = Setup::new([&alive]).pool("balance = \"round-robin\"\n[pool.passive]\nfall = 1000");
    for (number, port) in gone.iter().enumerate() {
        setup = setup.backend_at(&format!("gone-{number}"), &format!("http://{}", port.address), "");
    }
    let homing = setup.start().await;
    for _ in 0..8 {
        let order = Client::h1(&homing).post("/order").body(full("one")).send().await;
        assert_eq!((order.status, order.text()), (StatusCode::OK, "app-0"));
    }
}

#[tokio::test]
async fn what_a_client_abandons_is_not_left_running() {
    let backend = RawBackend::start("app-1", |mut connection| async move {
        connection.head().await;
        connection.read_to_end().await;
        // The proxy has closed: count it.
        connection.mark("gone");
    });
    let homing = Setup::new([&backend]).start().await;
    let in_flight = [("backend", "app-1")];
    let mut raw = Client::h1(&homing).raw().await;
    raw.write("GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    homing.wait_for_metric("homing_backend_in_flight", &in_flight, 1.0).await;
    raw.abandon();
    homing.wait_for_metric("homing_backend_in_flight", &in_flight, 0.0).await;
    support::eventually("the backend sees the close", async || backend.count("gone") == 1).await;
}

#[tokio::test]
async fn requests_to_a_backend_are_counted_by_class() {
    let backend = Backend::start("app-1", |request| async move {
        let code = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
        answer(StatusCode::from_u16(code).expect("a status"), "")
    });
    let homing = Setup::new([&backend]).start().await;
    let connection = Client::h2(&homing).connect().await;
    for path in ["/200", "/201", "/302", "/404", "/500", "/503"] {
        connection.request(Method::GET, path).send().await;
    }
    for (code, count) in [("2xx", 2.0), ("3xx", 1.0), ("4xx", 1.0), ("5xx", 2.0)] {
        homing.wait_for_metric("homing_backend_requests_total", &[("code", code)], count).await;
    }
}

#[tokio::test]
async fn a_health_check_fails_where_a_request_would() {
    for wrong in [
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let backend = RawBackend::answering("app-1", wrong);
        let homing = Setup::new([&backend]).checked().start().await;
        homing.process.stderr.wait_for("health check failed").await;
        homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    }
}

#[tokio::test]
async fn a_health_check_passes_over_interim_responses_and_reads_the_rest() {
    let response = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
                    Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let backend = RawBackend::start("app-1", move |mut connection| async move {
        connection.head().await;
        connection.write(response).await;
        connection.read_to_end().await;
        connection.mark("closed");
    });
    let homing = Setup::new([&backend]).checked().start().await;
    support::eventually("checks end", async || backend.count("closed") > 3).await;
    assert_eq!(homing.metric("homing_backend_up", &[("backend", "app-1")]).await, 1.0);
    assert!(!homing.process.stderr.text().contains("health check failed"));
}

#[tokio::test]
async fn the_only_backend_serves_as_soon_as_it_is_back_however_long_retry_is() {
    for on_down in ["move", "refuse", "wait:5s"] {
        let mut app = app::start("app-1");
        let setup = Setup::new([&app]).affinity(&format!("on_down = \"{on_down}\""));
        let homing = setup.pool_section("[pool.passive]\nretry = \"1h\"").start().await;
        let client = Client::h1(&homing);
        let (jar, _) = app::login(&client, "anna").await;
        app.stop().await;
        client.get("/public").send().await;
        homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
        app.restart();
        support::eventually(&format!("{on_down}: a new client is served"), async || {
            client.get("/public").send().await.status == StatusCode::OK
        })
        .await;
        assert_ne!(client.get("/whoami").jar(&jar).send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_session_that_waits_for_its_home_notices_that_it_is_back() {
    let mut apps = app::several(2);
    let setup = Setup::new(&apps).affinity("on_down = \"wait:5s\"");
    let homing = setup.pool_section("[pool.passive]\nretry = \"1h\"").start().await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let at_home = apps.iter_mut().find(|app| app.name == home).expect("one of them");
    at_home.stop().await;
    let waiting = tokio::spawn({
        let (client, jar) = (Client::h1(&homing), jar.clone());
        async move { client.get("/whoami").jar(&jar).send().await }
    });
    homing.wait_for_metric("homing_backend_up", &[("backend", &home)], 0.0).await;
    at_home.restart();
    support::eventually("its next request goes home", async || {
        client.get("/whoami").jar(&jar).send().await.header("x-backend") == home
    })
    .await;
    assert_eq!(within("the answer", waiting).await.expect("no panic").header("x-backend"), home);
}

#[tokio::test]
async fn trials_do_not_grow_apart_while_nothing_else_serves() {
    // It takes connections and ends each before TLS comes about: they can be counted.
    let backend = RawBackend::start("app-1", |connection| async move { connection.reset() });
    let url = format!("https://{}", backend.address());
    let passive = "[pool.passive]\nfall = 1\nretry = \"50ms\"";
    let homing = Setup::new::<&Backend>([]).backend_at("app-1", &url, "").pool_section(passive).start().await;
    Client::h1(&homing).get("/").send().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    // Apart as far as they could be, these would take 33 s.
    support::eventually("it is tried again and again", async || backend.arrived().len() >= 40).await;
}

#[tokio::test]
async fn a_dead_backend_is_tried_once_at_a_time_however_many_ask() {
    let backend = RawBackend::start("app-1", |connection| async move { connection.reset() });
    let url = format!("https://{}", backend.address());
    let passive = "[pool.passive]\nfall = 1\nretry = \"1h\"";
    let homing = Setup::new::<&Backend>([]).backend_at("app-1", &url, "").pool_section(passive).start().await;
    let client = Client::h1(&homing).connect().await;
    client.get("/").send().await;
    homing.wait_for_metric("homing_backend_up", &[("backend", "app-1")], 0.0).await;
    let before = (backend.arrived().len(), clock::now());
    for _ in 0..300 {
        assert_eq!(client.get("/").send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let (trials, took) = (backend.arrived().len() - before.0, before.1.elapsed());
    assert!(trials as u128 <= took.as_millis() / 100 + 2, "{trials} in {took:?}");
}

async fn serve(mut connection: RawConnection) {
    while connection.head().await.is_some() {
        connection.write(OK).await;
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const APP_3: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Backend: app-3\r\nSet-Cookie: session=on-3\r\n\r\n";
