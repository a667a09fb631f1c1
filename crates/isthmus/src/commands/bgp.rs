//! `isthmus bgp`: a speaker of its own, and what it knows.

mod why;

use super::{Session, node::span};
use crate::{
    failure::{Exit, Failure},
    logging::{self, LogFormat},
    output::{Column, OutputArgs, View},
};
use isthmus_speaker::{
    Client, ClientError, Config, Family, KernelRoutes, Options,
    client::{Direction, Route, RoutesAsked},
    gobgp::proto::{self, peer_state::AdminState, peer_state::SessionState},
};
use serde::Serialize;
use std::{
    fs, future,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
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
    #[command(
        after_help = "Examples:\n  isthmus bgp summary\n  isthmus bgp summary -o json --api 192.0.2.1:50051"
    )]
    Summary {
        /// Which speaker.
        #[command(flatten)]
        speaker: SpeakerArgs,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Shows one neighbour.
    #[command(
        after_help = "Examples:\n  isthmus bgp neighbor 192.0.2.2\n  isthmus bgp neighbor 192.0.2.2 -o json"
    )]
    Neighbor {
        /// Its address.
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
    /// Says which path to a prefix is the best, at which step each other one lost, and who is told.
    Why(why::WhyArgs),
    /// Ends a session, which comes back by itself; with --soft only sends and judges all routes once more.
    #[command(
        after_help = "Examples:\n  isthmus bgp reset 192.0.2.2 --soft\n  isthmus bgp reset 192.0.2.2 --text maintenance"
    )]
    Reset {
        /// Address of the neighbour.
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
    #[arg(long, value_name = "ADDRESS", conflicts_with = "to")]
    from: Option<IpAddr>,
    /// What this neighbour was sent.
    #[arg(long, value_name = "ADDRESS")]
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
        BgpCommand::Summary { speaker, output } => summary(&speaker, &output, session).await,
        BgpCommand::Neighbor { address, speaker, output } => {
            let mut client = speaker.client().await?;
            let global = client.global().await.map_err(refused)?;
            let peers = client.peers(Some(address)).await.map_err(refused)?;
            let Some(peer) = peers.first() else {
                let text = format!("there is no neighbour {address}");
                return Err(Failure::usage(text, "isthmus bgp summary lists all of them"));
            };
            neighbors().show(&mut *session.out, &output, Neighbor::of(&global, peer))?;
            Ok(Exit::Yes)
        }
        BgpCommand::Routes(args) => routes(args, session).await,
        BgpCommand::Why(args) => why::run(args, session).await,
        BgpCommand::Reset { address, soft, text, speaker } => {
            speaker.client().await?.reset(address, soft, &text).await.map_err(refused)?;
            session.done(&format!("session with {address} {}", if soft { "refreshed" } else { "reset" }), "");
            Ok(Exit::Yes)
        }
    }
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
        ..Options::default()
    };
    let file = args.config.clone();
    super::daemon::until_signal("bgp", |stop| async move {
        let (reloads_in, reloads) = mpsc::channel(1);
        let reading = tokio::spawn(reload(file, reloads_in));
        let ended = isthmus_speaker::run(config, options, reloads, stop).await;
        reading.abort();
        ended
    })
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

/// A neighbour, as it is printed.
#[derive(Debug, Serialize)]
struct Neighbor {
    local_as: u32,
    address: String,
    /// 0: any, and none is known yet.
    peer_as: u32,
    router_id: String,
    state: String,
    /// In this state of being up or down, in seconds; `None`: it was never up.
    for_seconds: Option<u64>,
    received: u64,
    accepted: u64,
    sent: u64,
    why: String,
    /// Empty where it is not configured.
    bfd: String,
    description: String,
    peer_group: String,
    local_address: String,
    hold_seconds: u64,
    keepalive_seconds: u64,
    reflector_client: bool,
    flaps: u32,
    messages_received: u64,
    messages_sent: u64,
    #[serde(skip)]
    is_wanted: bool,
}

impl Neighbor {
    fn of(global: &proto::Global, peer: &proto::Peer) -> Self {
        let (conf, state) = (peer.conf.clone().unwrap_or_default(), peer.state.clone().unwrap_or_default());
        let times = peer.timers.unwrap_or_default().state.unwrap_or_default();
        let transport = peer.transport.clone().unwrap_or_default();
        let messages = state.messages.unwrap_or_default();
        let is_up = state.session_state() == SessionState::Established;
        let since = if is_up { times.uptime } else { times.downtime };
        let sum = |of: fn(&proto::AfiSafiState) -> u64| {
            peer.afi_safis.iter().filter_map(|one| one.state.as_ref()).map(of).sum()
        };
        Self {
            local_as: if conf.local_asn == 0 { global.asn } else { conf.local_asn },
            address: conf.neighbor_address,
            peer_as: state.peer_asn,
            state: state_name(&state).to_owned(),
            for_seconds: since
                .map(|since| now_unix().saturating_sub(u64::try_from(since.seconds).unwrap_or_default())),
            received: sum(|state| state.received),
            accepted: sum(|state| state.accepted),
            sent: sum(|state| state.advertised),
            description: conf.description,
            peer_group: conf.peer_group,
            local_address: transport.local_address,
            hold_seconds: times.negotiated_hold_time,
            keepalive_seconds: times.keepalive_interval,
            reflector_client: peer
                .route_reflector
                .as_ref()
                .is_some_and(|reflector| reflector.route_reflector_client),
            flaps: state.flops,
            messages_received: messages.received.unwrap_or_default().total,
            messages_sent: messages.sent.unwrap_or_default().total,
            is_wanted: state.admin_state() != AdminState::Down,
            router_id: state.router_id,
            why: state.why,
            bfd: state.bfd,
        }
    }
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|now| now.as_secs()).unwrap_or_default()
}

fn state_name(state: &proto::PeerState) -> &'static str {
    match (state.admin_state(), state.session_state()) {
        (AdminState::Down, _) => "Idle(Admin)",
        (AdminState::PfxCt, _) => "Idle(PfxCt)",
        (_, SessionState::Unknown) => "Unknown",
        (_, SessionState::Idle) => "Idle",
        (_, SessionState::Connect) => "Connect",
        (_, SessionState::Active) => "Active",
        (_, SessionState::Opensent) => "OpenSent",
        (_, SessionState::Openconfirm) => "OpenConfirm",
        (_, SessionState::Established) => "Established",
    }
}

fn neighbors() -> View<Neighbor> {
    View {
        columns: vec![
            Column::new("LOCAL AS", |row: &Neighbor| row.local_as.to_string()),
            Column::new("PEER", |row| row.address.clone()),
            Column::new(
                "AS",
                |row| if row.peer_as == 0 { "any".to_owned() } else { row.peer_as.to_string() },
            ),
            Column::new("STATE", |row| row.state.clone()),
            Column::new("FOR", |row| row.for_seconds.map_or_else(|| "never".to_owned(), span)),
            Column::new("RECV/ACCEPT/SENT", |row| format!("{}/{}/{}", row.received, row.accepted, row.sent)),
            Column::new("WHY", |row| row.why.clone()),
            Column::wide("ROUTER ID", |row| row.router_id.clone()),
            Column::wide("LOCAL ADDRESS", |row| row.local_address.clone()),
            Column::wide("HOLD", |row| format!("{}s", row.hold_seconds)),
            Column::wide("KEEPALIVE", |row| format!("{}s", row.keepalive_seconds)),
            Column::wide("CLIENT", |row| if row.reflector_client { "yes" } else { "no" }.to_owned()),
            Column::wide("FLAPS", |row| row.flaps.to_string()),
            Column::wide("MESSAGES IN/OUT", |row| format!("{}/{}", row.messages_received, row.messages_sent)),
            Column::wide("BFD", |row| row.bfd.clone()),
            Column::wide("GROUP", |row| row.peer_group.clone()),
            Column::wide("DESCRIPTION", |row| row.description.clone()),
        ],
        name: |row| row.address.clone(),
    }
}

/// Yes if every session is up that shall be.
async fn summary(speaker: &SpeakerArgs, output: &OutputArgs, session: &mut Session) -> Result<Exit, Failure> {
    let mut client = speaker.client().await?;
    let global = client.global().await.map_err(refused)?;
    let peers = client.peers(None).await.map_err(refused)?;
    let rows: Vec<Neighbor> = peers.iter().map(|peer| Neighbor::of(&global, peer)).collect();
    let is_well = rows.iter().all(|row| row.state == "Established" || !row.is_wanted);
    neighbors().list(&mut *session.out, output, rows)?;
    Ok(if is_well { Exit::Yes } else { Exit::No })
}

/// A route, as it is printed.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "marks that are printed beside a route, each for itself")]
struct Row {
    prefix: String,
    best: bool,
    filtered: bool,
    stale: bool,
    /// `null`: the speaker's own.
    from: Option<IpAddr>,
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
            stale: route.stale,
            from: route.neighbor,
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
    client.routes(&asked, |route| rows.push(Row::from(route))).await.map_err(refused)?;
    let found = !rows.is_empty();
    route_view().list(&mut *session.out, &args.output, rows)?;
    Ok(if found || asked.prefix.is_none() { Exit::Yes } else { Exit::No })
}

fn route_view() -> View<Row> {
    View {
        columns: vec![
            Column::new("PREFIX", |row: &Row| row.prefix.clone()),
            Column::new("MARK", mark),
            Column::new("NEXT HOP", |row| {
                row.next_hop.map_or_else(|| "self".to_owned(), |address| address.to_string())
            }),
            Column::new("FROM", |row| {
                row.from.map_or_else(|| "local".to_owned(), |address| address.to_string())
            }),
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
    let marks = [(row.best, "best"), (row.filtered, "refused"), (row.stale, "stale")];
    marks.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives it")]
fn refused(error: ClientError) -> Failure {
    let mut text = error.to_string();
    match &error {
        ClientError::Address(_) => Failure::usage(text, format!("--api {API}")),
        ClientError::Unreachable { source, .. } => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**source);
            while let Some(why) = cause {
                text = format!("{text}: {why}");
                cause = why.source();
            }
            let help = "start one (isthmus bgp run -c FILE), or name another with --api or ISTHMUS_BGP_API";
            Failure::new(Exit::Unreachable, "ISE-0701", text, help)
        }
        ClientError::Refused { is_missing, .. } => {
            let exit = if *is_missing { Exit::No } else { Exit::Usage };
            Failure::new(exit, "ISE-0702", text, "")
        }
    }
}
