//! Packets that we make: ARP replies and ICMP errors, each out of the packet that asked for it.

use crate::{
    SHOT,
    deliver::{by_device, into_container, to_next_hop},
    packet::{ETHERNET_BYTES, Mac, Macs, Packet, TCP, again, ifindex, raw, read, store},
};
use aya_ebpf::{
    helpers::{bpf_csum_diff, bpf_skb_change_tail},
    programs::TcContext,
};
use isthmus_dataplane_common::{BLOCK_NATIVE, BlockValue, EndpointValue, GATEWAY_MAC, Reason};

/// The gateway's address, as in a packet.
pub const GATEWAY: u32 = u32::from_ne_bytes(isthmus_dataplane_common::GATEWAY);

/// ARP for IPv4 on Ethernet (RFC 826).
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: u16,
    operation: u16,
    sender_mac: [u8; 6],
    sender: u32,
    target_mac: [u8; 6],
    target: u32,
}

/// Added to the number of a reason, instead of an action: refused.
pub const REFUSED: i32 = 1000;

/// Answers ARP for the gateway, to the container that asks. All else is dropped; what lies is [`REFUSED`] as forged.
#[inline(never)]
pub fn arp(ctx: TcContext, endpoint: &EndpointValue) -> i32 {
    answer_arp(&ctx, endpoint).unwrap_or_else(|reason| REFUSED + reason as i32)
}

#[inline(always)]
fn answer_arp(ctx: &TcContext, endpoint: &EndpointValue) -> Result<i32, Reason> {
    let request: Arp = read(ctx, ETHERNET_BYTES).ok_or(Reason::Malformed)?;
    let expected = (1_u16.to_be(), 0x0800_u16.to_be(), 0x0604_u16.to_be());
    if (request.hardware, request.protocol, request.lengths) != expected {
        return Err(Reason::Malformed);
    }
    let sender = request.sender;
    // RFC 5227 section 1.1: a probe has no sender address; nobody else can have the address, so silence is the answer.
    let own = sender == endpoint.address[3] || sender == 0;
    if request.sender_mac != endpoint.mac || !own {
        return Err(Reason::SpoofedArp);
    }
    let target = request.target;
    if request.operation != 1_u16.to_be() || target != GATEWAY || sender == 0 {
        return Ok(SHOT);
    }
    let reply = Arp {
        hardware: request.hardware,
        protocol: request.protocol,
        lengths: request.lengths,
        operation: 2_u16.to_be(),
        sender_mac: GATEWAY_MAC,
        sender: target,
        target_mac: endpoint.mac,
        target: sender,
    };
    if !store(ctx, ETHERNET_BYTES, &reply, size_of::<Arp>()) {
        return Ok(SHOT);
    }
    // The peer of the interface that asked is the container.
    Ok(into_container(ctx, ifindex(ctx), Mac::of(endpoint.mac)))
}

/// Tells a container of this node that its packet is too long for the path (RFC 1191 section 4).
#[inline(always)]
pub fn too_long(ctx: &TcContext, packet: &Packet, mtu: u32) -> i32 {
    if make_error(ctx, packet, 4, mtu) { back(ctx) } else { SHOT }
}

/// Tells a container of this node that its packet was refused (RFC 792, port unreachable).
#[inline(always)]
pub fn refused_here(ctx: &TcContext, packet: &Packet) -> i32 {
    if make_error(ctx, packet, 3, 0) { back(ctx) } else { SHOT }
}

/// Tells a container of this node that nobody knows the way (RFC 792, net unreachable).
#[inline(always)]
pub fn unreachable(ctx: &TcContext, packet: &Packet) -> i32 {
    if make_error(ctx, packet, 0, 0) { back(ctx) } else { SHOT }
}

/// Tells who sent from elsewhere that its packet was refused; `identity` is whom it was sent to.
#[inline(always)]
pub fn refused_there(ctx: &TcContext, packet: &Packet, way: &BlockValue, identity: u32) -> i32 {
    if !make_error(ctx, packet, 3, 0) {
        return SHOT;
    }
    if way.flags & BLOCK_NATIVE == 0 {
        return by_device(again(ctx), way.tunnel, identity);
    }
    // Without an interface only the stack would know the way, and it expects nothing from a container here.
    if way.ifindex == 0 { SHOT } else { to_next_hop(way.ifindex, way.next_hop) }
}

/// Back into the container that sent the packet.
#[inline(always)]
fn back(ctx: &TcContext) -> i32 {
    // The container's own address was the source; its MAC now is the destination.
    match Macs::read(ctx) {
        Some(macs) => into_container(ctx, ifindex(ctx), macs.source()),
        None => SHOT,
    }
}

/// Words of IPv4 header and options, ICMP header, and the quoted header with 8 bytes.
const QUOTED_WORDS: usize = 7;
const ERROR_WORDS: usize = 5 + 2 + QUOTED_WORDS;
/// Three words of options, see [`make_error`].
const OPTION_WORDS: usize = 3;

/// Turns the packet (Ethernet, IPv4) into an ICMP destination-unreachable error to its sender.
///
/// No helper resets a pending checksum offload (`CHECKSUM_PARTIAL`) of the packet that this one is made of: a device may
/// still write a checksum at the place where TCP has its own, 16 bytes into the transport header. Three words of
/// end-of-options put bytes 4 and 5 of the ICMP header there, which code 3 does not use and code 4 requires to be zero:
/// a sum over bytes that sum up to nothing, written there as 0xffff, changes no checksum. UDP's place, 6 bytes in, falls
/// on bytes 6 and 7, which code 3 does not use either, and code 4 is only ever delivered on this node.
#[inline(never)]
fn make_error(ctx: &TcContext, packet: &Packet, code: u32, mtu: u32) -> bool {
    // RFC 1122 section 3.2.2: no error about an error, a later fragment, or what was not sent to one host.
    if packet.icmp_error || packet.fragment || packet.has_options {
        return false;
    }
    let Some(quoted) = read::<[u32; QUOTED_WORDS]>(ctx, ETHERNET_BYTES) else { return false };
    let options = if packet.protocol == TCP { OPTION_WORDS } else { 0 };
    let ip_words = 5 + options;
    let words = ERROR_WORDS + options;
    // SAFETY: the context is valid; pointers into the packet are not used afterwards.
    if unsafe { bpf_skb_change_tail(raw(ctx), (ETHERNET_BYTES + words * 4) as u32, 0) } != 0 {
        return false;
    }
    let mut icmp = [0_u32; 2 + QUOTED_WORDS];
    icmp[0] = (0x0300_0000 | code << 16).to_be();
    icmp[1] = (mtu & 0xffff).to_be();
    icmp[2..].copy_from_slice(&quoted);
    icmp[0] |= (u32::from(checksum(&icmp)) << 16).to_le();
    let mut ip = [0_u32; 5 + OPTION_WORDS];
    ip[0] = (0x4000_0000 | (ip_words as u32) << 24 | (words * 4) as u32).to_be();
    ip[2] = (64_u32 << 24 | 1 << 16).to_be();
    ip[3] = packet.destination;
    ip[4] = packet.source;
    // Words of options that are not sent are zero and change no sum.
    ip[2] |= (u32::from(checksum(&ip)) << 16).to_le();
    store(ctx, ETHERNET_BYTES, &ip, ip_words * 4)
        && store(ctx, ETHERNET_BYTES + ip_words * 4, &icmp, size_of_val(&icmp))
}

/// RFC 1071, in the byte order of the packet.
#[inline(always)]
fn checksum<const N: usize>(words: &[u32; N]) -> u16 {
    // SAFETY: the array is valid, its length a multiple of 4.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, words.as_ptr().cast_mut(), (N * 4) as u32, 0) }
        as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
