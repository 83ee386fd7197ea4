//! Attacks of bounded size: meanwhile a well-behaved client is served as before, within the memory that
//! docs/limits.md promises.
//!
//! Each prints what it measured. The well-behaved client's 99th percentile may be three times what it is without an
//! attack, or [`FLOOR`]: attacker, client and proxy share the cores of the machine, so that what is measured below
//! that is the scheduler, not the proxy. A machine that is busy with something else may spoil a measurement, so each
//! has [`ROUNDS`] to succeed.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use homing::clock;
use http::Response;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
    time::sleep,
};

use self::support::{
    backend::Backend,
    client::{Client, Protocol},
    flow::{full, patterned},
    frames::{
        CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
        encode, head,
    },
    process::Homing,
    setup::Setup,
};

/// What an answer may take whatever it takes without an attack.
const FLOOR: Duration = Duration::from_millis(50);
const ROUNDS: usize = 3;
/// How long the client is watched, without an attack and under it.
const WATCH: Duration = Duration::from_secs(2);
/// From one request of the well-behaved client to the next.
const PACE: Duration = Duration::from_millis(5);
/// Clients of the attacks that hold connections open.
const CROWD: usize = 200;
/// docs/limits.md: an empty table, and what so many connections and requests may take at most.
const MEMORY: u64 = (64 << 20) + (CROWD as u64) * (512 << 10);

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];

/// One attack at a time: they are about time.
static TURN: Mutex<()> = Mutex::const_new(());

/// How the well-behaved client fared.
#[derive(Clone, Copy, Debug)]
struct Fare {
    requests: usize,
    p50: Duration,
    p99: Duration,
}

/// The ground of one attack.
struct Ground {
    homing: Homing,
    _backend: Backend,
    _turn: MutexGuard<'static, ()>,
}

type Attackers = JoinSet<()>;

// === impl Ground ===

impl Ground {
    /// One worker, so that an attack and the client meet in it.
    async fn new() -> Self {
        let turn = TURN.lock().await;
        let backend = Backend::start("app-1", |request| {
            let length = request.uri().path()[1..].parse().ok();
            let body = length.map_or_else(|| full("ok"), |length| patterned(length, Arc::default()));
            std::future::ready(Response::new(body))
        });
        let log = tempfile::NamedTempFile::new().expect("a file");
        let homing = Setup::new([&backend]).one_worker().access_log(log.path()).start().await;
        Self { homing, _backend: backend, _turn: turn }
    }

    /// Gives an attack time to get under way: what it costs once is not what it costs while it lasts.
    async fn settles(&self) {
        const LOOK: Duration = Duration::from_millis(250);
        for _ in 0..8 {
            let cpu = self.homing.process.cpu();
            sleep(LOOK).await;
            if self.homing.process.cpu() - cpu < LOOK / 5 {
                break;
            }
        }
    }

    /// Watches a well-behaved client without the attack and under it.
    async fn endures(&self, name: &str, attack: impl Fn(&Homing, &mut Attackers)) {
        for round in 1..=ROUNDS {
            let quiet = watch(self.homing.https).await;
            let cpu = self.homing.process.cpu();
            let mut attackers = JoinSet::new();
            attack(&self.homing, &mut attackers);
            self.settles().await;
            let under = watch(self.homing.https).await;
            attackers.shutdown().await;
            let cpu = self.homing.process.cpu() - cpu;
            let memory = self.homing.process.peak_resident();
            println!(
                "{name}: p99 {:?} without, {:?} under attack (p50 {:?}, {:?}; {} and {} requests), {cpu:?} of processor, \
                 at most {} MiB",
                quiet.p99,
                under.p99,
                quiet.p50,
                under.p50,
                quiet.requests,
                under.requests,
                memory >> 20
            );
            assert!(memory <= MEMORY, "{name}: {memory} bytes are more than {MEMORY}");
            if under.p99 <= (3 * quiet.p99).max(FLOOR) {
                return;
            }
            assert!(round < ROUNDS, "{name}: {quiet:?} without, {under:?} under attack");
        }
    }
}

/// A client that asks a little over both protocols, in a thread of its own.
async fn watch(address: SocketAddr) -> Fare {
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let h1 = Client::at(address, Protocol::Http1).connect().await;
            let h2 = Client::at(address, Protocol::Http2).connect().await;
            let mut times = Vec::new();
            let end = clock::now() + WATCH;
            while clock::now() < end {
                for connection in [&h1, &h2] {
                    let began = clock::now();
                    assert_eq!(connection.get("/").send().await.status.as_u16(), 200);
                    times.push(clock::now() - began);
                }
                sleep(PACE).await;
            }
            times.sort_unstable();
            let at = |percent: usize| times[(times.len() - 1) * percent / 100];
            Fare { requests: times.len(), p50: at(50), p99: at(99) }
        })
    };
    tokio::task::spawn_blocking(thread).await.expect("every request is answered")
}

/// A crowd that says `first` and then `more` again and again, and never reads.
fn trickle(homing: &Homing, attackers: &mut Attackers, first: &'static str, more: &'static str) {
    for _ in 0..CROWD {
        let client = Client::h1(homing);
        attackers.spawn(async move {
            loop {
                let mut raw = client.raw().await;
                raw.write(first).await;
                for _ in 0..100 {
                    sleep(Duration::from_millis(100)).await;
                    raw.write(more).await;
                }
            }
        });
    }
}

/// A few clients that send these frames, wait for the end, and come again.
fn flood(homing: &Homing, attackers: &mut Attackers, frames: Vec<u8>) {
    let frames: Arc<[u8]> = frames.into();
    for _ in 0..4 {
        let (client, frames) = (Client::h2(homing), Arc::clone(&frames));
        attackers.spawn(async move {
            loop {
                let mut connection = Frames::open(&client).await;
                connection.write(&frames).await;
                while connection.try_next().await.is_some() {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_heads() {
    let ground = Ground::new().await;
    let attack = |homing: &Homing, attackers: &mut Attackers| {
        trickle(homing, attackers, "GET / HTTP/1.1\r\nHost: localhost\r\n", "X-A: b\r\n");
    };
    ground.endures("slow heads", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_bodies() {
    let ground = Ground::new().await;
    let first = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    ground.endures("slow bodies", |homing, attackers| trickle(homing, attackers, first, "x")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_readers() {
    let ground = Ground::new().await;
    let attack = |homing: &Homing, attackers: &mut Attackers| {
        // What fills the buffers of the kernel comes from the test's own thread: a smaller crowd.
        for _ in 0..CROWD / 8 {
            let (h1, h2) = (Client::h1(homing), Client::h2(homing));
            attackers.spawn(async move {
                let mut raw = h1.raw().await;
                raw.write("GET /100000000 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                let mut frames = Frames::open(&h2).await;
                let [method, scheme, _, authority] = GET;
                let download = head(&[method, scheme, (":path", "/100000000"), authority]);
                // Ten answers at a time, as much of each as there is.
                frames.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
                for stream in (1..20).step_by(2) {
                    frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &download).await;
                    frames.send(WINDOW_UPDATE, 0, stream, &[0x7f, 0, 0, 0]).await;
                }
                std::future::pending::<()>().await;
            });
        }
    };
    ground.endures("slow readers", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_connections() {
    let ground = Ground::new().await;
    let attack = |homing: &Homing, attackers: &mut Attackers| {
        for _ in 0..4 {
            let client = Client::h2(homing);
            attackers.spawn(async move {
                loop {
                    // One that is refused is part of the attack.
                    drop(client.try_connect().await);
                }
            });
        }
    };
    ground.endures("many connections", attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_that_are_reset_at_once() {
    let ground = Ground::new().await;
    let pair = |number: u32| {
        let request = encode(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head(&GET));
        [request, encode(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
    };
    let frames: Vec<u8> = (0..2000).flat_map(pair).collect();
    ground.endures("rapid reset", |homing, attackers| flood(homing, attackers, frames.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_that_never_end() {
    let ground = Ground::new().await;
    let more = encode(CONTINUATION, 0, 1, b"").repeat(20_000);
    let frames = [encode(HEADERS, 0, 1, &head(&GET)), more].concat();
    ground.endures("CONTINUATION", |homing, attackers| flood(homing, attackers, frames.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pings() {
    let ground = Ground::new().await;
    let frames = encode(PING, 0, 0, &[0; 8]).repeat(20_000);
    ground.endures("PING", |homing, attackers| flood(homing, attackers, frames.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn settings() {
    let ground = Ground::new().await;
    let frames = encode(SETTINGS, 0, 0, &[]).repeat(20_000);
    ground.endures("SETTINGS", |homing, attackers| flood(homing, attackers, frames.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_that_grow_when_they_are_unpacked() {
    let ground = Ground::new().await;
    let mut bomb = head(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'a'; 4000]);
    bomb.resize(16_000, 0xbe);
    let frames = encode(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    ground.endures("HPACK", |homing, attackers| flood(homing, attackers, frames.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn made_up_sessions() {
    let ground = Ground::new().await;
    let sent = Arc::new(AtomicU64::new(0));
    let began = clock::now();
    let attack = |homing: &Homing, attackers: &mut Attackers| {
        for attacker in 0..4 {
            let (client, sent) = (Client::h2(homing), Arc::clone(&sent));
            attackers.spawn(async move {
                let connection = Arc::new(client.connect().await);
                let mut streams = JoinSet::new();
                for stream in 0..8 {
                    let (connection, sent) = (Arc::clone(&connection), Arc::clone(&sent));
                    streams.spawn(async move {
                        // A connection serves only so many.
                        for number in 0.. {
                            let id = format!("made-up-{attacker}-{stream}-{number}");
                            if connection.get("/").cookie("session", &id).try_send().await.is_err() {
                                return;
                            }
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                while streams.join_next().await.is_some() {}
            });
        }
    };
    ground.endures("made-up sessions", attack).await;
    let rate = sent.load(Ordering::Relaxed) as f64 / (clock::now() - began).as_secs_f64();
    println!("made-up sessions: {rate:.0} a second, measured without an attack included");
    assert!(
        ground.homing.metric("homing_affinity_table_entries", &[]).await <= 125_000.0,
        "an eighth of the table"
    );
}
