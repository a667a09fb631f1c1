//! What the owner of the routes leaves for the thread. The latest word about a prefix replaces the one before, so that it
//! is never longer than there are prefixes.

use super::Via;
use isthmus_bgp::Prefix;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::{Errno, read, write},
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What becomes of the kernel's routes when the speaker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// They stay.
    Keep,
    /// They go.
    Remove,
}

/// What has happened since one looked.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Next hops by prefix; none: the route goes.
    pub(super) changes: BTreeMap<Prefix, Vec<Via>>,
    pub(super) complete: bool,
    pub(super) stop: Option<Leave>,
}

#[derive(Debug)]
pub(super) struct Inbox {
    news: Mutex<News>,
    wake: OwnedFd,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { news: Mutex::default(), wake })
    }

    pub(super) fn put(&self, changes: impl Iterator<Item = (Prefix, Vec<Via>)>) {
        self.news().changes.extend(changes);
        self.wake();
    }

    pub(super) fn complete(&self) {
        self.news().complete = true;
        self.wake();
    }

    /// The first word counts: who was asked to stop is not asked again.
    pub(super) fn stop(&self, leave: Leave) {
        self.news().stop.get_or_insert(leave);
        self.wake();
    }

    pub(super) fn take(&self) -> News {
        // What comes after this wakes anew.
        let mut count = [0; 8];
        let _ = read(&self.wake, &mut count);
        std::mem::take(&mut *self.news())
    }

    fn news(&self) -> MutexGuard<'_, News> {
        // Each holder only moves values, so a panic leaves nothing half done.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        while write(&self.wake, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
