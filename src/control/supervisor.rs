//! One task per key that survives what does not concern it: a publish starts tasks for new keys, stops those whose key is
//! gone, and tells the others their new parameters.
//!
//! A task is never restarted for new parameters. It reads them from a channel, so it decides itself what of its work
//! still holds: a health check that is under way goes on, a back-off keeps its length.

use std::{collections::HashMap, future::pending, hash::Hash};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Runs one task per key. Dropping it stops all of them.
#[derive(Debug)]
pub(super) struct Supervisor<K, P> {
    running: HashMap<K, Running<P>>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running<P> {
    parameters: watch::Sender<P>,
    task: AbortHandle,
}

// === impl Supervisor ===

impl<K: Eq + Hash, P: PartialEq> Supervisor<K, P> {
    /// Runs nothing yet.
    pub(super) fn new() -> Self {
        Self { running: HashMap::new(), tasks: JoinSet::new() }
    }

    /// From now on exactly these keys have a task. `start` makes the one of a new key; `nth` counts those started by
    /// this call, so that they need not all begin at the same moment. A key that comes twice counts once.
    pub(super) fn settle<F>(
        &mut self,
        wanted: impl IntoIterator<Item = (K, P)>,
        mut start: impl FnMut(&K, watch::Receiver<P>, u32) -> F,
        mut stopped: impl FnMut(&K),
    ) where
        F: Future<Output = ()> + 'static,
    {
        let mut before = std::mem::take(&mut self.running);
        let mut started = 0;
        for (key, parameters) in wanted {
            if let Some(running) = before.remove(&key) {
                running.tell(parameters);
                self.running.insert(key, running);
            } else if let Some(running) = self.running.get(&key) {
                running.tell(parameters);
            } else {
                let (sender, receiver) = watch::channel(parameters);
                let task = self.tasks.spawn_local(start(&key, receiver, started));
                self.running.insert(key, Running { parameters: sender, task });
                started += 1;
            }
        }
        for (key, running) in before {
            running.task.abort();
            stopped(&key);
        }
    }

    /// Resolves when a task has ended by itself, which none should.
    pub(super) async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if !ended.is_err_and(|error| error.is_cancelled()) {
                return;
            }
        }
        pending().await
    }
}

// === impl Running ===

impl<P: PartialEq> Running<P> {
    fn tell(&self, parameters: P) {
        self.parameters.send_if_modified(|current| {
            let changed = *current != parameters;
            if changed {
                *current = parameters;
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// What the tasks and the supervisor did.
    type Log = Rc<RefCell<Vec<String>>>;

    fn settle(supervisor: &mut Supervisor<&'static str, u32>, log: &Log, wanted: &[(&'static str, u32)]) {
        let start = |key: &&'static str, mut now: watch::Receiver<u32>, nth: u32| {
            let (key, log) = (*key, Rc::clone(log));
            async move {
                log.borrow_mut().push(format!("{key} starts {nth}. with {}", *now.borrow_and_update()));
                while now.changed().await.is_ok() {
                    log.borrow_mut().push(format!("{key} hears {}", *now.borrow_and_update()));
                }
            }
        };
        let stopped = |key: &&'static str| log.borrow_mut().push(format!("{key} stops"));
        supervisor.settle(wanted.iter().copied(), start, stopped);
    }

    async fn logged(log: &Log) -> Vec<String> {
        for _ in 0..8 {
            yield_now().await;
        }
        let mut lines = std::mem::take(&mut *log.borrow_mut());
        lines.sort();
        lines
    }

    #[tokio::test]
    async fn a_task_lives_as_long_as_its_key_and_hears_of_new_parameters_only() {
        let (mut supervisor, log) = (Supervisor::new(), Log::default());
        LocalSet::new()
            .run_until(async {
                settle(&mut supervisor, &log, &[("a", 1), ("b", 1)]);
                assert_eq!(logged(&log).await, ["a starts 0. with 1", "b starts 1. with 1"]);
                settle(&mut supervisor, &log, &[("a", 1), ("b", 1)]);
                assert_eq!(logged(&log).await, [""; 0], "nothing concerns them");
                settle(&mut supervisor, &log, &[("b", 2), ("a", 1), ("c", 1)]);
                assert_eq!(logged(&log).await, ["b hears 2", "c starts 0. with 1"]);
                settle(&mut supervisor, &log, &[("c", 1)]);
                assert_eq!(logged(&log).await, ["a stops", "b stops"]);
            })
            .await;
    }

    #[tokio::test]
    async fn only_a_task_that_ends_by_itself_is_told() {
        let mut supervisor = Supervisor::new();
        LocalSet::new()
            .run_until(async {
                let ends = |ends: &bool, _, _| {
                    let ends = *ends;
                    async move {
                        if !ends {
                            pending::<()>().await;
                        }
                    }
                };
                supervisor.settle([(false, ())], ends, |_| ());
                supervisor.settle([], ends, |_| ());
                let log = Log::default();
                tokio::select! {
                    biased;
                    () = supervisor.ended() => panic!("it was stopped"),
                    _ = logged(&log) => {}
                }
                supervisor.settle([(true, ())], ends, |_| ());
                supervisor.ended().await;
            })
            .await;
    }
}
