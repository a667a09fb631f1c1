//! `isthmus node`: hosts.

use super::{Change, MaybeAsn, Session, text};
use crate::{
    api::escape,
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::rest::{Draft, NodeSettings, NodeSpec, Resource};
use std::time::{SystemTime, UNIX_EPOCH};

/// What can be done with nodes.
#[derive(Debug, clap::Subcommand)]
pub enum NodeCommand {
    /// Lists nodes.
    #[command(after_help = "Examples:\n  isthmus node list\n  isthmus node list -o wide --sort endpoints")]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only nodes with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
    },
    /// Shows one node.
    #[command(after_help = "Examples:\n  isthmus node show diego-13\n  isthmus node show diego-13 -o json")]
    Show {
        /// Name of the node.
        name: String,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Sets labels of a node, and how it speaks BGP.
    #[command(
        after_help = "Examples:\n  isthmus node set diego-13 --label rack=a\n  isthmus node set diego-13 --as 64601\n  isthmus node set diego-1 --reflector 10.0.0.1\n  isthmus node set diego-1 --reflector none --unlabel rack\n\n\
        Where an AS has reflectors, its other nodes have no neighbours but them."
    )]
    Set {
        /// Name of the node.
        name: String,
        /// Its own AS number, where it is another than its cluster's; none takes it away.
        #[arg(long = "as", value_name = "AS")]
        asn: Option<MaybeAsn>,
        /// Makes it a route reflector with this cluster id, a dotted quad; none ends that.
        #[arg(long, value_name = "CLUSTER-ID")]
        reflector: Option<String>,
        /// Labels to set: k=v.
        #[arg(long, value_name = "K=V", value_parser = super::label)]
        label: Vec<(String, String)>,
        /// Labels to take away.
        #[arg(long, value_name = "K")]
        unlabel: Vec<String>,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Forgets a node that is gone for good: frees its blocks and endpoints.
    #[command(
        after_help = "Examples:\n  isthmus node delete diego-13\n  isthmus node delete diego-13 --dry-run\n\n\
        A node whose agent is connected is refused: stop the agent first."
    )]
    Delete {
        /// Name of the node.
        name: String,
        /// Asks nothing.
        #[arg(long)]
        yes: bool,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Removes everything that Isthmus has put on this host: links, programs, tables, files.
    Cleanup(super::daemon::CleanupArgs),
}

/// Does what is said.
pub async fn run(command: NodeCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        NodeCommand::List { output, selector } => {
            let selector = Selector::parse(&selector)?;
            let nodes = session.server()?.selected::<NodeSpec>("nodes", &selector).await?;
            view().list(&mut *session.out, &output, nodes)?;
        }
        NodeCommand::Show { name, output } => {
            let node = session.server()?.one::<NodeSpec>("nodes", &name).await?;
            view().show(&mut *session.out, &output, node)?;
        }
        NodeCommand::Set { name, asn, reflector, label, unlabel, dry_run } => {
            let server = session.server()?;
            let held = server.one::<NodeSpec>("nodes", &name).await?;
            let mut labels = held.labels.clone();
            labels.retain(|key, _| !unlabel.contains(key));
            labels.extend(label);
            let spec = NodeSettings {
                asn: asn.map_or(held.spec.asn, |asn| asn.0),
                reflector: reflector.or_else(|| held.spec.reflector.clone()).filter(|id| id != "none"),
            };
            let changes = [
                Change::new("AS", text(held.spec.asn.as_ref()), text(spec.asn.as_ref())),
                Change::new("reflector", text(held.spec.reflector.as_ref()), text(spec.reflector.as_ref())),
                Change::new("labels", super::labels(&held.labels), super::labels(&labels)),
            ];
            let undo = undo(&held, &labels);
            let draft = Draft { name: name.clone(), labels, spec };
            let path = format!("nodes/{}", escape(&name));
            let _made: serde_json::Value = server.replace(&path, &draft, held.revision, dry_run).await?;
            session.set(&format!("node {name}"), &changes, &undo, dry_run);
        }
        NodeCommand::Delete { name, yes, dry_run } => {
            let server = session.server()?;
            let node = server.one::<NodeSpec>("nodes", &name).await?;
            if !dry_run {
                session
                    .confirm(&format!("Forget node {name} and its {} endpoints", node.spec.endpoints), yes)?;
            }
            server.delete("nodes", &name, dry_run).await?;
            let text = if dry_run { "could be deleted; nothing was changed" } else { "deleted" };
            session.done(&format!("node {name} {text}"), if dry_run { "" } else { "start its agent again" });
        }
        NodeCommand::Cleanup(args) => return super::daemon::cleanup(&args, session),
    }
    Ok(Exit::Yes)
}

fn undo(held: &Resource<NodeSpec>, labels: &std::collections::BTreeMap<String, String>) -> String {
    let none = || "none".to_owned();
    let mut line = format!(
        "isthmus node set {} --as {} --reflector {}",
        held.name,
        held.spec.asn.map_or_else(none, |asn| asn.to_string()),
        held.spec.reflector.clone().unwrap_or_else(none)
    );
    for (key, value) in held.labels.iter().filter(|(key, value)| labels.get(*key) != Some(*value)) {
        line.extend([" --label ", key, "=", value]);
    }
    for key in labels.keys().filter(|key| !held.labels.contains_key(*key)) {
        line.extend([" --unlabel ", key]);
    }
    line
}

fn view() -> View<Resource<NodeSpec>> {
    View {
        columns: vec![
            Column::new("NODE", |row: &Resource<NodeSpec>| row.name.clone()),
            Column::new("STATE", |row| state(&row.spec)),
            Column::new("ADDRESS", |row| {
                row.spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }),
            Column::new("CLUSTERS", |row| row.spec.clusters.join(",")),
            Column::new("ENDPOINTS", |row| row.spec.endpoints.to_string()),
            Column::new("REVISION", |row| row.spec.revision_in_force.to_string()),
            Column::new("AGENT", |row| row.spec.agent_version.clone()),
            Column::wide("NUMBER", |row| row.spec.number.to_string()),
            Column::wide("PORT", |row| row.spec.vxlan_port.to_string()),
            Column::wide("MTU", |row| row.spec.mtu.to_string()),
            Column::wide("AS", |row| text(row.spec.asn.as_ref())),
            Column::wide("REFLECTOR", |row| text(row.spec.reflector.as_ref())),
            Column::wide("LABELS", |row| super::labels(&row.labels)),
            Column::wide("UUID", |row| row.uuid.to_string()),
            Column::wide("PROBLEM", |row| row.spec.problem.clone().unwrap_or_default()),
        ],
        name: |row| row.name.clone(),
    }
}

fn state(node: &NodeSpec) -> String {
    if node.connected {
        return if node.problem.is_some() { "degraded" } else { "ok" }.to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|now| now.as_secs()).unwrap_or_default();
    format!("silent {}", span(now.saturating_sub(node.last_seen_unix)))
}

/// A length of time in its two largest units.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_two_units() {
        for (seconds, text) in [(9, "9s"), (192, "3m12s"), (3_660, "1h01m"), (273_600, "3d04h")] {
            assert_eq!(span(seconds), text);
        }
    }
}
