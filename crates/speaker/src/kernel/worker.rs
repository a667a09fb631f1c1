//! The thread: takes what is new, asks and changes the kernel as the plan says, and sleeps until there is more.

use super::{
    KernelProblem, KernelRoutes, KernelStatus, Via,
    inbox::{Inbox, Leave, News},
    plan::{Event, Failure, Nowhere, Operation, Plan, Resolution, Route, Task},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Operations that go to the kernel at once.
pub(super) const BATCH_MAX: usize = 64;
/// Tasks between two looks at what is new.
const ROUND_MAX: usize = 1_024;
/// How often the status is counted while it changes.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How often the same problem is logged, and how often if it has grown.
const TELL_EVERY: Duration = Duration::from_mins(5);
const TELL_GROWN_EVERY: Duration = Duration::from_secs(10);
/// Rounds that a stop may take to remove all; then what is left stays, and the next start finds it.
const STOP_ROUNDS_MAX: usize = 10_000;

/// The kernel, or in tests what stands for it.
pub(super) trait Fib {
    /// All routes with our protocol in our table.
    fn routes(&mut self) -> io::Result<Vec<Route>>;
    /// Does all of it, and says of each how it ended.
    fn apply(&mut self, operations: &[Operation]) -> io::Result<Vec<io::Result<()>>>;
    /// Where a next hop leads.
    fn resolve(&mut self, next_hop: Via) -> io::Result<Resolution>;
    /// What happened that we did not do. An error says that something was missed.
    fn events(&mut self) -> io::Result<Vec<Event>>;
    /// Readable when something happened; `None`: it cannot be waited for.
    fn wakes(&self) -> Option<BorrowedFd<'_>>;
}

pub(super) struct Worker<F> {
    fib: F,
    pub(super) plan: Plan,
    settings: KernelRoutes,
    publish: watch::Sender<KernelStatus>,
    is_read: bool,
    status_at: Duration,
    is_status_due: bool,
    /// When each problem was logged, and with how many routes.
    told: BTreeMap<Failure, (Duration, usize)>,
}

/// Runs until it is told to stop.
pub(super) fn run<F: Fib>(mut worker: Worker<F>, inbox: &Inbox) {
    let started = Instant::now();
    loop {
        let news = inbox.take();
        let stop = news.stop;
        worker.take(news);
        if let Some(leave) = stop {
            return worker.stop(leave, || started.elapsed());
        }
        let is_busy = worker.round(started.elapsed());
        worker.publish(started.elapsed());
        if !is_busy {
            let until = worker.poll_timeout();
            worker.sleep(inbox, until.saturating_sub(started.elapsed()));
        }
    }
}

impl<F: Fib> Worker<F> {
    pub(super) fn new(fib: F, settings: &KernelRoutes, publish: watch::Sender<KernelStatus>) -> Self {
        Self {
            fib,
            plan: Plan::new(settings.metric),
            settings: settings.clone(),
            publish,
            is_read: false,
            status_at: Duration::ZERO,
            is_status_due: true,
            told: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, news: News) {
        for (prefix, next_hops) in news.changes {
            self.plan.set(prefix, &next_hops);
        }
        if news.complete {
            self.plan.complete();
        }
        for (prefix, reply) in news.asked {
            // Who asked may have left meanwhile.
            let _ = reply.send(self.plan.route(&prefix));
        }
    }

    /// Does a part of what is to be done; whether there is more.
    pub(super) fn round(&mut self, now: Duration) -> bool {
        self.hear(now);
        self.plan.handle_timeout(now);
        if self.plan.is_resync_due(now) {
            self.resync(now);
        }
        if !self.is_read {
            // Without knowing what is there, nothing may be added.
            return false;
        }
        let mut batch = Vec::new();
        for _ in 0..ROUND_MAX {
            match self.plan.next() {
                Some(Task::Resolve(next_hop)) => self.resolve(now, next_hop),
                Some(Task::Change(operation)) => {
                    batch.push(operation);
                    if batch.len() == BATCH_MAX {
                        self.apply(now, std::mem::take(&mut batch));
                    }
                }
                None if batch.is_empty() => return false,
                None => self.apply(now, std::mem::take(&mut batch)),
            }
        }
        self.apply(now, batch);
        true
    }

    fn hear(&mut self, now: Duration) {
        match self.fib.events() {
            Ok(events) => events.into_iter().for_each(|event| self.plan.handle_event(now, event)),
            Err(why) => {
                tracing::debug!(%why, "kernel told more than could be read: its routes are read again");
                self.plan.resync_soon(now);
            }
        }
    }

    fn resync(&mut self, now: Duration) {
        match self.fib.routes() {
            Ok(routes) => {
                if !self.is_read && !routes.is_empty() {
                    tracing::info!(routes = routes.len(), "routes of an earlier run are kept for now");
                }
                self.plan.observe(now, routes, !self.is_read);
                self.is_read = true;
                self.is_status_due = true;
            }
            Err(why) => {
                tracing::warn!(%why, "kernel routes cannot be read: none is changed until they can");
                self.plan.resync_later(now);
            }
        }
    }

    fn resolve(&mut self, now: Duration, next_hop: Via) {
        let resolution = self.fib.resolve(next_hop).unwrap_or_else(|why| {
            tracing::warn!(%next_hop, %why, "kernel cannot be asked about a next hop: it is asked again");
            self.plan.resync_later(now);
            Resolution::Nowhere(Nowhere::NoRoute)
        });
        self.plan.resolved(next_hop, resolution);
    }

    fn apply(&mut self, now: Duration, operations: Vec<Operation>) {
        if operations.is_empty() {
            return;
        }
        self.is_status_due = true;
        match self.fib.apply(&operations) {
            Ok(results) => {
                for (operation, result) in operations.into_iter().zip(results) {
                    tracing::debug!(?operation, ?result, "kernel route changed");
                    self.plan.done(now, operation, result);
                }
            }
            // What became of each is not known: the kernel must be read.
            Err(why) => {
                tracing::warn!(%why, "kernel did not answer: its routes are read again");
                for operation in operations {
                    self.plan.done(now, operation, Err(io::Error::other(why.to_string())));
                }
                self.plan.resync_soon(now);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Duration {
        let timeout = self.plan.poll_timeout();
        if self.is_status_due { timeout.min(self.status_at) } else { timeout }
    }

    pub(super) fn publish(&mut self, now: Duration) {
        if !self.is_status_due || now < self.status_at {
            return;
        }
        (self.is_status_due, self.status_at) = (false, now + STATUS_EVERY);
        let problems = self.plan.problems();
        self.tell(now, &problems);
        let problems = problems.iter().map(|(why, (routes, example))| KernelProblem {
            why: why.to_string(),
            routes: *routes,
            example: *example,
        });
        let status = KernelStatus {
            installed: self.plan.installed(),
            stale: self.plan.stale(),
            problems: problems.collect(),
        };
        self.publish.send_if_modified(|last| {
            let is_new = *last != status;
            *last = status;
            is_new
        });
    }

    fn tell(&mut self, now: Duration, problems: &BTreeMap<Failure, (usize, isthmus_bgp::Prefix)>) {
        self.told.retain(|why, _| problems.contains_key(why));
        for (why, (routes, example)) in problems {
            let is_fresh = self.told.get(why).is_some_and(|(at, before)| {
                now < *at + if routes > before { TELL_GROWN_EVERY } else { TELL_EVERY }
            });
            if is_fresh {
                // Looked at again with the next count.
                self.is_status_due |= self.told.get(why).is_some_and(|(_, before)| routes > before);
                continue;
            }
            tracing::warn!(%why, routes, %example, table = self.settings.table, "routes are not in the kernel");
            self.told.insert(*why, (now, *routes));
        }
    }

    fn stop(&mut self, leave: Leave, now: impl Fn() -> Duration) {
        if leave == Leave::Keep {
            return;
        }
        self.plan.clear();
        for _ in 0..STOP_ROUNDS_MAX {
            if !self.round(now()) {
                break;
            }
        }
        let left = self.plan.installed();
        if left > 0 {
            tracing::warn!(left, "some routes could not be removed from the kernel");
        }
    }

    fn sleep(&self, inbox: &Inbox, at_most: Duration) {
        let until = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let mut waited_for = vec![PollFd::from_borrowed_fd(inbox.as_fd(), PollFlags::IN)];
        waited_for.extend(self.fib.wakes().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut waited_for, Some(&until)) {
            Ok(_) | Err(Errno::INTR) => {}
            // Cannot be with these arguments; never at full speed though.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
