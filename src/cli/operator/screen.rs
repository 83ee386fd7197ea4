//! Standard output: lines where it is piped, a picture that is redrawn in place on a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::trouble::Trouble;

/// A picture on a terminal.
#[derive(Debug)]
pub(super) struct Screen {
    /// Lines of the picture that is there.
    drawn: usize,
    /// Whether the whole screen is ours, and to be given back.
    whole: bool,
}

/// Ctrl-C, and being told to end.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

// ECMA-48 control sequences.
const UP: &str = "\x1b[F";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const HOME: &str = "\x1b[H";
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Where the terminal does not tell.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Whether standard output is a terminal that can be drawn on.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints text as it is.
pub(super) fn print(text: &str) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints lines.
pub(super) fn print_lines<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Result<(), Trouble> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    print(&text)
}

// === impl Screen ===

impl Screen {
    /// A picture below what is there; it stays when all is done.
    pub(super) fn inline() -> Self {
        Self { drawn: 0, whole: false }
    }

    /// The whole screen, given back as it was.
    pub(super) fn whole() -> Result<Self, Trouble> {
        print(ENTER)?;
        Ok(Self { drawn: 0, whole: true })
    }

    /// Columns and rows now.
    pub(super) fn size() -> (usize, usize) {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => USUAL_SIZE,
        }
    }

    /// Draws over the picture that is there. No line wraps, so that each is one row.
    pub(super) fn draw(&mut self, lines: &[String]) -> Result<(), Trouble> {
        let (columns, rows) = Self::size();
        let lines = &lines[..lines.len().min(rows.saturating_sub(1))];
        let mut text = String::new();
        if self.whole {
            text.push_str(HOME);
        } else {
            text.push_str(&UP.repeat(self.drawn));
        }
        for line in lines {
            text.extend(line.chars().take(columns.saturating_sub(1)));
            text.push_str(CLEAR_LINE);
            text.push('\n');
        }
        text.push_str(CLEAR_BELOW);
        self.drawn = lines.len();
        print(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.whole {
            // A terminal that is gone needs nothing back.
            let _ = print(LEAVE);
        }
    }
}

// === impl Interrupts ===

impl Interrupts {
    /// Takes the signals over from their defaults, so that a screen is given back.
    pub(super) fn new() -> Result<Self, Trouble> {
        let failed = |error| Trouble::Failed(format!("cannot wait for signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Awaits something, unless a signal comes first.
    pub(super) async fn or<T>(&mut self, event: impl Future<Output = T>) -> Result<T, Trouble> {
        tokio::select! {
            value = event => Ok(value),
            _ = self.interrupt.recv() => Err(Trouble::Interrupted),
            _ = self.terminate.recv() => Err(Trouble::Interrupted),
        }
    }

    /// Waits, unless a signal comes first.
    pub(super) async fn sleep(&mut self, time: Duration) -> Result<(), Trouble> {
        self.or(sleep(time)).await
    }
}
