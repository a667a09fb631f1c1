//! What a node of ours runs, and how a container gets on it.
//!
//! An agent, whose speaker announces the node's block and keeps the others' blocks in the kernel's main table; containers
//! are network namespaces, which CNI ADD puts on the network.

use super::{
    plan::{Cluster, Container, Node},
    record::Record,
    server,
};
use crate::{
    cni,
    command::{Call, CommandError},
    daemon::{AgentPlan, program},
    process::Process,
    wait,
};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::time::Duration;

/// Longest time until a speaker answers, or a page is there.
const READY: Duration = Duration::from_secs(20);
/// Entries of its verdict tables; the demo has no rules.
const ENTRIES: u32 = 4096;
/// Connections of each kind that it tracks.
const CONNECTIONS: u32 = 4096;

/// What its agent is called in the record.
pub(super) fn agent_name(node: &Node) -> String {
    format!("agent-{}", node.name)
}

fn plan(node: &Node) -> AgentPlan {
    AgentPlan {
        node: node.name.clone(),
        namespace: node.namespace(),
        address: node.address().into(),
        server: server::for_agents(),
        cluster: node.cluster.name().to_owned(),
        directory: node.directory(),
        bpffs: server::bpffs(),
        policy_entries: ENTRIES,
        connections: CONNECTIONS,
    }
}

/// Starts its agent.
pub(super) fn start(record: &mut Record, node: &Node) -> anyhow::Result<Process> {
    let plan = plan(node);
    let call = plan.prepare(&record.binary)?;
    let process = record.start(&agent_name(node), &call)?;
    plan.wait_ready(&process)?;
    process.wait_ready(READY, || gobgp(node, "global").run().is_ok())?;
    Ok(process)
}

/// The stock client, asking the node's speaker.
pub(super) fn gobgp(node: &Node, line: &str) -> Call {
    let target = format!("unix:{}", node.directory().join("run/bgp.sock").display());
    node.namespace().call("gobgp").args(["--target", &target]).words(line)
}

/// The routes to other nodes in its kernel.
pub(super) fn kernel_routes(node: &Node) -> Result<String, CommandError> {
    node.namespace().ip("route show table main")
}

/// Puts the node's container on the network.
pub(super) fn attach(record: &mut Record, node: &Node) -> anyhow::Result<()> {
    let container = node.container();
    container.namespace().create()?;
    let plugin = plugin(node, &container)?;
    let result = plugin.add().with_context(|| format!("cannot attach {}", container.name))?;
    let address = cni::address(&result);
    ensure!(
        address == Some(container.address.into()),
        "{} got {address:?} where {} is the first address of {}",
        container.name,
        container.address,
        node.block
    );
    serve(record, node, &container)
}

/// CNI's plugin, called as the platform's runtime does.
fn plugin(node: &Node, container: &Container) -> anyhow::Result<cni::Plugin> {
    let mut config = cni::isthmus_config(node.cluster.name(), &plan(node).adapter_socket());
    let arguments = match node.cluster {
        Cluster::Kubernetes => {
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", container.name)
        }
        Cluster::Dcos => {
            let labels = json!({ "labels": [{ "key": "platform", "value": "dcos" }] });
            config["args"] = json!({ "org.apache.mesos": { "network_info": { "labels": labels } } });
            String::new()
        }
    };
    Ok(cni::Plugin {
        node: node.namespace().path(),
        directory: program("isthmus-cni")?.with_file_name(""),
        config,
        container: container.name.clone(),
        netns: container.namespace().path().display().to_string(),
        interface: "eth0".to_owned(),
        arguments,
    })
}

/// Serves a page in a container, and waits until its node can fetch it.
pub(super) fn serve(record: &mut Record, node: &Node, container: &Container) -> anyhow::Result<()> {
    let call = record.client(container, &["serve", "--name", &container.name]);
    record.start(&container.name, &call)?;
    let url = format!("http://{}:{}/", container.address, crate::app::HTTP_PORT);
    let get = node.namespace().call(&record.binary).args(["demo-app", "get", &url, "--timeout-ms", "1000"]);
    wait::until_true(&format!("{} to answer its node", container.name), READY, || get.run().is_ok())?;
    Ok(())
}
