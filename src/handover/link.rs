//! The connection between two processes: frames of a bounded length, some with file descriptors.
//!
//! A frame is its length (u32, big endian, of what follows the kind), a byte for its kind, and that many
//! bytes. File descriptors travel with the head of a frame (SCM_RIGHTS), so heads are always read by
//! `recvmsg`: a plain read would lose them.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg, sockopt,
    },
};

/// One end of the connection. Every wait ends after [`set_patience`](Self::set_patience).
#[derive(Debug)]
pub(super) struct Link(UnixStream);

/// What came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
    /// File descriptors that came along.
    pub(super) files: Vec<OwnedFd>,
}

/// Bytes of a frame, at most.
pub(super) const MAX_FRAME: usize = 1024 * 1024;
/// File descriptors of a frame, at most; the system's own limit is 253.
pub(super) const MAX_FILES: usize = 64;
/// Length and kind.
const HEAD: usize = 5;

// === impl Link ===

impl Link {
    /// A link over this connection, whose waits last no longer than `patience`.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let link = Self(stream);
        link.set_patience(Some(patience))?;
        Ok(link)
    }

    /// The longest wait for the other side to send or to read; none is for as long as it lives.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)?;
        self.0.set_write_timeout(patience)
    }

    /// The longest wait for the other side to send; none is for as long as it lives.
    pub(super) fn set_reading_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)
    }

    /// The same connection once more, for another thread. Patience is shared.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether the other side runs as the same user as this process, or as root.
    pub(super) fn is_trusted(&self) -> io::Result<bool> {
        let peer = sockopt::socket_peercred(&self.0)?.uid;
        Ok(peer.is_root() || peer == rustix::process::geteuid())
    }

    /// Whether the other side can still be told something; what it has sent may wait to be read all the same.
    pub(super) fn is_open(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(fds[0].revents().is_empty())
    }

    /// The other side's process id; 0 when the system cannot tell.
    pub(super) fn peer(&self) -> i32 {
        sockopt::socket_peercred(&self.0).map_or(0, |peer| peer.pid.as_raw_nonzero().get())
    }

    /// Ends it, for every thread that has it.
    pub(super) fn close(&self) {
        // It may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&head(kind, payload)?)?;
        self.0.write_all(payload)
    }

    /// Sends a frame with file descriptors, [`MAX_FILES`] at most.
    pub(super) fn send_files(
        &mut self,
        kind: u8,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let head = head(kind, payload)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets for one frame"));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL)?;
        // They travel with the first byte: what is left, if anything, is plain.
        self.0.write_all(&head[sent..])?;
        self.0.write_all(payload)
    }

    /// The next frame.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the other side has ended, `InvalidData` when it sends what is no frame.
    pub(super) fn receive(&mut self) -> io::Result<Frame> {
        let (head, files) = self.receive_head()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind: head[4], payload, files })
    }

    fn receive_head(&mut self) -> io::Result<([u8; HEAD], Vec<OwnedFd>)> {
        let mut head = [0; HEAD];
        let mut files = Vec::new();
        let mut got = 0;
        while got < HEAD {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut head[got..])];
            let received = match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    files.extend(rights);
                }
            }
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            got += received.bytes;
        }
        Ok((head, files))
    }
}

fn head(kind: u8, payload: &[u8]) -> io::Result<[u8; HEAD]> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame too long"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([a, b, c, d, kind])
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd as _};

    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().unwrap();
        let link = |stream| Link::new(stream, Duration::from_secs(5)).unwrap();
        (link(one), link(other))
    }

    #[test]
    fn a_frame_arrives_with_its_sockets() {
        let (mut one, mut other) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        one.send(1, b"before").unwrap();
        one.send_files(2, b"sockets", &[socket.as_fd(), socket.as_fd()]).unwrap();
        one.send(3, b"").unwrap();
        let frame = other.receive().unwrap();
        assert_eq!((frame.kind, &*frame.payload, frame.files.len()), (1, &b"before"[..], 0));
        let mut frame = other.receive().unwrap();
        assert_eq!((frame.kind, &*frame.payload, frame.files.len()), (2, &b"sockets"[..], 2));
        let arrived = TcpListener::from(frame.files.remove(0));
        assert_eq!(arrived.local_addr().unwrap(), socket.local_addr().unwrap());
        assert_eq!(other.receive().unwrap().kind, 3);
    }

    #[test]
    fn a_frame_longer_than_allowed_is_neither_sent_nor_read() {
        let (mut one, mut other) = pair();
        assert_eq!(one.send(1, &vec![0; MAX_FRAME + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        one.0.write_all(&[0xff, 0xff, 0xff, 0xff, 1]).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_end_of_the_other_side_is_an_end_and_its_silence_a_timeout() {
        let (one, mut other) = pair();
        other.set_patience(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_end_shows_before_all_that_came_is_read() {
        let (mut one, mut other) = pair();
        one.send(1, b"last").unwrap();
        assert!(other.is_open().unwrap());
        drop(one);
        assert!(!other.is_open().unwrap());
        assert_eq!(&*other.receive().unwrap().payload, b"last");
    }

    #[test]
    fn the_same_user_is_trusted() {
        assert!(pair().0.is_trusted().unwrap());
    }
}
