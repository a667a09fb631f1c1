//! `isthmus cluster`: installations of platforms.

use super::Session;
use crate::{
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::rest::{ClusterSpec, Draft, Resource};
use isthmus_core::Platform;

/// What can be done with clusters.
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Makes a cluster.
    #[command(
        after_help = "Examples:\n  isthmus cluster create red --platform kubernetes\n  isthmus cluster create blue --platform nomad --default closed --deny reject"
    )]
    Create {
        /// Its name.
        name: String,
        /// Kind of orchestrator: kubernetes, cloudfoundry, nomad, swarm, mesos or standalone.
        #[arg(long, value_parser = platform)]
        platform: Platform,
        /// Towards its apps, where no rule decides; else as the platform's users expect.
        #[arg(long, value_parser = ["open", "closed"])]
        default: Option<String>,
        /// How a denied packet is answered; else as the platform's users expect.
        #[arg(long, value_parser = ["drop", "reject"])]
        deny: Option<String>,
        /// Labels: k=v.
        #[arg(long, value_name = "K=V", value_parser = super::label)]
        label: Vec<(String, String)>,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists clusters.
    #[command(after_help = "Examples:\n  isthmus cluster list\n  isthmus cluster list -o json")]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only clusters with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
    },
    /// Shows one cluster.
    #[command(after_help = "Examples:\n  isthmus cluster show red\n  isthmus cluster show red -o json")]
    Show {
        /// Its name.
        name: String,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Deletes a cluster that nothing uses.
    #[command(after_help = "Examples:\n  isthmus cluster delete red\n  isthmus cluster delete red --dry-run")]
    Delete {
        /// Its name.
        name: String,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

fn platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|why: isthmus_core::PlatformError| why.to_string())
}

/// Does what is said.
pub async fn run(command: ClusterCommand, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    match command {
        ClusterCommand::Create { name, platform, default, deny, label, dry_run } => {
            let spec = ClusterSpec { platform: platform.to_string(), default, deny };
            let draft = Draft { name: name.clone(), labels: label.into_iter().collect(), spec };
            let made: Resource<ClusterSpec> = server.create("clusters", &draft, dry_run).await?;
            writeln!(session.out, "{}", made.name)?;
            session.created("cluster", &name, made.revision, dry_run);
        }
        ClusterCommand::List { output, selector } => {
            let selector = Selector::parse(&selector)?;
            view().list(&mut *session.out, &output, server.selected("clusters", &selector).await?)?;
        }
        ClusterCommand::Show { name, output } => {
            view().show(&mut *session.out, &output, server.one("clusters", &name).await?)?;
        }
        ClusterCommand::Delete { name, dry_run } => {
            let cluster: Resource<ClusterSpec> = server.one("clusters", &name).await?;
            server.delete("clusters", &name, dry_run).await?;
            session.deleted("cluster", &name, &undo(&cluster), dry_run);
        }
    }
    Ok(Exit::Yes)
}

fn undo(cluster: &Resource<ClusterSpec>) -> String {
    let flag = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(" --{name} {value}")).unwrap_or_default()
    };
    let spec = &cluster.spec;
    format!(
        "isthmus cluster create {} --platform {}{}{}",
        cluster.name,
        spec.platform,
        flag("default", &spec.default),
        flag("deny", &spec.deny)
    )
}

/// What the cluster's users get where the cluster itself says nothing.
fn in_force(said: Option<&String>, platform: &str, of: fn(Platform) -> &'static str) -> String {
    let expected = || platform.parse().ok().map(of).unwrap_or_default().to_owned();
    said.cloned().unwrap_or_else(expected)
}

fn default_word(platform: Platform) -> &'static str {
    match platform.default_verdict() {
        isthmus_core::DefaultVerdict::Open => "open",
        isthmus_core::DefaultVerdict::Closed => "closed",
    }
}

fn deny_word(platform: Platform) -> &'static str {
    match platform.deny_answer() {
        isthmus_core::DenyAnswer::Drop => "drop",
        isthmus_core::DenyAnswer::Reject => "reject",
    }
}

fn view() -> View<Resource<ClusterSpec>> {
    View {
        columns: vec![
            Column::new("CLUSTER", |row: &Resource<ClusterSpec>| row.name.clone()),
            Column::new("PLATFORM", |row| row.spec.platform.clone()),
            Column::new("DEFAULT", |row| {
                in_force(row.spec.default.as_ref(), &row.spec.platform, default_word)
            }),
            Column::new("DENY", |row| in_force(row.spec.deny.as_ref(), &row.spec.platform, deny_word)),
            Column::wide("UUID", |row| row.uuid.to_string()),
            Column::wide("LABELS", |row| super::labels(&row.labels)),
            Column::wide("REVISION", |row| row.revision.to_string()),
        ],
        name: |row| row.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_leaves_open_is_as_its_platform_expects() {
        assert_eq!(in_force(None, "cloudfoundry", default_word), "closed");
        assert_eq!(in_force(None, "nomad", default_word), "open");
        assert_eq!(in_force(None, "cloudfoundry", deny_word), "reject");
        assert_eq!(in_force(Some(&"open".to_owned()), "cloudfoundry", default_word), "open");
    }
}
