//! What the words do.

pub mod app;
pub mod bgp;
pub mod cluster;
pub mod daemon;
pub mod endpoint;
pub mod flows;
pub mod help;
pub mod ipam;
pub mod network;
pub mod node;
pub mod policy;
pub mod pool;
pub mod status;
pub mod version;
pub mod why;

use crate::{
    api::Server,
    args::{Cli, Command},
    context,
    failure::{Exit, Failure},
    terminal::{Terminal, Tone},
};
use clap::{ArgMatches, CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    future::Future,
    io::{self, BufWriter, IsTerminal, Write, stderr, stdin, stdout},
};

/// What a command works with.
pub struct Session {
    /// Standard output: data.
    pub out: Box<dyn Write>,
    /// What can be shown.
    pub terminal: Terminal,
    server: Option<String>,
}

impl Session {
    /// The server that is meant.
    pub fn server(&self) -> Result<Server, Failure> {
        context::server(self.server.as_deref()).map(Server::new)
    }

    /// Tells a person something, on standard error.
    pub fn tell(&self, text: &str) {
        // Who has closed standard error wants to hear nothing.
        let _ = writeln!(stderr().lock(), "{text}");
    }

    /// Tells what a write changed, and how to take it back.
    pub fn done(&self, text: &str, undo: &str) {
        let mark = self.terminal.paint_err(Tone::Good, self.terminal.mark(true));
        self.tell(&if undo.is_empty() {
            format!("{mark} {text}")
        } else {
            format!("{mark} {text}   undo: {undo}")
        });
    }

    /// Tells that an object was made.
    fn created(&self, kind: &str, name: &str, revision: u64, dry_run: bool) {
        if dry_run {
            self.done(&format!("{kind} {name} could be created; nothing was changed"), "");
        } else {
            let undo = format!("isthmus {kind} delete {name}");
            self.done(&format!("{kind} {name} created at revision {revision}"), &undo);
        }
    }

    /// Tells what was set, and how to take it back.
    fn set(&self, what: &str, changes: &[Change], undo: &str, dry_run: bool) {
        let shown: Vec<String> = changes
            .iter()
            .filter(|change| change.before != change.after)
            .map(|change| format!("{} {} -> {}", change.what, none(&change.before), none(&change.after)))
            .collect();
        if shown.is_empty() {
            self.done(&format!("{what} is so already; nothing was changed"), "");
        } else if dry_run {
            self.done(&format!("{what} could be set: {}; nothing was changed", shown.join(", ")), "");
        } else {
            self.done(&format!("{what}: {}", shown.join(", ")), undo);
        }
    }

    /// Tells that an object was deleted.
    fn deleted(&self, kind: &str, name: &str, undo: &str, dry_run: bool) {
        if dry_run {
            self.done(&format!("{kind} {name} could be deleted; nothing was changed"), "");
        } else {
            self.done(&format!("{kind} {name} deleted"), undo);
        }
    }

    /// Asks a person for a yes. Without one, `yes` must have been given.
    ///
    /// # Errors
    ///
    /// No person is there, or the person does not want it.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !self.terminal.has_person() {
            return Err(Failure::usage(
                format!("{question} needs a yes, and nobody can be asked here"),
                "add --yes",
            ));
        }
        let _ = write!(stderr().lock(), "{question}? [y/N] ");
        let mut answer = String::new();
        let read = stdin().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(Failure::new(Exit::No, "", "nothing was changed", ""))
    }
}

/// One setting before and after a write.
struct Change {
    what: &'static str,
    before: String,
    after: String,
}

impl Change {
    fn new(what: &'static str, before: impl Into<String>, after: impl Into<String>) -> Self {
        Self { what, before: before.into(), after: after.into() }
    }
}

fn none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// What there is of something, as text.
fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// An AS number, or `none`, which takes one away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaybeAsn(Option<u32>);

impl MaybeAsn {
    /// The number, if it is not taken away.
    pub const fn number(self) -> Option<u32> {
        self.0
    }
}

impl std::str::FromStr for MaybeAsn {
    type Err = isthmus_core::AsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            Ok(Self(None))
        } else {
            text.parse().map(|asn: isthmus_core::Asn| Self(Some(asn.number())))
        }
    }
}

/// Runs the command line `words`, the first of which is the program's name. Returns the status of the process.
pub fn main(words: Vec<OsString>) -> u8 {
    // Scripts stay stable when commands are added, so only people may abbreviate.
    let person = stdin().is_terminal() && stdout().is_terminal();
    let parsed = Cli::command().infer_subcommands(person).try_get_matches_from(words).and_then(refuse_server);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code());
        }
    };
    let mut session = Session {
        out: Box::new(BufWriter::new(stdout())),
        terminal: Terminal::of_process(cli.global.color, cli.global.ascii),
        server: cli.global.server,
    };
    let outcome = run(cli.command, &mut session).and_then(|exit| {
        session.out.flush()?;
        Ok(exit)
    });
    match outcome {
        Ok(exit) => exit.code(),
        Err(failure) => {
            let _ = session.out.flush();
            tell(session.terminal, &failure);
            failure.exit().code()
        }
    }
}

/// `agent --server` would be taken for the REST API's address and then do nothing.
fn refuse_server(matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let told = matches.value_source("server") == Some(ValueSource::CommandLine);
    let instead = match matches.subcommand_name() {
        Some("agent") if told => "--connect HOST:PORT",
        Some("server") if told => "--listen ADDRESS:PORT",
        _ => return Ok(matches),
    };
    let text = format!("--server is the REST API that commands ask; a daemon has {instead}");
    Err(Cli::command().error(ErrorKind::ArgumentConflict, text))
}

fn tell(terminal: Terminal, failure: &Failure) {
    let text = failure.render();
    let text = text.replacen("error", &terminal.paint_err(Tone::Bad, "error"), 1);
    let _ = stderr().lock().write_all(text.as_bytes());
}

fn run(command: Command, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        Command::Status(args) => wait(status::run(args, session)),
        Command::Why(args) => wait(why::run(args, session)),
        Command::Allow(args) => wait(policy::allow(args, session)),
        Command::Flows(args) => wait(flows::run(args, session)),
        Command::Policy(command) => wait(policy::run(command, session)),
        Command::App(command) => wait(app::run(command, session)),
        Command::Endpoint(command) => wait(endpoint::run(command, session)),
        Command::Node(command) => wait(node::run(command, session)),
        Command::Ipam(command) => wait(ipam::run(command, session)),
        Command::Cluster(command) => wait(cluster::run(command, session)),
        Command::Network(command) => wait(network::run(command, session)),
        Command::Pool(command) => wait(pool::run(command, session)),
        Command::Bgp(command) => bgp::run(command, session),
        Command::Server(args) => daemon::server(&args, session),
        Command::Agent(args) => daemon::agent(&args, session),
        Command::Demo(args) => Ok(Exit::Other(isthmus_testbed::demo::run(args))),
        Command::Bench(args) => Ok(Exit::Other(isthmus_testbed::bench::run(args))),
        Command::BenchBgp(args) => Ok(Exit::Other(isthmus_testbed::bench_bgp::run(args))),
        Command::DemoApp(args) => Ok(Exit::Other(isthmus_testbed::app::run(args))),
        Command::Completion { shell } => help::completion(shell, session),
        Command::Man { directory } => help::man(directory.as_deref(), session),
        Command::Version(args) => version::run(&args, session),
        Command::Help { words } => help::run(&words, session),
        Command::Reference => {
            write!(session.out, "{}", crate::reference::markdown(&Cli::command()))?;
            Ok(Exit::Yes)
        }
    }
}

/// Reads a label as it is written.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))?;
    if key.is_empty() {
        Err(format!("\"{text}\" names no label"))
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}

/// Labels on one line.
fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Runs a command that calls an API, on this thread.
fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|why: io::Error| Failure::usage(format!("the event loop cannot be started: {why}"), ""))?
        .block_on(command)
}
