//! Blocks: slices of pools, leased to nodes.

use super::{CommitError, RETRIES_MAX, Registry};
use crate::{
    kinds::{self, POOLS_GUARD, StoredBlock, StoredPool},
    problem::{Code, Fault},
    view::View,
};
use ipnet::IpNet;
use isthmus_core::{ClusterName, NodeName};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use std::collections::BTreeSet;

/// Why a block could not be leased.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("there is no cluster {0}")]
    NoCluster(ClusterName),
    #[error("cluster {0} is external: its addresses are not ours to give")]
    External(ClusterName),
    #[error("cluster {0} has no pool")]
    NoPool(ClusterName),
    #[error("pool {pool} has no free block: add a CIDR to it, or use blocks smaller than /{block_len}")]
    Exhausted { pool: String, block_len: u8 },
    #[error("node {0} is not registered: its agent must say hello first")]
    NoNode(NodeName),
    #[error("cannot record the lease of a block of cluster {cluster} to node {node}")]
    Commit {
        cluster: ClusterName,
        node: NodeName,
        #[source]
        source: CommitError,
    },
}

impl Fault for LeaseError {
    fn code(&self) -> Code {
        match self {
            Self::NoCluster(_) | Self::NoNode(_) => Code::UnknownName,
            Self::NoPool(_) | Self::External(_) | Self::Exhausted { .. } => Code::PoolExhausted,
            Self::Commit { source, .. } => source.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::NoCluster(name) => Some(format!("isthmus cluster create {name} --platform PLATFORM")),
            Self::NoPool(name) => Some(format!("isthmus pool create NAME --cluster {name} CIDR")),
            _ => None,
        }
    }

    /// A cluster or a pool may be made any time; containers wait for it.
    fn retryable(&self) -> bool {
        true
    }
}

/// Why a block could not be returned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReturnError {
    #[error("block {block} is leased to node {holder}, not to {node}")]
    NotYours { block: IpNet, holder: String, node: NodeName },
    #[error("block {block} still has {used} endpoints of node {node}, for example at {example}")]
    InUse { block: IpNet, node: NodeName, used: u64, example: std::net::IpAddr },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for ReturnError {
    fn code(&self) -> Code {
        match self {
            Self::NotYours { .. } => Code::Conflict,
            Self::InUse { .. } => Code::PoolInUse,
            Self::Commit(error) => error.code(),
        }
    }
}

impl From<StoreError> for ReturnError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// A block that could be leased, and what must still be so when it is.
struct Candidate {
    pool: String,
    pool_revision: Revision,
    block: IpNet,
}

impl Registry {
    /// Leases the first free block of the cluster's pools to `node`, in address order.
    ///
    /// Two nodes that ask at once meet on one block; the store lets one of them win, and this tries the next.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Commit`]: the block may be ours, ask again. All others: nothing was written.
    pub(crate) async fn lease_block(
        &self,
        node: &NodeName,
        cluster: &ClusterName,
    ) -> Result<StoredBlock, LeaseError> {
        let commit_error =
            |source| LeaseError::Commit { cluster: cluster.clone(), node: node.clone(), source };
        for _ in 0..RETRIES_MAX {
            let mut failed = None;
            let mut candidate = None;
            let picked = {
                let view = self.fresh_view().await.map_err(commit_error)?;
                if !view.nodes.contains_key(node.as_str()) {
                    return Err(LeaseError::NoNode(node.clone()));
                }
                self.blocks_in_flight.pick(|taken| match choose(&view, cluster, taken) {
                    Ok(found) => Some(candidate.insert(found).block),
                    Err(error) => {
                        failed = Some(error);
                        None
                    }
                })
            };
            let (Some(candidate), Some(_picked)) = (candidate, picked) else {
                return Err(failed.unwrap_or_else(|| LeaseError::NoPool(cluster.clone())));
            };
            let block = StoredBlock {
                cidr: candidate.block,
                pool: candidate.pool.clone(),
                cluster: cluster.as_str().to_owned(),
                node: node.as_str().to_owned(),
            };
            let key = kinds::block_key(candidate.block);
            // The guard tells whoever deletes or shrinks the pool at this moment; leases do not compare it, so that
            // they do not disturb each other.
            let txn = Txn::new()
                .when(Compare::absent(&key))
                .when(Compare::unchanged(kinds::pool_key(&candidate.pool), candidate.pool_revision))
                .when(Compare::exists(kinds::node_key(node.as_str())))
                .then(Operation::put(&key, kinds::encode(&block)))
                .then(Operation::put(POOLS_GUARD, node.as_str()));
            if self.commit(txn).await.map_err(commit_error)?.is_some() {
                tracing::info!(block = %block.cidr, %node, %cluster, pool = block.pool, "block leased");
                return Ok(block);
            }
        }
        Err(commit_error(CommitError::Contended { what: format!("the pools of cluster {cluster}") }))
    }

    /// Takes an empty block back. A block that nobody has is no error.
    pub(crate) async fn return_block(&self, node: &NodeName, block: IpNet) -> Result<(), ReturnError> {
        let key = kinds::block_key(block);
        for _ in 0..RETRIES_MAX {
            let Some((held, revision)) = self.read::<StoredBlock>(&key)? else { return Ok(()) };
            if held.node != node.as_str() {
                return Err(ReturnError::NotYours { block, holder: held.node, node: node.clone() });
            }
            {
                let view = self.fresh_view().await?;
                let used = view.used(block);
                if let Some(example) = view.first_used(block) {
                    return Err(ReturnError::InUse { block, node: node.clone(), used, example });
                }
            }
            let txn = Txn::new().when(Compare::unchanged(&key, revision)).then(Operation::delete(&key));
            if self.commit(txn).await?.is_some() {
                tracing::info!(%block, %node, "block returned");
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("block {block}") }.into())
    }
}

fn choose(view: &View, cluster: &ClusterName, taken: &BTreeSet<IpNet>) -> Result<Candidate, LeaseError> {
    if !view.clusters.contains_key(cluster.as_str()) {
        return Err(LeaseError::NoCluster(cluster.clone()));
    }
    if view.is_external(cluster.as_str()) {
        return Err(LeaseError::External(cluster.clone()));
    }
    let pools = view.pools.iter().filter(|(_, pool)| pool.value.cluster == cluster.as_str());
    let mut full: Option<(&String, &StoredPool)> = None;
    let mut best: Option<Candidate> = None;
    for (name, pool) in pools {
        match view.free_block(&pool.value, taken) {
            Some(block) if best.as_ref().is_none_or(|best| block < best.block) => {
                best = Some(Candidate { pool: name.clone(), pool_revision: pool.revision, block });
            }
            Some(_) => {}
            None => full = Some((name, &pool.value)),
        }
    }
    match (best, full) {
        (Some(candidate), _) => Ok(candidate),
        (None, Some((name, pool))) => {
            Err(LeaseError::Exhausted { pool: name.clone(), block_len: pool.block_len })
        }
        (None, None) => Err(LeaseError::NoPool(cluster.clone())),
    }
}
