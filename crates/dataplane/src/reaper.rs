//! Removes links behind the back of whoever detaches.
//!
//! The kernel lets nobody go who removes a link before all processors have forgotten it, which takes longer than all the
//! rest of a detach. Many links at once take as long as one: the reaper puts what waits into one group and removes that.
//! A link that waits here is in no map: its programs, which stay until it is gone, let nothing pass.

use crate::{netlink::Netlink, program::Pins};
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// Group that links are removed in; nobody else's.
const GROUP: u32 = 0x0069_7374;
/// Links that may wait; whoever detaches one more waits with it.
const WAITING_MAX: usize = 256;

/// A thread that removes links, in the network namespace that it was started in.
pub(crate) struct Reaper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeSet<String>,
    /// Taken out of `waiting`, not yet gone.
    dying: BTreeSet<String>,
    ends: bool,
}

impl Reaper {
    /// Starts the thread.
    pub(crate) fn start(pins: Pins) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("reaper".into()).spawn(move || theirs.run(&pins))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has a link removed soon.
    pub(crate) fn take(&self, link: &str) {
        let mut state = self.shared.lock();
        while state.waiting.len() >= WAITING_MAX {
            state = self.shared.wait(state);
        }
        state.waiting.insert(link.to_owned());
        self.shared.changed.notify_all();
    }

    /// Waits until nothing waits any more.
    pub(crate) fn settle(&self) {
        let mut state = self.shared.lock();
        while !(state.waiting.is_empty() && state.dying.is_empty()) {
            state = self.shared.wait(state);
        }
    }

    /// Waits until a link of this name is gone, if it waits here.
    pub(crate) fn settle_link(&self, link: &str) {
        let mut state = self.shared.lock();
        while state.waiting.contains(link) || state.dying.contains(link) {
            state = self.shared.wait(state);
        }
    }
}

impl Drop for Reaper {
    /// Waits for what was taken.
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, pins: &Pins) {
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() {
                if state.ends {
                    return;
                }
                state = self.wait(state);
            }
            state.dying = std::mem::take(&mut state.waiting);
            let links = state.dying.clone();
            drop(state);
            match remove(&links) {
                Ok(()) => links.iter().for_each(|link| pins.forget(link)),
                // The reconciler finds links that nobody has and removes them again.
                Err(error) => tracing::warn!(%error, ?links, "links not removed"),
            }
            self.lock().dying.clear();
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(links: &BTreeSet<String>) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    if let [link] = links.iter().collect::<Vec<_>>().as_slice() {
        return netlink.remove_link(link).map(|_| ());
    }
    let mut grouped = false;
    for link in links {
        grouped |= netlink.set_group(link, GROUP)?;
    }
    if grouped { netlink.remove_group(GROUP) } else { Ok(()) }
}
