//! What goes on until somebody interrupts it: a terminal that is kept current, and the signals that end it.

use rustix::termios::tcgetwinsize;
use std::{
    io::{self, Write, stdout},
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Lines of a terminal that does not say how many it has.
const ROWS: usize = 24;

/// Another screen of the terminal (xterm's private modes 1049, 25 and 7: alternate screen, no cursor, no wrapping).
const OPEN: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";
const CLOSE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";

/// A terminal whose contents are replaced again and again. What was there before comes back when it ends.
#[derive(Debug, Default)]
pub struct Screen {
    is_open: bool,
}

impl Screen {
    /// Shows a text in place of the last one, as much of it as there is room for.
    pub fn draw(&mut self, out: &mut dyn Write, text: &str) -> io::Result<()> {
        // Serial lines say that they have none.
        let size = tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_row));
        let rows = size.filter(|rows| *rows > 0).unwrap_or(ROWS);
        if !self.is_open {
            self.is_open = true;
            out.write_all(OPEN.as_bytes())?;
        }
        out.write_all(frame(text, rows).as_bytes())?;
        out.flush()
    }

    /// Leaves the terminal as it was.
    pub fn close(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.is_open = false;
        out.write_all(CLOSE.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    /// After an error too, the terminal is to be used again.
    fn drop(&mut self) {
        if self.is_open {
            let _ = stdout().write_all(CLOSE.as_bytes());
            let _ = stdout().flush();
        }
    }
}

/// Puts a text over another one without a flicker: each line clears what is behind it, the last what is below.
fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(1).max(1);
    let fits = if lines.len() > room { room - 1 } else { lines.len() };
    let mut frame = "\u{1b}[H".to_owned();
    for line in lines.iter().take(fits) {
        frame.extend([line, "\u{1b}[K\n"]);
    }
    if fits < lines.len() {
        frame.extend(["... and ", &(lines.len() - fits).to_string(), " more lines\u{1b}[K\n"]);
    }
    frame.push_str("\u{1b}[J");
    frame
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The time is over.
    InTime,
    /// A signal came: its number.
    By(u8),
}

/// The signals by which somebody says that it is enough.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the time, or a signal.
    pub async fn wait(&mut self, time: Duration) -> Ended {
        let number = |kind: SignalKind| u8::try_from(kind.as_raw_value()).unwrap_or_default();
        tokio::select! {
            _ = self.interrupt.recv() => Ended::By(number(SignalKind::interrupt())),
            _ = self.terminate.recv() => Ended::By(number(SignalKind::terminate())),
            () = tokio::time::sleep(time) => Ended::InTime,
        }
    }
}

/// Time of day, UTC.
pub fn clock(unix_seconds: u64) -> String {
    let (hours, minutes, seconds) = (unix_seconds / 3600 % 24, unix_seconds / 60 % 60, unix_seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_clears_what_it_does_not_write() {
        assert_eq!(frame("a\nb\n", 24), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        let short = frame("a\nb\nc\nd\n", 4);
        assert!(
            short.contains("a\u{1b}") && short.contains("b\u{1b}") && !short.contains("c\u{1b}"),
            "{short:?}"
        );
        assert!(short.contains("... and 2 more lines"), "{short:?}");
    }

    #[test]
    fn a_screen_is_left_as_it_was_found() {
        let (mut screen, mut out) = (Screen::default(), Vec::new());
        screen.draw(&mut out, "x").unwrap();
        screen.draw(&mut out, "y").unwrap();
        screen.close(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with(OPEN) && text.ends_with(CLOSE) && text.matches(OPEN).count() == 1,
            "{text:?}"
        );
    }

    #[test]
    fn a_clock_shows_the_time_of_day() {
        assert_eq!(clock(1_700_000_000), "22:13:20Z");
    }
}
