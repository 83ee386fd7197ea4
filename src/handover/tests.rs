//! Two worlds in one process, which speak as two processes do.

use std::{sync::mpsc, time::Duration};

use super::*;
use crate::{
    affinity::{KeyHasher, Rule, Trace},
    clock,
    listener::{Inherited, LocalSocket},
    secret::Secret,
    store::testing::{key, session, snapshot},
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

#[tokio::test]
async fn too_many_processes_that_still_run_refuse_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let giving = world();
    giving.advance(Phase::Ready);
    let before = exchange::Ends::new(exchange::Side::Taker, 0);
    before.exchange.set_earlier(7);
    giving.kin.join(&before.exchange);
    assert_eq!(giving.kin.earlier(), 8);
    let giver = Giver::new(&giving, Secret::load(None).unwrap(), [], || ()).unwrap();
    let socket = LocalSocket::bind("[state] handover", &path).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(std::sync::Arc::new(giver).serve(socket))
    });
    let error = Taker::connect(Some(&path), &mut Inherited::default()).unwrap_err().to_string();
    assert!(error.contains("8 processes before the running one"), "{error}");
}

#[tokio::test]
async fn what_begins_at_the_new_process_before_it_is_ready_is_asked_for() {
    let [(giving, _), (taking, follower)] = meet(|| ());
    let known = async |number| {
        session("app-2").absorb(&taking.snapshot.load().pools[0], key(number), Rule::Newer);
        let pool = &giving.snapshot.load_full().pools[0];
        giving.kin.look_up(pool, &[key(number)]).await;
        !matches!(pool.affinity.trace(key(number), clock::tick()), Trace::Unknown)
    };
    // The exchange begins a moment after the new process has everything.
    let mut in_a_row = 0;
    for number in 0..500 {
        in_a_row = if known(number).await { in_a_row + 1 } else { 0 };
        if in_a_row == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(in_a_row, 10, "faster than changes are told");
    drop(follower);
}
