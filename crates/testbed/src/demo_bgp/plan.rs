//! What the demo consists of. Plain values.

use super::{PREFIX, RUN};
use crate::namespace::Namespace;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// The AS of everyone.
pub(super) const AS: u32 = 64_511;
/// The reflector's address on the wire.
pub(super) const REFLECTOR: Ipv4Addr = Ipv4Addr::new(172, 16, 18, 1);
/// The server's.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(172, 16, 18, 2);
/// The reflector's cluster.
pub(super) const CLUSTER_ID: Ipv4Addr = REFLECTOR;
/// Nodes of each platform.
const NODES: u8 = 3;
/// Addresses of a block: /26.
const BLOCK: u32 = 64;

/// A platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cluster {
    Kubernetes,
    Dcos,
}

impl Cluster {
    pub(super) const ALL: [Self; 2] = [Self::Kubernetes, Self::Dcos];

    /// What it is called, and its nodes' names begin with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "k8s",
            Self::Dcos => "dcos",
        }
    }

    /// What it runs.
    pub(super) fn platform(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Dcos => "mesos",
        }
    }

    /// Its range, as everyone knows it.
    pub(super) fn pool(self) -> Ipv4Net {
        let third = match self {
            Self::Kubernetes => 0,
            Self::Dcos => 128,
        };
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 0), 17)
    }
}

/// A worker of Kubernetes or an agent of DC/OS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    /// `k8s-1`.
    pub(super) name: String,
    pub(super) cluster: Cluster,
    /// From 1 over all nodes; gives its address.
    pub(super) number: u8,
    /// Its slice of the pool, which the server leases to it: the first to ask gets the first.
    pub(super) block: Ipv4Net,
}

impl Node {
    pub(super) fn namespace(&self) -> Namespace {
        Namespace::named(format!("{PREFIX}{}", self.name))
    }

    /// Its address on the wire.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 18, 10 + self.number)
    }

    /// Where it keeps its files.
    pub(super) fn directory(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    /// Its one container, which gets the first address.
    pub(super) fn container(&self) -> Container {
        Container { name: format!("{}-web", self.name), address: self.block.network() }
    }
}

/// A container, which serves a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
}

impl Container {
    pub(super) fn namespace(&self) -> Namespace {
        Namespace::named(format!("{PREFIX}{}", self.name))
    }
}

/// The reflector's namespace, and the wire's, where all packets between nodes can be seen.
pub(super) fn reflector() -> Namespace {
    Namespace::named(format!("{PREFIX}reflector"))
}

pub(super) fn wire() -> Namespace {
    Namespace::named(format!("{PREFIX}wire"))
}

/// The server's namespace.
pub(super) fn server() -> Namespace {
    Namespace::named(format!("{PREFIX}server"))
}

/// All nodes, those of Kubernetes first.
pub(super) fn nodes() -> Vec<Node> {
    let places = Cluster::ALL.into_iter().flat_map(|cluster| (0..NODES).map(move |index| (cluster, index)));
    let node = |((cluster, index), number): ((Cluster, u8), u8)| {
        let network = u32::from(cluster.pool().network()) + BLOCK * u32::from(index);
        Node {
            name: format!("{}-{}", cluster.name(), index + 1),
            cluster,
            number,
            block: Ipv4Net::new_assert(network.into(), 26),
        }
    };
    places.zip(1..).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_block_of_its_own_in_its_clusters_pool() {
        let nodes = nodes();
        let shown: Vec<_> =
            nodes.iter().map(|node| format!("{} {} {}", node.name, node.address(), node.block)).collect();
        assert_eq!(shown[0], "k8s-1 172.16.18.11 192.168.0.0/26");
        assert_eq!(shown[5], "dcos-3 172.16.18.16 192.168.128.128/26");
        for node in &nodes {
            assert!(
                node.cluster.pool().contains(&node.block) && node.block.contains(&node.container().address)
            );
        }
    }
}
