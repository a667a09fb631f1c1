//! `isthmus server`, `isthmus agent`, and `isthmus node cleanup`.
//!
//! A daemon reads its file, lets flags win over it, and validates the whole at once. `--check-config` prints what would be
//! in force and ends.

use super::Session;
use crate::{
    failure::{Exit, Failure},
    logging::{self, LogFormat},
    terminal::Tone,
};
use std::{
    error::Error,
    fmt::Display,
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
};
use tokio::signal::unix::{SignalKind, signal};
use toml::{Table, Value};

/// What both daemons take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Configuration file; else the one in /etc/isthmus, if it is there.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints the configuration that would be in force, or everything that is wrong with it, and ends.
    #[arg(long)]
    check_config: bool,
    /// What to log: `info`, `debug`, or a list such as `info,isthmus_agent=debug`.
    #[arg(long, env = "ISTHMUS_LOG", hide_env_values = true, default_value = "info", value_name = "FILTER")]
    log: String,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    log_format: LogFormat,
    /// Directory of what must outlive a restart.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// Arguments of `server`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus server -c /etc/isthmus/server.toml\n  isthmus server --data-dir /tmp/isthmus --check-config"
)]
pub struct ServerArgs {
    #[command(flatten)]
    common: Common,
    /// Address of the REST API.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address that agents connect to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    agents: Option<String>,
    /// Address of Cloud Foundry's policy API; empty turns it off.
    #[arg(long, value_name = "ADDRESS:PORT")]
    cf_policy: Option<String>,
    /// Network besides loopback on which plain text is accepted; may be repeated.
    #[arg(long, value_name = "CIDR")]
    plain_text_network: Vec<String>,
}

/// Arguments of `agent`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus agent -c /etc/isthmus/agent.toml\n  isthmus agent --connect 192.0.2.10:7443 --cluster red --check-config"
)]
pub struct AgentArgs {
    #[command(flatten)]
    common: Common,
    /// Name of this node; else the host's.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The server's address for agents.
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// Address of this node's end of the overlay.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// A cluster that this node serves; may be repeated.
    #[arg(long, value_name = "NAME")]
    cluster: Vec<String>,
    /// UDP port of the overlay.
    #[arg(long, value_name = "PORT")]
    vxlan_port: Option<u16>,
    /// How programs are attached: auto, tcx or clsact.
    #[arg(long, value_name = "MODE")]
    attach: Option<String>,
    /// MTU of containers; else derived from the underlay.
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Directory of the sockets.
    #[arg(long, value_name = "DIRECTORY")]
    run_dir: Option<PathBuf>,
    /// Directory of the pinned programs and maps, on a BPF file system.
    #[arg(long, value_name = "DIRECTORY")]
    bpffs: Option<PathBuf>,
}

/// Arguments of `node cleanup`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus node cleanup --yes\n  isthmus node cleanup --name diego-13 --yes\n\n\
    Containers that are still on the network lose it. Stop the agent first."
)]
pub struct CleanupArgs {
    /// The agent's configuration file; else the one in /etc/isthmus, if it is there.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of this node; else the configuration's, else the host's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Directory of the pinned programs and maps.
    #[arg(long, value_name = "DIRECTORY")]
    bpffs: Option<PathBuf>,
    /// Directory of the sockets.
    #[arg(long, value_name = "DIRECTORY")]
    run_dir: Option<PathBuf>,
    /// Directory of what outlives a restart.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Asks nothing.
    #[arg(long)]
    yes: bool,
}

/// Keys that flags set, over those of the file.
#[derive(Debug, Default)]
struct Overrides(Table);

impl Overrides {
    fn text(mut self, key: &str, value: Option<&String>) -> Self {
        self.0.extend(value.map(|value| (key.to_owned(), Value::String(value.clone()))));
        self
    }

    fn path(mut self, key: &str, value: Option<&PathBuf>) -> Self {
        self.0
            .extend(value.map(|value| (key.to_owned(), Value::String(value.to_string_lossy().into_owned()))));
        self
    }

    fn number(mut self, key: &str, value: Option<u32>) -> Self {
        self.0.extend(value.map(|value| (key.to_owned(), Value::Integer(value.into()))));
        self
    }

    fn list(mut self, key: &str, values: &[String]) -> Self {
        if !values.is_empty() {
            self.0.insert(key.to_owned(), Value::Array(values.iter().cloned().map(Value::String).collect()));
        }
        self
    }
}

/// Runs the server until a signal.
pub fn server(args: &ServerArgs, session: &mut Session) -> Result<Exit, Failure> {
    let overrides = Overrides::default()
        .text("listen", args.listen.as_ref())
        .text("agents", args.agents.as_ref())
        .text("cf_policy", args.cf_policy.as_ref())
        .path("data_dir", args.common.data_dir.as_ref())
        .list("plain_text_networks", &args.plain_text_network);
    let config = read(
        args.common.config.as_deref(),
        "/etc/isthmus/server.toml",
        overrides,
        isthmus_server::Config::from_toml,
    )?;
    if args.common.check_config {
        write!(session.out, "{}", config.render())?;
        return Ok(Exit::Yes);
    }
    logging::start(&args.common.log, args.common.log_format)?;
    until_signal("server", |shutdown| isthmus_server::run(config, shutdown))
}

/// Runs the agent until a signal. What it has put into the kernel stays in force.
pub fn agent(args: &AgentArgs, session: &mut Session) -> Result<Exit, Failure> {
    let overrides = Overrides::default()
        .text("node", args.node.as_ref())
        .text("server", args.connect.as_ref())
        .text("address", args.address.as_ref())
        .list("clusters", &args.cluster)
        .number("vxlan_port", args.vxlan_port.map(u32::from))
        .text("attach", args.attach.as_ref())
        .number("mtu", args.mtu)
        .path("data_dir", args.common.data_dir.as_ref())
        .path("run_dir", args.run_dir.as_ref())
        .path("bpffs", args.bpffs.as_ref());
    let config =
        read(args.common.config.as_deref(), AGENT_FILE, overrides, isthmus_agent::Config::from_toml)?;
    if args.common.check_config {
        write!(session.out, "{}", config.render())?;
        return Ok(Exit::Yes);
    }
    logging::start(&args.common.log, args.common.log_format)?;
    until_signal("agent", |shutdown| isthmus_agent::run(config, shutdown))
}

/// Where the agent's configuration is unless told otherwise.
const AGENT_FILE: &str = "/etc/isthmus/agent.toml";

/// Removes everything from this host.
pub fn cleanup(args: &CleanupArgs, session: &mut Session) -> Result<Exit, Failure> {
    // Which clusters the node served does not matter any more, but a configuration has some.
    let overrides = Overrides::default()
        .list("clusters", &["cleanup".to_owned()])
        .text("node", args.name.as_ref())
        .path("data_dir", args.data_dir.as_ref())
        .path("run_dir", args.run_dir.as_ref())
        .path("bpffs", args.bpffs.as_ref());
    let config = read(args.config.as_deref(), AGENT_FILE, overrides, isthmus_agent::Config::from_toml)?;
    session.confirm(&format!("Remove everything of node {} from this host", config.node), args.yes)?;
    let report = isthmus_agent::cleanup(&config).map_err(|error| started("cleanup", &error))?;
    for name in &report.removed {
        writeln!(session.out, "{name}")?;
    }
    let mark = session.terminal.paint_err(Tone::Bad, session.terminal.mark(false));
    for text in &report.failed {
        session.tell(&format!("{mark} {text}"));
    }
    if report.failed.is_empty() {
        session.done(&format!("{} things removed", report.removed.len()), "");
        return Ok(Exit::Yes);
    }
    Ok(Exit::No)
}

/// Reads a configuration: the file, with flags over it.
fn read<C, E: Display>(
    file: Option<&Path>,
    usual: &str,
    overrides: Overrides,
    parse: fn(&str, &str) -> Result<C, E>,
) -> Result<C, Failure> {
    let (text, origin) = text(file, usual)?;
    let refuse = |faults: &dyn Display| {
        let text = faults.to_string();
        let message = match coded(&text) {
            (Some(_code), rest) => rest.to_owned(),
            (None, text) => format!("the configuration cannot be used\n{text}"),
        };
        Failure::new(
            Exit::Usage,
            "ISE-0501",
            message,
            "correct all of these; --check-config tries it without starting",
        )
    };
    if overrides.0.is_empty() {
        return parse(&text, &origin).map_err(|faults| refuse(&faults));
    }
    // A file that is no TOML at all is refused with its own lines.
    let Ok(mut table) = text.parse::<Table>() else {
        return parse(&text, &origin).map_err(|faults| refuse(&faults));
    };
    let flags = overrides.0.keys().cloned().collect::<Vec<_>>();
    table.extend(overrides.0);
    parse(&table.to_string(), &format!("{origin} with flags")).map_err(|faults| {
        // Lines of the merged text are nobody's; those of the file are, if a flag is not what is wrong with it.
        match parse(&text, &origin) {
            Err(own) if !flags.iter().any(|key| own.to_string().contains(key.as_str())) => refuse(&own),
            _ => refuse(&faults),
        }
    })
}

fn text(file: Option<&Path>, usual: &str) -> Result<(String, String), Failure> {
    let path = file.unwrap_or(Path::new(usual));
    match fs::read_to_string(path) {
        Ok(text) => Ok((text, path.display().to_string())),
        Err(why) if why.kind() == io::ErrorKind::NotFound && file.is_none() => {
            Ok((String::new(), "defaults".to_owned()))
        }
        Err(why) => {
            let message = format!("the configuration file {} cannot be read: {why}", path.display());
            Err(Failure::new(Exit::Usage, "ISE-0501", message, "name a file with -c"))
        }
    }
}

/// Runs a daemon until SIGTERM or SIGINT.
pub(super) fn until_signal<F, E>(what: &str, daemon: impl FnOnce(Stop) -> F) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    until_signal_or(daemon, |error| started(what, error))
}

/// Runs a daemon until SIGTERM or SIGINT; `told` says why it did not start.
pub(super) fn until_signal_or<F, E>(
    daemon: impl FnOnce(Stop) -> F,
    told: impl FnOnce(&E) -> Failure,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(), E>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|why| Failure::usage(format!("the event loop cannot be started: {why}"), ""))?;
    runtime.block_on(async {
        let stop =
            stop().map_err(|why| Failure::usage(format!("signals cannot be waited for: {why}"), ""))?;
        daemon(stop).await.map_err(|error| told(&error))
    })?;
    Ok(Exit::Yes)
}

/// What ends with the first signal that asks the process to stop.
pub(super) type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends with the first signal that asks the process to stop.
fn stop() -> io::Result<Stop> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
        }
    }))
}

/// An error with all its causes.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

fn started(what: &str, error: &(dyn Error + 'static)) -> Failure {
    let text = with_causes(error);
    let (code, text) = coded(&text);
    let code = code.unwrap_or("ISE-0608");
    Failure::new(Exit::No, code, format!("{what}: {text}"), format!("isthmus help {code}"))
}

/// Takes the code out of a text such as `error[ISE-0504]: another agent runs`.
fn coded(text: &str) -> (Option<&str>, &str) {
    let parts = text.strip_prefix("error[").and_then(|rest| rest.split_once("]: "));
    match parts {
        Some((code, rest)) if code.starts_with("ISE-") => (Some(code), rest),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parser that, like the daemons' own, names file and line of what it does not know.
    fn parse(text: &str, origin: &str) -> Result<Table, String> {
        let table: Table = text.parse().map_err(|why| format!("{origin}: {why}"))?;
        let bad = text.lines().position(|line| line.starts_with("wrong"));
        match bad {
            Some(line) => Err(format!("{origin}:{}: wrong is no key", line + 1)),
            None if !table.contains_key("clusters") => Err(format!("{origin}: clusters is missing")),
            None => Ok(table),
        }
    }

    fn read_text(text: &str, overrides: Overrides) -> Result<Table, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let origin = file.path().display().to_string();
        read(Some(file.path()), "", overrides, parse)
            .map_err(|failure| failure.render().replace(&origin, "FILE"))
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = || Overrides::default().list("clusters", &["red".into()]).number("mtu", Some(1400));
        let table = read_text("clusters = [\"blue\"]\nnode = \"n\"\n[limits]\nnodes = 3\n", flags()).unwrap();
        assert_eq!(table["clusters"][0].as_str(), Some("red"));
        assert_eq!((table["mtu"].as_integer(), table["limits"]["nodes"].as_integer()), (Some(1400), Some(3)));
        assert!(read_text("", flags()).is_ok(), "a flag can give what the file lacks");
    }

    #[test]
    fn faults_have_the_lines_of_the_file() {
        let flags = Overrides::default().text("node", Some(&"n".into()));
        let text = read_text("# a\nclusters = []\nwrong = 1\n", flags).unwrap_err();
        assert!(
            text.starts_with(
                "error[ISE-0501]: the configuration cannot be used\n  FILE:3: wrong is no key\n"
            ),
            "{text}"
        );
        let text = read_text("node = \n", Overrides::default().number("mtu", Some(1))).unwrap_err();
        assert!(text.contains("FILE"), "{text}");
    }

    #[test]
    fn a_code_in_a_text_becomes_the_code_of_the_failure() {
        let failure = started("agent", &io::Error::other("error[ISE-0504]: another agent runs"));
        assert_eq!(
            failure.render(),
            "error[ISE-0504]: agent: another agent runs\n  help: isthmus help ISE-0504\n"
        );
        assert!(started("agent", &io::Error::other("x")).render().starts_with("error[ISE-0608]: agent: x"));
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let missing = Path::new("/nonexistent/agent.toml");
        assert!(text(Some(missing), "").unwrap_err().render().contains("/nonexistent/agent.toml"));
        assert_eq!(text(None, "/nonexistent/agent.toml").unwrap().0, "");
    }
}
