//! The programs on the uplink and on the VXLAN device.

use crate::{
    NEXT, SHOT, answer,
    connection::{Fate, judge, tell_refused},
    container::{JUDGE, block, refuse},
    deliver::{self, OVERLAY_BYTES, set_tunnel_key, write_overlay_ethernet},
    event::{Told, now, tell},
    known,
    maps::{CONFIG, ENDPOINT_BY_ADDRESS, NODE, PATH_MTU, tunnel_address, vxlan_port},
    native,
    packet::{
        ETHERNET_BYTES, ETHERTYPE_IPV4, ICMP, Ipv4, NOBODY, Packet, TCP, Tunnel, UDP, addressed_to_us, again,
        ethertype, gso_size, mark, parse, pull, raw, read, tagged,
    },
    passage::{End, Passage, target},
};
use aya_ebpf::{
    bindings::bpf_tunnel_key,
    helpers::{bpf_skb_ecn_set_ce, bpf_skb_get_tunnel_key},
    programs::TcContext,
};
use isthmus_dataplane_common::{
    BLOCK_NATIVE, MARK_KEYED, MARK_MASK, NodeValue, PathMtuValue, Reason, identity, mapped,
};

/// Where the inner IP header is, behind outer Ethernet, IPv4, UDP, VXLAN and inner Ethernet.
const INNER: usize = ETHERNET_BYTES + OVERLAY_BYTES;
/// RFC 6040: congestion experienced.
const ECN_CE: u32 = 3;

/// What the uplink receives. All that is neither our VXLAN nor for a container goes on untouched.
#[inline(always)]
pub fn from_wire(ctx: &TcContext) -> i32 {
    if ethertype(ctx, 12) != Some(ETHERTYPE_IPV4) || tagged(ctx) || !addressed_to_us(ctx) {
        return NEXT;
    }
    if native::is_for_us(ctx) {
        return native::from_wire(ctx);
    }
    pull(ctx, INNER + 20 + 20);
    let Some(protocol) = read::<u8>(ctx, ETHERNET_BYTES + 9) else { return NEXT };
    if protocol == ICMP {
        learn_path_mtu(ctx);
        return NEXT;
    }
    if protocol != UDP {
        return NEXT;
    }
    let Some(tunnel) = read::<Tunnel>(ctx, ETHERNET_BYTES) else { return NEXT };
    let ip = tunnel.ip;
    // Fragments and options hide the ports; the kernel reassembles, and the device gets what is ours.
    if u16::from_be(tunnel.destination_port) != vxlan_port()
        || ip.destination != tunnel_address()
        || ip.version_ihl != 0x45
        || u16::from_be(ip.fragment) & 0x3fff != 0
    {
        return NEXT;
    }
    let fast = tunnel.udp_checksum == 0 && checksum_is_right(&ip);
    if !fast || tunnel.flags != 0x0800_0000_u32.to_be() || ethertype(ctx, INNER - 2) != Some(ETHERTYPE_IPV4) {
        // The device checks what is rare, and drops what is wrong; `from_overlay` asks who sent it.
        return NEXT;
    }
    let action = known::from_wire(ctx, &tunnel);
    if action != known::NEW && action != known::OTHER {
        return action;
    }
    // The long way, in steps as in `from_container`.
    let action = route_wire(again(ctx), u32::from(action == known::NEW));
    if action == JUDGE { conclude_wire(again(ctx)) } else { action }
}

/// Checks who sends, and finds where the packet leads; `new`: the connection is not in the table.
#[inline(never)]
fn route_wire(ctx: TcContext, new: u32) -> i32 {
    let ctx = &ctx;
    let Some(passage) = Passage::begin() else { return SHOT };
    passage.new = new;
    passage.packet = NOBODY;
    let Some(tunnel) = read::<Tunnel>(ctx, ETHERNET_BYTES) else { return SHOT };
    let vni = u32::from_be(tunnel.vni) >> 8;
    // SAFETY: the value is only read; an update replaces it whole.
    let Some(node) = (unsafe { NODE.get(mapped(tunnel.ip.source)) }) else {
        return refuse_node(tunnel.ip.source);
    };
    if let Err(reason) = parse::<INNER>(ctx, &mut passage.packet) {
        return refuse(&passage.packet, vni, reason);
    }
    if gso_size(ctx) != 0 && passage.packet.protocol != TCP {
        // Merged datagrams keep the tunnel's GSO type, which a container's socket does not understand.
        return NEXT;
    }
    if let Err(reason) = admit(passage, node, vni) {
        return refuse(&passage.packet, vni, reason);
    }
    passage.outer_ecn = u32::from(tunnel.ip.tos & 3);
    if passage.target == target::STACK { NEXT } else { JUDGE }
}

/// Judges the passage at hand, and lets it in if it may.
#[inline(never)]
fn conclude_wire(ctx: TcContext) -> i32 {
    let ctx = &ctx;
    let Some(passage) = Passage::at_hand() else { return SHOT };
    match judge(passage) {
        Fate::Pass => {}
        // Answered behind the device: the kernel changes no length of a packet that still counts as encapsulated.
        Fate::Reject => return NEXT,
        Fate::Drop => return SHOT,
    }
    let congested = passage.outer_ecn == ECN_CE;
    // RFC 6040 section 4.2: congestion met by a packet whose sender does not understand ECN is a drop.
    if congested && passage.packet.tos & 3 == 0 {
        return SHOT;
    }
    if !deliver::decapsulate(ctx) {
        return SHOT;
    }
    if congested {
        // SAFETY: the context is valid; the helper changes the inner header and its checksum.
        unsafe { bpf_skb_ecn_set_ce(raw(ctx)) };
    }
    deliver::to_endpoint(ctx, &passage.to)
}

/// Drops what comes from a host that is no node.
#[inline(never)]
fn refuse_node(source: u32) -> i32 {
    let outer = Packet { source, destination: tunnel_address(), protocol: UDP, ..NOBODY };
    refuse(&outer, identity::UNKNOWN, Reason::UnknownNode)
}

/// Accepts only what `node` may send: from an address of one of its blocks as a workload, or from itself. Sets where it
/// leads: a container, or this node.
#[inline(always)]
fn admit(passage: &mut Passage, node: &NodeValue, vni: u32) -> Result<(), Reason> {
    let (source, destination) = (passage.packet.source, passage.packet.destination);
    if node.own != 0 {
        return Err(Reason::UnknownNode);
    }
    if vni == identity::REMOTE_NODE {
        // SAFETY: only read; as in `from_container`.
        match unsafe { NODE.get(mapped(source)) } {
            Some(sender) if sender.way.node == node.way.node => {}
            _ => return Err(Reason::ForeignSource),
        }
    } else {
        if !(identity::FIRST_WORKLOAD..identity::UNKNOWN).contains(&vni) {
            return Err(Reason::BadVni);
        }
        match block(source) {
            Some(block) if block.node == node.way.node => {}
            _ => return Err(Reason::ForeignSource),
        }
    }
    // SAFETY: only read; as in `from_container`.
    if let Some(endpoint) = unsafe { ENDPOINT_BY_ADDRESS.get(mapped(destination)) } {
        passage.into_endpoint(End::elsewhere(vni), endpoint, node.way.node);
        passage.way = node.way;
        // Whatever the way to that node is: this connection's packets come through the overlay, and so do the answers.
        passage.way.flags &= !BLOCK_NATIVE;
        return Ok(());
    }
    // SAFETY: as above.
    match unsafe { NODE.get(mapped(destination)) } {
        Some(own) if own.own != 0 => {
            passage.target = target::STACK;
            Ok(())
        }
        _ => Err(Reason::UnknownEndpoint),
    }
}

/// RFC 1071: the header with its checksum sums up to all ones. A merged packet was checked when it was merged.
#[inline(always)]
fn checksum_is_right(ip: &Ipv4) -> bool {
    let (source, destination) = (ip.source, ip.destination);
    let mut sum = u32::from(u16::from_ne_bytes([ip.version_ihl, ip.tos]))
        + u32::from(ip.total_len)
        + u32::from(ip.id)
        + u32::from(ip.fragment)
        + u32::from(u16::from_ne_bytes([ip.ttl, ip.protocol]))
        + u32::from(ip.checksum)
        + (source & 0xffff)
        + (source >> 16)
        + (destination & 0xffff)
        + (destination >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

/// A router tells that our outer packets are too long for its next hop (RFC 1191). The stack learns it too.
#[inline(never)]
fn learn_path_mtu(ctx: &TcContext) -> i32 {
    const ICMP_AT: usize = ETHERNET_BYTES + 20;
    const QUOTED: usize = ICMP_AT + 8;
    pull(ctx, QUOTED + 20 + 4);
    let Some(version_ihl) = read::<u8>(ctx, ETHERNET_BYTES) else { return 0 };
    let Some(icmp) = read::<[u16; 4]>(ctx, ICMP_AT) else { return 0 };
    let Some(quoted) = read::<Ipv4>(ctx, QUOTED) else { return 0 };
    let Some(ports) = read::<[u16; 2]>(ctx, QUOTED + 20) else { return 0 };
    if version_ihl != 0x45 || icmp[0] != 0x0304_u16.to_be() || quoted.version_ihl != 0x45 {
        return 0;
    }
    let ours =
        quoted.protocol == UDP && quoted.source == tunnel_address() && u16::from_be(ports[1]) == vxlan_port();
    let outer_mtu = u32::from(u16::from_be(icmp[3]));
    // RFC 1191 section 3: nothing below 68 is true; below our smallest MTU the device has to fragment.
    if !ours || outer_mtu < 576 + OVERLAY_BYTES as u32 {
        return 0;
    }
    // SAFETY: only read; as in `from_container`.
    if unsafe { NODE.get(mapped(quoted.destination)) }.is_none() {
        return 0;
    }
    let mtu = outer_mtu - OVERLAY_BYTES as u32;
    let path = PathMtuValue { mtu, learned: now() };
    if PATH_MTU.insert(mapped(quoted.destination), path, 0).is_err() {
        return 0;
    }
    if let Some(config) = CONFIG.get_ptr_mut(0) {
        // SAFETY: array values live as long as the program; plain numbers.
        unsafe {
            if mtu < (*config).path_mtu_floor {
                (*config).path_mtu_floor = mtu;
            }
        }
    }
    let told =
        Told { from: identity::HOST, to: identity::REMOTE_NODE, rule: mtu, reason: Reason::TooLong as u32 };
    let outer = Packet {
        source: quoted.source,
        destination: quoted.destination,
        protocol: UDP,
        destination_port: vxlan_port(),
        ..NOBODY
    };
    tell(&outer, &told);
    0
}

/// What the VXLAN device received and decapsulated: the same checks, by the tunnel key.
#[inline(always)]
pub fn from_overlay(ctx: &TcContext) -> i32 {
    let Some(passage) = Passage::begin() else { return SHOT };
    // SAFETY: all zeros is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: the key lives on the stack for the call, the context is valid.
    if unsafe { bpf_skb_get_tunnel_key(raw(ctx), &raw mut key, size_of::<bpf_tunnel_key>() as u32, 0) } != 0 {
        return refuse(&NOBODY, identity::UNKNOWN, Reason::BadVni);
    }
    // SAFETY: the flags said IPv4, so this is the union's field that was written.
    let sender = unsafe { key.__bindgen_anon_1.remote_ipv4 }.to_be();
    // SAFETY: only read; as in `from_container`.
    let Some(node) = (unsafe { NODE.get(mapped(sender)) }) else {
        return refuse_node(sender);
    };
    if ethertype(ctx, 12) != Some(ETHERTYPE_IPV4) || tagged(ctx) {
        return refuse(&NOBODY, key.tunnel_id, Reason::NotIp);
    }
    pull(ctx, ETHERNET_BYTES + 20 + 20);
    if let Err(reason) = parse::<ETHERNET_BYTES>(ctx, &mut passage.packet) {
        return refuse(&NOBODY, key.tunnel_id, reason);
    }
    if let Err(reason) = admit(passage, node, key.tunnel_id) {
        return refuse(&passage.packet, key.tunnel_id, reason);
    }
    if passage.target == target::STACK {
        return NEXT;
    }
    match judge(passage) {
        Fate::Pass => deliver::to_endpoint(ctx, &passage.to),
        Fate::Drop => SHOT,
        Fate::Reject => {
            tell_refused(passage);
            answer::refused_there(ctx, &passage.packet, &passage.way, passage.to.identity)
        }
    }
}

/// What the host's stack sends into the network: only this node's own packets, and what our programs keyed.
#[inline(always)]
pub fn to_overlay(ctx: &TcContext) -> i32 {
    if mark(ctx) & MARK_MASK == MARK_KEYED {
        return NEXT;
    }
    if ethertype(ctx, 12) != Some(ETHERTYPE_IPV4) {
        return refuse(&NOBODY, identity::HOST, Reason::NotIp);
    }
    pull(ctx, ETHERNET_BYTES + 20 + 20);
    let Some(passage) = Passage::begin() else { return SHOT };
    if let Err(reason) = parse::<ETHERNET_BYTES>(ctx, &mut passage.packet) {
        return refuse(&NOBODY, identity::HOST, reason);
    }
    let packet = &passage.packet;
    // SAFETY: only read; as in `from_container`.
    match unsafe { NODE.get(mapped(packet.source)) } {
        Some(own) if own.own != 0 => {}
        // Forwarded from outside: containers of other nodes are reached through their own node's mapped ports.
        _ => return refuse(packet, identity::WORLD, Reason::NotMapped),
    }
    let Some(way) = block(packet.destination) else {
        return refuse(packet, identity::HOST, Reason::NoRoute);
    };
    if way.node == 0 {
        return refuse(packet, identity::HOST, Reason::NoRoute);
    }
    if set_tunnel_key(ctx, way.tunnel, identity::REMOTE_NODE) != 0 || !write_overlay_ethernet(ctx) {
        return refuse(packet, identity::HOST, Reason::MapFull);
    }
    tell(packet, &Told { from: identity::HOST, to: identity::NONE, rule: 0, reason: Reason::Node as u32 });
    NEXT
}
