//! Clusters.

use super::{CommitError, RETRIES_MAX, Registry};
use crate::{
    kinds::{self, POOLS_GUARD, StoredCluster},
    problem::{Code, Fault},
};
use isthmus_core::{ClusterName, Labels, Platform};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use uuid::Uuid;

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub(crate) struct ClusterDraft {
    pub(crate) name: ClusterName,
    pub(crate) labels: Labels,
    pub(crate) platform: Platform,
    pub(crate) closed: Option<bool>,
    pub(crate) reject: Option<bool>,
}

/// Why a cluster could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error("there is a cluster {0} already")]
    Exists(ClusterName),
    #[error("there is no cluster {0}")]
    Missing(ClusterName),
    #[error("cluster {name} is at revision {found}, not {wanted}: somebody changed it meanwhile")]
    Changed { name: ClusterName, wanted: Revision, found: Revision },
    #[error("cluster {name} has {workloads} apps, whose names would change with its platform")]
    PlatformFixed { name: ClusterName, workloads: usize },
    #[error("cluster {name} is in use by {users}")]
    InUse { name: ClusterName, users: String },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for ClusterError {
    fn code(&self) -> Code {
        match self {
            Self::Exists(_) | Self::Changed { .. } | Self::PlatformFixed { .. } => Code::Conflict,
            Self::Missing(_) => Code::NotFound,
            Self::InUse { .. } => Code::ClusterInUse,
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("read it again, and write with the new ETag".to_owned()),
            Self::PlatformFixed { .. } => Some("make a cluster with another name".to_owned()),
            Self::InUse { name, .. } => {
                Some(format!("delete them first: isthmus pool list; isthmus app list (cluster {name})"))
            }
            _ => None,
        }
    }
}

impl From<StoreError> for ClusterError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Registry {
    /// Makes a cluster. With `dry`, only says whether it could.
    pub(crate) async fn create_cluster(&self, draft: &ClusterDraft, dry: bool) -> Result<(), ClusterError> {
        let key = kinds::cluster_key(draft.name.as_str());
        let exists = || ClusterError::Exists(draft.name.clone());
        if self.store.entry(&key)?.is_some() {
            return Err(exists());
        }
        if dry {
            return Ok(());
        }
        let value = kinds::encode(&stored(draft, Uuid::new_v4()));
        let txn = Txn::new().when(Compare::absent(&key)).then(Operation::put(&key, value));
        self.commit(txn).await?.map(drop).ok_or_else(exists)
    }

    /// Replaces a cluster, if it is at revision `wanted` where one is given.
    pub(crate) async fn replace_cluster(
        &self,
        draft: &ClusterDraft,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), ClusterError> {
        let name = &draft.name;
        let key = kinds::cluster_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let Some((held, found)) = self.read::<StoredCluster>(&key)? else {
                return Err(ClusterError::Missing(name.clone()));
            };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(ClusterError::Changed { name: name.clone(), wanted, found });
            }
            if held.platform() != draft.platform {
                let view = self.fresh_view().await?;
                let workloads =
                    view.workloads.values().filter(|held| held.value.cluster == name.as_str()).count();
                if workloads > 0 {
                    return Err(ClusterError::PlatformFixed { name: name.clone(), workloads });
                }
            }
            let next = stored(draft, held.uuid);
            if dry || next == held {
                return Ok(());
            }
            let txn = Txn::new()
                .when(Compare::unchanged(&key, found))
                .then(Operation::put(&key, kinds::encode(&next)));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("cluster {name}") }.into())
    }

    /// Deletes a cluster that nothing needs, with the apps that no longer run.
    pub(crate) async fn delete_cluster(
        &self,
        name: &ClusterName,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), ClusterError> {
        let key = kinds::cluster_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let guard = self.mod_revision(POOLS_GUARD)?;
            let Some((_, found)) = self.read::<StoredCluster>(&key)? else {
                return Err(ClusterError::Missing(name.clone()));
            };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(ClusterError::Changed { name: name.clone(), wanted, found });
            }
            let idle = self.idle_workloads(name).await?;
            if dry {
                return Ok(());
            }
            for workload in idle {
                self.delete_workload(workload).await?;
            }
            let txn = Txn::new()
                .when(Compare::unchanged(&key, found))
                .when(Compare::unchanged(POOLS_GUARD, guard))
                .then(Operation::delete(&key));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("cluster {name}") }.into())
    }

    /// The workloads of a cluster that nothing needs, if nothing else needs the cluster either.
    async fn idle_workloads(&self, name: &ClusterName) -> Result<Vec<Uuid>, ClusterError> {
        let view = self.fresh_view().await?;
        let pools = view.pools.iter().filter(|(_, pool)| pool.value.cluster == name.as_str());
        let mut users: Vec<String> = pools.map(|(pool, _)| format!("pool {pool}")).collect();
        let endpoints = view.endpoints.values().filter(|held| held.value.cluster == name.as_str()).count();
        if endpoints > 0 {
            users.push(format!("{endpoints} endpoints"));
        }
        let mut idle = Vec::new();
        let mut policies = std::collections::BTreeSet::new();
        for (uuid, _) in view.workloads.iter().filter(|(_, held)| held.value.cluster == name.as_str()) {
            policies.extend(view.policies_of(*uuid).cloned());
            idle.push(*uuid);
        }
        users.extend(policies.iter().take(5).map(|policy| format!("policy {policy}")));
        if policies.len() > 5 {
            users.push(format!("{} further policies", policies.len() - 5));
        }
        if users.is_empty() {
            Ok(idle)
        } else {
            Err(ClusterError::InUse { name: name.clone(), users: users.join(", ") })
        }
    }
}

fn stored(draft: &ClusterDraft, uuid: Uuid) -> StoredCluster {
    StoredCluster {
        uuid,
        labels: draft.labels.clone(),
        platform: draft.platform.as_str().to_owned(),
        closed: draft.closed,
        reject: draft.reject,
    }
}
