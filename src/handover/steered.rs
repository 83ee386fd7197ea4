//! What operators want of backends in the new process, told to the old one: the end of a drain, or maintenance, closes
//! what the old one still carries there, too.

use std::{collections::HashMap, io};

use super::message::{Steered, decode, encode};
use crate::{
    affinity::Admin,
    backend::Deadline,
    world::{Snapshot, World},
};

/// What the old process has been told; the new one's side.
#[derive(Debug, Default)]
pub(super) struct Wishes(HashMap<(Box<str>, Box<str>), Admin>);

/// Backends of one frame, whose names are far shorter than [`MAX_FRAME`](super::link::MAX_FRAME) by so many.
const BATCH: usize = 1000;

// === impl Wishes ===

impl Wishes {
    /// Frames for what has changed since the last time.
    ///
    /// # Errors
    ///
    /// Never: names and words can always be written.
    pub(super) fn changes(&mut self, snapshot: &Snapshot) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        for pool in &snapshot.pools {
            let mut backends = Vec::new();
            for backend in pool.backends.iter().chain(&pool.former) {
                let wanted = backend.standing.steering.wanted();
                let id = (pool.name.clone(), backend.name().into());
                if self.0.insert(id, wanted) != Some(wanted) {
                    backends.push((backend.name().to_owned(), wanted.as_str().to_owned()));
                }
            }
            for backends in backends.chunks(BATCH) {
                let steered = Steered { pool: pool.name.to_string(), backends: backends.to_vec() };
                frames.push(encode(&steered)?);
            }
        }
        Ok(frames)
    }
}

/// Does here what operators want there.
pub(super) fn obey(world: &World, frame: &[u8]) -> io::Result<()> {
    let Steered { pool, backends } = decode(frame)?;
    let snapshot = world.snapshot.load();
    let Some(pool) = snapshot.pool(&pool) else { return Ok(()) };
    for (name, wanted) in backends {
        let backend = pool.backend(&name).or_else(|| pool.former(&name));
        let wanted = Admin::ALL.into_iter().find(|admin| admin.as_str() == wanted);
        let (Some(backend), Some(wanted)) = (backend, wanted) else { continue };
        if backend.standing.steering.wanted() == wanted {
            continue;
        }
        match wanted {
            Admin::Ready => backend.undrain(),
            // The new process knows when it ends, and says so.
            Admin::Draining => backend.drain(Deadline::Never, pool.moved_away(backend)),
            Admin::Maintenance => backend.maintain(),
        }
        tracing::info!(pool = %pool.name, backend = name, wanted = wanted.as_str(), "as the new process has it");
    }
    Ok(())
}
