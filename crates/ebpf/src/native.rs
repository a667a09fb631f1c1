//! Packets without encapsulation: they leave by the kernel's routes, and enter by what their source address says.
//!
//! The kernel's tables of routes are asked for the first packet of a connection; its entry remembers the answer under its
//! epoch, which userspace ends when routes change. Once a second the long way asks again ([`crate::known`]), so that routes
//! are followed even while nobody watches them.

use crate::{
    NEXT, SHOT, answer,
    connection::{Fate, judge, tell_refused},
    container::{JUDGE, block, refuse},
    deliver::{self, AF_INET},
    known,
    maps::{ENDPOINT_BY_ADDRESS, MULTIPATH, NODE, PEER, config, vxlan_ifindex},
    packet::{ETHERNET_BYTES, NOBODY, again, ifindex, parse, pull, raw, read},
    passage::{End, Passage, target},
};
use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, bpf_fib_lookup,
        bpf_fib_lookup__bindgen_ty_1, bpf_fib_lookup__bindgen_ty_2,
    },
    helpers::bpf_fib_lookup as look_up_route,
    maps::lpm_trie::Key,
    programs::TcContext,
};
use isthmus_dataplane_common::{
    BLOCK_BORROWED, BLOCK_FOREIGN, BLOCK_LOCAL, BLOCK_NATIVE, BLOCK_OVERLAY_ELSE, BLOCK_PREFIX_MAX, BlockKey, EndpointValue,
    NATIVE_STRICT, Reason, identity, mapped,
};

/// Where the destination lies in an IPv4 packet.
const DESTINATION_AT: usize = ETHERNET_BYTES + 16;
/// Ethernet, IPv4, TCP without options: what is read of most packets.
const HEADERS_BYTES: usize = ETHERNET_BYTES + 20 + 20;
/// Length to ask with: shorter than any MTU, and not 0, which would not have it looked up.
const ANY_LEN: u16 = 1;
/// Length to ask with for the MTU alone.
const LONGEST: u16 = u16::MAX;

/// Whether the packet on the wire may be for a container of this node.
#[inline(always)]
pub fn is_for_us(ctx: &TcContext) -> bool {
    let config = config();
    if config.native == 0 {
        return false;
    }
    pull(ctx, ETHERNET_BYTES + 20);
    let Some(destination) = read::<u32>(ctx, DESTINATION_AT) else { return false };
    let destination = u32::from_be(destination);
    config.local_low <= destination && destination <= config.local_high
}

/// What the uplink receives for addresses of this node's blocks.
#[inline(always)]
pub fn from_wire(ctx: &TcContext) -> i32 {
    pull(ctx, HEADERS_BYTES);
    let action = known::from_wire_native(ctx);
    if action != known::NEW && action != known::OTHER {
        return action;
    }
    // The long way, in steps as in `from_container`.
    let action = route(again(ctx), u32::from(action == known::NEW));
    if action == JUDGE { conclude(again(ctx)) } else { action }
}

/// Checks who sends; `new`: the connection is not in the table.
#[inline(never)]
fn route(ctx: TcContext, new: u32) -> i32 {
    let ctx = &ctx;
    let Some(passage) = Passage::begin() else { return SHOT };
    passage.new = new;
    passage.packet = NOBODY;
    passage.arrival = ifindex(ctx);
    let Some(destination) = read::<u32>(ctx, DESTINATION_AT) else { return NEXT };
    // SAFETY: the value is only read; an update replaces it whole.
    let endpoint = unsafe { ENDPOINT_BY_ADDRESS.get(mapped(destination)) };
    if endpoint.is_none() && !block(destination).is_some_and(|block| block.flags & BLOCK_LOCAL != 0) {
        // Between two blocks of this node lies another's.
        return NEXT;
    }
    if let Err(reason) = parse::<ETHERNET_BYTES>(ctx, &mut passage.packet) {
        return refuse(&passage.packet, identity::UNKNOWN, reason);
    }
    let Some(endpoint) = endpoint else {
        return refuse(&passage.packet, identity::UNKNOWN, Reason::UnknownEndpoint);
    };
    match admit(ctx, passage, endpoint) {
        Ok(true) => JUDGE,
        // From outside: the stack knows mapped ports, and `to_container` drops the rest.
        Ok(false) => NEXT,
        Err(reason) => refuse(&passage.packet, identity::UNKNOWN, reason),
    }
}

/// Judges the passage at hand, and lets it in if it may.
#[inline(never)]
fn conclude(ctx: TcContext) -> i32 {
    let ctx = &ctx;
    let Some(passage) = Passage::at_hand() else { return SHOT };
    match judge(passage) {
        Fate::Pass if passage.target == target::STACK => NEXT,
        Fate::Pass => deliver::to_endpoint(ctx, &passage.to),
        Fate::Drop => SHOT,
        Fate::Reject => {
            tell_refused(passage);
            answer::refused_there(ctx, &passage.packet, &passage.way, passage.to.identity)
        }
    }
}

/// Finds out who sends, and accepts only what comes the way that answers go; `false`: from outside the network.
#[inline(always)]
fn admit(ctx: &TcContext, passage: &mut Passage, endpoint: &EndpointValue) -> Result<bool, Reason> {
    let Some(sender) = sender(passage)? else { return Ok(false) };
    if find_way(again(ctx), passage, endpoint.host_ifindex, 1) != 0 {
        return Err(Reason::ReversePath);
    }
    if config().native & NATIVE_STRICT != 0 && !answers_leave_by_arrival(passage) {
        return Err(Reason::ReversePath);
    }
    let node = passage.way.node;
    passage.into_endpoint(End::elsewhere(sender), endpoint, node);
    Ok(true)
}

/// Who has the packet's source address, and sets the way to it; `None`: somebody outside.
#[inline(always)]
fn sender(passage: &mut Passage) -> Result<Option<u32>, Reason> {
    let source = passage.packet.source;
    let block = block(source);
    if let Some(block) = block {
        if block.flags & BLOCK_LOCAL != 0 || is_used_here(block.flags, source) {
            return Err(Reason::OwnSource);
        }
        if block.flags & BLOCK_NATIVE == 0 {
            return Err(Reason::NotEncapsulated);
        }
        passage.way = *block;
    }
    // Nodes may have addresses in networks that are not ours.
    if block.is_none_or(|block| block.flags & BLOCK_FOREIGN != 0) {
        // SAFETY: only read; as in `route`.
        if let Some(node) = unsafe { NODE.get(mapped(source)) } {
            if node.own != 0 {
                return Err(Reason::OwnSource);
            }
            if node.way.flags & BLOCK_NATIVE == 0 {
                return Err(Reason::NotEncapsulated);
            }
            passage.way = node.way;
            return Ok(Some(identity::REMOTE_NODE));
        }
    }
    if block.is_none() {
        return Ok(None);
    }
    // SAFETY: only read; a number is read whole.
    if let Some(peer) = unsafe { PEER.get(mapped(source)) } {
        return Ok(Some(*peer));
    }
    let known = passage.way.flags & BLOCK_FOREIGN != 0;
    Ok(Some(if known { passage.way.identity } else { identity::UNKNOWN }))
}

/// Whether a borrowed address is one of a container of this node all the same.
#[inline(always)]
fn is_used_here(flags: u32, address: u32) -> bool {
    // SAFETY: only read; as in `route`.
    flags & BLOCK_BORROWED != 0 && unsafe { ENDPOINT_BY_ADDRESS.get(mapped(address)) }.is_some()
}

/// RFC 3704 section 2.2: whether the best route back to the source leaves by the interface that the packet came by; of a
/// route with several next hops, any of them.
#[inline(always)]
fn answers_leave_by_arrival(passage: &Passage) -> bool {
    let here = passage.arrival;
    if passage.way.flags & BLOCK_NATIVE == 0 {
        // This node has no route yet, and answers through the overlay: the link to the other node counts.
        return passage.way.ifindex == here;
    }
    if passage.route.ifindex == here {
        return true;
    }
    let address = mapped(passage.packet.source);
    MULTIPATH
        .get(Key::new(BLOCK_PREFIX_MAX, BlockKey { scope: 0, address }))
        .is_some_and(|routes| routes.ifindexes.contains(&here))
}

/// Asks the kernel which way a packet of the container behind `ifindex` takes, and writes it into the passage's way, which
/// says whose way it is. `back`: the way of answers to the packet. Returns 0 if there is one.
///
/// What cannot be sent from here (a next hop that has IPv6 alone, RFC 8950; a tunnel of the route's own) gets an interface
/// of 0: the stack knows how. Where the overlay is allowed instead and the kernel has no better route, the way is no longer
/// [`BLOCK_NATIVE`].
#[inline(never)]
pub fn find_way(ctx: TcContext, passage: &mut Passage, ifindex: u32, back: u32) -> u32 {
    let mut answer = ask(&ctx, passage, ifindex, back, ANY_LEN);
    // SAFETY: both fields of the union are plain numbers.
    let mut mtu = unsafe { passage.route.__bindgen_anon_1.mtu_result };
    if answer == BPF_FIB_LKUP_RET_NO_NEIGH {
        // The neighbour is asked for when the packet is sent. The kernel returned before it told the MTU.
        ask(&ctx, passage, ifindex, back, LONGEST);
        // SAFETY: as above.
        mtu = unsafe { passage.route.__bindgen_anon_1.mtu_result };
        answer = ask(&ctx, passage, ifindex, back, ANY_LEN);
    }
    match answer {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {}
        BPF_FIB_LKUP_RET_UNSUPP_LWT => {
            passage.way.ifindex = 0;
            passage.mtu = 0;
            return 0;
        }
        _ => return 1,
    }
    if passage.route.ifindex == vxlan_ifindex() {
        if passage.way.flags & BLOCK_OVERLAY_ELSE == 0 {
            return 1;
        }
        passage.way.flags &= !BLOCK_NATIVE;
        return 0;
    }
    if u32::from(passage.route.family) == AF_INET {
        passage.way.ifindex = passage.route.ifindex;
        // SAFETY: the kernel said IPv4, so this is the union's field that was written.
        passage.way.next_hop = unsafe { passage.route.__bindgen_anon_4.ipv4_dst };
        passage.mtu = u32::from(mtu);
    } else {
        passage.way.ifindex = 0;
        passage.mtu = 0;
    }
    0
}

/// One question to the kernel's routes, as forwarding would ask it for a packet of this length.
#[inline(always)]
fn ask(ctx: &TcContext, passage: &mut Passage, ifindex: u32, back: u32, total_len: u16) -> u32 {
    let packet = &passage.packet;
    let (from, to) = ((packet.source, packet.source_port), (packet.destination, packet.destination_port));
    let (from, to) = if back != 0 { (to, from) } else { (from, to) };
    let route = &mut passage.route;
    route.family = AF_INET as u8;
    route.l4_protocol = packet.protocol;
    route.sport = from.1.to_be();
    route.dport = to.1.to_be();
    route.__bindgen_anon_1 = bpf_fib_lookup__bindgen_ty_1 { tot_len: total_len };
    route.ifindex = ifindex;
    route.__bindgen_anon_2 = bpf_fib_lookup__bindgen_ty_2 { rt_metric: u32::from(packet.tos) };
    route.__bindgen_anon_3.ipv4_src = from.0;
    route.__bindgen_anon_4.ipv4_dst = to.0;
    // SAFETY: the context is valid, and the struct is as long as said. What is not set is for IPv6 alone.
    let answer = unsafe { look_up_route(raw(ctx).cast(), route, size_of::<bpf_fib_lookup>() as i32, 0) };
    answer as u32
}
