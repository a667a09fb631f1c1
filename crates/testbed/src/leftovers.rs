//! What tests make on the host goes also when they are killed.
//!
//! A test that panics cleans up as it unwinds; one that is ended by a signal does not. So a child waits for our end, however
//! it comes, in a process group of its own, where the terminal's Ctrl-C does not reach it.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// Reads commands until its standard input ends, which is when nobody holds the other end any longer; then runs them,
/// the last one first. Each may fail: most often there is nothing left to be done.
const SCRIPT: &str = "tac | while IFS= read -r line; do sh -c \"$line\" </dev/null; done";

/// The commands of one process.
#[derive(Debug)]
struct Leftovers(ChildStdin);

impl Leftovers {
    /// Nothing of ours may wait for the child: it has none of our output.
    fn new() -> std::io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        child.stdin.map(Self).ok_or_else(|| std::io::Error::other("the child has no standard input"))
    }

    fn at_end(&mut self, command: &str) -> std::io::Result<()> {
        writeln!(self.0, "{command}")
    }
}

/// Has a shell command of one line run when this process has ended, however that comes; also where what it removes is
/// removed by then.
///
/// # Errors
///
/// There is no shell, or it was killed.
pub fn at_end(command: &str) -> std::io::Result<()> {
    static OURS: OnceLock<Mutex<Option<Leftovers>>> = OnceLock::new();
    let mut ours = OURS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *ours {
        Some(leftovers) => leftovers.at_end(command),
        none => none.insert(Leftovers::new()?).at_end(command),
    }
}

/// Has a network namespace removed when this process has ended, with all processes in it.
///
/// # Errors
///
/// As [`at_end`].
pub fn remove_namespace_at_end(name: &str) -> std::io::Result<()> {
    at_end(&format!("ip netns pids {name} | xargs -r kill -9; ip netns del {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration, time::Instant};

    #[test]
    fn commands_run_at_the_end_the_last_one_first_whatever_becomes_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("done");
        let done = || fs::read_to_string(&file).unwrap_or_default();
        let say = |word: &str| format!("echo {word} >>{}", file.display());
        let mut leftovers = Leftovers::new().unwrap();
        for command in [&say("first"), "false", "no such ' command", &say("last")] {
            leftovers.at_end(command).unwrap();
        }
        assert_eq!(done(), "");
        drop(leftovers);
        let until = Instant::now() + Duration::from_secs(30);
        while done() != "last\nfirst\n" {
            assert!(Instant::now() < until, "{}", done());
            // Between two looks at a condition with a deadline.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
