//! What the node knows of the network: nodes, blocks, pools, foreign ranges and peers in the maps, pools routed to the
//! VXLAN device.

use crate::{
    error::ApplyError,
    host::mapped_address,
    model::{Encapsulation, Network, SourceCheck},
    netlink::{Netlink, Route, Way},
    program::Maps,
    sys::map::Prefixed,
};
use ipnet::{IpNet, Ipv4Net};
use isthmus_dataplane_common::{
    BLOCK_BORROWED, BLOCK_FOREIGN, BLOCK_LOCAL, BLOCK_NATIVE, BLOCK_OVERLAY_ELSE, BLOCK_PREFIX_IPV4,
    BlockKey, BlockValue, LAYOUT_VERSION, NATIVE_ACCEPTED, NATIVE_STRICT, NodeValue,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
};

/// Where the overlay leaves and enters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlay {
    pub(crate) tunnel_address: Ipv4Addr,
    pub(crate) vxlan_ifindex: u32,
    pub(crate) mtu: u32,
}

/// Whether a network is all there is, or only what is known so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What is not in it goes.
    #[default]
    Whole,
    /// What is missing is added; what is there stays, also where it differs, because it may be newer.
    Known,
}

/// Makes maps and routes as `network` says. Returns the interfaces that packets to other nodes leave by.
pub(crate) fn apply(
    maps: &Maps,
    netlink: &mut Netlink,
    overlay: &Overlay,
    network: &Network,
    extent: Extent,
) -> Result<BTreeSet<u32>, ApplyError> {
    let ways = ways(netlink, overlay, network)?;
    let own = own_number(overlay, network);
    let nodes = apply_nodes(maps, network, &ways, own, extent)?;
    let blocks = apply_blocks(maps, network, &ways, own, extent)?;
    let peers = apply_peers(maps, network, extent)?;
    let accepted = set_config(maps, overlay, network, own, extent)?;
    if nodes || blocks || peers || accepted {
        maps.begin_epoch().map_err(ApplyError::of("tell connections of the changed network"))?;
    }
    apply_routes(netlink, overlay, network, extent)?;
    apply_unreachable(netlink, network, own, extent)?;
    let others: Vec<_> = ways
        .values()
        .filter(|way| way.node != own && way.ifindex != 0)
        .map(|way| (way.ifindex, next_hop(way)))
        .collect();
    apply_neighbours(netlink, &others.iter().copied().collect(), extent);
    Ok(others.into_iter().map(|(ifindex, _)| ifindex).collect())
}

fn next_hop(way: &BlockValue) -> Ipv4Addr {
    Ipv4Addr::from_octets(way.next_hop.to_ne_bytes())
}

/// Next hops that are kept resolved: a quarter of the neighbours that a kernel keeps by default (`gc_thresh3`), so that
/// there is room for others'.
const NEIGHBOURS_MAX: usize = 256;

/// Keeps next hops resolved. Without it, as on kernels before 5.16, packets still find their way, a little slower after an
/// idle time: so no failure is one.
fn apply_neighbours(netlink: &mut Netlink, desired: &BTreeSet<(u32, Ipv4Addr)>, extent: Extent) {
    let Ok(present) = netlink.our_neighbours() else { return };
    if extent == Extent::Whole {
        for (ifindex, address) in present.iter().filter(|neighbour| !desired.contains(*neighbour)) {
            let _ = netlink.forget_neighbour(*ifindex, *address);
        }
    }
    let missing = desired.iter().take(NEIGHBOURS_MAX).filter(|neighbour| !present.contains(neighbour));
    for (ifindex, address) in missing {
        let _ = netlink.manage_neighbour(*ifindex, *address);
    }
}

/// Number of this node: the one that has our tunnel address.
fn own_number(overlay: &Overlay, network: &Network) -> u32 {
    let own = IpAddr::V4(overlay.tunnel_address);
    network.nodes.iter().find(|node| node.addresses.contains(&own)).map_or(0, |node| node.number)
}

/// The way to each node that can be reached.
fn ways(
    netlink: &mut Netlink,
    overlay: &Overlay,
    network: &Network,
) -> Result<BTreeMap<u32, BlockValue>, ApplyError> {
    let mut ways = BTreeMap::new();
    for node in &network.nodes {
        // An IPv6 underlay is not forwarded yet; such a node is known but has no way.
        let Some(IpAddr::V4(tunnel)) = node.addresses.first().copied() else { continue };
        let way = if tunnel == overlay.tunnel_address {
            None
        } else {
            netlink.way(tunnel).map_err(ApplyError::of(format!("find the route to node address {tunnel}")))?
        };
        let way = way.unwrap_or(Way { ifindex: 0, next_hop: tunnel });
        let is_on_link = way.ifindex != 0 && way.next_hop == tunnel;
        let flags = match network.encapsulation {
            _ if tunnel == overlay.tunnel_address => 0,
            Encapsulation::Never => BLOCK_NATIVE,
            Encapsulation::CrossSubnet if is_on_link => BLOCK_NATIVE | BLOCK_OVERLAY_ELSE,
            Encapsulation::CrossSubnet | Encapsulation::Always => 0,
        };
        let value = BlockValue {
            node: node.number,
            flags,
            tunnel: u32::from_ne_bytes(tunnel.octets()),
            next_hop: u32::from_ne_bytes(way.next_hop.octets()),
            ifindex: way.ifindex,
            ..BlockValue::default()
        };
        ways.insert(node.number, value);
    }
    Ok(ways)
}

/// Writes what programs read beside the maps. Whether something changed that connections were judged by.
fn set_config(
    maps: &Maps,
    overlay: &Overlay,
    network: &Network,
    node: u32,
    extent: Extent,
) -> Result<bool, ApplyError> {
    let native = accepts_native(network);
    let (low, high) = hull(network, node);
    let mut changed = false;
    let written = maps.change_config(|config| {
        let floor = if config.path_mtu_floor == 0 { overlay.mtu } else { config.path_mtu_floor };
        config.layout = LAYOUT_VERSION;
        config.mtu = overlay.mtu;
        config.path_mtu_floor = floor.min(overlay.mtu);
        config.node = node;
        let before = (config.native, config.local_low, config.local_high);
        // What an earlier agent left may be newer than what this one remembers.
        if extent == Extent::Whole || config.native == 0 {
            config.native = native;
        }
        if extent == Extent::Whole || config.local_high == 0 {
            (config.local_low, config.local_high) = (low, high);
        }
        changed = before != (config.native, config.local_low, config.local_high);
    });
    written.map(|()| changed).map_err(ApplyError::of("write the programs' configuration"))
}

/// Whether packets come for containers without encapsulation, and how their sources are checked.
pub(crate) fn accepts_native(network: &Network) -> u32 {
    if network.encapsulation == Encapsulation::Always && network.foreign.is_empty() {
        return 0;
    }
    match network.source_check {
        SourceCheck::Strict => NATIVE_ACCEPTED | NATIVE_STRICT,
        SourceCheck::Loose => NATIVE_ACCEPTED,
    }
}

/// First and last address between which all blocks of this node lie.
fn hull(network: &Network, own: u32) -> (u32, u32) {
    let blocks = network.blocks.iter().filter(|entry| entry.node == own);
    let blocks = blocks.filter_map(|entry| ipv4(&entry.block));
    blocks.fold((u32::MAX, 0), |(low, high), block| {
        (low.min(block.network().into()), high.max(block.broadcast().into()))
    })
}

/// Writes who has which address on other nodes.
fn apply_peers(maps: &Maps, network: &Network, extent: Extent) -> Result<bool, ApplyError> {
    let failed = |source| ApplyError { what: "write the table of peers' addresses".into(), source };
    let desired: BTreeMap<_, _> =
        network.peers.iter().map(|peer| (mapped_address(peer.address), peer.identity.number())).collect();
    let observed: BTreeMap<_, _> = maps.peer.entries().map_err(failed)?.into_iter().collect();
    let mut changed = false;
    if extent == Extent::Whole {
        let gone: Vec<_> =
            observed.keys().filter(|address| !desired.contains_key(*address)).copied().collect();
        maps.peer.remove_batch(&gone).map_err(failed)?;
        changed |= !gone.is_empty();
    }
    let missing = desired.iter().filter(|(address, peer)| differs(observed.get(*address), peer, extent));
    let (addresses, identities): (Vec<_>, Vec<_>) = missing.unzip();
    maps.peer.set_batch(&addresses, &identities).map_err(failed)?;
    Ok(changed || !addresses.is_empty())
}

fn apply_nodes(
    maps: &Maps,
    network: &Network,
    ways: &BTreeMap<u32, BlockValue>,
    own: u32,
    extent: Extent,
) -> Result<bool, ApplyError> {
    let mut desired = BTreeMap::new();
    for node in &network.nodes {
        let Some(way) = ways.get(&node.number) else { continue };
        for address in &node.addresses {
            let value = NodeValue { way: *way, own: u32::from(node.number == own), flags: 0 };
            desired.insert(mapped_address(*address), value);
        }
    }
    let failed = |source| ApplyError { what: "write the table of nodes".into(), source };
    let observed: BTreeMap<_, _> = maps.node.entries().map_err(failed)?.into_iter().collect();
    let mut changed = false;
    for (address, value) in &desired {
        if differs(observed.get(address), value, extent) {
            maps.node.set(address, value).map_err(failed)?;
            changed = true;
        }
    }
    if extent == Extent::Known {
        return Ok(changed);
    }
    for address in observed.keys().filter(|address| !desired.contains_key(*address)) {
        maps.node.remove(address).map_err(failed)?;
        changed = true;
    }
    Ok(changed)
}

fn apply_blocks(
    maps: &Maps,
    network: &Network,
    ways: &BTreeMap<u32, BlockValue>,
    own: u32,
    extent: Extent,
) -> Result<bool, ApplyError> {
    let mut desired = BTreeMap::new();
    for pool in &network.pools {
        desired.insert(key_bytes(*pool), (prefixed(*pool), BlockValue::default()));
    }
    for entry in &network.foreign {
        let identity = entry.identity.number();
        let value = BlockValue { flags: BLOCK_NATIVE | BLOCK_FOREIGN, identity, ..BlockValue::default() };
        desired.insert(key_bytes(entry.prefix), (prefixed(entry.prefix), value));
    }
    for entry in &network.blocks {
        let Some(way) = ways.get(&entry.node) else { continue };
        let flags = if entry.node == own { BLOCK_LOCAL } else { way.flags };
        desired.insert(key_bytes(entry.block), (prefixed(entry.block), BlockValue { flags, ..*way }));
    }
    let failed = |source| ApplyError { what: "write the table of blocks".into(), source };
    let mut observed = BTreeMap::new();
    for key in maps.block.keys().map_err(failed)? {
        if let Some(value) = maps.block.value(&key).map_err(failed)? {
            observed.insert((key.prefix_len, key.key.address), (key, value));
        }
    }
    let mut changed = false;
    for (bytes, (key, value)) in &desired {
        if differs(observed.get(bytes).map(|(_, value)| value), value, extent) {
            maps.block.set(key, value).map_err(failed)?;
            changed = true;
        }
    }
    if extent == Extent::Known {
        return Ok(changed);
    }
    // Borrowed addresses follow the kernel's routes (`route.rs`), where routes are followed at all.
    let follows_routes = accepts_native(network) != 0;
    let is_kept = |value: &BlockValue| follows_routes && value.flags & BLOCK_BORROWED != 0;
    for (bytes, (key, value)) in &observed {
        if !desired.contains_key(bytes) && !is_kept(value) {
            maps.block.remove(key).map_err(failed)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// The blocks of this node.
pub(crate) fn own_blocks(overlay: &Overlay, network: &Network) -> BTreeSet<Ipv4Net> {
    let own = own_number(overlay, network);
    network.blocks.iter().filter(|entry| entry.node == own).filter_map(|entry| ipv4(&entry.block)).collect()
}

/// Whether the kernel's value has to be written.
fn differs<T: PartialEq>(observed: Option<&T>, desired: &T, extent: Extent) -> bool {
    match (observed, extent) {
        (Some(observed), Extent::Whole) => observed != desired,
        (observed, _) => observed.is_none(),
    }
}

fn prefixed(net: IpNet) -> Prefixed {
    let prefix_len = match net {
        IpNet::V4(net) => BLOCK_PREFIX_IPV4 + u32::from(net.prefix_len()),
        IpNet::V6(net) => 32 + u32::from(net.prefix_len()),
    };
    Prefixed { prefix_len, key: BlockKey { scope: 0, address: mapped_address(net.network()) } }
}

fn key_bytes(net: IpNet) -> (u32, [u32; 4]) {
    let key = prefixed(net);
    (key.prefix_len, key.key.address)
}

/// Pools go to the VXLAN device, unless nothing is encapsulated; routes to local containers are longer, and win.
fn apply_routes(
    netlink: &mut Netlink,
    overlay: &Overlay,
    network: &Network,
    extent: Extent,
) -> Result<(), ApplyError> {
    let failed = |source: io::Error| ApplyError { what: "route the pools to the overlay".into(), source };
    let pools: BTreeSet<Ipv4Net> = match network.encapsulation {
        Encapsulation::Always | Encapsulation::CrossSubnet => network.pools.iter().filter_map(ipv4).collect(),
        // Where no other route leads, nothing leads.
        Encapsulation::Never => BTreeSet::new(),
    };
    let present = netlink.our_routes(overlay.vxlan_ifindex).map_err(failed)?;
    let route = |destination, prefix_len| Route {
        destination,
        prefix_len,
        ifindex: overlay.vxlan_ifindex,
        gateway: None,
        source: Some(overlay.tunnel_address),
    };
    for pool in &pools {
        if !present.contains(&(pool.network(), pool.prefix_len())) {
            netlink.set_route(&route(pool.network(), pool.prefix_len())).map_err(failed)?;
        }
    }
    if extent == Extent::Known {
        return Ok(());
    }
    for (destination, prefix_len) in present {
        if !pools.iter().any(|pool| (pool.network(), pool.prefix_len()) == (destination, prefix_len)) {
            netlink.remove_route(&route(destination, prefix_len)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Where the pools are not routed to the VXLAN device, this node's blocks are unreachable but for its containers, whose routes
/// are longer: what is sent to an address that nobody has would else leave by the default route, and come back.
fn apply_unreachable(
    netlink: &mut Netlink,
    network: &Network,
    own: u32,
    extent: Extent,
) -> Result<(), ApplyError> {
    let failed = |source: io::Error| ApplyError { what: "route this node's blocks".into(), source };
    let blocks = network.blocks.iter().filter(|entry| entry.node == own);
    let desired: BTreeSet<Ipv4Net> = match network.encapsulation {
        Encapsulation::Never => blocks.filter_map(|entry| ipv4(&entry.block)).collect(),
        Encapsulation::Always | Encapsulation::CrossSubnet => BTreeSet::new(),
    };
    let present: BTreeSet<_> = netlink.our_unreachable().map_err(failed)?.into_iter().collect();
    for block in desired.difference(&present) {
        netlink.set_unreachable(*block).map_err(failed)?;
    }
    if extent == Extent::Whole {
        for block in present.difference(&desired) {
            netlink.remove_unreachable(*block).map_err(failed)?;
        }
    }
    Ok(())
}

fn ipv4(net: &IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    }
}
