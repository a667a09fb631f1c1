//! A disk that is really full: a small tmpfs in a mount namespace of its own, which ends with its process.
//!
//! Needs root; the process inside is this same test binary, started again with a variable that names the directory.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint only knows functions marked as tests")]

use isthmus_store::{Operation, RedbStore, Store, StoreError, Txn};
use std::process::Command;

const DIRECTORY_VARIABLE: &str = "ISTHMUS_STORE_SMALL_DISK";

fn put(store: &RedbStore, key: &str, bytes: usize) -> Result<(), StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(Txn::new().then(Operation::put(key, vec![7; bytes])))).map(drop)
}

/// What happens inside; without the variable, nothing.
#[test]
fn story_on_a_small_disk() {
    let Ok(directory) = std::env::var(DIRECTORY_VARIABLE) else { return };
    let path = std::path::Path::new(&directory).join("store.redb");
    let store = RedbStore::open(&path).unwrap();
    let mut watch = store.watch("", 0).unwrap();
    let mut written = 0;
    let error = loop {
        match put(&store, &format!("key-{written}"), 300_000) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "the disk is never full");
    };
    assert!(matches!(&error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert!(written > 3);
    assert_eq!(store.revision().unwrap(), written);
    assert_eq!(store.range("key-", None, 0).unwrap().entries.len() as u64, written);

    put(&store, "small", 10).unwrap();
    let delete = Txn::new().then(Operation::delete("key-0")).then(Operation::delete("key-1"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(store.commit(delete)).unwrap().is_done());
    assert_eq!(std::iter::from_fn(|| watch.try_next()).count() as u64, written + 2);

    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.revision().unwrap(), written + 2);
    assert!(store.entry("small").unwrap().is_some());
}

#[test]
fn a_really_full_disk_is_told_and_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let script =
        format!("mount -t tmpfs -o size=6m tmpfs {DIR} && exec \"$@\"", DIR = directory.path().display());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "story_on_a_small_disk", "--nocapture"])
        .env(DIRECTORY_VARIABLE, directory.path())
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("Operation not permitted") || said.contains("permission denied") {
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: cannot mount: {said}");
        eprintln!("skipped: cannot mount, not root");
        return;
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
