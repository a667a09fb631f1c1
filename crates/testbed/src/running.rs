//! A program that runs beside a story, and what it prints.

use crate::command::Call;
use anyhow::Context as _;
use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

/// Lines that a program prints, with the time of each.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Mutex<Vec<(Instant, String)>>>);

impl Lines {
    fn read(&self, pipe: impl Read + Send + 'static) {
        let lines = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.with(|lines| lines.push((Instant::now(), line)));
            }
        });
    }

    /// Whether one of them is so.
    pub fn any(&self, is_so: impl Fn(&str) -> bool) -> bool {
        self.with(|lines| lines.iter().any(|(_, line)| is_so(line)))
    }

    /// Looks at the lines that are there.
    pub fn with<T>(&self, work: impl FnOnce(&mut Vec<(Instant, String)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// What it prints, on both of its outputs.
    pub lines: Lines,
}

impl Running {
    /// Starts it; its lines are read from now on.
    pub fn start(call: &Call) -> anyhow::Result<Self> {
        let mut command = call.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", call.line()))?;
        let lines = Lines::default();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            lines.read(stdout);
            lines.read(stderr);
        }
        Ok(Self { child, lines })
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
