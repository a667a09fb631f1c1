//! Our one nftables table: marks, masquerading, mapped ports. It is written whole, in one transaction.

use crate::{
    error::ApplyError,
    host::LINK_PREFIX,
    model::{MappedPort, Network},
};
use ipnet::IpNet;
use isthmus_dataplane_common::{MARK_MAPPED, MARK_MASK, MARK_NODE};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::IpAddr,
    process::{Command, Stdio},
};

/// Name of the table, family ip.
pub(crate) const TABLE: &str = "isthmus";

/// The rules as text for `nft -f`.
pub(crate) fn rules(network: &Network, ports: &[MappedPort]) -> String {
    let pools = ipv4_elements(network.pools.iter().copied());
    let nodes = network.nodes.iter().flat_map(|node| &node.addresses).map(|address| IpNet::from(*address));
    let nodes = ipv4_elements(nodes);
    let foreign = ipv4_elements(network.foreign.iter().map(|entry| entry.prefix));
    let keep = !MARK_MASK;
    let mut text = String::new();
    // The node's packets are marked behind the translation of mapped ports, by address: the interface that rules see there
    // is still the one before it. Adding before deleting makes the deletion succeed whether the table is there or not.
    let _ = write!(
        text,
        "add table ip {TABLE}\n\
         delete table ip {TABLE}\n\
         table ip {TABLE} {{\n\
         \tset pools {{ type ipv4_addr; flags interval; auto-merge; {pools} }}\n\
         \tset nodes {{ type ipv4_addr; flags interval; auto-merge; {nodes} }}\n\
         \tset foreign {{ type ipv4_addr; flags interval; auto-merge; {foreign} }}\n\
         \tchain node_packets {{\n\
         \t\ttype filter hook output priority filter;\n\
         \t\tip daddr @pools meta mark set meta mark & {keep:#010x} | {MARK_NODE:#x}\n\
         \t}}\n\
         \tchain mapped_packets {{\n\
         \t\ttype filter hook forward priority mangle;\n\
         \t\toifname \"{LINK_PREFIX}*\" ct status dnat ct direction original \
         meta mark set meta mark & {keep:#010x} | {MARK_MAPPED:#x}\n\
         \t}}\n\
         \tchain leaving {{\n\
         \t\ttype nat hook postrouting priority srcnat;\n\
         \t\tiifname \"{LINK_PREFIX}*\" oifname != \"{LINK_PREFIX}*\" ip saddr @pools ip daddr != @pools \
         ip daddr != @nodes ip daddr != @foreign masquerade\n\
         \t\toifname \"{LINK_PREFIX}*\" ct status dnat ip saddr @pools masquerade\n\
         \t\toifname \"{LINK_PREFIX}*\" ip saddr 127.0.0.0/8 masquerade\n\
         \t}}\n"
    );
    for (chain, hook) in [("mapped_from_outside", "prerouting"), ("mapped_from_node", "output")] {
        let priority = if hook == "output" { "-100" } else { "dstnat" };
        let _ = writeln!(text, "\tchain {chain} {{\n\t\ttype nat hook {hook} priority {priority};");
        for port in ports {
            map_port(&mut text, port);
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

fn map_port(text: &mut String, port: &MappedPort) {
    let IpAddr::V4(target) = port.target.ip() else { return };
    let protocol = if port.protocol == 17 { "udp" } else { "tcp" };
    let at = match port.host_address {
        Some(IpAddr::V4(address)) if !address.is_unspecified() => format!("ip daddr {address}"),
        Some(IpAddr::V6(address)) if !address.is_unspecified() => return,
        _ => "fib daddr type local".to_owned(),
    };
    let _ = writeln!(
        text,
        "\t\t{at} {protocol} dport {} dnat to {target}:{}",
        port.host_port,
        port.target.port()
    );
}

fn ipv4_elements(nets: impl Iterator<Item = IpNet>) -> String {
    let mut elements: Vec<_> =
        nets.filter(|net| net.addr().is_ipv4()).map(|net| net.trunc().to_string()).collect();
    elements.sort();
    elements.dedup();
    if elements.is_empty() { String::new() } else { format!("elements = {{ {} }};", elements.join(", ")) }
}

/// Puts rules into force, all or none.
pub(crate) fn apply(rules: &str) -> Result<(), ApplyError> {
    run(rules).map_err(ApplyError::of("write the nftables table `isthmus`"))
}

/// Removes the table; that it is not there does not matter.
pub(crate) fn remove() -> Result<(), ApplyError> {
    run(&format!("add table ip {TABLE}\ndelete table ip {TABLE}\n"))
        .map_err(ApplyError::of("remove the nftables table `isthmus`"))
}

fn run(rules: &str) -> io::Result<()> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(source.kind(), "nft is not installed: install the package nftables")
        }
        _ => source,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ForeignEntry, NodeEntry};

    #[test]
    fn rules_name_pools_nodes_and_ports() {
        let network = Network {
            pools: vec!["10.64.0.0/16".parse().unwrap()],
            nodes: vec![NodeEntry { number: 1, addresses: vec!["192.0.2.1".parse().unwrap()] }],
            foreign: vec![ForeignEntry {
                prefix: "198.51.100.0/24".parse().unwrap(),
                identity: isthmus_core::Identity::WORLD,
            }],
            ..Network::default()
        };
        let port = MappedPort {
            host_address: None,
            host_port: 61000,
            protocol: 6,
            target: "10.64.0.5:8080".parse().unwrap(),
        };
        let text = rules(&network, &[port]);
        assert!(text.contains("elements = { 10.64.0.0/16 };"), "{text}");
        assert!(text.contains(
            "set foreign { type ipv4_addr; flags interval; auto-merge; elements = { 198.51.100.0/24 };"
        ));
        assert!(text.contains("elements = { 192.0.2.1/32 };"), "{text}");
        assert_eq!(text.matches("tcp dport 61000 dnat to 10.64.0.5:8080").count(), 2, "{text}");
    }

    #[test]
    fn sets_may_be_empty() {
        let text = rules(&Network::default(), &[]);
        assert!(!text.contains("elements"), "{text}");
    }
}
