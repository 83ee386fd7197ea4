//! Which of two processes goes on alone: decided once, by whichever asks first, however long the other one
//! stands still in between.
//!
//! Words on a link cannot decide it: a process that is stopped may read them when the other one has long given
//! up. A byte in a pipe that both have can be read by one of them only.

use std::{
    io::{self, PipeReader, Read as _, Write as _, pipe},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// One side's hand on the decision.
#[derive(Debug)]
pub(super) struct Verdict(PipeReader);

// === impl Verdict ===

impl Verdict {
    /// One that is open.
    ///
    /// # Errors
    ///
    /// When there are no file descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let (reader, mut writer) = pipe()?;
        writer.write_all(&[1])?;
        // Without a writer, who comes second reads the end and does not wait.
        Ok(Self(reader))
    }

    /// Decides for this side, unless the other one has decided; whether it was still open. Never waits.
    ///
    /// # Errors
    ///
    /// When the system does not let us read, which a pipe gives no reason for.
    pub(super) fn claim(&self) -> io::Result<bool> {
        loop {
            match (&self.0).read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(|length| length > 0),
            }
        }
    }
}

impl From<OwnedFd> for Verdict {
    fn from(file: OwnedFd) -> Self {
        Self(file.into())
    }
}

impl AsFd for Verdict {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_decides_and_the_other_learns_that_it_was_decided() {
        let ours = Verdict::new().unwrap();
        let theirs = Verdict::from(ours.as_fd().try_clone_to_owned().unwrap());
        assert!(theirs.claim().unwrap());
        assert!(!ours.claim().unwrap());
        assert!(!theirs.claim().unwrap());
    }
}
