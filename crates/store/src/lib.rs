//! Where the server keeps everything: entries with revisions, transactions, watches and leases, in the shape of etcd.
//!
//! ```text
//!            commit                      entry, range                watch
//!              |                              |                        ^
//!   validate, then one writer:                |                        |
//!   compare -> operations -> tables  ---------+          log of the newest changes (bounded)
//!              \________________ one batch a revision ________________/
//! ```
//!
//! Two backends keep the same semantics, because both run one module, `apply`, over their tables: [`MemoryStore`] for tests
//! and simulations, [`RedbStore`] for one server (one file, many waiting commits share one write to the disk).
//!
//! What holds in both:
//! - A revision counts transactions that changed something; it never goes back, also not over a restart.
//! - A transaction is carried out whole or not at all. What [`Store::commit`] acknowledged survives a crash.
//! - Reads see the newest committed revision. A watch gives each later change once, in order, or says
//!   [`Compacted`]; it never skips silently.
//! - Everything has a limit: see the constants of [`limits`]. Reaching one is an error that changes nothing.
//!
//! The store knows nothing of what it keeps: keys are text, values are bytes. Clocks come from outside: whoever owns the
//! store calls [`Store::expire_leases`] from time to time.
#![forbid(unsafe_code)]

mod apply;
mod error;
mod hub;
pub mod limits;
mod memory;
mod model;
mod redb_store;

pub use error::{Compacted, OpenError, StoreError, WatchError};
pub use hub::Watch;
pub use memory::MemoryStore;
pub use model::{Batch, Committed, Compare, Entry, Event, LeaseId, Operation, Range, Revision, Target, Txn};

pub use redb_store::RedbStore;

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

/// A future on the heap, so that `Arc<dyn Store>` works.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Entries with revisions, transactions, watches and leases.
///
/// Reads return at once and see whatever was acknowledged before. Writes wait for the disk.
pub trait Store: Send + Sync + 'static {
    /// The newest revision; 0 while nothing was ever written.
    fn revision(&self) -> Result<Revision, StoreError>;

    /// The entry with this key.
    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// The first `limit` entries whose keys begin with `prefix` and stand after `after`, in the order of their bytes.
    ///
    /// One call is one snapshot; [`Range::revision`] tells which. To go on, pass the last key as `after`. A limit of 0
    /// means [`limits::RANGE_MAX`], as does every larger one.
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError>;

    /// Carries out a transaction if all its compares hold.
    ///
    /// A transaction without effect (no operations, or deletes of what is not there) takes no revision. Dropping the
    /// future does not take the transaction back: it may still be carried out.
    ///
    /// # Errors
    ///
    /// Nothing of the transaction was written, except after [`StoreError::Closed`] and [`StoreError::Disk`], when it
    /// may have been: read before trying again, or make the compares say so.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>>;

    /// Watches keys that begin with `prefix`, from the first change after revision `from`.
    ///
    /// `from` is the revision that the caller holds, usually that of a [`Range`].
    ///
    /// # Errors
    ///
    /// [`WatchError::Compacted`] when changes after `from` are no longer known: read the range again and watch from
    /// there.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, WatchError>;

    /// Makes a lease that ends at `now` + `ttl` unless it is kept alive. Entries may be put under it.
    fn lease_grant(&self, ttl: Duration, now: Instant) -> BoxFuture<'_, Result<LeaseId, StoreError>>;

    /// Lets a lease end at `now` + its time to live.
    fn lease_keep_alive(&self, lease: LeaseId, now: Instant) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Ends a lease and deletes its entries, in one revision. A lease that is not there is no error.
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Ends each lease whose time is over at `now`, and deletes its entries. Returns the leases that ended.
    ///
    /// Call it about every second. A lease that was read from the disk starts its time anew at the first call.
    fn expire_leases(&self, now: Instant) -> BoxFuture<'_, Result<Vec<LeaseId>, StoreError>>;
}
