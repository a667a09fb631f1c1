//! What one node is told of its own: how it speaks BGP, with whom, and which ranges belong to networks without agents.
//!
//! ```text
//! clusters (AS, topology), nodes (AS, reflector, labels), bgpPeers, external clusters' pools
//!      \--> of_node(view, node) --> key -> (version, message)
//! ```
//!
//! A pure function of the view, worked out as a whole: whoever holds an older plan sends what differs. The version of a
//! message is the hash of its bytes, so that an agent keeps what it holds over a restart of the server.

use super::{View, ViewKey};
use crate::kinds::{PeerAddress, StoredBgpPeer, StoredCluster, StoredNode, StoredPrefixMatch};
use isthmus_api::stream::{self, upsert::Value};
use isthmus_core::{Asn, Identity, Topology};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
};

/// Graceful restart between our own nodes, in seconds: longer than an agent takes to be replaced.
const RESTART_SECONDS: u32 = 120;

/// Keys of a node's own, each with its version and message.
pub(crate) type Plan = BTreeMap<ViewKey, (u64, Value)>;

/// What a node needs of its own.
pub(crate) fn of_node(view: &View, node: &str) -> Plan {
    let mut plan = Plan::new();
    if let Some(network) = &view.network {
        let message = stream::Network {
            encapsulation: network.value.encapsulation().as_str().to_owned(),
            source_check: network.value.source_check().as_str().to_owned(),
        };
        plan.insert(ViewKey::Network, (version(&message), Value::Network(message)));
    }
    for message in foreign(view) {
        if let Ok(cidr) = message.cidr.parse() {
            plan.insert(ViewKey::Foreign(cidr), (version(&message), Value::Foreign(message)));
        }
    }
    let speakers = speakers(view);
    let Some(own) = speakers.get(node) else { return plan };
    let message = stream::Bgp {
        asn: own.asn.number(),
        router_id: own.router_id.to_string(),
        announce_endpoints: own.clusters(view).any(|cluster| cluster.announce_endpoints),
        // Of several clusters the one that takes the fewest: somebody's routers or rules bear no more.
        paths_max: own.clusters(view).filter_map(|cluster| cluster.paths_max).min().map_or(0, u32::from),
        cluster_id: own.node.settings.reflector.map(|id| id.to_string()).unwrap_or_default(),
    };
    plan.insert(ViewKey::Bgp, (version(&message), Value::Bgp(message)));
    for message in declared(view, own).into_iter().chain(meshed(view, own, &speakers)) {
        plan.insert(ViewKey::BgpPeer(message.name.clone()), (version(&message), Value::BgpPeer(message)));
    }
    plan
}

fn version(message: &impl Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

/// Ranges of networks that have no agents. One whose cluster has no identity yet comes with it.
fn foreign(view: &View) -> Vec<stream::Foreign> {
    let mut ranges = Vec::new();
    for pool in view.pools.values().map(|held| &held.value).filter(|pool| view.is_external(&pool.cluster)) {
        let identity = if pool.world { Some(Identity::WORLD) } else { view.external_identity(&pool.cluster) };
        let Some(identity) = identity else { continue };
        ranges.extend(pool.cidrs.iter().map(|cidr| stream::Foreign {
            cidr: cidr.to_string(),
            identity: identity.number(),
            cluster: pool.cluster.clone(),
        }));
    }
    ranges
}

/// A node that speaks BGP.
struct Speaker<'a> {
    name: &'a str,
    node: &'a StoredNode,
    asn: Asn,
    router_id: Ipv4Addr,
    /// Peers with other nodes by itself.
    meshed: bool,
}

impl<'a> Speaker<'a> {
    /// The clusters that it serves.
    fn clusters(&self, view: &'a View) -> impl Iterator<Item = &'a StoredCluster> {
        self.node.clusters.iter().filter_map(|name| Some(&view.clusters.get(name)?.value))
    }

    fn is_reflector(&self) -> bool {
        self.node.settings.reflector.is_some()
    }
}

/// All nodes that speak BGP: they have an AS, or one of their clusters has.
fn speakers(view: &View) -> BTreeMap<&str, Speaker<'_>> {
    view.nodes
        .iter()
        .filter_map(|(name, held)| Some((name.as_str(), speaker(view, name, &held.value)?)))
        .collect()
}

fn speaker<'a>(view: &View, name: &'a str, node: &'a StoredNode) -> Option<Speaker<'a>> {
    let clusters = || node.clusters.iter().filter_map(|name| Some(&view.clusters.get(name)?.value));
    let own = node.settings.asn.and_then(|number| Asn::new(number).ok());
    let asn = own.or_else(|| clusters().find_map(StoredCluster::asn))?;
    // Where only the node itself has an AS, each of its clusters counts.
    let counts = |asn: Option<Asn>| asn.is_some() || own.is_some();
    let meshed = clusters().any(|cluster| counts(cluster.asn()) && cluster.topology() == Topology::FullMesh);
    Some(Speaker { name, node, asn, router_id: router_id(node), meshed })
}

/// The tunnel's address; the first IPv4 address of a node whose tunnel is IPv6; else its number, which no other has
/// (RFC 6286: unique within the AS, not zero).
fn router_id(node: &StoredNode) -> Ipv4Addr {
    let v4 = node.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    v4.unwrap_or_else(|| Ipv4Addr::from(node.number))
}

/// The bgpPeers that pick a node. Of two at one address the first by name counts.
fn declared(view: &View, own: &Speaker<'_>) -> Vec<stream::BgpPeer> {
    let (clusters, labels) = (&own.node.clusters, &own.node.settings.labels);
    let mut taken = BTreeSet::new();
    view.bgp_peers
        .iter()
        .map(|(name, held)| (name, &held.value))
        .filter(|(_, peer)| peer.selects(own.name, clusters, labels))
        .filter(|(_, peer)| !is_own(own, peer.address))
        .filter(|(_, peer)| taken.insert(peer.address))
        .map(|(name, peer)| declared_message(view, name, peer))
        .collect()
}

fn is_own(own: &Speaker<'_>, address: PeerAddress) -> bool {
    matches!(address, PeerAddress::One(address) if own.node.addresses.contains(&address))
}

fn declared_message(view: &View, name: &str, peer: &StoredBgpPeer) -> stream::BgpPeer {
    let node = view.nodes.iter().find(|(_, held)| {
        matches!(peer.address, PeerAddress::One(address) if held.value.addresses.contains(&address))
    });
    stream::BgpPeer {
        name: name.to_owned(),
        address: peer.address.to_string(),
        asn: peer.asn.unwrap_or(0),
        node: node.map(|(node, _)| node.clone()).unwrap_or_default(),
        passive: peer.passive,
        hold_seconds: peer.hold_seconds.unwrap_or(0),
        password: peer.password.as_ref().map(|secret| secret.0.clone()).unwrap_or_default(),
        multihop_ttl: peer.multihop_ttl.unwrap_or(0),
        ttl_security: peer.ttl_security,
        bfd: peer.bfd,
        restart_seconds: peer.restart_seconds,
        reflector_client: peer.reflector_client,
        import: peer.import.iter().map(prefix).collect(),
        import_own_pools: peer.import_own_pools,
        import_default_route: peer.import_default_route,
        export: peer.export.iter().map(prefix).collect(),
        export_blocks: peer.export_blocks,
        communities: peer.communities.clone(),
        prefixes_max: peer.prefixes_max,
        families: peer.families.clone(),
        local_pref: peer.local_pref.unwrap_or(0),
        port: peer.port.unwrap_or(0),
    }
}

fn prefix(prefix: &StoredPrefixMatch) -> stream::PrefixMatch {
    stream::PrefixMatch {
        cidr: prefix.cidr.to_string(),
        len_min: u32::from(prefix.len_min),
        len_max: u32::from(prefix.len_max),
    }
}

/// The other nodes that a node peers with by itself; those that are declared for it are not repeated.
fn meshed(view: &View, own: &Speaker<'_>, speakers: &BTreeMap<&str, Speaker<'_>>) -> Vec<stream::BgpPeer> {
    if !own.meshed {
        return Vec::new();
    }
    let (clusters, labels) = (&own.node.clusters, &own.node.settings.labels);
    let by_hand: BTreeSet<PeerAddress> = view
        .bgp_peers
        .values()
        .filter(|held| held.value.selects(own.name, clusters, labels))
        .map(|held| held.value.address)
        .collect();
    let meshed = || speakers.values().filter(|speaker| speaker.meshed);
    let reflected: BTreeSet<Asn> =
        meshed().filter(|speaker| speaker.is_reflector()).map(|speaker| speaker.asn).collect();
    meshed()
        .filter(|other| other.name != own.name && are_neighbours(own, other, &reflected))
        .filter_map(|other| Some((other, *other.node.addresses.first()?)))
        .filter(|(_, address)| !by_hand.contains(&PeerAddress::One(*address)))
        .map(|(other, address)| stream::BgpPeer {
            name: format!("node/{}", other.name),
            address: address.to_string(),
            asn: other.asn.number(),
            node: other.name.to_owned(),
            restart_seconds: RESTART_SECONDS,
            reflector_client: own.asn == other.asn && own.is_reflector() && !other.is_reflector(),
            export_blocks: true,
            ..stream::BgpPeer::default()
        })
        .collect()
}

/// Whether two nodes are neighbours by themselves. Where an AS has reflectors, only they have neighbours among all
/// others, in the same AS and in others (RFC 4456 section 1: that is what they are for).
fn are_neighbours(one: &Speaker<'_>, other: &Speaker<'_>, reflected: &BTreeSet<Asn>) -> bool {
    let speaks_for_itself =
        |speaker: &Speaker<'_>| speaker.is_reflector() || !reflected.contains(&speaker.asn);
    if one.asn == other.asn {
        speaks_for_itself(one) || speaks_for_itself(other)
    } else {
        speaks_for_itself(one) && speaks_for_itself(other)
    }
}

#[cfg(test)]
mod tests;
