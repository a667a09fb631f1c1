//! Connections: one entry for both directions; policy only for the first packet, and again when rules change.

use crate::{
    event::{Told, count, now, tell},
    maps::{CONNECTION_OTHER, CONNECTION_TCP, POLICY, SLOT, WAY, config, endpoint},
    packet::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    passage::{End, Passage, target},
};
use isthmus_dataplane_common::{
    CONNECTION_ANSWERED, CONNECTION_BY_STACK, CONNECTION_ESTABLISHED, CONNECTION_FIN_FROM, CONNECTION_FIN_TO,
    CONNECTION_FROM_LOW, CONNECTION_RESET, CONNECTION_REVOKED, ConnectionKey, ConnectionValue, Reason,
    SLOT_NONE, SLOT_REJECT, SlotValue, TOUCH_TICKS, mapped, reason_allows,
    verdict::{self, Verdict},
};

/// What is to be done with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Fate {
    Pass,
    Drop,
    /// Drop, tell (with [`tell_refused`]), and answer the sender.
    Reject,
    /// Nothing is known of it yet.
    Unknown,
}

/// Sets the passage's key: both ends in order, and whether the packet comes from the lower one. An ICMP error belongs to
/// the connection that it quotes.
#[inline(always)]
fn orient(passage: &mut Passage) {
    let packet = &passage.packet;
    let (source, destination, protocol) = if packet.icmp_error {
        (packet.quoted_source, packet.quoted_destination, packet.quoted_protocol)
    } else {
        (packet.source, packet.destination, packet.protocol)
    };
    let (source_port, destination_port) = (packet.source_port, packet.destination_port);
    let from_low = source < destination || (source == destination && source_port <= destination_port);
    let (low, low_port, high, high_port) = if from_low {
        (source, source_port, destination, destination_port)
    } else {
        (destination, destination_port, source, source_port)
    };
    passage.from_low = u32::from(from_low);
    passage.key = ConnectionKey {
        low: mapped(low),
        high: mapped(high),
        low_port,
        high_port,
        protocol,
        scope: 0,
        reserved: 0,
    };
}

#[inline(always)]
fn look_up(key: &ConnectionKey) -> Option<&'static mut ConnectionValue> {
    let entry =
        if key.protocol == TCP { CONNECTION_TCP.get_ptr_mut(key) } else { CONNECTION_OTHER.get_ptr_mut(key) };
    // SAFETY: values of an LRU map stay valid memory while the program runs; fields may change under us, each of which is
    // a whole number that is judged for itself.
    entry.map(|entry| unsafe { &mut *entry })
}

/// Finds the packet's connection, or judges it and makes one.
///
/// Never inlined, like the steps below: within one function the compiler would carry what it knows of the passage past
/// its memory, and the verifier would follow each case to the end.
#[inline(never)]
pub fn judge(passage: &mut Passage) -> Fate {
    orient(passage);
    decide(passage)
}

/// As [`judge`], for a packet that [`recall`] does not know.
#[inline(never)]
pub fn decide(passage: &mut Passage) -> Fate {
    let entry = look_up(&passage.key);
    if passage.packet.icmp_error {
        return judge_error(passage, entry);
    }
    if let Some(entry) = entry {
        if belongs(entry, passage) {
            remember(entry, passage);
            return follow(entry, passage);
        }
    }
    begin(passage)
}

/// Lets a packet of a known connection pass without asking where it leads, which its entry remembers: one look-up in a
/// hash for the whole packet. [`Fate::Unknown`] where it does not know; then ask, and [`decide`].
///
/// An entry is believed only under the network that it was made or refreshed under: its far end's address was in a block of
/// that node then, and is now. Its near end is checked by address and birth.
#[inline(never)]
pub fn recall(passage: &mut Passage) -> Fate {
    orient(passage);
    if passage.packet.icmp_error {
        return Fate::Unknown;
    }
    let Some(entry) = look_up(&passage.key) else { return Fate::Unknown };
    if entry.network != config().network {
        return Fate::Unknown;
    }
    let to_ifindex = if passage.from_low != 0 { entry.high_ifindex } else { entry.low_ifindex };
    passage.node = 0;
    if passage.tunnel != 0 {
        // From the wire: only from the node of the connection, only into a container.
        let Some(way) = WAY.get(entry.node) else { return Fate::Unknown };
        if way.tunnel != passage.tunnel || way.node != entry.node || to_ifindex == 0 {
            return Fate::Unknown;
        }
        passage.node = entry.node;
    }
    if to_ifindex != 0 {
        let Some(endpoint) = endpoint(to_ifindex) else { return Fate::Unknown };
        if endpoint.address[3] != passage.packet.destination {
            return Fate::Unknown;
        }
        let (from, node) = (passage.from, passage.node);
        passage.into_endpoint(from, endpoint, node);
    } else if entry.flags & CONNECTION_BY_STACK != 0 {
        passage.to = End::elsewhere(0);
        passage.target = target::STACK;
    } else {
        let Some(way) = WAY.get(entry.node) else { return Fate::Unknown };
        if entry.node == 0 || way.node != entry.node {
            return Fate::Unknown;
        }
        let from = passage.from;
        passage.to_node(from, way);
    }
    if belongs(entry, passage) { follow(entry, passage) } else { Fate::Unknown }
}

/// Where the connection leads, for [`recall`].
#[inline(always)]
fn remember(entry: &mut ConnectionValue, passage: &Passage) {
    let network = config().network;
    if entry.network != network {
        let (low, high) = ends(passage);
        entry.low_ifindex = low.ifindex;
        entry.high_ifindex = high.ifindex;
        entry.network = network;
    }
}

/// The ends in the order of the key.
#[inline(always)]
fn ends(passage: &Passage) -> (End, End) {
    if passage.from_low != 0 { (passage.from, passage.to) } else { (passage.to, passage.from) }
}

/// Whether the packet is one of this connection, not of an earlier one with the same addresses and ports.
#[inline(always)]
fn belongs(entry: &ConnectionValue, passage: &Passage) -> bool {
    let from_low = passage.from_low != 0;
    let (from_birth, to_birth) =
        if from_low { (entry.low_birth, entry.high_birth) } else { (entry.high_birth, entry.low_birth) };
    if from_birth != passage.from.birth || to_birth != passage.to.birth {
        return false;
    }
    if entry.node != passage.node && entry.flags & CONNECTION_BY_STACK == 0 {
        return false;
    }
    let forward = (entry.flags & CONNECTION_FROM_LOW != 0) == from_low;
    if forward && entry.from != passage.from.identity {
        return false;
    }
    // A SYN on a connection that has ended begins a new one.
    let syn = passage.packet.protocol == TCP && passage.packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    let ended = entry.flags & CONNECTION_RESET != 0
        || entry.flags & (CONNECTION_FIN_FROM | CONNECTION_FIN_TO)
            == (CONNECTION_FIN_FROM | CONNECTION_FIN_TO);
    !(syn && (ended || (!forward && entry.flags & CONNECTION_ESTABLISHED == 0)))
}

/// A packet of a known connection.
#[inline(always)]
fn follow(entry: &mut ConnectionValue, passage: &mut Passage) -> Fate {
    let forward = (entry.flags & CONNECTION_FROM_LOW != 0) == (passage.from_low != 0);
    let mut flags = entry.flags;
    if entry.slot != SLOT_NONE {
        // The receiver of the first packet decides; its slot may have changed with its identity.
        let slot_number = if forward { passage.to.slot } else { passage.from.slot };
        let Some(slot) = SLOT.get(slot_number) else { return refuse(passage, Reason::NoTable, 0) };
        if slot.generation != entry.generation || slot_number != entry.slot {
            flags = judge_again(entry, passage, slot, slot_number);
        }
    }
    if flags & CONNECTION_REVOKED != 0 {
        let (from, to) = if forward { (entry.from, entry.to) } else { (entry.to, entry.from) };
        tell(&passage.packet, &Told { from, to, rule: entry.rule, reason: Reason::Revoked as u32 });
        return Fate::Drop;
    }
    if passage.packet.protocol == TCP {
        flags |= tcp_flags(flags, passage.packet.tcp_flags, forward);
    } else if !forward {
        flags |= CONNECTION_ANSWERED;
    }
    if flags & CONNECTION_BY_STACK != 0 {
        // Back through the stack, which may have translated what came, also where the other end is a node.
        passage.target = target::STACK;
    }
    // Shared cache lines are written rarely: flags when they change, the time once a second.
    if flags != entry.flags {
        entry.flags = flags;
    }
    let now = now();
    if now.wrapping_sub(entry.seen) > TOUCH_TICKS {
        entry.seen = now;
    }
    count(Reason::Established);
    Fate::Pass
}

#[inline(always)]
fn tcp_flags(flags: u32, tcp: u8, forward: bool) -> u32 {
    let mut more = 0;
    if forward {
        if flags & CONNECTION_ANSWERED != 0 && tcp & TCP_ACK != 0 {
            more |= CONNECTION_ESTABLISHED;
        }
        if tcp & TCP_FIN != 0 {
            more |= CONNECTION_FIN_FROM;
        }
    } else {
        more |= CONNECTION_ANSWERED;
        if tcp & TCP_FIN != 0 {
            more |= CONNECTION_FIN_TO;
        }
    }
    if tcp & TCP_RST != 0 {
        more |= CONNECTION_RESET;
    }
    more
}

/// The rules changed since the connection was judged. Returns its flags.
#[inline(never)]
fn judge_again(entry: &mut ConnectionValue, passage: &Passage, slot: &SlotValue, slot_number: u32) -> u32 {
    let verdict = judge_slot(slot, entry.from, passage.packet.protocol, entry.port);
    entry.slot = slot_number;
    entry.generation = slot.generation;
    if verdict.reason.allowed() {
        entry.rule = verdict.rule;
        entry.flags &= !CONNECTION_REVOKED;
    } else {
        entry.flags |= CONNECTION_REVOKED;
    }
    entry.flags
}

/// The first packet of a connection, as far as this node knows.
#[inline(never)]
fn begin(passage: &mut Passage) -> Fate {
    let from_low = passage.from_low != 0;
    let key = &passage.key;
    let packet = &passage.packet;
    let mut reason = passage.otherwise;
    let mut rule = 0;
    let mut generation = 0;
    let mut reject = false;
    if passage.to.slot != SLOT_NONE {
        let Some(slot) = SLOT.get(passage.to.slot) else { return refuse(passage, Reason::NoTable, 0) };
        generation = slot.generation;
        let verdict = judge_slot(slot, passage.from.identity, packet.protocol, packet.destination_port);
        reason = verdict.reason as u32;
        rule = verdict.rule;
        reject = slot.flags & SLOT_REJECT != 0;
    }
    if !reason_allows(reason) {
        passage.rule = rule;
        passage.otherwise = reason;
        if reject {
            return Fate::Reject;
        }
        tell_refused(passage);
        return Fate::Drop;
    }
    let (low, high) = ends(passage);
    let entry = ConnectionValue {
        seen: now(),
        flags: if from_low { CONNECTION_FROM_LOW } else { 0 }
            | if passage.target == target::STACK { CONNECTION_BY_STACK } else { 0 },
        slot: passage.to.slot,
        generation,
        from: passage.from.identity,
        to: passage.to.identity,
        low_birth: low.birth,
        high_birth: high.birth,
        node: passage.node,
        rule,
        port: packet.destination_port,
        translated_port: 0,
        service: 0,
        translated: [0; 4],
        low_ifindex: low.ifindex,
        high_ifindex: high.ifindex,
        network: config().network,
        reserved: 0,
    };
    let inserted = if key.protocol == TCP {
        CONNECTION_TCP.insert(key, entry, 0)
    } else {
        CONNECTION_OTHER.insert(key, entry, 0)
    };
    if inserted.is_err() {
        return refuse(passage, Reason::MapFull, 0);
    }
    tell(packet, &Told { from: passage.from.identity, to: passage.to.identity, rule, reason });
    Fate::Pass
}

/// Counts and tells a packet that [`begin`] refused.
#[inline(always)]
pub fn tell_refused(passage: &Passage) {
    let told = Told {
        from: passage.from.identity,
        to: passage.to.identity,
        rule: passage.rule,
        reason: passage.otherwise,
    };
    tell(&passage.packet, &told);
}

/// An ICMP error passes with the connection that it quotes, to whom sent what it quotes.
#[inline(always)]
fn judge_error(passage: &Passage, entry: Option<&'static mut ConnectionValue>) -> Fate {
    let Some(entry) = entry else { return refuse(passage, Reason::NoConnection, 0) };
    if passage.packet.quoted_source != passage.packet.destination {
        return refuse(passage, Reason::NoConnection, 0);
    }
    if entry.flags & CONNECTION_REVOKED != 0 {
        return refuse(passage, Reason::Revoked, 0);
    }
    count(Reason::Related);
    Fate::Pass
}

#[inline(always)]
fn refuse(passage: &Passage, reason: Reason, rule: u32) -> Fate {
    tell(
        &passage.packet,
        &Told { from: passage.from.identity, to: passage.to.identity, rule, reason: reason as u32 },
    );
    Fate::Drop
}

#[inline(always)]
fn judge_slot(slot: &SlotValue, peer: u32, protocol: u8, port: u16) -> Verdict {
    verdict::judge(slot, peer, protocol, port, |key| {
        // SAFETY: the value is copied at once; an entry is never changed in place.
        unsafe { POLICY.get(key) }.copied()
    })
}
