//! A compiled table, and what it means.

use isthmus_core::{DefaultVerdict, DenyAnswer, Identity, PortMatch, Protocol};
use std::cmp::Reverse;

/// All rules towards one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The destination.
    pub identity: Identity,
    /// Where no rule decides.
    pub default: DefaultVerdict,
    /// How a denied packet is answered.
    pub answer: DenyAnswer,
    /// The rules, sorted, each peer and port once for each precedence and verdict.
    pub rules: Vec<TableRule>,
}

/// One rule of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableRule {
    /// Sender; [`Identity::NONE`] is everybody.
    pub peer: Identity,
    /// Protocol and destination ports.
    pub port: PortMatch,
    /// Whether it denies.
    pub deny: bool,
    /// The higher one wins; of equals the denying one.
    pub precedence: u16,
    /// What flows and counters name; not 0.
    pub number: u32,
}

/// What a table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// What decided.
    pub decision: Decision,
}

/// What decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The rule with this number.
    Rule(u32),
    /// No rule; the default.
    Default,
}

impl Verdict {
    /// The word for it, from the closed list of reasons.
    pub const fn reason(self) -> &'static str {
        match (self.allowed, self.decision) {
            (true, Decision::Rule(_)) => "rule",
            (true, Decision::Default) => "default-open",
            (false, Decision::Rule(_)) => "rule-deny",
            (false, Decision::Default) => "no-rule",
        }
    }
}

impl Table {
    /// What the table says of a packet of IP protocol `protocol` from `peer` to `port` (0 where the protocol has none).
    ///
    /// Costs a binary search and a look at the rules of this peer and of everybody.
    pub fn verdict(&self, peer: Identity, protocol: u8, port: u16) -> Verdict {
        let exact = self.rules_of(peer).iter();
        let everybody = if peer == Identity::NONE { &[] } else { self.rules_of(Identity::NONE) };
        let decisive = exact
            .chain(everybody)
            .filter(|rule| rule.port.matches(protocol, port))
            .max_by_key(|rule| (rule.precedence, rule.deny, rule.narrowness(), Reverse(rule.number)));
        match decisive {
            Some(rule) => Verdict { allowed: !rule.deny, decision: Decision::Rule(rule.number) },
            None => Verdict { allowed: self.default == DefaultVerdict::Open, decision: Decision::Default },
        }
    }

    fn rules_of(&self, peer: Identity) -> &[TableRule] {
        let first = self.rules.partition_point(|rule| rule.peer < peer);
        let last = self.rules.partition_point(|rule| rule.peer <= peer);
        &self.rules[first..last]
    }
}

impl TableRule {
    /// Of rules that agree the one that says most names the verdict: a peer, a protocol, few ports.
    fn narrowness(&self) -> (bool, bool, Reverse<u16>) {
        let ports = self.port.ports();
        (
            self.peer != Identity::NONE,
            self.port.protocol() != Protocol::Any,
            Reverse(ports.last() - ports.first()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(peer: u32, port: &str, deny: bool, precedence: u16, number: u32) -> TableRule {
        let peer = if peer == 0 { Identity::NONE } else { Identity::new(peer).unwrap() };
        TableRule { peer, port: port.parse().unwrap(), deny, precedence, number }
    }

    fn check(
        default: DefaultVerdict,
        rules: &[TableRule],
        packet: (u32, u8, u16),
        expected: (bool, &str, u32),
    ) {
        let mut rules = rules.to_vec();
        rules.sort();
        let identity = Identity::new(300).unwrap();
        let table = Table { identity, default, answer: DenyAnswer::Drop, rules };
        let (peer, protocol, port) = packet;
        let verdict = table.verdict(Identity::new(peer).unwrap(), protocol, port);
        let number = if let Decision::Rule(number) = verdict.decision { number } else { 0 };
        assert_eq!((verdict.allowed, verdict.reason(), number), expected);
    }

    #[test]
    fn without_a_rule_the_default_decides() {
        check(DefaultVerdict::Open, &[], (256, 6, 80), (true, "default-open", 0));
        check(DefaultVerdict::Closed, &[], (256, 6, 80), (false, "no-rule", 0));
        let other = [
            rule(257, "any", false, 0, 7),
            rule(256, "udp:80", false, 0, 8),
            rule(256, "tcp:81", false, 0, 9),
        ];
        check(DefaultVerdict::Closed, &other, (256, 6, 80), (false, "no-rule", 0));
    }

    #[test]
    fn a_rule_of_the_peer_or_of_everybody_allows() {
        check(DefaultVerdict::Closed, &[rule(256, "tcp:80", false, 0, 7)], (256, 6, 80), (true, "rule", 7));
        check(DefaultVerdict::Closed, &[rule(0, "tcp:80-90", false, 0, 7)], (256, 6, 85), (true, "rule", 7));
        check(DefaultVerdict::Closed, &[rule(256, "icmp", false, 0, 7)], (256, 1, 0), (true, "rule", 7));
        check(DefaultVerdict::Closed, &[rule(256, "any", false, 0, 7)], (256, 132, 0), (true, "rule", 7));
    }

    #[test]
    fn the_higher_precedence_wins_and_of_equals_the_denial() {
        let rules = [rule(256, "tcp:80", false, 1, 7), rule(0, "any", true, 2, 8)];
        check(DefaultVerdict::Open, &rules, (256, 6, 80), (false, "rule-deny", 8));
        let rules = [rule(256, "tcp:80", false, 2, 7), rule(0, "any", true, 1, 8)];
        check(DefaultVerdict::Closed, &rules, (256, 6, 80), (true, "rule", 7));
        let rules = [rule(256, "tcp:80", false, 1, 7), rule(0, "any", true, 1, 8)];
        check(DefaultVerdict::Open, &rules, (256, 6, 80), (false, "rule-deny", 8));
    }

    #[test]
    fn of_rules_that_agree_the_narrowest_is_named() {
        let rules = [
            rule(0, "tcp:80", false, 0, 1),
            rule(256, "any", false, 0, 2),
            rule(256, "tcp:80-90", false, 0, 3),
            rule(256, "tcp:80", false, 0, 4),
        ];
        check(DefaultVerdict::Closed, &rules, (256, 6, 80), (true, "rule", 4));
        check(DefaultVerdict::Closed, &rules, (256, 6, 81), (true, "rule", 3));
        check(DefaultVerdict::Closed, &rules, (256, 17, 81), (true, "rule", 2));
        check(DefaultVerdict::Closed, &rules, (257, 6, 80), (true, "rule", 1));
    }
}
