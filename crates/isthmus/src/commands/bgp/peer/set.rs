//! `isthmus bgp peer set`: changes a neighbour in its place, so that nodes see one change and sessions that need no new one
//! stay up.

use super::{KIND, list, password, prefix};
use crate::{
    api::escape,
    commands::{Change, Session, labels, text},
    failure::{Exit, Failure},
};
use isthmus_api::rest::{BgpPeerSpec, Draft, PrefixMatch, Resource};
use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

/// Arguments of `bgp peer set`. What is not given stays.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp peer set tor-a --hold 9 --bfd yes\n  isthmus bgp peer set tor-a --import 10.0.0.0/8=8..24,192.0.2.0/24 --prefixes-max 500\n  isthmus bgp peer set tor-a --no-password --dry-run\n\n\
    What is not given stays as it is. `none` takes a setting away; a list is replaced as a whole, with commas between."
)]
pub struct SetArgs {
    /// Its name.
    name: String,
    /// Its address; or a CIDR: whoever connects from there is a neighbour.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Its AS number; none is any.
    #[arg(long = "as", value_name = "AS")]
    asn: Option<crate::commands::MaybeAsn>,
    /// Only of nodes of this cluster.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only of nodes with these names.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    nodes: Vec<String>,
    /// Only of nodes with these labels: k=v.
    #[arg(long, value_delimiter = ',', value_name = "K=V")]
    node_label: Vec<String>,
    /// File with another password for TCP MD5; - is standard input.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Takes the password away.
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
    /// Hold time.
    #[arg(long, value_name = "SECONDS")]
    hold: Option<Maybe>,
    /// Waits for the neighbour to connect.
    #[arg(long, value_name = "YES|NO")]
    passive: Option<Switch>,
    /// The neighbour may be up to so many hops away.
    #[arg(long, value_name = "TTL")]
    multihop: Option<Maybe>,
    /// Packets must arrive with TTL 255 (RFC 5082).
    #[arg(long, value_name = "YES|NO")]
    ttl_security: Option<Switch>,
    /// Watches the neighbour with BFD.
    #[arg(long, value_name = "YES|NO")]
    bfd: Option<Switch>,
    /// How long routes are kept over a restart; 0 is not at all.
    #[arg(long, value_name = "SECONDS")]
    restart: Option<Maybe>,
    /// Gets reflected routes.
    #[arg(long, value_name = "YES|NO")]
    reflector_client: Option<Switch>,
    /// Prefixes that are accepted: CIDR, CIDR=LEN or CIDR=MIN..MAX.
    #[arg(long, value_delimiter = ',', value_name = "PREFIXES")]
    import: Vec<String>,
    /// Also accepts routes into our own pools.
    #[arg(long, value_name = "YES|NO")]
    import_own_pools: Option<Switch>,
    /// Also accepts a default route.
    #[arg(long, value_name = "YES|NO")]
    import_default_route: Option<Switch>,
    /// Prefixes that are announced besides our blocks.
    #[arg(long, value_delimiter = ',', value_name = "PREFIXES")]
    export: Vec<String>,
    /// Announces our blocks.
    #[arg(long, value_name = "YES|NO")]
    export_blocks: Option<Switch>,
    /// Communities added to what is announced: a:b.
    #[arg(long, value_delimiter = ',', value_name = "A:B")]
    community: Vec<String>,
    /// Prefixes from the neighbour at most.
    #[arg(long, value_name = "COUNT")]
    prefixes_max: Option<Maybe>,
    /// Families: ipv4-unicast, ipv6-unicast.
    #[arg(long, value_delimiter = ',', value_name = "FAMILIES")]
    family: Vec<String>,
    /// `LOCAL_PREF` given to what is accepted.
    #[arg(long, value_name = "PREFERENCE")]
    local_pref: Option<Maybe>,
    /// TCP port.
    #[arg(long, value_name = "PORT")]
    port: Option<Maybe>,
    /// Labels: k=v.
    #[arg(long, value_delimiter = ',', value_name = "K=V")]
    label: Vec<String>,
    /// Only says what would happen.
    #[arg(long)]
    dry_run: bool,
}

/// A number, or `none`, which takes one away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maybe(Option<u32>);

impl FromStr for Maybe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text
                .parse()
                .map(|number| Self(Some(number)))
                .map_err(|_why| "write a number, or none".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    Yes,
    No,
}

/// Changes a neighbour.
pub(super) async fn run(args: SetArgs, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    let held: Resource<BgpPeerSpec> = server.one(KIND, &args.name).await?;
    let draft = draft(&args, &held)?;
    let path = format!("{KIND}/{}", escape(&args.name));
    let made: Resource<BgpPeerSpec> = server.replace(&path, &draft, held.revision, args.dry_run).await?;
    // What a password was nobody says: only that there is another.
    let is_given = args.password_file.is_some();
    let mut changes: Vec<Change> =
        FIELDS.iter().map(|field| Change::new(field.flag, (field.of)(&held), (field.of)(&made))).collect();
    let word = |set: bool, is_new: bool| {
        if set && is_new {
            "another"
        } else if set {
            "set"
        } else {
            ""
        }
    };
    changes.push(Change::new(
        "password",
        word(held.spec.password_set, false),
        word(made.spec.password_set, is_given),
    ));
    session.set(&format!("bgp peer {}", args.name), &changes, &undo(&held, &made, is_given), args.dry_run);
    Ok(Exit::Yes)
}

fn draft(args: &SetArgs, held: &Resource<BgpPeerSpec>) -> Result<Draft<BgpPeerSpec>, Failure> {
    let before = &held.spec;
    let number = |said: Option<Maybe>, before: Option<u32>| said.map_or(before, |said| said.0);
    let flag = |said: Option<Switch>, before: bool| said.map_or(before, |said| said == Switch::Yes);
    let password = args.password_file.as_deref().map(password).transpose()?;
    let spec = BgpPeerSpec {
        address: args.address.clone().unwrap_or_else(|| before.address.clone()),
        asn: args.asn.map_or(before.asn, crate::commands::MaybeAsn::number),
        cluster: match args.cluster.as_deref() {
            None => before.cluster.clone(),
            Some("none") => None,
            Some(name) => Some(name.to_owned()),
        },
        nodes: names(&args.nodes, &before.nodes),
        node_labels: pairs(&args.node_label, &before.node_labels)?,
        password_set: password.is_some() || before.password_set && !args.no_password,
        password,
        hold_seconds: number(args.hold, before.hold_seconds),
        passive: flag(args.passive, before.passive),
        multihop_ttl: number(args.multihop, before.multihop_ttl),
        ttl_security: flag(args.ttl_security, before.ttl_security),
        bfd: flag(args.bfd, before.bfd),
        restart_seconds: number(args.restart, before.restart_seconds),
        reflector_client: flag(args.reflector_client, before.reflector_client),
        import: prefixes(&args.import, &before.import)?,
        import_own_pools: flag(args.import_own_pools, before.import_own_pools),
        import_default_route: flag(args.import_default_route, before.import_default_route),
        export: prefixes(&args.export, &before.export)?,
        export_blocks: match args.export_blocks {
            None => before.export_blocks,
            Some(Switch::Yes) => None,
            Some(Switch::No) => Some(false),
        },
        communities: names(&args.community, &before.communities),
        prefixes_max: number(args.prefixes_max, before.prefixes_max),
        families: names(&args.family, &before.families),
        local_pref: number(args.local_pref, before.local_pref),
        port: number(args.port, before.port),
    };
    Ok(Draft { name: held.name.clone(), labels: pairs(&args.label, &held.labels)?, spec })
}

/// A list that was said, in place of the one before.
fn names(said: &[String], before: &[String]) -> Vec<String> {
    match said {
        [] => before.to_vec(),
        [none] if none == "none" => Vec::new(),
        said => said.to_vec(),
    }
}

fn prefixes(said: &[String], before: &[PrefixMatch]) -> Result<Vec<PrefixMatch>, Failure> {
    match said {
        [] => Ok(before.to_vec()),
        [none] if none == "none" => Ok(Vec::new()),
        said => {
            let read = |text: &String| prefix(text).map_err(|why| Failure::usage(why, ""));
            said.iter().map(read).collect()
        }
    }
}

fn pairs(said: &[String], before: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Failure> {
    match said {
        [] => Ok(before.clone()),
        [none] if none == "none" => Ok(BTreeMap::new()),
        said => {
            let read =
                |text: &String| crate::commands::label(text).map_err(|why| Failure::usage(why, "write k=v"));
            said.iter().map(read).collect()
        }
    }
}

/// A setting, as it is said and shown; empty: there is none.
struct Field {
    flag: &'static str,
    of: fn(&Resource<BgpPeerSpec>) -> String,
}

fn yes(set: bool) -> String {
    if set { "yes" } else { "no" }.to_owned()
}

const FIELDS: [Field; 23] = [
    Field { flag: "address", of: |peer| peer.spec.address.clone() },
    Field { flag: "as", of: |peer| text(peer.spec.asn.as_ref()) },
    Field { flag: "cluster", of: |peer| text(peer.spec.cluster.as_ref()) },
    Field { flag: "nodes", of: |peer| peer.spec.nodes.join(",") },
    Field { flag: "node-label", of: |peer| labels(&peer.spec.node_labels) },
    Field { flag: "hold", of: |peer| text(peer.spec.hold_seconds.as_ref()) },
    Field { flag: "passive", of: |peer| yes(peer.spec.passive) },
    Field { flag: "multihop", of: |peer| text(peer.spec.multihop_ttl.as_ref()) },
    Field { flag: "ttl-security", of: |peer| yes(peer.spec.ttl_security) },
    Field { flag: "bfd", of: |peer| yes(peer.spec.bfd) },
    Field { flag: "restart", of: |peer| text(peer.spec.restart_seconds.as_ref()) },
    Field { flag: "reflector-client", of: |peer| yes(peer.spec.reflector_client) },
    Field { flag: "import", of: |peer| list(&peer.spec.import) },
    Field { flag: "import-own-pools", of: |peer| yes(peer.spec.import_own_pools) },
    Field { flag: "import-default-route", of: |peer| yes(peer.spec.import_default_route) },
    Field { flag: "export", of: |peer| list(&peer.spec.export) },
    Field { flag: "export-blocks", of: |peer| yes(peer.spec.export_blocks != Some(false)) },
    Field { flag: "community", of: |peer| peer.spec.communities.join(",") },
    Field { flag: "prefixes-max", of: |peer| text(peer.spec.prefixes_max.as_ref()) },
    Field { flag: "family", of: |peer| peer.spec.families.join(",") },
    Field { flag: "local-pref", of: |peer| text(peer.spec.local_pref.as_ref()) },
    Field { flag: "port", of: |peer| text(peer.spec.port.as_ref()) },
    Field { flag: "label", of: |peer| labels(&peer.labels) },
];

/// The command that makes it as it was. A password is nowhere but in its file.
fn undo(held: &Resource<BgpPeerSpec>, made: &Resource<BgpPeerSpec>, is_given: bool) -> String {
    let mut line = format!("isthmus bgp peer set {}", held.name);
    for field in &FIELDS {
        let before = (field.of)(held);
        if before != (field.of)(made) {
            let value = if before.is_empty() { "none" } else { &before };
            line.extend([" --", field.flag, " ", value]);
        }
    }
    match (held.spec.password_set, made.spec.password_set) {
        (false, true) => line.push_str(" --no-password"),
        (true, false) => line.push_str(" --password-file FILE"),
        (true, true) if is_given => line.push_str(" --password-file FILE"),
        _ => {}
    }
    line
}
