//! What the owner of the routes leaves for the thread. The latest word about a prefix replaces the one before, so that it
//! is never longer than there are prefixes.

use super::{KernelRoute, Via};
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
use tokio::sync::oneshot;

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
    /// Which routes somebody wants to know about: as many as clients ask at once.
    pub(super) asked: Vec<(Prefix, oneshot::Sender<KernelRoute>)>,
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

    /// Wants to know how the route to a prefix is. Dropped without an answer if the thread has ended.
    pub(super) fn ask(&self, prefix: Prefix) -> oneshot::Receiver<KernelRoute> {
        let (reply, answer) = oneshot::channel();
        let mut news = self.news();
        // Nobody looks any longer.
        if news.stop.is_none() {
            news.asked.push((prefix, reply));
        }
        drop(news);
        self.wake();
        answer
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
        let mut news = self.news();
        // Who is to stop stays so.
        let stop = news.stop;
        News { stop, ..std::mem::replace(&mut *news, News { stop, ..News::default() }) }
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
