//! How a table of rules is laid out in `POLICY`, and how it judges.
//!
//! Rules of one kind (peer given or not, protocol given or not, so many leading bits of the port) are found by one
//! look-up; a table knows which kinds it has, so that a table of rules "from A on tcp:8080" costs one look-up however
//! many rules it has. A port range becomes the few prefixes that cover it.

use crate::{PolicyKey, PolicyValue, Reason, SLOT_CLOSED, SlotValue, identity};

/// Kinds of keys: 18 with a given peer, then 18 for any peer.
pub const TUPLES: u32 = 36;
/// Kinds of keys for one kind of peer.
const PORT_KINDS: u32 = 18;

/// Kind of port match: its number, hence its bit, chosen so that what is most used is looked up first.
const fn port_kind(protocol: u8, port_bits: u8) -> u32 {
    match (protocol, port_bits) {
        (0, _) => 1,
        (_, 16) => 0,
        (_, 0) => 2,
        (_, bits) => 18 - bits as u32,
    }
}

/// The bit of [`SlotValue::tuples`] for a key.
pub const fn tuple(key: &PolicyKey) -> u32 {
    let kind = port_kind(key.protocol, key.port_bits);
    if key.peer == identity::NONE { kind + PORT_KINDS } else { kind }
}

/// The key that a packet looks up for one kind.
#[inline(always)]
pub const fn key_for(tuple: u32, table: u32, peer: u32, protocol: u8, port: u16) -> PolicyKey {
    let (peer, kind) = if tuple >= PORT_KINDS { (identity::NONE, tuple - PORT_KINDS) } else { (peer, tuple) };
    let (protocol, port_bits) = match kind {
        0 => (protocol, 16),
        1 => (0, 0),
        2 => (protocol, 0),
        kind => (protocol, (18 - kind) as u8),
    };
    PolicyKey { table, peer, port: masked(port, port_bits), protocol, port_bits }
}

/// The leading `bits` of a port.
#[inline(always)]
pub const fn masked(port: u16, bits: u8) -> u16 {
    (port as u32 & (0xffff_0000_u32 >> bits) & 0xffff) as u16
}

/// What a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// Number of the deciding rule; 0 where the default decided.
    pub rule: u32,
}

/// Judges a new connection by a slot; `look_up` finds a key in `POLICY`.
///
/// Of all rules that match, the one of the highest precedence wins; of equals a denying one.
#[inline(always)]
pub fn judge<F>(slot: &SlotValue, peer: u32, protocol: u8, port: u16, look_up: F) -> Verdict
where
    F: Fn(&PolicyKey) -> Option<PolicyValue>,
{
    let table = slot.table;
    if table == 0 {
        return Verdict { reason: Reason::NoTable, rule: 0 };
    }
    let mut tuples = slot.tuples;
    let mut best_rank = 0_u32;
    let mut best_rule = 0_u32;
    let mut index = 0;
    while index < TUPLES {
        if tuples == 0 {
            break;
        }
        if tuples & 1 != 0 {
            let key = key_for(index, table, peer, protocol, port);
            if let Some(value) = look_up(&key) {
                // One number orders by precedence, then denying before allowing; 0 is no rule at all.
                let rank = (value.precedence as u32) << 2 | (value.deny as u32 & 1) << 1 | 1;
                if rank > best_rank {
                    best_rank = rank;
                    best_rule = value.rule;
                }
            }
        }
        tuples >>= 1;
        index += 1;
    }
    let reason = if best_rank & 2 != 0 {
        Reason::RuleDeny
    } else if best_rank != 0 {
        Reason::Rule
    } else if slot.flags & SLOT_CLOSED != 0 {
        Reason::NoRule
    } else {
        Reason::DefaultOpen
    };
    Verdict { reason, rule: best_rule }
}

/// Calls `prefix` with each (port, bits) of the fewest prefixes that cover `first..=last`: at most 30.
pub fn port_prefixes(first: u16, last: u16, mut prefix: impl FnMut(u16, u8)) {
    let mut next = u32::from(first);
    let end = u32::from(last) + 1;
    while next < end {
        let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
        let fitting = (end - next).ilog2();
        let free_bits = aligned.min(fitting);
        prefix(next as u16, (16 - free_bits) as u8);
        next += 1 << free_bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_has_a_bit_and_finds_its_packets() {
        let mut seen = 0_u64;
        for tuple_number in 0..TUPLES {
            let key = key_for(tuple_number, 1, 300, 6, 0xabcd);
            assert_eq!(tuple(&key), tuple_number);
            seen |= 1 << tuple_number;
        }
        assert_eq!(seen, (1 << TUPLES) - 1);
    }

    #[test]
    fn prefixes_cover_exactly_their_range() {
        let ranges =
            [(0, 65535), (1, 65535), (80, 80), (8000, 8010), (1, 1), (65535, 65535), (3, 32769), (0, 0)];
        for (first, last) in ranges {
            let mut count = 0;
            let mut next = u32::from(first);
            port_prefixes(first, last, |port, bits| {
                assert_eq!(masked(port, bits), port);
                assert_eq!(u32::from(port), next, "in order, without gaps");
                next += 1 << (16 - bits);
                count += 1;
            });
            assert_eq!(next, u32::from(last) + 1);
            assert!(count <= 30, "{first}-{last}: {count}");
        }
    }

    #[test]
    fn a_slot_without_a_table_denies() {
        let verdict = judge(&SlotValue::default(), 300, 6, 80, |_| None);
        assert_eq!(verdict, Verdict { reason: Reason::NoTable, rule: 0 });
    }
}
