//! Workloads and their numbers.
//!
//! A number stands for one workload with one set of labels. Two keys say so, written in one transaction: the number's own
//! (so that no number is given to two) and the index from workload and labels (so that none has two numbers).
//!
//! Numbers are taken in ascending order from the place behind the last one, and begin anew at the end of the range, so
//! that one that was given back is used again as late as can be; and not before each node that could know it has said
//! that it holds a newer revision (see [`super::sweep`]).

use super::{CommitError, RETRIES_MAX, Registry, lock, unix_now};
use crate::{
    kinds::{self, Retired, StoredCluster, StoredIdentity, StoredWorkload},
    problem::{Code, Fault},
    view::View,
};
use isthmus_core::{ClusterName, Identity, Labels, Platform, WorkloadKey};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use std::collections::{BTreeSet, HashSet};
use uuid::Uuid;

/// Labels of one workload.
const LABELS_MAX: usize = 64;
/// Bytes of an id, a group, an app's name, a label's name or its value.
const TEXT_BYTES_MAX: usize = 512;
/// Labels that differ by rollout or instance: they tell no identity from another, because no policy selects on them.
const VOLATILE_LABELS: [&str; 10] = [
    "pod-template-hash",
    "pod-template-generation",
    "controller-revision-hash",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "nomad.alloc",
    "instance",
];

/// What a node says of a workload that it is about to run.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadDraft {
    pub(crate) cluster: ClusterName,
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) app: String,
    pub(crate) labels: Labels,
}

/// A workload and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) identity: Identity,
    pub(crate) uuid: Uuid,
    pub(crate) workload: StoredWorkload,
    pub(crate) labels: Labels,
    pub(crate) platform: Platform,
}

/// Why a workload got no number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("there is no cluster {0}")]
    NoCluster(ClusterName),
    #[error("{what} is {why}")]
    Bad { what: &'static str, why: String },
    #[error(
        "workload {uuid} runs on cluster {holder}, so it cannot be of cluster {cluster} too: ids that are UUIDs belong to one cluster"
    )]
    OtherCluster { uuid: Uuid, holder: String, cluster: ClusterName },
    #[error("no identity is free: {0} numbers are in use or not yet forgotten by all nodes")]
    Exhausted(usize),
    #[error("cannot record the identity of {key}")]
    Commit {
        key: WorkloadKey,
        #[source]
        source: CommitError,
    },
}

impl Fault for ResolveError {
    fn code(&self) -> Code {
        match self {
            Self::NoCluster(_) => Code::UnknownName,
            Self::Bad { .. } => Code::BadRequest,
            Self::OtherCluster { .. } => Code::Conflict,
            Self::Exhausted(_) => Code::Unavailable,
            Self::Commit { source, .. } => source.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::NoCluster(name) => Some(format!("isthmus cluster create {name} --platform PLATFORM")),
            _ => None,
        }
    }

    /// The cluster may be made any time.
    fn retryable(&self) -> bool {
        !matches!(self, Self::Bad { .. } | Self::OtherCluster { .. })
    }
}

/// Where the search for a free number goes on.
#[derive(Debug)]
pub(super) struct Places {
    cloud_foundry: u32,
    others: u32,
}

impl Places {
    /// Behind the highest numbers of a view.
    pub(super) fn after(view: &View) -> Self {
        let last_below = |limit: u32| {
            let limit = Identity::new(limit).unwrap_or(Identity::UNKNOWN);
            view.identities.range(..limit).next_back().map(|(identity, _)| identity.number() + 1)
        };
        Self {
            cloud_foundry: last_below(Identity::TAG_LIMIT).unwrap_or(Identity::FIRST_WORKLOAD),
            others: last_below(Identity::WORKLOAD_LIMIT).unwrap_or(0).max(Identity::TAG_LIMIT),
        }
    }

    /// The next free number for a workload of `platform`. Cloud Foundry's are below [`Identity::TAG_LIMIT`] while they
    /// last, all others above, so that they last long.
    fn next(&mut self, platform: Platform, taken: impl Fn(Identity) -> bool) -> Option<Identity> {
        let low = (platform == Platform::CloudFoundry)
            .then(|| search(&mut self.cloud_foundry, Identity::FIRST_WORKLOAD, Identity::TAG_LIMIT, &taken));
        low.flatten()
            .or_else(|| search(&mut self.others, Identity::TAG_LIMIT, Identity::WORKLOAD_LIMIT, &taken))
    }
}

fn search(place: &mut u32, first: u32, limit: u32, taken: impl Fn(Identity) -> bool) -> Option<Identity> {
    let start = (*place).clamp(first, limit);
    let found = (start..limit).chain(first..start).filter_map(|number| Identity::new(number).ok());
    let identity = { found }.find(|identity| !taken(*identity))?;
    *place = identity.number() + 1;
    Some(identity)
}

/// What one look at the store found of a workload.
struct Found {
    cluster: (StoredCluster, Revision),
    workload: Option<(StoredWorkload, Revision)>,
    index: Option<(Identity, Revision)>,
}

impl Registry {
    /// The number of a workload with its labels; makes both if they are new, and corrects the names if they differ.
    pub(crate) async fn resolve_workload(&self, draft: &WorkloadDraft) -> Result<Resolved, ResolveError> {
        check(draft)?;
        let key = WorkloadKey { cluster: draft.cluster.clone(), id: draft.id.clone() };
        let uuid = key.uuid();
        let labels = identity_labels(&draft.labels);
        if let Some(known) = self.known(draft, uuid, &labels) {
            return Ok(known);
        }
        let commit_error = |source: CommitError| ResolveError::Commit { key: key.clone(), source };
        for _ in 0..RETRIES_MAX {
            let found = self.find(draft, uuid, &labels).map_err(|error| commit_error(error.into()))?;
            let found = found.ok_or_else(|| ResolveError::NoCluster(draft.cluster.clone()))?;
            self.check_cluster(draft, uuid, &found).await?;
            if let Some(resolved) =
                self.try_resolve(draft, uuid, &labels, &found).await.map_err(|error| match error {
                    TryError::Exhausted(numbers) => ResolveError::Exhausted(numbers),
                    TryError::Commit(source) => commit_error(source),
                })?
            {
                return Ok(resolved);
            }
        }
        Err(commit_error(CommitError::Contended { what: format!("workload {key}") }))
    }

    /// The answer without a write, if everything is known and equal.
    fn known(&self, draft: &WorkloadDraft, uuid: Uuid, labels: &Labels) -> Option<Resolved> {
        let view = self.view();
        let held = &view.workloads.get(&uuid)?.value;
        let cluster = view.clusters.get(draft.cluster.as_str())?;
        let identity = view.identity_of(uuid, labels)?;
        let same = held.cluster == draft.cluster.as_str()
            && held.group == draft.group
            && held.app == draft.app
            && held.used_day == today();
        same.then(|| Resolved {
            identity,
            uuid,
            workload: held.clone(),
            labels: labels.clone(),
            platform: cluster.value.platform(),
        })
    }

    fn find(&self, draft: &WorkloadDraft, uuid: Uuid, labels: &Labels) -> Result<Option<Found>, StoreError> {
        let Some(cluster) = self.read::<StoredCluster>(&kinds::cluster_key(draft.cluster.as_str()))? else {
            return Ok(None);
        };
        let index = self.read::<u32>(&kinds::identity_of_key(uuid, labels))?;
        let index = index.and_then(|(number, revision)| Some((Identity::new(number).ok()?, revision)));
        let workload = self.read::<StoredWorkload>(&kinds::workload_key(uuid))?;
        Ok(Some(Found { cluster, workload, index }))
    }

    /// A UUID that a policy named before its app appeared was taken to be of the first Cloud Foundry cluster; it moves
    /// to where it appears. One that runs does not move.
    async fn check_cluster(
        &self,
        draft: &WorkloadDraft,
        uuid: Uuid,
        found: &Found,
    ) -> Result<(), ResolveError> {
        let Some((held, _)) = &found.workload else { return Ok(()) };
        if held.cluster == draft.cluster.as_str() {
            return Ok(());
        }
        let key = || WorkloadKey { cluster: draft.cluster.clone(), id: draft.id.clone() };
        let view = self.fresh_view().await.map_err(|source| ResolveError::Commit { key: key(), source })?;
        if view.endpoint_count(uuid) == 0 {
            return Ok(());
        }
        Err(ResolveError::OtherCluster { uuid, holder: held.cluster.clone(), cluster: draft.cluster.clone() })
    }

    /// One attempt; `None` when somebody else was faster.
    async fn try_resolve(
        &self,
        draft: &WorkloadDraft,
        uuid: Uuid,
        labels: &Labels,
        found: &Found,
    ) -> Result<Option<Resolved>, TryError> {
        let platform = found.cluster.0.platform();
        let workload = StoredWorkload {
            cluster: draft.cluster.as_str().to_owned(),
            id: draft.id.clone(),
            group: draft.group.clone(),
            app: draft.app.clone(),
            labels: labels.clone(),
            used_day: today(),
        };
        let workload_key = kinds::workload_key(uuid);
        let index_key = kinds::identity_of_key(uuid, labels);
        let mut txn = Txn::new()
            .when(Compare::exists(kinds::cluster_key(&workload.cluster)))
            .when(Compare::unchanged(
                &workload_key,
                found.workload.as_ref().map_or(0, |(_, revision)| *revision),
            ))
            .when(Compare::unchanged(&index_key, found.index.map_or(0, |(_, revision)| revision)))
            .then(Operation::put(&workload_key, kinds::encode(&workload)));
        let picked;
        let identity = if let Some((identity, _)) = found.index {
            identity
        } else {
            picked = {
                let view = self.fresh_view().await?;
                let free = self.identities_in_flight.pick(|taken| {
                    let used =
                        |identity| view.identities.contains_key(&identity) || taken.contains(&identity);
                    lock(&self.identity_places).next(platform, used)
                });
                free.ok_or(TryError::Exhausted(view.identities.len()))?
            };
            let value = StoredIdentity { workload: uuid, labels: labels.clone(), retired: None };
            let key = kinds::identity_key(picked.thing);
            txn = txn
                .when(Compare::absent(&key))
                .then(Operation::put(&key, kinds::encode(&value)))
                .then(Operation::put(&index_key, kinds::encode(&picked.thing.number())));
            picked.thing
        };
        if self.commit(txn).await?.is_none() {
            return Ok(None);
        }
        if found.index.is_none() {
            tracing::info!(%identity, workload = %uuid, cluster = workload.cluster, app = workload.app, "identity allocated");
        }
        Ok(Some(Resolved { identity, uuid, workload, labels: labels.clone(), platform }))
    }

    /// Deletes a workload and gives its numbers back. The caller has made sure that nothing needs it.
    pub(crate) async fn delete_workload(&self, uuid: Uuid) -> Result<(), CommitError> {
        let key = kinds::workload_key(uuid);
        for _ in 0..RETRIES_MAX {
            let revision = self.mod_revision(&key)?;
            if revision == 0 {
                return Ok(());
            }
            let mut txn = Txn::new().when(Compare::unchanged(&key, revision)).then(Operation::delete(&key));
            {
                let view = self.fresh_view().await?;
                let nodes: BTreeSet<String> = view.nodes.keys().cloned().collect();
                for identity in view.identities_of(uuid) {
                    let Some(held) = view.identities.get(&identity) else { continue };
                    let retired = Some(Retired { at_unix: unix_now(), nodes: nodes.clone() });
                    let value = StoredIdentity { retired, ..held.value.clone() };
                    let key = kinds::identity_key(identity);
                    txn = txn
                        .when(Compare::unchanged(&key, held.revision))
                        .then(Operation::put(&key, kinds::encode(&value)))
                        .then(Operation::delete(kinds::identity_of_key(uuid, &held.value.labels)));
                }
            }
            if self.commit(txn).await?.is_some() {
                tracing::info!(workload = %uuid, "workload deleted");
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("workload {uuid}") })
    }
}

enum TryError {
    Exhausted(usize),
    Commit(CommitError),
}

impl From<CommitError> for TryError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

/// Days since 1970.
pub(super) fn today() -> u64 {
    unix_now() / 86_400
}

/// The labels that tell identities apart.
fn identity_labels(labels: &Labels) -> Labels {
    let volatile: HashSet<&str> = VOLATILE_LABELS.into_iter().collect();
    labels
        .iter()
        .filter(|(name, _)| !volatile.contains(name.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn check(draft: &WorkloadDraft) -> Result<(), ResolveError> {
    let texts = [("workload id", &draft.id), ("group", &draft.group), ("app", &draft.app)];
    for (what, text) in texts {
        check_text(what, text)?;
        if text.is_empty() && what != "group" {
            return Err(ResolveError::Bad { what, why: "empty".to_owned() });
        }
    }
    if draft.labels.len() > LABELS_MAX {
        let why = format!("{} entries, at most {LABELS_MAX} are allowed", draft.labels.len());
        return Err(ResolveError::Bad { what: "label set", why });
    }
    draft.labels.iter().try_for_each(|(name, value)| {
        check_text("label name", name)?;
        check_text("label value", value)
    })
}

fn check_text(what: &'static str, text: &str) -> Result<(), ResolveError> {
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("{} bytes long, at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(ResolveError::Bad { what, why });
    }
    if text.chars().any(char::is_control) {
        return Err(ResolveError::Bad { what, why: format!("{text:?}, which has control characters") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_foundry_stays_below_the_tag_limit_while_it_lasts() {
        let mut places = Places::after(&View::default());
        let used = std::cell::RefCell::new(BTreeSet::new());
        let mut next = |platform| {
            let identity = places.next(platform, |identity| used.borrow().contains(&identity)).unwrap();
            used.borrow_mut().insert(identity);
            identity.number()
        };
        assert_eq!(next(Platform::Kubernetes), 0x1_0000);
        for number in 256..0x1_0000 {
            assert_eq!(next(Platform::CloudFoundry), number);
        }
        assert_eq!(next(Platform::CloudFoundry), 0x1_0001);
    }

    #[test]
    fn a_number_that_was_given_back_is_used_last() {
        let mut place = 256;
        let mut used = BTreeSet::new();
        for _ in 0..3 {
            used.insert(search(&mut place, 256, 260, |identity| used.contains(&identity)).unwrap());
        }
        used.remove(&Identity::new(256).unwrap());
        let mut next = || {
            let identity = search(&mut place, 256, 260, |identity| used.contains(&identity))?;
            used.insert(identity);
            Some(identity.number())
        };
        assert_eq!([next(), next(), next()], [Some(259), Some(256), None]);
    }

    #[test]
    fn labels_of_a_rollout_tell_nothing_apart() {
        let labels: Labels = [("app", "web"), ("pod-template-hash", "7d9f")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(identity_labels(&labels).len(), 1);
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_written() {
        let good = WorkloadDraft {
            cluster: "red".parse().unwrap(),
            id: "shop/web".to_owned(),
            group: "shop".to_owned(),
            app: "web".to_owned(),
            labels: Labels::new(),
        };
        assert!(check(&good).is_ok());
        for bad in [
            WorkloadDraft { id: String::new(), ..good.clone() },
            WorkloadDraft { app: String::new(), ..good.clone() },
            WorkloadDraft { app: "a\nb".to_owned(), ..good.clone() },
            WorkloadDraft { group: "x".repeat(513), ..good.clone() },
            WorkloadDraft {
                labels: (0..65).map(|n| (n.to_string(), String::new())).collect(),
                ..good.clone()
            },
        ] {
            assert!(matches!(check(&bad), Err(ResolveError::Bad { .. })));
        }
    }
}
