use prometheus::Registry;
use redb::ReadableTable;

use super::{codec::Binding, content::id, database::SESSIONS, *};
use crate::{
    affinity::Rule,
    store::{
        Entry, Session,
        testing::{key, session, snapshot},
    },
};

const BACKENDS: [&str; 2] = ["app-1", "app-2"];

fn world() -> Arc<World> {
    let (world, _) = World::new(snapshot(&BACKENDS), KeyHasher::new([3; 16]), 443);
    Arc::new(world)
}

fn open(folder: &Path, world: &World) -> anyhow::Result<StateFile> {
    StateFile::open(&folder.join("homing.state"), &world.hasher, &Registry::new())
}

/// What a process finds that starts now.
fn found(folder: &Path) -> (Arc<World>, Counts) {
    let world = world();
    let counts = open(folder, &world).unwrap().restore(&world.snapshot.load()).unwrap();
    (world, counts)
}

fn learn(world: &World, number: u32, entry: &Entry) {
    entry.absorb(&world.snapshot.load().pools[0], key(number), Rule::Newer);
}

fn of(world: &World, number: u32) -> Entry {
    Entry::of(&world.snapshot.load().pools[0], key(number))
}

/// A process that knows these sessions stops in good order.
async fn run(folder: &Path, entries: &[Entry]) {
    let world = world();
    let mut state = open(folder, &world).unwrap();
    state.restore(&world.snapshot.load()).unwrap();
    let keeper = state.start(&world).unwrap();
    world.courier.open(&world.snapshot.load());
    for (number, entry) in (0..).zip(entries) {
        learn(&world, number, entry);
    }
    stop(&world, keeper).await;
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let holds = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), holds).await.is_ok(), "{what}");
}

async fn stop(world: &World, keeper: Keeper) {
    world.courier.flush(&world.snapshot.load()).await;
    keeper.finish().await;
}

fn a_session() -> Session {
    match session("app-1") {
        Entry::Session(session) => session,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_one_process_leaves_the_next_writes_anew_and_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let old = world();
    let mut state = open(folder.path(), &old).unwrap();
    state.restore(&old.snapshot.load()).unwrap();
    let held = state.start(&old).unwrap();
    old.courier.open(&old.snapshot.load());
    learn(&old, 1, &session("app-1"));

    let new = world();
    let path = folder.path().join("homing.state");
    let taking = StateFile::closed(&path, &new.hasher, &Registry::new()).unwrap();
    let taking_metrics = taking.writer.metrics.clone();
    let taking = taking.start(&new).unwrap();
    new.courier.open(&new.snapshot.load());
    learn(&new, 2, &session("app-2"));
    // The word comes too soon: it is not left yet.
    taking.open(oneshot::channel().1).await;
    until("it tries", || taking_metrics.failed.get() > 0).await;
    held.release().await;
    until("it has the file", || taking_metrics.held.get() == 1).await;
    learn(&old, 3, &session("app-1"));
    stop(&old, held).await;
    stop(&new, taking).await;

    let (world, counts) = found(folder.path());
    assert_eq!(counts.of(Outcome::Restored), 1);
    assert!(matches!(of(&world, 2), Entry::Session(_)));
}

#[tokio::test]
async fn a_process_that_left_the_file_can_take_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let world = world();
    let keeper = open(folder.path(), &world).unwrap().start(&world).unwrap();
    world.courier.open(&world.snapshot.load());
    keeper.release().await;
    learn(&world, 1, &session("app-1"));
    keeper.open(oneshot::channel().1).await;
    stop(&world, keeper).await;
    assert_eq!(found(folder.path()).1.of(Outcome::Restored), 1);
}

#[tokio::test]
async fn the_file_is_taken_the_moment_it_is_said_to_be_free() {
    let folder = tempfile::tempdir().unwrap();
    let world = world();
    let state =
        StateFile::closed(&folder.path().join("homing.state"), &world.hasher, &Registry::new()).unwrap();
    let metrics = state.writer.metrics.clone();
    let keeper = state.start(&world).unwrap();
    world.courier.open(&world.snapshot.load());
    let (free, freed) = oneshot::channel();
    keeper.open(freed).await;
    let waits = timeout(Duration::from_millis(700), until("it has the file", || metrics.held.get() == 1));
    assert!(waits.await.is_err(), "before it is free");
    free.send(()).unwrap();
    until("it has the file", || metrics.held.get() == 1).await;
    assert_eq!(metrics.failed.get(), 0);
    stop(&world, keeper).await;
}

#[tokio::test]
async fn an_address_that_has_left_dns_is_not_drained_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let old = world();
    let mut state = open(folder.path(), &old).unwrap();
    state.restore(&old.snapshot.load()).unwrap();
    let keeper = state.start(&old).unwrap();
    old.courier.open(&old.snapshot.load());
    old.snapshot.load().pools[0].backend("app-1").unwrap().leave(true);
    old.snapshot.load().pools[0].backend("app-2").unwrap().drain(crate::backend::Deadline::Never, 0);
    stop(&old, keeper).await;

    let (new, _) = found(folder.path());
    let pool = &new.snapshot.load().pools[0];
    let admin = BACKENDS.map(|name| pool.backend(name).unwrap().member.admin());
    assert_eq!(admin, [crate::affinity::Admin::Ready, crate::affinity::Admin::Draining]);
}

#[tokio::test]
async fn values_that_make_no_sense_are_counted_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &[session("app-1"), session("app-2")]).await;
    let place = Place::check(&folder.path().join("homing.state")).unwrap();
    let hasher = KeyHasher::new([3; 16]);
    let database = Database::open(&place, &fingerprint(&hasher)).unwrap().unwrap();
    let mut unknown_home = Vec::new();
    let now = clock::unix_ms();
    let binding = Binding {
        home: 77,
        instance: 0,
        from: None,
        created: now,
        placed: now,
        seen: now,
        ttl: None,
        unlearned: false,
        scope: 0,
    };
    binding.encode(&mut unknown_home);
    let spoilt = database.write(|transaction| {
        let mut table = transaction.open_table(SESSIONS)?;
        table.insert(id(0, key(10)), &b"nonsense"[..])?;
        table.insert(id(0, key(11)), &b""[..])?;
        table.insert(id(0, key(12)), &unknown_home[..])?;
        table.insert(id(9, key(13)), &unknown_home[..])?;
        Ok(())
    });
    spoilt.unwrap();
    drop(database);
    let (_, counts) = found(folder.path());
    assert_eq!((counts.of(Outcome::Restored), counts.of(Outcome::Damaged)), (2, 4));

    run(folder.path(), &[]).await;
    let database = Database::open(&place, &fingerprint(&hasher)).unwrap().unwrap();
    let transaction = database.read().unwrap();
    assert_eq!(transaction.open_table(SESSIONS).unwrap().iter().unwrap().count(), 2);
}

#[tokio::test]
async fn a_clock_that_went_back_makes_nothing_immortal() {
    let folder = tempfile::tempdir().unwrap();
    let year = 365 * 24 * 3_600_000;
    let now = clock::unix_ms();
    let place = Place::check(&folder.path().join("homing.state")).unwrap();
    let mut names = Names::default();
    let home = names.number("app", "app-1").unwrap();
    let future = Binding {
        home,
        instance: 0,
        from: None,
        created: now + year,
        placed: now + year,
        seen: now + year,
        ttl: None,
        unlearned: false,
        scope: 0,
    };
    let mut value = Vec::new();
    future.encode(&mut value);
    let written = Database::replace(&place, &fingerprint(&KeyHasher::new([3; 16])), |transaction| {
        transaction.open_table(SESSIONS)?.insert(id(0, key(1)), &value[..])?;
        names.write(transaction)
    });
    drop(written.unwrap());
    let (world, counts) = found(folder.path());
    assert_eq!(counts.of(Outcome::Restored), 1);
    let Entry::Session(session) = of(&world, 1) else { panic!("it is known") };
    assert!(session.seen <= clock::unix_ms() && session.created <= clock::unix_ms());
}

#[tokio::test]
async fn sessions_of_an_instance_that_is_gone_are_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let now = clock::unix_ms();
    let world = world();
    let mut state = open(folder.path(), &world).unwrap();
    state.restore(&world.snapshot.load()).unwrap();
    let keeper = state.start(&world).unwrap();
    world.courier.open(&world.snapshot.load());
    let lost = Session { instance: 5, created: now - 9_000, placed: now - 9_000, ..a_session() };
    learn(&world, 1, &Entry::Session(lost));
    keeper.release().await;
    drop(keeper);

    // Killed right after the backend had restarted: the file has the new instance, and sessions of the old one.
    let place = Place::check(&folder.path().join("homing.state")).unwrap();
    let fingerprint = fingerprint(&KeyHasher::new([3; 16]));
    let database = Database::open(&place, &fingerprint).unwrap();
    let Some(database) = database else { panic!("the file is there") };
    let (mut names, _) = Names::load(&database.read().unwrap()).unwrap();
    names.update("app", "app-1", (6, now - 1_000), codec::Steered::default());
    database.write(|transaction| names.write(transaction)).unwrap();
    drop(database);
    let (_, counts) = found(folder.path());
    assert_eq!((counts.of(Outcome::Restored), counts.of(Outcome::Restarted)), (0, 1));
}

#[tokio::test]
async fn a_file_that_is_missing_is_nothing_special() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(found(folder.path()).1, Counts::default());
}
