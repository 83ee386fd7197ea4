//! Operators: the admin API by JSON, and the program's own commands.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use http::{Method, Request};
use serde_json::Value;

use super::{call::Answer, flow::full, plain, process::Ended, process::Homing, process::Process, within};

/// A token as a test configures it.
pub(crate) const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// An operator of one program.
#[derive(Clone)]
pub(crate) struct Operator {
    admin: std::net::SocketAddr,
    token: Option<String>,
    fields: Vec<(String, String)>,
}

/// A file with a token, in a directory of its own.
pub(crate) struct TokenFile {
    directory: tempfile::TempDir,
}

// === impl Operator ===

impl Operator {
    /// Without a token.
    pub(crate) fn of(homing: &Homing) -> Self {
        Self { admin: homing.admin(), token: None, fields: Vec::new() }
    }

    /// With this token.
    #[must_use]
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Adds a header field to every request; one for `host` replaces the usual one.
    #[must_use]
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// GETs a path of the listener.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// POSTs this JSON to a path of the API.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, &format!("/api/v1/{path}"), Some(body.to_string())).await
    }

    /// GETs JSON from a path of the API; panics when that fails.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// POSTs JSON and reads JSON; panics when that fails.
    pub(crate) async fn change(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// POSTs about a backend of the pool `app`.
    pub(crate) async fn steer(&self, backend: &str, action: &str, body: Value) -> Value {
        self.change(&format!("pools/app/backends/{backend}/{action}"), body).await
    }

    /// What the status says of a backend of the first pool.
    pub(crate) async fn backend(&self, name: &str) -> Value {
        let status = self.read("status").await;
        let backends = status["pools"][0]["backends"].as_array().expect("backends").clone();
        let found = backends.into_iter().find(|backend| backend["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {status:#}"))
    }

    /// What `explain` says of a session.
    pub(crate) async fn explain(&self, id: &str) -> Value {
        self.change("explain", serde_json::json!({ "id": id })).await
    }

    /// Sends a request with this body, as JSON if there is one.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !self.fields.iter().any(|(name, _)| name == "host") {
            request = request.header("host", self.admin.to_string());
        }
        if body.is_some() && !self.fields.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        let request = request.body(full(body.unwrap_or_default())).expect("a valid request");
        plain::send(self.admin, request).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

// === impl TokenFile ===

impl TokenFile {
    /// A file that holds [`TOKEN`], for its owner alone.
    pub(crate) fn new() -> Self {
        let file = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        file.write(TOKEN, 0o600);
        file
    }

    /// Replaces what it holds, and its mode.
    pub(crate) fn write(&self, token: &str, mode: u32) {
        fs::write(self.path(), token).expect("a file");
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).expect("our file");
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// The lines of a configuration that name it.
    pub(crate) fn section(&self) -> String {
        format!("[admin]\ntoken_file = \"{}\"", self.path().display())
    }
}

/// Where commands find a program.
pub(crate) fn place(homing: &Homing) -> String {
    format!("http://{}", homing.admin())
}

/// Starts a command that speaks to this program.
pub(crate) fn start(homing: &Homing, arguments: &[&str]) -> Process {
    let place = place(homing);
    Process::spawn(arguments.iter().copied().chain(["--admin", &place]))
}

/// Runs a command that speaks to this program, to its end.
pub(crate) async fn run(homing: &Homing, arguments: &[&str]) -> Ended {
    start(homing, arguments).wait_exit().await
}

/// The same, with something on standard input.
pub(crate) async fn run_reading(homing: &Homing, arguments: &[&str], input: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homing"));
    command.args(arguments).args(["--admin", &place(homing)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("our program");
        // It may have ended before it read.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("our child")
    });
    let output = within("a command", running).await.expect("no panic");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { status: output.status, stderr: text(output.stderr), stdout: text(output.stdout) }
}

/// Rewrites the configuration of a program that runs.
pub(crate) fn rewrite(homing: &Homing, change: impl FnOnce(String) -> String) {
    let file: &Path = &homing.directory().join("homing.toml");
    let text = fs::read_to_string(file).expect("its configuration");
    fs::write(file, change(text)).expect("a file");
}
