//! The registry: every write of the server, as compare-and-swap transactions on the store.
//!
//! ```text
//! REST, agents, CF API --> Registry --txn--> Store --watch--> follower --> View, Changes
//!                              \---------------- reads ------------------/
//! ```
//!
//! Each operation reads, decides, and commits with compares on what it read. If somebody else was faster it decides
//! anew, [`RETRIES_MAX`] times at most. Several registries may share one store. After a write the view of *this* registry
//! is as new as the write, so whoever writes reads it back.

mod bgp_peers;
mod blocks;
mod cf;
mod clusters;
mod endpoints;
mod identities;
mod network;
mod nodes;
mod policies;
mod pools;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use bgp_peers::BgpPeerDraft;
pub(crate) use clusters::ClusterDraft;
pub(crate) use endpoints::EndpointError;
pub(crate) use identities::{Resolved, WorkloadDraft};
pub(crate) use network::NetworkDraft;
pub(crate) use nodes::{ADDRESSES_MAX, NodeDraft, NodeError, NodeSettingsDraft};
pub(crate) use policies::{PolicyDraft, RuleDraft, resolve_name};
pub(crate) use pools::PoolDraft;

use crate::{
    kinds,
    problem::{Code, Fault},
    view::{Changes, View},
};
use ipnet::IpNet;
use isthmus_core::Identity;
use isthmus_store::{Committed, Revision, Store, StoreError, Txn, WatchError};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, SystemTime},
};
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often an operation decides anew because somebody else was faster.
const RETRIES_MAX: usize = 256;
/// Longest wait for the view to be as new as the store.
const VIEW_WAIT: Duration = Duration::from_secs(10);
/// Changes that a session can lie behind before it compares everything.
const CHANGES_QUEUED: usize = 1_024;

/// A store, its view, and the operations on both.
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    view: RwLock<View>,
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<Arc<Changes>>,
    blocks_in_flight: InFlight<IpNet>,
    identities_in_flight: InFlight<Identity>,
    identity_places: Mutex<identities::Places>,
    rule_numbers: tokio::sync::Mutex<policies::Reserve>,
}

/// Why something that every operation does failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were faster each time.
    #[error("{what} changed {RETRIES_MAX} times while it was being written; try again")]
    Contended {
        /// What was to be written.
        what: String,
    },
    /// The view does not follow the store.
    #[error("the server has not caught up with its store, which is at revision {revision}; try again")]
    Behind {
        /// What the store has.
        revision: Revision,
    },
}

impl Fault for CommitError {
    fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Contended { .. } | Self::Behind { .. } => Code::Unavailable,
        }
    }
}

/// Why a registry cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error("cannot read the registry")]
    Store(#[from] StoreError),
    /// The store cannot be watched.
    #[error("cannot follow the registry's changes")]
    Watch(#[from] WatchError),
}

impl Registry {
    /// Reads the whole store, and follows it in a task of `tasks` until `stop`.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let view = read_all(&*store)?;
        let watch = store.watch(kinds::ROOT, view.revision)?;
        let places = identities::Places::after(&view);
        let registry = Arc::new(Self {
            applied: watch::Sender::new(view.revision),
            changes: broadcast::Sender::new(CHANGES_QUEUED),
            view: RwLock::new(view),
            store,
            blocks_in_flight: InFlight::default(),
            identities_in_flight: InFlight::default(),
            identity_places: Mutex::new(places),
            rule_numbers: tokio::sync::Mutex::default(),
        });
        let follower = Arc::clone(&registry);
        tasks.spawn(async move {
            tokio::select! {
                () = follower.follow(watch) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(registry)
    }

    /// The view. Do not hold it across an await.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        // The only writer is the follower, whose steps do not panic half-way through an index in any way that a reader
        // could do something about; a stale answer is better than none.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view once it is as new as the store was at the call.
    pub(crate) async fn fresh_view(&self) -> Result<RwLockReadGuard<'_, View>, CommitError> {
        let revision = self.store.revision()?;
        self.caught_up(revision).await?;
        Ok(self.view())
    }

    /// Waits until the view is at `revision`.
    pub(crate) async fn caught_up(&self, revision: Revision) -> Result<(), CommitError> {
        let mut applied = self.applied.subscribe();
        let wait = applied.wait_for(|at| *at >= revision);
        let behind = || CommitError::Behind { revision };
        tokio::time::timeout(VIEW_WAIT, wait)
            .await
            .map_err(|_elapsed| behind())?
            .map_err(|_closed| behind())?;
        Ok(())
    }

    /// What agents can hold and changes from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Changes>> {
        self.changes.subscribe()
    }

    /// The newest revision of the store.
    pub(crate) fn store_revision(&self) -> Result<Revision, StoreError> {
        self.store.revision()
    }

    /// Reads a value and the revision of its last change from the store.
    fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Revision)>, StoreError> {
        let Some(entry) = self.store.entry(key)? else { return Ok(None) };
        Ok(kinds::decode(key, &entry.value).map(|value| (value, entry.mod_revision)))
    }

    /// The revision of a key's last change; 0 if it is not there.
    fn mod_revision(&self, key: &str) -> Result<Revision, StoreError> {
        Ok(self.store.entry(key)?.map_or(0, |entry| entry.mod_revision))
    }

    /// Commits, and waits until the view has it. `None` when a compare did not hold.
    async fn commit(&self, txn: Txn) -> Result<Option<Revision>, CommitError> {
        match self.store.commit(txn).await? {
            Committed::Done(revision) => {
                self.caught_up(revision).await?;
                Ok(Some(revision))
            }
            Committed::Refused { revision } => {
                self.caught_up(revision).await?;
                Ok(None)
            }
        }
    }

    async fn follow(&self, mut watch: isthmus_store::Watch) {
        while let Some(next) = watch.next().await {
            match next {
                Ok(batch) => self.step(|view| view.apply(batch.revision, &batch.events)),
                Err(compacted) => {
                    tracing::warn!(oldest = compacted.oldest, "view fell behind the store and is read anew");
                    let Some(anew) = self.read_anew().await else { return };
                    watch = anew;
                }
            }
        }
    }

    fn step(&self, change: impl FnOnce(&mut View) -> Changes) {
        let (changes, revision) = {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            let changes = change(&mut view);
            (changes, view.revision)
        };
        if !changes.is_empty() {
            // Nobody listens while no agent is connected.
            let _ = self.changes.send(Arc::new(changes));
        }
        self.applied.send_replace(revision);
    }

    async fn read_anew(&self) -> Option<isthmus_store::Watch> {
        loop {
            let read = read_all(&*self.store).map_err(StartError::from).and_then(|view| {
                let watch = self.store.watch(kinds::ROOT, view.revision)?;
                Ok((view, watch))
            });
            match read {
                Ok((mut anew, watch)) => {
                    self.step(|view| {
                        anew.network_revision = anew.revision;
                        *view = anew;
                        Changes { all: true, revision: view.revision, ..Changes::default() }
                    });
                    return Some(watch);
                }
                Err(StartError::Store(StoreError::Closed)) => return None,
                Err(error) => {
                    tracing::error!(error = %crate::problem::chain(&error), "registry cannot be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Reads everything. Pages after the first may be newer: whoever watches from the first page's revision sees again what
/// they had already, which changes nothing.
fn read_all(store: &dyn Store) -> Result<View, StoreError> {
    let mut view = View::default();
    let mut revision = None;
    let mut after = None;
    loop {
        let range = store.range(kinds::ROOT, after.as_deref(), 0)?;
        let at = *revision.get_or_insert(range.revision);
        view.load(&range.entries);
        after = range.entries.last().map(|entry| entry.key.clone());
        if !range.more {
            let mut ignored = Changes::default();
            view.finish(at, &mut ignored);
            view.network_revision = at;
            return Ok(view);
        }
    }
}

/// Things that transactions of this process are about to take, so that two of them do not choose the same.
#[derive(Debug)]
struct InFlight<T: Ord>(Mutex<BTreeSet<T>>);

impl<T: Ord> Default for InFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Ord + Copy> InFlight<T> {
    /// Lets `choose` pick something that nobody else has picked, and keeps it from others until the guard is dropped.
    fn pick(&self, choose: impl FnOnce(&BTreeSet<T>) -> Option<T>) -> Option<Picked<'_, T>> {
        let mut set = lock(&self.0);
        let thing = choose(&set)?;
        set.insert(thing);
        Some(Picked { set: &self.0, thing })
    }
}

struct Picked<'a, T: Ord> {
    set: &'a Mutex<BTreeSet<T>>,
    thing: T,
}

impl<T: Ord> Drop for Picked<'_, T> {
    fn drop(&mut self) {
        lock(self.set).remove(&self.thing);
    }
}

/// A panic while one of our locks was held cannot leave its value half changed: each is changed by one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
