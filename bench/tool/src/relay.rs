//! The kernel floor: one thread that passes bytes between clients and a backend. What it costs per request is what
//! system calls and loopback TCP charge every proxy.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use crate::control;

const LISTENER: Token = Token(usize::MAX);

/// Relays to `to` until standard input ends.
pub(crate) fn run(to: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{{\"port\": {}}}", listener.local_addr()?.port());
    control::end_with_input(|| {});
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error).context("epoll"),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let pair = Pair::open(client, to, &poll, pairs.len())?;
                    pairs.push(Some(pair));
                }
                continue;
            }
            // A token is twice the number of a pair, and one more for its backend.
            let (number, side) = (event.token().0 / 2, event.token().0 % 2);
            let Some(pair) = pairs[number].as_mut() else { continue };
            let mut goes_on = true;
            if event.is_readable() {
                pair.ways[side].more = true;
                goes_on &= pair.pass(side, event.is_read_closed(), &mut buffer).is_ok();
            }
            if event.is_writable() && !pair.ways[1 - side].waiting.is_empty() {
                goes_on &= pair.pass(1 - side, false, &mut buffer).is_ok();
            }
            if !goes_on {
                pairs[number] = None;
            }
        }
    }
}

/// A client and its backend. Numbers of pairs are not used again: a measurement has some hundreds.
struct Pair {
    sides: [TcpStream; 2],
    /// From the side of the same number to the other one.
    ways: [Way; 2],
}

/// What one side has said and the other one has not taken.
#[derive(Default)]
struct Way {
    waiting: Vec<u8>,
    /// The side may have more; it is not asked before the other one has taken what waits.
    more: bool,
}

// === impl Pair ===

impl Pair {
    fn open(mut client: TcpStream, to: SocketAddr, poll: &Poll, number: usize) -> Result<Self> {
        let mut backend = TcpStream::connect(to)?;
        client.set_nodelay(true)?;
        backend.set_nodelay(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut client, Token(2 * number), both)?;
        poll.registry().register(&mut backend, Token(2 * number + 1), both)?;
        Ok(Self { sides: [client, backend], ways: [Way::default(), Way::default()] })
    }
    /// Passes on what `side` says, as far as the other one takes it. An end of either is the end of both, told as an
    /// error.
    fn pass(&mut self, side: usize, ended: bool, buffer: &mut [u8]) -> io::Result<()> {
        let way = &mut self.ways[side];
        loop {
            while !way.waiting.is_empty() {
                match self.sides[1 - side].write(&way.waiting) {
                    Ok(written) => drop(way.waiting.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if !way.more {
                return Ok(());
            }
            let read = match self.sides[side].read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    way.more = false;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            // A read that does not fill the buffer has emptied the socket (epoll(7)).
            way.more = read == buffer.len() || ended;
            let written = match self.sides[1 - side].write(&buffer[..read]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            way.waiting.extend_from_slice(&buffer[written..read]);
        }
    }
}
