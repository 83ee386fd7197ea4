//! What the state file costs: `cargo run --release --example restore [sessions] [folder]`.
//!
//! Learns sessions at a steady rate, stops, starts again; prints times, sizes, memory. The folder decides which
//! disk is measured.

use std::{fs, path::Path, sync::Arc, time::Duration};

use homing::{
    affinity::{KeyHasher, Rule, Scope, SessionKey},
    backend::Families,
    clock,
    config::Config,
    control, demo,
    materials::Materials,
    store::{
        Entry, Session,
        file::{Outcome, StateFile},
    },
    tls::Ticketer,
    world::{Snapshot, World},
};
use prometheus::Registry;

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sessions in one round of the courier: 4 rounds a second.
const ROUND: u64 = 2_000;
const ROUNDS: u64 = 40;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(1_000_000, |text| text.parse().expect("a number"));
    let folder = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let file = folder.path().join("homing.state");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;

    let (world, registry) = world(folder.path())?;
    let mut state = StateFile::open(&file, &world.hasher, &registry)?;
    state.restore(&world.snapshot.load())?;
    for number in 0..count {
        learn(&world, number);
    }
    let keeper = state.start(&world)?;
    world.courier.open(&world.snapshot.load());
    let steady = runtime.block_on(async {
        // The first file, with all there is.
        while value(&registry, "homing_state_last_write_timestamp_seconds") == 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let busy = cpu_seconds();
        for round in 0..ROUNDS {
            for number in 0..ROUND {
                learn(&world, count + round * ROUND + number);
            }
            world.courier.deliver(&world.snapshot.load()).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        while value(&registry, "homing_state_pending") > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cpu_seconds() - busy
    });
    let learned = ROUNDS * ROUND;
    println!(
        "{learned} more sessions, {} a second: {:.1} µs of CPU each, learning included; file of {} MB",
        4 * ROUND,
        steady * 1e6 / learned as f64,
        size(&file) / 1_000_000
    );
    let all = count + learned;
    let begin = clock::now();
    runtime.block_on(async {
        world.courier.flush(&world.snapshot.load()).await;
        keeper.finish().await;
    });
    println!("clean stop with {all} sessions: {:.2?}, {} MB", clock::now() - begin, size(&file) / 1_000_000);
    let before = peak();
    drop(world);

    let (world, registry) = self::world(folder.path())?;
    let begin = clock::now();
    let mut state = StateFile::open(&file, &world.hasher, &registry)?;
    let opened = clock::now() - begin;
    let counts = state.restore(&world.snapshot.load())?;
    let took = clock::now() - begin;
    anyhow::ensure!(counts.of(Outcome::Restored) == all, "{counts:?}");
    println!(
        "{all} sessions restored: {took:.2?}, of that {opened:.2?} to open the file and look at every page"
    );
    println!("most memory: {} MB", before.max(peak()) / 1_000_000);
    Ok(())
}

/// A process of three backends.
fn world(folder: &Path) -> anyhow::Result<(Arc<World>, Registry)> {
    let files = demo::certs::prepare(folder, clock::wall())?.files;
    let text = format!(
        "[[certificate]]\ncert = {:?}\nkey = {:?}\n[[pool]]\nname = \"app\"\n\
         backend = [{{ url = \"http://127.0.0.1:1\" }}, {{ url = \"http://127.0.0.1:2\" }}, {{ url = \"http://127.0.0.1:3\" }}]\n\
         [pool.affinity]\nmax_sessions = 10_000_000\n",
        files.cert.display().to_string(),
        files.key.display().to_string()
    );
    let config = Config::parse(&text, "restore.toml", folder)?;
    let materials = Materials::load(&config, &Ticketer::new()?)?;
    let registry = Registry::new();
    let lists = control::written(&config);
    let families = Families::register(&registry)?;
    let snapshot = Snapshot::build(Arc::new(config), Arc::new(materials), &lists, &families, None);
    let (world, _) = World::new(snapshot, KeyHasher::new([5; 16]), 443);
    Ok((Arc::new(world), registry))
}

/// A session as the application sets it.
fn learn(world: &World, number: u64) {
    let snapshot = world.snapshot.load();
    let pool = &snapshot.pools[0];
    let now = clock::unix_ms();
    let home = pool.backends[number as usize % pool.backends.len()].name().into();
    let session = Session {
        home,
        instance: 0x5e55_1011,
        from: None,
        created: now - 60_000,
        placed: now - 60_000,
        seen: now,
        ttl: None,
        unlearned: false,
        scope: Scope::UNKNOWN,
    };
    Entry::Session(session).absorb(pool, key(world, number), Rule::Newer);
}

fn key(world: &World, number: u64) -> SessionKey {
    world.hasher.key(&number.to_le_bytes())
}

fn value(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect("it is registered");
    family.get_metric()[0].get_gauge().get_value()
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |data| data.len())
}

/// CPU time of this process so far, all threads together.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("after the name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// The most bytes of this process that were in memory.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says so");
    let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kilobytes * 1024
}
