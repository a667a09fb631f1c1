//! The programs on the host side of a container's veth pair.

use crate::{
    NEXT, SHOT,
    answer::{self, GATEWAY},
    connection::{Fate, judge, tell_refused},
    deliver,
    event::{Told, tell},
    known,
    maps::{self, BLOCK, ENDPOINT_BY_ADDRESS, NODE, vxlan_port},
    native,
    packet::{
        ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac, Macs, NOBODY, Packet, UDP, again,
        ethertype, ifindex, mark, parse, pull, read, tagged,
    },
    passage::{End, Passage},
};
use aya_ebpf::{maps::lpm_trie::Key, programs::TcContext};
use isthmus_dataplane_common::{
    BLOCK_FOREIGN, BLOCK_LOCAL, BLOCK_NATIVE, BLOCK_PREFIX_MAX, BlockKey, BlockValue, EndpointValue,
    MARK_MAPPED, MARK_MASK, MARK_NODE, Reason, SLOT_NONE, identity, mapped,
};

/// Ethernet, IPv4, TCP without options: what is read of most packets.
const HEADERS_BYTES: usize = ETHERNET_BYTES + 20 + 20;

/// All that a container sends.
#[inline(always)]
pub fn from_container(ctx: &TcContext) -> i32 {
    let action = known::from_container(ctx);
    if action != known::NEW && action != known::OTHER {
        return action;
    }
    // The long way, in steps one after the other: the stack is not deep enough for one within the other.
    let action = route_container(again(ctx), u32::from(action == known::NEW));
    if action == JUDGE { conclude_container(again(ctx)) } else { action }
}

/// Instead of an action: the passage at hand has to be judged.
pub const JUDGE: i32 = -1002;

/// Checks who sends, and finds where the packet leads; `new`: the connection is not in the table.
#[inline(never)]
fn route_container(ctx: TcContext, new: u32) -> i32 {
    let ctx = &ctx;
    let Some(passage) = Passage::begin() else { return SHOT };
    passage.new = new;
    passage.packet = NOBODY;
    let Some(endpoint) = maps::endpoint(ifindex(ctx)) else {
        return refuse(&passage.packet, identity::UNKNOWN, Reason::UnknownSender);
    };
    pull(ctx, HEADERS_BYTES);
    match check_source(ctx, endpoint, &mut passage.packet) {
        Ok(ETHERTYPE_ARP) => {
            let action = answer::arp(again(ctx), endpoint);
            if action >= answer::REFUSED {
                return refuse_number(&passage.packet, endpoint.identity, (action - answer::REFUSED) as u32);
            }
            return action;
        }
        Ok(_) => {}
        Err(reason) => return refuse_source(ctx, endpoint.identity, reason as u32),
    }
    match find_target(ctx, endpoint, passage) {
        Ok(()) => JUDGE,
        Err(Reason::Unrouted) => {
            refuse(&passage.packet, endpoint.identity, Reason::Unrouted);
            answer::unreachable(ctx, &passage.packet)
        }
        Err(reason) => refuse(&passage.packet, endpoint.identity, reason),
    }
}

/// Judges the passage at hand, and has it leave if it may.
#[inline(never)]
fn conclude_container(ctx: TcContext) -> i32 {
    let ctx = &ctx;
    let Some(passage) = Passage::at_hand() else { return SHOT };
    match judge(passage) {
        Fate::Pass => deliver::deliver(ctx, passage),
        Fate::Drop => SHOT,
        Fate::Reject => {
            tell_refused(passage);
            answer::refused_here(ctx, &passage.packet)
        }
    }
}

/// Lets through only IPv4 with the endpoint's own addresses, and ARP; returns which of both.
#[inline(always)]
fn check_source(ctx: &TcContext, endpoint: &EndpointValue, packet: &mut Packet) -> Result<u16, Reason> {
    let macs = Macs::read(ctx).ok_or(Reason::Malformed)?;
    let ethertype = ethertype(ctx, 12).ok_or(Reason::Malformed)?;
    if macs.source() != Mac::of(endpoint.mac) {
        return Err(Reason::SpoofedMac);
    }
    if tagged(ctx) {
        return Err(Reason::NotIp);
    }
    match ethertype {
        ETHERTYPE_IPV4 => {}
        ETHERTYPE_ARP => return Ok(ethertype),
        ETHERTYPE_IPV6 => return Err(Reason::Ipv6),
        _ => return Err(Reason::NotIp),
    }
    if macs.to_many() {
        return Err(Reason::Multicast);
    }
    parse::<ETHERNET_BYTES>(ctx, packet)?;
    if packet.source != endpoint.address[3] {
        return Err(Reason::SpoofedAddress);
    }
    // 224.0.0.0/4 and 240.0.0.0/4: multicast, reserved, broadcast; 0.0.0.0/8 and loopback are nobody's.
    let first = packet.destination.to_ne_bytes()[0];
    if first >= 224 {
        return Err(Reason::Multicast);
    }
    if first == 0 || first == 127 || packet.destination == GATEWAY {
        return Err(Reason::NoRoute);
    }
    Ok(ethertype)
}

/// Finds where the packet leads.
#[inline(always)]
fn find_target(ctx: &TcContext, endpoint: &EndpointValue, passage: &mut Passage) -> Result<(), Reason> {
    let from = End::here(endpoint);
    let destination = passage.packet.destination;
    // SAFETY: the value is only read; an update replaces it whole.
    if let Some(target) = unsafe { ENDPOINT_BY_ADDRESS.get(mapped(destination)) } {
        passage.into_endpoint(from, target, 0);
        return Ok(());
    }
    let block = block(destination);
    if let Some(block) = block
        && block.flags & BLOCK_FOREIGN == 0
    {
        if block.flags & BLOCK_LOCAL != 0 {
            return Err(Reason::UnknownEndpoint);
        }
        if block.node == 0 {
            return Err(Reason::NoRoute);
        }
        return lead_out(ctx, passage, from, block);
    }
    // SAFETY: as above.
    let Some(node) = (unsafe { NODE.get(mapped(destination)) }) else {
        if let Some(foreign) = block {
            return lead_out(ctx, passage, from, foreign);
        }
        passage.by_stack(from, End::elsewhere(identity::WORLD), Reason::Outbound);
        return Ok(());
    };
    if passage.packet.protocol == UDP && passage.packet.destination_port == vxlan_port() {
        return Err(Reason::OverlayFromContainer);
    }
    if node.own == 0 {
        return lead_out(ctx, passage, from, &node.way);
    }
    passage.by_stack(from, End::elsewhere(identity::HOST), Reason::Node);
    Ok(())
}

/// Leads to another node or network: as the packet is where its way is native, else through the overlay.
#[inline(always)]
fn lead_out(ctx: &TcContext, passage: &mut Passage, from: End, way: &BlockValue) -> Result<(), Reason> {
    passage.way = *way;
    if way.flags & BLOCK_NATIVE != 0 {
        if native::find_way(again(ctx), passage, from.ifindex, 0) != 0 {
            return Err(Reason::Unrouted);
        }
        if passage.way.flags & BLOCK_NATIVE != 0 {
            passage.by_route(from);
            return Ok(());
        }
    }
    passage.to_node(from);
    Ok(())
}

/// What the host's stack sends to a container: from the node itself, or forwarded from outside.
#[inline(always)]
pub fn to_container(ctx: &TcContext) -> i32 {
    let Some(passage) = Passage::begin() else { return SHOT };
    let Some(endpoint) = maps::endpoint(ifindex(ctx)) else {
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
    if let Err(reason) = parse::<ETHERNET_BYTES>(ctx, &mut passage.packet) {
        return refuse(&NOBODY, identity::HOST, reason);
    }
    if passage.packet.destination != endpoint.address[3] {
        return refuse(&passage.packet, identity::HOST, Reason::UnknownEndpoint);
    }
    let (from, otherwise) = match mark(ctx) & MARK_MASK {
        MARK_NODE => (identity::HOST, Reason::Node),
        MARK_MAPPED => (identity::WORLD, Reason::MappedPort),
        _ => (identity::WORLD, Reason::NotMapped),
    };
    // No rule of the endpoint applies: the node is always allowed, the outside only through mapped ports.
    let to = End { slot: SLOT_NONE, ..End::here(endpoint) };
    passage.by_stack(End::elsewhere(from), to, otherwise);
    if judge(passage) == Fate::Pass { NEXT } else { SHOT }
}

/// Who has an address.
#[inline(always)]
pub fn block(address: u32) -> Option<&'static BlockValue> {
    BLOCK.get(Key::new(BLOCK_PREFIX_MAX, BlockKey { scope: 0, address: mapped(address) }))
}

/// Drops and tells.
#[inline(always)]
pub fn refuse(packet: &Packet, from: u32, reason: Reason) -> i32 {
    refuse_number(packet, from, reason as u32)
}

#[inline(always)]
fn refuse_number(packet: &Packet, from: u32, reason: u32) -> i32 {
    tell(packet, &Told { from, to: identity::NONE, rule: 0, reason });
    SHOT
}

/// Drops what does not come from the container's own addresses, and tells what it claims.
#[inline(never)]
fn refuse_source(ctx: &TcContext, from: u32, reason: u32) -> i32 {
    pull(ctx, ETHERNET_BYTES + 20);
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
    tell(&packet, &Told { from, to: identity::NONE, rule: 0, reason });
    SHOT
}
