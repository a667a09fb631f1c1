//! A program that runs beside a story, and what it prints.

use crate::command::Call;
use anyhow::Context as _;
use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

/// Lines that a program prints, with the time of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<(Instant, String)>>>);

impl Lines {
    fn read(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.with(|lines| lines.push((Instant::now(), line)));
            }
        })
    }

    /// Looks at the lines that are there.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Vec<(Instant, String)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    pub(crate) lines: Lines,
}

impl Running {
    /// Starts it; its lines are read from now on.
    pub(crate) fn start(call: &Call) -> anyhow::Result<Self> {
        let mut command = call.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", call.line()))?;
        let lines = Lines::default();
        let stdout = child.stdout.take().map(|pipe| lines.read(pipe));
        let stderr = child.stderr.take().map(|pipe| lines.read(pipe));
        Ok(Self { child, readers: stdout.into_iter().chain(stderr).collect(), lines })
    }

    /// Whether it ended by itself, and all that it printed is there.
    pub(crate) fn has_ended(&mut self) -> bool {
        let is_gone = self.child.try_wait().is_ok_and(|status| status.is_some());
        is_gone && self.readers.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::time::Duration;

    #[test]
    fn who_has_ended_has_printed_all() {
        for _ in 0..50 {
            let mut echo = Running::start(&Call::new("echo").arg("last words")).unwrap();
            wait::until_true("the end", Duration::from_mins(1), || echo.has_ended()).unwrap();
            assert_eq!(echo.lines.with(|lines| lines.len()), 1);
        }
    }
}
