//! The state file, as it is found at start: restored or set aside, whatever is in it.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use homing::{
    affinity::KeyHasher,
    backend::Families,
    clock,
    config::Config,
    control,
    demo::certs,
    materials::Materials,
    store::file::{Outcome, StateFile, preview},
    tls::Ticketer,
    world::Snapshot,
};
use prometheus::Registry;
use redb::{Database, TableDefinition};

/// The first byte says what the rest is: a file, changes of a good file (five bytes each: where, and what is there
/// instead), or values for its tables (table, key and length, a byte each, and the value).
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let content = match kind % 3 {
        0 => rest.to_vec(),
        1 => changed(rest),
        _ => with_values(rest),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("homing.state");
    fs::write(&file, &content).expect("a file");
    let hasher = KeyHasher::new(SECRET);
    let preview = preview(&file, &hasher).expect("a file that can be read");
    assert_eq!(fs::read(&file).expect("still there"), content, "a look changes nothing");
    // One pool in an empty world.
    let snapshot = WORLD.snapshot();
    let mut state = StateFile::open(&file, &hasher, &Registry::new()).expect("a file that is not locked");
    if let Some(damage) = preview {
        assert!(!file.exists(), "it was to be set aside: {damage}");
    }
    let counts = state.restore(&snapshot).expect("a file that can be set aside");
    let is_aside = !content.is_empty() && !file.exists();
    let asides = fs::read_dir(folder.path()).expect("ours").flatten();
    let asides = asides.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).count();
    assert_eq!(asides, usize::from(is_aside), "what is not used is kept");
    let restored = counts.of(Outcome::Restored);
    let table = snapshot.pools[0].affinity.sizes().table as u64;
    assert!(restored <= table && table <= 1024, "{counts:?}, {table} in the table");
    if content == *GOOD {
        assert_eq!((restored, is_aside), (SESSIONS_IN_IT, false), "{counts:?}");
    }
}

/// What no run changes.
struct World {
    config: Arc<Config>,
    materials: Arc<Materials>,
    families: Families,
}

const SECRET: [u8; 16] = [1; 16];
const SESSIONS_IN_IT: u64 = 20;

const SESSIONS: TableDefinition<'_, [u8; 18], &[u8]> = TableDefinition::new("sessions");
const ALIASES: TableDefinition<'_, [u8; 18], &[u8]> = TableDefinition::new("aliases");
const BACKENDS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("backends");
const POOLS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("pools");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let made = certs::prepare(folder.path(), clock::wall()).expect("certificates");
    let text = format!(
        "certificate = [{{ cert = {:?}, key = {:?} }}]\n\
        pool = [{{ name = \"app\", backend = [{{ name = \"a\", url = \"http://127.0.0.1:1\" }}] }}]",
        made.files.cert, made.files.key,
    );
    let config = Config::parse(&text, "test", Path::new("")).expect("a configuration");
    let ticketer = Ticketer::new().expect("tickets");
    let materials = Materials::load(&config, &ticketer).expect("materials");
    let families = Families::register(&Registry::new()).expect("metrics");
    World { config: Arc::new(config), materials: Arc::new(materials), families }
});

/// A good file of today.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("good");
    build(&file, &[]);
    fs::read(&file).expect("just made")
});

// === impl World ===

impl World {
    fn snapshot(&self) -> Snapshot {
        let lists = control::written(&self.config);
        let (config, materials) = (Arc::clone(&self.config), Arc::clone(&self.materials));
        Snapshot::build(config, materials, &lists, &self.families, None)
    }
}

fn changed(changes: &[u8]) -> Vec<u8> {
    let mut content = GOOD.clone();
    for change in changes.chunks(5) {
        match *change {
            [a, b, c, d, byte] => {
                let at = u32::from_le_bytes([a, b, c, d]) as usize % content.len();
                content[at] = byte;
            }
            // What is left over breaks the file off.
            [first, ..] => content.truncate(content.len() / 256 * usize::from(first)),
            [] => {}
        }
    }
    content
}

fn with_values(values: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("values");
    build(&file, values);
    fs::read(&file).expect("just made")
}

/// Makes a file with good values and these.
fn build(file: &Path, mut values: &[u8]) {
    let hasher = KeyHasher::new(SECRET);
    let database = Database::create(file).expect("a database");
    let transaction = database.begin_write().expect("the only one");
    {
        let mut meta = transaction.open_table(META).expect("a table");
        meta.insert("homing state format", &1_u32.to_be_bytes()[..]).expect("room");
        let fingerprint = hasher.tagged(b'F', b"homing state file").to_bytes();
        meta.insert("secret fingerprint", &fingerprint[..]).expect("room");
        let mut pools = transaction.open_table(POOLS).expect("a table");
        pools.insert(0, &b"app"[..]).expect("room");
        let mut backends = transaction.open_table(BACKENDS).expect("a table");
        backends.insert(0, &b"\0\0a"[..]).expect("room");
        let mut sessions = transaction.open_table(SESSIONS).expect("a table");
        let mut aliases = transaction.open_table(ALIASES).expect("a table");
        for number in 0..SESSIONS_IN_IT {
            let binding = [&[0, 0][..], &leb128(clock::unix_ms()), &[0, 0]].concat();
            let id = id(u8::try_from(number).expect("few"));
            sessions.insert(id, &binding[..]).expect("room");
        }
        while let [table, key, length, rest @ ..] = values {
            let (value, after) = rest.split_at(usize::from(*length).min(rest.len()));
            values = after;
            match table % 4 {
                0 => drop(sessions.insert(id(*key), value).expect("room")),
                1 => drop(aliases.insert(id(*key), value).expect("room")),
                2 => drop(backends.insert(u32::from(*key), value).expect("room")),
                _ => drop(pools.insert(u16::from(*key), value).expect("room")),
            }
        }
    }
    transaction.commit().expect("a disk");
}

/// The key of a session of the first pool; the highest ones are of no pool.
fn id(number: u8) -> [u8; 18] {
    let mut id = [0x5a; 18];
    id[..2].copy_from_slice(&u16::from(number > 250).to_be_bytes());
    id[2] = number.wrapping_mul(11);
    id[17] = number;
    id
}

fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}
