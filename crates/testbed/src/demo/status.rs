//! `isthmus demo status`.

use super::{plan::Node, record::Record, up::agent_name};
use crate::progress::answer;
use crate::{process::Process, table::table};

/// Prints nodes and containers; 1 if something does not answer.
pub(super) fn status() -> anyhow::Result<u8> {
    let record = Record::of_running()?;
    let mut whole = true;
    let mut mark = |good: bool| {
        whole &= good;
        if good { "✔ up" } else { "✖ down" }
    };
    let mut nodes = table(&["NODE", "CLUSTER", "ADDRESS", "AGENT"]);
    for node in &record.nodes {
        let agent = mark(agent_lives(&record, node));
        nodes.add_row([&node.name, &node.cluster, &record.address(node).to_string(), agent]);
    }
    let mut apps = table(&["CONTAINER", "APP", "NODE", "ADDRESS", "ANSWERS ITS NODE"]);
    for container in &record.containers {
        let instance = &container.instance;
        let answers = record.node(&instance.node).is_some_and(|node| container.answers(node, &record.binary));
        let address = container.address.to_string();
        apps.add_row([&instance.name, &instance.full_name(), &instance.node, &address, mark(answers)]);
    }
    let server = mark(record.process("server").is_some_and(Process::lives));
    answer(&format!("server http://{}   {server}\n", record.rest));
    answer(&nodes.trim_fmt());
    answer("");
    answer(&apps.trim_fmt());
    Ok(u8::from(!whole))
}

fn agent_lives(record: &Record, node: &Node) -> bool {
    record.process(&agent_name(node)).is_some_and(Process::lives)
}
