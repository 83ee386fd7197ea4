//! How long a hand-over takes: `cargo run --release --example handover [bindings]`.
//!
//! Giver and taker are two worlds in one process, which speak over a Unix socket as two processes do.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use homing::{
    affinity::{KeyHasher, Rule, Scope},
    backend::Families,
    clock,
    config::Config,
    control,
    demo::certs,
    handover::{Giver, Taker},
    listener::{Inherited, LocalSocket},
    materials::Materials,
    secret::Secret,
    store::{Entry, Session},
    tls::Ticketer,
    world::{Phase, Snapshot, World},
};

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("homing-handover-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = measure(count, &folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn measure(count: u64, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("s");
    let secret = Secret::load(None)?;
    let (giving, taking) = (world(folder, &secret)?, world(folder, &secret)?);
    fill(&giving, secret.hasher(), count);
    giving.advance(Phase::Ready);
    let giver = Arc::new(Giver::new(&giving, secret, [], || ())?);
    let socket = LocalSocket::bind("[state] handover", &path)?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| runtime.block_on(giver.serve(socket)))
    });
    let began = clock::now();
    let mut taker = Taker::connect(Some(&path), &mut Inherited::default())?;
    taker.restore(&taking)?;
    let took = clock::now() - began;
    let entries = |world: &World| world.snapshot.load().pools[0].affinity.sizes().table;
    println!("{} of {} bindings handed over in {took:.2?}", entries(&taking), entries(&giving));
    Ok(())
}

fn world(folder: &Path, secret: &Secret) -> anyhow::Result<Arc<World>> {
    certs::prepare(folder, clock::wall())?;
    let text = "certificate = [{ cert = \"localhost.pem\", key = \"localhost.key\" }]
        [[pool]]
        name = \"shop\"
        backend = [{ name = \"a\", url = \"http://127.0.0.1:1\" }, { name = \"b\", url = \"http://127.0.0.1:2\" }]
        [pool.affinity]
        max_sessions = 100000000";
    let config = Config::parse(text, "example", folder).ok().context("a configuration")?;
    let materials = Materials::load(&config, &Ticketer::new()?)?;
    let families = Families::register(&prometheus::Registry::new())?;
    let lists = control::written(&config);
    let snapshot = Snapshot::build(Arc::new(config), Arc::new(materials), &lists, &families, None);
    Ok(Arc::new(World::new(snapshot, secret.hasher(), 443).0))
}

fn fill(world: &World, hasher: KeyHasher, count: u64) {
    let snapshot = world.snapshot.load();
    let pool = &snapshot.pools[0];
    let now = clock::unix_ms();
    for number in 0..count {
        let ago = Duration::from_secs(number % 1_500).as_millis() as u64;
        let session = Session {
            home: if number % 2 == 0 { "a" } else { "b" }.into(),
            instance: 0,
            from: None,
            created: now - ago,
            placed: now - ago,
            seen: now - ago,
            ttl: None,
            unlearned: false,
            scope: Scope::UNKNOWN,
        };
        Entry::Session(session).absorb(pool, hasher.key(&number.to_be_bytes()), Rule::Newer);
    }
}
