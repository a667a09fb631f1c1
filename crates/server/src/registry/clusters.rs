//! Clusters.

use super::{CommitError, RETRIES_MAX, Registry, WorkloadDraft, identities::ResolveError};
use crate::{
    kinds::{self, POOLS_GUARD, StoredCluster},
    problem::{Code, Fault},
};
use isthmus_core::{Asn, ClusterName, Labels, Platform, Topology};
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
    pub(crate) asn: Option<Asn>,
    pub(crate) topology: Option<Topology>,
    pub(crate) announce_endpoints: bool,
    pub(crate) paths_max: Option<u8>,
    pub(crate) external: bool,
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
    #[error(
        "cluster {name} has {users}, so it cannot become external, or cease to be: both need other pools"
    )]
    ExternalFixed { name: ClusterName, users: String },
    #[error("cluster {name} could not get its workload")]
    Workload {
        name: ClusterName,
        #[source]
        source: Box<ResolveError>,
    },
    #[error("cluster {name} is in use by {users}")]
    InUse { name: ClusterName, users: String },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for ClusterError {
    fn code(&self) -> Code {
        match self {
            Self::Exists(_)
            | Self::Changed { .. }
            | Self::PlatformFixed { .. }
            | Self::ExternalFixed { .. } => Code::Conflict,
            Self::Workload { source, .. } => source.code(),
            Self::Missing(_) => Code::NotFound,
            Self::InUse { .. } => Code::ClusterInUse,
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("read it again, and write with the new ETag".to_owned()),
            Self::PlatformFixed { .. } | Self::ExternalFixed { .. } => {
                Some("make a cluster with another name".to_owned())
            }
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
        self.commit(txn).await?.map(drop).ok_or_else(exists)?;
        if draft.external { self.allocate_external(&draft.name).await } else { Ok(()) }
    }

    /// Gives an external cluster its workload, `PLATFORM:external/NAME@NAME`, by which policies name it.
    async fn allocate_external(&self, name: &ClusterName) -> Result<(), ClusterError> {
        let draft = WorkloadDraft {
            cluster: name.clone(),
            id: kinds::external_id(name.as_str()),
            group: kinds::EXTERNAL_GROUP.to_owned(),
            app: name.as_str().to_owned(),
            labels: Labels::new(),
        };
        let resolved = self.resolve_workload(&draft).await;
        resolved
            .map(drop)
            .map_err(|source| ClusterError::Workload { name: name.clone(), source: Box::new(source) })
    }

    /// As [`Registry::allocate_external`], for clusters whose creation a crash cut short.
    pub(crate) async fn allocate_externals(&self) -> Result<(), ClusterError> {
        let bare: Vec<ClusterName> = {
            let view = self.fresh_view().await?;
            let external = view.clusters.iter().filter(|(_, held)| held.value.external);
            let bare = external.filter(|(name, _)| view.external_identity(name).is_none());
            bare.filter_map(|(name, _)| name.parse().ok()).collect()
        };
        for name in bare {
            self.allocate_external(&name).await?;
        }
        Ok(())
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
            let guard = self.mod_revision(POOLS_GUARD)?;
            if held.external != draft.external {
                self.check_unused_by(name).await?;
            }
            let next = stored(draft, held.uuid);
            if dry || next == held {
                return Ok(());
            }
            let mut txn = Txn::new()
                .when(Compare::unchanged(&key, found))
                .then(Operation::put(&key, kinds::encode(&next)));
            if held.external != draft.external {
                // A pool that is made meanwhile would be of the other kind.
                txn = txn
                    .when(Compare::unchanged(POOLS_GUARD, guard))
                    .then(Operation::put(POOLS_GUARD, name.as_str()));
            }
            if self.commit(txn).await?.is_some() {
                return if draft.external { self.allocate_external(name).await } else { Ok(()) };
            }
        }
        Err(CommitError::Contended { what: format!("cluster {name}") }.into())
    }

    async fn check_unused_by(&self, name: &ClusterName) -> Result<(), ClusterError> {
        match self.idle_workloads(name).await {
            Ok(idle) if idle.is_empty() => Ok(()),
            Ok(idle) => {
                Err(ClusterError::ExternalFixed { name: name.clone(), users: format!("{} apps", idle.len()) })
            }
            Err(ClusterError::InUse { name, users }) => Err(ClusterError::ExternalFixed { name, users }),
            Err(other) => Err(other),
        }
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
        asn: draft.asn.map(Asn::number),
        topology: draft.topology.map(|topology| topology.as_str().to_owned()),
        announce_endpoints: draft.announce_endpoints,
        paths_max: draft.paths_max,
        external: draft.external,
    }
}
