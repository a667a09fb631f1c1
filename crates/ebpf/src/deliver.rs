//! The ways out: into a container of this node, through the overlay, to the sender with an answer.

use crate::{
    NEXT, SHOT,
    event::{Told, tell},
    maps::{PATH_MTU, config, tunnel_address, vxlan_ifindex, vxlan_port},
    packet::{ETHERNET_BYTES, ETHERTYPE_IPV4, Mac, Macs, again, longest_len, mark, raw, store},
    passage::{End, Passage, target},
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_ZERO_CSUM_TX, bpf_redir_neigh,
        bpf_redir_neigh__bindgen_ty_1, bpf_tunnel_key,
    },
    helpers::{
        bpf_csum_level, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_set_tunnel_key,
    },
    programs::TcContext,
};
use isthmus_dataplane_common::{
    GATEWAY_MAC, MARK_CONTAINER, MARK_KEYED, MARK_MASK, OVERLAY_MAC, Reason, mapped,
};

/// Bytes of outer Ethernet, IPv4, UDP and VXLAN header, less the inner Ethernet header that is there already.
pub const OVERLAY_BYTES: usize = 50;
/// `BPF_ADJ_ROOM_MAC`: room between link layer and IP.
const ADJ_ROOM_MAC: u32 = 1;
/// `BPF_CSUM_LEVEL_DEC`.
const CSUM_LEVEL_DEC: u64 = 2;
pub const AF_INET: u32 = 2;
/// Length of the inner link layer, in the flags of `bpf_skb_adjust_room`.
const INNER_ETHERNET: u64 = (ETHERNET_BYTES as u64) << 56;

/// Where the passage leads.
#[inline(always)]
pub fn deliver(ctx: &TcContext, passage: &Passage) -> i32 {
    match passage.target {
        target::ENDPOINT => to_endpoint(ctx, &passage.to),
        target::NODE => to_node(ctx, passage),
        target::NATIVE => by_route(ctx, passage),
        _ => to_stack(ctx),
    }
}

/// Into a container of this node.
#[inline(always)]
pub fn to_endpoint(ctx: &TcContext, to: &End) -> i32 {
    into_container(ctx, to.ifindex, Mac { head: to.mac_head as u16, tail: to.mac_tail })
}

/// Into the container behind a host interface, past the host's stack.
#[inline(always)]
pub fn into_container(ctx: &TcContext, ifindex: u32, mac: Mac) -> i32 {
    if !Macs::new(mac, Mac::of(GATEWAY_MAC)).write(ctx) {
        return SHOT;
    }
    redirect(ctx, ifindex)
}

/// Into the container behind a host interface, as the packet is.
#[inline(always)]
pub fn redirect(ctx: &TcContext, ifindex: u32) -> i32 {
    ctx.set_mark(0);
    // SAFETY: plain numbers.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// To another node through the overlay.
#[inline(always)]
fn to_node(ctx: &TcContext, passage: &Passage) -> i32 {
    let (packet, way, identity) = (&passage.packet, &passage.way, passage.from.identity);
    let config = config();
    if ctx.len() - ETHERNET_BYTES as u32 > config.path_mtu_floor {
        // SAFETY: only read; as in `from_container`.
        let mtu = unsafe { PATH_MTU.get(mapped(way.tunnel)) }.map_or(config.mtu, |path| path.mtu);
        if longest_len(ctx, packet) > mtu {
            if packet.dont_fragment {
                tell(packet, &Told { from: identity, to: 0, rule: 0, reason: Reason::TooLong as u32 });
                return crate::answer::too_long(ctx, packet, mtu);
            }
            return by_device(again(ctx), way.tunnel, identity);
        }
    }
    let outbound = Outbound {
        tunnel: way.tunnel,
        next_hop: way.next_hop,
        ifindex: way.ifindex,
        identity,
        total_len: packet.total_len,
        tos: packet.tos,
        entropy: entropy(
            packet.source,
            packet.destination,
            (u32::from(packet.source_port) << 16 | u32::from(packet.destination_port)).to_be(),
        ),
    };
    encapsulate_apart(again(ctx), &outbound)
}

/// To another node or network as it is, by the kernel's route.
#[inline(always)]
fn by_route(ctx: &TcContext, passage: &Passage) -> i32 {
    let (packet, way, mtu) = (&passage.packet, &passage.way, passage.mtu);
    if way.ifindex == 0 {
        return to_stack(ctx);
    }
    if ctx.len() - ETHERNET_BYTES as u32 > mtu && longest_len(ctx, packet) > mtu {
        if packet.dont_fragment {
            tell(
                packet,
                &Told { from: passage.from.identity, to: 0, rule: 0, reason: Reason::TooLong as u32 },
            );
            return crate::answer::too_long(ctx, packet, mtu);
        }
        // The stack fragments.
        return to_stack(ctx);
    }
    to_next_hop(way.ifindex, way.next_hop)
}

/// Out by an interface to a next hop, as in a packet; the kernel writes the link layer's header.
#[inline(always)]
pub fn to_next_hop(ifindex: u32, next_hop: u32) -> i32 {
    let mut next_hop = bpf_redir_neigh {
        nh_family: AF_INET,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv4_nh: next_hop },
    };
    // SAFETY: the struct lives on the stack for the call.
    unsafe { bpf_redirect_neigh(ifindex, &raw mut next_hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

/// What goes into the outer headers.
pub struct Outbound {
    /// The node's tunnel address, as in the packet.
    pub tunnel: u32,
    /// As in the packet.
    pub next_hop: u32,
    /// Interface towards it.
    pub ifindex: u32,
    /// Of the sender.
    pub identity: u32,
    /// Of the inner packet, host order.
    pub total_len: u16,
    /// Of the inner packet.
    pub tos: u8,
    /// See [`entropy`].
    pub entropy: u16,
}

/// Tells connections apart for who balances by ports: the same number for all packets of one direction (RFC 7348 section
/// 5). Addresses and ports as in the packet.
#[inline(always)]
pub fn entropy(source: u32, destination: u32, ports: u32) -> u16 {
    // Fibonacci hashing: the upper bits depend on all lower ones.
    let mixed = (source ^ destination.rotate_left(16) ^ ports).wrapping_mul(0x9e37_79b1);
    (mixed >> 16) as u16
}

/// As [`encapsulate`], for the long way, whose stack is full.
#[inline(never)]
fn encapsulate_apart(ctx: TcContext, outbound: &Outbound) -> i32 {
    encapsulate(&ctx, outbound)
}

/// Writes the outer headers and sends. What the kernel refuses goes by the device.
#[inline(always)]
pub fn encapsulate(ctx: &TcContext, outbound: &Outbound) -> i32 {
    const FLAGS: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
        | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
        | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
        | BPF_F_ADJ_ROOM_FIXED_GSO as u64
        | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64
        | INNER_ETHERNET;
    // SAFETY: the context is valid; no pointers into the packet are held.
    if unsafe { bpf_skb_adjust_room(raw(ctx), OVERLAY_BYTES as i32, ADJ_ROOM_MAC, FLAGS) } != 0 {
        return by_device(again(ctx), outbound.tunnel, outbound.identity);
    }
    if !store(ctx, 0, &headers(outbound), size_of::<Headers>()) {
        return SHOT;
    }
    to_next_hop(outbound.ifindex, outbound.next_hop)
}

/// Takes the outer headers off. The outer Ethernet header stays, before the inner packet.
#[inline(always)]
pub fn decapsulate(ctx: &TcContext) -> bool {
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO) | u64::from(BPF_F_ADJ_ROOM_NO_CSUM_RESET);
    // SAFETY: the context is valid; pointers into the packet are read again afterwards.
    unsafe {
        if bpf_skb_adjust_room(raw(ctx), -(OVERLAY_BYTES as i32), ADJ_ROOM_MAC, flags) != 0 {
            return false;
        }
        // GRO and NICs count the outer UDP as verified; without this a wrong inner checksum would be believed.
        bpf_csum_level(raw(ctx), CSUM_LEVEL_DEC);
    }
    true
}

/// The slow path: the VXLAN device encapsulates, cuts and fragments.
#[inline(never)]
pub fn by_device(ctx: TcContext, tunnel: u32, identity: u32) -> i32 {
    let ctx = &ctx;
    if set_tunnel_key(ctx, tunnel, identity) != 0 || !write_overlay_ethernet(ctx) {
        return SHOT;
    }
    ctx.set_mark(mark(ctx) & !MARK_MASK | MARK_KEYED);
    // SAFETY: plain numbers.
    unsafe { bpf_redirect(vxlan_ifindex(), 0) as i32 }
}

/// Tells the VXLAN device where to send the packet, and as whom.
#[inline(always)]
pub fn set_tunnel_key(ctx: &TcContext, tunnel: u32, identity: u32) -> i64 {
    // SAFETY: all zeros is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = identity;
    key.tunnel_ttl = 64;
    key.__bindgen_anon_1.remote_ipv4 = u32::from_be(tunnel);
    key.__bindgen_anon_3.local_ipv4 = u32::from_be(tunnel_address());
    // SAFETY: the key lives on the stack for the call, the context is valid.
    unsafe {
        bpf_skb_set_tunnel_key(
            raw(ctx),
            &raw mut key,
            size_of::<bpf_tunnel_key>() as u32,
            u64::from(BPF_F_ZERO_CSUM_TX),
        )
    }
}

/// Writes an Ethernet header from one VXLAN device to another.
#[inline(always)]
pub fn write_overlay_ethernet(ctx: &TcContext) -> bool {
    Macs::new(Mac::of(GATEWAY_MAC), Mac::of(OVERLAY_MAC)).write(ctx)
}

/// To the host's stack.
#[inline(always)]
pub fn to_stack(ctx: &TcContext) -> i32 {
    ctx.set_mark(mark(ctx) & !MARK_MASK | MARK_CONTAINER);
    NEXT
}

/// Outer Ethernet, whose addresses the kernel fills in, IPv4 (RFC 791), UDP (RFC 768), VXLAN (RFC 7348 section 5) and inner
/// Ethernet header, as they lie in a packet of a little-endian machine, in words as long as they are copied by.
type Headers = [u64; 8];
const _: () = assert!(size_of::<Headers>() == ETHERNET_BYTES + OVERLAY_BYTES, "written in one piece");

#[inline(always)]
fn headers(outbound: &Outbound) -> Headers {
    const VERSION: u32 = 0x45;
    const DONT_FRAGMENT: u32 = 0x4000_u16.to_be() as u32;
    const TTL_PROTOCOL: u32 = 64 | 17 << 8;
    /// The VXLAN flag "I", in the first half of its word.
    const VNI_VALID: u32 = 0x0800_u16.to_be() as u32;
    const TO: Mac = Mac::of(GATEWAY_MAC);
    const FROM: Mac = Mac::of(OVERLAY_MAC);
    let ethertype = u32::from(ETHERTYPE_IPV4.to_be());
    let outer_len = outbound.total_len + OVERLAY_BYTES as u16;
    let len = u32::from(outer_len.to_be());
    // RFC 6040 section 4.1: the outer ECN field is the inner one.
    let version_tos = VERSION | u32::from(outbound.tos & 3) << 8;
    let (source, destination) = (tunnel_address(), outbound.tunnel);
    // RFC 1071, over the halves of the IPv4 header.
    let mut sum = version_tos + len + DONT_FRAGMENT + TTL_PROTOCOL;
    sum += (source & 0xffff) + (source >> 16) + (destination & 0xffff) + (destination >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !sum & 0xffff;
    let source_port = u32::from((outbound.entropy | 0xc000).to_be());
    let port = u32::from(vxlan_port().to_be());
    let udp_len = u32::from((outer_len - 20).to_be());
    let vni = (outbound.identity << 8).to_be();
    [
        0,
        u64_of(0, halves(ethertype, version_tos)),
        u64_of(halves(len, 0), halves(DONT_FRAGMENT, TTL_PROTOCOL)),
        u64_of(halves(checksum, source), halves(source >> 16, destination)),
        u64_of(halves(destination >> 16, source_port), halves(port, udp_len)),
        u64_of(halves(0, VNI_VALID), halves(0, vni)),
        u64_of(halves(vni >> 16, TO.head as u32), TO.tail),
        u64_of(halves(FROM.head as u32, FROM.tail), halves(FROM.tail >> 16, ethertype)),
    ]
}

/// Two halves of a word, of which the first has no more.
#[inline(always)]
const fn halves(first: u32, second: u32) -> u32 {
    first | second << 16
}

#[inline(always)]
const fn u64_of(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}
