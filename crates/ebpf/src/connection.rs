//! Connections: one entry for both directions; policy only for the first packet, and again when rules change.

use crate::{
    event::{Told, count, jiffies, now, tell},
    maps::{CONNECTION_OTHER, CONNECTION_TCP, POLICY, SLOT},
    packet::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    passage::{End, Passage, target},
};
use isthmus_dataplane_common::{
    BLOCK_NATIVE, CONNECTION_ANSWERED, CONNECTION_BY_STACK, CONNECTION_ESTABLISHED, CONNECTION_FIN_FROM,
    CONNECTION_FIN_TO, CONNECTION_FROM_LOW, CONNECTION_RESET, CONNECTION_REVOKED, ConnectionKey,
    ConnectionValue, Reason, SIDE_CONTAINER, SIDE_NATIVE, SIDE_NODE, SLOT_NONE, SLOT_REJECT, Side, SlotValue,
    mapped, reason_allows,
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
    let entry = if passage.new != 0 && !passage.packet.icmp_error { None } else { look_up(&passage.key) };
    if passage.packet.icmp_error {
        return judge_error(passage, entry);
    }
    match entry {
        Some(entry) if belongs(entry, passage) => follow(entry, passage),
        _ => begin(passage),
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
    if entry.slot != SLOT_NONE {
        // The receiver of the first packet decides; its slot may have changed with its identity.
        let slot_number = if forward { passage.to.slot } else { passage.from.slot };
        let Some(slot) = SLOT.get(slot_number) else { return refuse(passage, Reason::NoTable, 0) };
        if slot.generation != entry.generation || slot_number != entry.slot {
            judge_again(entry, passage, slot, slot_number);
        }
    }
    let mut flags = entry.flags;
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
    if entry.epoch == passage.epoch && !moved(entry, passage) {
        entry.flags = flags;
        entry.seen = now();
    } else {
        renew(entry, passage, flags);
    }
    count(Reason::Established);
    Fate::Pass
}

/// Whether the packet comes or goes another way than its connection's packets did.
#[inline(always)]
fn moved(entry: &ConnectionValue, passage: &Passage) -> bool {
    let known = far_side(entry, passage);
    if passage.target == target::NODE {
        return known.kind == SIDE_NATIVE;
    }
    let native = passage.target == target::NATIVE || passage.arrival != 0;
    if !native || passage.target == target::STACK || passage.way.flags & BLOCK_NATIVE == 0 {
        return false;
    }
    known.kind != SIDE_NATIVE
        || known.ifindex != passage.way.ifindex
        || known.next_hop != passage.way.next_hop
        || known.mtu() != passage.mtu
        || (passage.arrival != 0 && known.arrival() != passage.arrival)
}

/// The end of a connection that is not of this node, where the packet leaves this node or came by wire.
#[inline(always)]
fn far_side<'a>(entry: &'a ConnectionValue, passage: &Passage) -> &'a Side {
    let leaves = passage.to.ifindex == 0;
    if leaves == (passage.from_low != 0) { &entry.high } else { &entry.low }
}

/// Writes down what is true under the passage's epoch. As a whole and beside the old entry, which another CPU may read.
#[inline(never)]
fn renew(entry: &ConnectionValue, passage: &mut Passage, flags: u32) -> i32 {
    let by_stack = flags & CONNECTION_BY_STACK != 0;
    passage.entry = *entry;
    passage.entry.epoch = passage.epoch;
    passage.entry.flags = flags;
    passage.entry.seen = now();
    passage.entry.asked = jiffies();
    let known = far_side(entry, passage);
    if passage.arrival == 0 && known.kind == SIDE_NATIVE && entry.epoch == passage.epoch {
        passage.arrival = known.arrival();
    }
    set_sides(passage, by_stack);
    // Where it finds no room, the old entry stays, and is followed the long way.
    let _ = insert(passage);
    0
}

/// Puts the passage's entry into the table.
#[inline(always)]
fn insert(passage: &Passage) -> bool {
    let (key, value) = (&passage.key, &passage.entry);
    let inserted = if key.protocol == TCP {
        CONNECTION_TCP.insert(key, value, 0)
    } else {
        CONNECTION_OTHER.insert(key, value, 0)
    };
    inserted.is_ok()
}

/// Writes into the passage's entry where both ends are.
#[inline(always)]
fn set_sides(passage: &mut Passage, by_stack: bool) {
    let (low, high) = ends(passage);
    passage.entry.low = side(&low, passage, by_stack);
    passage.entry.high = side(&high, passage, by_stack);
}

#[inline(always)]
fn side(end: &End, passage: &Passage, by_stack: bool) -> Side {
    let elsewhere = Side::default();
    if end.ifindex != 0 {
        Side {
            ifindex: end.ifindex,
            identity: end.identity,
            mac_tail: end.mac_tail,
            mac_head: end.mac_head as u16,
            kind: SIDE_CONTAINER,
            ..elsewhere
        }
    } else if by_stack {
        elsewhere
    } else if passage.way.flags & BLOCK_NATIVE != 0 {
        let way = &passage.way;
        // Until packets come another way, they are expected by the interface that they leave by.
        let arrival = if passage.arrival != 0 { passage.arrival } else { way.ifindex };
        Side::native(way.ifindex, way.next_hop, passage.mtu, arrival)
    } else {
        let way = &passage.way;
        Side {
            ifindex: way.ifindex,
            kind: SIDE_NODE,
            tunnel: way.tunnel,
            next_hop: way.next_hop,
            ..elsewhere
        }
    }
}

/// What a packet's flags add to its connection's.
#[inline(always)]
pub fn tcp_flags(flags: u32, tcp: u8, forward: bool) -> u32 {
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

/// The rules changed since the connection was judged.
#[inline(never)]
fn judge_again(entry: &mut ConnectionValue, passage: &Passage, slot: &SlotValue, slot_number: u32) -> i32 {
    let verdict = judge_slot(slot, entry.from, passage.packet.protocol, entry.port);
    entry.slot = slot_number;
    entry.generation = slot.generation;
    if verdict.reason.allowed() {
        entry.rule = verdict.rule;
        entry.flags &= !CONNECTION_REVOKED;
    } else {
        entry.flags |= CONNECTION_REVOKED;
    }
    0
}

/// The first packet of a connection, as far as this node knows.
#[inline(never)]
fn begin(passage: &mut Passage) -> Fate {
    let from_low = passage.from_low != 0;
    let mut reason = passage.otherwise;
    let mut rule = 0;
    let mut generation = 0;
    let mut reject = false;
    if passage.to.slot != SLOT_NONE {
        let Some(slot) = SLOT.get(passage.to.slot) else { return refuse(passage, Reason::NoTable, 0) };
        generation = slot.generation;
        let verdict =
            judge_slot(slot, passage.from.identity, passage.packet.protocol, passage.packet.destination_port);
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
    let (low_end, high_end) = ends(passage);
    let by_stack = passage.target == target::STACK;
    let by_from = if from_low { CONNECTION_FROM_LOW } else { 0 };
    let key = &passage.key;
    let ports = u32::from(key.low_port) | u32::from(key.high_port) << 16;
    passage.entry = ConnectionValue {
        check: ConnectionKey::check(key.low[3], key.high[3], ports),
        epoch: passage.epoch,
        flags: by_from | if by_stack { CONNECTION_BY_STACK } else { 0 },
        seen: now(),
        asked: jiffies(),
        node: passage.node,
        low: Side::default(),
        high: Side::default(),
        from: passage.from.identity,
        to: passage.to.identity,
        slot: passage.to.slot,
        generation,
        low_birth: low_end.birth,
        high_birth: high_end.birth,
        rule,
        service: 0,
        translated: [0; 4],
        port: passage.packet.destination_port,
        translated_port: 0,
    };
    set_sides(passage, by_stack);
    if !insert(passage) {
        return refuse(passage, Reason::MapFull, 0);
    }
    tell(&passage.packet, &Told { from: passage.from.identity, to: passage.to.identity, rule, reason });
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
