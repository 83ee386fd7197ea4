//! A pool for tests of what leaves the process.

use std::{path::Path, sync::Arc};

use prometheus::Registry;

use super::{Entry, Session};
use crate::{
    affinity::{Scope, SessionKey},
    backend::Families,
    clock,
    config::Config,
    control, demo,
    materials::Materials,
    tls::Ticketer,
    world::Snapshot,
};

/// The world of one pool with these backends.
pub(crate) fn snapshot(backends: &[&str]) -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let files = demo::certs::prepare(folder.path(), clock::wall()).expect("certificates");
    let list: Vec<String> = (1..)
        .zip(backends)
        .map(|(port, name)| format!("{{ name = \"{name}\", url = \"http://127.0.0.1:{port}\" }}"))
        .collect();
    let text = format!(
        "certificate = [{{ cert = {:?}, key = {:?} }}]\npool = [{{ name = \"app\", backend = [{}] }}]",
        files.files.cert,
        files.files.key,
        list.join(", ")
    );
    let config = Config::parse(&text, "test", Path::new("")).expect("a configuration");
    let ticketer = Ticketer::new().expect("tickets");
    let materials = Materials::load(&config, &ticketer).expect("materials");
    let families = Families::register(&Registry::new()).expect("metrics");
    let lists = control::written(&config);
    Snapshot::build(Arc::new(config), Arc::new(materials), &lists, &families, None)
}

/// Tables hash the second half alone: without the number in it, all keys would collide.
pub(crate) fn key(number: u32) -> SessionKey {
    let mut bytes = [0x5a; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    SessionKey::from_bytes(bytes)
}

/// A session that was bound just now.
pub(crate) fn session(home: &str) -> Entry {
    let now = clock::unix_ms();
    Entry::Session(Session {
        home: home.into(),
        instance: 0,
        from: None,
        created: now,
        placed: now,
        seen: now,
        ttl: None,
        unlearned: false,
        scope: Scope::from_bits(7),
    })
}
