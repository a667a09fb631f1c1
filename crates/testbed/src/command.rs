//! Other people's programs, run with a deadline and an error that says everything.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest time that a program may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_mins(1);

/// One run of a program, maybe in another network namespace.
#[derive(Clone, Debug)]
pub struct Call {
    namespace: Option<PathBuf>,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    clean: bool,
    input: Vec<u8>,
    timeout: Duration,
}

/// What a program said.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot run `{command}`: {source}{}", missing_hint(source))]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// Talking to it failed.
    #[error("lost contact with `{command}`")]
    Talk {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("`{command}` failed ({status}): {text}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote, standard error first.
        text: String,
    },
    /// It did not end.
    #[error("`{command}` did not end within {} s", timeout.as_secs())]
    Slow {
        /// The command line.
        command: String,
        /// How long was waited.
        timeout: Duration,
    },
}

fn missing_hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::NotFound { "; `make setup` installs what is needed" } else { "" }
}

impl Call {
    /// A run of `program`, found in `PATH` unless it has a slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            namespace: None,
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            clean: false,
            input: Vec::new(),
            timeout: TIMEOUT,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds the words of `line`.
    #[must_use]
    pub fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it `PATH` and what [`Call::env`] sets, and nothing else.
    #[must_use]
    pub fn clean_env(mut self) -> Self {
        self.clean = true;
        self
    }

    /// Runs it in the network namespace at `path`. The mount namespace stays (`ip netns exec` would hide cgroups).
    #[must_use]
    pub fn in_namespace(mut self, path: &Path) -> Self {
        self.namespace = Some(path.to_owned());
        self
    }

    /// What it reads on standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The command as the standard library wants it, with nothing said about its files.
    pub fn command(&self) -> Command {
        let mut command = match &self.namespace {
            Some(path) => {
                let mut command = Command::new("nsenter");
                let mut net = OsString::from("--net=");
                net.push(path);
                command.arg(net).arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        if self.clean {
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it and returns what it wrote on standard output.
    pub fn run(&self) -> Result<String, CommandError> {
        let finished = self.output()?;
        if finished.status.success() {
            return Ok(finished.stdout);
        }
        let mut text = finished.stderr.trim().to_owned();
        if text.is_empty() || !finished.stdout.trim().is_empty() {
            let _infallible = write!(text, " {}", finished.stdout.trim());
        }
        Err(CommandError::Failed {
            command: self.line(),
            status: finished.status,
            text: text.trim().to_owned(),
        })
    }

    /// Runs it; an exit status that is not 0 is no error here.
    pub fn output(&self) -> Result<Finished, CommandError> {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| CommandError::Start { command: self.line(), source })?;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that does not read its input says by its exit status what it thinks of it.
            let _unread = pipe.write_all(&self.input);
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let status = self.wait(&mut child)?;
        Ok(Finished { status, stdout: join(stdout), stderr: join(stderr) })
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, CommandError> {
        let talk = |source| CommandError::Talk { command: self.line(), source };
        let end = Instant::now() + self.timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = child.try_wait().map_err(talk)? {
                return Ok(status);
            }
            if Instant::now() >= end {
                child.kill().map_err(talk)?;
                child.wait().map_err(talk)?;
                return Err(CommandError::Slow { command: self.line(), timeout: self.timeout });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// The command line, for people.
    pub fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for argument in &self.arguments {
            let _infallible = write!(line, " {}", argument.to_string_lossy());
        }
        match self.namespace.as_deref().and_then(Path::file_name) {
            Some(name) => format!("{line}` in namespace `{}", name.to_string_lossy()),
            None => line,
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is all there is.
            let _partial = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(reader: thread::JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// The path of `program` in `PATH` or the usual system directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    path.split(':')
        .chain(usual)
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_input_pass_through() {
        assert_eq!(Call::new("cat").input("hello").run().unwrap(), "hello");
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error =
            Call::new("sh").args(["-c", "printf %s%s sor ry >&2; exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("sorry") && error.contains("exit 3"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_explained() {
        let error = Call::new("no-such-program-here").run().unwrap_err().to_string();
        assert!(error.contains("make setup"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error = Call::new("cat").args(["/dev/zero"]).timeout(Duration::from_millis(50));
        let call = Call { program: "sleep".into(), arguments: vec!["100".into()], ..error };
        assert!(matches!(call.run(), Err(CommandError::Slow { .. })));
    }

    #[test]
    fn a_clean_environment_holds_path_and_what_was_set() {
        let text = Call::new("env").clean_env().env("A", "b").run().unwrap();
        let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["A", "PATH"]);
    }
}
