//! Brings what the server said into force: one thread, which does at once whatever is queued.
//!
//! The view is kept in a file only while nothing is queued, so that the file is never ahead of the kernel.

use crate::{
    addresses::replace_file,
    agent::{Agent, view_path},
    desired,
    kernel::{Kernel, KernelError},
    locks::lock,
    view::Change,
};
use isthmus_api::stream::{self, from_agent};
use isthmus_core::Identity;
use isthmus_dataplane::model::Network;
use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two writes of the view's file.
const PERSIST_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The file is written at most this part of the time.
const PERSIST_SHARE: u32 = 20;

/// Where problems with rules are told, before the identity.
const RULES_PLACE: &str = "rules towards";
/// Where problems with pools, nodes and blocks are told.
const NETWORK_PLACE: &str = "network";

/// What waits to be brought into force.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    work: Mutex<Work>,
    queued: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    network: bool,
    tables: BTreeSet<Identity>,
    revision: Option<u64>,
    persist: bool,
    stop: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        !self.network && self.tables.is_empty() && self.revision.is_none()
    }
}

impl Pending {
    /// Queues what a change of the view means. Call it while the view is locked.
    pub(crate) fn change(&self, change: Change) {
        let mut work = lock(&self.work);
        match change {
            Change::Network => work.network = true,
            Change::Table(identity) => drop(work.tables.insert(identity)),
            Change::Names | Change::Bgp => {}
        }
        work.persist = true;
        drop(work);
        self.queued.notify_one();
    }

    /// Queues tables to be loaded again.
    pub(crate) fn tables(&self, tables: impl IntoIterator<Item = Identity>) {
        lock(&self.work).tables.extend(tables);
        self.queued.notify_one();
    }

    /// Queues the network to be set again.
    pub(crate) fn network(&self) {
        lock(&self.work).network = true;
        self.queued.notify_one();
    }

    /// The view is whole up to this revision.
    pub(crate) fn synced(&self, revision: u64) {
        let mut work = lock(&self.work);
        work.revision = Some(revision);
        work.persist = true;
        drop(work);
        self.queued.notify_one();
    }

    /// The view should be written.
    pub(crate) fn persist(&self) {
        lock(&self.work).persist = true;
        self.queued.notify_one();
    }

    /// Ends [`Agent::apply_until_stopped`], when all that is queued is done.
    pub(crate) fn stop(&self) {
        lock(&self.work).stop = true;
        self.queued.notify_one();
    }

    /// Waits for work until `deadline`; `None` when there is none by then.
    fn next(&self, deadline: Option<Instant>) -> Option<Work> {
        let mut work = lock(&self.work);
        loop {
            if !work.is_empty() || work.stop || (deadline.is_none() && work.persist) {
                let stop = work.stop;
                let next = std::mem::take(&mut *work);
                work.stop = stop;
                return Some(next);
            }
            work = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.queued.wait(work).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => self.queued.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl Agent {
    /// The thread's life.
    pub(crate) fn apply_until_stopped(&self) {
        let mut persist_at = None;
        let mut interval = PERSIST_INTERVAL_MIN;
        loop {
            let Some(work) = self.pending.next(persist_at) else {
                let took = self.persist_view();
                interval = took.map_or(interval, |took| PERSIST_INTERVAL_MIN.max(took * PERSIST_SHARE));
                persist_at = if took.is_some() { None } else { Some(Instant::now() + interval) };
                continue;
            };
            if work.persist && persist_at.is_none() {
                persist_at = Some(Instant::now() + interval);
            }
            let stop = work.stop && work.is_empty();
            self.apply(&work);
            if stop {
                self.persist_view();
                return;
            }
        }
    }

    fn apply(&self, work: &Work) {
        if work.is_empty() {
            return;
        }
        let started = Instant::now();
        if work.network {
            self.apply_network(Kernel::set_network);
        }
        for identity in &work.tables {
            let place = format!("{RULES_PLACE} {identity}");
            let problem = self.reload_table(*identity).err();
            self.problems.set(&place, problem.map(|why| format!("{place} are not the newest: {why}")));
        }
        self.metrics.applied(started.elapsed());
        if let Some(revision) = work.revision {
            self.tell_in_force(revision);
        }
    }

    /// Adds what the view's file says to what an earlier agent left in the kernel. The file may be older than the kernel:
    /// nothing is taken away before the server has been heard.
    pub(crate) fn widen_network(&self) {
        self.apply_network(Kernel::widen_network);
    }

    /// Gives pools, nodes and blocks to the kernel as the view has them.
    fn apply_network(&self, give: impl FnOnce(&dyn Kernel, &Network) -> Result<(), KernelError>) {
        let (network, problems) = {
            let view = self.view();
            if view.revision == 0 {
                // Nothing was ever heard; what an earlier agent left in the kernel is better than nothing.
                return;
            }
            desired::network(&view)
        };
        let problem = (!problems.is_empty()).then(|| format!("left out: {}", problems.join("; ")));
        self.problems.set(NETWORK_PLACE, problem);
        let failed = give(&*self.kernel, &network).err();
        let text = failed.map(|error| format!("the network is not the newest: {error}"));
        self.problems.set(&format!("{NETWORK_PLACE} in the kernel"), text);
    }

    fn tell_in_force(&self, revision: u64) {
        let problem = self.problems.under(&[RULES_PLACE, NETWORK_PLACE]).join("; ");
        if problem.is_empty() {
            self.metrics.revision_in_force(revision);
        }
        self.link.tell(from_agent::Body::InForce(stream::InForce { revision, problem }));
    }

    /// Writes the view and says how long it took; does nothing (`None`) while something is queued.
    fn persist_view(&self) -> Option<Duration> {
        let started = Instant::now();
        let file = {
            let view = self.view();
            let mut work = lock(&self.pending.work);
            if !work.is_empty() {
                return None;
            }
            work.persist = false;
            drop(work);
            view.to_file()
        };
        let path = view_path(&self.config);
        let failed = replace_file(&path, &file).err();
        let text = failed.map(|error| format!("the view cannot be kept in {}: {error}", path.display()));
        self.problems.set("view file", text);
        Some(started.elapsed())
    }
}
