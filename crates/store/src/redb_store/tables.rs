//! The tables of the file, and how transactions see them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `format`, `revision`, `last_lease` | number |
//! | `entries` | key | create revision, mod revision, lease (0 is none), value |
//! | `leases` | lease | time to live in milliseconds |
//! | `lease_keys` | lease, key | nothing |

use crate::{Entry, LeaseId, OpenError, Range, Revision, StoreError, apply::Tables};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};
use std::{ops::Bound, path::Path, time::Duration};

/// Version of all this. Another one is refused.
const FORMAT: u64 = 1;

type Stored<'a> = (u64, u64, u64, &'a [u8]);

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, &str, Stored<'_>> = TableDefinition::new("entries");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("lease_keys");

/// Makes the tables of a new file, or makes sure that an old file has them. Returns the revision and the leases.
pub(super) fn prepare(
    database: &Database,
    path: &Path,
) -> Result<(Revision, Vec<(LeaseId, Duration)>), OpenError> {
    let failed = |error: redb::Error| super::open_error(path, &error);
    match format(database).map_err(failed)? {
        Some(FORMAT) => {}
        Some(found) => return Err(OpenError::Format { path: path.to_owned(), found, expected: FORMAT }),
        None => create(database, path)?,
    }
    let txn = database.begin_read().map_err(|error| failed(error.into()))?;
    let read = || Ok((revision(&txn)?, leases(&txn)?));
    read().map_err(failed)
}

/// The format that the file says; `None` of an empty one.
fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let txn = database.begin_read()?;
    match txn.open_table(META) {
        Ok(meta) => Ok(Some(meta.get("format")?.map_or(0, |format| format.value()))),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn create(database: &Database, path: &Path) -> Result<(), OpenError> {
    let failed = |error: redb::Error| super::open_error(path, &error);
    let others = || -> Result<usize, redb::Error> {
        let txn = database.begin_read()?;
        Ok(txn.list_tables()?.count() + txn.list_multimap_tables()?.count())
    };
    if others().map_err(failed)? > 0 {
        let detail = "a redb database with other tables".to_owned();
        return Err(OpenError::Foreign { path: path.to_owned(), detail });
    }
    let write = || -> Result<(), redb::Error> {
        let txn = database.begin_write()?;
        WriteTables::open(&txn)?.meta.insert("format", FORMAT)?;
        Ok(txn.commit()?)
    };
    write().map_err(failed)
}

pub(super) fn revision(txn: &ReadTransaction) -> Result<Revision, redb::Error> {
    Ok(txn.open_table(META)?.get("revision")?.map_or(0, |revision| revision.value()))
}

pub(super) fn leases(txn: &ReadTransaction) -> Result<Vec<(LeaseId, Duration)>, redb::Error> {
    let table = txn.open_table(LEASES)?;
    let leases = table.iter()?.map(|row| {
        let (lease, ttl) = row?;
        Ok((LeaseId(lease.value()), Duration::from_millis(ttl.value())))
    });
    leases.collect()
}

pub(super) fn entry(txn: &ReadTransaction, key: &str) -> Result<Option<Entry>, redb::Error> {
    let held = txn.open_table(ENTRIES)?.get(key)?;
    Ok(held.map(|stored| to_entry(key, stored.value())))
}

pub(super) fn range(
    txn: &ReadTransaction,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Range, redb::Error> {
    let first = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut entries = Vec::new();
    let mut more = false;
    for row in txn.open_table(ENTRIES)?.range::<&str>((first, Bound::Unbounded))? {
        let (key, stored) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        if entries.len() == limit {
            more = true;
            break;
        }
        entries.push(to_entry(key.value(), stored.value()));
    }
    Ok(Range { revision: revision(txn)?, entries, more })
}

fn to_entry(key: &str, (create_revision, mod_revision, lease, value): Stored<'_>) -> Entry {
    let lease = (lease != 0).then_some(LeaseId(lease));
    Entry { key: key.to_owned(), value: value.to_vec(), create_revision, mod_revision, lease }
}

/// The tables in a write transaction. After an error of the disk the transaction must be given up.
pub(super) struct WriteTables<'txn> {
    meta: Table<'txn, &'static str, u64>,
    entries: Table<'txn, &'static str, Stored<'static>>,
    leases: Table<'txn, u64, u64>,
    lease_keys: Table<'txn, (u64, &'static str), ()>,
    /// Whether anything was written.
    pub(super) dirty: bool,
    /// The first error of the database; what is seen outside is a [`StoreError::Closed`] in its stead.
    pub(super) error: std::cell::RefCell<Option<redb::Error>>,
}

impl<'txn> WriteTables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: txn.open_table(META)?,
            entries: txn.open_table(ENTRIES)?,
            leases: txn.open_table(LEASES)?,
            lease_keys: txn.open_table(LEASE_KEYS)?,
            dirty: false,
            error: std::cell::RefCell::default(),
        })
    }

    /// Keeps an error of the database for the writer, who gives up the transaction.
    fn kept<T>(&self, result: Result<T, redb::StorageError>) -> Result<T, StoreError> {
        result.map_err(|error| {
            self.error.borrow_mut().get_or_insert(error.into());
            StoreError::Closed
        })
    }

    /// The same of a write.
    fn wrote<T>(&mut self, result: Result<T, redb::StorageError>) -> Result<(), StoreError> {
        self.dirty = true;
        self.kept(result.map(drop))
    }
}

impl Tables for WriteTables<'_> {
    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.kept(self.meta.get("revision"))?.map_or(0, |revision| revision.value()))
    }

    fn set_revision(&mut self, revision: Revision) -> Result<(), StoreError> {
        let result = self.meta.insert("revision", revision).map(drop);
        self.wrote(result)
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.kept(self.entries.get(key))?.map(|stored| to_entry(key, stored.value())))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let lease = entry.lease.map_or(0, |lease| lease.0);
        let stored = (entry.create_revision, entry.mod_revision, lease, entry.value.as_slice());
        let result = self.entries.insert(entry.key.as_str(), stored).map(drop);
        self.wrote(result)
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        let result = self.entries.remove(key).map(drop);
        self.wrote(result)
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.kept(self.leases.get(lease.0))?.is_some())
    }

    fn lease_count(&self) -> Result<usize, StoreError> {
        Ok(self.kept(self.leases.len())? as usize)
    }

    fn add_lease(&mut self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let last = self.kept(self.meta.get("last_lease"))?.map_or(0, |lease| lease.value());
        let result = self.meta.insert("last_lease", last + 1).map(drop);
        self.wrote(result)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let result = self.leases.insert(last + 1, ttl_ms).map(drop);
        self.wrote(result)?;
        Ok(LeaseId(last + 1))
    }

    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let result = self.leases.remove(lease.0).map(drop);
        self.wrote(result)
    }

    fn lease_keys(&self, lease: LeaseId) -> Result<Vec<String>, StoreError> {
        let rows = self.kept(self.lease_keys.range((lease.0, "")..(lease.0 + 1, "")))?;
        rows.map(|row| Ok(self.kept(row)?.0.value().1.to_owned())).collect()
    }

    fn attach(&mut self, lease: LeaseId, key: &str) -> Result<(), StoreError> {
        let result = self.lease_keys.insert((lease.0, key), ()).map(drop);
        self.wrote(result)
    }

    fn detach(&mut self, lease: LeaseId, key: &str) -> Result<(), StoreError> {
        let result = self.lease_keys.remove((lease.0, key)).map(drop);
        self.wrote(result)
    }
}
