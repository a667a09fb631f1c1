//! All rules of all policies, found by destination and by source.

use crate::workloads::Slot;
use isthmus_core::PortMatch;
use std::collections::{BTreeMap, BTreeSet};

/// A rule, in the order in which a table needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlacedRule {
    pub(crate) to: Slot,
    pub(crate) from: Slot,
    pub(crate) port: PortMatch,
    pub(crate) number: u32,
    /// Two policies may say the same; each keeps its own.
    pub(crate) policy: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    by_destination: BTreeSet<PlacedRule>,
    /// How many rules lead from the first to the second.
    by_source: BTreeMap<(Slot, Slot), u32>,
}

impl Rules {
    pub(crate) fn len(&self) -> usize {
        self.by_destination.len()
    }

    /// Whether there is nothing, in either order.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_destination.is_empty() && self.by_source.is_empty()
    }

    /// Adds a rule that is not there. Returns whether tables see it: whether it is the one that names its path now.
    pub(crate) fn insert(&mut self, rule: PlacedRule) -> bool {
        let before = self.decisive(rule);
        self.by_destination.insert(rule);
        *self.by_source.entry((rule.from, rule.to)).or_default() += 1;
        before != self.decisive(rule)
    }

    /// Removes a rule that is there. Returns whether tables see it.
    pub(crate) fn remove(&mut self, rule: PlacedRule) -> bool {
        let before = self.decisive(rule);
        self.by_destination.remove(&rule);
        if let Some(count) = self.by_source.get_mut(&(rule.from, rule.to)) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&(rule.from, rule.to));
            }
        }
        before != self.decisive(rule)
    }

    /// The rules of tables towards `to`: of those that open the same path the one with the lowest number.
    pub(crate) fn towards(&self, to: Slot) -> impl Iterator<Item = PlacedRule> {
        let first = PlacedRule { to, from: Slot::MIN, port: PortMatch::ANY, number: 0, policy: 0 };
        let mut last = None;
        self.by_destination.range(first..).take_while(move |rule| rule.to == to).copied().filter(
            move |rule| {
                let path = Some((rule.from, rule.port));
                std::mem::replace(&mut last, path) != path
            },
        )
    }

    /// The destinations of rules from `from`.
    pub(crate) fn destinations(&self, from: Slot) -> impl Iterator<Item = Slot> {
        self.by_source.range((from, Slot::MIN)..=(from, Slot::MAX)).map(|((_, to), _)| *to)
    }

    /// The number that names the path of `rule`.
    fn decisive(&self, rule: PlacedRule) -> Option<u32> {
        let first = PlacedRule { number: 0, policy: 0, ..rule };
        let last = PlacedRule { number: u32::MAX, policy: u32::MAX, ..rule };
        self.by_destination.range(first..=last).next().map(|rule| rule.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_core::{PortRange, Protocol};

    #[test]
    fn no_port_match_comes_before_any() {
        for protocol in [Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            assert!(PortMatch::new(protocol, PortRange::ALL).unwrap() >= PortMatch::ANY);
            for ports in [PortRange::new(1, 1).unwrap(), PortRange::new(1, u16::MAX).unwrap()] {
                assert!(
                    PortMatch::new(protocol, ports).is_ok_and(|port| port >= PortMatch::ANY)
                        || !protocol.has_ports()
                );
            }
        }
    }
}
