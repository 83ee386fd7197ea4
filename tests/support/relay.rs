//! A TCP relay that makes a network bad: slow, cut, or silent.

use std::{future::pending, net::SocketAddr, time::Duration};

use homing::clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep_until,
};

/// Passes connections on to a target; ends when dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Every byte arrives so much later.
    Fair(Duration),
    /// Connections are closed, new ones at once.
    Cut,
    /// Connections stay open and nothing gets through, as when packets are dropped.
    Silent,
}

// === impl Relay ===

impl Relay {
    /// Starts one to this target.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let weather = watch::Sender::new(Weather::Fair(Duration::ZERO));
        let watched = weather.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                if *watched.borrow() != Weather::Cut {
                    tokio::spawn(pass(client, target, watched.clone()));
                }
            }
        });
        Self { address, weather, task }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds so much to the way in each direction.
    pub(crate) fn delay(&self, each_way: Duration) {
        self.weather.send_replace(Weather::Fair(each_way));
    }

    /// Closes all connections, and new ones at once.
    pub(crate) fn cut(&self) {
        self.weather.send_replace(Weather::Cut);
    }

    /// Lets nothing through, and closes nothing.
    pub(crate) fn silence(&self) {
        self.weather.send_replace(Weather::Silent);
    }

    /// All is well again.
    pub(crate) fn restore(&self) {
        self.delay(Duration::ZERO);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without Nagle, so that nothing but the delay delays.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let watched = weather.clone();
    tokio::select! {
        () = pump(client_in, server_out, watched.clone()) => {}
        () = pump(server_in, client_out, watched) => {}
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let (queue, mut arrivals) = mpsc::channel(64);
    let watched = weather.clone();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let delay = match *watched.borrow() {
                Weather::Fair(delay) => delay,
                Weather::Cut | Weather::Silent => Duration::ZERO,
            };
            if queue.send((clock::now() + delay, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((arrival, bytes)) = arrivals.recv().await {
            sleep_until(arrival).await;
            let fair = weather.wait_for(|weather| *weather != Weather::Silent).await.is_ok();
            if !fair || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        // What was read before the end still arrives: without a sender, the queue ends.
        () = async { read.await; pending().await } => {}
        () = write => {}
    }
}
