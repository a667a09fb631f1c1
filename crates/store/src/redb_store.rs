//! A store in one file.
//!
//! ```text
//! commit, lease_*  --bounded queue-->  writer thread: up to GROUP_MAX jobs -> one redb transaction -> one fsync
//!                                        then: log of changes, leases' times, answers
//! entry, range     --------------------> a redb read transaction each; never waits for the writer
//! ```
//!
//! When the disk refuses, redb wants its file closed and opened again. Whoever meets that does it ([`Shared::reopen`]);
//! readers go on, and the next write is tried as usual.

mod disk;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use crate::{
    Batch, BoxFuture, Committed, Entry, LeaseId, OpenError, Range, Revision, Store, StoreError, Txn, Watch,
    WatchError, apply,
    hub::{Hub, LogLimits},
    limits::{COMMITS_WAITING_MAX, RANGE_MAX},
};
use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use writer::{Job, Reply};

/// Bytes of pages that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;

/// A store in one file, for one server.
///
/// The file is locked: a second process is refused. It grows by itself and is never shrunk; its space is reserved as it
/// grows, so that a full disk is met while growing, not while writing. Dropping the store waits for what is queued.
pub struct RedbStore {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer share.
struct Shared {
    path: PathBuf,
    open: Box<Opener>,
    database: RwLock<Opened>,
    hub: Hub,
    leases: Mutex<BTreeMap<LeaseId, LeaseTime>>,
    /// Changes that the database is making durable. After a failure they are there or not; whoever opens the database
    /// again finds out, and tells the watches.
    in_doubt: Mutex<Vec<Batch>>,
}

/// Makes the backend under the database; tests put a disk that fails here.
type Opener = dyn Fn(&Path) -> Result<Box<dyn StorageBackend>, DatabaseError> + Send + Sync;

/// The database, and how often it was opened.
struct Opened {
    database: Option<Database>,
    generation: u64,
}

/// When a lease ends.
#[derive(Clone, Copy, Debug)]
struct LeaseTime {
    ttl: Duration,
    /// `None` until somebody says what time it is.
    ends: Option<Instant>,
}

impl RedbStore {
    /// Opens the store in the file `path`, and makes it if it is not there. The directory must be there.
    ///
    /// Reads the whole file once, to be sure that it is undamaged (about a second for each GiB).
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; an existing file is not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path.as_ref(), Box::new(disk::open), LogLimits::default())
    }

    fn open_with(path: &Path, open: Box<Opener>, log: LogLimits) -> Result<Self, OpenError> {
        let failed = |error: redb::Error| open_error(path, &error);
        let backend = open(path).map_err(|error| failed(error.into()))?;
        let database = build(backend, true).map_err(|error| failed(error.into()))?;
        let (revision, leases) = tables::prepare(&database, path)?;
        disk::sync_directory(path)
            .map_err(|source| OpenError::Disk { path: path.to_owned(), detail: source.to_string() })?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            open,
            database: RwLock::new(Opened { database: Some(database), generation: 0 }),
            hub: Hub::new(revision, log),
            leases: Mutex::default(),
            in_doubt: Mutex::default(),
        });
        shared.match_leases(leases);
        let (jobs, queue) = mpsc::channel(COMMITS_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || writer::run(&shared, queue)
            })
            .map_err(|source| OpenError::Disk { path: path.to_owned(), detail: source.to_string() })?;
        Ok(Self { shared, jobs: Some(jobs), writer: Some(writer) })
    }

    /// Queues a job and waits for its answer.
    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(job(reply)).await.map_err(|_closed| StoreError::Closed)?;
        answer.await.map_err(|_closed| StoreError::Closed)?
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // Without a sender the writer ends after the jobs that are queued; then nobody holds the file.
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has answered its callers by hanging up; there is nothing more to do.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Store for RedbStore {
    fn revision(&self) -> Result<Revision, StoreError> {
        self.shared.read(tables::revision)
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.shared.read(|txn| tables::entry(txn, key))
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let limit = if limit == 0 { RANGE_MAX } else { limit.min(RANGE_MAX) };
        self.shared.read(|txn| tables::range(txn, prefix, after, limit))
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            apply::check(&txn)?;
            self.ask(|reply| Job::Commit { txn, reply }).await
        })
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, WatchError> {
        let revision = self.revision().map_err(|error| WatchError::Store(error.to_string()))?;
        if from > revision {
            return Err(WatchError::Ahead { from, revision });
        }
        self.shared.hub.watch(prefix, from)
    }

    fn lease_grant(&self, ttl: Duration, now: Instant) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        Box::pin(self.ask(move |reply| Job::Grant { ttl, now, reply }))
    }

    fn lease_keep_alive(&self, lease: LeaseId, now: Instant) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut leases = self.shared.leases();
            let time = leases.get_mut(&lease).ok_or(StoreError::NoLease { lease })?;
            time.ends = now.checked_add(time.ttl);
            Ok(())
        })
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            Ok(self.ask(|reply| Job::Revoke { lease, if_over_at: None, reply }).await?.revision)
        })
    }

    fn expire_leases(&self, now: Instant) -> BoxFuture<'_, Result<Vec<LeaseId>, StoreError>> {
        Box::pin(async move {
            let mut ended = Vec::new();
            for lease in self.shared.leases_over(now) {
                let revoked = self.ask(|reply| Job::Revoke { lease, if_over_at: Some(now), reply }).await?;
                if revoked.ended {
                    ended.push(lease);
                }
            }
            Ok(ended)
        })
    }
}

impl Shared {
    /// Reads in one snapshot, after opening the database again if an earlier failure of the disk asks for it.
    fn read<T>(&self, read: impl Fn(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let (generation, first) = self.with(|database| read(&database.begin_read()?));
        match first {
            Err(error) if is_closed(&error) => {
                self.reopen(generation)?;
                self.with(|database| read(&database.begin_read()?)).1
            }
            first => first,
        }
        .map_err(|error| self.error("read", &error))
    }

    /// Uses the database. Also tells its generation, for [`reopen`](Self::reopen).
    fn with<T>(
        &self,
        used: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> (u64, Result<T, redb::Error>) {
        let opened = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let result = opened.database.as_ref().ok_or(redb::Error::DatabaseClosed).and_then(used);
        (opened.generation, result)
    }

    /// Opens the database again, unless somebody did since `generation`, and finds out about the changes in doubt.
    fn reopen(&self, generation: u64) -> Result<(), StoreError> {
        let mut opened = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if opened.generation != generation {
            return Ok(());
        }
        // The lock on the file goes with the old one.
        drop(opened.database.take());
        let again = || -> Result<_, redb::Error> {
            let database = build((self.open)(&self.path)?, false)?;
            let txn = database.begin_read()?;
            let (revision, leases) = (tables::revision(&txn)?, tables::leases(&txn)?);
            txn.close()?;
            Ok((database, revision, leases))
        };
        // Never StoreError::Full: that would promise that nothing was changed.
        let failed = |error: redb::Error| StoreError::Disk {
            action: "open again",
            path: self.path.clone(),
            detail: error.to_string(),
        };
        let (database, revision, leases) = again().map_err(failed)?;
        let in_doubt = self.take_in_doubt();
        if in_doubt.last().is_some_and(|newest| newest.revision <= revision) {
            self.hub.publish(in_doubt);
        }
        self.match_leases(leases);
        *opened = Opened { database: Some(database), generation: generation + 1 };
        Ok(())
    }

    fn set_in_doubt(&self, batches: Vec<Batch>) {
        *self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner) = batches;
    }

    fn take_in_doubt(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the times of the leases that are on the disk, no others.
    fn match_leases(&self, stored: Vec<(LeaseId, Duration)>) {
        let mut leases = self.leases();
        let known =
            |(lease, ttl)| (lease, leases.get(&lease).copied().unwrap_or(LeaseTime { ttl, ends: None }));
        *leases = stored.into_iter().map(known).collect();
    }

    /// In our words: what failed.
    fn error(&self, action: &'static str, error: &redb::Error) -> StoreError {
        let path = self.path.clone();
        match error {
            redb::Error::Io(source) if disk::is_full(source) => StoreError::Full { path },
            error => StoreError::Disk { action, path, detail: error.to_string() },
        }
    }

    /// Each change under this lock is one assignment; a panic cannot leave it half done.
    fn leases(&self) -> MutexGuard<'_, BTreeMap<LeaseId, LeaseTime>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leases whose time is over. Starts the time of those that were read from the disk.
    fn leases_over(&self, now: Instant) -> Vec<LeaseId> {
        let mut leases = self.leases();
        for time in leases.values_mut().filter(|time| time.ends.is_none()) {
            time.ends = now.checked_add(time.ttl);
        }
        leases.iter().filter(|(_, time)| time.is_over(now)).map(|(lease, _)| *lease).collect()
    }
}

impl LeaseTime {
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

fn build(backend: Box<dyn StorageBackend>, check_integrity: bool) -> Result<Database, DatabaseError> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check_integrity)
        .create_with_backend(disk::Boxed(backend))
}

/// Whether the database must be opened again before it works.
fn is_closed(error: &redb::Error) -> bool {
    matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed)
}

fn open_error(path: &Path, error: &redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenError::InUse { path },
        // redb says InvalidData of a file that does not begin as its files do.
        redb::Error::Io(source)
            if !matches!(
                source.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::Disk { path, detail: source.to_string() }
        }
        error => OpenError::Foreign { path, detail: error.to_string() },
    }
}
