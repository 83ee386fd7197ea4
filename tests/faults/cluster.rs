//! Two replicas that share a Redis, each by a way of its own, and can be killed and started again.

use crate::support::{
    client::{Client, Protocol},
    eventually,
    load::{Habit, Load},
    port::Port,
    process::{Ended, Homing},
    redis::RedisServer,
    relay::Relay,
    replicas::Replicas,
    setup::Setup,
    shop::Shop,
};

/// Two replicas, or what is left of them.
pub(crate) struct Cluster {
    pub(crate) redis: RedisServer,
    /// By which each replica reaches Redis.
    pub(crate) ways: Vec<Relay>,
    replicas: Replicas,
    ports: [Port; 2],
    running: [Option<Homing>; 2],
    /// The configuration of each.
    setup: Box<dyn Fn(usize) -> Setup>,
    /// Lines of `[state]`.
    state: &'static str,
}

/// A configuration with these applications, whose health is checked.
pub(crate) fn in_front_of(apps: &[Shop]) -> impl Fn() -> Setup + use<> {
    let members: Vec<_> = apps.iter().map(|app| (app.name.clone(), app.address())).collect();
    move || Setup::new(members.iter().map(|(name, address)| (&**name, *address))).checked()
}

// === impl Cluster ===

impl Cluster {
    /// Starts both, which wait for Redis as long as it takes.
    pub(crate) async fn start(setup: impl Fn(usize) -> Setup + 'static) -> Self {
        Self::start_with(RedisServer::start().await, "", setup).await
    }

    /// Starts both on this server, with these lines of `[state]`.
    pub(crate) async fn start_with(
        redis: RedisServer,
        state: &'static str,
        setup: impl Fn(usize) -> Setup + 'static,
    ) -> Self {
        let ways = vec![Relay::start(redis.address()).await, Relay::start(redis.address()).await];
        let (ports, running) = ([Port::reserve(), Port::reserve()], [None, None]);
        let (replicas, setup) = (Replicas::new(), Box::new(setup));
        let mut cluster = Self { redis, ways, replicas, ports, running, setup, state };
        for at in 0..2 {
            cluster.start_replica(at).await;
        }
        cluster
    }

    /// Starts this one, at the port that it always has.
    pub(crate) async fn start_replica(&mut self, at: usize) {
        let setup = (self.setup)(at).https(self.ports[at].address).access_log("/dev/null".as_ref());
        let url = RedisServer::url_at(self.ways[at].address());
        let name = format!("homing-{at}");
        self.running[at] = Some(self.replicas.start(setup, &name, &url, self.state).await);
    }

    /// Kills this one.
    pub(crate) fn kill_replica(&mut self, at: usize) {
        self.running[at] = None;
    }

    /// Asks this one to stop, and waits until it has finished.
    pub(crate) async fn stop_replica(&mut self, at: usize) -> Ended {
        let replica = self.running[at].take().expect("it runs");
        replica.process.terminate();
        replica.process.wait_exit().await
    }

    /// This replica.
    pub(crate) fn replica(&self, at: usize) -> &Homing {
        self.running[at].as_ref().expect("it runs")
    }

    /// Nobody yet, in front of both.
    pub(crate) fn load(&self) -> Load {
        Load::new(self.ports.iter().map(|port| Client::at(port.address, Protocol::Http1)).collect())
    }

    /// So many users, who roam, known at both replicas.
    pub(crate) async fn roamers(&self, count: usize) -> Load {
        let mut load = self.load();
        load.join(count, Habit::Roams).await;
        load.mark();
        load
    }

    /// Waits until a replica reaches Redis, or does not.
    pub(crate) async fn shares(&self, at: usize, yes: bool) {
        self.replica(at).wait_for_metric("homing_shared_up", &[], f64::from(u8::from(yes))).await;
    }

    /// Waits until both replicas have told Redis what they know: so many sessions at least.
    pub(crate) async fn settled(&self, sessions: usize) {
        for at in 0..2 {
            self.shares(at, true).await;
            self.replica(at).wait_for_metric("homing_shared_pending", &[], 0.0).await;
        }
        eventually("redis knows all sessions", async || {
            let values = self.redis.values("homing:s:*").await;
            values.values().filter(|value| value.starts_with("{\"home\"")).count() >= sessions
        })
        .await;
    }

    /// Waits until a replica sees a backend up, or down.
    pub(crate) async fn sees(&self, at: usize, backend: &str, up: bool) {
        let up = f64::from(u8::from(up));
        self.replica(at).wait_for_metric("homing_backend_up", &[("backend", backend)], up).await;
    }
}
