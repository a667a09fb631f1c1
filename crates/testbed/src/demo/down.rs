//! `isthmus demo down`: everything goes, by the platforms' own ways first, by force where those fail.

use super::{
    CGROUP, HOST_LINK, PREFIX, RUN,
    instance::containerd,
    plan::{Node, Platform},
    record::{Record, node_directory},
};
use crate::{
    namespace,
    process::Process,
    progress::{Progress, say},
    state::{self, Made},
};
use anyhow::bail;
use std::{path::Path, time::Duration};

/// Longest time that the end waits for the system to forget the demo's processes.
const COLLECTED: Duration = Duration::from_secs(10);

/// Removes the demo; finding none is fine.
pub(super) fn down() -> anyhow::Result<u8> {
    let existed = Path::new(RUN).exists();
    let _lock = super::lock()?;
    let record = match Record::load() {
        Ok(record) => record,
        Err(error) => {
            Progress::warn(&format!("{error}; removing what the demo's names show"));
            None
        }
    };
    let any = existed || record.is_some() || !namespace::with_prefix(PREFIX).is_empty();
    let progress = Progress::new();
    remove(record.as_ref())?;
    if any {
        progress.end("the demo is gone");
    } else {
        say("there is no demo");
    }
    Ok(0)
}

/// Removes what `record` names, and what has the demo's names.
pub(super) fn remove(record: Option<&Record>) -> anyhow::Result<()> {
    let mut made = record.map(|record| record.made.clone()).unwrap_or_default();
    by_name(&mut made);
    let members = made.members();
    if let Some(record) = record {
        leave(record);
    }
    let left = made.remove();
    state::wait_until_collected(&members, COLLECTED);
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<_> = left.iter().map(|left| format!("\n  {left}")).collect();
    bail!("could not remove everything; run it again after looking at:{}", left.concat())
}

/// What the demo's names show, in case the record is lost.
fn by_name(made: &mut Made) {
    for namespace in namespace::with_prefix(PREFIX) {
        if !made.namespaces.contains(&namespace) {
            made.namespaces.push(namespace);
        }
    }
    let add = |list: &mut Vec<String>, name: &str| {
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    };
    add(&mut made.links, HOST_LINK);
    add(&mut made.cgroups, CGROUP);
    if !made.directories.iter().any(|path| path == Path::new(RUN)) {
        made.directories.push(RUN.into());
    }
}

/// Lets the platforms remove their containers and the agents their things. What fails here goes by force later.
fn leave(record: &Record) {
    let garden = record.binary.with_file_name("isthmus-garden");
    for container in &record.containers {
        let Some(node) = record.node(&container.instance.node) else { continue };
        if let Err(error) = container.remove(node, &garden) {
            Progress::warn(&format!("{} did not go by itself: {error:#}", container.instance.name));
        }
    }
    for node in record.nodes.iter().filter(|node| node.cluster().platform == Platform::Kubernetes) {
        let lives = record.process(&format!("containerd-{}", node.name)).is_some_and(Process::lives);
        if let (true, Err(error)) = (lives, remove_pods(node)) {
            Progress::warn(&format!("the pods of {} did not go by themselves: {error:#}", node.name));
        }
    }
    for node in &record.nodes {
        clean_node(record, node);
    }
}

fn remove_pods(node: &Node) -> anyhow::Result<()> {
    Ok(containerd(node).connect()?.remove_all()?)
}

/// Stops a node's agent and has Isthmus remove what it put on the node.
fn clean_node(record: &Record, node: &Node) {
    let Some(agent) = record.process(&super::up::agent_name(node)) else { return };
    let config = node_directory(&node.name).join("agent.toml");
    let stopped = agent.stop().map_err(anyhow::Error::from);
    let cleaned = stopped.and_then(|()| {
        let call =
            node.namespace().call(&record.binary).args(["node", "cleanup", "--yes", "--config"]).arg(config);
        Ok(call.run()?)
    });
    if let Err(error) = cleaned {
        Progress::warn(&format!("`isthmus node cleanup` on {} failed: {error:#}", node.name));
    }
}
