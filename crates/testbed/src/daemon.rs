//! Isthmus's own daemons as the testbed runs them: their configuration files, and when they are ready.

use crate::{command::Call, namespace::Namespace, process::Process, rest::Rest};
use anyhow::Context as _;
use ipnet::Ipv4Net;
use isthmus_api::{client::Place, local::AgentStatus};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest time that a daemon may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    pub(crate) rest: SocketAddr,
    pub(crate) agents: SocketAddr,
    pub(crate) cf_policy: Option<SocketAddr>,
    /// Where its files go.
    pub(crate) directory: PathBuf,
    /// The nodes' network, on which plain text is accepted.
    pub(crate) network: Ipv4Net,
}

impl ServerPlan {
    /// Writes its configuration and returns the run of it.
    pub(crate) fn prepare(&self, binary: &Path) -> anyhow::Result<Call> {
        let cf_policy = self.cf_policy.map(|address| address.to_string()).unwrap_or_default();
        let text = format!(
            "listen = \"{}\"\nagents = \"{}\"\ncf_policy = \"{cf_policy}\"\ndata_dir = \"{}\"\nplain_text_networks = [\"{}\"]\n",
            self.rest,
            self.agents,
            self.directory.join("data").display(),
            self.network,
        );
        let config = write(&self.directory, "server.toml", &text)?;
        Ok(Call::new(binary).arg("server").arg("-c").arg(config))
    }

    /// Waits until it answers.
    pub(crate) fn wait_ready(&self, process: &Process) -> anyhow::Result<Rest> {
        let rest = Rest::new(self.rest)?;
        process.wait_ready(READY, || rest.is_up())?;
        Ok(rest)
    }
}

/// An agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentPlan {
    /// Name of its node.
    pub(crate) node: String,
    /// The node's network namespace.
    pub(crate) namespace: Namespace,
    /// The node's address for the overlay.
    pub(crate) address: IpAddr,
    pub(crate) server: SocketAddr,
    pub(crate) cluster: String,
    /// Where its files go.
    pub(crate) directory: PathBuf,
    /// A mounted BPF file system.
    pub(crate) bpffs: PathBuf,
    /// Entries of its verdict tables.
    pub(crate) policy_entries: u32,
    /// Connections of each kind that it tracks.
    pub(crate) connections: u32,
}

impl AgentPlan {
    /// Writes its configuration and returns the run of it.
    pub(crate) fn prepare(&self, binary: &Path) -> anyhow::Result<Call> {
        let directory = self.directory.display();
        let text = format!(
            r#"node = "{}"
server = "{}"
address = "{}"
clusters = ["{}"]
data_dir = "{directory}/data"
run_dir = "{directory}/run"
bpffs = "{}"
flow_log = "{directory}/flows.log"

[limits]
endpoints = 2048
policy_entries = {}
connections_tcp = {}
connections_other = {}
blocks = 4096
nodes = 256
"#,
            self.node,
            self.server,
            self.address,
            self.cluster,
            self.bpffs.display(),
            self.policy_entries,
            self.connections,
            self.connections,
        );
        write(&self.directory, "agent.toml", &text)?;
        Ok(self.call(binary))
    }

    /// The run of it, with the configuration that was written.
    pub(crate) fn call(&self, binary: &Path) -> Call {
        self.namespace.call(binary).arg("agent").arg("-c").arg(self.directory.join("agent.toml"))
    }

    /// Its socket for adapters.
    pub(crate) fn adapter_socket(&self) -> PathBuf {
        adapter_socket(&self.directory)
    }

    /// What it says about itself.
    pub(crate) fn status(&self) -> anyhow::Result<AgentStatus> {
        Rest::at(Place::Unix(self.directory.join("run/agent.sock")))?.get("/status")
    }

    /// Waits until it serves adapters and has its stream to the server.
    pub(crate) fn wait_ready(&self, process: &Process) -> anyhow::Result<()> {
        let socket = self.adapter_socket();
        let serves = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        Ok(process.wait_ready(READY, || serves() && self.status().is_ok_and(|status| status.connected))?)
    }
}

/// The socket for adapters of the agent whose files are in `directory`.
pub(crate) fn adapter_socket(directory: &Path) -> PathBuf {
    directory.join("run/adapter.sock")
}

fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The program of ours called `name`, beside the running one.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program's path")?;
    let own = fs::canonicalize(&own).with_context(|| format!("cannot find {}", own.display()))?;
    let path = own.with_file_name(name);
    anyhow::ensure!(path.is_file(), "{name} is not beside {}: `make build` makes both", own.display());
    Ok(path)
}
