//! Attacks of bounded size: meanwhile a well-behaved client is served as before, within the memory that
//! docs/limits.md promises.
//!
//! Attackers, backends, client and proxy share the cores of one machine, so that a client has to wait under an attack
//! whatever the proxy does. What is compared is therefore the same attack twice, in turns: on the proxy that the
//! client uses, and on a second one beside it, which does the same work on the same machine and leaves the first
//! alone. The client's 99th percentile may be three times as long as in that case, or [`FLOOR`]. How it fares when
//! nobody attacks anything is printed, not compared. Attackers yield to everybody else, as if they were elsewhere, and
//! come at a pace that their test states. A machine that is busy with something else may spoil a measurement, so each
//! has [`ROUNDS`] to succeed; memory has one.

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
use http::{Response, StatusCode};
use tempfile::NamedTempFile;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, MutexGuard},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use self::support::{
    app,
    backend::Backend,
    client::{Client, Protocol},
    flow::{full, patterned},
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, encode, head,
    },
    process::Homing,
    setup::Setup,
};

/// What an answer may take whatever it takes while another proxy is attacked: some time slices of the kernel.
const FLOOR: Duration = Duration::from_millis(15);
const ROUNDS: usize = 4;
/// Turns of a round: in each, the other proxy is attacked, and then this one.
const TURNS: usize = 2;
/// How long the client is watched in each.
const WATCH: Duration = Duration::from_secs(1);
/// From one request of the well-behaved client to the next.
const PACE: Duration = Duration::from_millis(5);
/// Clients of the attacks that hold connections open.
const CROWD: u64 = 200;
/// Clients that attack, go, and come again; from one attack of each to the next. Together, 200 connections a second.
const RAIDERS: usize = 4;
const RAID: Duration = Duration::from_millis(20);

/// What docs/limits.md says is in memory: of the program itself, and for one that does its worst in this way.
const PROGRAM: u64 = 64 << 10;
const SLOW_HEAD: Row = Row("HTTP/1.1, a head of some bytes that does not end", 24);
const SLOW_BODY: Row = Row("HTTP/1.1, a body that does not go on", 48);
const UNREAD_HTTP1: Row = Row("HTTP/1.1, an answer that is not read", 112);
const UNREAD_HTTP2: Row = Row("HTTP/2, an answer that is not read", 288);
const UNREAD_STREAM: Row = Row("HTTP/2, each further answer that is not read", 160);
/// Raiders that come before those that are gone are cleared away.
const RAIDED: u64 = 2 * RAIDERS as u64 * UNREAD_HTTP2.1;
const REQUEST_HTTP2: Row = Row("HTTP/2, idle after a request", 24);

/// A line of the table there, and its KiB.
struct Row(&'static str, u64);

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];

/// One attack at a time: they are about time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Raids of this process, for what is printed.
static RAIDED_SO_FAR: AtomicU64 = AtomicU64::new(0);

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
    /// It is attacked for comparison.
    other: Homing,
    _backends: Vec<Backend>,
    _logs: [NamedTempFile; 2],
    _turn: MutexGuard<'static, ()>,
}

type Attackers = JoinSet<()>;

// === impl Fare ===

impl Fare {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Self { requests: times.len(), p50: at(50), p99: at(99) }
    }
}

// === impl Ground ===

impl Ground {
    /// In front of a backend that answers a path of digits with as many bytes, and anything else at once.
    async fn new() -> Self {
        Self::before(|| {
            vec![Backend::start("app-1", |request| {
                let length = request.uri().path()[1..].parse().ok();
                let body = length.map_or_else(|| full("ok"), |length| patterned(length, Arc::default()));
                std::future::ready(Response::new(body))
            })]
        })
        .await
    }

    /// One worker each, so that an attack and the client meet in it.
    async fn before(backends: impl FnOnce() -> Vec<Backend>) -> Self {
        let turn = TURN.lock().await;
        let backends = backends();
        let logs = [(); 2].map(|()| NamedTempFile::new().expect("a file"));
        let start = |log: &NamedTempFile| Setup::new(&backends).one_worker().access_log(log.path()).start();
        let (homing, other) = (start(&logs[0]).await, start(&logs[1]).await);
        Self { homing, other, _backends: backends, _logs: logs, _turn: turn }
    }

    /// Gives an attack time to get under way: what it costs once is not what it costs while it lasts.
    async fn settles(attacked: &Homing) {
        const LOOK: Duration = Duration::from_millis(250);
        let mut before = Duration::MAX;
        for _ in 0..12 {
            let cpu = attacked.process.cpu();
            sleep(LOOK).await;
            let cpu = attacked.process.cpu() - cpu;
            if cpu < LOOK / 10 || cpu > before.mul_f64(0.75) {
                break;
            }
            before = cpu;
        }
    }

    /// Watches the client of ours while one of the two is attacked.
    async fn meanwhile(&self, attacked: &Homing, attack: &impl Fn(&Homing, &mut Attackers)) -> Vec<Duration> {
        let elsewhere = elsewhere();
        let mut attackers = JoinSet::new();
        {
            let _there = elsewhere.enter();
            attack(attacked, &mut attackers);
        }
        Self::settles(attacked).await;
        let before = RAIDED_SO_FAR.load(Ordering::Relaxed);
        let times = watch(self.homing.https).await;
        let raids = RAIDED_SO_FAR.load(Ordering::Relaxed) - before;
        if raids > 0 {
            println!("{raids} raids in {WATCH:?}");
        }
        if let Some(ended) = attackers.try_join_next() {
            ended.expect("an attack goes on");
        }
        attackers.shutdown().await;
        elsewhere.shutdown_background();
        times
    }

    /// Watches a well-behaved client of ours while each of the two is attacked, by what may hold so many KiB.
    async fn endures(&self, name: &str, kib: u64, attack: impl Fn(&Homing, &mut Attackers)) {
        for round in 1..=ROUNDS {
            let quiet = Fare::of(watch(self.homing.https).await);
            let cpu = self.homing.process.cpu();
            let (mut beside, mut under) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                beside.extend(self.meanwhile(&self.other, &attack).await);
                under.extend(self.meanwhile(&self.homing, &attack).await);
            }
            let (beside, under) = (Fare::of(beside), Fare::of(under));
            let cpu = self.homing.process.cpu() - cpu;
            let (memory, limit) = (self.homing.process.peak_resident() >> 10, PROGRAM + kib);
            println!(
                "{name}: p99 {:?} quiet, {:?} beside the attack, {:?} under it (p50 {:?}, {:?}, {:?}; {} requests under \
                 it), {cpu:?} of processor, {} of {} MiB",
                quiet.p99,
                beside.p99,
                under.p99,
                quiet.p50,
                beside.p50,
                under.p50,
                under.requests,
                memory >> 10,
                limit >> 10,
            );
            assert!(memory <= limit, "{name}: {memory} KiB are more than {limit}");
            if under.p99 <= (3 * beside.p99).max(FLOOR) {
                return;
            }
            assert!(round < ROUNDS, "{name}: {beside:?} beside the attack, {under:?} under it");
        }
    }
}

/// Where attackers run: a thread that yields to all others.
fn elsewhere() -> Runtime {
    let yields = || rustix::process::setpriority_process(None, 10).expect("less is always allowed");
    Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(yields)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A client that asks a little over both protocols, in a thread of its own; how long each answer took.
async fn watch(address: SocketAddr) -> Vec<Duration> {
    let thread = move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let h1 = Client::at(address, Protocol::Http1).connect().await;
            let h2 = Client::at(address, Protocol::Http2).connect().await;
            let mut times = Vec::new();
            let end = clock::now() + WATCH;
            while clock::now() < end {
                for connection in [&h1, &h2] {
                    let began = clock::now();
                    assert_eq!(connection.get("/public").send().await.status.as_u16(), 200);
                    times.push(clock::now() - began);
                }
                sleep(PACE).await;
            }
            times
        })
    };
    tokio::task::spawn_blocking(thread).await.expect("every request is answered")
}

/// When a raider comes.
fn raids() -> Interval {
    let mut raids = interval(RAID);
    raids.set_missed_tick_behavior(MissedTickBehavior::Delay);
    raids
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

/// Raiders that send these frames, and go when they are told by such a frame what becomes of them.
fn flood(homing: &Homing, attackers: &mut Attackers, told: u8, frames: Vec<u8>) {
    let frames: Arc<[u8]> = frames.into();
    for _ in 0..RAIDERS {
        let (client, frames) = (Client::h2(homing), Arc::clone(&frames));
        attackers.spawn(async move {
            let mut raids = raids();
            loop {
                raids.tick().await;
                let mut connection = Frames::open(&client).await;
                connection.write(&frames).await;
                while connection.try_next().await.is_some_and(|frame| frame.kind != told) {}
                RAIDED_SO_FAR.fetch_add(1, Ordering::Relaxed);
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
    ground.endures("slow heads", CROWD * SLOW_HEAD.1, attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_bodies() {
    let ground = Ground::new().await;
    let first = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    ground
        .endures("slow bodies", CROWD * SLOW_BODY.1, |homing, attackers| {
            trickle(homing, attackers, first, "x")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_readers() {
    const READERS: u64 = CROWD / 8;
    let ground = Ground::new().await;
    let attack = |homing: &Homing, attackers: &mut Attackers| {
        // What fills the buffers of the kernel, 4 MiB each, comes from the test's own thread: a smaller crowd.
        for _ in 0..READERS {
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
    let kib = READERS * (UNREAD_HTTP1.1 + UNREAD_HTTP2.1 + 9 * UNREAD_STREAM.1);
    ground.endures("slow readers", kib, attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_connections() {
    let ground = Ground::new().await;
    let attack = |homing: &Homing, attackers: &mut Attackers| {
        for _ in 0..RAIDERS {
            let client = Client::h2(homing);
            attackers.spawn(async move {
                let mut raids = raids();
                loop {
                    raids.tick().await;
                    // One that is refused is part of the attack.
                    drop(client.try_connect().await);
                    RAIDED_SO_FAR.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    };
    ground.endures("many connections", RAIDED, attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_that_are_reset_at_once() {
    let ground = Ground::new().await;
    let pair = |number: u32| {
        let request = encode(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head(&GET));
        [request, encode(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
    };
    let frames: Vec<u8> = (0..2000).flat_map(pair).collect();
    ground
        .endures("rapid reset", RAIDED, |homing, attackers| flood(homing, attackers, GOAWAY, frames.clone()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_that_never_end() {
    let ground = Ground::new().await;
    let more = encode(CONTINUATION, 0, 1, b"").repeat(20_000);
    let frames = [encode(HEADERS, 0, 1, &head(&GET)), more].concat();
    ground
        .endures("CONTINUATION", RAIDED, |homing, attackers| flood(homing, attackers, GOAWAY, frames.clone()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pings() {
    let ground = Ground::new().await;
    let frames = encode(PING, 0, 0, &[0; 8]).repeat(20_000);
    ground
        .endures("PING", RAIDED, |homing, attackers| flood(homing, attackers, GOAWAY, frames.clone()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn settings() {
    let ground = Ground::new().await;
    let frames = encode(SETTINGS, 0, 0, &[]).repeat(20_000);
    ground
        .endures("SETTINGS", RAIDED, |homing, attackers| flood(homing, attackers, GOAWAY, frames.clone()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_that_grow_when_they_are_unpacked() {
    let ground = Ground::new().await;
    let mut bomb = head(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'a'; 4000]);
    bomb.resize(16_000, 0xbe);
    let frames = encode(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    ground
        .endures("HPACK", RAIDED, |homing, attackers| flood(homing, attackers, HEADERS, frames.clone()))
        .await;
}

/// First 8,000 a second, beside which others are to be served as before; then as many as 100 requests at a time make,
/// beside which they are to be served at all. tests/affinity_stress.rs has more than 100,000 a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn made_up_sessions() {
    const PACED: (u32, Duration) = (10, Duration::from_millis(5));
    const FLAT_OUT: (u32, Duration) = (25, Duration::from_nanos(1));
    let ground = Ground::before(|| app::several(2)).await;
    let client = Client::h2(&ground.homing);
    let users = app::login_all(&client, 20).await;
    let sent = Arc::new(AtomicU64::new(0));
    let attack = |(streams, pause)| {
        let sent = Arc::clone(&sent);
        move |homing: &Homing, attackers: &mut Attackers| {
            for _ in 0..RAIDERS {
                attackers.spawn(make_up(Client::h2(homing), streams, pause, Arc::clone(&sent)));
            }
        }
    };
    let kib = RAIDERS as u64 * (REQUEST_HTTP2.1 + u64::from(FLAT_OUT.0) * UNREAD_STREAM.1);
    ground.endures("made-up sessions", kib, attack(PACED)).await;
    let (before, began) = (sent.load(Ordering::Relaxed), clock::now());
    let fare = Fare::of(ground.meanwhile(&ground.homing, &attack(FLAT_OUT)).await);
    let rate = (sent.load(Ordering::Relaxed) - before) as f64 / (clock::now() - began).as_secs_f64();
    let entries = ground.homing.metric("homing_affinity_table_entries", &[]).await;
    println!("made-up sessions: p99 {:?} beside {rate:.0} a second; {entries} entries", fare.p99);
    let memory = ground.homing.process.peak_resident() >> 10;
    assert!(memory <= PROGRAM + kib, "{memory} KiB");
    assert!(entries <= 20.0 + 125_000.0, "an eighth of the table, beside sessions");
    for (user, jar, home) in &users {
        let got = client.get("/").jar(jar).send().await;
        assert_eq!((got.status, got.text(), got.header("x-backend")), (StatusCode::OK, &**user, &**home));
    }
}

/// Asks with a new id each time, so many at once, and again after a pause.
async fn make_up(client: Client, streams: u32, pause: Duration, sent: Arc<AtomicU64>) {
    let mut batches = interval(pause);
    batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut connection = Frames::open(&client).await;
        // It serves 10,000 requests.
        for batch in 0..9_900 / streams {
            batches.tick().await;
            let asks = (0..streams).flat_map(|number| {
                let cookie = format!("session=made-up-{}", sent.fetch_add(1, Ordering::Relaxed));
                let [method, scheme, _, authority] = GET;
                let fields = [method, scheme, (":path", "/public"), authority, ("cookie", &cookie)];
                let stream = 2 * (batch * streams + number) + 1;
                encode(HEADERS, END_HEADERS | END_STREAM, stream, &head(&fields))
            });
            let window = encode(WINDOW_UPDATE, 0, 0, &[0, 0, 0x10, 0]);
            connection.write(&[asks.collect(), window].concat()).await;
            let mut open = streams;
            while open > 0 {
                let frame = connection.try_next().await.expect("ids are no reason to be sent away");
                assert_ne!(frame.kind, GOAWAY, "ids are no reason to be sent away");
                let ends = frame.kind == RST_STREAM
                    || matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
                open -= u32::from(ends);
            }
        }
    }
}

#[test]
fn what_is_asserted_is_what_is_documented() {
    let text = include_str!("../docs/limits.md");
    for Row(what, kib) in [SLOW_HEAD, SLOW_BODY, UNREAD_HTTP1, UNREAD_HTTP2, UNREAD_STREAM, REQUEST_HTTP2] {
        let row = text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no row {what:?}"));
        assert!(row.ends_with(&format!("| {kib} KiB |")), "{row}");
    }
    assert!(text.contains(&format!("memory ≤ {} MiB", PROGRAM >> 10)));
}
