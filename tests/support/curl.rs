//! The curl program, as users have it.

use std::{io::Write, process::Command};

use super::{pki::Authority, process::Homing, within};

/// What curl did.
#[derive(Debug)]
pub(crate) struct Curl {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Its exit code; 0 is success.
    pub(crate) code: i32,
}

/// Runs `curl --silent --show-error --cacert OURS ARGUMENTS... URL` for a path of the front door.
pub(crate) async fn curl(homing: &Homing, arguments: &[&str], path: &str) -> Curl {
    let mut authority = tempfile::NamedTempFile::new().expect("a temporary file");
    authority.write_all(Authority::get().pem.as_bytes()).expect("a temporary file");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]);
    command.arg(authority.path()).args(arguments);
    command.arg(format!("https://localhost:{}{path}", homing.https.port()));
    // On a thread of its own: the backends run on the test's.
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = within("curl", run).await.expect("no panic").expect("curl is installed");
    Curl {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
