//! What only a store with a file can meet: restarts, full disks, damaged and foreign files.

use super::*;
use crate::{Compare, Operation};
use redb::{BackendError, backends::FileBackend};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    ops::Bound,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn put(store: &dyn Store, key: &str, value: Vec<u8>) -> Result<Revision, StoreError> {
    runtime().block_on(store.commit(Txn::new().then(Operation::put(key, value)))).map(Committed::revision)
}

/// A disk that can be full, or refuse to sync.
#[derive(Debug)]
struct FaultyDisk {
    file: FileBackend,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Faults {
    /// The file cannot grow beyond this.
    len_max: AtomicU64,
    /// Writes fail.
    no_writes: AtomicBool,
    /// Syncs fail, after the data is there.
    no_syncs: AtomicBool,
    opened: AtomicU64,
}

impl Faults {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            len_max: u64::MAX.into(),
            no_writes: false.into(),
            no_syncs: false.into(),
            opened: 0.into(),
        })
    }

    fn opener(self: &Arc<Self>) -> Box<Opener> {
        let faults = Arc::clone(self);
        Box::new(move |path| {
            faults.opened.fetch_add(1, Ordering::Relaxed);
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            Ok(Box::new(FaultyDisk { file: FileBackend::new(file)?, faults: Arc::clone(&faults) }))
        })
    }
}

fn no_space() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.faults.len_max.load(Ordering::Relaxed) && len > self.file.len()? {
            return Err(no_space());
        }
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.faults.no_syncs.load(Ordering::Relaxed) {
            Err(io::Error::other("sync failed"))
        } else {
            Ok(())
        }
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.faults.no_writes.load(Ordering::Relaxed) {
            return Err(no_space());
        }
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

fn faulty(directory: &tempfile::TempDir) -> (RedbStore, Arc<Faults>) {
    let faults = Faults::new();
    let path = directory.path().join("store.redb");
    (RedbStore::open_with(&path, faults.opener(), LogLimits::default()).unwrap(), faults)
}

#[test]
fn entries_revision_and_leases_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let ttl = Duration::from_secs(10);
    let lease = {
        let store = RedbStore::open(&path).unwrap();
        let lease = runtime().block_on(store.lease_grant(ttl, Instant::now())).unwrap();
        let under = Operation::Put { key: "a".to_owned(), value: b"1".to_vec(), lease: Some(lease) };
        assert!(runtime().block_on(store.commit(Txn::new().then(under))).unwrap().is_done());
        put(&store, "b", b"2".to_vec()).unwrap();
        lease
    };
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.revision().unwrap(), 2);
    assert_eq!(store.entry("a").unwrap().unwrap().lease, Some(lease));
    assert!(matches!(store.watch("", 1), Err(WatchError::Compacted(compacted)) if compacted.oldest == 2));

    let start = Instant::now();
    assert!(runtime().block_on(store.expire_leases(start)).unwrap().is_empty(), "its time begins anew");
    assert_eq!(runtime().block_on(store.expire_leases(start + ttl)).unwrap(), [lease]);
    assert_eq!((store.entry("a").unwrap(), store.revision().unwrap()), (None, 3));
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let first = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"));
    drop(first);
    assert!(RedbStore::open(&path).is_ok());
}

#[test]
fn a_missing_directory_is_told() {
    let error = RedbStore::open("/nonexistent/isthmus/store.redb").unwrap_err();
    assert!(matches!(&error, OpenError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/isthmus/store.redb"));
}

#[test]
fn foreign_files_are_refused_and_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    for content in [b"hello".to_vec(), b"# not a store\n".repeat(10_000), vec![0; 100_000]] {
        std::fs::write(&path, &content).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert!(matches!(&error, OpenError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("store.redb"));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_foreign_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let write = |name: &str, key: &str, number: u64| {
        let database = Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let table = redb::TableDefinition::<&str, u64>::new(name);
        txn.open_table(table).unwrap().insert(key, number).unwrap();
        txn.commit().unwrap();
    };
    write("others", "a", 1);
    assert!(matches!(RedbStore::open(&path), Err(OpenError::Foreign { .. })));
    write("meta", "format", 9);
    assert!(matches!(RedbStore::open(&path), Err(OpenError::Format { found: 9, expected: 1, .. })));
}

#[test]
fn a_damaged_value_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let needle = b"an entry that will be damaged".to_vec();
    drop(RedbStore::open(&path).map(|store| put(&store, "a", needle.clone())));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { .. }), "{error}");
}

#[test]
fn a_file_of_its_owner_is_not_readable_for_others() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let _store = RedbStore::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_full_disk_is_told_and_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (store, faults) = faulty(&directory);
    put(&store, "first", b"1".to_vec()).unwrap();
    faults.len_max.store(2 << 20, Ordering::Relaxed);

    let error = put(&store, "large", vec![1; 8 << 20]).unwrap_err();
    assert!(matches!(&error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"));
    assert_eq!((store.revision().unwrap(), store.entry("large").unwrap()), (1, None));
    assert_eq!(store.entry("first").unwrap().unwrap().value, b"1");
    assert_eq!(put(&store, "small", b"2".to_vec()).unwrap(), 2, "what fits is still written");
    assert!(faults.opened.load(Ordering::Relaxed) > 1, "the database was never opened again");

    faults.len_max.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(put(&store, "large", vec![1; 8 << 20]).unwrap(), 3);
    drop(store);
    assert_eq!(RedbStore::open(directory.path().join("store.redb")).unwrap().revision().unwrap(), 3);
}

#[test]
fn of_a_group_that_does_not_fit_the_small_ones_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let (store, faults) = faulty(&directory);
    put(&store, "first", b"1".to_vec()).unwrap();
    faults.len_max.store(2 << 20, Ordering::Relaxed);
    let large = Txn::new().then(Operation::put("large", vec![1; 8 << 20]));
    let small = Txn::new().when(Compare::absent("small")).then(Operation::put("small", "2"));
    let jobs = [large, small].map(|txn| {
        let (reply, answer) = oneshot::channel();
        (Job::Commit { txn, reply }, answer)
    });
    let (jobs, answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    writer::write(&store.shared, jobs);
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect();
    assert!(matches!(&answers[..], [Err(StoreError::Full { .. }), Ok(Committed::Done(2))]), "{answers:?}");
}

#[test]
fn a_disk_that_refuses_writes_leaves_reads_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let (store, faults) = faulty(&directory);
    put(&store, "first", b"1".to_vec()).unwrap();
    let mut watch = store.watch("", 1).unwrap();
    faults.no_writes.store(true, Ordering::Relaxed);
    assert!(put(&store, "second", b"2".to_vec()).is_err());
    assert!(watch.try_next().is_none(), "what failed must not be told");
    faults.no_writes.store(false, Ordering::Relaxed);
    assert_eq!(store.entry("first").unwrap().unwrap().value, b"1");
    assert!(watch.try_next().is_none(), "nor when it is clear that it is not there");
    assert_eq!(put(&store, "second", b"2".to_vec()).unwrap(), 2);
    assert_eq!(watch.try_next().unwrap().unwrap().revision, 2);
    assert!(watch.try_next().is_none());
}

#[test]
fn a_failed_sync_never_loses_what_was_acknowledged_nor_doubles_a_revision() {
    let directory = tempfile::tempdir().unwrap();
    let (store, faults) = faulty(&directory);
    let mut watch = store.watch("", 0).unwrap();
    put(&store, "first", b"1".to_vec()).unwrap();
    faults.no_syncs.store(true, Ordering::Relaxed);
    assert!(matches!(put(&store, "second", b"2".to_vec()), Err(StoreError::Disk { .. })));
    assert!(matches!(store.revision(), Err(StoreError::Disk { .. })), "the disk still refuses");
    faults.no_syncs.store(false, Ordering::Relaxed);
    put(&store, "third", b"3".to_vec()).unwrap();
    assert!(store.entry("second").unwrap().is_some(), "the data had reached the disk before the sync failed");
    let revisions: Vec<_> =
        std::iter::from_fn(|| watch.try_next()).map(|batch| batch.unwrap().revision).collect();
    assert_eq!(revisions, (1..=store.revision().unwrap()).collect::<Vec<_>>());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// Whatever happens to a file, opening and reading it ends, with an error or with a store.
    #[test]
    fn a_damaged_file_never_panics(damage in proptest::collection::vec((0usize..1 << 16, proptest::num::u8::ANY), 1..8), cut in proptest::option::of(0u64..1 << 16)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        {
            let store = RedbStore::open(&path).unwrap();
            for n in 0..20 {
                put(&store, &n.to_string(), vec![n; 100]).unwrap();
            }
        }
        let mut bytes = std::fs::read(&path).unwrap();
        // Most of a young file is empty; damage there tells nothing.
        let live: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, byte) in damage {
            bytes[live[at % live.len()]] = byte;
        }
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        if let Some(cut) = cut {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        }
        if let Ok(store) = RedbStore::open(&path) {
            let entries = store.range("", None, 0).unwrap().entries;
            for entry in entries {
                proptest::prop_assert_eq!(entry.value.len(), 100);
            }
        }
    }
}
