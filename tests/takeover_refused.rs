//! A hand-over that does not come about leaves the running process as it was, and says why.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use http::StatusCode;
use tempfile::TempDir;

use self::support::{
    DEADLINE, app, backend::Backend, client::Client, port::Port, process::Homing, setup::Setup, within,
};

/// Where processes meet.
struct Meeting(TempDir);

/// One end of a hand-over in the hands of a test.
struct Peer(UnixStream);

/// Kinds of frames, and the version of this program.
const HELLO: u8 = 1;
const REFUSED: u8 = 2;
const OFFER: u8 = 3;
const TABLE: u8 = 5;
const TABLE_END: u8 = 7;
const READY: u8 = 8;
const VERSION: u32 = 2;

// === impl Meeting ===

impl Meeting {
    fn place() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("handover.sock")
    }

    fn setup(&self, backends: &[Backend]) -> Setup {
        let state = format!("[state]\nhandover = \"{}\"", self.socket().display());
        Setup::new(backends).section(&state)
    }
}

// === impl Peer ===

impl Peer {
    /// Connects to the running program.
    fn connect(meeting: &Meeting) -> Self {
        Self::new(UnixStream::connect(meeting.socket()).expect("it listens"))
    }

    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        Self(stream)
    }

    /// Greets in this version; what comes after the other side's greeting.
    fn greet(&mut self, version: u32) -> (u8, Vec<u8>) {
        self.say(HELLO, &[b"homing hand-over", &version.to_be_bytes()[..]].concat());
        let (kind, greeting) = self.hear();
        assert_eq!((kind, &greeting[..16]), (HELLO, &b"homing hand-over"[..]));
        self.hear()
    }

    fn say(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        self.0.write_all(&[&length[..], &[kind], payload].concat()).expect("it reads");
    }

    fn hear(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).expect("a whole frame");
        (head[4], payload)
    }

    /// Everything up to the end of the table.
    fn take_everything(&mut self) {
        self.say(TABLE, &[]);
        while self.hear().0 != TABLE_END {}
    }
}

/// Whether it serves, and can still hand over.
async fn goes_on(old: &Homing, meeting: &Meeting, backends: &[Backend]) {
    let (jar, _) = app::login(&Client::h1(old), "user").await;
    assert!(old.process.exit_status().is_none());
    let new = meeting.setup(backends).takeover().start().await;
    let page = Client::h1(&new).get("/").jar(&jar).send().await;
    assert_eq!((page.status, page.text()), (StatusCode::OK, "user"));
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_new_process_with_a_mistake_leaves_the_old_one_serving() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let ended = meeting.setup(&backends).top("hsts = 5").takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    // This one shows only after the sockets have come over.
    let taken = Port::reserve();
    let _listening = taken.listen();
    let ended = meeting.setup(&backends).https(taken.address).takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("is in use by another program"), "{}", ended.stderr);
    old.process.stderr.wait_for("ended before it served, see its log: going on as before").await;
    goes_on(&old, &meeting, &backends).await;
}

#[tokio::test]
async fn a_new_process_that_dies_before_it_is_ready_leaves_the_old_one_serving() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let mut early = Peer::connect(&meeting);
    assert_eq!(early.greet(VERSION).0, OFFER);
    drop(early);
    let told = old.process.stderr.wait_for("going on as before").await;
    assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
    let mut peer = Peer::connect(&meeting);
    assert_eq!(peer.greet(VERSION).0, OFFER);
    peer.take_everything();
    drop(peer);
    old.process.stderr.wait_for("ended before it served, see its log").await;
    goes_on(&old, &meeting, &backends).await;
}

#[tokio::test]
async fn an_old_process_that_stands_still_serves_again_when_the_new_one_has_given_up() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let secret = format!("secret_file = \"{}\"", meeting.0.path().join("secret").display());
    let old = meeting.setup(&backends).top(&secret).start().await;
    // The new one waits a while for a Redis that says nothing: when it has everything, and before it is ready.
    let redis = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = redis.local_addr().expect("bound");
    let state =
        format!("[state]\nhandover = \"{}\"\nredis = \"redis://{address}\"", meeting.socket().display());
    let new = Setup::new(&backends).top(&secret).section(&state).takeover();
    let stop = async {
        let connection = within("a connection to Redis", redis.accept()).await;
        old.process.signal("STOP");
        connection
    };
    let (ended, _connection) = tokio::join!(new.run_to_end("serve"), stop);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("does not answer"), "{}", ended.stderr);
    old.process.signal("CONT");
    old.process.stderr.wait_for("going on as before").await;
    let (jar, _) = app::login(&Client::h1(&old), "user").await;
    let new = meeting.setup(&backends).top(&secret).takeover().start().await;
    assert_eq!(Client::h1(&new).get("/").jar(&jar).send().await.text(), "user");
    assert_eq!(old.process.wait_exit().await.status.code(), Some(0));
}

#[tokio::test]
async fn an_old_process_that_stands_still_does_not_hand_over_to_one_that_is_dead() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let mut peer = Peer::connect(&meeting);
    assert_eq!(peer.greet(VERSION).0, OFFER);
    peer.take_everything();
    old.process.signal("STOP");
    peer.say(READY, &[]);
    drop(peer);
    old.process.signal("CONT");
    old.process.stderr.wait_for("going on as before").await;
    goes_on(&old, &meeting, &backends).await;
}

#[tokio::test]
async fn one_process_takes_over_at_a_time() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let mut first = Peer::connect(&meeting);
    assert_eq!(first.greet(VERSION).0, OFFER);
    first.take_everything();
    let second = meeting.setup(&backends).takeover().run_to_end("serve").await;
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains("another process is taking over already"), "{}", second.stderr);
    drop(first);
    old.process.stderr.wait_for("ended before it served, see its log").await;
    goes_on(&old, &meeting, &backends).await;
}

#[tokio::test]
async fn another_version_is_refused_by_either_side() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let (kind, why) = Peer::connect(&meeting).greet(VERSION + 1);
    let why = String::from_utf8(why).expect("text");
    assert_eq!(kind, REFUSED);
    assert!(why.contains("version 2") && why.contains("the new one 3: restart instead"), "{why}");
    goes_on(&old, &meeting, &backends).await;

    let meeting = Meeting::place();
    let listener = UnixListener::bind(meeting.socket()).expect("a socket");
    let giver = std::thread::spawn(move || {
        let mut peer = Peer::new(listener.accept().expect("a new process").0);
        let (kind, _) = peer.hear();
        peer.say(HELLO, b"homing hand-over\0\0\0\x07");
        kind
    });
    let ended = meeting.setup(&backends).takeover().run_to_end("serve").await;
    assert_eq!(giver.join().expect("no panic"), HELLO);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("speaks version 7 of the hand-over, this one 2"), "{}", ended.stderr);
}

#[tokio::test]
async fn who_is_refused_at_once_hears_why() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let listener = UnixListener::bind(meeting.socket()).expect("a socket");
    let giver = std::thread::spawn(move || {
        // It does not even read the greeting.
        Peer::new(listener.accept().expect("a new process").0).say(REFUSED, b"you are nobody's heir");
    });
    let ended = meeting.setup(&backends).takeover().run_to_end("serve").await;
    giver.join().expect("no panic");
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("refuses: you are nobody's heir"), "{}", ended.stderr);
}

#[tokio::test]
async fn who_starts_beside_a_running_process_is_told_of_the_take_over() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    // The port is taken; and where another is configured, the socket.
    for address in [old.https, "127.0.0.1:0".parse().expect("an address")] {
        let ended = meeting.setup(&backends).https(address).run_to_end("serve").await;
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains("is in use by another program"), "{}", ended.stderr);
        let hint = format!("a homing is running at {}", meeting.socket().display());
        assert!(ended.stderr.contains(&hint), "{}", ended.stderr);
        assert!(ended.stderr.contains("`homing serve --takeover`"), "{}", ended.stderr);
    }
    goes_on(&old, &meeting, &backends).await;
    assert!(!old.process.stderr.text().contains("ended before it served"), "it only looked");
}

#[tokio::test]
async fn without_anybody_to_take_over_from_it_says_so() {
    let (backends, meeting) = (app::several(1), Meeting::place());
    let ended = meeting.setup(&backends).takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("nobody listens at") && ended.stderr.contains("leave out --takeover"));
    let ended = Setup::new(&backends).takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("the configuration has no `[state] handover`"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_state_file_can_be_added_unless_a_key_of_an_earlier_one_is_there() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let old = meeting.setup(&backends).start().await;
    let (jar, _) = app::login(&Client::h1(&old), "user").await;
    let key = meeting.0.path().join("homing.state.key");
    let with_file = || {
        let lines = format!("handover = {:?}\nfile = {:?}", meeting.socket(), key.with_extension(""));
        Setup::new(&backends).section(&format!("[state]\n{lines}"))
    };
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").expect("a file");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, private).expect("ours");
    let ended = with_file().takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("the key file of `[state] file`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("homing.state.key") && !ended.stderr.contains("`secret_file`"));
    std::fs::remove_file(&key).expect("ours");
    let new = with_file().takeover().start().await;
    assert_eq!(Client::h1(&new).get("/").jar(&jar).send().await.text(), "user");
    assert!(key.exists(), "the sessions can be found again after a restart");
}

#[tokio::test]
async fn keys_under_another_secret_are_refused() {
    let (backends, meeting) = (app::several(2), Meeting::place());
    let secret = |name: &str| format!("secret_file = \"{}\"", meeting.0.path().join(name).display());
    let setup = |name: &str| meeting.setup(&backends).top(&secret(name));
    let old = setup("one").start().await;
    let ended = setup("other").takeover().run_to_end("serve").await;
    assert!(
        ended.stderr.contains("there is no") && ended.stderr.contains("copy that there"),
        "{}",
        ended.stderr
    );
    let other = meeting.0.path().join("other");
    assert!(!other.exists(), "no stray secret");
    std::fs::write(&other, "0123456789abcdef0123456789abcdef\n").expect("a file");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&other, private).expect("ours");
    let ended = setup("other").takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("no session would be found again"), "{}", ended.stderr);
    let ended = meeting.setup(&backends).takeover().run_to_end("serve").await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("set `secret_file` to that"), "{}", ended.stderr);
    let (jar, _) = app::login(&Client::h1(&old), "user").await;
    let new = setup("one").takeover().start().await;
    assert_eq!(Client::h1(&new).get("/").jar(&jar).send().await.text(), "user");
}
