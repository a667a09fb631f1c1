//! The log of the newest changes, and the watches that read it.
//!
//! A watch has no queue of its own, only a place in the one log: a slow watcher costs nothing, and learns that it is
//! compacted when the log has moved past its place.

use crate::{
    Batch, Compacted, Revision, WatchError,
    limits::{LOG_BYTES_MAX, LOG_REVISIONS_MAX},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// How much a log keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    pub(crate) revisions: usize,
    pub(crate) bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { revisions: LOG_REVISIONS_MAX, bytes: LOG_BYTES_MAX }
    }
}

/// Takes in batches, wakes watches.
#[derive(Debug)]
pub(crate) struct Hub {
    log: Arc<Mutex<Log>>,
    newest: watch::Sender<Revision>,
}

/// The newest batches. Their revisions have no gaps.
#[derive(Debug)]
struct Log {
    limits: LogLimits,
    /// All changes after this revision are in `batches`.
    oldest: Revision,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

impl Hub {
    /// A log for a store that is at `revision`; what was before is not known.
    pub(crate) fn new(revision: Revision, limits: LogLimits) -> Self {
        let log = Log { limits, oldest: revision, batches: VecDeque::new(), bytes: 0 };
        Self { log: Arc::new(Mutex::new(log)), newest: watch::Sender::new(revision) }
    }

    /// Takes in the changes of the next revisions and wakes the watches once.
    pub(crate) fn publish(&self, batches: impl IntoIterator<Item = Batch>) {
        let newest = {
            let mut log = lock(&self.log);
            for batch in batches {
                log.push(batch);
            }
            log.newest()
        };
        self.newest.send_if_modified(|seen| std::mem::replace(seen, newest) != newest);
    }

    /// The newest revision that was published.
    pub(crate) fn newest(&self) -> Revision {
        lock(&self.log).newest()
    }

    /// A watch for what comes after `from`. The caller has made sure that `from` is not in the future.
    pub(crate) fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, WatchError> {
        let oldest = lock(&self.log).oldest;
        if from < oldest {
            return Err(Compacted { oldest }.into());
        }
        Ok(Watch {
            prefix: prefix.to_owned(),
            seen: from,
            log: Arc::clone(&self.log),
            newest: self.newest.subscribe(),
        })
    }
}

impl Log {
    fn push(&mut self, batch: Batch) {
        self.bytes += batch_bytes(&batch);
        self.batches.push_back(Arc::new(batch));
        while self.batches.len() > 1
            && (self.batches.len() > self.limits.revisions || self.bytes > self.limits.bytes)
        {
            let Some(gone) = self.batches.pop_front() else { break };
            self.bytes -= batch_bytes(&gone);
            self.oldest = gone.revision;
        }
    }

    fn newest(&self) -> Revision {
        self.batches.back().map_or(self.oldest, |batch| batch.revision)
    }

    /// The first batch after `seen` that has a key with the prefix, or the place up to which there is none.
    fn next(&self, seen: Revision, prefix: &str) -> Result<Result<Arc<Batch>, Revision>, Compacted> {
        if seen < self.oldest {
            return Err(Compacted { oldest: self.oldest });
        }
        let known = (seen - self.oldest) as usize;
        let fits = |batch: &&Arc<Batch>| batch.events.iter().any(|event| event.key().starts_with(prefix));
        let found = self.batches.iter().skip(known).find(fits);
        Ok(found.map(Arc::clone).ok_or_else(|| self.newest().max(seen)))
    }
}

/// Bytes of the keys and values of a batch, and of its own frame.
fn batch_bytes(batch: &Batch) -> usize {
    batch.events.iter().map(|event| event.bytes() + size_of::<crate::Event>()).sum::<usize>()
        + size_of::<Batch>()
}

/// A panic while the log was held cannot leave it half changed: a batch is pushed whole or not at all.
fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream of the changes of keys with one prefix.
///
/// It holds the log alive, not the store: when the store is closed, the changes that are left come first, then `None`.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    seen: Revision,
    log: Arc<Mutex<Log>>,
    newest: watch::Receiver<Revision>,
}

impl Watch {
    /// The next revision that changed keys with the prefix, whole. `None` when the store was closed.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Compacted`] when the watcher was too slow; it stays so.
    pub async fn next(&mut self) -> Option<Result<Batch, Compacted>> {
        loop {
            self.newest.borrow_and_update();
            if let Some(found) = self.try_next() {
                return Some(found);
            }
            if self.newest.changed().await.is_err() {
                return self.try_next();
            }
        }
    }

    /// Like [`next`](Self::next), but `None` also when nothing has happened yet.
    pub fn try_next(&mut self) -> Option<Result<Batch, Compacted>> {
        let next = lock(&self.log).next(self.seen, &self.prefix);
        match next {
            Err(compacted) => Some(Err(compacted)),
            Ok(Err(seen)) => {
                self.seen = seen;
                None
            }
            Ok(Ok(batch)) => {
                self.seen = batch.revision;
                let fits = |event: &&crate::Event| event.key().starts_with(&self.prefix);
                let events = batch.events.iter().filter(fits).cloned().collect();
                Some(Ok(Batch { revision: batch.revision, events }))
            }
        }
    }

    /// Everything up to this revision was given out.
    pub fn seen(&self) -> Revision {
        self.seen
    }
}
