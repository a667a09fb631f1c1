//! Nodes: registered by their agent's hello, deleted by people. A node is a name, not an address.

use super::{CommitError, RETRIES_MAX, Registry, unix_now};
use crate::{
    kinds::{self, StoredNode, StoredNodeSettings, StoredNodeStatus},
    problem::{Code, Fault},
};
use isthmus_core::{Asn, ClusterName, Labels, NodeName};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};
use uuid::Uuid;

/// Addresses of one node.
pub(crate) const ADDRESSES_MAX: usize = 64;
/// Largest node number.
const NUMBER_MAX: u32 = 0x00ff_ffff;
/// Keys deleted in one transaction.
const CHUNK: usize = 250;

/// What an agent says of its node.
#[derive(Clone, Debug)]
pub(crate) struct NodeDraft {
    pub(crate) name: NodeName,
    /// The first is the tunnel's.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) clusters: Vec<ClusterName>,
    pub(crate) agent_version: String,
    pub(crate) vxlan_port: u16,
    pub(crate) mtu: u32,
}

/// What people set of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettingsDraft {
    pub(crate) name: NodeName,
    pub(crate) labels: Labels,
    pub(crate) asn: Option<Asn>,
    /// Cluster id as a route reflector.
    pub(crate) reflector: Option<Ipv4Addr>,
}

/// Why a node could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("there is no node {0}")]
    Missing(NodeName),
    #[error("node {0} says no address: its agent needs one for the overlay")]
    NoAddress(NodeName),
    #[error("tunnel address {address} of node {node} belongs to node {holder}")]
    TunnelTaken { node: NodeName, address: IpAddr, holder: String },
    #[error("address {address} of node {node} lies in {cidr} of pool {pool}, which is for containers")]
    InPool { node: NodeName, address: IpAddr, pool: String, cidr: ipnet::IpNet },
    #[error("node {name} is at revision {found}, not {wanted}: somebody changed it meanwhile")]
    Changed { name: NodeName, wanted: Revision, found: Revision },
    #[error("the agent of node {0} is connected")]
    Connected(NodeName),
    #[error("all node numbers are in use")]
    NumbersExhausted,
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for NodeError {
    fn code(&self) -> Code {
        match self {
            Self::Missing(_) => Code::NotFound,
            Self::NoAddress(_) => Code::BadRequest,
            Self::TunnelTaken { .. } => Code::TunnelTaken,
            Self::InPool { .. } => Code::PoolsOverlap,
            Self::Changed { .. } => Code::Conflict,
            Self::Connected(_) => Code::NodeConnected,
            Self::NumbersExhausted => Code::Unavailable,
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::TunnelTaken { holder, .. } => Some(format!(
                "give each node its own address; if {holder} is gone: isthmus node delete {holder}"
            )),
            Self::Missing(_) => {
                Some("it is registered when its agent first comes: isthmus node list".to_owned())
            }
            Self::Changed { .. } => Some("read it again, and write with the new ETag".to_owned()),
            Self::Connected(node) => Some(format!("stop the agent on {node} first")),
            _ => None,
        }
    }
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Registry {
    /// Registers a node, or corrects what is known of it. Returns its number, which it keeps.
    pub(crate) async fn register_node(&self, draft: &NodeDraft) -> Result<u32, NodeError> {
        let name = &draft.name;
        let tunnel = *draft.addresses.first().ok_or_else(|| NodeError::NoAddress(name.clone()))?;
        let key = kinds::node_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let held = self.read::<StoredNode>(&key)?;
            let number = self.check_node(draft, held.as_ref().map(|(held, _)| held.number)).await?;
            let uuid = held.as_ref().map_or_else(Uuid::new_v4, |(held, _)| held.uuid);
            let settings = held.as_ref().map(|(held, _)| held.settings.clone()).unwrap_or_default();
            let node = stored(draft, uuid, number, settings);
            if held.as_ref().is_some_and(|(held, _)| *held == node) {
                return Ok(number);
            }
            let tunnel_key = kinds::tunnel_key(tunnel);
            let tunnel_revision = self.check_tunnel(name, tunnel)?;
            let mut txn = Txn::new()
                .when(Compare::unchanged(&key, held.as_ref().map_or(0, |(_, revision)| *revision)))
                .when(Compare::unchanged(&tunnel_key, tunnel_revision))
                .then(Operation::put(&key, kinds::encode(&node)))
                .then(Operation::put(&tunnel_key, name.as_str()));
            match &held {
                None => {
                    let number_key = kinds::node_number_key(number);
                    txn = txn
                        .when(Compare::absent(&number_key))
                        .then(Operation::put(number_key, name.as_str()));
                }
                Some((held, _)) => {
                    if let Some(old) = held.addresses.first().filter(|old| **old != tunnel) {
                        txn = txn.then(Operation::delete(kinds::tunnel_key(*old)));
                    }
                }
            }
            if self.commit(txn).await?.is_some() {
                tracing::info!(node = %name, number, address = %tunnel, "node registered");
                return Ok(number);
            }
        }
        Err(CommitError::Contended { what: format!("node {name}") }.into())
    }

    /// Replaces what people set of a node, if it is at revision `wanted` where one is given.
    pub(crate) async fn replace_node_settings(
        &self,
        draft: &NodeSettingsDraft,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), NodeError> {
        let name = &draft.name;
        let key = kinds::node_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let held = self.read::<StoredNode>(&key)?;
            let (mut node, found) = held.ok_or_else(|| NodeError::Missing(name.clone()))?;
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(NodeError::Changed { name: name.clone(), wanted, found });
            }
            let settings = StoredNodeSettings {
                labels: draft.labels.clone(),
                asn: draft.asn.map(Asn::number),
                reflector: draft.reflector,
            };
            if dry || node.settings == settings {
                return Ok(());
            }
            node.settings = settings;
            let txn = Txn::new()
                .when(Compare::unchanged(&key, found))
                .then(Operation::put(&key, kinds::encode(&node)));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("node {name}") }.into())
    }

    /// Checks a draft against the view; returns the number that the node has or could take.
    async fn check_node(&self, draft: &NodeDraft, number: Option<u32>) -> Result<u32, NodeError> {
        let view = self.fresh_view().await?;
        for (pool, held) in &view.pools {
            for cidr in &held.value.cidrs {
                if let Some(address) = draft.addresses.iter().find(|address| cidr.contains(*address)) {
                    let (node, address) = (draft.name.clone(), *address);
                    return Err(NodeError::InPool { node, address, pool: pool.clone(), cidr: *cidr });
                }
            }
        }
        if let Some(number) = number {
            return Ok(number);
        }
        let used: BTreeSet<u32> = view.nodes.values().map(|held| held.value.number).collect();
        (1..=NUMBER_MAX).find(|number| !used.contains(number)).ok_or(NodeError::NumbersExhausted)
    }

    /// The revision of the key that says whose a tunnel address is; 0 if it is nobody's.
    fn check_tunnel(&self, node: &NodeName, address: IpAddr) -> Result<u64, NodeError> {
        let Some(entry) = self.store.entry(&kinds::tunnel_key(address))? else { return Ok(0) };
        let holder = String::from_utf8_lossy(&entry.value).into_owned();
        if holder == node.as_str() {
            return Ok(entry.mod_revision);
        }
        Err(NodeError::TunnelTaken { node: node.clone(), address, holder })
    }

    /// Deletes a node with its blocks and endpoints. The caller has made sure that its agent is away.
    pub(crate) async fn delete_node(&self, name: &NodeName, dry: bool) -> Result<(), NodeError> {
        let key = kinds::node_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let Some((held, revision)) = self.read::<StoredNode>(&key)? else {
                return Err(NodeError::Missing(name.clone()));
            };
            if dry {
                return Ok(());
            }
            // First the node, so that nothing new is leased or attached; then what it had.
            let mut txn = Txn::new()
                .when(Compare::unchanged(&key, revision))
                .then(Operation::delete(&key))
                .then(Operation::delete(kinds::node_status_key(name.as_str())))
                .then(Operation::delete(kinds::node_number_key(held.number)));
            if let Some(tunnel) = held.addresses.first() {
                txn = txn.then(Operation::delete(kinds::tunnel_key(*tunnel)));
            }
            if self.commit(txn).await?.is_some() {
                self.delete_leftovers(name).await?;
                tracing::info!(node = %name, "node deleted");
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("node {name}") }.into())
    }

    /// Deletes blocks and endpoints of a node that is no longer registered. Also called at start, for a deletion that a
    /// crash cut short.
    pub(crate) async fn delete_leftovers(&self, name: &NodeName) -> Result<(), CommitError> {
        let keys: Vec<String> = {
            let view = self.fresh_view().await?;
            let endpoints = view
                .endpoints_on(name.as_str())
                .map(|(name, _)| format!("{}{name}", kinds::prefix::ENDPOINT));
            let blocks = view.blocks.values().filter(|held| held.value.node == name.as_str());
            endpoints.chain(blocks.map(|held| kinds::block_key(held.value.cidr))).collect()
        };
        for chunk in keys.chunks(CHUNK) {
            let txn = chunk.iter().fold(Txn::new(), |txn, key| txn.then(Operation::delete(key)));
            let absent = Compare::absent(kinds::node_key(name.as_str()));
            if self.commit(txn.when(absent)).await?.is_none() {
                // It has come back; what it has is its own again.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Deletes what nodes that are no longer registered left.
    pub(crate) async fn delete_all_leftovers(&self) -> Result<(), CommitError> {
        let gone: BTreeSet<String> = {
            let view = self.fresh_view().await?;
            let holders = view.blocks.values().map(|held| &held.value.node);
            let hosts = view.endpoints.values().map(|held| &held.value.node);
            holders.chain(hosts).filter(|node| !view.nodes.contains_key(*node)).cloned().collect()
        };
        for node in gone {
            if let Ok(name) = node.parse() {
                self.delete_leftovers(&name).await?;
            }
        }
        Ok(())
    }

    /// Records what a node said of itself last.
    pub(crate) async fn record_node_status(
        &self,
        node: &NodeName,
        status: StoredNodeStatus,
    ) -> Result<(), CommitError> {
        let key = kinds::node_status_key(node.as_str());
        let status = StoredNodeStatus { last_seen_unix: unix_now(), ..status };
        let txn = Txn::new()
            .when(Compare::exists(kinds::node_key(node.as_str())))
            .then(Operation::put(key, kinds::encode(&status)));
        // Refused: the node was deleted, and there is nothing to record.
        self.commit(txn).await.map(drop)
    }
}

fn stored(draft: &NodeDraft, uuid: Uuid, number: u32, settings: StoredNodeSettings) -> StoredNode {
    StoredNode {
        uuid,
        number,
        addresses: draft.addresses.clone(),
        clusters: draft.clusters.iter().map(|name| name.as_str().to_owned()).collect(),
        agent_version: draft.agent_version.clone(),
        vxlan_port: draft.vxlan_port,
        mtu: draft.mtu,
        settings,
    }
}
