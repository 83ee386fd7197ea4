//! Two worlds in one process, which speak as two processes do.

use std::{sync::mpsc, time::Duration};

use super::*;
use crate::{
    affinity::KeyHasher,
    listener::{Inherited, LocalSocket},
    secret::Secret,
    store::testing::snapshot,
    world::{Phase, World},
};

fn world() -> std::sync::Arc<World> {
    std::sync::Arc::new(World::new(snapshot(&["app-1", "app-2"]), KeyHasher::new([3; 16]), 443).0)
}

/// A process that serves, and one that has everything and is not ready yet.
fn meet(release: impl Fn() + Send + Sync + 'static) -> [(std::sync::Arc<World>, Option<Taking>); 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let (giving, taking) = (world(), world());
    giving.advance(Phase::Ready);
    let giver = Giver::new(&giving, Secret::load(None).unwrap(), [], release).unwrap();
    let socket = LocalSocket::bind("[state] handover", &path).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(std::sync::Arc::new(giver).serve(socket))
    });
    let mut taker = Taker::connect(Some(&path), &mut Inherited::default()).unwrap();
    taker.restore(&taking).unwrap();
    let follower = taker.follow(&taking).unwrap();
    [(giving, None), (taking, Some(follower))]
}

#[tokio::test]
async fn a_file_that_is_slow_to_close_holds_nobody_up() {
    let (close, closing) = mpsc::channel::<()>();
    let closing = std::sync::Mutex::new(closing);
    let [(giving, _), (_, taking)] = meet(move || closing.lock().unwrap().recv().unwrap());
    let mut taking = taking.unwrap();
    tokio::time::timeout(Duration::from_secs(5), taking.ready()).await.expect("at once").unwrap();
    assert!(giving.is_handed_over());
    let mut freed = taking.freed();
    assert!(freed.try_recv().is_err(), "it is not closed yet");
    close.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("soon").expect("the word");
}
