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
    access::{Rules, Via},
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
    /// The token when it was let in: another one since then may be there because of it.
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
    /// One more client, whose first event is there at once. `cut` ends its connection; `event` makes what it
    /// gets.
    pub(super) fn follow(
        &self,
        rules: &Rules<'_>,
        via: Via,
        cut: &Rc<Notify>,
        event: impl Fn(ChangesBy) -> Bytes,
    ) -> Result<Events, Failure> {
        let mut followers = self.0.borrow_mut();
        followers.retain(|follower| !follower.events.is_closed());
        if followers.len() >= MAX_FOLLOWERS {
            return Err(Failure::Busy("too many clients follow events"));
        }
        let (events, receiver) = mpsc::channel(BACKLOG);
        // There is room: nothing was sent yet.
        let _ = events.try_send(event(rules.changes(via)));
        followers.push(Follower { events, via, token: rules.token.cloned(), cut: Rc::clone(cut) });
        Ok(Events(receiver))
    }

    /// Sends everybody an event, and cuts off who may not or does not follow any more.
    fn publish(&self, rules: &Rules<'_>, event: impl Fn(ChangesBy) -> Bytes) {
        // One for each way in which clients may differ.
        let mut made: Vec<(ChangesBy, Bytes)> = Vec::new();
        self.0.borrow_mut().retain(|follower| {
            if follower.via == Via::Network && follower.token.as_ref() != rules.token {
                tracing::debug!("client of events cut off: the token is another one");
                follower.cut.notify_one();
                return false;
            }
            let changes = rules.changes(follower.via);
            let known = made.iter().find(|(by, _)| *by == changes).map(|(_, event)| event.clone());
            let event = known.unwrap_or_else(|| {
                let event = event(changes);
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
        let snapshot = admin.world.snapshot.load_full();
        admin.hub.publish(&Rules::of(&snapshot), |changes| status(&admin, changes));
    }
}

/// The status as an event.
pub(super) fn status(admin: &Admin, changes: ChangesBy) -> Bytes {
    // Plain structs of numbers and texts can always be written.
    let status = serde_json::to_string(&api::status(admin, changes)).unwrap_or_default();
    Bytes::from(format!("event: status\ndata: {status}\n\n"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const RULES: Rules<'static> = Rules { token: None, allow_changes: false, hosts: &[] };

    fn event(changes: ChangesBy) -> Bytes {
        format!("{changes:?}").into()
    }

    fn is_cut(cut: &Notify) -> bool {
        cut.notified().now_or_never().is_some()
    }

    #[test]
    fn each_client_is_told_how_it_may_change_things() {
        let hub = Hub::default();
        let follow = |via| hub.follow(&RULES, via, &Rc::default(), event).unwrap().0;
        let (mut local, mut remote) = (follow(Via::Socket), follow(Via::Loopback));
        hub.publish(&RULES, event);
        for _ in 0..2 {
            assert_eq!(local.try_recv().unwrap(), "Open");
            assert_eq!(remote.try_recv().unwrap(), "Refused");
        }
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_off() {
        let hub = Hub::default();
        let (slow, quick) = (Rc::default(), Rc::default());
        let _unread = hub.follow(&RULES, Via::Loopback, &slow, event).unwrap();
        let mut read = hub.follow(&RULES, Via::Loopback, &quick, event).unwrap();
        for _ in 0..BACKLOG {
            hub.publish(&RULES, event);
            while read.0.try_recv().is_ok() {}
        }
        assert!(is_cut(&slow));
        assert!(!is_cut(&quick));
        assert_eq!(hub.0.borrow().len(), 1);
    }

    #[test]
    fn a_client_that_has_gone_makes_room() {
        let hub = Hub::default();
        let follow = || hub.follow(&RULES, Via::Loopback, &Rc::default(), event);
        let mut following: Vec<_> = (0..MAX_FOLLOWERS).map(|_| follow().unwrap()).collect();
        assert!(matches!(follow(), Err(Failure::Busy(_))));
        following.pop();
        follow().unwrap();
    }
}
