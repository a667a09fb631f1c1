//! Entries, transactions and changes, as callers see them.

use std::fmt;

/// Counts the transactions that changed something.
pub type Revision = u64;

/// Names a lease; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, not empty.
    pub key: String,
    /// What it holds.
    pub value: Vec<u8>,
    /// Revision that made the key, after it was last absent.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// The lease whose end deletes the entry.
    pub lease: Option<LeaseId>,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// What must be so.
    pub target: Target,
}

impl Compare {
    /// Holds when the key is not there.
    pub fn absent(key: impl Into<String>) -> Self {
        Self { key: key.into(), target: Target::Absent }
    }

    /// Holds when the key is there.
    pub fn exists(key: impl Into<String>) -> Self {
        Self { key: key.into(), target: Target::Exists }
    }

    /// Holds when the key was last put at this revision.
    pub fn unchanged(key: impl Into<String>, mod_revision: Revision) -> Self {
        Self { key: key.into(), target: Target::ModRevision(mod_revision) }
    }
}

/// What a compare demands of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is not there.
    Absent,
    /// It was last put at this revision. 0 means that it is not there.
    ModRevision(Revision),
    /// It is there.
    Exists,
}

impl Target {
    /// Whether a key that holds `entry` meets the demand.
    pub fn holds(self, entry: Option<&Entry>) -> bool {
        match self {
            Self::Absent => entry.is_none(),
            Self::ModRevision(revision) => entry.map_or(0, |entry| entry.mod_revision) == revision,
            Self::Exists => entry.is_some(),
        }
    }
}

/// What a transaction does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value and the lease.
    Put {
        /// The key.
        key: String,
        /// What it holds from now on.
        value: Vec<u8>,
        /// The lease whose end deletes it; `None` takes it out of the lease it was under.
        lease: Option<LeaseId>,
    },
    /// Removes the key, if it is there.
    Delete {
        /// The key.
        key: String,
    },
}

impl Operation {
    /// A put without a lease.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// A delete.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// The key that it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Operations that are carried out together, in one revision, if all compares hold. Each key has at most one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must be so.
    pub compares: Vec<Compare>,
    /// What is then done.
    pub operations: Vec<Operation>,
}

impl Txn {
    /// A transaction that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation.
    #[must_use]
    pub fn then(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a refused transaction changed nothing"]
pub enum Committed {
    /// It is carried out; the revision is its own, or the newest one if it had no effect.
    Done(Revision),
    /// A compare did not hold at this revision; nothing changed.
    Refused {
        /// The newest revision.
        revision: Revision,
    },
}

impl Committed {
    /// Whether it was carried out.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// The revision at which it was judged.
    pub const fn revision(self) -> Revision {
        match self {
            Self::Done(revision) | Self::Refused { revision } => revision,
        }
    }
}

/// Some entries of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The snapshot; watch from here.
    pub revision: Revision,
    /// The entries in the order of their keys' bytes.
    pub entries: Vec<Entry>,
    /// Whether there are further ones behind.
    pub more: bool,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key holds this now.
    Put(Entry),
    /// The key is gone.
    Delete {
        /// The key.
        key: String,
        /// The revision that removed it.
        mod_revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put(entry) => entry.key.len() + entry.value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

/// The changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// One event for each key that changed; of a watch: each key with its prefix.
    pub events: Vec<Event>,
}
