//! What the server told this node, by key, with the revision of each key's last change.
//!
//! The view is kept in a file, so that a restart without the server knows what was known. Only what is already in force
//! is written there: after a restart the kernel is never behind the file, so what the file does not have the server sends
//! again.

use isthmus_api::stream::{
    self, Bgp, BgpPeer, Block, Cluster, Foreign, Held, Node, PeerAddress, Pool, Upsert, VerdictTable,
    Workload, upsert,
};
use isthmus_core::Identity;
use prost::Message as _;
use std::collections::BTreeMap;

/// How a view's file begins.
const MAGIC: &[u8; 16] = b"isthmus-view-1\n\0";
/// Most keys that a view holds; more are refused and told.
const KEYS_MAX: usize = 1 << 20;

/// Everything the server said this node needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    /// Revision of the last `synced`.
    pub(crate) revision: u64,
    /// This node's number; 0 until the server gave one.
    pub(crate) node_number: u32,
    entries: BTreeMap<String, (u64, Value)>,
    resolved: BTreeMap<ResolvedKey, Resolved>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Cluster(Cluster),
    Pool(Pool),
    Node(Node),
    Block(Block),
    /// Encoded: a table is read when it is loaded, and a million decoded rules would be half of the agent.
    Table(Box<[u8]>),
    Workload(Workload),
    Network(stream::Network),
    Bgp(Bgp),
    BgpPeer(Box<BgpPeer>),
    Foreign(Foreign),
    PeerAddress(PeerAddress),
}

/// What a change of the view means for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Pools, nodes, blocks, and how packets travel among them.
    Network,
    /// The node's speaker or its neighbours.
    Bgp,
    /// The rules towards an identity.
    Table(Identity),
    /// Names only.
    Names,
}

/// Why something the server sent was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ViewError {
    /// A key that its value does not belong to, or no value.
    #[error("the server sent key {0} with a value that does not belong to it")]
    Mismatch(String),
    /// Too many keys.
    #[error("the server sent more than {KEYS_MAX} keys")]
    Full,
}

/// What names a workload for the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResolvedKey {
    /// Its cluster.
    pub(crate) cluster: String,
    /// Its id within the cluster.
    pub(crate) id: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// What the server said of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The number of the workload with these labels.
    pub(crate) identity: Identity,
    /// Its UUID.
    pub(crate) uuid: String,
    /// `platform:group/app@cluster`.
    pub(crate) name: String,
    /// When it was last used, seconds since 1970.
    pub(crate) used_unix: u64,
}

/// Most workloads that are remembered; the one that was unused for longest gives way.
const RESOLVED_MAX: usize = 16_384;

impl View {
    /// Takes over an upsert.
    pub(crate) fn upsert(&mut self, upsert: Upsert) -> Result<Change, ViewError> {
        let Upsert { key, revision, value } = upsert;
        let (change, value) = Self::check(&key, value).ok_or_else(|| ViewError::Mismatch(key.clone()))?;
        if self.entries.len() >= KEYS_MAX && !self.entries.contains_key(&key) {
            return Err(ViewError::Full);
        }
        self.entries.insert(key, (revision, value));
        Ok(change)
    }

    fn check(key: &str, value: Option<upsert::Value>) -> Option<(Change, Value)> {
        let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
        Some(match (kind, value?) {
            ("network", upsert::Value::Network(network)) if rest.is_empty() => {
                (Change::Network, Value::Network(network))
            }
            ("bgp", upsert::Value::Bgp(bgp)) if rest.is_empty() => (Change::Bgp, Value::Bgp(bgp)),
            ("bgp-peer", upsert::Value::BgpPeer(peer)) if peer.name == rest => {
                (Change::Bgp, Value::BgpPeer(Box::new(peer)))
            }
            ("foreign", upsert::Value::Foreign(foreign)) if foreign.cidr == rest => {
                (Change::Network, Value::Foreign(foreign))
            }
            ("peer", upsert::Value::PeerAddress(peer)) if peer.address == rest => {
                (Change::Network, Value::PeerAddress(peer))
            }
            ("cluster", upsert::Value::Cluster(cluster)) if cluster.name == rest => {
                (Change::Names, Value::Cluster(cluster))
            }
            ("pool", upsert::Value::Pool(pool)) => (Change::Network, Value::Pool(pool)),
            ("node", upsert::Value::Node(node)) if node.name == rest => (Change::Network, Value::Node(node)),
            ("block", upsert::Value::Block(block)) if block.cidr == rest => {
                (Change::Network, Value::Block(block))
            }
            ("table", upsert::Value::Table(table)) => {
                let identity =
                    Identity::new(table.identity).ok().filter(|identity| rest == identity.to_string())?;
                (Change::Table(identity), Value::Table(table.encode_to_vec().into()))
            }
            ("workload", upsert::Value::Workload(workload)) => {
                let identity = Identity::new(workload.identity).ok();
                identity.filter(|identity| rest == identity.to_string())?;
                (Change::Names, Value::Workload(workload))
            }
            _ => return None,
        })
    }

    /// Forgets a key; `None` if it was not there.
    pub(crate) fn delete(&mut self, key: &str) -> Option<Change> {
        let (_, value) = self.entries.remove(key)?;
        Some(match value {
            Value::Pool(_)
            | Value::Node(_)
            | Value::Block(_)
            | Value::Network(_)
            | Value::Foreign(_)
            | Value::PeerAddress(_) => Change::Network,
            Value::Bgp(_) | Value::BgpPeer(_) => Change::Bgp,
            Value::Table(_) => key.split_once('/')?.1.parse().map_or(Change::Names, Change::Table),
            Value::Cluster(_) | Value::Workload(_) => Change::Names,
        })
    }

    /// What is held, as `Hello` says it.
    pub(crate) fn held(&self) -> Vec<Held> {
        let held =
            |(key, (revision, _)): (&String, &(u64, Value))| Held { key: key.clone(), revision: *revision };
        self.entries.iter().map(held).collect()
    }

    fn values(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        let prefix = move |key: &&String| key.starts_with(kind);
        self.entries
            .range(kind.to_owned()..)
            .take_while(move |(key, _)| prefix(key))
            .map(|(_, (_, value))| value)
    }

    /// All pools.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.values("pool/").filter_map(|value| if let Value::Pool(pool) = value { Some(pool) } else { None })
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.values("node/").filter_map(|value| if let Value::Node(node) = value { Some(node) } else { None })
    }

    /// All blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.values("block/")
            .filter_map(|value| if let Value::Block(block) = value { Some(block) } else { None })
    }

    /// How packets travel in the whole network; `None`: as usual.
    pub(crate) fn network(&self) -> Option<&stream::Network> {
        match self.entries.get("network")? {
            (_, Value::Network(network)) => Some(network),
            _ => None,
        }
    }

    /// How the node's speaker is; `None`: it has none.
    pub(crate) fn bgp(&self) -> Option<&Bgp> {
        match self.entries.get("bgp")? {
            (_, Value::Bgp(bgp)) => Some(bgp),
            _ => None,
        }
    }

    /// The speaker's neighbours.
    pub(crate) fn bgp_peers(&self) -> impl Iterator<Item = &BgpPeer> {
        self.values("bgp-peer/")
            .filter_map(|value| if let Value::BgpPeer(peer) = value { Some(&**peer) } else { None })
    }

    /// Ranges of networks that have no agents.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Foreign> {
        self.values("foreign/")
            .filter_map(|value| if let Value::Foreign(foreign) = value { Some(foreign) } else { None })
    }

    /// Addresses of members that the node's rules name.
    pub(crate) fn peer_addresses(&self) -> impl Iterator<Item = &PeerAddress> {
        self.values("peer/")
            .filter_map(|value| if let Value::PeerAddress(peer) = value { Some(peer) } else { None })
    }

    /// A cluster.
    pub(crate) fn cluster(&self, name: &str) -> Option<&Cluster> {
        match self.entries.get(&format!("cluster/{name}"))? {
            (_, Value::Cluster(cluster)) => Some(cluster),
            _ => None,
        }
    }

    /// The rules towards an identity.
    pub(crate) fn table(&self, identity: Identity) -> Option<VerdictTable> {
        match self.entries.get(&format!("table/{identity}"))? {
            (_, Value::Table(bytes)) => VerdictTable::decode(&**bytes).ok(),
            _ => None,
        }
    }

    /// Whether there is a table.
    pub(crate) fn has_table(&self, identity: Identity) -> bool {
        self.entries.contains_key(&format!("table/{identity}"))
    }

    /// The workload behind an identity.
    pub(crate) fn workload(&self, identity: Identity) -> Option<&Workload> {
        match self.entries.get(&format!("workload/{identity}"))? {
            (_, Value::Workload(workload)) => Some(workload),
            _ => None,
        }
    }

    /// What the server once said of a workload.
    pub(crate) fn resolved(&self, key: &ResolvedKey) -> Option<&Resolved> {
        self.resolved.get(key)
    }

    /// Remembers what the server said of a workload.
    pub(crate) fn remember(&mut self, key: ResolvedKey, resolved: Resolved) {
        if self.resolved.len() >= RESOLVED_MAX && !self.resolved.contains_key(&key) {
            let oldest = self.resolved.iter().min_by_key(|(_, resolved)| resolved.used_unix);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.resolved.remove(&oldest);
            }
        }
        self.resolved.insert(key, resolved);
    }
}

mod file;

#[cfg(test)]
mod tests;
