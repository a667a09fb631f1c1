//! The server of both clusters, which is told what people would type.

use super::{
    RUN,
    plan::{AS, Cluster, REFLECTOR, SERVER, server},
    record::Record,
};
use crate::{
    command::{Call, CommandError},
    daemon::ServerPlan,
};
use anyhow::Context as _;
use ipnet::Ipv4Net;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Its name in the record.
const NAME: &str = "server";
/// Longest time until it answers.
const READY: Duration = Duration::from_secs(20);
/// Where people reach it, in its own namespace.
const REST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);
/// Its port for agents.
const AGENTS_PORT: u16 = 7443;

/// Where agents reach it.
pub(super) fn for_agents() -> SocketAddr {
    (SERVER, AGENTS_PORT).into()
}

/// The BPF file system of all nodes.
pub(super) fn bpffs() -> PathBuf {
    Path::new(RUN).join("bpf")
}

/// Starts it, and tells it of two clusters without encapsulation and their reflector.
pub(super) fn start(record: &mut Record) -> anyhow::Result<()> {
    fs::create_dir_all(bpffs()).with_context(|| format!("cannot make {}", bpffs().display()))?;
    Call::new("mount").args(["-t", "bpf", "bpf"]).arg(bpffs()).run()?;
    let plan = ServerPlan {
        rest: REST,
        agents: for_agents(),
        cf_policy: None,
        directory: Path::new(RUN).join(NAME),
        network: Ipv4Net::new_assert(SERVER, 24).trunc(),
    };
    let call = plan.prepare(&record.binary)?.in_namespace(&server().path());
    let process = record.start(NAME, &call)?;
    process.wait_ready(READY, || tell(record, "network show").is_ok())?;
    for cluster in Cluster::ALL {
        let (name, platform, pool) = (cluster.name(), cluster.platform(), cluster.pool());
        tell(record, &format!("cluster create {name} --platform {platform} --default open --as {AS}"))?;
        // Nodes are neighbours of the reflector alone.
        tell(record, &format!("cluster set {name} --topology none"))?;
        tell(record, &format!("pool create {name} --cluster {name} --cidr {pool}"))?;
    }
    tell(record, "network set --encapsulation never")?;
    // It sends both clusters' blocks, which only nodes are believed otherwise.
    tell(
        record,
        &format!("bgp peer create reflector --address {REFLECTOR} --as {AS} --hold 30 --import-own-pools"),
    )?;
    Ok(())
}

/// The CLI, in the server's namespace.
fn tell(record: &Record, line: &str) -> Result<String, CommandError> {
    server().call(&record.binary).args(["--server", &REST.to_string()]).words(line).run()
}
