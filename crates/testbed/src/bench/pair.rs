//! Two nodes and the bare wire between them; containers that are namespaces behind a veth.

use super::{Lab, PREFIX};
use crate::{command::CommandError, namespace::Namespace};
use std::net::Ipv4Addr;

/// The interface of each node to the other.
pub(super) const WIRE: &str = "wire0";

/// Two nodes.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    name: String,
    number: u8,
    /// The nodes' namespaces.
    pub(super) nodes: [Namespace; 2],
}

impl Pair {
    /// Makes two nodes called `name`; `number` tells the pair's addresses from others'.
    pub(super) fn create(lab: &mut Lab, name: &str, number: u8) -> anyhow::Result<Self> {
        let nodes = [1, 2].map(|node| Namespace::named(format!("{PREFIX}{name}-{node}")));
        lab.record(|made| made.namespaces.extend(nodes.clone()))?;
        let pair = Self { name: name.to_owned(), number, nodes };
        for node in &pair.nodes {
            node.create()?;
            for (variable, value) in [
                ("ipv4.ip_forward", "1"),
                ("ipv6.conf.all.disable_ipv6", "1"),
                ("ipv6.conf.default.disable_ipv6", "1"),
                ("ipv4.conf.all.rp_filter", "0"),
                ("ipv4.conf.default.rp_filter", "0"),
            ] {
                node.sysctl(variable, value)?;
            }
        }
        let (left, right) = (&pair.nodes[0], &pair.nodes[1]);
        left.ip(&format!("link add {WIRE} type veth peer name {WIRE} netns {}", right.name()))?;
        for (index, node) in pair.nodes.iter().enumerate() {
            node.ip(&format!("address add {}/24 dev {WIRE}", pair.address(index)))?;
            node.ip(&format!("link set {WIRE} up"))?;
        }
        Ok(pair)
    }

    /// What it was called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Address of a node (0 or 1) on the wire.
    pub(super) fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 203, self.number, node as u8 + 1)
    }

    /// Address of a container (from 2) on a node; each node has a /24 of a /16 of the pair.
    pub(super) fn container_address(&self, node: usize, container: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.number, node as u8 + 1, container)
    }

    /// The block of a node's containers.
    pub(super) fn block(&self, node: usize) -> String {
        format!("{}/24", self.container_address(node, 0))
    }

    /// The blocks of both nodes.
    pub(super) fn network(&self) -> String {
        format!("{}/16", Ipv4Addr::new(10, 100 + self.number, 0, 0))
    }

    /// A namespace for a container, without any interface yet.
    pub(super) fn empty_container(
        &self,
        lab: &mut Lab,
        node: usize,
        name: &str,
    ) -> anyhow::Result<Namespace> {
        let container = Namespace::named(format!("{PREFIX}{}-{}{name}", self.name, node + 1));
        lab.record(|made| made.namespaces.push(container.clone()))?;
        container.create()?;
        Ok(container)
    }

    /// A container joined to its node by a veth pair; returns it with the name of the node's side.
    pub(super) fn container(
        &self,
        lab: &mut Lab,
        node: usize,
        name: &str,
        mtu: u32,
    ) -> anyhow::Result<(Namespace, String)> {
        let container = self.empty_container(lab, node, name)?;
        let side = format!("c-{name}");
        let host = &self.nodes[node];
        host.ip(&format!("link add {side} type veth peer name eth0 netns {}", container.name()))?;
        host.ip(&format!("link set {side} mtu {mtu} up"))?;
        container.ip(&format!("link set eth0 mtu {mtu} up"))?;
        Ok((container, side))
    }

    /// Gives a container a /32 and a link-local next hop that its node answers for, as routed networks do.
    pub(super) fn route_container(
        &self,
        node: usize,
        container: &Namespace,
        side: &str,
        address: Ipv4Addr,
    ) -> Result<(), CommandError> {
        let host = &self.nodes[node];
        host.ip(&format!("address add 169.254.1.1/32 dev {side} scope link"))?;
        host.ip(&format!("route add {address}/32 dev {side}"))?;
        container.ip(&format!("address add {address}/32 dev eth0"))?;
        container.ip("route add 169.254.1.1 dev eth0 scope link")?;
        container.ip("route add default via 169.254.1.1 dev eth0").map(drop)
    }
}
