//! The real program as a child process.

use std::{
    ffi::OsStr,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, lines::Lines, metrics::Metrics, plain};

/// A run of the program, whatever its subcommand; killed when dropped.
pub(crate) struct Process {
    child: Mutex<Child>,
    pid: u32,
    pub(crate) stderr: Lines,
    pub(crate) stdout: Lines,
}

/// How a run ended, with all it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
}

/// A serving program.
pub(crate) struct Homing {
    pub(crate) process: Process,
    /// Where its front door is.
    pub(crate) https: SocketAddr,
    http: Option<SocketAddr>,
    admin: SocketAddr,
    /// Configuration and certificates; removed with the program.
    directory: TempDir,
}

// === impl Process ===

impl Process {
    /// Starts the program with these arguments.
    pub(crate) fn spawn<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        Self::run_command(command)
    }

    /// Starts the program with these arguments and no more file descriptors than `files`.
    pub(crate) fn spawn_with_files<A: AsRef<OsStr>>(
        files: usize,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        // Both limits, soft and hard: the program would raise a soft one.
        Self::spawn_after(&format!("ulimit -n {files}"), arguments)
    }

    /// Starts the program with these arguments, after a line of shell that prepares its process.
    pub(crate) fn spawn_after<A: AsRef<OsStr>>(line: &str, arguments: impl IntoIterator<Item = A>) -> Self {
        let line = format!("{line}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &line, PROGRAM]).args(arguments);
        Self::run_command(command)
    }

    /// Starts the program with these arguments and this socket, as systemd passes sockets: number 3, with the
    /// variables that say so.
    pub(crate) fn spawn_activated<A: AsRef<OsStr>>(
        socket: TcpListener,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let line = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", line, PROGRAM]).args(arguments).stdin(Stdio::from(OwnedFd::from(socket)));
        Self::run_with_input(command)
    }

    fn run_command(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::run_with_input(command)
    }

    fn run_with_input(mut command: Command) -> Self {
        command.env("NO_COLOR", "1").env_remove("HOMING_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("our program");
        let stderr = Lines::collect("stderr", child.stderr.take().expect("piped"));
        let stdout = Lines::collect("stdout", child.stdout.take().expect("piped"));
        Self { pid: child.id(), child: Mutex::new(child), stderr, stdout }
    }

    /// Runs the program to its end.
    pub(crate) async fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
        Self::spawn(arguments).wait_exit().await
    }

    /// Waits for its end; panics when it goes on.
    pub(crate) async fn wait_exit(&self) -> Ended {
        let mut status = None;
        eventually("the program ends", async || {
            status = self.exit_status();
            status.is_some()
        })
        .await;
        self.stderr.ended().await;
        self.stdout.ended().await;
        let status = status.expect("just waited for");
        Ended { status, stderr: self.stderr.text(), stdout: self.stdout.text() }
    }

    /// How it ended, if it has.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("our child")
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own kill: no unsafe code, and no package that might be missing.
        let kill = format!("kill -{name} {}", self.pid);
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(sent.success(), "{kill}");
    }

    /// Lets it write files up to this size from now on; none for any size.
    pub(crate) fn limit_file_size(&self, size: Option<u64>) {
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed());
        let limit = rustix::process::Rlimit { current: size, maximum: None };
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).expect("our child");
    }

    /// Lets it have no more file descriptors than these from now on; none for as many as it had.
    pub(crate) fn limit_files(&self, files: Option<u64>) {
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed());
        // The hard limit stays, so that the soft one can be raised again.
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let limit = rustix::process::Rlimit { current: files.or(own.maximum), maximum: own.maximum };
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).expect("our child");
    }

    /// The processor time it has used so far.
    pub(crate) fn cpu(&self) -> std::time::Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("it runs");
        // After the name, which is in parentheses, come the fields from the third on (proc_pid_stat(5)).
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
        std::time::Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Kills it; nothing of it runs afterwards.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The most memory it has had resident so far, in bytes.
    pub(crate) fn peak_resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    /// The access record that `wanted` picks, as soon as it is written.
    pub(crate) async fn access_record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|record| wanted(record));
        let found = self.stdout.find(what, parse).await;
        found.unwrap_or_else(|| panic!("no {what} in the access log:\n{}", self.stdout.text()))
    }

    /// All access records so far; panics on a line that is none.
    pub(crate) fn access_records(&self) -> Vec<Value> {
        let parse =
            |line: &std::sync::Arc<str>| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout.all().iter().map(parse).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- stderr of the program ---\n{}", self.stderr.text());
            eprintln!("--- stdout of the program ---\n{}", self.stdout.text());
        }
    }
}

// === impl Homing ===

impl Homing {
    /// Waits until a program that has been told to serve is ready; `redirects` says whether it has a
    /// plain listener. The directory lives as long as the program.
    pub(crate) async fn ready(process: Process, redirects: bool, directory: TempDir) -> Self {
        let https = listener(&process, "https").await;
        let admin = listener(&process, "admin").await;
        let http = if redirects { Some(listener(&process, "http").await) } else { None };
        eventually("/readyz says yes", async || {
            assert!(process.exit_status().is_none(), "the program has ended:\n{}", process.stderr.text());
            plain::get(admin, "/readyz").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Self { process, https, http, admin, directory }
    }

    /// Where it redirects plain HTTP; panics when it has not been told to.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http.expect("a plain listener")
    }

    /// Where it shows its metrics.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The directory of its configuration.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The sum of the series of this name with these labels, now.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        Metrics::fetch(self).await.value(name, labels)
    }

    /// Waits until the sum of the series of this name with these labels is `wanted`.
    pub(crate) async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        eventually(&format!("{name}{labels:?} is {wanted}"), async || {
            let value = self.metric(name, labels).await;
            (value - wanted).abs() < f64::EPSILON
        })
        .await;
    }
}

/// The address that the program announces for a listener.
async fn listener(process: &Process, kind: &str) -> SocketAddr {
    let prefix = format!("listening {kind} ");
    let address = |line: &str| line.strip_prefix(&prefix)?.rsplit_once("//")?.1.parse().ok();
    let found = process.stderr.find(&prefix, address).await;
    found.unwrap_or_else(|| panic!("it ended without {prefix:?}; it said:\n{}", process.stderr.text()))
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_homing");
