//! An open loop: requests start when they are due, and their latency counts from then, so that a proxy that stalls
//! cannot hide it by keeping the load waiting (coordinated omission).

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use crate::{Protocol, Target, percentiles::percentile, schedule::Schedule};

mod h1;
pub(crate) mod h2;

/// How long answers may take after the last request was due.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is shared by whoever plans requests and whoever makes them.
#[derive(Clone, Default)]
struct Book(Rc<RefCell<Entries>>);

#[derive(Default)]
struct Entries {
    /// Moments at which requests were due for which there was no connection.
    waiting: VecDeque<Instant>,
    latencies: Vec<Duration>,
    /// Latencies count from here on.
    counts_from: Option<Instant>,
    answered: u64,
    error: Option<anyhow::Error>,
}

/// Makes `rate` requests a second.
pub(crate) async fn run(
    target: Target,
    protocol: Protocol,
    connections: usize,
    rate: f64,
    warm_up: Duration,
    seconds: Duration,
) -> Result<()> {
    ensure!(rate > 0.0 && rate.is_finite(), "a rate is a number above zero");
    ensure!(connections > 0, "no connections");
    let book = Book::default();
    let mut load = Load::open(target, protocol, connections, &book).await?;
    let begin = Instant::now();
    let counts_from = begin + warm_up;
    book.0.borrow_mut().counts_from = Some(counts_from);
    let end = counts_from + seconds;
    let mut schedule = Schedule::new(begin, rate);
    let timer = Timer::new()?;
    let mut planned = 0_u64;
    // By how much requests were begun late, which is not the proxy's doing.
    let mut late = Vec::new();
    while schedule.next() < end {
        let now = Instant::now();
        while let Some(due) = schedule.due(now) {
            planned += 1;
            late.push(now - due);
            load.start(due);
        }
        timer.until(schedule.next()).await?;
        if let Some(error) = book.0.borrow_mut().error.take() {
            return Err(error);
        }
    }
    // What is not answered by then counts as an error.
    while book.0.borrow().answered < planned && Instant::now() < end + PATIENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut entries = book.0.borrow_mut();
    if let Some(error) = entries.error.take() {
        return Err(error);
    }
    entries.latencies.sort_unstable();
    late.sort_unstable();
    let sorted = &entries.latencies;
    let of = |share| percentile(sorted, share).as_secs_f64() * 1e6;
    println!(
        "{{\"succeeded\": {}, \"errors\": {}, \"counted\": {}, \"p50\": {:.1}, \"p99\": {:.1}, \"p999\": {:.1}, \"late\": {:.1}}}",
        entries.answered,
        planned - entries.answered,
        sorted.len(),
        of(0.5),
        of(0.99),
        of(0.999),
        percentile(&late, 0.99).as_secs_f64() * 1e6
    );
    Ok(())
}

enum Load {
    H1(h1::Load),
    H2(h2::Load),
}

// === impl Load ===

impl Load {
    async fn open(target: Target, protocol: Protocol, connections: usize, book: &Book) -> Result<Self> {
        Ok(match protocol {
            Protocol::H1 => Self::H1(h1::Load::open(target, connections, book).await?),
            Protocol::H2 => Self::H2(h2::Load::open(target, connections, book).await?),
        })
    }

    fn start(&mut self, due: Instant) {
        match self {
            Self::H1(load) => load.start(due),
            Self::H2(load) => load.start(due),
        }
    }
}

// === impl Book ===

impl Book {
    fn ended(&self, due: Instant, result: Result<()>) {
        let now = Instant::now();
        let mut entries = self.0.borrow_mut();
        match result {
            Ok(()) => {
                entries.answered += 1;
                if entries.counts_from.is_some_and(|from| due >= from) {
                    entries.latencies.push(now - due);
                }
            }
            Err(error) => entries.error = Some(error),
        }
    }
}

/// A timer that is finer than the milliseconds of the runtime's. What reads it is made for pipes, and reads anything
/// that epoll knows.
struct Timer(Receiver, OwnedFd);

// === impl Timer ===

impl Timer {
    fn new() -> Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(timer.try_clone()?)?, timer))
    }

    async fn until(&self, moment: Instant) -> Result<()> {
        // Zero would be no timer at all.
        let wait = moment.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) },
        };
        timerfd_settime(&self.1, TimerfdTimerFlags::empty(), &value)?;
        let mut times = [0; 8];
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut times) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
