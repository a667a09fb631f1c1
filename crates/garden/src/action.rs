//! The two actions.

use crate::{
    config::{Config, ConfigError, LOG_PREFIX},
    flags::{FlagError, Flags},
    input::Up,
    json::ReadError,
    workload,
};
use isthmus_api::adapter::{
    self, Attach, Attached, AttachmentKey, CallError, Failure, PortMapping, RequestBody, ResponseBody,
};
use rustix::fs::{Mode, OFlags, open};
use serde::Serialize;
use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Name of the interface inside, as in the original.
const INTERFACE: &str = "eth0";
/// What attachments are known by, beside handle and interface.
const RUNTIME: &str = "garden";
/// How long the agent may take. Garden itself sets no limit.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the detach after a broken attach may take.
const UNDO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest standard input that is read. Ten thousand security-group rules are a tenth of it.
const INPUT_BYTES_MAX: u64 = 16 << 20;
/// Longest handle.
const HANDLE_BYTES_MAX: usize = 512;
/// The address that the original answers for `garden.network.host-ip`, which nobody uses any more.
const HOST_ADDRESS: &str = "255.255.255.255";

/// Why an action failed, without the prefix.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// No arguments, or a call for help.
    #[error("this is a plugin for Garden-runC.  Don't run it directly.")]
    Direct,
    /// The command line.
    #[error("parse args: {0}")]
    Flags(#[source] FlagError),
    /// The configuration file.
    #[error("parse args: {0}")]
    Config(#[source] ConfigError),
    /// An action that does not exist.
    #[error("unrecognized action: {0}")]
    Unrecognized(String),
    /// A handle that no runtime makes.
    #[error("the handle has {0} bytes: at most {HANDLE_BYTES_MAX} are taken")]
    Handle(usize),
    /// Standard input cannot be read.
    #[error("reading standard input: {0}")]
    Read(#[source] std::io::Error),
    /// Standard input is not what it should be.
    #[error("reading standard input: {0}")]
    Input(#[source] ReadError),
    /// The namespace cannot be opened.
    #[error("opening the container's network namespace {path}: {source}")]
    Netns {
        /// Its path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent did not answer.
    #[error("{0}")]
    Call(#[source] CallError),
    /// The agent said no.
    #[error("{}{}", .0.message, help(.0))]
    Failed(Failure),
    /// The agent gave no address that Garden can use.
    #[error("expected an IPv4 address in the answer of the agent")]
    NoAddress,
    /// The agent answered something else.
    #[error("the agent said nothing about the attachment")]
    Unexpected,
}

fn help(failure: &Failure) -> String {
    if failure.help.is_empty() { String::new() } else { format!(" ({})", failure.help) }
}

/// An error as it goes to standard error.
#[derive(Debug, thiserror::Error)]
#[error("{prefix}: {source}")]
pub struct RunError {
    /// `log_prefix` of the configuration.
    pub prefix: String,
    /// What went wrong; part of the text.
    pub source: ActionError,
}

/// What `up` answers; the order is the original's.
#[derive(Serialize)]
struct Output {
    properties: Properties,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_servers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search_domains: Vec<String>,
}

#[derive(Serialize)]
struct Properties {
    #[serde(rename = "garden.network.container-ip")]
    container_ip: String,
    #[serde(rename = "garden.network.container-ipv6", skip_serializing_if = "Option::is_none")]
    container_ipv6: Option<String>,
    #[serde(rename = "garden.network.host-ip")]
    host_ip: &'static str,
    #[serde(rename = "garden.network.mapped-ports")]
    mapped_ports: String,
    #[serde(rename = "garden.network.interface")]
    interface: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MappedPort {
    host_port: u16,
    container_port: u16,
}

/// Serves one call; returns what goes to standard output.
///
/// # Errors
///
/// Whatever happens, nothing is left behind by a failed `up`.
pub fn run(args: &[String], stdin: &mut dyn Read) -> Result<String, RunError> {
    let early = |source| RunError { prefix: LOG_PREFIX.to_owned(), source };
    if matches!(args, [] | [_]) && args.first().is_none_or(|arg| arg == "-h" || arg == "--help") {
        return Err(early(ActionError::Direct));
    }
    let flags = Flags::parse(args).map_err(|error| early(ActionError::Flags(error)))?;
    let config = Config::read(&flags.config_file).map_err(|error| early(ActionError::Config(error)))?;
    serve(&flags, &config, stdin).map_err(|source| RunError { prefix: config.log_prefix, source })
}

fn serve(flags: &Flags, config: &Config, stdin: &mut dyn Read) -> Result<String, ActionError> {
    if flags.action.is_empty() {
        return Err(ActionError::Flags(FlagError::Missing("action")));
    }
    if flags.handle.len() > HANDLE_BYTES_MAX {
        return Err(ActionError::Handle(flags.handle.len()));
    }
    match flags.action.as_str() {
        "up" => up(&flags.handle, config, stdin),
        "down" => down(&flags.handle, config),
        other => Err(ActionError::Unrecognized(other.to_owned())),
    }
}

fn up(handle: &str, config: &Config, stdin: &mut dyn Read) -> Result<String, ActionError> {
    let mut text = Vec::new();
    stdin.take(INPUT_BYTES_MAX).read_to_end(&mut text).map_err(ActionError::Read)?;
    let up = Up::parse(&text).map_err(ActionError::Input)?;
    let netns = open_netns(up.pid)?;
    let named = workload::name(handle, &up.properties);
    let attach = Attach {
        key: key(handle),
        cluster: config.cluster.clone(),
        workload: named.workload,
        instance: named.instance,
        addresses: Vec::new(),
        mac: None,
        port_mappings: up
            .net_in
            .iter()
            .map(|port| PortMapping {
                host_ip: None,
                host_port: port.host_port,
                container_port: port.container_port,
                protocol: "tcp".to_owned(),
            })
            .collect(),
    };
    let attached = call_attach(config, attach, netns.as_fd())?;
    answer(config, &attached).inspect_err(|_error| undo(config, handle))
}

fn call_attach(config: &Config, attach: Attach, netns: BorrowedFd<'_>) -> Result<Attached, ActionError> {
    let handle = attach.key.container.clone();
    match adapter::call(&config.socket, RequestBody::Attach(Box::new(attach)), Some(netns), TIMEOUT) {
        Ok(ResponseBody::Attached(attached)) => Ok(attached),
        Ok(ResponseBody::Failed(failure)) => Err(ActionError::Failed(failure)),
        Ok(ResponseBody::Done) => {
            undo(config, &handle);
            Err(ActionError::Unexpected)
        }
        Err(error) => {
            // The agent may have attached it and only the answer was lost.
            if matches!(error, CallError::Broken { .. }) {
                undo(config, &handle);
            }
            Err(ActionError::Call(error))
        }
    }
}

/// An unknown handle is fine: the agent then has nothing to do.
fn down(handle: &str, config: &Config) -> Result<String, ActionError> {
    match adapter::call(&config.socket, RequestBody::Detach(key(handle)), None, TIMEOUT) {
        Ok(ResponseBody::Failed(failure)) => Err(ActionError::Failed(failure)),
        Ok(_done) => Ok(String::new()),
        Err(error) => Err(ActionError::Call(error)),
    }
}

/// Best effort: `down` follows a failed `up`, and the agent's own look at the namespace finds what was left.
fn undo(config: &Config, handle: &str) {
    let _ = adapter::call(&config.socket, RequestBody::Detach(key(handle)), None, UNDO_TIMEOUT);
}

fn key(handle: &str) -> AttachmentKey {
    AttachmentKey {
        runtime: RUNTIME.to_owned(),
        container: handle.to_owned(),
        interface: INTERFACE.to_owned(),
    }
}

/// Guardian passes no process for containers whose namespace it holds open as descriptor 3.
fn open_netns(pid: u32) -> Result<OwnedFd, ActionError> {
    let path = if pid == 0 { "/proc/self/fd/3".to_owned() } else { format!("/proc/{pid}/ns/net") };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    open(&path, flags, Mode::empty()).map_err(|source| ActionError::Netns { path, source: source.into() })
}

fn answer(config: &Config, attached: &Attached) -> Result<String, ActionError> {
    let of_family =
        |v4: bool| attached.addresses.iter().find(|address| address.is_ipv4() == v4).map(ToString::to_string);
    let ports: Vec<_> = attached
        .port_mappings
        .iter()
        .map(|mapping| MappedPort { host_port: mapping.host_port, container_port: mapping.container_port })
        .collect();
    let output = Output {
        properties: Properties {
            container_ip: of_family(true).ok_or(ActionError::NoAddress)?,
            container_ipv6: of_family(false),
            host_ip: HOST_ADDRESS,
            mapped_ports: render(&ports),
            interface: INTERFACE,
        },
        dns_servers: config.dns_servers.clone(),
        search_domains: config.search_domains.clone(),
    };
    Ok(render(&output))
}

fn render(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("structs of texts and numbers are always JSON")
}
