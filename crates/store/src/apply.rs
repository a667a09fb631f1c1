//! What a transaction means, once for both backends.
//!
//! A backend gives its tables; these functions check, compare and write. They write nothing before everything is
//! checked, so that an error from here leaves the tables as they were (a backend whose writes can fail undoes them).

use crate::{
    Batch, Committed, Entry, Event, LeaseId, Operation, Revision, StoreError, Txn,
    limits::{KEY_BYTES_MAX, LEASE_KEYS_MAX, LEASES_MAX, OPERATIONS_MAX, TXN_BYTES_MAX, VALUE_BYTES_MAX},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The tables of a backend, as one transaction sees them.
pub(crate) trait Tables {
    fn revision(&self) -> Result<Revision, StoreError>;
    fn set_revision(&mut self, revision: Revision) -> Result<(), StoreError>;
    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError>;
    fn put(&mut self, entry: &Entry) -> Result<(), StoreError>;
    fn remove(&mut self, key: &str) -> Result<(), StoreError>;
    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError>;
    fn lease_count(&self) -> Result<usize, StoreError>;
    /// Adds a lease under a number that was never used.
    fn add_lease(&mut self, ttl: Duration) -> Result<LeaseId, StoreError>;
    /// Removes a lease that has no keys.
    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), StoreError>;
    fn lease_keys(&self, lease: LeaseId) -> Result<Vec<String>, StoreError>;
    fn attach(&mut self, lease: LeaseId, key: &str) -> Result<(), StoreError>;
    fn detach(&mut self, lease: LeaseId, key: &str) -> Result<(), StoreError>;
}

/// How a transaction ended, and the changes to be published if it had any.
pub(crate) type Applied<T> = Result<(T, Option<Batch>), StoreError>;

/// Checks what can be checked without the tables.
pub(crate) fn check(txn: &Txn) -> Result<(), StoreError> {
    at_most("compares in a transaction", txn.compares.len(), OPERATIONS_MAX)?;
    at_most("operations in a transaction", txn.operations.len(), OPERATIONS_MAX)?;
    for compare in &txn.compares {
        check_key(&compare.key)?;
    }
    let mut keys = BTreeSet::new();
    for operation in &txn.operations {
        check_key(operation.key())?;
        if let Operation::Put { value, .. } = operation {
            at_most("bytes of a value", value.len(), VALUE_BYTES_MAX)?;
        }
        if !keys.insert(operation.key()) {
            return Err(StoreError::DuplicateKey { key: operation.key().to_owned() });
        }
    }
    at_most("bytes in a transaction", txn_bytes(txn), TXN_BYTES_MAX)
}

/// Bytes of the keys and values that a transaction writes.
pub(crate) fn txn_bytes(txn: &Txn) -> usize {
    let bytes = |operation: &Operation| match operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete { key } => key.len(),
    };
    txn.operations.iter().map(bytes).sum()
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    at_most("bytes of a key", key.len(), KEY_BYTES_MAX)
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), StoreError> {
    if found > max { Err(StoreError::TooLarge { what, found, max }) } else { Ok(()) }
}

/// Carries out a checked transaction.
pub(crate) fn commit(tables: &mut impl Tables, txn: &Txn) -> Applied<Committed> {
    let revision = tables.revision()?;
    for compare in &txn.compares {
        if !compare.target.holds(tables.entry(&compare.key)?.as_ref()) {
            return Ok((Committed::Refused { revision }, None));
        }
    }
    check_leases(tables, &txn.operations)?;
    let next = revision + 1;
    let mut events = Vec::with_capacity(txn.operations.len());
    for operation in &txn.operations {
        let held = tables.entry(operation.key())?;
        match operation {
            Operation::Put { key, value, lease } => {
                let create_revision = held.as_ref().map_or(next, |entry| entry.create_revision);
                let (key, value, lease) = (key.clone(), value.clone(), *lease);
                let entry = Entry { key, value, create_revision, mod_revision: next, lease };
                put(tables, held.as_ref(), &entry)?;
                events.push(Event::Put(entry));
            }
            Operation::Delete { key } => {
                let Some(held) = held else { continue };
                delete(tables, &held)?;
                events.push(Event::Delete { key: key.clone(), mod_revision: next });
            }
        }
    }
    finish(tables, revision, events).map(|(revision, batch)| (Committed::Done(revision), batch))
}

/// Refuses leases that are not there, and more keys under one than it may have.
fn check_leases(tables: &impl Tables, operations: &[Operation]) -> Result<(), StoreError> {
    let mut added = BTreeMap::<LeaseId, BTreeSet<&str>>::new();
    for operation in operations {
        if let Operation::Put { key, lease: Some(lease), .. } = operation {
            added.entry(*lease).or_default().insert(key);
        }
    }
    for (lease, keys) in added {
        if !tables.has_lease(lease)? {
            return Err(StoreError::NoLease { lease });
        }
        let held = tables.lease_keys(lease)?;
        let new =
            keys.iter().filter(|key| held.binary_search_by(|held| held.as_str().cmp(key)).is_err()).count();
        at_most("keys under a lease", held.len() + new, LEASE_KEYS_MAX)?;
    }
    Ok(())
}

fn put(tables: &mut impl Tables, held: Option<&Entry>, entry: &Entry) -> Result<(), StoreError> {
    let before = held.and_then(|held| held.lease);
    if before != entry.lease {
        if let Some(lease) = before {
            tables.detach(lease, &entry.key)?;
        }
        if let Some(lease) = entry.lease {
            tables.attach(lease, &entry.key)?;
        }
    }
    tables.put(entry)
}

fn delete(tables: &mut impl Tables, held: &Entry) -> Result<(), StoreError> {
    if let Some(lease) = held.lease {
        tables.detach(lease, &held.key)?;
    }
    tables.remove(&held.key)
}

/// Takes the next revision if anything changed.
fn finish(tables: &mut impl Tables, revision: Revision, events: Vec<Event>) -> Applied<Revision> {
    if events.is_empty() {
        return Ok((revision, None));
    }
    tables.set_revision(revision + 1)?;
    Ok((revision + 1, Some(Batch { revision: revision + 1, events })))
}

/// Adds a lease. It takes no revision.
pub(crate) fn grant(tables: &mut impl Tables, ttl: Duration) -> Result<LeaseId, StoreError> {
    at_most("leases", tables.lease_count()? + 1, LEASES_MAX)?;
    tables.add_lease(ttl)
}

/// Ends a lease and deletes its entries, in one revision. One that is not there is passed over.
pub(crate) fn revoke(tables: &mut impl Tables, lease: LeaseId) -> Applied<Revision> {
    let revision = tables.revision()?;
    if !tables.has_lease(lease)? {
        return Ok((revision, None));
    }
    let mut events = Vec::new();
    for key in tables.lease_keys(lease)? {
        tables.detach(lease, &key)?;
        tables.remove(&key)?;
        events.push(Event::Delete { key, mod_revision: revision + 1 });
    }
    tables.remove_lease(lease)?;
    finish(tables, revision, events)
}
