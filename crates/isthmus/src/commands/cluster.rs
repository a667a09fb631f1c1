//! `isthmus cluster`: installations of platforms.

use super::{Change, MaybeAsn, Session, text};
use crate::{
    api::escape,
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
        after_help = "Examples:\n  isthmus cluster create red --platform kubernetes\n  isthmus cluster create blue --platform nomad --default closed --deny reject\n  isthmus cluster create red --platform kubernetes --as 64512\n  isthmus cluster create dcos --platform mesos --external"
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
        /// AS number of its nodes, which then speak BGP.
        #[arg(long = "as", value_name = "AS", value_parser = asn)]
        asn: Option<u32>,
        /// Which of its nodes are BGP neighbours by themselves; full-mesh if absent.
        #[arg(long, value_parser = ["full-mesh", "none"])]
        topology: Option<String>,
        /// Its nodes announce single containers too, not only their blocks.
        #[arg(long)]
        announce_endpoints: bool,
        /// Equal paths that its nodes use at once; as many as the kernel takes if absent.
        #[arg(long, value_name = "PATHS", value_parser = clap::value_parser!(u8).range(1..))]
        paths_max: Option<u8>,
        /// It has no agents of ours: its pools are ranges of another network.
        #[arg(long)]
        external: bool,
        /// Labels: k=v.
        #[arg(long, value_name = "K=V", value_parser = super::label)]
        label: Vec<(String, String)>,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Sets what happens where no rule decides, and how the nodes of a cluster speak BGP.
    #[command(
        after_help = "Examples:\n  isthmus cluster set red --default closed --deny reject\n  isthmus cluster set red --as 64512 --topology none\n  isthmus cluster set red --announce-endpoints yes --paths-max 4\n  isthmus cluster set red --as none"
    )]
    Set {
        /// Its name.
        name: String,
        /// What is set.
        #[command(flatten)]
        settings: Settings,
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

/// What can be set of a cluster. What is not given stays as it is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Settings {
    /// Towards its apps, where no rule decides.
    #[arg(long, value_parser = ["open", "closed"])]
    default: Option<String>,
    /// How a denied packet is answered.
    #[arg(long, value_parser = ["drop", "reject"])]
    deny: Option<String>,
    /// AS number of its nodes, which then speak BGP; none ends that.
    #[arg(long = "as", value_name = "AS")]
    asn: Option<MaybeAsn>,
    /// Which of its nodes are BGP neighbours by themselves.
    #[arg(long, value_parser = ["full-mesh", "none"])]
    topology: Option<String>,
    /// Whether its nodes announce single containers too, not only their blocks.
    #[arg(long, value_name = "YES-NO", value_parser = ["yes", "no"])]
    announce_endpoints: Option<String>,
    /// Equal paths that its nodes use at once; none: as many as the kernel takes.
    #[arg(long, value_name = "PATHS")]
    paths_max: Option<MaybePaths>,
}

/// A number of paths, or `none`: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MaybePaths(Option<u8>);

impl std::str::FromStr for MaybePaths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("none", _) => Ok(Self(None)),
            (_, Ok(paths)) if paths > 0 => Ok(Self(Some(paths))),
            _ => Err(format!("\"{text}\" is no number of paths: write 1 to 255, or none")),
        }
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|why: isthmus_core::PlatformError| why.to_string())
}

fn asn(text: &str) -> Result<u32, String> {
    text.parse().map(isthmus_core::Asn::number).map_err(|why: isthmus_core::AsnError| why.to_string())
}

/// Does what is said.
pub async fn run(command: ClusterCommand, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    match command {
        ClusterCommand::Create {
            name,
            platform,
            default,
            deny,
            asn,
            topology,
            announce_endpoints,
            paths_max,
            external,
            label,
            dry_run,
        } => {
            let platform = platform.to_string();
            let spec = ClusterSpec {
                platform,
                default,
                deny,
                asn,
                topology,
                announce_endpoints,
                paths_max,
                external,
            };
            let draft = Draft { name: name.clone(), labels: label.into_iter().collect(), spec };
            let made: Resource<ClusterSpec> = server.create("clusters", &draft, dry_run).await?;
            writeln!(session.out, "{}", made.name)?;
            session.created("cluster", &name, made.revision, dry_run);
        }
        ClusterCommand::Set { name, settings, dry_run } => set(&name, settings, dry_run, session).await?,
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

async fn set(name: &str, settings: Settings, dry_run: bool, session: &mut Session) -> Result<(), Failure> {
    let server = session.server()?;
    let held: Resource<ClusterSpec> = server.one("clusters", name).await?;
    let undo = undo_set(&held, &settings);
    // What is as the platform's users expect stays so, rather than becoming a wish of its own.
    let wish = |said: Option<String>, before: &Option<String>, of: fn(Platform) -> &'static str| {
        said.or_else(|| before.clone()).filter(|said| *said != in_force(None, &held.spec.platform, of))
    };
    let spec = ClusterSpec {
        default: wish(settings.default, &held.spec.default, default_word),
        deny: wish(settings.deny, &held.spec.deny, deny_word),
        asn: settings.asn.map_or(held.spec.asn, |asn| asn.0),
        topology: settings.topology.or_else(|| held.spec.topology.clone()),
        announce_endpoints: settings
            .announce_endpoints
            .map_or(held.spec.announce_endpoints, |said| said == "yes"),
        paths_max: settings.paths_max.map_or(held.spec.paths_max, |paths| paths.0),
        ..held.spec.clone()
    };
    let draft = Draft { name: name.to_owned(), labels: held.labels.clone(), spec };
    let path = format!("clusters/{}", escape(name));
    let made: Resource<ClusterSpec> = server.replace(&path, &draft, held.revision, dry_run).await?;
    let change = |what, of: fn(&ClusterSpec) -> String| Change::new(what, of(&held.spec), of(&made.spec));
    let changes = [
        change("default", |spec| text(spec.default.as_ref())),
        change("deny", |spec| text(spec.deny.as_ref())),
        change("AS", |spec| text(spec.asn.as_ref())),
        change("topology", |spec| text(spec.topology.as_ref())),
        change("announce endpoints", |spec| yes_no(spec.announce_endpoints).to_owned()),
        change("paths", |spec| text(spec.paths_max.as_ref())),
    ];
    session.set(&format!("cluster {name}"), &changes, &undo, dry_run);
    Ok(())
}

fn yes_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// The command that sets again what `settings` may change.
fn undo_set(cluster: &Resource<ClusterSpec>, settings: &Settings) -> String {
    let spec = &cluster.spec;
    let none = || "none".to_owned();
    let mut flags = vec![format!("isthmus cluster set {}", cluster.name)];
    let mut flag = |given: bool, name: &str, value: Option<String>| {
        flags.extend(value.filter(|_| given).map(|value| format!("--{name} {value}")));
    };
    // Without an AS there is no topology, so both come together.
    let bgp = settings.asn.is_some() || settings.topology.is_some();
    flag(settings.default.is_some(), "default", spec.default.clone());
    flag(settings.deny.is_some(), "deny", spec.deny.clone());
    flag(bgp, "as", Some(spec.asn.map_or_else(none, |asn| asn.to_string())));
    flag(bgp, "topology", spec.topology.clone());
    let announces = yes_no(spec.announce_endpoints).to_owned();
    flag(settings.announce_endpoints.is_some(), "announce-endpoints", Some(announces));
    let paths = spec.paths_max.map_or_else(none, |paths| paths.to_string());
    flag(settings.paths_max.is_some(), "paths-max", Some(paths));
    flags.join(" ")
}

fn undo(cluster: &Resource<ClusterSpec>) -> String {
    let flag = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(" --{name} {value}")).unwrap_or_default()
    };
    let spec = &cluster.spec;
    format!(
        "isthmus cluster create {} --platform {}{}{}{}{}{}{}{}",
        cluster.name,
        spec.platform,
        flag("default", &spec.default),
        flag("deny", &spec.deny),
        flag("as", &spec.asn.map(|asn| asn.to_string())),
        flag("topology", &spec.topology),
        if spec.announce_endpoints { " --announce-endpoints" } else { "" },
        flag("paths-max", &spec.paths_max.map(|paths| paths.to_string())),
        if spec.external { " --external" } else { "" }
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
            Column::wide("AS", |row| text(row.spec.asn.as_ref())),
            Column::wide("TOPOLOGY", |row| text(row.spec.topology.as_ref())),
            Column::wide("ENDPOINTS", |row| {
                if row.spec.announce_endpoints { "announced" } else { "" }.to_owned()
            }),
            Column::wide("PATHS", |row| text(row.spec.paths_max.as_ref())),
            Column::wide("EXTERNAL", |row| if row.spec.external { "yes" } else { "" }.to_owned()),
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
