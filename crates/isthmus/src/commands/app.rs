//! `isthmus app`: what users have deployed.

use super::Session;
use crate::{
    failure::{Exit, Failure},
    names,
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::rest::{Resource, WorkloadSpec};

/// What can be done with apps.
#[derive(Debug, clap::Subcommand)]
pub enum AppCommand {
    /// Lists apps.
    #[command(
        after_help = "Examples:\n  isthmus app list\n  isthmus app list -l tier=fe --cluster red -o name"
    )]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only apps with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
        /// Only apps of this cluster.
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Shows one app.
    #[command(after_help = "Examples:\n  isthmus app show web\n  isthmus app show cf:acme/prod/cart -o json")]
    Show {
        /// platform:group/app@cluster, a unique part of that, or a UUID.
        app: String,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Does what is said.
pub async fn run(command: AppCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        AppCommand::List { output, selector, cluster } => {
            let selector = Selector::parse(&selector)?;
            let mut apps = session.server()?.selected::<WorkloadSpec>("workloads", &selector).await?;
            apps.retain(|app| cluster.as_ref().is_none_or(|cluster| app.spec.cluster == *cluster));
            apps.sort_by(|a, b| a.spec.full_name.cmp(&b.spec.full_name));
            view().list(&mut *session.out, &output, apps)?;
        }
        AppCommand::Show { app, output } => {
            let apps = session.server()?.all::<WorkloadSpec>("workloads").await?;
            let app = names::resolve(&app, &apps)?.clone();
            view().show(&mut *session.out, &output, app)?;
        }
    }
    Ok(Exit::Yes)
}

fn view() -> View<Resource<WorkloadSpec>> {
    View {
        columns: vec![
            Column::new("APP", |row: &Resource<WorkloadSpec>| row.spec.full_name.clone()),
            Column::new("IDENTITY", |row| row.spec.identities.join(",")),
            Column::new("ENDPOINTS", |row| row.spec.endpoints.to_string()),
            Column::new("UUID", |row| row.uuid.to_string()),
            Column::wide("CLUSTER", |row| row.spec.cluster.clone()),
            Column::wide("ID", |row| row.spec.id.clone()),
            Column::wide("LABELS", |row| super::labels(&row.labels)),
            Column::wide("REVISION", |row| row.revision.to_string()),
        ],
        name: |row| row.spec.full_name.clone(),
    }
}
