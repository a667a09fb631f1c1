//! The ways out: into a container of this node, through the overlay, to the sender with an answer.

use crate::{
    NEXT, SHOT,
    event::{Told, tell},
    maps::{PATH_MTU, config, gateway_mac, overlay_mac, tunnel_address, vxlan_ifindex, vxlan_port},
    packet::{ETHERNET_BYTES, ETHERTYPE_IPV4, Macs, Packet, at, longest_len, mark, raw, words},
    passage::{Passage, target},
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_ZERO_CSUM_TX, bpf_redir_neigh,
        bpf_redir_neigh__bindgen_ty_1, bpf_tunnel_key,
    },
    helpers::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_set_tunnel_key,
    },
    programs::TcContext,
};
use isthmus_dataplane_common::{BlockValue, MARK_CONTAINER, MARK_KEYED, MARK_MASK, Reason, mapped};

/// Bytes of outer Ethernet, IPv4, UDP and VXLAN header, less the inner Ethernet header that is there already.
pub const OVERLAY_BYTES: usize = 50;
/// `BPF_ADJ_ROOM_MAC`: room between link layer and IP.
const ADJ_ROOM_MAC: u32 = 1;
const AF_INET: u32 = 2;
/// Length of the inner link layer, in the flags of `bpf_skb_adjust_room`.
const INNER_ETHERNET: u64 = (ETHERNET_BYTES as u64) << 56;

/// Where the passage leads.
#[inline(always)]
pub fn deliver(ctx: &TcContext, passage: &Passage) -> i32 {
    match passage.target {
        target::ENDPOINT => to_endpoint(ctx, passage),
        target::NODE => to_node(ctx, passage),
        _ => to_stack(ctx, MARK_CONTAINER),
    }
}

/// Into a container of this node, past the host's stack.
#[inline(always)]
pub fn to_endpoint(ctx: &TcContext, passage: &Passage) -> i32 {
    if !write_ethernet(ctx, &passage.mac) {
        return SHOT;
    }
    ctx.set_mark(0);
    // SAFETY: plain numbers.
    unsafe { bpf_redirect_peer(passage.ifindex, 0) as i32 }
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
            return by_device(ctx, way, identity);
        }
    }
    encapsulate(ctx, packet, way, identity)
}

/// Writes the outer headers and sends. What the kernel refuses goes by the device.
#[inline(always)]
fn encapsulate(ctx: &TcContext, packet: &Packet, way: &BlockValue, identity: u32) -> i32 {
    // SAFETY: the context is valid; the helper only reads the packet.
    let hash = unsafe { bpf_get_hash_recalc(raw(ctx)) };
    let flags = u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)
        | u64::from(BPF_F_ADJ_ROOM_ENCAP_L4_UDP)
        | u64::from(BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
        | u64::from(BPF_F_ADJ_ROOM_FIXED_GSO)
        | u64::from(BPF_F_ADJ_ROOM_NO_CSUM_RESET)
        | INNER_ETHERNET;
    // SAFETY: the context is valid; pointers into the packet are read again below.
    if unsafe { bpf_skb_adjust_room(raw(ctx), OVERLAY_BYTES as i32, ADJ_ROOM_MAC, flags) } != 0 {
        return by_device(ctx, way, identity);
    }
    let Some(ethernet) = at::<[u16; 7]>(ctx, 0) else { return SHOT };
    let Some(outer) = at::<Outer>(ctx, ETHERNET_BYTES) else { return SHOT };
    let outer_len = packet.total_len + OVERLAY_BYTES as u16;
    let mac = gateway_mac();
    let mut header = Outer {
        version_ihl: 0x45,
        // RFC 6040 section 4.1: the outer ECN field is the inner one.
        tos: packet.tos & 3,
        total_len: outer_len.to_be(),
        id: 0,
        fragment: 0x4000_u16.to_be(),
        ttl: 64,
        protocol: 17,
        checksum: 0,
        source: tunnel_address(),
        destination: way.tunnel,
        source_port: ((hash >> 16 ^ hash) as u16 | 0xc000).to_be(),
        destination_port: vxlan_port().to_be(),
        udp_len: (outer_len - 20).to_be(),
        udp_checksum: 0,
        vxlan_flags: 0x0800_0000_u32.to_be(),
        vni: (identity << 8).to_be(),
        inner_destination: words(mac),
        inner_source: words(overlay_mac()),
        inner_ethertype: ETHERTYPE_IPV4.to_be(),
    };
    header.checksum = header.ipv4_checksum();
    // SAFETY: `at` checked that both are there; see `packet::read` for the alignment. The kernel fills in the MACs.
    unsafe {
        ethernet.write([0, 0, 0, 0, 0, 0, ETHERTYPE_IPV4.to_be()]);
        outer.write(header);
    }
    let mut next_hop = bpf_redir_neigh {
        nh_family: AF_INET,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv4_nh: way.next_hop },
    };
    // SAFETY: the struct lives on the stack for the call.
    unsafe {
        bpf_redirect_neigh(way.ifindex, &raw mut next_hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32
    }
}

/// The slow path: the VXLAN device encapsulates, cuts and fragments.
#[inline(never)]
pub fn by_device(ctx: &TcContext, way: &BlockValue, identity: u32) -> i32 {
    if set_tunnel_key(ctx, way.tunnel, identity) != 0 || !write_overlay_ethernet(ctx) {
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

/// Writes an Ethernet header from the gateway to a container.
#[inline(always)]
pub fn write_ethernet(ctx: &TcContext, destination: &[u8; 6]) -> bool {
    write_macs(ctx, *destination, gateway_mac())
}

/// Writes an Ethernet header from one VXLAN device to another.
#[inline(always)]
pub fn write_overlay_ethernet(ctx: &TcContext) -> bool {
    write_macs(ctx, gateway_mac(), overlay_mac())
}

/// Writes both addresses of the Ethernet header.
#[inline(always)]
pub fn write_macs(ctx: &TcContext, destination: [u8; 6], source: [u8; 6]) -> bool {
    let Some(header) = at::<Macs>(ctx, 0) else { return false };
    let (to, from) = (words(destination), words(source));
    // SAFETY: `at` checked the bounds; see `packet::read` for the alignment.
    unsafe { header.write([to[0], to[1], to[2], from[0], from[1], from[2]]) };
    true
}

/// To the host's stack.
#[inline(always)]
fn to_stack(ctx: &TcContext, bits: u32) -> i32 {
    ctx.set_mark(mark(ctx) & !MARK_MASK | bits);
    NEXT
}

/// Outer IPv4 (RFC 791), UDP (RFC 768), VXLAN (RFC 7348 section 5) and inner Ethernet header, but for its padding.
#[repr(C, packed(2))]
struct Outer {
    version_ihl: u8,
    tos: u8,
    total_len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    udp_len: u16,
    udp_checksum: u16,
    vxlan_flags: u32,
    vni: u32,
    inner_destination: [u16; 3],
    inner_source: [u16; 3],
    inner_ethertype: u16,
}
const _: () = assert!(size_of::<Outer>() == OVERLAY_BYTES, "the headers are written in one piece");

impl Outer {
    /// RFC 1071, over the IPv4 header as it is in the packet.
    #[inline(always)]
    fn ipv4_checksum(&self) -> u16 {
        let (source, destination) = (self.source, self.destination);
        let mut sum = u32::from(u16::from_ne_bytes([self.version_ihl, self.tos]))
            + u32::from(self.total_len)
            + u32::from(self.fragment)
            + u32::from(u16::from_ne_bytes([self.ttl, self.protocol]))
            + (source & 0xffff)
            + (source >> 16)
            + (destination & 0xffff)
            + (destination >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}
