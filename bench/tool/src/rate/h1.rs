//! One request at a time on each connection; what finds all of them busy waits, and that counts.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Instant};

use anyhow::Result;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
};

use super::Book;
use crate::{
    Protocol, Target,
    client::{Client, Connection},
    requests,
};

pub(super) struct Load {
    senders: Vec<UnboundedSender<Instant>>,
    idle: Idle,
    book: Book,
}

/// Numbers of connections without a request.
type Idle = Rc<RefCell<VecDeque<usize>>>;

// === impl Load ===

impl Load {
    pub(super) async fn open(target: Target, connections: usize, book: &Book) -> Result<Self> {
        let client = Client::new(target.to, Protocol::H1, false)?;
        let idle = Idle::default();
        let mut senders = Vec::with_capacity(connections);
        for number in 0..connections {
            let connection = client.open().await?;
            let (sender, due) = unbounded_channel();
            senders.push(sender);
            let requests: Vec<_> = requests::numbers(target.sessions)
                .skip(number * 157)
                .take(157)
                .map(|session| requests::get("/1k", session))
                .collect();
            spawn_local(serve(number, connection, requests, due, Rc::clone(&idle), book.clone()));
        }
        Ok(Self { senders, idle, book: book.clone() })
    }

    pub(super) fn start(&mut self, due: Instant) {
        let idle = self.idle.borrow_mut().pop_front();
        match idle {
            // It is there for as long as it had no error, after which nobody cares.
            Some(number) => drop(self.senders[number].send(due)),
            None => self.book.0.borrow_mut().waiting.push_back(due),
        }
    }
}

async fn serve(
    number: usize,
    mut connection: Connection,
    requests: Vec<Vec<u8>>,
    mut planned: UnboundedReceiver<Instant>,
    idle: Idle,
    book: Book,
) {
    for request in requests.iter().cycle() {
        let waiting = book.0.borrow_mut().waiting.pop_front();
        let due = match waiting {
            Some(due) => due,
            None => {
                idle.borrow_mut().push_back(number);
                let Some(due) = planned.recv().await else { return };
                due
            }
        };
        let result = connection.exchange(request, 1).await;
        let failed = result.is_err();
        book.ended(due, result);
        if failed {
            return;
        }
    }
}
