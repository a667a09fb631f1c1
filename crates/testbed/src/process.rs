//! Background processes that outlive the program that started them, and their end.

use crate::{
    command::Call,
    wait::{self, Expired},
};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of a log that an error shows.
const TAIL_LINES: usize = 12;

/// A process, told from a later one with the same number by its start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it is, for people.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Clock ticks after boot (`proc(5)`, field 22 of `stat`).
    pub started: u64,
    /// What it writes.
    pub log: PathBuf,
}

/// Why a background process could not be started or did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It could not be started.
    #[error("cannot start {name}: {source}")]
    Start {
        /// What it is.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended at once, or did not become ready.
    #[error("{name} {why}\n  last lines of {log}:\n{tail}")]
    NotReady {
        /// What it is.
        name: String,
        /// What happened.
        why: String,
        /// Where its log is.
        log: String,
        /// The end of its log.
        tail: String,
    },
    /// It does not end.
    #[error("{name} (process {pid}) does not end: {source}")]
    Undying {
        /// What it is.
        name: String,
        /// Process id.
        pid: u32,
        /// How long was waited.
        source: Expired,
    },
}

impl Process {
    /// Starts `call` in a session of its own, its output appended to `log`.
    pub fn start(name: &str, call: &Call, log: &Path) -> Result<Self, DaemonError> {
        let fail = |source| DaemonError::Start { name: name.to_owned(), source };
        let output = OpenOptions::new().create(true).append(true).open(log).map_err(fail)?;
        let errors = output.try_clone().map_err(fail)?;
        let inner = call.command();
        let mut command = std::process::Command::new("setsid");
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().map_err(fail)?;
        // setsid and nsenter become the program they are given, so the id stays.
        let pid = child.id();
        let started = start_time(pid).ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
        reap(child);
        Ok(Self { name: name.to_owned(), pid, started, log: log.to_owned() })
    }

    /// The process with the number `pid`, which somebody else started.
    pub fn adopt(name: &str, pid: u32, log: &Path) -> Option<Self> {
        Some(Self { name: name.to_owned(), pid, started: start_time(pid)?, log: log.to_owned() })
    }

    /// Whether it still runs.
    pub fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Waits until `ready`, or until it is clear that it will not be.
    pub fn wait_ready(&self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), DaemonError> {
        let outcome = wait::until("it to be ready", limit, || {
            if ready() {
                return Ok(Some(true));
            }
            Ok::<_, String>((!self.lives()).then_some(false))
        });
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.not_ready("ended at once".to_owned())),
            Err(expired) => Err(self.not_ready(expired.to_string())),
        }
    }

    fn not_ready(&self, why: String) -> DaemonError {
        let tail = tail(&self.log);
        DaemonError::NotReady { name: self.name.clone(), why, log: self.log.display().to_string(), tail }
    }

    /// Sends a signal; a process that is gone is fine.
    pub fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.lives(), i32::try_from(self.pid).ok().and_then(Pid::from_raw)) {
            // It may end between the test and the signal.
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }

    /// Asks it to end, and ends it if it does not.
    pub fn stop(&self) -> Result<(), DaemonError> {
        self.signal(Signal::TERM);
        if wait::until_true("its end", GRACE, || !self.lives()).is_ok() {
            return Ok(());
        }
        self.kill()
    }

    /// Ends it with SIGKILL and waits for its end.
    pub fn kill(&self) -> Result<(), DaemonError> {
        self.signal(Signal::KILL);
        wait::until_true("its end", GRACE, || !self.lives()).map_err(|source| DaemonError::Undying {
            name: self.name.clone(),
            pid: self.pid,
            source,
        })
    }
}

/// Collects the exit status when the child ends before us, so that it does not stay as a zombie that looks alive.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || {
        let _status = child.wait();
    });
}

/// Start time of a process in clock ticks after boot; `None` if there is no such process, or only its zombie.
///
/// A process whose first thread has ended looks like a zombie while others still hold its sockets and memory.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself; fields count from the one after it, number 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_over = matches!(fields.next()?, "Z" | "X");
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if is_over && threads() < 2 { None } else { fields.nth(18)?.parse().ok() }
}

/// The last lines of a log, indented.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let lines = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    #[test]
    fn a_background_process_lives_until_it_is_stopped() {
        let log = log();
        let process = Process::start("sleeper", &Call::new("sleep").arg("1000"), log.path()).unwrap();
        assert!(process.lives());
        process.stop().unwrap();
        assert!(!process.lives());
    }

    #[test]
    fn a_reused_process_number_is_not_the_same_process() {
        let log = log();
        let process = Process::start("sleeper", &Call::new("sleep").arg("1000"), log.path()).unwrap();
        let other = Process { started: process.started + 1, ..process.clone() };
        assert!(!other.lives());
        other.kill().unwrap();
        assert!(process.lives());
        process.kill().unwrap();
    }

    #[test]
    fn a_process_that_ends_at_once_shows_its_log() {
        let log = log();
        let call = Call::new("sh").args(["-c", "echo no such luck; exit 1"]);
        let process = Process::start("unlucky", &call, log.path());
        let error =
            process.and_then(|process| process.wait_ready(Duration::from_secs(5), || false)).unwrap_err();
        // It may even end before its start time can be read.
        assert!(
            error.to_string().contains("no such luck") || matches!(error, DaemonError::Start { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (directory.path().join("orphan.c"), directory.path().join("orphan"));
        let text = "#include <pthread.h>\n#include <unistd.h>\nstatic void *rest(void *p) { sleep(1000); return p; }\n\
            int main(void) { pthread_t t; pthread_create(&t, 0, rest, 0); pthread_exit(0); }\n";
        fs::write(&source, text).unwrap();
        Call::new("cc").arg("-pthread").arg("-o").arg(&program).arg(&source).run().unwrap();
        let log = log();
        let process = Process::start("orphan", &Call::new(&program), log.path()).unwrap();
        let stat = || fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        wait::until_true("the first thread's end", GRACE, || stat().contains(") Z ")).unwrap();
        assert!(process.lives());
        process.kill().unwrap();
        assert!(!process.lives());
    }
}
