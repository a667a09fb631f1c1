//! A node that is run by BIRD, configured as Calico configures it: add-path, graceful restart, multihop, everything imported;
//! the block announced as one route, and single addresses only where they are from other nodes' blocks.

use super::{
    node,
    plan::{AS, Cluster, Container, Node, REFLECTOR},
    record::Record,
};
use crate::{
    command::{Call, CommandError},
    process::Process,
};
use anyhow::Context as _;
use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

/// Longest time until BIRD answers.
const READY: Duration = Duration::from_secs(20);

/// Every container's default gateway, which is on no interface.
const GATEWAY: &str = "169.254.1.1";
/// The node's end of a veth pair.
const NODE_MAC: &str = "ee:ee:ee:ee:ee:ee";

/// What it is called in the record.
pub(super) fn name(node: &Node) -> String {
    format!("bird-{}", node.name)
}

fn control(node: &Node) -> PathBuf {
    node.directory().join("bird.ctl")
}

/// Asks the node's BIRD.
pub(super) fn birdc(node: &Node, line: &str) -> Call {
    node.namespace().call("birdc").arg("-s").arg(control(node)).words(line)
}

/// Starts BIRD on the node.
pub(super) fn start(record: &mut Record, node: &Node) -> anyhow::Result<Process> {
    let file = node.directory().join("bird.conf");
    fs::write(&file, config(node)).with_context(|| format!("cannot write {}", file.display()))?;
    let call = node.namespace().call("bird").arg("-f").arg("-s").arg(control(node)).arg("-c").arg(&file);
    let process = record.start(&name(node), &call)?;
    process.wait_ready(READY, || birdc(node, "show status").run().is_ok())?;
    Ok(process)
}

/// An address of another node's block that Calico gave out here, because this node's own block was full.
pub(super) fn borrowed(from: &Node, on: &Node) -> Container {
    let address = u32::from(from.block.network()) + 60;
    Container { name: format!("{}-lent", on.name), address: address.into() }
}

/// Puts a container behind the node as Calico does: a veth pair, a /32, and the kernel forwards.
pub(super) fn attach(record: &mut Record, node: &Node, container: &Container) -> anyhow::Result<()> {
    plug(node, container).with_context(|| format!("cannot attach {}", container.name))?;
    node::serve(record, node, container)
}

fn plug(node: &Node, container: &Container) -> Result<(), CommandError> {
    let (space, inside) = (node.namespace(), container.namespace());
    inside.create()?;
    let (link, address) = (format!("cali{}", u32::from(container.address) & 0xffff), container.address);
    space.ip(&format!(
        "link add {link} address {NODE_MAC} type veth peer name eth0 netns {}",
        inside.name()
    ))?;
    space.ip(&format!("link set {link} up"))?;
    inside.ip(&format!("address add {address}/32 dev eth0"))?;
    inside.ip("link set eth0 up")?;
    inside.ip(&format!("neighbor add {GATEWAY} lladdr {NODE_MAC} dev eth0 nud permanent"))?;
    inside.ip(&format!("route add default via {GATEWAY} dev eth0 onlink"))?;
    space.ip(&format!("route add {address} dev {link}")).map(drop)
}

fn config(node: &Node) -> String {
    let (address, block) = (node.address(), node.block);
    let mut text = format!(
        "router id {address};\nlog stderr all;\n\
         protocol static {{ ipv4; route {block} blackhole; }}\n\
         protocol device {{ scan time 2; }}\n\
         protocol direct {{ ipv4; }}\n\
         # Containers are routes of the kernel, which BIRD learns.\n\
         protocol kernel {{ learn; persist; scan time 2; merge paths on; graceful restart;\n  \
         ipv4 {{ import all; export filter {{ if source = RTS_BGP then accept; reject; }}; }};\n}}\n\
         filter to_peers {{\n  if net = {block} then accept;\n  if net ~ {block} then reject;\n"
    );
    for cluster in Cluster::ALL {
        let pool = cluster.pool();
        let _infallible = writeln!(text, "  if source != RTS_BGP && net ~ {pool} then accept;");
    }
    let _infallible = write!(
        text,
        "  reject;\n}}\nprotocol bgp reflector {{\n  local {address} as {AS};\n  neighbor {REFLECTOR} as {AS};\n  \
         multihop; hold time 240; graceful restart; connect delay time 2; connect retry time 5; error wait time 5, 30;\n  \
         ipv4 {{ import all; export filter to_peers; add paths on; gateway recursive; }};\n}}\n"
    );
    text
}
