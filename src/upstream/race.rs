//! Connecting to a name with several addresses (RFC 8305, Happy Eyeballs): the next attempt begins when the one before
//! has failed, or has been silent for a quarter of a second; the first connection wins and the others are given up.

use std::{collections::HashSet, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::sleep};

/// RFC 8305 §5: the Connection Attempt Delay.
const DELAY: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 64;

/// Connects to the first of these addresses that accepts.
///
/// # Errors
///
/// When none does: what all attempts together tell.
pub(super) async fn race(addresses: Vec<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed: Option<io::Error> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { TcpStream::connect(address).await.map(|stream| (stream, address)) });
        }
        let patience = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep(DELAY).await,
            }
        };
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(won)) => return Ok(won),
                Some(Err(error)) => {
                    failed = Some(match failed {
                        Some(before) if weight(&before) >= weight(&error) => before,
                        _ => error,
                    });
                }
                None => return Err(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
            },
            () = patience => {}
        }
    }
}

/// The order in which addresses are tried (RFC 8305 §4): the families take turns, beginning with that which the system
/// prefers, and the address that worked last comes first of all.
pub(super) fn order(found: impl Iterator<Item = SocketAddr>, last: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let found: Vec<_> = found.filter(|address| seen.insert(*address)).take(MAX_ADDRESSES).collect();
    let preferred = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<SocketAddr>, Vec<_>) =
        found.iter().partition(|address| address.is_ipv6() == preferred);
    let mut ordered = Vec::with_capacity(found.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let turn = [first.next(), second.next()];
        if turn == [None, None] {
            break;
        }
        ordered.extend(turn.into_iter().flatten());
    }
    if let Some(at) = last.and_then(|last| ordered.iter().position(|address| *address == last)) {
        ordered[..=at].rotate_right(1);
    }
    ordered
}

/// How much an error says about a backend all of whose addresses failed: one that may be alive outweighs one that
/// refuses, since only when all refuse it is certain that nothing listens. An address to which this machine has no way
/// says least: many a `localhost` has an IPv6 address where there is no IPv6.
fn weight(error: &io::Error) -> u8 {
    /// EADDRNOTAVAIL on Linux.
    const NO_ADDRESS: i32 = 99;
    match (error.kind(), error.raw_os_error()) {
        (_, None) => 4,
        (_, Some(NO_ADDRESS)) => 0,
        (io::ErrorKind::TimedOut, _) => 3,
        (io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable, _) => 1,
        (io::ErrorKind::ConnectionRefused, _) => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};
    use tokio::time::timeout;

    use super::*;
    use crate::clock;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A listener whose queue is full, so that it answers no attempt.
    struct BlackHole {
        address: SocketAddr,
        _held: (Socket, Vec<Socket>),
    }

    impl BlackHole {
        fn new() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let fill = || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address);
                socket
            };
            let held = (0..8).map(|_| fill()).collect();
            Self { address: address.as_socket().unwrap(), _held: (listener, held) }
        }
    }

    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn families_take_turns_and_the_one_preferred_by_the_system_begins() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1", "[::1]:1"]);
        let expected = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]);
        assert_eq!(order(found.into_iter(), None), expected);
    }

    #[test]
    fn the_address_that_worked_last_comes_first_while_the_name_has_it() {
        let found = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let last = |text: &str| order(found.iter().copied(), text.parse().ok());
        assert_eq!(last("10.0.0.3:1"), addresses(&["10.0.0.3:1", "10.0.0.1:1", "10.0.0.2:1"]));
        assert_eq!(last("10.0.0.9:1"), found);
    }

    #[tokio::test]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let (hole, alive) = (BlackHole::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let alive = alive.local_addr().map(|address| (address, alive)).unwrap();
        let began = clock::now();
        let won = timeout(Duration::from_secs(3), race(vec![hole.address, alive.0])).await;
        assert_eq!(won.expect("in time").unwrap().1, alive.0);
        assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_refusing_address_costs_no_time_and_the_first_connection_wins() {
        let alive = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = alive.local_addr().unwrap();
        let began = clock::now();
        let refusing: Vec<_> = (0..20).map(|_| refusing()).filter(|other| *other != address).collect();
        let won = race(refusing.into_iter().chain([address]).collect()).await;
        assert_eq!(won.unwrap().1, address);
        assert!(began.elapsed() < 4 * DELAY, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn all_that_refuse_are_refused_and_one_that_is_silent_is_waited_for() {
        let error = race(vec![refusing(), refusing()]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let hole = BlackHole::new();
        let silent = timeout(3 * DELAY, race(vec![refusing(), hole.address, refusing()])).await;
        assert!(silent.is_err(), "{silent:?}");
        assert!(race(Vec::new()).await.is_err());
    }

    #[test]
    fn a_way_that_does_not_exist_hides_no_refusal() {
        let error = io::Error::from_raw_os_error;
        // ETIMEDOUT, ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL.
        let weights = [110, 111, 101, 99].map(|errno| weight(&error(errno)));
        assert!(weights.is_sorted_by(|a, b| a > b), "{weights:?}");
    }
}
