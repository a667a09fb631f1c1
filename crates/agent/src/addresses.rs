//! The node's addresses: the engine, and the journal that makes what it says durable.
//!
//! One thread writes the journal. Whatever waits while it syncs is written by the next sync together, so sixteen
//! attaches at once cost little more than one. Records are queued under the engine's lock, hence in the engine's order:
//! whatever prefix of them is on the disk after a crash is a state in which no address has two owners.
//!
//! When the disk refuses, those who wait are told, undo what they did, and the next write is a whole new file made from
//! the engine's state, so that nothing that was refused comes back.

mod disk;

pub(crate) use disk::{Disk, FileDisk, replace_file};

use crate::locks::lock;
use isthmus_ipam::{Ipam, Record, ReplayError, journal};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
};

/// Size of the journal below which it is not compacted.
const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// A journal this many times larger than after its last compaction is compacted.
const COMPACT_FACTOR: u64 = 4;

/// Addresses that survive a crash at any point.
#[derive(Debug)]
pub(crate) struct Addresses {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ipam: Mutex<Ipam>,
    queue: Mutex<Queue>,
    queued: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    records: Vec<Record>,
    group: Arc<Group>,
    /// Somebody wants to know whether the disk takes writes again.
    nudged: bool,
    stop: bool,
}

/// Changes that become durable together.
#[derive(Debug, Default)]
struct Group {
    outcome: Mutex<Option<Result<(), JournalFailure>>>,
    done: Condvar,
}

impl Group {
    fn finish(&self, outcome: Result<(), JournalFailure>) {
        *lock(&self.outcome) = Some(outcome);
        self.done.notify_all();
    }
}

/// A change that may not be durable yet.
#[must_use = "nothing may be answered before the change is durable"]
#[derive(Debug)]
pub(crate) struct Ticket {
    group: Option<Arc<Group>>,
}

impl Ticket {
    /// Waits until the change is durable, or cannot be.
    pub(crate) fn wait(self) -> Result<(), JournalFailure> {
        let Some(group) = self.group else { return Ok(()) };
        let waiting = lock(&group.outcome);
        let outcome = group.done.wait_while(waiting, |outcome| outcome.is_none());
        outcome.unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(Ok(()))
    }

    /// Does not wait: the change undoes another that nobody was told of.
    pub(crate) fn forget(self) {
        drop(self);
    }
}

/// The journal could not be written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the address journal {path} cannot be written: {source}")]
pub(crate) struct JournalFailure {
    path: Arc<str>,
    #[source]
    source: Arc<io::Error>,
}

/// Why the addresses could not be read at the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenJournalError {
    /// The file, or its directory.
    #[error("the address journal {path} cannot be opened: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a journal, or a damaged one.
    #[error("error[ISE-0505]: the address journal {path} cannot be used: {source}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: journal::JournalError,
    },
    /// Its records contradict each other.
    #[error("error[ISE-0505]: the address journal {path} cannot be used: {source}")]
    Replay {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReplayError,
    },
}

impl Addresses {
    /// Reads the journal, cuts a torn tail, and starts the writer.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenJournalError> {
        let file = |source| OpenJournalError::File { path: path.to_owned(), source };
        let (bytes, mut disk) = FileDisk::open(path).map_err(file)?;
        let contents = journal::read(&bytes)
            .map_err(|source| OpenJournalError::Journal { path: path.to_owned(), source })?;
        let ipam = Ipam::replay(&contents.records)
            .map_err(|source| OpenJournalError::Replay { path: path.to_owned(), source })?;
        let length = if contents.valid_bytes == 0 {
            let bytes = journal::encode_all(&[]);
            disk.replace(&bytes).map_err(file)?;
            bytes.len()
        } else {
            disk.cut(contents.valid_bytes as u64).map_err(file)?;
            contents.valid_bytes
        };
        Ok(Self::start(ipam, Box::new(disk), &path.to_string_lossy(), length as u64))
    }

    fn start(ipam: Ipam, disk: Box<dyn Disk>, path: &str, length: u64) -> Self {
        let shared =
            Arc::new(Shared { ipam: Mutex::new(ipam), queue: Mutex::default(), queued: Condvar::new() });
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk,
            path: path.into(),
            length,
            compacted_length: length,
            whole: true,
        };
        let writer = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
        // Without threads there is no agent; the first commit would wait for ever.
        let writer =
            writer.unwrap_or_else(|error| panic!("the system gives no thread for the journal: {error}"));
        Self { shared, writer: Some(writer) }
    }

    /// Looks at the addresses.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Ipam) -> T) -> T {
        look(&lock(&self.shared.ipam))
    }

    /// Changes the addresses. The change is there at once, and durable when the ticket says so.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Ipam) -> T) -> (T, Ticket) {
        let mut ipam = lock(&self.shared.ipam);
        let answer = change(&mut ipam);
        let records = ipam.take_records();
        if records.is_empty() {
            return (answer, Ticket { group: None });
        }
        let mut queue = lock(&self.shared.queue);
        queue.records.extend(records);
        let group = Some(Arc::clone(&queue.group));
        drop(queue);
        self.shared.queued.notify_one();
        (answer, Ticket { group })
    }

    /// Tries to write what an earlier failure left unwritten.
    pub(crate) fn nudge(&self) -> Ticket {
        let mut queue = lock(&self.shared.queue);
        queue.nudged = true;
        let group = Some(Arc::clone(&queue.group));
        drop(queue);
        self.shared.queued.notify_one();
        Ticket { group }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.queued.notify_one();
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    disk: Box<dyn Disk>,
    path: Arc<str>,
    length: u64,
    compacted_length: u64,
    /// Whether the file holds all that was ever queued; if not, it must be written anew.
    whole: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some((records, group)) = self.next() {
            let outcome = if self.whole { self.append(&records) } else { self.rewrite() };
            self.whole = outcome.is_ok();
            let path = Arc::clone(&self.path);
            group.finish(outcome.map_err(|source| JournalFailure { path, source: Arc::new(source) }));
            if self.whole && self.length > COMPACT_BYTES_MIN.max(self.compacted_length * COMPACT_FACTOR) {
                self.compact();
            }
        }
    }

    fn next(&self) -> Option<(Vec<Record>, Arc<Group>)> {
        let queue = lock(&self.shared.queue);
        let idle = |queue: &mut Queue| queue.records.is_empty() && !queue.nudged && !queue.stop;
        let mut queue = self.shared.queued.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if queue.records.is_empty() && !queue.nudged {
            return None;
        }
        queue.nudged = false;
        let group = std::mem::take(&mut queue.group);
        Some((std::mem::take(&mut queue.records), group))
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for record in records {
            journal::encode(record, self.length, &mut bytes);
        }
        let appended = self.disk.append(&bytes);
        if appended.is_ok() {
            self.length += bytes.len() as u64;
        } else {
            // What of it reached the disk is of no use; if it cannot be cut, the whole file is written anew later.
            drop(self.disk.cut(self.length));
        }
        appended
    }

    /// Writes the engine's whole state as a new file. What is queued meanwhile is part of it.
    fn rewrite(&mut self) -> io::Result<()> {
        let ipam = lock(&self.shared.ipam);
        let mut queue = lock(&self.shared.queue);
        let later = std::mem::take(&mut queue.group);
        let had_later = !std::mem::take(&mut queue.records).is_empty() || std::mem::take(&mut queue.nudged);
        drop(queue);
        let bytes = journal::encode_all(&ipam.snapshot());
        drop(ipam);
        let written = self.disk.replace(&bytes);
        if written.is_ok() {
            self.length = bytes.len() as u64;
            self.compacted_length = self.length;
        }
        if had_later {
            let path = Arc::clone(&self.path);
            let failure = |source: &io::Error| JournalFailure {
                path,
                source: Arc::new(io::Error::new(source.kind(), source.to_string())),
            };
            later.finish(written.as_ref().copied().map_err(failure));
        }
        written
    }

    fn compact(&mut self) {
        match self.rewrite() {
            Ok(()) => {}
            Err(error) => {
                // The old file is whole, but the records that were queued meanwhile are not in it.
                self.whole = false;
                tracing::warn!(path = %self.path, %error, "the address journal could not be compacted");
            }
        }
    }
}

#[cfg(test)]
mod tests;
