//! `isthmus bgp peer`: BGP neighbours of the nodes, which the server tells their agents.

mod set;

use super::super::{Session, text};
use crate::{
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::rest::{BgpPeerSpec, Draft, PrefixMatch, Resource, Secret};
use std::{
    fs::File,
    io::{Read, stdin},
    path::{Path, PathBuf},
};

const KIND: &str = "bgp/peers";
/// Bytes read of a password file. A longer one is no password, and the server says so.
const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;

/// What can be done with neighbours.
#[derive(Debug, clap::Subcommand)]
pub enum PeerCommand {
    /// Lists neighbours.
    #[command(after_help = "Examples:\n  isthmus bgp peer list\n  isthmus bgp peer list -o json")]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only neighbours with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
    },
    /// Shows one neighbour.
    #[command(after_help = "Examples:\n  isthmus bgp peer show tor-a\n  isthmus bgp peer show tor-a -o json")]
    Show {
        /// Its name.
        name: String,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Makes a neighbour of the nodes that are picked.
    Create(Box<CreateArgs>),
    /// Changes a neighbour; what is not given stays as it is.
    Set(Box<set::SetArgs>),
    /// Deletes a neighbour: its sessions end.
    #[command(
        after_help = "Examples:\n  isthmus bgp peer delete tor-a\n  isthmus bgp peer delete tor-a --dry-run"
    )]
    Delete {
        /// Its name.
        name: String,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `bgp peer create`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp peer create tor-a --address 192.0.2.1 --as 65000 --node-label rack=a --import 10.0.0.0/8=8..24\n  isthmus bgp peer create tor-b --address 192.0.2.2 --as 65000 --ttl-security --password-file /etc/isthmus/tor-b\n  isthmus bgp peer create dcos --address 172.16.18.0/24 --as 64511 --cluster red --import 192.168.128.0/17=26\n\n\
    Nothing is accepted but what --import lists, and only our blocks and what --export lists are announced.\n\
    A list of prefixes: 10.0.0.0/8 is that prefix alone, 10.0.0.0/8=24 all /24 in it, 10.0.0.0/8=16..24 also shorter ones."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, as people write them")]
pub struct CreateArgs {
    /// Its name.
    name: String,
    /// Its address; or a CIDR: whoever connects from there is a neighbour.
    #[arg(long, value_name = "ADDRESS")]
    address: String,
    /// Its AS number; any if absent.
    #[arg(long = "as", value_name = "AS")]
    asn: Option<isthmus_core::Asn>,
    /// Only of nodes of this cluster.
    #[arg(long)]
    cluster: Option<String>,
    /// Only of nodes with these names.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    nodes: Vec<String>,
    /// Only of nodes with these labels: k=v.
    #[arg(long, value_name = "K=V", value_parser = super::super::label)]
    node_label: Vec<(String, String)>,
    /// File with the password for TCP MD5; - is standard input. The end of the line does not count.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Hold time.
    #[arg(long, value_name = "SECONDS")]
    hold: Option<u32>,
    /// Waits for the neighbour to connect.
    #[arg(long)]
    passive: bool,
    /// The neighbour may be up to so many hops away.
    #[arg(long, value_name = "TTL")]
    multihop: Option<u32>,
    /// Packets must arrive with TTL 255 (RFC 5082).
    #[arg(long)]
    ttl_security: bool,
    /// Watches the neighbour with BFD.
    #[arg(long)]
    bfd: bool,
    /// How long routes are kept over a restart; 0 is not at all, 120 if absent.
    #[arg(long, value_name = "SECONDS")]
    restart: Option<u32>,
    /// Gets reflected routes.
    #[arg(long)]
    reflector_client: bool,
    /// Prefixes that are accepted: CIDR, CIDR=LEN or CIDR=MIN..MAX.
    #[arg(long, value_name = "PREFIXES", value_parser = prefix)]
    import: Vec<PrefixMatch>,
    /// Also accepts routes into our own pools.
    #[arg(long)]
    import_own_pools: bool,
    /// Also accepts a default route.
    #[arg(long)]
    import_default_route: bool,
    /// Prefixes that are announced besides our blocks.
    #[arg(long, value_name = "PREFIXES", value_parser = prefix)]
    export: Vec<PrefixMatch>,
    /// Does not announce our blocks.
    #[arg(long)]
    no_export_blocks: bool,
    /// Communities added to what is announced: a:b.
    #[arg(long, value_name = "A:B")]
    community: Vec<String>,
    /// Prefixes from the neighbour at most; 10,000 if absent.
    #[arg(long, value_name = "COUNT")]
    prefixes_max: Option<u32>,
    /// Families; that of the address if absent.
    #[arg(long, value_parser = ["ipv4-unicast", "ipv6-unicast"])]
    family: Vec<String>,
    /// `LOCAL_PREF` given to what is accepted.
    #[arg(long, value_name = "PREFERENCE")]
    local_pref: Option<u32>,
    /// TCP port; 179 if absent.
    #[arg(long)]
    port: Option<u32>,
    /// Labels: k=v.
    #[arg(long, value_name = "K=V", value_parser = super::super::label)]
    label: Vec<(String, String)>,
    /// Only says what would happen.
    #[arg(long)]
    dry_run: bool,
}

/// Does what is said.
pub(super) async fn run(command: PeerCommand, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    match command {
        PeerCommand::Set(args) => return set::run(*args, session).await,
        PeerCommand::List { output, selector } => {
            let selector = Selector::parse(&selector)?;
            view().list(&mut *session.out, &output, server.selected(KIND, &selector).await?)?;
        }
        PeerCommand::Show { name, output } => {
            view().show(&mut *session.out, &output, server.one(KIND, &name).await?)?;
        }
        PeerCommand::Create(args) => {
            let dry_run = args.dry_run;
            let draft = draft(*args)?;
            let made: Resource<BgpPeerSpec> = server.create(KIND, &draft, dry_run).await?;
            writeln!(session.out, "{}", made.name)?;
            session.created("bgp peer", &made.name, made.revision, dry_run);
        }
        PeerCommand::Delete { name, dry_run } => {
            let peer: Resource<BgpPeerSpec> = server.one(KIND, &name).await?;
            server.delete(KIND, &name, dry_run).await?;
            session.deleted("bgp peer", &name, &undo(&peer), dry_run);
        }
    }
    Ok(Exit::Yes)
}

fn draft(args: CreateArgs) -> Result<Draft<BgpPeerSpec>, Failure> {
    let password = args.password_file.as_deref().map(password).transpose()?;
    let spec = BgpPeerSpec {
        address: args.address,
        asn: args.asn.map(isthmus_core::Asn::number),
        cluster: args.cluster,
        nodes: args.nodes,
        node_labels: args.node_label.into_iter().collect(),
        password_set: password.is_some(),
        password,
        hold_seconds: args.hold,
        passive: args.passive,
        multihop_ttl: args.multihop,
        ttl_security: args.ttl_security,
        bfd: args.bfd,
        restart_seconds: args.restart,
        reflector_client: args.reflector_client,
        import: args.import,
        import_own_pools: args.import_own_pools,
        import_default_route: args.import_default_route,
        export: args.export,
        export_blocks: args.no_export_blocks.then_some(false),
        communities: args.community,
        prefixes_max: args.prefixes_max,
        families: args.family,
        local_pref: args.local_pref,
        port: args.port,
    };
    Ok(Draft { name: args.name, labels: args.label.into_iter().collect(), spec })
}

/// Reads a password: never from the command line, which other users and the shell's history see.
fn password(file: &Path) -> Result<Secret, Failure> {
    let mut password = String::new();
    let read = if file == Path::new("-") {
        stdin().lock().take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut password)
    } else {
        File::open(file).and_then(|file| file.take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut password))
    };
    read.map_err(|why| {
        let text = format!("the password file {} cannot be read: {why}", file.display());
        Failure::usage(text, "name a file that has the password, or - for standard input")
    })?;
    password.truncate(password.trim_end_matches(['\r', '\n']).len());
    Ok(Secret(password))
}

/// Reads `CIDR`, `CIDR=LEN` or `CIDR=MIN..MAX`. What the CIDR may be the server says.
fn prefix(text: &str) -> Result<PrefixMatch, String> {
    let Some((cidr, lengths)) = text.split_once('=') else {
        return Ok(PrefixMatch { cidr: text.to_owned(), len_min: None, len_max: None });
    };
    let (min, max) = lengths.split_once("..").unwrap_or((lengths, lengths));
    let length = |text: &str| {
        text.parse().map_err(|_why| {
            format!("\"{lengths}\" is no length: write {cidr}=24, or {cidr}=16..24 for a range of them")
        })
    };
    Ok(PrefixMatch { cidr: cidr.to_owned(), len_min: Some(length(min)?), len_max: Some(length(max)?) })
}

fn prefix_text(prefix: &PrefixMatch) -> String {
    match (prefix.len_min, prefix.len_max) {
        (Some(min), Some(max)) if prefix.cidr.ends_with(&format!("/{min}")) && min == max => {
            prefix.cidr.clone()
        }
        (Some(min), Some(max)) if min == max => format!("{}={min}", prefix.cidr),
        (Some(min), Some(max)) => format!("{}={min}..{max}", prefix.cidr),
        _ => prefix.cidr.clone(),
    }
}

/// The command that makes a neighbour again. The password is nowhere but in its file.
fn undo(peer: &Resource<BgpPeerSpec>) -> String {
    let spec = &peer.spec;
    let mut line = format!("isthmus bgp peer create {} --address {}", peer.name, spec.address);
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.extend([" --", name, " ", &value]);
        }
    };
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    flag("as", number(spec.asn));
    flag("cluster", spec.cluster.clone());
    flag("nodes", (!spec.nodes.is_empty()).then(|| spec.nodes.join(",")));
    for (key, value) in &spec.node_labels {
        flag("node-label", Some(format!("{key}={value}")));
    }
    flag("password-file", spec.password_set.then(|| "FILE".to_owned()));
    flag("hold", number(spec.hold_seconds));
    flag("multihop", number(spec.multihop_ttl));
    flag("restart", number(spec.restart_seconds.filter(|seconds| *seconds != 120)));
    for prefix in &spec.import {
        flag("import", Some(prefix_text(prefix)));
    }
    for prefix in &spec.export {
        flag("export", Some(prefix_text(prefix)));
    }
    for community in &spec.communities {
        flag("community", Some(community.clone()));
    }
    flag("prefixes-max", number(spec.prefixes_max.filter(|count| *count != 10_000)));
    for family in &spec.families {
        flag("family", Some(family.clone()));
    }
    flag("local-pref", number(spec.local_pref));
    flag("port", number(spec.port));
    for (key, value) in &peer.labels {
        flag("label", Some(format!("{key}={value}")));
    }
    for (set, name) in switches(spec) {
        if set {
            line.extend([" --", name]);
        }
    }
    line
}

fn switches(spec: &BgpPeerSpec) -> [(bool, &'static str); 7] {
    [
        (spec.passive && !spec.address.contains('/'), "passive"),
        (spec.ttl_security, "ttl-security"),
        (spec.bfd, "bfd"),
        (spec.reflector_client, "reflector-client"),
        (spec.import_own_pools, "import-own-pools"),
        (spec.import_default_route, "import-default-route"),
        (spec.export_blocks == Some(false), "no-export-blocks"),
    ]
}

/// Which nodes it is a neighbour of, on one line.
fn nodes(spec: &BgpPeerSpec) -> String {
    let mut parts: Vec<String> = spec.cluster.iter().map(|cluster| format!("cluster {cluster}")).collect();
    parts.extend(spec.nodes.iter().cloned());
    parts.extend(spec.node_labels.iter().map(|(key, value)| format!("{key}={value}")));
    if parts.is_empty() { "all".to_owned() } else { parts.join(",") }
}

fn list(prefixes: &[PrefixMatch]) -> String {
    prefixes.iter().map(prefix_text).collect::<Vec<_>>().join(",")
}

fn view() -> View<Resource<BgpPeerSpec>> {
    View {
        columns: vec![
            Column::new("PEER", |row: &Resource<BgpPeerSpec>| row.name.clone()),
            Column::new("ADDRESS", |row| row.spec.address.clone()),
            Column::new("AS", |row| row.spec.asn.map_or_else(|| "any".to_owned(), |asn| asn.to_string())),
            Column::new("NODES", |row| nodes(&row.spec)),
            Column::new("IMPORT", |row| list(&row.spec.import)),
            Column::new("EXPORT", |row| {
                let blocks = (row.spec.export_blocks != Some(false)).then(|| "blocks".to_owned());
                blocks
                    .into_iter()
                    .chain(row.spec.export.iter().map(prefix_text))
                    .collect::<Vec<_>>()
                    .join(",")
            }),
            Column::wide("SET", |row| {
                let set = switches(&row.spec).into_iter().filter(|(set, _)| *set).map(|(_, name)| name);
                set.chain(row.spec.password_set.then_some("password")).collect::<Vec<_>>().join(",")
            }),
            Column::wide("HOLD", |row| text(row.spec.hold_seconds.as_ref())),
            Column::wide("RESTART", |row| text(row.spec.restart_seconds.as_ref())),
            Column::wide("PREFIXES-MAX", |row| text(row.spec.prefixes_max.as_ref())),
            Column::wide("UUID", |row| row.uuid.to_string()),
            Column::wide("LABELS", |row| super::super::labels(&row.labels)),
            Column::wide("REVISION", |row| row.revision.to_string()),
        ],
        name: |row| row.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_they_are_written() {
        for text in ["10.0.0.0/8=24", "10.0.0.0/8=16..24", "fd00::/8=64"] {
            assert_eq!(prefix_text(&prefix(text).unwrap()), text);
        }
        assert_eq!(prefix_text(&prefix("10.0.0.0/8=8").unwrap()), "10.0.0.0/8");
        assert_eq!(prefix("10.0.0.0/8").unwrap().len_min, None);
        assert!(prefix("10.0.0.0/8=x").unwrap_err().contains("10.0.0.0/8=16..24"));
    }
}
