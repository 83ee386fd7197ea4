//! Several replicas of the program that share their sessions.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use tempfile::TempDir;

use super::{process::Homing, setup::Setup};

/// What replicas have in common: the secret.
pub(crate) struct Replicas {
    directory: TempDir,
}

// === impl Replicas ===

impl Replicas {
    /// With a secret of their own.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let replicas = Self { directory };
        fs::write(replicas.secret(), "000102030405060708090a0b0c0d0e0f\n").expect("a file");
        fs::set_permissions(replicas.secret(), fs::Permissions::from_mode(0o600)).expect("our file");
        replicas
    }

    /// The file with the secret.
    pub(crate) fn secret(&self) -> PathBuf {
        self.directory.path().join("secret")
    }

    /// A setup that shares its sessions through the server at this URL. Its requests wait so long for it that
    /// a busy machine makes no difference, unless `state` (lines of the section) says otherwise.
    pub(crate) fn join(&self, setup: Setup, name: &str, url: &str, state: &str) -> Setup {
        let patience = if state.contains("redis_timeout") { "" } else { "redis_timeout = \"5s\"\n" };
        setup
            .top(&format!("secret_file = {:?}", self.secret().display().to_string()))
            .section(&format!("[state]\nredis = {url:?}\nreplica = {name:?}\n{patience}{state}"))
    }

    /// Starts it and waits until it shares.
    pub(crate) async fn start(&self, setup: Setup, name: &str, url: &str, state: &str) -> Homing {
        let homing = self.join(setup, name, url, state).start().await;
        homing.wait_for_metric("homing_shared_up", &[], 1.0).await;
        homing
    }
}
