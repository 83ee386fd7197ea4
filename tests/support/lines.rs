//! What a process prints, line by line, with waiting.

use std::{
    io::{BufRead, BufReader, Read},
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use super::DEADLINE;

/// The lines that one output of a process has printed so far.
#[derive(Clone)]
pub(crate) struct Lines {
    name: &'static str,
    seen: watch::Receiver<Vec<Arc<str>>>,
}

impl Lines {
    /// Collects `output` on a thread of its own until it ends.
    pub(crate) fn collect(name: &'static str, output: impl Read + Send + 'static) -> Self {
        let (sender, seen) = watch::channel(Vec::new());
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line: Arc<str> = String::from_utf8_lossy(&line).as_ref().into();
                sender.send_modify(|lines| lines.push(line));
            }
        });
        Self { name, seen }
    }

    /// Everything so far.
    pub(crate) fn all(&self) -> Vec<Arc<str>> {
        self.seen.borrow().clone()
    }

    /// Everything so far, as one text.
    pub(crate) fn text(&self) -> String {
        self.seen.borrow().join("\n")
    }

    /// The first thing that `find` makes of a line; `None` when the output ends without it. Panics
    /// when the deadline passes first.
    pub(crate) async fn find<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut seen = self.seen.clone();
        let found = |lines: &Vec<Arc<str>>| lines.iter().any(|line| find(line).is_some());
        match tokio::time::timeout(DEADLINE, seen.wait_for(found)).await {
            Ok(Ok(lines)) => lines.iter().find_map(|line| find(line)),
            // The output has ended; what it said last still counts.
            Ok(Err(_)) => self.seen.borrow().iter().find_map(|line| find(line)),
            Err(_) => panic!("no {what} on {} within {DEADLINE:?}; it said:\n{}", self.name, self.text()),
        }
    }

    /// Waits for a line that contains `part`.
    pub(crate) async fn wait_for(&self, part: &str) -> String {
        let found = self.find(part, |line| line.contains(part).then(|| line.to_owned())).await;
        found.unwrap_or_else(|| panic!("{} ended without {part:?}; it said:\n{}", self.name, self.text()))
    }

    /// Waits until the output has ended, which it does with the process.
    pub(crate) async fn ended(&self) {
        let mut seen = self.seen.clone();
        let end = async { while seen.changed().await.is_ok() {} };
        assert!(tokio::time::timeout(DEADLINE, end).await.is_ok(), "{} does not end", self.name);
    }
}
