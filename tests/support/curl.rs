//! The curl program, as users have it.

use std::{io::Write, process::Command};

use super::{pki::Authority, process::Homing, within};

/// What a program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Its exit code; 0 is success.
    pub(crate) code: i32,
}

/// Runs `curl --cacert OURS ARGUMENTS... URL` for a path of the front door.
pub(crate) async fn curl(homing: &Homing, arguments: &[&str], path: &str) -> Ran {
    let mut authority = tempfile::NamedTempFile::new().expect("a temporary file");
    authority.write_all(Authority::get().pem.as_bytes()).expect("a temporary file");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]);
    command.arg(authority.path()).args(arguments);
    command.arg(format!("https://localhost:{}{path}", homing.https.port()));
    run(command).await
}

/// Runs a line of shell.
pub(crate) async fn shell(line: &str) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    run(command).await
}

/// Runs any program, on a thread of its own: the backends run on the test's.
pub(crate) async fn run(mut command: Command) -> Ran {
    let what = format!("{command:?}");
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = within(&what, run).await.expect("no panic");
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}; is it installed?"));
    Ran {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
