//! What a person sees while the demo works: one line on standard error for each step, with the time it took.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

/// The steps of one command.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    last: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { start: now, last: now }
    }

    /// A step is done.
    pub(super) fn done(&mut self, what: &str) {
        let now = Instant::now();
        say(&format!("✔ {what}   ({})", seconds(now - self.last)));
        self.last = now;
    }

    /// Something went wrong, and the work goes on.
    pub(super) fn warn(what: &str) {
        say(&format!("! {what}"));
    }

    /// The last line.
    pub(super) fn end(&self, what: &str) {
        say(&format!("✔ {what}   ({} in all)", seconds(self.start.elapsed())));
    }
}

/// A line of talk. A terminal that is gone is no reason to stop.
pub(super) fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

/// A line of the answer.
pub(super) fn answer(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
