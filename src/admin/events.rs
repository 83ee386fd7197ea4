//! The status as a stream of events, once a second, for a bounded number of clients.
//!
//! What they get is made once for all of them. A client that does not read is cut off: nothing is kept for it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    time::sleep,
};

use super::{
    Admin,
    access::{Refusal, Rules, Via},
    api::{self, ChangesBy},
    reply::{Events, Failure},
};
use crate::config::Token;

/// The clients that follow.
#[derive(Debug, Default)]
pub(super) struct Hub(RefCell<Vec<Follower>>);

#[derive(Debug)]
struct Follower {
    events: mpsc::Sender<Bytes>,
    via: Via,
    /// The token when it was let in: another one since then may have been changed because of it.
    token: Option<Token>,
    /// Ends its connection.
    cut: Rc<Notify>,
}

/// Clients at one time.
const MAX_FOLLOWERS: usize = 16;
/// Events that may wait for a client, beside what its socket takes.
const BACKLOG: usize = 4;
/// From one event to the next.
const INTERVAL: Duration = Duration::from_secs(1);

// === impl Hub ===

impl Hub {
    /// One more client, whose first event is there at once.
    pub(super) fn follow(&self, admin: &Admin, via: Via, cut: &Rc<Notify>) -> Result<Events, Failure> {
        let mut followers = self.0.borrow_mut();
        followers.retain(|follower| !follower.events.is_closed());
        if followers.len() >= MAX_FOLLOWERS {
            return Err(Failure::Busy("too many clients follow events"));
        }
        let (events, receiver) = mpsc::channel(BACKLOG);
        let snapshot = admin.world.snapshot.load();
        let first = event(admin, Rules::of(&snapshot).changes(via));
        // There is room: nothing was sent yet.
        let _ = events.try_send(first);
        followers.push(Follower { events, via, token: snapshot.token.clone(), cut: Rc::clone(cut) });
        Ok(Events(receiver))
    }

    fn publish(&self, admin: &Admin) {
        let mut followers = self.0.borrow_mut();
        if followers.is_empty() {
            return;
        }
        let snapshot = admin.world.snapshot.load();
        let rules = Rules::of(&snapshot);
        // One for each way in which clients may differ.
        let mut made: Vec<(ChangesBy, Bytes)> = Vec::new();
        followers.retain(|follower| {
            if follower.via == Via::Network && follower.token != snapshot.token {
                tracing::debug!(why = %Refusal::WrongToken, "client of events cut off");
                follower.cut.notify_one();
                return false;
            }
            let changes = rules.changes(follower.via);
            let known = made.iter().find(|(by, _)| *by == changes).map(|(_, event)| event.clone());
            let event = known.unwrap_or_else(|| {
                let event = event(admin, changes);
                made.push((changes, event.clone()));
                event
            });
            match follower.events.try_send(event) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    tracing::debug!("client of events cut off: it does not read");
                    follower.cut.notify_one();
                    false
                }
            }
        });
    }
}

/// Publishes for as long as the process runs.
pub async fn publish(admin: Rc<Admin>) {
    loop {
        sleep(INTERVAL).await;
        admin.hub.publish(&admin);
    }
}

fn event(admin: &Admin, changes: ChangesBy) -> Bytes {
    // Plain structs of numbers and texts can always be written.
    let status = serde_json::to_string(&api::status(admin, changes)).unwrap_or_default();
    Bytes::from(format!("event: status\ndata: {status}\n\n"))
}
