//! The demo's shop as a process of its own, which can be killed, paused, and started again at its address.

use std::net::SocketAddr;

use super::{port::Port, process::Process, setup::Member};

/// One application with sessions in memory: `POST /login?user=NAME`, `GET /whoami`, `POST /logout`.
pub(crate) struct Shop {
    pub(crate) name: String,
    port: Port,
    process: Option<Process>,
}

// === impl Shop ===

impl Shop {
    /// Starts one on a port of its own.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(Port::reserve(), name).await
    }

    /// Starts one on this port.
    pub(crate) async fn start_at(port: Port, name: &str) -> Self {
        let mut shop = Self { name: name.to_owned(), port, process: None };
        shop.restart().await;
        shop
    }

    /// Starts as many, named `app-1` and so on.
    pub(crate) async fn several(count: usize) -> Vec<Self> {
        let mut shops = Vec::new();
        for number in 1..=count {
            shops.push(Self::start(&format!("app-{number}")).await);
        }
        shops
    }

    /// Where it is, or will be again.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Kills it, its sessions included.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it, without any session.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let address = self.port.address.to_string();
        let process = Process::spawn(["demo-app", "--listen", &address, "--name", &self.name]);
        process.stderr.wait_for("listening app").await;
        self.process = Some(process);
    }

    /// Stops it in its tracks: connections come about, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.running().signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.running().signal("CONT");
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}

impl From<&Shop> for Member {
    fn from(shop: &Shop) -> Self {
        Self::from((&*shop.name, shop.address()))
    }
}
