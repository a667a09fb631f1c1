//! `isthmus status`: is the network well?

use super::Session;
use crate::{
    api::{AGENT_SOCKET, Agent},
    failure::{Exit, Failure},
    output::{Column, Format, OutputArgs, View, clean, pretty},
    terminal::Tone,
};
use isthmus_api::{
    local::AgentStatus,
    rest::{ClusterStatus, NetworkStatus},
};
use std::path::PathBuf;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isthmus status\n  isthmus status --agent -o json\n\n\
    Exit status 1: something is degraded.")]
pub struct StatusArgs {
    /// Form of the output.
    #[command(flatten)]
    output: OutputArgs,
    /// Asks the agent of this node instead of the server.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = AGENT_SOCKET)]
    agent: Option<PathBuf>,
}

/// Shows whether the network, or this node, is well.
pub async fn run(args: StatusArgs, session: &mut Session) -> Result<Exit, Failure> {
    match &args.agent {
        Some(socket) => node(Agent::new(socket)?, &args, session).await,
        None => network(&args, session).await,
    }
}

async fn network(args: &StatusArgs, session: &mut Session) -> Result<Exit, Failure> {
    let status: NetworkStatus = session.server()?.get("status").await?;
    let well = status.problems.is_empty() && status.clusters.iter().all(|cluster| cluster.state == "ok");
    let exit = if well { Exit::Yes } else { Exit::No };
    if args.output.output == Format::Json {
        writeln!(session.out, "{}", pretty(&status))?;
        return Ok(exit);
    }
    let table = matches!(args.output.output, Format::Table | Format::Wide);
    if table && !args.output.no_headers {
        writeln!(session.out, "isthmus {}   revision {}", status.version, status.revision)?;
    }
    view().list(&mut *session.out, &args.output, status.clusters)?;
    if table {
        for problem in status.problems {
            let mark = session.terminal.paint(Tone::Doubtful, "!");
            let arrow = session.terminal.arrow();
            let help =
                if problem.help.is_empty() { String::new() } else { format!("   {arrow} {}", problem.help) };
            writeln!(session.out, "{mark} {}: {}{help}", clean(&problem.place), clean(&problem.text))?;
        }
    }
    Ok(exit)
}

fn view() -> View<ClusterStatus> {
    View {
        columns: vec![
            Column::new("PLATFORM", |row: &ClusterStatus| row.platform.clone()),
            Column::new("CLUSTER", |row| row.cluster.clone()),
            Column::new("NODES", |row| format!("{}/{}", row.nodes_connected, row.nodes)),
            Column::new("APPS", |row| row.apps.to_string()),
            Column::new("ENDPOINTS", |row| row.endpoints.to_string()),
            Column::new("REVISION", revisions),
            Column::new("STATE", |row| row.state.clone()),
        ],
        name: |row| row.cluster.clone(),
    }
}

fn revisions(row: &ClusterStatus) -> String {
    if row.revision_lowest == row.revision_highest {
        row.revision_highest.to_string()
    } else {
        format!("{}..{}", row.revision_lowest, row.revision_highest)
    }
}

async fn node(agent: Agent, args: &StatusArgs, session: &mut Session) -> Result<Exit, Failure> {
    let status: AgentStatus = agent.get("/status").await?;
    let exit = if status.problems.is_empty() && status.connected { Exit::Yes } else { Exit::No };
    let (problems, foreign) = (status.problems.clone(), status.foreign_programs.clone());
    node_view().show(&mut *session.out, &args.output, status)?;
    if matches!(args.output.output, Format::Table | Format::Wide) {
        let mark = session.terminal.paint(Tone::Doubtful, "!");
        for text in problems {
            writeln!(session.out, "{mark} {}", clean(&text))?;
        }
        for text in foreign {
            writeln!(session.out, "{mark} a program of somebody else is on our hook: {text}")?;
        }
    }
    Ok(exit)
}

fn node_view() -> View<AgentStatus> {
    View {
        columns: vec![
            Column::new("NODE", |row: &AgentStatus| row.node.clone()),
            Column::new("VERSION", |row| row.version.clone()),
            Column::new("SERVER", |row| if row.connected { "connected" } else { "away" }.to_owned()),
            Column::new("REVISION", |row| row.revision.to_string()),
            Column::new("ENDPOINTS", |row| row.endpoints.to_string()),
            Column::new("CONNECTIONS", |row| row.connections.to_string()),
            Column::new("RULES", |row| row.rules.to_string()),
            Column::new("HOOK", |row| row.attach_mode.clone()),
            Column::new("UPTIME", |row| super::node::span(row.uptime_s)),
        ],
        name: |row| row.node.clone(),
    }
}
