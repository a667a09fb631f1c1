//! What a person sees while a demo works: one line on standard error for each step, with the time it took.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

/// The steps of one command.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    last: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { start: now, last: now }
    }

    /// A step is done.
    pub(crate) fn done(&mut self, what: &str) {
        let now = Instant::now();
        say(&format!("✔ {what}   ({})", seconds(now - self.last)));
        self.last = now;
    }

    /// Something went wrong, and the work goes on.
    pub(crate) fn warn(what: &str) {
        say(&format!("! {what}"));
    }

    /// The last line.
    pub(crate) fn end(&self, what: &str) {
        say(&format!("✔ {what}   ({} in all)", seconds(self.start.elapsed())));
    }
}

/// A line of talk. A terminal that is gone is no reason to stop.
pub(crate) fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

/// A line of the answer.
pub(crate) fn answer(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
