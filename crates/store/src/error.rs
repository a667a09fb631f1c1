//! What can go wrong with a store.

use crate::{LeaseId, Revision};
use std::path::PathBuf;

/// Why a read or write failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A limit was reached; nothing changed.
    #[error("{what} would be {found}, at most {max} are allowed")]
    TooLarge {
        /// What is limited.
        what: &'static str,
        /// How much there would be.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A key without characters.
    #[error("a key is empty")]
    EmptyKey,
    /// Two operations of one transaction for one key; nothing changed.
    #[error("key \"{key}\" has two operations in one transaction")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A lease that ended or never was; nothing changed.
    #[error("lease {lease} is not there: it ended or was revoked; grant a new one")]
    NoLease {
        /// The lease.
        lease: LeaseId,
    },
    /// No room on the disk; nothing changed, and reads still work.
    #[error("no space left for the store {}: free some space; nothing was changed", path.display())]
    Full {
        /// The store's file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("cannot {action} the store {}: {detail}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The store's file.
        path: PathBuf,
        /// What the system or the database said.
        detail: String,
    },
    /// The store was closed while the call waited.
    #[error("the store is closed")]
    Closed,
}

/// Why a store's file cannot be opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store {} is in use by another process: stop the other server, or give this one another data_dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is no store of Isthmus, or it is damaged.
    #[error("{} is no store of Isthmus, or it is damaged ({detail}): move it away, or restore it from a backup", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A store of another version.
    #[error("the store {} has format {found}, this version reads format {expected}: start the version that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: u64,
        /// What we read.
        expected: u64,
    },
    /// The system refused.
    #[error("cannot open the store {}: {detail}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

/// Why a watch cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Changes after the wanted revision are no longer known.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// The wanted revision is in the future: it belongs to another store.
    #[error(
        "revision {from} is ahead of the store, which is at {revision}: it belongs to another store; read again"
    )]
    Ahead {
        /// What was wanted.
        from: Revision,
        /// The newest one.
        revision: Revision,
    },
    /// The store cannot be read, or is closed.
    #[error("cannot watch the store: {0}")]
    Store(String),
}

/// Changes were forgotten that the watcher has not seen: read again, and watch from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes before revision {oldest} are no longer known: read again")]
pub struct Compacted {
    /// The oldest revision that a watch can begin from.
    pub oldest: Revision,
}
