//! What the node's speaker shall be, from what the server said: pure functions.
//!
//! A neighbour is safe unless told otherwise (RFC 8212): from outside only listed prefixes are taken, never ours, and only
//! our own blocks are announced, if at all. Nodes of our own network are trusted with ranges of its pools.

use crate::{desired, view::View};
use ipnet::IpNet;
use isthmus_api::stream;
use isthmus_core::NodeName;
use isthmus_dataplane::model::Encapsulation;
use isthmus_speaker::{
    Attributes, BfdSettings, Config, Family, Origin, Prefix,
    config::{
        Actions, Assignment, CommunityAction, Conditions, Disposition, Distance, DynamicNeighbor,
        FamilySettings, Global, GracefulRestart, MatchOption, Multipath, NextHopAction, Password,
        PeerSettings, PolicyDefinition, PrefixLimit, PrefixRange, RoutePolicy, RouteType, Selection,
        SetMatch, Statement, Written, community,
    },
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// IANA's port of BGP.
const PORT: u16 = 179;
/// Prefixes that a neighbour outside may send, unless told: more than a data centre has, less than the Internet.
const PREFIXES_MAX: u32 = 10_000;
/// Prefixes that a node may send: a reflector sends those of all.
const NODE_PREFIXES_MAX: u32 = 200_000;
/// The limit is warned of at this percentage.
const WARN_PERCENT: u8 = 75;
/// After a restart nothing is announced before neighbours have sent theirs, but not longer than this: in a mesh somebody is
/// always away.
const DEFERRAL: Duration = Duration::from_secs(30);
/// How long stale routes of a neighbour are kept at most after it is back (reference: FRR's and ours).
const STALE_TIME: Duration = Duration::from_mins(6);
/// Between attempts to connect: a node that was away is back within this.
const CONNECT_RETRY: Duration = Duration::from_secs(10);
/// Hops to a node in another AS, which may be behind routers.
const NODE_HOPS: u8 = 64;

/// All that the speaker needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) config: Config,
    /// What is here, and wins against whoever says to have it too: our blocks and containers. The policy says what of it is
    /// announced.
    pub(crate) announced: BTreeMap<Prefix, Attributes>,
    /// Names of neighbours by address or range.
    pub(crate) names: BTreeMap<IpNet, String>,
    /// What could not be read.
    pub(crate) problems: Vec<String>,
}

/// What the node knows that is not from the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) address: IpAddr,
    /// Addresses of its containers.
    pub(crate) endpoints: &'a [IpAddr],
}

/// What the speaker shall be; `None`: there shall be none.
pub(crate) fn wanted(view: &View, local: Local<'_>) -> Option<Wanted> {
    let bgp = view.bgp()?;
    let mut problems = Vec::new();
    let router_id = match (bgp.router_id.parse(), local.address) {
        (Ok(router_id), _) => router_id,
        (Err(_), IpAddr::V4(address)) if bgp.router_id.is_empty() => address,
        _ => {
            problems.push(format!(
                "BGP: router id \"{}\" is no dotted quad, so there is no speaker",
                bgp.router_id
            ));
            Ipv4Addr::UNSPECIFIED
        }
    };
    let mut ranges = Ranges::of(view, local.node);
    ranges.are_pools_routed = desired::ways(view, &mut Vec::new()).0 != Encapsulation::Always;
    let paths_max = u16::try_from(bgp.paths_max).unwrap_or(u16::MAX);
    let mut builder = Builder {
        bgp,
        local,
        router_id,
        ranges: &ranges,
        policy: RoutePolicy::default(),
        import: Vec::new(),
        export: Vec::new(),
        problems,
    };
    let mut neighbors = BTreeMap::new();
    let mut dynamic_neighbors = Vec::new();
    let mut names = BTreeMap::new();
    for peer in view.bgp_peers() {
        let Some((network, settings)) = builder.peer(peer) else { continue };
        names.insert(network, peer.name.clone());
        if network.prefix_len() == network.max_prefix_len() && !peer.address.contains('/') {
            neighbors.insert(network.addr(), settings);
        } else {
            dynamic_neighbors.push(DynamicNeighbor { prefix: network, settings });
        }
    }
    dynamic_neighbors.sort_by_key(|range| std::cmp::Reverse(range.prefix.prefix_len()));
    let (policy, problems) = builder.finish();
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let global = Global {
        asn: bgp.asn,
        router_id,
        listen: any.into_iter().map(|address| SocketAddr::new(address, PORT)).collect(),
        multipath: Some(Multipath { external_max: paths_max, internal_max: paths_max }),
        restart_deferral: Some(DEFERRAL),
        selection: Selection::default(),
        // What the kernel does not take is in the agent's status, with the reason.
        resolve_next_hops: Some(false),
        client_to_client: true,
    };
    let config = Config {
        global,
        neighbors,
        dynamic_neighbors,
        policy,
        mrt_dumps: BTreeMap::new(),
        stations: BTreeMap::new(),
        written: Written::default(),
        warnings: Vec::new(),
    };
    Some(Wanted { config, announced: announced(&ranges, local), names, problems })
}

fn announced(ranges: &Ranges, local: Local<'_>) -> BTreeMap<Prefix, Attributes> {
    let endpoints = local.endpoints.iter().map(|address| IpNet::from(*address));
    let all = ranges.own.iter().copied().chain(endpoints);
    all.map(|range| (Prefix::from(range), Attributes::local(Origin::Igp))).collect()
}

/// Ranges that decide who may say what.
struct Ranges {
    pools: Vec<IpNet>,
    /// Blocks of this node.
    own: Vec<IpNet>,
    /// Packets to pools go by the kernel's routes, not by the overlay.
    are_pools_routed: bool,
}

impl Ranges {
    fn of(view: &View, node: &NodeName) -> Self {
        let cidrs = view.pools().flat_map(|pool| &pool.cidrs);
        let own = view.blocks().filter(|block| block.node == node.as_str());
        Self {
            // What cannot be read is told with the network.
            pools: cidrs.filter_map(|cidr| cidr.parse().ok()).collect(),
            own: own.filter_map(|block| block.cidr.parse().ok()).collect(),
            are_pools_routed: false,
        }
    }
}

struct Builder<'a> {
    bgp: &'a stream::Bgp,
    local: Local<'a>,
    router_id: Ipv4Addr,
    ranges: &'a Ranges,
    policy: RoutePolicy,
    import: Vec<Statement>,
    export: Vec<Statement>,
    problems: Vec<String>,
}

impl Builder<'_> {
    fn finish(mut self) -> (RoutePolicy, Vec<String>) {
        for (name, statements) in [("import", self.import), ("export", self.export)] {
            self.policy.policies.push(PolicyDefinition { name: name.to_owned(), statements });
        }
        let assignment =
            |name: &str| Assignment { policies: vec![name.to_owned()], default: Disposition::Reject };
        (self.policy.import, self.policy.export) = (assignment("import"), assignment("export"));
        (self.policy, self.problems)
    }

    /// A neighbour and its part of the policy; `None` where its address cannot be read.
    fn peer(&mut self, peer: &stream::BgpPeer) -> Option<(IpNet, PeerSettings)> {
        let address = peer.address.parse::<IpAddr>().map(IpNet::from);
        let Ok(network) = address.or_else(|_| peer.address.parse()) else {
            self.problems.push(format!("BGP neighbour {}: \"{}\" is no address", peer.name, peer.address));
            return None;
        };
        self.policy.sets.neighbors.insert(peer.name.clone(), vec![network]);
        self.import_from(peer);
        self.export_to(peer);
        Some((network, self.settings(peer, network.addr())))
    }

    fn settings(&self, peer: &stream::BgpPeer, address: IpAddr) -> PeerSettings {
        let usual = if address.is_ipv4() { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
        let mut settings = PeerSettings::new(self.bgp.asn, Some(peer.asn).filter(|asn| *asn != 0), usual);
        let is_node = !peer.node.is_empty();
        settings.description.clone_from(&peer.name);
        settings.password = Some(peer.password.clone()).filter(|password| !password.is_empty()).map(Password);
        settings.timers.connect_retry = CONNECT_RETRY;
        if peer.hold_seconds != 0 {
            settings.timers.hold = Duration::from_secs(peer.hold_seconds.into());
            settings.timers.keepalive = settings.timers.hold / 3;
        }
        settings.transport.passive = peer.passive || peer.address.contains('/');
        // Nodes know each other by these addresses.
        settings.transport.local_address = is_node.then_some(self.local.address);
        settings.transport.remote_port =
            u16::try_from(peer.port).ok().filter(|port| *port != 0).unwrap_or(PORT);
        settings.distance = match u8::try_from(peer.multihop_ttl) {
            _ if peer.ttl_security => Distance::Secured { ttl_min: u8::MAX },
            Ok(0) if is_node => Distance::Hops(NODE_HOPS),
            Ok(0) => Distance::Usual,
            Ok(hops) => Distance::Hops(hops),
            Err(_) => Distance::Hops(u8::MAX),
        };
        settings.bfd = peer.bfd.then(BfdSettings::default);
        settings.reflector_client =
            peer.reflector_client.then(|| self.bgp.cluster_id.parse().unwrap_or(self.router_id));
        // Packets to other nodes of our AS need not come by us.
        settings.third_party_next_hop = is_node;
        settings.graceful_restart = (peer.restart_seconds != 0).then(|| GracefulRestart {
            restart_time: Duration::from_secs(peer.restart_seconds.into()),
            deferral_time: DEFERRAL,
            stale_routes_time: STALE_TIME,
            helper_only: false,
            notification: true,
            long_lived: false,
        });
        let named = |name: &String| Family::ALL.into_iter().find(|family| family.to_string() == *name);
        let families: Vec<_> = peer.families.iter().filter_map(named).collect();
        let families = if families.is_empty() { vec![usual] } else { families };
        let max = if is_node { NODE_PREFIXES_MAX } else { PREFIXES_MAX };
        let max_prefixes = if peer.prefixes_max == 0 { max } else { peer.prefixes_max };
        let family = |family| FamilySettings {
            prefix_limit: Some(PrefixLimit { max_prefixes, warn_percent: WARN_PERCENT }),
            graceful_restart: peer.restart_seconds != 0,
            ..FamilySettings::new(family)
        };
        settings.families = families.into_iter().map(family).collect();
        settings
    }

    /// What is taken: the first word that fits counts, and the last is no.
    fn import_from(&mut self, peer: &stream::BgpPeer) {
        let pools = within(&self.ranges.pools);
        let actions = Actions { local_pref: Some(peer.local_pref).filter(|pref| *pref != 0), ..accept() };
        let is_trusted = !peer.node.is_empty() || peer.import_own_pools;
        let of_pools = || if is_trusted && self.ranges.are_pools_routed { actions.clone() } else { reject() };
        let (of_borrowed, of_pools) = (of_pools(), of_pools());
        // Calico's nodes borrow single addresses out of others' blocks. Those of our containers lose against our own route.
        self.import(peer, "borrowed", singles(&self.ranges.own), of_borrowed);
        // Whoever says it: our own blocks are here.
        self.import(peer, "own", within(&self.ranges.own), reject());
        self.import(peer, "pools", pools, of_pools);
        let default = if peer.import_default_route { actions.clone() } else { reject() };
        self.import(peer, "default", defaults(), default);
        let listed = self.listed(peer, &peer.import);
        self.import(peer, "listed", listed, actions);
    }

    /// What is announced: blocks, and else what is listed. What came from outside is no exception towards nodes: unless told
    /// otherwise they would refuse it (see [`Self::import_from`]), and have the routers outside as neighbours themselves.
    fn export_to(&mut self, peer: &stream::BgpPeer) {
        let actions = Actions { community: self.communities(peer), ..accept() };
        let is_node = !peer.node.is_empty();
        let local = || Conditions { route_type: Some(RouteType::Local), ..Conditions::default() };
        if !self.bgp.announce_endpoints {
            self.export(peer, "containers", singles(&self.ranges.own), local(), reject());
        }
        if is_node || peer.export_blocks {
            let own = within(&self.ranges.own);
            self.export(peer, "blocks", own, local(), actions.clone());
        }
        if is_node {
            // Nodes tell of their blocks themselves, and nobody carries for others. But where an AS has reflectors, only they
            // have neighbours in other ASes, and tell both sides. The next hop stays the node that has the block.
            let (reflects, is_inside) = (!self.bgp.cluster_id.is_empty(), peer.asn == self.bgp.asn);
            for (what, kind, carried) in [
                ("pools from other ASes", RouteType::External, reflects && is_inside),
                ("pools from our AS", RouteType::Internal, reflects || is_inside),
            ] {
                let conditions = Conditions { route_type: Some(kind), ..Conditions::default() };
                let carried = if carried { actions.clone() } else { reject() };
                self.export(peer, what, within(&self.ranges.pools), conditions, carried);
            }
        }
        let listed = self.listed(peer, &peer.export);
        if is_node {
            // A node need not have a way to the router outside that said it.
            let external = Conditions { route_type: Some(RouteType::External), ..Conditions::default() };
            let own = Actions { next_hop: Some(NextHopAction::Own), ..actions.clone() };
            self.export(peer, "export from outside", listed.clone(), external, own);
        }
        self.export(peer, "export", listed, Conditions::default(), actions);
    }

    fn import(&mut self, peer: &stream::BgpPeer, what: &str, ranges: Vec<PrefixRange>, actions: Actions) {
        if !ranges.is_empty() {
            let statement = self.statement(peer, what, ranges, Conditions::default(), actions);
            self.import.push(statement);
        }
    }

    fn export(
        &mut self,
        peer: &stream::BgpPeer,
        what: &str,
        ranges: Vec<PrefixRange>,
        conditions: Conditions,
        actions: Actions,
    ) {
        if !ranges.is_empty() {
            let statement = self.statement(peer, what, ranges, conditions, actions);
            self.export.push(statement);
        }
    }

    fn statement(
        &mut self,
        peer: &stream::BgpPeer,
        what: &str,
        ranges: Vec<PrefixRange>,
        conditions: Conditions,
        actions: Actions,
    ) -> Statement {
        let matches = |set: String| SetMatch { set, option: MatchOption::Any };
        let set = format!("{} {what}", peer.name);
        self.policy.sets.prefixes.insert(set.clone(), ranges);
        let prefix = Some(matches(set.clone()));
        let conditions = Conditions { prefix, neighbor: Some(matches(peer.name.clone())), ..conditions };
        Statement { name: set, conditions, actions }
    }

    fn listed(&mut self, peer: &stream::BgpPeer, list: &[stream::PrefixMatch]) -> Vec<PrefixRange> {
        let mut ranges = Vec::new();
        for entry in list {
            let Ok(prefix) = entry.cidr.parse::<IpNet>() else {
                self.problems.push(format!("BGP neighbour {}: \"{}\" is no CIDR", peer.name, entry.cidr));
                continue;
            };
            let len = |len: u32, usual: u8| u8::try_from(len).ok().filter(|len| *len != 0).unwrap_or(usual);
            let len_min = len(entry.len_min, prefix.prefix_len());
            // Without bounds it is this prefix alone.
            let len_max = len(
                entry.len_max,
                if entry.len_min == 0 { prefix.prefix_len() } else { prefix.max_prefix_len() },
            );
            ranges.push(PrefixRange { prefix, len_min, len_max });
        }
        ranges
    }

    fn communities(&mut self, peer: &stream::BgpPeer) -> Option<CommunityAction<u32>> {
        let mut communities = Vec::new();
        for text in &peer.communities {
            match community(text) {
                Some(community) => communities.push(community),
                None => self
                    .problems
                    .push(format!("BGP neighbour {}: \"{text}\" is no community like 64512:7", peer.name)),
            }
        }
        (!communities.is_empty()).then_some(CommunityAction::Add(communities))
    }
}

fn accept() -> Actions {
    Actions { disposition: Some(Disposition::Accept), ..Actions::default() }
}

fn reject() -> Actions {
    Actions { disposition: Some(Disposition::Reject), ..Actions::default() }
}

/// These ranges and all within.
fn within(ranges: &[IpNet]) -> Vec<PrefixRange> {
    let range = |prefix: &IpNet| PrefixRange {
        prefix: *prefix,
        len_min: prefix.prefix_len(),
        len_max: prefix.max_prefix_len(),
    };
    ranges.iter().map(range).collect()
}

/// The single addresses within these ranges, but for ranges of one.
fn singles(ranges: &[IpNet]) -> Vec<PrefixRange> {
    let single = |prefix: &IpNet| PrefixRange {
        prefix: *prefix,
        len_min: prefix.max_prefix_len(),
        len_max: prefix.max_prefix_len(),
    };
    ranges.iter().filter(|prefix| prefix.prefix_len() < prefix.max_prefix_len()).map(single).collect()
}

/// The default routes.
fn defaults() -> Vec<PrefixRange> {
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let range = |address| PrefixRange { prefix: IpNet::new_assert(address, 0), len_min: 0, len_max: 0 };
    any.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests;
