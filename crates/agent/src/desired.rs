//! What the kernel should have, from what the server said: pure functions.
//!
//! What cannot be read is left out and told as a problem; the rest is used.

use crate::view::View;
use ipnet::IpNet;
use isthmus_api::stream;
use isthmus_core::{DefaultVerdict, DenyAnswer, Identity, PortMatch, PortRange, Protocol};
use isthmus_dataplane::model::{
    BlockEntry, Encapsulation, ForeignEntry, Network, NodeEntry, PeerEntry, SourceCheck, Table, TableRule,
};
use std::{collections::BTreeMap, net::IpAddr};

/// Pools, nodes and blocks, and what could not be read of them.
pub(crate) fn network(view: &View) -> (Network, Vec<String>) {
    let mut problems = Vec::new();
    let mut network = Network::default();
    for pool in view.pools() {
        for cidr in &pool.cidrs {
            match cidr.parse::<IpNet>() {
                Ok(range) => network.pools.push(range),
                Err(_) => problems.push(format!("pool {} has \"{cidr}\", which is no CIDR", pool.name)),
            }
        }
    }
    let mut numbers = BTreeMap::new();
    for node in view.nodes() {
        match node_entry(node) {
            Some(entry) => {
                numbers.insert(node.name.as_str(), entry.number);
                network.nodes.push(entry);
            }
            None => problems.push(format!("node {} has no number or a wrong address", node.name)),
        }
    }
    for block in view.blocks() {
        // A block of a node that is gone is nobody's; the server gives it back.
        let Some(number) = numbers.get(block.node.as_str()) else { continue };
        match block.cidr.parse() {
            Ok(range) => network.blocks.push(BlockEntry { block: range, node: *number }),
            Err(_) => problems.push(format!("block \"{}\" is no CIDR", block.cidr)),
        }
    }
    native(view, &mut network, &mut problems);
    (network, problems)
}

/// How packets travel, and who is at the other end where they carry no identity.
fn native(view: &View, network: &mut Network, problems: &mut Vec<String>) {
    (network.encapsulation, network.source_check) = ways(view, problems);
    for foreign in view.foreign() {
        match (foreign.cidr.parse(), Identity::new(foreign.identity)) {
            (Ok(prefix), Ok(identity)) => network.foreign.push(ForeignEntry { prefix, identity }),
            _ => problems.push(format!("foreign range \"{}\" has a wrong CIDR or identity", foreign.cidr)),
        }
    }
    for peer in view.peer_addresses() {
        match (peer.address.parse(), Identity::new(peer.identity)) {
            (Ok(address), Ok(identity)) => network.peers.push(PeerEntry { address, identity }),
            _ => problems.push(format!("peer \"{}\" has a wrong address or identity", peer.address)),
        }
    }
}

/// How packets travel to other nodes. A word that this agent does not know is the safe one, and told.
pub(crate) fn ways(view: &View, problems: &mut Vec<String>) -> (Encapsulation, SourceCheck) {
    let Some(network) = view.network() else { return Default::default() };
    let encapsulation = match network.encapsulation.as_str() {
        "" | "always" => Encapsulation::Always,
        "cross-subnet" => Encapsulation::CrossSubnet,
        "never" => Encapsulation::Never,
        other => {
            problems.push(format!("encapsulation \"{other}\" is not known to this agent: upgrade it"));
            Encapsulation::Always
        }
    };
    let source_check = match network.source_check.as_str() {
        "" | "strict" => SourceCheck::Strict,
        "loose" => SourceCheck::Loose,
        other => {
            problems.push(format!("source check \"{other}\" is not known to this agent: upgrade it"));
            SourceCheck::Strict
        }
    };
    (encapsulation, source_check)
}

fn node_entry(node: &stream::Node) -> Option<NodeEntry> {
    let addresses: Result<Vec<IpAddr>, _> = node.addresses.iter().map(|address| address.parse()).collect();
    let addresses = addresses.ok().filter(|addresses| !addresses.is_empty() && node.number != 0)?;
    Some(NodeEntry { number: node.number, addresses })
}

/// A table as the server compiled it.
///
/// # Errors
///
/// What is wrong with it. A table is used whole or not at all.
pub(crate) fn table(sent: &stream::VerdictTable) -> Result<Table, String> {
    let identity = Identity::new(sent.identity).map_err(|error| error.to_string())?;
    let rules: Result<Vec<_>, String> = sent.rules.iter().map(rule).collect();
    let rules = rules.map_err(|why| format!("a rule towards {identity}: {why}"))?;
    Ok(Table { identity, default: verdict(sent.closed), answer: answer(sent.reject), rules })
}

fn rule(sent: &stream::Rule) -> Result<TableRule, String> {
    let number = |number: u32| u8::try_from(number).ok().and_then(Protocol::from_number);
    let protocol = number(sent.protocol).ok_or_else(|| format!("protocol {} is unknown", sent.protocol))?;
    let port = |port: u32| u16::try_from(port).map_err(|_source| format!("port {port} is too large"));
    let ports = match (port(sent.first_port)?, port(sent.last_port)?) {
        (0, u16::MAX) => PortRange::ALL,
        (first, last) => PortRange::new(first, last).map_err(|error| error.to_string())?,
    };
    Ok(TableRule {
        peer: Identity::new(sent.peer).map_err(|error| error.to_string())?,
        port: PortMatch::new(protocol, ports).map_err(|error| error.to_string())?,
        deny: sent.deny,
        precedence: u16::try_from(sent.precedence)
            .map_err(|_source| format!("precedence {} is too large", sent.precedence))?,
        number: sent.number,
    })
}

/// The table of an identity whose rules are not known: its cluster's default, and closed where that is not known either.
pub(crate) fn default_table(view: &View, identity: Identity, cluster: &str) -> Table {
    let cluster = view.cluster(cluster);
    Table {
        identity,
        default: verdict(cluster.is_none_or(|cluster| cluster.closed)),
        answer: answer(cluster.is_some_and(|cluster| cluster.reject)),
        rules: Vec::new(),
    }
}

fn verdict(closed: bool) -> DefaultVerdict {
    if closed { DefaultVerdict::Closed } else { DefaultVerdict::Open }
}

fn answer(reject: bool) -> DenyAnswer {
    if reject { DenyAnswer::Reject } else { DenyAnswer::Drop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_api::stream::{Block, Node, Pool, Rule, Upsert, VerdictTable, upsert};

    fn view(entries: Vec<(&str, upsert::Value)>) -> View {
        let mut view = View::default();
        for (key, value) in entries {
            view.upsert(Upsert { key: key.to_owned(), revision: 1, value: Some(value) }).unwrap();
        }
        view
    }

    fn node(name: &str, number: u32, address: &str) -> upsert::Value {
        upsert::Value::Node(Node { name: name.to_owned(), number, addresses: vec![address.to_owned()] })
    }

    fn block(cidr: &str, node: &str) -> upsert::Value {
        let block = Block { cidr: cidr.to_owned(), node: node.to_owned(), ..Block::default() };
        upsert::Value::Block(block)
    }

    #[test]
    fn the_network_is_what_the_server_said() {
        let pool = Pool { cidrs: vec!["10.64.0.0/16".to_owned(), "x".to_owned()], ..Pool::default() };
        let (network, problems) = network(&view(vec![
            ("pool/red/main", upsert::Value::Pool(pool)),
            ("node/n1", node("n1", 1, "192.0.2.1")),
            ("node/n2", node("n2", 0, "192.0.2.2")),
            ("block/10.64.0.0/26", block("10.64.0.0/26", "n1")),
            ("block/10.64.0.64/26", block("10.64.0.64/26", "gone")),
        ]));
        assert_eq!(network.pools, vec!["10.64.0.0/16".parse().unwrap()]);
        assert_eq!(
            network.nodes,
            vec![NodeEntry { number: 1, addresses: vec!["192.0.2.1".parse().unwrap()] }]
        );
        assert_eq!(network.blocks, vec![BlockEntry { block: "10.64.0.0/26".parse().unwrap(), node: 1 }]);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn a_table_with_a_rule_that_cannot_be_is_refused_whole() {
        let good =
            Rule { peer: 257, protocol: 6, first_port: 80, last_port: 90, number: 1, ..Rule::default() };
        let sent =
            |rule: Rule| VerdictTable { identity: 256, closed: true, reject: true, rules: vec![good, rule] };
        assert!(table(&sent(good)).is_ok_and(|table| table.rules.len() == 2));
        for bad in [
            Rule { protocol: 132, ..good },
            Rule { first_port: 91, ..good },
            Rule { last_port: 70_000, ..good },
            Rule { peer: 1, ..good },
            Rule { precedence: 70_000, ..good },
            Rule { protocol: 1, ..good },
        ] {
            assert!(table(&sent(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_cluster_is_closed() {
        let identity = Identity::new(256).unwrap();
        assert_eq!(default_table(&View::default(), identity, "red").default, DefaultVerdict::Closed);
    }
}
