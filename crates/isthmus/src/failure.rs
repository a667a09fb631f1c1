//! What went wrong, and the status that the process ends with.

use crate::output::clean;
use isthmus_api::{client::ClientError, rest::Problem};
use std::io;

/// Status that the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Yes, or done.
    Yes,
    /// A true "no": denied, degraded, already there.
    No,
    /// The words or a file are wrong.
    Usage,
    /// A server or an agent cannot be reached.
    Unreachable,
    /// Not permitted.
    Forbidden,
    /// What was waited for did not happen in time.
    TimedOut,
    /// A signal ended it, by its number: 130 for an interrupt, as shells have it.
    Signal(u8),
    /// Whatever a command of the testbed answers.
    Other(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Forbidden => 4,
            Self::TimedOut => 5,
            Self::Signal(number) => 128_u8.saturating_add(number),
            Self::Other(code) => code,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Whoever read our output has left. Nobody wants to hear of it.
    #[error("standard output was closed")]
    Closed,
    /// Something to tell.
    #[error("{}", .0.message)]
    Told(Box<Told>),
}

/// A failure as it is told: what, where and why; then what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Status of the process.
    pub exit: Exit,
    /// Stable code, `ISE-nnnn`; empty for words that clap would refuse too.
    pub code: String,
    /// What, where, why. Further lines are details.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl Failure {
    /// A failure with a code.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Told(Box::new(Told { exit, code: code.to_owned(), message: message.into(), help: help.into() }))
    }

    /// Words that cannot be understood.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "", message, help)
    }

    /// The status that the process ends with. A closed pipe is no failure of ours.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Closed => Exit::Yes,
            Self::Told(told) => told.exit,
        }
    }

    /// The text for standard error, without colour.
    pub fn render(&self) -> String {
        let Self::Told(told) = self else { return String::new() };
        let code = if told.code.is_empty() { String::new() } else { format!("[{}]", told.code) };
        let mut lines = told.message.lines();
        let mut text = format!("error{code}: {}\n", clean(lines.next().unwrap_or_default()));
        for line in lines {
            text.extend(["  ", &clean(line.trim_start()), "\n"]);
        }
        if !told.help.is_empty() {
            text.extend(["  help: ", &clean(&told.help), "\n"]);
        }
        text
    }
}

impl From<io::Error> for Failure {
    /// Only writing to standard output fails this way; other errors are told where they happen.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::new(Exit::Usage, "ISE-0606", format!("standard output cannot be written: {error}"), "")
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => Self::of_problem(problem),
            ClientError::Unreachable { place, why } => {
                let message = format!("cannot reach the server at {place}: {why}");
                let help = "start it (isthmus server), or name another with --server or ISTHMUS_SERVER";
                Self::new(Exit::Unreachable, "ISE-0601", message, help)
            }
            ClientError::Unexpected { place, status, text } => {
                let message = format!("{place} answered {status} with something that is not Isthmus: {text}");
                Self::new(Exit::Unreachable, "ISE-0602", message, "check --server and ISTHMUS_SERVER")
            }
        }
    }
}

impl Failure {
    fn of_problem(problem: Problem) -> Self {
        let exit = match problem.status {
            401 | 403 => Exit::Forbidden,
            409 => Exit::No,
            500.. => Exit::Unreachable,
            _ => Exit::Usage,
        };
        Self::new(exit, &problem.code, problem.detail, problem.help.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_then_what_to_do() {
        let failure =
            Failure::new(Exit::Usage, "ISE-0102", "\"cart\" is ambiguous\nmatches: a, b", "write it out");
        assert_eq!(
            failure.render(),
            "error[ISE-0102]: \"cart\" is ambiguous\n  matches: a, b\n  help: write it out\n"
        );
        assert_eq!(Failure::usage("what?", "").render(), "error: what?\n");
    }

    #[test]
    fn a_problem_has_the_status_of_its_kind() {
        let problem = |status| Problem {
            kind: String::new(),
            code: "ISE-0001".into(),
            title: "t".into(),
            status,
            detail: "d".into(),
            help: None,
        };
        for (status, exit) in [(400, 2), (403, 4), (404, 2), (409, 1), (422, 2), (500, 3), (503, 3)] {
            assert_eq!(Failure::of_problem(problem(status)).exit().code(), exit, "{status}");
        }
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.render().as_str(), failure.exit()), ("", Exit::Yes));
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit(), Exit::Usage);
    }
}
