//! What a node of ours runs, and how a container gets on it.
//!
//! A speaker announces the node's block and keeps the others' blocks in the kernel's main table; the container has a veth
//! pair and a /32. The kernel forwards.

use super::{
    plan::{AS, Container, Node, REFLECTOR},
    record::Record,
};
use crate::{
    command::{Call, CommandError},
    process::Process,
    wait,
};
use anyhow::Context as _;
use std::{fs, time::Duration};

/// Longest time until a speaker answers, or a page is there.
const READY: Duration = Duration::from_secs(20);
/// Every container's default gateway, which is on no interface.
const GATEWAY: &str = "169.254.1.1";
/// The node's end of each veth pair.
const NODE_MAC: &str = "02:69:73:62:00:01";

/// What its speaker is called in the record.
pub(super) fn speaker_name(node: &Node) -> String {
    format!("speaker-{}", node.name)
}

/// Makes a router of the node.
pub(super) fn prepare(node: &Node) -> anyhow::Result<()> {
    let directory = node.directory();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let space = node.namespace();
    space.sysctl("ipv4.ip_forward", "1")?;
    // What is for nobody in its block does not leave it again.
    space.ip(&format!("route add blackhole {}", node.block))?;
    Ok(())
}

/// Starts its speaker and announces its block.
pub(super) fn start(record: &mut Record, node: &Node) -> anyhow::Result<Process> {
    let file = node.directory().join("speaker.toml");
    fs::write(&file, config(node)).with_context(|| format!("cannot write {}", file.display()))?;
    let words = ["bgp", "run", "--log-format", "text", "--kernel-table", "main", "-c"];
    let call = node.namespace().call(&record.binary).args(words).arg(file);
    let process = record.start(&speaker_name(node), &call)?;
    process.wait_ready(READY, || gobgp(node, "global").run().is_ok())?;
    gobgp(node, &format!("global rib add {} nexthop {}", node.block, node.address())).run()?;
    Ok(process)
}

/// The stock client, asking the node's speaker.
pub(super) fn gobgp(node: &Node, line: &str) -> Call {
    node.namespace().call("gobgp").words(line)
}

/// The routes to other nodes in its kernel.
pub(super) fn kernel_routes(node: &Node) -> Result<String, CommandError> {
    node.namespace().ip("route show table main")
}

fn config(node: &Node) -> String {
    let address = node.address();
    format!(
        r#"[global.config]
as = {AS}
router-id = "{address}"

[[neighbors]]
[neighbors.config]
neighbor-address = "{REFLECTOR}"
peer-as = {AS}
[neighbors.timers.config]
connect-retry = 1
hold-time = 30
[neighbors.graceful-restart.config]
enabled = true
restart-time = 120
"#
    )
}

/// Puts a container behind the node, and serves a page in it.
pub(super) fn attach(record: &mut Record, node: &Node, container: &Container) -> anyhow::Result<()> {
    plug(node, container).with_context(|| format!("cannot attach {}", container.name))?;
    let call = record.client(container, &["serve", "--name", &container.name]);
    record.start(&container.name, &call)?;
    let url = format!("http://{}:{}/", container.address, crate::app::HTTP_PORT);
    let get = node.namespace().call(&record.binary).args(["demo-app", "get", &url, "--timeout-ms", "1000"]);
    wait::until_true(&format!("{} to answer its node", container.name), READY, || get.run().is_ok())?;
    Ok(())
}

fn plug(node: &Node, container: &Container) -> Result<(), CommandError> {
    let (space, inside) = (node.namespace(), container.namespace());
    inside.create()?;
    let (link, address) = (format!("c{}", u32::from(container.address) & 0xffff), container.address);
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
