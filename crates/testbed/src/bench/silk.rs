//! Cloud Foundry's Silk: veths routed by the host, VXLAN with group policy, and a list of rules that every packet walks.
//!
//! The rules are those of the VXLAN policy agent and the CNI wrapper in their order, written as nftables instead of by
//! way of `iptables`: a little faster than on a real cell.

use super::{
    Lab,
    pair::{Pair, WIRE},
    subject::{OVERLAY_MTU, Subject, connect_vteps, three_ends, vtep_mac},
};
use crate::namespace::Namespace;
use std::fmt::Write as _;

/// Tag of the sender that a policy allows.
const CALLER: u32 = 0x0002;
/// Ports that the allowing policy names.
const PORTS: &str = "5000-5010";

/// Two cells whose containers are allowed to talk by one policy in the middle of `policies`.
pub(super) fn build(lab: &mut Lab, name: &str, number: u8, policies: u32) -> anyhow::Result<Subject> {
    let pair = Pair::create(lab, name, number)?;
    for (node, namespace) in pair.nodes.iter().enumerate() {
        let local = pair.address(node);
        namespace.ip(&format!(
            "link add silk-vtep type vxlan id 1 dev {WIRE} local {local} dstport 4789 nolearning gbp"
        ))?;
        namespace.ip(&format!("link set silk-vtep address {} mtu {OVERLAY_MTU} up", vtep_mac(node)))?;
        namespace
            .ip(&format!("address add {}/16 dev silk-vtep scope link", pair.container_address(node, 0)))?;
    }
    for (node, other) in [(0, 1), (1, 0)] {
        connect_vteps(&pair, node, other, "silk-vtep")?;
        let (via, from) = (pair.container_address(other, 0), pair.container_address(node, 0));
        pair.nodes[node]
            .ip(&format!("route add {} via {via} dev silk-vtep src {from}", pair.block(other)))?;
    }
    let mut make = |node: usize, name: &str, number: u8| -> anyhow::Result<Namespace> {
        let (container, side) = pair.container(lab, node, name, OVERLAY_MTU)?;
        pair.route_container(node, &container, &side, pair.container_address(node, number))?;
        Ok(container)
    };
    let (server, near, far) = (make(0, "a", 2)?, make(0, "b", 3)?, make(1, "c", 2)?);
    for node in 0..2 {
        let local: Vec<_> = if node == 0 { vec![(2, 1), (3, CALLER)] } else { vec![(2, CALLER)] };
        pair.nodes[node].call("nft").args(["-f", "-"]).input(rules(&pair, node, &local, policies)).run()?;
    }
    Ok(three_ends(name, &pair, server, near, far))
}

/// The rules of a cell with local containers (number, tag).
fn rules(pair: &Pair, node: usize, local: &[(u8, u32)], policies: u32) -> String {
    let mut text =
        String::from("table ip filter {\n chain forward {\n  type filter hook forward priority 0;\n");
    let address = |container: u8| pair.container_address(node, container);
    for (container, tag) in local {
        let _infallible = writeln!(text, "  ip saddr {} meta mark set {tag:#x} counter", address(*container));
    }
    for policy in 0..policies {
        let (tag, ports) = if policy == policies / 2 {
            (CALLER, PORTS.to_owned())
        } else {
            (policy + 16, (10_000 + policy).to_string())
        };
        for protocol in ["tcp", "udp"] {
            let to = address(2);
            let _infallible =
                writeln!(text, "  ip daddr {to} {protocol} dport {ports} meta mark {tag:#x} counter accept");
        }
    }
    for (container, _) in local {
        let own = address(*container);
        let _infallible = write!(
            text,
            "  ip saddr {own} oifname \"{WIRE}\" counter reject\n  \
             ip saddr {own} oifname \"silk-vtep\" meta mark != 0 counter accept\n  \
             ip daddr {own} ct state related,established counter accept\n  \
             ip daddr {own} meta mark 0xffff0000 counter accept\n  ip daddr {own} counter reject\n"
        );
    }
    text.push_str(" }\n}\ntable ip nat {\n chain postrouting {\n  type nat hook postrouting priority 100;\n");
    for (container, _) in local {
        let own = address(*container);
        let _infallible =
            writeln!(text, "  ip saddr {own} ip daddr != 10.0.0.0/8 oifname != \"silk-vtep\" masquerade");
    }
    text.push_str(" }\n}\n");
    text
}
