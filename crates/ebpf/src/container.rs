//! The programs on the host side of a container's veth pair.

use crate::{
    NEXT, SHOT, answer,
    connection::{End, Fate, Passage, judge},
    deliver,
    event::{Told, tell},
    maps::{BLOCK, ENDPOINT_BY_ADDRESS, ENDPOINT_BY_IFINDEX, NODE, gateway, vxlan_port},
    packet::{
        ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, NOBODY, Packet, UDP, ethertype, ifindex, mark, parse,
        pull, read, tagged,
    },
};
use aya_ebpf::{maps::lpm_trie::Key, programs::TcContext};
use isthmus_dataplane_common::{
    BLOCK_LOCAL, BLOCK_PREFIX_MAX, BlockKey, BlockValue, EndpointValue, MARK_CONTAINER, MARK_MAPPED, MARK_MASK,
    MARK_NODE, Reason, SLOT_NONE, identity, mapped,
};

/// Ethernet, IPv4, TCP without options: what is read of most packets.
const HEADERS_BYTES: usize = ETHERNET_BYTES + 20 + 20;

/// All that a container sends.
#[inline(always)]
pub fn from_container(ctx: &TcContext) -> i32 {
    // SAFETY: the value is only read; its fields change one at a time, and each is right for itself.
    let Some(endpoint) = (unsafe { ENDPOINT_BY_IFINDEX.get(ifindex(ctx)) }) else {
        return refuse(&NOBODY, identity::UNKNOWN, Reason::UnknownSender);
    };
    pull(ctx, HEADERS_BYTES);
    match check_source(ctx, endpoint) {
        Ok(Some(packet)) => send(ctx, endpoint, packet),
        Ok(None) => answer::arp(ctx, endpoint).unwrap_or_else(|reason| refuse(&NOBODY, endpoint.identity, reason)),
        Err(reason) => refuse(&blame(ctx), endpoint.identity, reason),
    }
}

/// Lets through only IPv4 with the endpoint's own addresses; `None` is ARP.
#[inline(always)]
fn check_source(ctx: &TcContext, endpoint: &EndpointValue) -> Result<Option<&'static Packet>, Reason> {
    let ethernet: [[u8; 6]; 2] = read(ctx, 0).ok_or(Reason::Malformed)?;
    let ethertype = ethertype(ctx, 12).ok_or(Reason::Malformed)?;
    if ethernet[1] != endpoint.mac {
        return Err(Reason::SpoofedMac);
    }
    if tagged(ctx) {
        return Err(Reason::NotIp);
    }
    match ethertype {
        ETHERTYPE_IPV4 => {}
        ETHERTYPE_ARP => return Ok(None),
        ETHERTYPE_IPV6 => return Err(Reason::Ipv6),
        _ => return Err(Reason::NotIp),
    }
    if ethernet[0][0] & 1 != 0 {
        return Err(Reason::Multicast);
    }
    let packet = parse::<ETHERNET_BYTES>(ctx)?;
    if packet.source != endpoint.address[3] {
        return Err(Reason::SpoofedAddress);
    }
    // 224.0.0.0/4 and 240.0.0.0/4: multicast, reserved, broadcast; 0.0.0.0/8 and loopback are nobody's.
    let first = packet.destination.to_ne_bytes()[0];
    if first >= 224 {
        return Err(Reason::Multicast);
    }
    if first == 0 || first == 127 || packet.destination == gateway() {
        return Err(Reason::NoRoute);
    }
    Ok(Some(packet))
}

/// Finds the destination, asks for a verdict, sends.
#[inline(always)]
fn send(ctx: &TcContext, endpoint: &EndpointValue, packet: &Packet) -> i32 {
    let from = end(endpoint);
    // SAFETY: as in `from_container`.
    if let Some(target) = unsafe { ENDPOINT_BY_ADDRESS.get(mapped(packet.destination)) } {
        let passage = Passage { packet, from, to: end(target), node: 0, otherwise: Reason::Rule };
        return match judge(&passage) {
            Fate::Pass => deliver::to_endpoint(ctx, target),
            Fate::Drop => SHOT,
            Fate::Reject => answer::refused_here(ctx, packet),
        };
    }
    if let Some(block) = block(packet.destination) {
        if block.flags & BLOCK_LOCAL != 0 {
            return refuse(packet, endpoint.identity, Reason::UnknownEndpoint);
        }
        if block.node == 0 {
            return refuse(packet, endpoint.identity, Reason::NoRoute);
        }
        return send_away(ctx, from, packet, block);
    }
    // SAFETY: as in `from_container`.
    if let Some(node) = unsafe { NODE.get(mapped(packet.destination)) } {
        if packet.protocol == UDP && packet.destination_port == vxlan_port() {
            return refuse(packet, endpoint.identity, Reason::OverlayFromContainer);
        }
        if node.own == 0 {
            return send_away(ctx, from, packet, &node.way);
        }
        return send_up(ctx, from, packet, identity::HOST, Reason::Node);
    }
    send_up(ctx, from, packet, identity::WORLD, Reason::Outbound)
}

/// Through the overlay; the receiver's node decides.
#[inline(always)]
fn send_away(ctx: &TcContext, from: End, packet: &Packet, way: &BlockValue) -> i32 {
    let to = End::elsewhere(identity::NONE);
    let passage = Passage { packet, from, to, node: way.node, otherwise: Reason::Outbound };
    if judge(&passage) == Fate::Pass { deliver::to_node(ctx, packet, way, from.identity) } else { SHOT }
}

/// To the host's stack: the node itself, or the outside.
#[inline(always)]
fn send_up(ctx: &TcContext, from: End, packet: &Packet, to: u32, otherwise: Reason) -> i32 {
    let passage = Passage { packet, from, to: End::elsewhere(to), node: 0, otherwise };
    if judge(&passage) == Fate::Pass { deliver::to_stack(ctx, MARK_CONTAINER) } else { SHOT }
}

/// What the host's stack sends to a container: from the node itself, or forwarded from outside.
#[inline(always)]
pub fn to_container(ctx: &TcContext) -> i32 {
    // SAFETY: as in `from_container`.
    let Some(endpoint) = (unsafe { ENDPOINT_BY_IFINDEX.get(ifindex(ctx)) }) else {
        return refuse(&NOBODY, identity::HOST, Reason::UnknownEndpoint);
    };
    pull(ctx, HEADERS_BYTES);
    match ethertype(ctx, 12) {
        Some(ETHERTYPE_IPV4) => {}
        // The host asks who has the container's address only if its permanent neighbour entry was removed.
        Some(ETHERTYPE_ARP) => return NEXT,
        Some(ETHERTYPE_IPV6) => return refuse(&NOBODY, identity::HOST, Reason::Ipv6),
        _ => return refuse(&NOBODY, identity::HOST, Reason::NotIp),
    }
    let packet = match parse::<ETHERNET_BYTES>(ctx) {
        Ok(packet) => packet,
        Err(reason) => return refuse(&NOBODY, identity::HOST, reason),
    };
    if packet.destination != endpoint.address[3] {
        return refuse(packet, identity::HOST, Reason::UnknownEndpoint);
    }
    let (from, otherwise) = match mark(ctx) & MARK_MASK {
        MARK_NODE => (identity::HOST, Reason::Node),
        MARK_MAPPED => (identity::WORLD, Reason::MappedPort),
        _ => (identity::WORLD, Reason::NotMapped),
    };
    // No rule of the endpoint applies: the node is always allowed, the outside only through mapped ports.
    let to = End { slot: SLOT_NONE, ..end(endpoint) };
    let passage = Passage { packet, from: End::elsewhere(from), to, node: 0, otherwise };
    if judge(&passage) == Fate::Pass { NEXT } else { SHOT }
}

/// Who has an address.
#[inline(always)]
pub fn block(address: u32) -> Option<&'static BlockValue> {
    BLOCK.get(Key::new(BLOCK_PREFIX_MAX, BlockKey { scope: 0, address: mapped(address) }))
}

/// An endpoint as an end of a connection.
#[inline(always)]
pub fn end(endpoint: &EndpointValue) -> End {
    End { identity: endpoint.identity, birth: endpoint.birth, slot: endpoint.slot }
}

/// Drops and tells.
#[inline(always)]
pub fn refuse(packet: &Packet, from: u32, reason: Reason) -> i32 {
    tell(packet, &Told { from, to: identity::NONE, rule: 0, reason });
    SHOT
}

/// Addresses of a packet that is not parsed further, for its event.
#[inline(always)]
pub fn blame(ctx: &TcContext) -> Packet {
    let mut packet = NOBODY;
    if ethertype(ctx, 12) == Some(ETHERTYPE_IPV4) {
        if let Some(addresses) = read::<[u32; 2]>(ctx, ETHERNET_BYTES + 12) {
            packet.source = addresses[0];
            packet.destination = addresses[1];
        }
        if let Some(protocol) = read::<u8>(ctx, ETHERNET_BYTES + 9) {
            packet.protocol = protocol;
        }
    }
    packet
}
