//! A DNS server in this process: UDP, one name, answers that a test sets while it runs.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{net::UdpSocket, task::JoinHandle};

use super::eventually;

/// A DNS server that knows one name.
pub(crate) struct Dns {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These addresses; none is an answer without records.
    Addresses(Vec<IpAddr>),
    /// That it failed.
    Failure,
    /// Nothing at all.
    Nothing,
}

struct State {
    says: Says,
    /// Questions for A records so far.
    asked: usize,
}

/// The name that it knows.
pub(crate) const HOST: &str = "app.test";
/// Seconds that its answers are good for.
const TTL: u32 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

// === impl Dns ===

impl Dns {
    /// One that says this.
    pub(crate) async fn start(says: Says) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State { says, asked: 0 }));
        let serving = tokio::spawn(serve(socket, Arc::clone(&state)));
        Self { address, state, serving }
    }

    /// One that knows these addresses of [`HOST`].
    pub(crate) async fn knowing(addresses: &[IpAddr]) -> Self {
        Self::start(Says::Addresses(addresses.to_vec())).await
    }

    /// Says this from now on.
    pub(crate) fn say(&self, says: Says) {
        self.state.lock().expect("no panic under it").says = says;
    }

    /// Knows these addresses from now on.
    pub(crate) fn know(&self, addresses: &[IpAddr]) {
        self.say(Says::Addresses(addresses.to_vec()));
    }

    /// Waits until it has been asked that often after this call.
    pub(crate) async fn asked_again(&self, times: usize) {
        let asked = || self.state.lock().expect("no panic under it").asked;
        let before = asked();
        eventually("DNS is asked again", async || asked() >= before + times).await;
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let answer = state.lock().expect("no panic under it").answer(&buffer[..length]);
        if let Some(answer) = answer {
            // One that is gone has asked.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

// === impl State ===

impl State {
    /// The answer to a query (RFC 1035 §4.1); none when there is to be none.
    fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let (question, name, kind) = question(query)?;
        self.asked += usize::from(kind == TYPE_A);
        let (code, addresses) = match &self.says {
            Says::Nothing => return None,
            Says::Failure => (SERVER_FAILURE, Vec::new()),
            Says::Addresses(_) if name != HOST => (NO_SUCH_NAME, Vec::new()),
            Says::Addresses(addresses) => (NO_ERROR, addresses.clone()),
        };
        let data = |address: &IpAddr| match (address, kind) {
            (IpAddr::V4(v4), TYPE_A) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), TYPE_AAAA) => Some(v6.octets().to_vec()),
            _ => None,
        };
        let records: Vec<_> = addresses.iter().filter_map(data).collect();
        let mut answer = query[..2].to_vec();
        // A response, recursion desired and available; one question, so many answers.
        answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).expect("few"), 0, 0, 0, 0]);
        answer.extend(question);
        for record in records {
            // The name is that of the question, at byte 12.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1]);
            answer.extend(TTL.to_be_bytes());
            answer.extend(u16::try_from(record.len()).expect("4 or 16").to_be_bytes());
            answer.extend(record);
        }
        Some(answer)
    }
}

/// The question of a query as it stands there, its name, and the type of record.
fn question(query: &[u8]) -> Option<(&[u8], String, u16)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    Some((query.get(12..at + 4)?, labels.join("."), kind))
}
