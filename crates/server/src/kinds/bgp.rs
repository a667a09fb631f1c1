//! The network's setting and BGP neighbours, as they are stored.

use ipnet::IpNet;
use isthmus_api::rest::Secret;
use isthmus_core::{Encapsulation, Labels, SourceCheck};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};
use uuid::Uuid;

/// How packets travel in the whole network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredNetwork {
    pub(crate) uuid: Uuid,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) encapsulation: String,
    pub(crate) source_check: String,
}

impl StoredNetwork {
    /// The default if the text is no word, which only a foreign writer can cause.
    pub(crate) fn encapsulation(&self) -> Encapsulation {
        self.encapsulation.parse().unwrap_or_default()
    }

    pub(crate) fn source_check(&self) -> SourceCheck {
        self.source_check.parse().unwrap_or_default()
    }
}

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum PeerAddress {
    One(IpAddr),
    /// Whoever connects from there.
    Range(IpNet),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => write!(f, "{address}"),
            Self::Range(range) => write!(f, "{range}"),
        }
    }
}

/// Prefixes within a CIDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPrefixMatch {
    pub(crate) cidr: IpNet,
    pub(crate) len_min: u8,
    pub(crate) len_max: u8,
}

/// A BGP neighbour of some nodes. Defaults are filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, as people write them")]
pub(crate) struct StoredBgpPeer {
    pub(crate) uuid: Uuid,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) address: PeerAddress,
    /// `None`: any.
    pub(crate) asn: Option<u32>,
    pub(crate) cluster: Option<String>,
    /// Empty: all.
    pub(crate) nodes: Vec<String>,
    pub(crate) node_labels: Labels,
    pub(crate) password: Option<Secret>,
    pub(crate) hold_seconds: Option<u32>,
    pub(crate) passive: bool,
    pub(crate) multihop_ttl: Option<u32>,
    pub(crate) ttl_security: bool,
    pub(crate) bfd: bool,
    pub(crate) restart_seconds: u32,
    pub(crate) reflector_client: bool,
    pub(crate) import: Vec<StoredPrefixMatch>,
    pub(crate) import_own_pools: bool,
    pub(crate) import_default_route: bool,
    pub(crate) export: Vec<StoredPrefixMatch>,
    pub(crate) export_blocks: bool,
    pub(crate) communities: Vec<String>,
    pub(crate) prefixes_max: u32,
    pub(crate) families: Vec<String>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) port: Option<u32>,
}

impl StoredBgpPeer {
    /// Whether it is a neighbour of the node with this name, of these clusters and with these labels.
    pub(crate) fn selects(&self, node: &str, clusters: &[String], labels: &Labels) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| clusters.contains(cluster))
            && (self.nodes.is_empty() || self.nodes.iter().any(|name| name == node))
            && self.node_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}
