//! `isthmus bgp`: a speaker of its own, and what it knows.

mod mrt;
mod stations;
mod summary;
mod why;

use super::{Session, daemon, node::span};
use crate::{
    failure::{Exit, Failure},
    logging::{self, LogFormat},
    names::distance,
    output::{Column, OutputArgs, View},
};
use isthmus_speaker::{
    Client, ClientError, Config, Family, KernelRoutes, Options, RunError,
    client::{Direction, Route, RoutesAsked},
    interface,
};
use serde::Serialize;
use std::{
    fs, future,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use summary::{Neighbor, now_unix};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

mod peer;

/// Where GoBGP's API is unless told otherwise.
const API: &str = "127.0.0.1:50051";
/// Where the agent's speaker has it.
const AGENT_SOCKET: &str = "/run/isthmus/bgp.sock";

/// What can be done with BGP.
#[derive(Debug, clap::Subcommand)]
pub enum BgpCommand {
    /// Makes and shows BGP neighbours of the nodes.
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus bgp peer create tor-a --address 192.0.2.1 --as 65000 --node-label rack=a\n  isthmus bgp peer list"
    )]
    Peer(peer::PeerCommand),
    /// Runs a speaker or route reflector with GoBGP's configuration, in the foreground.
    Run(RunArgs),
    /// Shows all neighbours, and why a session is not up.
    Summary(summary::SummaryArgs),
    /// Shows one neighbour.
    #[command(
        after_help = "Examples:\n  isthmus bgp neighbor 192.0.2.2\n  isthmus bgp neighbor 192.0.2.2 -o json"
    )]
    Neighbor {
        /// Its address, or the interface that it is on.
        #[arg(value_name = "NEIGHBOR", value_parser = neighbor)]
        address: IpAddr,
        /// Which speaker.
        #[command(flatten)]
        speaker: SpeakerArgs,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows routes, the best first.
    #[command(
        after_help = "Examples:\n  isthmus bgp routes\n  isthmus bgp routes 10.0.0.0/8 --longer\n  isthmus bgp routes --from 192.0.2.2\n  isthmus bgp routes -6 --to 192.0.2.2"
    )]
    Routes(RoutesArgs),
    /// Shows, replays and makes files of routes (MRT).
    #[command(
        subcommand,
        after_help = "Examples:\n  isthmus bgp mrt show table.mrt.gz --summary\n  isthmus bgp mrt inject table.mrt.gz --only-best\n  isthmus bgp mrt dump table.mrt"
    )]
    Mrt(mrt::MrtCommand),
    /// Shows monitoring stations (BMP), and why one is not told.
    #[command(after_help = "Examples:\n  isthmus bgp bmp\n  isthmus bgp bmp -o json")]
    Bmp {
        /// Which speaker.
        #[command(flatten)]
        speaker: SpeakerArgs,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Says which path to a prefix is the best, at which step each other one lost, and who is told.
    Why(why::WhyArgs),
    /// Ends a session, which comes back by itself; with --soft only sends and judges all routes once more.
    #[command(
        after_help = "Examples:\n  isthmus bgp reset 192.0.2.2 --soft\n  isthmus bgp reset 192.0.2.2 --text maintenance"
    )]
    Reset {
        /// Address of the neighbour, or the interface that it is on.
        #[arg(value_name = "NEIGHBOR", value_parser = neighbor)]
        address: IpAddr,
        /// Keeps the session up.
        #[arg(long)]
        soft: bool,
        /// A word to the operator at the other end (RFC 9003).
        #[arg(long, default_value = "", value_name = "TEXT")]
        text: String,
        /// Which speaker.
        #[command(flatten)]
        speaker: SpeakerArgs,
    },
}

/// Arguments of `bgp run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp run -c /etc/gobgpd.conf\n  isthmus bgp run -c reflector.toml --check-config\n  isthmus bgp run -c router.toml --kernel-table main\n\n\
    SIGHUP reads the file again: sessions whose settings are the same stay up.\n\
    The API has no passwords: whoever reaches its address may do everything."
)]
pub struct RunArgs {
    /// Configuration file, in GoBGP's TOML.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Says what is wrong with the file, or has no effect, and ends.
    #[arg(long)]
    check_config: bool,
    /// Address of GoBGP's API; empty turns it off.
    #[arg(long, default_value = API, value_name = "ADDRESS:PORT")]
    api: String,
    /// Comes back after a restart: neighbours with graceful restart are told so, and keep our routes meanwhile.
    #[arg(long)]
    restarted: bool,
    /// Keeps the best routes in this table of the kernel: `main`, or a number.
    #[arg(long, value_name = "TABLE", value_parser = kernel_table)]
    kernel_table: Option<u32>,
    /// Protocol number by which these routes are known. No other program may use it in that table.
    #[arg(long, default_value_t = 99, value_name = "N", value_parser = kernel_protocol, requires = "kernel_table")]
    kernel_protocol: u8,
    /// Metric of these routes. Routes to the same prefix with a lower one win.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "kernel_table")]
    kernel_metric: u32,
    /// Directory within which clients of the API may have MRT files written (`EnableMrt`); unless told, nowhere.
    #[arg(long, value_name = "DIRECTORY")]
    mrt_directory: Option<PathBuf>,
    /// What to log: `info`, `debug`, or a list such as `info,isthmus_speaker=debug`.
    #[arg(long, env = "ISTHMUS_LOG", hide_env_values = true, default_value = "info", value_name = "FILTER")]
    log: String,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    log_format: LogFormat,
}

/// Which speaker is asked.
#[derive(Debug, clap::Args)]
pub struct SpeakerArgs {
    /// Address of the speaker's API, or `unix:PATH`. Unless told, it is the agent's speaker of this node
    /// (`unix:/run/isthmus/bgp.sock`) if there is one, else 127.0.0.1:50051.
    #[arg(long, env = "ISTHMUS_BGP_API", hide_env_values = true, value_name = "HOST:PORT")]
    api: Option<String>,
}

impl SpeakerArgs {
    async fn client(&self) -> Result<Client, Failure> {
        let agent = || Path::new(AGENT_SOCKET).exists().then(|| format!("unix:{AGENT_SOCKET}"));
        let address = self.api.clone().or_else(agent).unwrap_or_else(|| API.to_owned());
        Client::connect(&address).await.map_err(refused)
    }
}

/// Arguments of `bgp routes`.
#[derive(Debug, clap::Args)]
pub struct RoutesArgs {
    /// Only this prefix, or the one that holds this address.
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,
    /// Also what is within the prefix.
    #[arg(long, requires = "prefix")]
    longer: bool,
    /// What this neighbour sent, also what was refused.
    #[arg(long, value_name = "NEIGHBOR", value_parser = neighbor, conflicts_with = "to")]
    from: Option<IpAddr>,
    /// What this neighbour was sent.
    #[arg(long, value_name = "NEIGHBOR", value_parser = neighbor)]
    to: Option<IpAddr>,
    /// IPv6 routes.
    #[arg(short = '6', long)]
    ipv6: bool,
    #[command(flatten)]
    speaker: SpeakerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does what is said.
pub fn run(command: BgpCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        BgpCommand::Run(args) => speaker(&args, session),
        BgpCommand::Peer(command) => super::wait(peer::run(command, session)),
        other => super::wait(ask(other, session)),
    }
}

async fn ask(command: BgpCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        BgpCommand::Run(_) | BgpCommand::Peer(_) => Ok(Exit::Yes),
        BgpCommand::Summary(args) => summary::run(&args, session).await,
        BgpCommand::Neighbor { address, speaker, output } => {
            let mut client = speaker.client().await?;
            let global = client.global().await.map_err(refused)?;
            let peers = client.peers(Some(address)).await.map_err(refused)?;
            let Some(peer) = peers.first() else {
                return Err(no_neighbor(&mut client, address).await);
            };
            summary::neighbors().show(&mut *session.out, &output, Neighbor::of(&global, peer))?;
            Ok(Exit::Yes)
        }
        BgpCommand::Routes(args) => routes(args, session).await,
        BgpCommand::Mrt(command) => mrt::run(command, session).await,
        BgpCommand::Bmp { speaker, output } => stations::list(&speaker, &output, session).await,
        BgpCommand::Why(args) => why::run(args, session).await,
        BgpCommand::Reset { address, soft, text, speaker } => {
            let mut client = speaker.client().await?;
            if let Err(why) = client.reset(address, soft, &text).await {
                return Err(refused_about(&mut client, Some(address), why).await);
            }
            let name = interface::shown(address);
            session.done(&format!("session with {name} {}", if soft { "refreshed" } else { "reset" }), "");
            Ok(Exit::Yes)
        }
    }
}

/// A refusal of what was asked about a neighbour: most often there is none with this address.
async fn refused_about(client: &mut Client, address: Option<IpAddr>, error: ClientError) -> Failure {
    match (address, &error) {
        (Some(address), ClientError::Refused { is_missing: true, .. }) => no_neighbor(client, address).await,
        _ => refused(error),
    }
}

/// Nobody has this address; says who has one like it.
async fn no_neighbor(client: &mut Client, address: IpAddr) -> Failure {
    let address = interface::shown(address);
    let known = client.peers(None).await.unwrap_or_default();
    let known = known.iter().filter_map(|peer| Some(summary::name(peer.conf.as_ref()?).to_owned()));
    let help = match nearest(&address, known) {
        Some(near) => format!("did you mean {near}? isthmus bgp summary lists all of them"),
        None => "isthmus bgp summary lists all of them".to_owned(),
    };
    Failure::new(Exit::Usage, "ISE-0702", format!("there is no neighbour {address}"), help)
}

/// The word that is most like another one, if any is like it at all.
fn nearest(word: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let best = known.map(|known| (distance(&known, word), known)).min()?;
    (best.0 <= 1 + word.len() / 5).then_some(best.1)
}

fn speaker(args: &RunArgs, session: &mut Session) -> Result<Exit, Failure> {
    let config = read(&args.config)?;
    if args.check_config {
        for warning in &config.warnings {
            session.tell(&format!("{}:{warning}", args.config.display()));
        }
        session.done(&format!("{} can be used", args.config.display()), "");
        return Ok(Exit::Yes);
    }
    let api = match args.api.as_str() {
        "" => None,
        text => Some(text.parse::<SocketAddr>().map_err(|_why| {
            Failure::usage(
                format!("--api \"{text}\" is no address with a port"),
                format!("write one like {API}"),
            )
        })?),
    };
    logging::start(&args.log, args.log_format)?;
    warn(&args.config, &config);
    let kernel = args.kernel_table.map(|table| KernelRoutes {
        table,
        protocol: args.kernel_protocol,
        metric: args.kernel_metric,
        ..KernelRoutes::default()
    });
    let options = Options {
        api,
        restarted: args.restarted,
        kernel,
        set_log_level: Some(logging::set_level),
        mrt_directory: args.mrt_directory.clone(),
        ..Options::default()
    };
    let file = args.config.clone();
    let run = |stop| async move {
        let (reloads_in, reloads) = mpsc::channel(1);
        let reading = tokio::spawn(reload(file, reloads_in));
        let ended = isthmus_speaker::run(config, options, reloads, stop).await;
        reading.abort();
        ended
    };
    daemon::until_signal_or(run, not_started)
}

fn not_started(error: &RunError) -> Failure {
    let exit = if error.is_forbidden() { Exit::Forbidden } else { Exit::No };
    let text = format!("the speaker cannot start: {}", daemon::with_causes(error));
    Failure::new(exit, "ISE-0703", text, error.remedy())
}

/// A neighbour's address, or the interface that it is on.
fn neighbor(text: &str) -> Result<IpAddr, String> {
    interface::read(text)
        .ok_or_else(|| "write a neighbour's address, or the interface that it is on".to_owned())
}

/// A table of the kernel (linux/rtnetlink.h): 254 is `main`, 255 holds the host's own addresses.
fn kernel_table(text: &str) -> Result<u32, String> {
    match (text, text.parse()) {
        ("main", _) => Ok(254),
        (_, Ok(0 | 255)) => Err("tables 0 and 255 are the kernel's own: choose another".to_owned()),
        (_, Ok(table)) => Ok(table),
        (_, Err(_)) => Err("write main, or a number".to_owned()),
    }
}

/// A protocol number that is free for us: up to 4 are the kernel's and those of `ip route`, 98 is the agent's dataplane.
fn kernel_protocol(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(0..=4) => {
            Err("numbers up to 4 are the kernel's and those of static routes: choose another".to_owned())
        }
        Ok(98) => Err("98 is that of the agent's dataplane: choose another".to_owned()),
        Ok(protocol) => Ok(protocol),
        Err(_) => Err("write a number from 5 to 255".to_owned()),
    }
}

fn read(file: &Path) -> Result<Config, Failure> {
    let help = "correct all of these; --check-config tries it without starting";
    let text = fs::read_to_string(file).map_err(|why| {
        let text = format!("the configuration file {} cannot be read: {why}", file.display());
        Failure::new(Exit::Usage, "ISE-0501", text, "name a file with -c")
    })?;
    Config::from_toml(&text, &file.display().to_string()).map_err(|faults| {
        let text = faults.to_string();
        let text = text.trim_start_matches("error[ISE-0501]: ");
        Failure::new(Exit::Usage, "ISE-0501", text, help)
    })
}

fn warn(file: &Path, config: &Config) {
    for warning in &config.warnings {
        let (line, key) = (warning.line, &warning.key);
        tracing::warn!(file = %file.display(), line, %key, why = %warning.why, "configuration in part without effect");
    }
}

/// Reads the file again at each SIGHUP. One that is wrong changes nothing.
async fn reload(file: PathBuf, reloads: mpsc::Sender<Config>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else {
        tracing::error!("SIGHUP cannot be waited for: the configuration is only read at start");
        return future::pending().await;
    };
    while hangups.recv().await.is_some() {
        match read(&file) {
            Ok(config) => {
                warn(&file, &config);
                if reloads.send(config).await.is_err() {
                    return;
                }
            }
            Err(failure) => tracing::error!(why = %failure.render().trim_end(), "configuration not taken"),
        }
    }
}

/// A route, as it is printed.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "marks that are printed beside a route, each for itself")]
struct Row {
    prefix: String,
    best: bool,
    filtered: bool,
    /// Its next hop leads nowhere.
    unresolved: bool,
    stale: bool,
    /// A neighbour's address, or the interface that it is on; `null`: the speaker's own.
    from: Option<String>,
    external: bool,
    /// `null`: the speaker itself.
    next_hop: Option<IpAddr>,
    as_path: String,
    origin: String,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Vec<String>,
    large_communities: Vec<String>,
    originator_id: Option<String>,
    cluster_list: Vec<String>,
    age_seconds: Option<u64>,
}

impl From<Route> for Row {
    fn from(route: Route) -> Self {
        let attributes = route.attributes;
        let age = now_unix().saturating_sub(route.received_unix);
        Self {
            prefix: route.prefix,
            best: route.best,
            filtered: route.filtered,
            unresolved: route.unresolved,
            stale: route.stale,
            from: route.neighbor.map(interface::shown),
            external: route.external,
            next_hop: attributes.next_hop.map(|next_hop| next_hop.address()),
            as_path: attributes.as_path.to_string(),
            origin: format!("{:?}", attributes.origin).to_lowercase(),
            med: attributes.med,
            local_pref: attributes.local_pref,
            communities: attributes.communities.iter().map(ToString::to_string).collect(),
            large_communities: attributes.large_communities.iter().map(ToString::to_string).collect(),
            originator_id: attributes.originator_id.map(|id| id.to_string()),
            cluster_list: attributes.cluster_list.iter().map(ToString::to_string).collect(),
            age_seconds: (route.received_unix != 0).then_some(age),
        }
    }
}

async fn routes(args: RoutesArgs, session: &mut Session) -> Result<Exit, Failure> {
    let neighbor = match (args.from, args.to) {
        (Some(address), _) => Some((address, Direction::In)),
        (None, to) => to.map(|address| (address, Direction::Out)),
    };
    let is_six = args.ipv6 || args.prefix.as_ref().is_some_and(|prefix| prefix.contains(':'));
    let family = if is_six { Family::Ipv6Unicast } else { Family::Ipv4Unicast };
    let asked = RoutesAsked { neighbor, family, prefix: args.prefix, longer: args.longer };
    let mut rows = Vec::new();
    let mut client = args.speaker.client().await?;
    if let Err(why) = client.routes(&asked, |route| rows.push(Row::from(route))).await {
        return Err(refused_about(&mut client, args.from.or(args.to), why).await);
    }
    let found = !rows.is_empty();
    if let Some(to) = args.to
        && is_sending(&mut client, to).await?
    {
        let to = interface::shown(to);
        session.tell(&format!("routes wait to be sent to {to}: it does not know all of these yet"));
    }
    if !found {
        session.tell(&no_routes(&asked));
    }
    route_view().list(&mut *session.out, &args.output, rows)?;
    Ok(if found || asked.prefix.is_none() { Exit::Yes } else { Exit::No })
}

/// Whether a neighbour is still being told.
async fn is_sending(client: &mut Client, neighbor: IpAddr) -> Result<bool, Failure> {
    let peers = client.peers(Some(neighbor)).await.map_err(refused)?;
    Ok(peers.iter().filter_map(|peer| peer.state.as_ref()).any(|state| state.sending))
}

/// What to look at where no route is shown.
fn no_routes(asked: &RoutesAsked) -> String {
    let other = match asked.family {
        Family::Ipv4Unicast => "-6 shows those of IPv6",
        Family::Ipv6Unicast => "without -6 those of IPv4 are shown",
    };
    let what = match &asked.prefix {
        Some(prefix) => format!("route to {prefix}"),
        None => format!("routes of {}", asked.family),
    };
    let neighbor = asked.neighbor.map(|(address, direction)| (interface::shown(address), direction));
    match (neighbor, &asked.prefix) {
        (Some((address, Direction::In)), _) => {
            format!("{address} sent no {what}: isthmus bgp neighbor {address} shows its session; {other}")
        }
        (Some((address, Direction::Out)), _) => format!(
            "{address} was sent no {what}: isthmus bgp why PREFIX --peer {address} says why one is not; {other}"
        ),
        (None, Some(_)) if asked.longer => format!("there is no {what}, nor to what is within it"),
        (None, Some(prefix)) => {
            format!(
                "there is no {what}: isthmus bgp why {prefix} also shows paths that cannot be used; --longer shows what is within it"
            )
        }
        (None, None) => format!("there are no {what}: isthmus bgp summary shows the sessions; {other}"),
    }
}

fn route_view() -> View<Row> {
    View {
        columns: vec![
            Column::new("PREFIX", |row: &Row| row.prefix.clone()),
            Column::new("MARK", mark),
            Column::new("NEXT HOP", |row| {
                row.next_hop.map_or_else(|| "self".to_owned(), |address| address.to_string())
            }),
            Column::new("FROM", |row| row.from.clone().unwrap_or_else(|| "local".to_owned())),
            Column::new("AS PATH", |row| row.as_path.clone()),
            Column::new("PREF", |row| row.local_pref.map(|pref| pref.to_string()).unwrap_or_default()),
            Column::new("MED", |row| row.med.map(|med| med.to_string()).unwrap_or_default()),
            Column::new("AGE", |row| row.age_seconds.map(span).unwrap_or_default()),
            Column::wide("ORIGIN", |row| row.origin.clone()),
            Column::wide("COMMUNITIES", |row| {
                row.communities.iter().chain(&row.large_communities).cloned().collect::<Vec<_>>().join(" ")
            }),
            Column::wide("ORIGINATOR", |row| row.originator_id.clone().unwrap_or_default()),
            Column::wide("CLUSTERS", |row| row.cluster_list.join(" ")),
        ],
        name: |row| row.prefix.clone(),
    }
}

fn mark(row: &Row) -> String {
    let marks = [
        (row.best, "best"),
        (row.filtered, "refused"),
        (row.unresolved, "unresolved next hop"),
        (row.stale, "stale"),
    ];
    marks.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives it")]
fn refused(error: ClientError) -> Failure {
    let text = error.to_string();
    match &error {
        ClientError::Address(_) => Failure::usage(text, format!("--api {API}")),
        ClientError::Unreachable { .. } => {
            let text = daemon::with_causes(&error);
            let help = "start one (isthmus bgp run -c FILE), or name another with --api or ISTHMUS_BGP_API";
            Failure::new(Exit::Unreachable, "ISE-0701", text, help)
        }
        ClientError::Refused { is_missing, .. } => {
            let exit = if *is_missing { Exit::No } else { Exit::Usage };
            Failure::new(exit, "ISE-0702", text, "")
        }
    }
}
