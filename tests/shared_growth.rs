//! Replicas that hear of a new backend at different times: no session is moved away from it meanwhile.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::net::{IpAddr, SocketAddr};

use self::support::{
    app,
    backend::Backend,
    call::Jar,
    client::Client,
    dns::{Dns, HOST},
    port::Port,
    process::Homing,
    redis::RedisServer,
    replicas::Replicas,
    setup::Setup,
};

const NEW: &str = "app-127.0.0.3";

/// Two replicas of which only the first has found the new backend.
struct Growing {
    /// Kept running.
    _apps: [Backend; 2],
    _redis: RedisServer,
    _replicas: Replicas,
    _port: Port,
    _first: Dns,
    second: Dns,
    one: Homing,
    two: Homing,
}

impl Growing {
    async fn start() -> Self {
        let (replicas, redis, port) = (Replicas::new(), RedisServer::start().await, Port::reserve());
        let number = port.address.port();
        let apps = [2, 3].map(|last| {
            let port = Port::at(SocketAddr::new(ip(last), number));
            app::start_at(port, &format!("app-{}", ip(last)), "")
        });
        let first = Dns::knowing(&[ip(2), ip(3)]).await;
        let second = Dns::knowing(&[ip(2)]).await;
        let setup = |dns: &Dns| Setup::new::<&Backend>([]).discovering(dns, HOST, number);
        let one = replicas.start(setup(&first), "one", &redis.url(), "").await;
        let two = replicas.start(setup(&second), "two", &redis.url(), "").await;
        Self { _apps: apps, _redis: redis, _replicas: replicas, _port: port, _first: first, second, one, two }
    }

    /// A session that lives at the new backend.
    async fn session(&self) -> (String, Jar) {
        let users = app::login_all(&Client::h1(&self.one), 4).await;
        let found = users.into_iter().find(|(_, _, home)| home == NEW);
        found.map(|(user, jar, _)| (user, jar)).expect("new sessions are spread")
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

async fn whoami(homing: &Homing, jar: &Jar) -> (String, String) {
    let got = Client::h1(homing).get("/whoami").jar(jar).send().await;
    (got.text().to_owned(), got.header("x-backend").to_owned())
}

#[tokio::test]
async fn a_replica_that_hears_late_of_a_backend_looks_it_up_for_its_first_session() {
    let growing = Growing::start().await;
    let (user, jar) = growing.session().await;
    growing.second.know(&[ip(2), ip(3)]);
    assert_eq!(whoami(&growing.two, &jar).await, (user, NEW.to_owned()));
}

#[tokio::test]
async fn a_session_is_not_moved_away_by_a_replica_that_does_not_know_its_home_yet() {
    let growing = Growing::start().await;
    let (user, jar) = growing.session().await;
    let (_, elsewhere) = whoami(&growing.two, &jar).await;
    assert_eq!(elsewhere, "app-127.0.0.2", "there is no other");
    assert_eq!(growing.two.metric("homing_affinity_moves_total", &[]).await, 0.0);
    assert_eq!(whoami(&growing.one, &jar).await, (user, NEW.to_owned()), "its home is well");
}
