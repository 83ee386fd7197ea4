//! Users with sessions who go on asking, as clients behind a TCP balancer do, and an account of how they fare.
//!
//! A user asks at one replica after the other, on the connection that it has there or, now and then, on a new
//! one. A connection that is refused or breaks before the answer is tried again, then at the next replica. Users
//! whom an application does not know any more log in again.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use homing::clock;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    call::{Answer, Jar},
    client::{Client, Connection},
    eventually,
};

/// Users and what became of their requests.
pub(crate) struct Load {
    ground: Arc<Ground>,
    users: Vec<Arc<User>>,
    running: Vec<JoinHandle<()>>,
}

/// Where a user asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// At one replica after the other.
    Roams,
    /// At this one, as long as it answers.
    Stays(usize),
    /// Nowhere, after the login and a look at each replica.
    Sleeps,
}

/// A request without a good answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Where its user asks.
    pub(crate) habit: Habit,
    /// Where the session of its user is.
    pub(crate) home: String,
    /// When it was first sent.
    pub(crate) sent: Instant,
    /// What was answered; none when nobody answered in [`PATIENCE`].
    pub(crate) status: Option<StatusCode>,
}

/// A session that its application knew, and then did not.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    /// Where its user asks.
    pub(crate) habit: Habit,
    pub(crate) home: String,
    /// When its login was answered.
    pub(crate) began: Instant,
}

/// What has happened since the load began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) before: usize,
    /// Users who logged in later.
    pub(crate) meanwhile: usize,
    pub(crate) requests: usize,
    /// The longest wait for an answer.
    pub(crate) longest: Duration,
    /// Requests of which a connection was refused or broke, and which were sent again.
    pub(crate) again: usize,
    /// Requests for which no replica was there for a moment.
    pub(crate) waited: usize,
    pub(crate) failed: Vec<Failure>,
    pub(crate) lost: Vec<Lost>,
    /// Homes of sessions that another backend answered.
    pub(crate) moved: Vec<String>,
}

/// What all users share.
struct Ground {
    doors: Vec<Client>,
    stopped: AtomicBool,
    /// Written by every user after each request.
    account: Mutex<Account>,
}

struct User {
    name: String,
    stays: Mutex<Habit>,
    /// Told to log out and go.
    leaving: AtomicBool,
    answered: AtomicUsize,
    session: Mutex<Session>,
}

#[derive(Clone)]
struct Session {
    jar: Jar,
    home: String,
    began: Instant,
    moved: bool,
    lost: bool,
}

/// One user's connections.
struct Feet {
    ground: Arc<Ground>,
    kept: Vec<Option<Connection>>,
    steps: usize,
}

/// How long a request is tried before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of a user.
const THINK: Duration = Duration::from_millis(100);
/// Between two rounds at replicas none of which is there.
const REFUSED: Duration = Duration::from_millis(20);
/// Every so many requests, a user's connection is a new one.
const FRESH: usize = 8;

// === impl Load ===

impl Load {
    /// Nobody yet, in front of these replicas.
    pub(crate) fn new(doors: Vec<Client>) -> Self {
        let ground = Ground { doors, stopped: AtomicBool::new(false), account: Mutex::default() };
        Self { ground: Arc::new(ground), users: Vec::new(), running: Vec::new() }
    }

    /// Logs so many more users in, who have asked at each replica where they go when this returns.
    pub(crate) async fn join(&mut self, count: usize, habit: Habit) {
        let doors = self.ground.doors.len();
        for _ in 0..count {
            let name = format!("user-{}", self.users.len());
            let mut feet = Feet::new(&self.ground, self.users.len());
            if let Habit::Stays(door) = habit {
                feet.steps = door;
            }
            let session = feet.login(&name, &Jar::default(), habit, "").await.expect("a login");
            let user = Arc::new(User {
                name,
                stays: Mutex::new(habit),
                leaving: AtomicBool::new(false),
                answered: AtomicUsize::new(0),
                session: Mutex::new(session),
            });
            for _ in 1..doors {
                feet.ask_who(&user).await;
            }
            self.users.push(Arc::clone(&user));
            if habit != Habit::Sleeps {
                self.running.push(tokio::spawn(feet.walk(user)));
            }
        }
    }

    /// Takes the sessions so far for those before the fault.
    pub(crate) fn mark(&self) {
        self.ground.account().before = self.users.len();
    }

    /// All roam from now on.
    pub(crate) fn roam(&self) {
        for user in &self.users {
            *lock(&user.stays) = Habit::Roams;
        }
    }

    /// Waits until everybody has been answered so many times more, well or not.
    pub(crate) async fn rounds(&self, count: usize) {
        let awake = || self.users.iter().filter(|user| user.is_awake());
        let aims: Vec<_> = awake().map(|user| (user, user.answered() + count)).collect();
        eventually("everybody is answered", async || {
            aims.iter().all(|(user, aim)| user.answered() >= *aim || !user.is_awake())
        })
        .await;
    }

    /// Sessions that live at this backend.
    pub(crate) fn at(&self, home: &str) -> usize {
        self.users.iter().filter(|user| lock(&user.session).home == home).count()
    }

    /// Sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.users.iter().filter(|user| !user.leaving.load(Ordering::Relaxed)).count()
    }

    /// Users with sessions there log out and go.
    pub(crate) fn dismiss(&self, home: &str) {
        for user in self.users.iter().filter(|user| lock(&user.session).home == home) {
            user.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Everybody stops, after the request that is under way.
    pub(crate) async fn stop(&mut self) {
        self.ground.stopped.store(true, Ordering::Relaxed);
        for running in self.running.drain(..) {
            running.await.expect("no panic of a user");
        }
    }

    /// Asks for everybody at every replica, once: they are known there, and at home. To be called after the stop.
    pub(crate) async fn agree(&self) {
        assert!(self.running.is_empty(), "they have stopped");
        for user in self.users.iter().filter(|user| !user.leaving.load(Ordering::Relaxed)) {
            let session = lock(&user.session).clone();
            for (at, door) in self.ground.doors.iter().enumerate() {
                let answer = door.get("/whoami").jar(&session.jar).send().await;
                assert_eq!(answer.header("x-backend"), session.home, "{} at replica {at}", user.name);
                assert_eq!(who(&answer).as_deref(), Some(&*user.name), "at replica {at}");
            }
        }
    }

    /// Asks for everybody at every replica, and takes it down.
    pub(crate) async fn look(&self) {
        for (number, user) in self.users.iter().enumerate() {
            let mut feet = Feet::new(&self.ground, number);
            for _ in 0..self.ground.doors.len() {
                feet.ask_who(user).await;
            }
        }
    }

    /// What has happened so far.
    pub(crate) fn account(&self) -> Account {
        let account = self.ground.account().clone();
        Account { meanwhile: self.users.len() - account.before, ..account }
    }
}

// === impl Ground ===

impl Ground {
    fn account(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }
}

// === impl User ===

impl User {
    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    fn is_awake(&self) -> bool {
        *lock(&self.stays) != Habit::Sleeps && !self.leaving.load(Ordering::Relaxed)
    }
}

// === impl Feet ===

impl Feet {
    fn new(ground: &Arc<Ground>, steps: usize) -> Self {
        Self { ground: Arc::clone(ground), kept: ground.doors.iter().map(|_| None).collect(), steps }
    }

    async fn walk(mut self, user: Arc<User>) {
        while !self.ground.stopped.load(Ordering::Relaxed) {
            if user.leaving.load(Ordering::Relaxed) {
                let (jar, habit) = (lock(&user.session).jar.clone(), *lock(&user.stays));
                self.ask(Method::POST, "/logout", &jar, habit, "").await;
                return;
            }
            self.ask_who(&user).await;
            user.answered.fetch_add(1, Ordering::Relaxed);
            sleep(THINK).await;
        }
    }

    /// Asks the application who the user is, and takes the answer down.
    async fn ask_who(&mut self, user: &User) {
        let (session, habit) = (lock(&user.session).clone(), *lock(&user.stays));
        let Some(answer) = self.ask(Method::GET, "/whoami", &session.jar, habit, &session.home).await else {
            return;
        };
        if answer.header("x-backend") != session.home && !session.moved {
            lock(&user.session).moved = true;
            self.ground.account().moved.push(session.home.clone());
        }
        if who(&answer).as_deref() == Some(&*user.name) {
            return;
        }
        if !session.lost {
            lock(&user.session).lost = true;
            self.ground.account().lost.push(Lost { habit, home: session.home.clone(), began: session.began });
        }
        // A login that fails is taken down, and comes after the next look.
        if let Some(session) = self.login(&user.name, &session.jar, habit, &session.home).await {
            *lock(&user.session) = session;
        }
    }

    /// Logs in, after a session at `from` if there was one.
    async fn login(&mut self, user: &str, jar: &Jar, habit: Habit, from: &str) -> Option<Session> {
        let mut jar = jar.clone();
        let answer = self.ask(Method::POST, &format!("/login?user={user}"), &jar, habit, from).await?;
        jar.store(&answer.headers);
        let home = answer.header("x-backend").to_owned();
        Some(Session { jar, home, began: clock::now(), moved: false, lost: false })
    }

    /// One request, tried until somebody answers; none when that answer is no good one.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        jar: &Jar,
        habit: Habit,
        home: &str,
    ) -> Option<Answer> {
        let sent = clock::now();
        let door = match habit {
            Habit::Stays(door) => door,
            Habit::Roams | Habit::Sleeps => self.steps % self.kept.len(),
        };
        self.steps += 1;
        let mut tries = 0;
        let answer = loop {
            let at = (door + tries) % self.kept.len();
            if let Some(answer) = self.attempt(at, &method, path, jar).await {
                break Some(answer);
            }
            tries += 1;
            if clock::now() - sent > PATIENCE {
                break None;
            }
            if tries % self.kept.len() == 0 {
                sleep(REFUSED).await;
            }
        };
        let took = clock::now() - sent;
        let mut account = self.ground.account();
        account.requests += 1;
        account.longest = account.longest.max(took);
        account.again += usize::from(tries > 0);
        account.waited += usize::from(tries >= self.kept.len());
        match answer {
            Some(answer) if answer.status == StatusCode::OK => Some(answer),
            other => {
                let status = other.map(|answer| answer.status);
                account.failed.push(Failure { habit, home: home.to_owned(), sent, status });
                None
            }
        }
    }

    /// Asks at this replica; on a new connection if the one that there is has ended.
    async fn attempt(&mut self, at: usize, method: &Method, path: &str, jar: &Jar) -> Option<Answer> {
        let kept = self.kept[at].take().filter(|_| !self.steps.is_multiple_of(FRESH));
        let mut stale = kept.is_some();
        let mut connection = kept;
        loop {
            let open = match connection.take() {
                Some(kept) => kept,
                None => timeout(PATIENCE, self.ground.doors[at].try_connect()).await.ok()?.ok()?,
            };
            let call = open.request(method.clone(), path).jar(jar).try_send();
            match timeout(PATIENCE, call).await {
                Ok(Ok(answer)) => {
                    if answer.header("connection") != "close" {
                        self.kept[at] = Some(open);
                    }
                    return Some(answer);
                }
                // The server has closed it meanwhile.
                Ok(Err(_)) if stale => stale = false,
                _ => return None,
            }
        }
    }
}

// === impl Account ===

impl Account {
    /// Fails unless every session was known to its application all the time, and every request was answered well.
    pub(crate) fn assert_nothing_lost(&self) {
        assert!(self.lost.is_empty() && self.moved.is_empty() && self.failed.is_empty(), "{self:#?}");
    }

    /// Fails when a session was lost or moved that lived elsewhere than at this backend, or when a request
    /// failed of another one, or one that was sent after `seen`.
    pub(crate) fn assert_only(&self, home: &str, seen: Instant) {
        let elsewhere = self.lost.iter().map(|lost| &lost.home).chain(&self.moved).find(|from| *from != home);
        assert!(elsewhere.is_none(), "{elsewhere:?}: {self:#?}");
        let beyond = self.failed.iter().find(|failed| failed.home != home || failed.sent > seen);
        assert!(beyond.is_none(), "{beyond:?}, seen at {seen:?}: {self:#?}");
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, meanwhile, requests, again, failed, lost, moved, .. } = self;
        write!(f, "{} sessions before", grouped(*before))?;
        if *meanwhile > 0 {
            write!(f, ", {} begun meanwhile", grouped(*meanwhile))?;
        }
        write!(f, ", {} lost, {} moved; ", grouped(lost.len()), grouped(moved.len()))?;
        write!(f, "{} requests, {} sent again, ", grouped(*requests), grouped(*again))?;
        write!(f, "{} failed", grouped(failed.len()))
    }
}

/// With commas between thousands.
fn grouped(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}

/// Who the application says the user is.
fn who(answer: &Answer) -> Option<String> {
    let told: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(told["user"].as_str()?.to_owned())
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().expect("no panic under it")
}
