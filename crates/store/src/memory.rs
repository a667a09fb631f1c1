//! A store without a disk, for tests and simulations. Same semantics as the one with a file.

use crate::{
    BoxFuture, Committed, Entry, LeaseId, Range, Revision, Store, StoreError, Txn, Watch, WatchError,
    apply::{self, Tables},
    hub::{Hub, LogLimits},
    limits::RANGE_MAX,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A store in memory. Its contents end with it.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    hub: Hub,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    /// `None` until somebody says what time it is.
    ends: Option<Instant>,
    keys: BTreeSet<String>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_log(LogLimits::default())
    }

    /// An empty store whose watches may lie behind by so many revisions only, for tests of compaction.
    pub fn with_log_revisions(revisions: usize) -> Self {
        Self::with_log(LogLimits { revisions, ..LogLimits::default() })
    }

    fn with_log(limits: LogLimits) -> Self {
        Self { state: Mutex::default(), hub: Hub::new(0, limits) }
    }

    /// Everything is checked before anything is changed, so a panic leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, txn: &Txn) -> Result<Committed, StoreError> {
        apply::check(txn)?;
        let mut state = self.state();
        let (committed, batch) = apply::commit(&mut *state, txn)?;
        // Published under the lock, so that batches come in the order of their revisions.
        self.hub.publish(batch);
        Ok(committed)
    }

    fn revoke_now(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        self.revoke_in(&mut self.state(), lease)
    }

    fn revoke_in(&self, state: &mut State, lease: LeaseId) -> Result<Revision, StoreError> {
        let (revision, batch) = apply::revoke(state, lease)?;
        self.hub.publish(batch);
        Ok(revision)
    }

    fn grant_now(&self, ttl: Duration, now: Instant) -> Result<LeaseId, StoreError> {
        let mut state = self.state();
        let lease = apply::grant(&mut *state, ttl)?;
        state.keep_alive(lease, now)?;
        Ok(lease)
    }

    fn expire_now(&self, now: Instant) -> Result<Vec<LeaseId>, StoreError> {
        let mut state = self.state();
        let is_over = |lease: &Lease| lease.ends.is_some_and(|ends| ends <= now);
        let over: Vec<_> =
            state.leases.iter().filter(|(_, lease)| is_over(lease)).map(|(id, _)| *id).collect();
        for lease in &over {
            self.revoke_in(&mut state, *lease)?;
        }
        Ok(over)
    }
}

impl Store for MemoryStore {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.state().revision)
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.state().entries.get(key).cloned())
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let state = self.state();
        let limit = if limit == 0 { RANGE_MAX } else { limit.min(RANGE_MAX) };
        let first = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut rest = state
            .entries
            .range::<str, _>((first, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(prefix));
        let entries = rest.by_ref().take(limit).cloned().collect();
        Ok(Range { revision: state.revision, entries, more: rest.next().is_some() })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move { self.commit_now(&txn) })
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, WatchError> {
        let state = self.state();
        if from > state.revision {
            return Err(WatchError::Ahead { from, revision: state.revision });
        }
        self.hub.watch(prefix, from)
    }

    fn lease_grant(&self, ttl: Duration, now: Instant) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move { self.grant_now(ttl, now) })
    }

    fn lease_keep_alive(&self, lease: LeaseId, now: Instant) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.state().keep_alive(lease, now) })
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move { self.revoke_now(lease) })
    }

    fn expire_leases(&self, now: Instant) -> BoxFuture<'_, Result<Vec<LeaseId>, StoreError>> {
        Box::pin(async move { self.expire_now(now) })
    }
}

impl State {
    fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        let held = self.leases.get_mut(&lease).ok_or(StoreError::NoLease { lease })?;
        held.ends = now.checked_add(held.ttl);
        Ok(())
    }
}

impl Tables for State {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.revision)
    }

    fn set_revision(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.revision = revision;
        Ok(())
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.entries.insert(entry.key.clone(), entry.clone());
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        self.entries.remove(key);
        Ok(())
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.leases.contains_key(&lease))
    }

    fn lease_count(&self) -> Result<usize, StoreError> {
        Ok(self.leases.len())
    }

    fn add_lease(&mut self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        self.leases.insert(lease, Lease { ttl, ends: None, keys: BTreeSet::new() });
        Ok(lease)
    }

    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.leases.remove(&lease);
        Ok(())
    }

    fn lease_keys(&self, lease: LeaseId) -> Result<Vec<String>, StoreError> {
        Ok(self.leases.get(&lease).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default())
    }

    fn attach(&mut self, lease: LeaseId, key: &str) -> Result<(), StoreError> {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.keys.insert(key.to_owned());
        }
        Ok(())
    }

    fn detach(&mut self, lease: LeaseId, key: &str) -> Result<(), StoreError> {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.keys.remove(key);
        }
        Ok(())
    }
}
