//! `agent.toml`: read raw, with the place of each key, into a [`Config`] whose existence proves it valid.
//!
//! All faults are reported at once, each with its line, key, and what is expected.

mod faults;
mod reader;

pub use faults::{ConfigFaults, Fault};

use isthmus_core::{ClusterName, NodeName};
use isthmus_dataplane::model::{AttachMode, CONTAINER_MTU_MIN, Limits};
use reader::Reader;
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where the server's stream is, unless told otherwise.
pub const SERVER: &str = "127.0.0.1:7443";
/// IANA's port of VXLAN (RFC 7348 section 8).
pub const VXLAN_PORT: u16 = 4_789;

/// How an agent runs. Every value is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the node.
    pub node: NodeName,
    /// Host and port of the server's stream.
    pub server: String,
    /// Address of the node that the overlay uses; `None`: the source address of the route to the server.
    pub address: Option<IpAddr>,
    /// Clusters that the node serves.
    pub clusters: Vec<ClusterName>,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// How programs are attached.
    pub attach: AttachMode,
    /// MTU of containers; `None`: the uplink's less the overlay's overhead.
    pub mtu: Option<u32>,
    /// Where the journal and the view are kept.
    pub data_dir: PathBuf,
    /// Where the sockets and the lock are.
    pub run_dir: PathBuf,
    /// Directory of a BPF file system.
    pub bpffs: PathBuf,
    /// Where `/metrics` is served by TCP; `None`: on the people's socket only.
    pub metrics: Option<SocketAddr>,
    /// File for the lines of denied and new connections; `None`: none is written.
    pub flow_log: Option<PathBuf>,
    /// First port of the node that is given to a container that asks for any.
    pub garden_start_port: u16,
    /// How many ports there are from there on.
    pub garden_total_ports: u16,
    /// Sizes of the dataplane's maps.
    pub limits: Limits,
}

impl Config {
    /// Reads a configuration; `origin` names it in faults.
    ///
    /// # Errors
    ///
    /// [`ConfigFaults`] with every fault at once.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigFaults> {
        let mut reader = Reader::new(text, origin)?;
        let config = Self::read(&mut reader);
        reader.finish()?;
        // Every key that could not be read left a fault, so here all of them were read.
        Ok(config)
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let node = match reader.parsed::<NodeName>("node", "a name of letters, digits, '-', '_' and '.'") {
            None if !reader.has("node") => hostname(reader),
            node => node,
        };
        let clusters = reader.list::<ClusterName>("clusters", "names of clusters, for example [\"red\"]");
        if clusters.is_empty() && !reader.has("clusters") {
            reader.missing("clusters", "the clusters that this node serves, for example [\"red\"]");
        }
        let (garden_start_port, garden_total_ports) = garden_ports(reader);
        Self {
            node: node.unwrap_or_else(fallback_node),
            server: server(reader),
            address: reader.parsed("address", "an IP address of this node"),
            clusters,
            vxlan_port: reader
                .number("vxlan_port", 1..=u64::from(u16::MAX))
                .map_or(VXLAN_PORT, |port| port as u16),
            attach: reader.word("attach", &ATTACH).unwrap_or_default(),
            mtu: reader.number("mtu", u64::from(CONTAINER_MTU_MIN)..=65_535).map(|mtu| mtu as u32),
            data_dir: reader.path("data_dir").unwrap_or_else(|| "/var/lib/isthmus/agent".into()),
            run_dir: reader.path("run_dir").unwrap_or_else(|| "/run/isthmus".into()),
            bpffs: reader.path("bpffs").unwrap_or_else(|| "/sys/fs/bpf/isthmus".into()),
            metrics: reader.parsed("metrics", "an address and port, for example \"127.0.0.1:9480\", or \"\""),
            flow_log: reader.path("flow_log"),
            garden_start_port,
            garden_total_ports,
            limits: limits(reader),
        }
    }

    /// The effective configuration as TOML, for `--check-config`.
    pub fn render(&self) -> String {
        let clusters: Vec<_> = self.clusters.iter().map(|cluster| quoted(cluster.as_str())).collect();
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key} = {value}");
        };
        line("node", quoted(self.node.as_str()));
        line("server", quoted(&self.server));
        if let Some(address) = self.address {
            line("address", quoted(&address.to_string()));
        }
        line("clusters", format!("[{}]", clusters.join(", ")));
        line("vxlan_port", self.vxlan_port.to_string());
        let word = ATTACH.iter().find(|(_, mode)| *mode == self.attach).map_or("auto", |(word, _)| word);
        line("attach", quoted(word));
        if let Some(mtu) = self.mtu {
            line("mtu", mtu.to_string());
        }
        for (key, path) in [("data_dir", &self.data_dir), ("run_dir", &self.run_dir), ("bpffs", &self.bpffs)]
        {
            line(key, quoted(&path.to_string_lossy()));
        }
        line("metrics", quoted(&self.metrics.map(|address| address.to_string()).unwrap_or_default()));
        let flow_log = self.flow_log.as_ref().map(|path| path.to_string_lossy().into_owned());
        line("flow_log", quoted(&flow_log.unwrap_or_default()));
        line("garden_start_port", self.garden_start_port.to_string());
        line("garden_total_ports", self.garden_total_ports.to_string());
        out.push_str("\n[limits]\n");
        for (key, value) in limit_keys(&self.limits) {
            let _ = writeln!(out, "{key} = {value}");
        }
        out
    }
}

const ATTACH: [(&str, AttachMode); 3] =
    [("auto", AttachMode::Auto), ("tcx", AttachMode::Tcx), ("clsact", AttachMode::Clsact)];

fn fallback_node() -> NodeName {
    // Only used beside a fault, which `finish` reports.
    "node".parse().unwrap_or_else(|_| unreachable!("\"node\" is a name"))
}

fn hostname(reader: &mut Reader<'_>) -> Option<NodeName> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let parsed = name.parse();
    if parsed.is_err() {
        reader.missing("node", &format!("a name, because this host's own name \"{name}\" cannot be one"));
    }
    parsed.ok()
}

fn server(reader: &mut Reader<'_>) -> String {
    let text = reader.text("server").unwrap_or_else(|| SERVER.to_owned());
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err() || port == "0") {
        reader.fault("server", &format!("\"{text}\""), "a host and a port, for example \"192.0.2.10:7443\"");
    }
    text
}

/// Garden's own defaults. Its range ends behind the last port; ports simply end at 65535.
fn garden_ports(reader: &mut Reader<'_>) -> (u16, u16) {
    let start = reader.number("garden_start_port", 1..=65_535).unwrap_or(61_000);
    let total = reader.number("garden_total_ports", 1..=65_535).unwrap_or(5_000);
    (start as u16, total as u16)
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    let default = Limits::default();
    let mut table = reader.table("limits");
    let mut limit = |key: &str, default: u32| {
        table.number(key, 1..=u64::from(u32::MAX / 4)).map_or(default, |number| number as u32)
    };
    let limits = Limits {
        endpoints: limit("endpoints", default.endpoints),
        policy_entries: limit("policy_entries", default.policy_entries),
        connections_tcp: limit("connections_tcp", default.connections_tcp),
        connections_other: limit("connections_other", default.connections_other),
        blocks: limit("blocks", default.blocks),
        nodes: limit("nodes", default.nodes),
        peers: limit("peers", default.peers),
    };
    reader.take_back(table);
    limits
}

fn limit_keys(limits: &Limits) -> [(&'static str, u32); 7] {
    [
        ("endpoints", limits.endpoints),
        ("policy_entries", limits.policy_entries),
        ("connections_tcp", limits.connections_tcp),
        ("connections_other", limits.connections_other),
        ("blocks", limits.blocks),
        ("nodes", limits.nodes),
        ("peers", limits.peers),
    ]
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests;
