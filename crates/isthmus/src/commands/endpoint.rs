//! `isthmus endpoint`: instances on the network.

use super::Session;
use crate::{
    api::{AGENT_SOCKET, Agent},
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::{
    local::LocalEndpoint,
    rest::{EndpointSpec, Resource},
};
use std::{net::IpAddr, path::PathBuf};

/// What can be done with endpoints.
#[derive(Debug, clap::Subcommand)]
pub enum EndpointCommand {
    /// Lists endpoints of all nodes, or those that an agent has.
    #[command(
        after_help = "Examples:\n  isthmus endpoint list --app cart -o wide\n  isthmus endpoint list --agent"
    )]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only endpoints with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
        /// Only endpoints of apps with this in their name.
        #[arg(long)]
        app: Option<String>,
        /// Only endpoints of this node.
        #[arg(long)]
        node: Option<String>,
        /// Asks the agent of this node instead of the server.
        #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = AGENT_SOCKET)]
        agent: Option<PathBuf>,
    },
}

/// Does what is said.
pub async fn run(command: EndpointCommand, session: &mut Session) -> Result<Exit, Failure> {
    let EndpointCommand::List { output, selector, app, node, agent } = command;
    let named = |name: &str| app.as_ref().is_none_or(|app| name.contains(app.as_str()));
    if let Some(socket) = agent {
        let mut endpoints: Vec<LocalEndpoint> = Agent::new(&socket)?.get("/endpoints").await?;
        endpoints.retain(|endpoint| named(&endpoint.workload));
        local_view().list(&mut *session.out, &output, endpoints)?;
        return Ok(Exit::Yes);
    }
    let selector = Selector::parse(&selector)?;
    let mut endpoints = session.server()?.selected::<EndpointSpec>("endpoints", &selector).await?;
    endpoints.retain(|endpoint| named(&endpoint.spec.workload_name));
    endpoints.retain(|endpoint| node.as_ref().is_none_or(|node| endpoint.spec.node == *node));
    view().list(&mut *session.out, &output, endpoints)?;
    Ok(Exit::Yes)
}

fn addresses(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn view() -> View<Resource<EndpointSpec>> {
    View {
        columns: vec![
            Column::new("ADDRESS", |row: &Resource<EndpointSpec>| addresses(&row.spec.addresses)),
            Column::new("APP", |row| row.spec.workload_name.clone()),
            Column::new("INSTANCE", |row| row.spec.instance.clone()),
            Column::new("IDENTITY", |row| row.spec.identity.clone()),
            Column::new("NODE", |row| row.spec.node.clone()),
            Column::wide("INTERFACE", |row| row.spec.host_interface.clone()),
            Column::wide("MAC", |row| row.spec.mac.clone()),
            Column::wide("CLUSTER", |row| row.spec.cluster.clone()),
            Column::wide("LABELS", |row| super::labels(&row.labels)),
            Column::wide("ENDPOINT", |row| row.name.clone()),
        ],
        name: |row| row.name.clone(),
    }
}

fn local_view() -> View<LocalEndpoint> {
    View {
        columns: vec![
            Column::new("ADDRESS", |row: &LocalEndpoint| addresses(&row.addresses)),
            Column::new("APP", |row| row.workload.clone()),
            Column::new("INSTANCE", |row| row.instance.clone()),
            Column::new("IDENTITY", |row| row.identity.clone()),
            Column::new("INTERFACE", |row| row.host_interface.clone()),
            Column::wide("ENDPOINT", |row| row.id.clone()),
        ],
        name: |row| row.id.clone(),
    }
}
