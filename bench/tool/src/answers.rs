//! Answers over HTTP/1.1, as far as a load has to know them: 200, and where the next one begins.

use anyhow::{Context, Result, bail};
use memchr::memmem;

/// Counts whole answers in what is read from a connection.
#[derive(Default)]
pub(crate) struct Answers {
    /// A head that has not ended yet.
    head: Vec<u8>,
    /// Bytes of a body that are still to come.
    body: usize,
    in_body: bool,
}

impl Answers {
    /// How many answers end in `read`.
    ///
    /// # Errors
    ///
    /// When one is not a 200 with a Content-Length.
    pub(crate) fn feed(&mut self, mut read: &[u8]) -> Result<usize> {
        let mut ended = 0;
        loop {
            if self.in_body {
                let taken = self.body.min(read.len());
                self.body -= taken;
                read = &read[taken..];
                if self.body > 0 {
                    return Ok(ended);
                }
                self.in_body = false;
                ended += 1;
            }
            if read.is_empty() {
                return Ok(ended);
            }
            if self.head.is_empty()
                && let Some(end) = memmem::find(read, b"\r\n\r\n")
            {
                self.body = length(&read[..end])?;
                read = &read[end + 4..];
                self.in_body = true;
                continue;
            }
            // What came before may hold a part of the end.
            let before = self.head.len();
            self.head.extend_from_slice(read);
            let from = before.saturating_sub(3);
            let Some(end) = memmem::find(&self.head[from..], b"\r\n\r\n") else { return Ok(ended) };
            let end = from + end;
            self.body = length(&self.head[..end])?;
            read = &read[end + 4 - before..];
            self.head.clear();
            self.in_body = true;
        }
    }
}

/// What the head of a 200 says about its body.
fn length(head: &[u8]) -> Result<usize> {
    if !head.starts_with(b"HTTP/1.1 200 ") {
        bail!("an answer that is no 200: {}", String::from_utf8_lossy(head));
    }
    field(head, b"content-length").context("an answer without a length")
}

/// The number in a field of a head.
pub(crate) fn field(head: &[u8], name: &[u8]) -> Option<usize> {
    let line = head.split(|byte| *byte == b'\n').find(|line| {
        line.len() > name.len() && line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name)
    })?;
    std::str::from_utf8(&line[name.len() + 1..]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn answers_are_counted_however_they_were_cut() {
        assert_eq!(Answers::default().feed(TWO).expect("answers"), 2);
        for cut in 0..TWO.len() {
            let mut answers = Answers::default();
            let first = answers.feed(&TWO[..cut]).expect("answers");
            assert_eq!(first + answers.feed(&TWO[cut..]).expect("answers"), 2, "cut at {cut}");
        }
        let mut answers = Answers::default();
        let count: usize = TWO.chunks(1).map(|byte| answers.feed(byte).expect("answers")).sum();
        assert_eq!(count, 2);
    }

    #[test]
    fn an_answer_that_is_no_200_is_an_error() {
        assert!(Answers::default().feed(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
