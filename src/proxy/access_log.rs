//! The access log: JSON lines, written by a thread of its own so that a slow disk delays nobody.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use prometheus::IntCounter;
use serde::Serialize;

use crate::config::{self, Config, LogFilter};

/// Where workers hand their records in.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    lost: IntCounter,
    filter: LogFilter,
}

/// The thread that writes; joined at the end, so that nothing is lost on a clean stop.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

/// Where lines end up.
#[derive(Debug)]
enum Sink {
    Stdout,
    Stderr,
    File(File, PathBuf),
}

/// Bytes written at a time.
const BATCH: usize = 64 * 1024;
/// Records on their way to the thread; more are counted as lost rather than waited for.
const QUEUE: usize = 8192;

// === impl AccessLog ===

impl AccessLog {
    /// Opens the log, if there is to be one.
    pub fn open(config: &Config, lost: IntCounter) -> io::Result<Option<(Self, Writer)>> {
        let sink = match &config.access_log {
            config::AccessLog::Off => return Ok(None),
            config::AccessLog::Stdout => Sink::Stdout,
            config::AccessLog::Stderr => Sink::Stderr,
            config::AccessLog::File(path) => Sink::File(open(path)?, path.clone()),
        };
        let (lines, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("homing-log".to_owned())
            .spawn(move || write_all(&queue, sink))?;
        Ok(Some((Self { lines, lost, filter: config.access_log_filter }, Writer(thread))))
    }

    /// Whether a request is recorded that failed, or did not.
    pub(super) fn wants(&self, failed: bool) -> bool {
        failed || self.filter == LogFilter::All
    }

    /// Hands a record in; never waits.
    pub(super) fn write(&self, record: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost.inc(),
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Waits until everything handed in is written; every [`AccessLog`] must be gone by now.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the access log ended early");
        }
    }
}

fn write_all(queue: &Receiver<Vec<u8>>, mut sink: Sink) {
    let mut complained = false;
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = queue.recv() {
        // In batches under load, line by line when little happens.
        batch.clear();
        batch.extend_from_slice(&first);
        while batch.len() < BATCH
            && let Ok(line) = queue.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        match sink.write(&batch) {
            Ok(()) => complained = false,
            Err(error) => {
                if !complained {
                    tracing::error!(%error, "cannot write the access log");
                }
                complained = true;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

// === impl Sink ===

impl Sink {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(batch)?;
                stdout.flush()
            }
            // Whole records: a message of the program is written under the same lock.
            Self::Stderr => io::stderr().lock().write_all(batch),
            Self::File(file, path) => {
                // Renamed or removed by whoever rotates logs: goes on in a new one.
                let there = fs::metadata(&*path).ok().map(|data| (data.dev(), data.ino()));
                let ours = file.metadata().map(|data| (data.dev(), data.ino()))?;
                if there != Some(ours) {
                    *file = open(path)?;
                }
                file.write_all(batch)
            }
        }
    }
}
