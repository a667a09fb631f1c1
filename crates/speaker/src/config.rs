//! `gobgpd.conf` as GoBGP writes it in TOML, read into a [`Config`] whose existence proves it valid.
//!
//! ```text
//!  text ─▶ table with places ─▶ check (schema: names, types, bounds) ─▶ read (layers, defaults, what must fit) ─▶ Config
//! ```
//!
//! All faults are reported at once, each with line, column, key and reason. An unknown key is a fault. What GoBGP knows and
//! we do not do yet is in [`Config::warnings`], also with its place: nothing is passed over in silence.

mod change;
mod check;
mod edit_policy;
mod faults;
mod mrt;
mod node;
mod pattern;
mod peer;
mod policy;
mod read_peer;
mod read_policy;
#[cfg(test)]
mod reference;
mod schema;
mod stations;

pub use change::{ChangeError, Written};
pub use edit_policy::{Assign, PolicyDirection, SetMembers};
pub use faults::{ConfigFaults, Fault};
pub use mrt::{MrtDump, MrtKind};
pub use pattern::{Pattern, community, ext_community, large_community, write_community, write_ext_community};
pub use peer::{
    AddPaths, Distance, FamilySettings, GracefulRestart, Password, PeerSettings, PrefixLimit,
    RemovePrivateAs, Timers, Transport,
};
pub use policy::{
    Actions, Assignment, CommunityAction, Compared, Conditions, DefinedSets, Disposition, MatchOption,
    MedAction, NextHopAction, OriginWord, PolicyDefinition, PrefixRange, Prepend, RoutePolicy, RouteType,
    SetMatch, Statement,
};
pub use stations::{MonitoringPolicy, SentPolicy, StationSettings};

use crate::interface;
use check::Checker;
use ipnet::IpNet;
use node::Node;
use read_peer::{Defaults, PeerReader};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    time::Duration,
};
use toml::de::DeTable;

/// IANA's port of BGP.
const PORT: u16 = 179;
/// GoBGP's deferral time.
const DEFERRAL: Duration = Duration::from_mins(6);

/// What a speaker was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the speaker itself.
    pub global: Global,
    /// Neighbours by address.
    pub neighbors: BTreeMap<IpAddr, PeerSettings>,
    /// Ranges from which neighbours may come, the narrowest first.
    pub dynamic_neighbors: Vec<DynamicNeighbor>,
    /// Route policy.
    pub policy: RoutePolicy,
    /// What is dumped, by the name of the file.
    pub mrt_dumps: BTreeMap<String, MrtDump>,
    /// Monitoring stations by address and port.
    pub stations: BTreeMap<SocketAddr, StationSettings>,
    /// Neighbours and groups as they were written, for changes while it runs; empty where there is no file.
    pub written: Written,
    /// What is written and has no effect, by place.
    pub warnings: Vec<Fault>,
}

/// What is set for the speaker itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Its AS.
    pub asn: u32,
    /// Its router id (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Where it listens; empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// Several equal paths are used for one prefix.
    pub multipath: Option<Multipath>,
    /// Best paths wait this long at most for end-of-RIB after a restart of ours.
    pub restart_deferral: Option<Duration>,
    /// Steps of the decision process (RFC 4271 section 9.1.2).
    pub selection: Selection,
    /// Paths whose next hop the kernel has no way to are not used; `None`: where best routes go into the kernel.
    pub resolve_next_hops: Option<bool>,
    /// Clients of a reflector hear from each other; off where they are meshed (RFC 4456 section 7).
    pub client_to_client: bool,
}

/// How many paths are used at once; 0: no bound of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Multipath {
    /// Of external neighbours.
    pub external_max: u16,
    /// Of internal neighbours.
    pub internal_max: u16,
}

/// Switches of the decision process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// MED of different neighbouring ASes is compared.
    pub always_compare_med: bool,
    /// The length of the AS path does not count.
    pub ignore_as_path_length: bool,
    /// Router ids decide between external paths, not age.
    pub external_compare_router_id: bool,
}

/// A range from which neighbours may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicNeighbor {
    /// Their addresses.
    pub prefix: IpNet,
    /// Their settings; they are always passive.
    pub settings: PeerSettings,
}

impl Config {
    /// Reads a configuration; `origin` names it in faults.
    ///
    /// # Errors
    ///
    /// [`ConfigFaults`] with every fault at once.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigFaults> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut checker = Checker::new(text);
        for error in &errors {
            checker.fault(error.span().unwrap_or(0..0), "", error.message());
        }
        let mut config = None;
        // After a fault of the syntax, tables may be cut short: what they lack is no fault of its own.
        if errors.is_empty() {
            checker.table("", table.get_ref(), schema::FILE);
            config = Some(Self::read(&mut checker, &Node::of(table.get_ref())));
        }
        let Checker { mut faults, mut warnings, .. } = checker;
        for told in [&mut faults, &mut warnings] {
            told.sort_by_key(|fault| (fault.line, fault.column));
            // Settings of a group are read once for each of its members.
            told.dedup();
        }
        match config {
            Some(config) if faults.is_empty() => Ok(Self { warnings, written: Written::of(text), ..config }),
            _ => Err(ConfigFaults { origin: origin.to_owned(), faults }),
        }
    }

    /// Whether neighbours are offered graceful restart, so that traffic goes on while the speaker is away.
    pub fn has_graceful_restart(&self) -> bool {
        let ranges = self.dynamic_neighbors.iter().map(|range| &range.settings);
        let restarts =
            |settings: &PeerSettings| settings.graceful_restart.is_some_and(|restart| !restart.helper_only);
        self.neighbors.values().chain(ranges).any(restarts)
    }

    fn read(checker: &mut Checker<'_>, file: &Node<'_>) -> Self {
        let global = global(checker, file);
        let defaults = Defaults { asn: global.asn, router_id: global.router_id };
        let groups = peer_groups(checker, file);
        let mut peers = Peers { checker, file, groups, defaults };
        let neighbors = peers.neighbors();
        let dynamic_neighbors = peers.dynamic_neighbors();
        peers.passwords(&neighbors, &dynamic_neighbors);
        let policy = read_policy::read(checker, file);
        let mrt_dumps = mrt::read(checker, file);
        let stations = stations::read(checker, file);
        Self {
            global,
            neighbors,
            dynamic_neighbors,
            policy,
            mrt_dumps,
            stations,
            written: Written::default(),
            warnings: Vec::new(),
        }
    }
}

fn global(checker: &mut Checker<'_>, file: &Node<'_>) -> Global {
    let node = file.table("global");
    let config = node.table("config");
    for (key, example) in [("as", "as = 64512"), ("router-id", "router-id = \"192.0.2.1\"")] {
        if !config.has(key) {
            let place = if node.has("config") { node.place("config") } else { file.place("global") };
            let why = format!("is missing: write {example} under [global.config]");
            checker.fault(place, &format!("global.config.{key}"), &why);
        }
    }
    let multipath = node.table("use-multiple-paths");
    let restart = node.config("graceful-restart");
    let restarts = restart.flag("enabled").unwrap_or(false);
    let selection = node.config("route-selection-options");
    let own = file.table("isthmus").table("config");
    let set = |key| selection.flag(key).unwrap_or(false);
    Global {
        asn: config.number("as").unwrap_or_default(),
        router_id: config.router_id("router-id").unwrap_or(Ipv4Addr::UNSPECIFIED),
        listen: listen(&config),
        multipath: multipath.table("config").flag("enabled").filter(|enabled| *enabled).map(|_| Multipath {
            external_max: multipath.config("ebgp").number("maximum-paths").unwrap_or(0),
            internal_max: multipath.config("ibgp").number("maximum-paths").unwrap_or(0),
        }),
        restart_deferral: restarts.then(|| restart.seconds("deferral-time").unwrap_or(DEFERRAL)),
        selection: Selection {
            always_compare_med: set("always-compare-med"),
            ignore_as_path_length: set("ignore-as-path-length"),
            external_compare_router_id: set("external-compare-router-id"),
        },
        resolve_next_hops: own.flag("resolve-next-hops"),
        client_to_client: own.flag("client-to-client-reflection").unwrap_or(true),
    }
}

/// GoBGP listens on every address unless told, and nowhere with port -1.
fn listen(config: &Node<'_>) -> Vec<SocketAddr> {
    let port = match config.number::<i32>("port") {
        None | Some(0) => PORT,
        Some(port) => match u16::try_from(port) {
            Ok(port) => port,
            Err(_negative) => return Vec::new(),
        },
    };
    let addresses = config.texts("local-address-list");
    let mut addresses: Vec<IpAddr> = addresses.iter().filter_map(|(_, text)| text.parse().ok()).collect();
    if addresses.is_empty() {
        addresses = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

type Groups<'t> = BTreeMap<String, Node<'t>>;

fn peer_groups<'t>(checker: &mut Checker<'_>, file: &Node<'t>) -> Groups<'t> {
    let mut groups = Groups::new();
    let key = "peer-groups.config.peer-group-name";
    for (group, place) in file.tables("peer-groups").into_iter().zip(file.tables_places("peer-groups")) {
        let config = group.table("config");
        let Some(name) = config.text("peer-group-name") else {
            checker.fault(place, key, "is missing: a group needs a name");
            continue;
        };
        if groups.insert(name.clone(), group).is_some() {
            checker.fault(config.place("peer-group-name"), key, &format!("\"{name}\" is defined twice"));
        }
    }
    groups
}

struct Peers<'r, 'a, 't> {
    checker: &'r mut Checker<'a>,
    file: &'r Node<'t>,
    groups: Groups<'t>,
    defaults: Defaults,
}

impl<'t> Peers<'_, '_, 't> {
    fn neighbors(&mut self) -> BTreeMap<IpAddr, PeerSettings> {
        let mut neighbors = BTreeMap::new();
        let places = self.file.tables_places("neighbors");
        for (node, place) in self.file.tables("neighbors").into_iter().zip(places) {
            let config = node.table("config");
            let Some((key, address)) = self.name(&config, place) else { continue };
            let group = self.group(&config, "neighbors.config.peer-group");
            let node = node.over(group.as_ref());
            let settings = self.settings(node, "neighbors", address);
            if neighbors.insert(address, settings).is_some() {
                let why = format!("{} is configured twice", interface::shown(address));
                self.checker.fault(config.place(key), &format!("neighbors.config.{key}"), &why);
            }
        }
        neighbors
    }

    /// What a neighbour is known by, and which key says it.
    fn name(&mut self, config: &Node<'_>, place: Range<usize>) -> Option<(&'static str, IpAddr)> {
        if let Some(name) = config.text("neighbor-interface") {
            let key = "neighbor-interface";
            if config.has("neighbor-address") {
                let why = "has no effect beside neighbor-interface: the address is learned there";
                self.checker.warn(config.place("neighbor-address"), "neighbors.config.neighbor-address", why);
            }
            let named = interface::neighbor_on(&name);
            if named.is_none() {
                let why = format!(
                    "\"{name}\" is no name of an interface: it has at most 15 bytes, no slash, colon or space"
                );
                self.checker.fault(config.place(key), "neighbors.config.neighbor-interface", &why);
            }
            return Some((key, named?));
        }
        let key = "neighbor-address";
        match config.address(key) {
            Some(address) if address.is_multicast() => {
                let why = format!("{address} is a multicast address: no neighbour has one");
                self.checker.fault(config.place(key), "neighbors.config.neighbor-address", &why);
                None
            }
            Some(address) => Some((key, address)),
            None => {
                // A bad address has been told.
                if !config.has(key) {
                    let why = "is missing: write the neighbour's IP address, or neighbor-interface";
                    self.checker.fault(place, "neighbors.config.neighbor-address", why);
                }
                None
            }
        }
    }

    fn dynamic_neighbors(&mut self) -> Vec<DynamicNeighbor> {
        let mut ranges: Vec<DynamicNeighbor> = Vec::new();
        let places = self.file.tables_places("dynamic-neighbors");
        for (node, place) in self.file.tables("dynamic-neighbors").into_iter().zip(places) {
            let config = node.table("config");
            for key in ["prefix", "peer-group"] {
                if !config.has(key) {
                    let path = format!("dynamic-neighbors.config.{key}");
                    self.checker.fault(
                        place.clone(),
                        &path,
                        "is missing: a range needs a prefix and a peer group",
                    );
                }
            }
            let group = self.group(&config, "dynamic-neighbors.config.peer-group");
            let (Some(prefix), Some(group)) = (config.prefix("prefix"), group) else { continue };
            let mut settings = self.settings(group, "peer-groups", prefix.network());
            settings.peer_group = config.text("peer-group");
            settings.transport.passive = true;
            if ranges.iter().any(|range| range.prefix == prefix) {
                let why = format!("{prefix} is configured twice");
                self.checker.fault(config.place("prefix"), "dynamic-neighbors.config.prefix", &why);
            }
            ranges.push(DynamicNeighbor { prefix, settings });
        }
        ranges.sort_by_key(|range| std::cmp::Reverse(range.prefix.prefix_len()));
        ranges
    }

    /// Whose password is that of a range: the kernel asks everybody in it for one.
    fn passwords(&mut self, neighbors: &BTreeMap<IpAddr, PeerSettings>, ranges: &[DynamicNeighbor]) {
        let places = self.file.tables_places("neighbors");
        for (node, place) in self.file.tables("neighbors").into_iter().zip(places) {
            let Some(address) = node.table("config").address("neighbor-address") else { continue };
            let Some(settings) = neighbors.get(&address) else { continue };
            let range = ranges.iter().find(|range| range.prefix.contains(&address));
            let range = range.filter(|range| range.settings.password.is_some());
            if let (None, Some(range)) = (&settings.password, range) {
                let why = format!(
                    "is missing, and the range {} that {address} lies in has one: the kernel drops what it sends without; give it one too",
                    range.prefix
                );
                self.checker.warn(place, "neighbors.config.auth-password", &why);
            }
        }
    }

    fn group(&mut self, config: &Node<'t>, path: &str) -> Option<Node<'t>> {
        let name = config.text("peer-group")?;
        let group = self.groups.get(&name).cloned();
        if group.is_none() {
            let why = format!("there is no peer group \"{name}\" among peer-groups");
            self.checker.fault(config.place("peer-group"), path, &why);
        }
        group
    }

    fn settings(&mut self, node: Node<'t>, path: &'static str, address: IpAddr) -> PeerSettings {
        PeerReader { checker: self.checker, node, path, defaults: self.defaults }.settings(address)
    }
}

#[cfg(test)]
mod tests;
