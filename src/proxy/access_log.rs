//! The access log: JSON lines, written by a thread of its own so that a slow disk delays nobody.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use prometheus::IntCounter;
use serde::Serialize;

use crate::config;

/// Where workers hand their records in.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    lost: IntCounter,
}

/// The thread that writes; joined at the end, so that nothing is lost on a clean stop.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

/// Records on their way to the thread; more are counted as lost rather than waited for.
const QUEUE: usize = 8192;

// === impl AccessLog ===

impl AccessLog {
    /// Opens the log, if there is to be one.
    pub fn open(config: &config::AccessLog, lost: IntCounter) -> io::Result<Option<(Self, Writer)>> {
        let sink: Box<dyn Write + Send> = match config {
            config::AccessLog::Off => return Ok(None),
            config::AccessLog::Stdout => Box::new(io::stdout()),
            config::AccessLog::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let (lines, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("homing-log".to_owned())
            .spawn(move || write_all(&queue, BufWriter::with_capacity(64 * 1024, sink)))?;
        Ok(Some((Self { lines, lost }, Writer(thread))))
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

fn write_all(queue: &Receiver<Vec<u8>>, mut sink: BufWriter<Box<dyn Write + Send>>) {
    let mut complained = false;
    while let Ok(first) = queue.recv() {
        // Flushed whenever the queue runs dry: in batches under load, line by line when little happens.
        let mut result = sink.write_all(&first);
        while result.is_ok()
            && let Ok(line) = queue.try_recv()
        {
            result = sink.write_all(&line);
        }
        match result.and_then(|()| sink.flush()) {
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
