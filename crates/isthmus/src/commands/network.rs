//! `isthmus network`: how packets travel between nodes.

use super::{Change, Session, text};
use crate::{
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
};
use isthmus_api::rest::{Draft, NetworkSpec, Resource};

/// What can be done with the network's setting.
#[derive(Debug, clap::Subcommand)]
pub enum NetworkCommand {
    /// Shows how packets travel between nodes.
    #[command(after_help = "Examples:\n  isthmus network show\n  isthmus network show -o json")]
    Show {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Sets how packets travel between nodes, on all of them at once.
    #[command(
        after_help = "Examples:\n  isthmus network set --encapsulation never --source-check loose\n  isthmus network set --encapsulation always\n\n\
        Without encapsulation the network between the nodes must route the containers' addresses, for example by BGP."
    )]
    Set {
        /// Between which nodes packets go in a tunnel.
        #[arg(long, value_parser = ["always", "cross-subnet", "never"], required_unless_present = "source_check")]
        encapsulation: Option<String>,
        /// By which interface a packet without encapsulation may come in.
        #[arg(long, value_parser = ["strict", "loose"])]
        source_check: Option<String>,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Does what is said.
pub async fn run(command: NetworkCommand, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    let held: Resource<NetworkSpec> = server.get("network").await?;
    match command {
        NetworkCommand::Show { output } => view().show(&mut *session.out, &output, held)?,
        NetworkCommand::Set { encapsulation, source_check, dry_run } => {
            let spec = NetworkSpec {
                encapsulation: encapsulation.or_else(|| held.spec.encapsulation.clone()),
                source_check: source_check.or_else(|| held.spec.source_check.clone()),
            };
            let draft = Draft { name: held.name.clone(), labels: held.labels.clone(), spec };
            let made: Resource<NetworkSpec> =
                server.replace("network", &draft, held.revision, dry_run).await?;
            let of = |what, of: fn(&NetworkSpec) -> Option<&String>| {
                Change::new(what, text(of(&held.spec)), text(of(&made.spec)))
            };
            let changes = [
                of("encapsulation", |spec| spec.encapsulation.as_ref()),
                of("source check", |spec| spec.source_check.as_ref()),
            ];
            session.set("network", &changes, &undo(&held.spec), dry_run);
        }
    }
    Ok(Exit::Yes)
}

fn undo(spec: &NetworkSpec) -> String {
    let flag = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(" --{name} {value}")).unwrap_or_default()
    };
    let (encapsulation, check) =
        (flag("encapsulation", &spec.encapsulation), flag("source-check", &spec.source_check));
    format!("isthmus network set{encapsulation}{check}")
}

fn view() -> View<Resource<NetworkSpec>> {
    View {
        columns: vec![
            Column::new("ENCAPSULATION", |row: &Resource<NetworkSpec>| text(row.spec.encapsulation.as_ref())),
            Column::new("SOURCE-CHECK", |row| text(row.spec.source_check.as_ref())),
            Column::new("REVISION", |row| row.revision.to_string()),
        ],
        name: |row| row.name.clone(),
    }
}
