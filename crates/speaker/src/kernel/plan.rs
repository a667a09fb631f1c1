//! Which routes the kernel shall have, which it has, and what to do about the difference. No I/O: what the kernel says
//! goes in, operations come out.
//!
//! A key is a prefix. Whatever happens to it only makes it pending; [`Plan::next`] then compares what it shall be with what
//! it is. So events may be doubled, late or lost: a resync finds the rest.

use super::{KernelRoute, Via};
use isthmus_bgp::Prefix;
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// Next hops of one route; more are left out. What the kernel takes for IPv4 and IPv6, and what hashing makes use of.
const HOPS_MAX: usize = 64;
/// Pause before what the kernel refused is tried again; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// Pause before routes are put back that somebody removes again and again; the first time there is none.
const RESTORE_MIN: Duration = Duration::from_millis(500);
const RESTORE_MAX: Duration = Duration::from_mins(1);
/// After this long without a loss, or a failure, the next one is a first again.
const CALM: Duration = Duration::from_mins(2);
/// Pause before all is read again, for what comes in bursts.
const RESYNC_PAUSE: Duration = Duration::from_millis(100);
/// All is read again after this long in any case.
const RESYNC_EVERY: Duration = Duration::from_mins(5);

/// One way out: a neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    /// `None`: the destinations themselves are on the link. We never make such routes, but may find one.
    pub(super) gateway: Option<IpAddr>,
    pub(super) ifindex: u32,
    /// The gateway is on the link although no address of ours says so.
    pub(super) onlink: bool,
}

/// Ways out, in order and each once.
pub(super) type Hops = Arc<[Hop]>;
type NextHops = Arc<[Via]>;

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) prefix: Prefix,
    pub(super) metric: u32,
    pub(super) hops: Hops,
}

/// What the kernel says about a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The neighbours that lead there.
    Hops(Hops),
    Nowhere(Nowhere),
}

/// Why a next hop leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nowhere {
    NoRoute,
    /// It is an address of this host.
    Own,
    /// Only routes that BGP brought lead there; they must not lean on each other.
    OverOurs,
}

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => {
                "the kernel has no route to the next hop: add one, or have the neighbour set itself as next hop"
            }
            Self::Own => "the next hop is an address of this host: have the neighbour set another",
            Self::OverOurs => {
                "only a route from BGP leads to the next hop: add a route to it that is not from BGP, or have the neighbour set itself as next hop"
            }
        })
    }
}

/// Why a route is not in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Nowhere(Nowhere),
    /// Somebody else's route has the same prefix and metric.
    Foreign,
    Full,
    NotPermitted,
    Refused(i32),
}

impl Failure {
    fn of(error: &io::Error, adds: bool) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::EXIST) if adds => Self::Foreign,
            Some(Errno::NOSPC | Errno::NOMEM | Errno::NOBUFS) => Self::Full,
            Some(Errno::PERM | Errno::ACCESS) => Self::NotPermitted,
            Some(other) => Self::Refused(other.raw_os_error()),
            None => Self::Refused(0),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(why) => why.fmt(f),
            Self::Foreign => f.write_str(
                "another program's route has the same prefix and metric: remove it, or choose another metric",
            ),
            Self::Full => f.write_str(
                "the kernel has no room for more routes: accept fewer prefixes, or give the host more memory",
            ),
            Self::NotPermitted => f.write_str("the speaker may not change routes: give it CAP_NET_ADMIN"),
            Self::Refused(0) => f.write_str("the kernel did not answer"),
            Self::Refused(errno) => {
                write!(f, "the kernel refuses it: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

/// A change of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Fails if anybody has a route there.
    Add(Route),
    /// Takes the place of ours.
    Replace(Route),
    Remove {
        prefix: Prefix,
        metric: u32,
    },
}

impl Operation {
    pub(super) fn prefix(&self) -> Prefix {
        match self {
            Self::Add(route) | Self::Replace(route) => route.prefix,
            Self::Remove { prefix, .. } => *prefix,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Ask the kernel about this next hop.
    Resolve(Via),
    Change(Operation),
}

/// What the kernel tells by itself, without what we did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A route with our protocol in our table is as it says, or gone.
    Ours { prefix: Prefix, metric: u32, hops: Option<Hops> },
    /// Another route came or went.
    Foreign { prefix: Prefix, metric: u32, is_present: bool, is_in_table: bool },
    /// An interface changed.
    Link(u32),
}

#[derive(Debug)]
pub(super) struct Plan {
    metric: u32,
    desired: BTreeMap<Prefix, NextHops>,
    /// Each set of next hops once.
    sets: BTreeSet<NextHops>,
    observed: BTreeMap<(Prefix, u32), Hops>,
    /// Of them, those of an earlier run that nobody announced yet.
    adopted: BTreeSet<(Prefix, u32)>,
    resolved: BTreeMap<Via, Resolution>,
    /// Next hops to ask about again.
    doubtful: BTreeSet<Via>,
    pending: BTreeSet<Prefix>,
    failed: BTreeMap<Prefix, Failure>,
    /// Prefixes where somebody else has a route beside ours: ours is never replaced in place.
    contested: BTreeSet<Prefix>,
    is_complete: bool,
    /// Nothing is added until the next retry.
    is_full: bool,
    retry: Backoff,
    /// Removed by others.
    lost: BTreeSet<Prefix>,
    restore: Backoff,
    last_loss: Duration,
    last_failure: Duration,
    resync_at: Duration,
}

/// A pause that grows while what follows it fails.
#[derive(Debug)]
struct Backoff {
    at: Option<Duration>,
    wait: Duration,
    max: Duration,
}

impl Backoff {
    /// Sets the time if none is set.
    fn set(&mut self, now: Duration, next_min: Duration) {
        if self.at.is_none() {
            self.at = Some(now + self.wait);
            self.wait = (self.wait * 2).clamp(next_min, self.max);
        }
    }

    fn is_due(&mut self, now: Duration) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.at = None;
        }
        due
    }
}

impl Plan {
    pub(super) fn new(metric: u32) -> Self {
        Self {
            metric,
            desired: BTreeMap::new(),
            sets: BTreeSet::new(),
            observed: BTreeMap::new(),
            adopted: BTreeSet::new(),
            resolved: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            pending: BTreeSet::new(),
            failed: BTreeMap::new(),
            contested: BTreeSet::new(),
            is_complete: false,
            is_full: false,
            retry: Backoff { at: None, wait: RETRY_MIN, max: RETRY_MAX },
            lost: BTreeSet::new(),
            restore: Backoff { at: None, wait: Duration::ZERO, max: RESTORE_MAX },
            last_loss: Duration::ZERO,
            last_failure: Duration::ZERO,
            // The first look is due at once.
            resync_at: Duration::ZERO,
        }
    }

    /// Which next hops a prefix has now; none: it has no route.
    pub(super) fn set(&mut self, prefix: Prefix, next_hops: &[Via]) {
        if next_hops.is_empty() {
            self.desired.remove(&prefix);
        } else {
            let set = self.set_of(next_hops);
            self.desired.insert(prefix, set);
        }
        self.pending.insert(prefix);
    }

    fn set_of(&mut self, next_hops: &[Via]) -> NextHops {
        if let Some(set) = self.sets.get(next_hops) {
            return Arc::clone(set);
        }
        let set: NextHops = next_hops.into();
        self.sets.insert(Arc::clone(&set));
        set
    }

    /// Neighbours have sent all: what is not announced now goes.
    pub(super) fn complete(&mut self) {
        if !self.is_complete {
            self.is_complete = true;
            self.pending.extend(self.adopted.iter().map(|(prefix, _)| *prefix));
        }
    }

    /// Nothing is wanted any longer.
    pub(super) fn clear(&mut self) {
        self.is_complete = true;
        self.desired.clear();
        self.pending.extend(self.observed.keys().map(|(prefix, _)| *prefix));
    }

    /// Takes what the kernel says that it has. What is there at the first look is of an earlier run.
    pub(super) fn observe(&mut self, now: Duration, routes: Vec<Route>, is_first: bool) {
        let found: BTreeMap<_, _> =
            routes.into_iter().map(|route| ((route.prefix, route.metric), route.hops)).collect();
        let before = std::mem::take(&mut self.observed);
        let mut lost = Vec::new();
        for (key, hops) in &before {
            match found.get(key) {
                None => lost.push(key.0),
                Some(now) if now != hops => drop(self.pending.insert(key.0)),
                Some(_) => {}
            }
        }
        self.pending.extend(found.keys().filter(|key| !before.contains_key(*key)).map(|key| key.0));
        if is_first {
            self.adopted = found.keys().copied().collect();
        }
        self.adopted.retain(|key| found.contains_key(key));
        self.observed = found;
        for prefix in lost {
            self.lose(now, prefix);
        }
        self.forget_unused();
        self.doubtful = self.resolved.keys().copied().collect();
        self.resync_at = now + RESYNC_EVERY;
    }

    /// Drops sets that no route has, and next hops that no set has.
    fn forget_unused(&mut self) {
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        let used: BTreeSet<Via> = self.sets.iter().flat_map(|set| set.iter().copied()).collect();
        self.resolved.retain(|next_hop, _| used.contains(next_hop));
    }

    /// The kernel could not be read, or told more than it could: look again soon.
    pub(super) fn resync_soon(&mut self, now: Duration) {
        self.resync_at = self.resync_at.min(now + RESYNC_PAUSE);
    }

    pub(super) fn resync_later(&mut self, now: Duration) {
        self.resync_at = now + RETRY_MIN;
    }

    pub(super) fn is_resync_due(&self, now: Duration) -> bool {
        self.resync_at <= now
    }

    pub(super) fn handle_event(&mut self, now: Duration, event: Event) {
        match event {
            Event::Ours { prefix, metric, hops: Some(hops) } => {
                let before = self.observed.insert((prefix, metric), Arc::clone(&hops));
                if before.as_ref() != Some(&hops) {
                    self.lose(now, prefix);
                }
            }
            Event::Ours { prefix, metric, hops: None } => {
                self.adopted.remove(&(prefix, metric));
                if self.observed.remove(&(prefix, metric)).is_some() {
                    self.lose(now, prefix);
                }
            }
            Event::Foreign { prefix, metric, is_present, is_in_table } => {
                let within = |next_hop: &Via| contains(&prefix, next_hop.address);
                self.doubtful.extend(self.resolved.keys().copied().filter(within));
                if is_in_table && metric == self.metric {
                    self.contest(prefix, is_present);
                }
            }
            Event::Link(ifindex) => {
                let uses = |resolution: &Resolution| match resolution {
                    Resolution::Hops(hops) => hops.iter().any(|hop| hop.ifindex == ifindex),
                    Resolution::Nowhere(_) => false,
                };
                // The kernel says nothing of IPv4 routes that go with their interface.
                if self.resolved.values().any(uses) {
                    self.resync_soon(now);
                }
            }
        }
    }

    fn contest(&mut self, prefix: Prefix, is_present: bool) {
        if is_present {
            if self.desired.contains_key(&prefix) {
                self.contested.insert(prefix);
            }
        } else {
            self.contested.remove(&prefix);
            if self.failed.get(&prefix) == Some(&Failure::Foreign) {
                self.pending.insert(prefix);
            }
        }
    }

    fn lose(&mut self, now: Duration, prefix: Prefix) {
        if now.saturating_sub(self.last_loss) > CALM {
            self.restore.wait = Duration::ZERO;
        }
        self.last_loss = now;
        self.lost.insert(prefix);
        self.restore.set(now, RESTORE_MIN);
    }

    /// What the kernel says about a next hop.
    pub(super) fn resolved(&mut self, next_hop: Via, resolution: Resolution) {
        self.doubtful.remove(&next_hop);
        let before = self.resolved.insert(next_hop, resolution);
        // A first answer is for prefixes that are pending already.
        if before.is_none_or(|before| self.resolved.get(&next_hop) == Some(&before)) {
            return;
        }
        let leads = self.desired.iter().filter(|(_, set)| set.contains(&next_hop));
        self.pending.extend(leads.map(|(prefix, _)| *prefix));
    }

    /// When to call [`Plan::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&self) -> Duration {
        let timers = [self.retry.at, self.restore.at];
        timers.into_iter().flatten().fold(self.resync_at, Duration::min)
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        if self.restore.is_due(now) {
            self.pending.append(&mut self.lost);
        }
        if self.retry.is_due(now) {
            self.is_full = false;
            let again = self.failed.iter().filter(|(_, why)| !matches!(why, Failure::Nowhere(_)));
            self.pending.extend(again.map(|(prefix, _)| *prefix));
        }
    }

    /// The next thing to do; what it does is told by [`Plan::done`] or [`Plan::resolved`]. Ask until `None`.
    pub(super) fn next(&mut self) -> Option<Task> {
        if let Some(next_hop) = self.doubtful.pop_first() {
            return Some(Task::Resolve(next_hop));
        }
        while let Some(prefix) = self.pending.pop_first() {
            let task = self.examine(prefix);
            if let Some(Task::Resolve(_)) = task {
                self.pending.insert(prefix);
            }
            if task.is_some() {
                return task;
            }
        }
        None
    }

    /// Compares what a prefix shall be with what it is.
    fn examine(&mut self, prefix: Prefix) -> Option<Task> {
        let Some(next_hops) = self.desired.get(&prefix).cloned() else {
            self.failed.remove(&prefix);
            self.contested.remove(&prefix);
            return self.remove_any(prefix);
        };
        let mut hops = BTreeSet::new();
        let mut nowhere = Nowhere::NoRoute;
        for next_hop in next_hops.iter() {
            match self.resolved.get(next_hop) {
                None => return Some(Task::Resolve(*next_hop)),
                Some(Resolution::Hops(found)) => hops.extend(found.iter().copied()),
                Some(Resolution::Nowhere(why)) => nowhere = *why,
            }
        }
        if hops.is_empty() {
            self.failed.insert(prefix, Failure::Nowhere(nowhere));
            return self.remove_any(prefix);
        }
        let route = Route { prefix, metric: self.metric, hops: hops.into_iter().take(HOPS_MAX).collect() };
        let key = (prefix, self.metric);
        let operation = match self.observed.get(&key) {
            None if self.is_full => {
                self.failed.insert(prefix, Failure::Full);
                return None;
            }
            None => Operation::Add(route),
            Some(hops) if *hops == route.hops => {
                self.adopted.remove(&key);
                self.failed.remove(&prefix);
                return self.remove_other(prefix);
            }
            // Replacing takes the first route with the key, which may be somebody else's.
            Some(_) if self.contested.contains(&prefix) => Operation::Remove { prefix, metric: self.metric },
            Some(_) => Operation::Replace(route),
        };
        Some(Task::Change(operation))
    }

    /// A route of ours to a prefix that has none any longer; those of an earlier run have time.
    fn remove_any(&self, prefix: Prefix) -> Option<Task> {
        let ours = self.observed.range((prefix, 0)..=(prefix, u32::MAX)).map(|(key, _)| key);
        let mut removable = ours.filter(|key| self.is_complete || !self.adopted.contains(key));
        removable
            .next()
            .map(|(prefix, metric)| Task::Change(Operation::Remove { prefix: *prefix, metric: *metric }))
    }

    /// A route of ours with a metric of earlier times, beside the right one.
    fn remove_other(&self, prefix: Prefix) -> Option<Task> {
        let ours = self.observed.range((prefix, 0)..=(prefix, u32::MAX)).map(|(key, _)| key);
        ours.filter(|(_, metric)| *metric != self.metric)
            .map(|(prefix, metric)| (*prefix, *metric))
            .next()
            .map(|(prefix, metric)| Task::Change(Operation::Remove { prefix, metric }))
    }

    /// How an operation ended.
    pub(super) fn done(&mut self, now: Duration, operation: Operation, result: io::Result<()>) {
        let prefix = operation.prefix();
        let failure = match (&operation, result) {
            (_, Ok(())) => None,
            (Operation::Remove { .. }, Err(why)) if is_gone(&why) => None,
            (Operation::Replace(_), Err(why)) if is_gone(&why) => {
                // It went just now: the next look adds it.
                self.observed.remove(&(prefix, self.metric));
                self.pending.insert(prefix);
                return;
            }
            (_, Err(why)) => Some(Failure::of(&why, matches!(operation, Operation::Add(_)))),
        };
        if let Some(failure) = failure {
            return self.fail(now, prefix, failure);
        }
        match operation {
            Operation::Add(route) | Operation::Replace(route) => {
                self.adopted.remove(&(prefix, route.metric));
                self.observed.insert((prefix, route.metric), route.hops);
                self.failed.remove(&prefix);
            }
            Operation::Remove { metric, .. } => {
                self.adopted.remove(&(prefix, metric));
                self.observed.remove(&(prefix, metric));
                // Room again.
                if self.is_full && self.retry.at.is_some() {
                    self.retry.at = Some(now);
                }
            }
        }
        // There may be more to do about it.
        self.pending.insert(prefix);
    }

    fn fail(&mut self, now: Duration, prefix: Prefix, failure: Failure) {
        self.failed.insert(prefix, failure);
        self.is_full |= failure == Failure::Full;
        if now.saturating_sub(self.last_failure) > CALM {
            self.retry.wait = RETRY_MIN;
        }
        self.last_failure = now;
        if let (Failure::Refused(_), Some(next_hops)) = (failure, self.desired.get(&prefix)) {
            // Where it leads may have changed just now.
            self.doubtful.extend(next_hops.iter().filter(|next_hop| self.resolved.contains_key(*next_hop)));
        }
        self.retry.set(now, RETRY_MIN);
    }

    pub(super) fn installed(&self) -> usize {
        self.observed.len() - self.adopted.len()
    }

    pub(super) fn stale(&self) -> usize {
        self.adopted.len()
    }

    /// How the route to a prefix is.
    pub(super) fn route(&self, prefix: &Prefix) -> KernelRoute {
        let key = (*prefix, self.metric);
        let why = if let Some(failure) = self.failed.get(prefix) {
            failure.to_string()
        } else if self.pending.contains(prefix) || self.lost.contains(prefix) {
            "it is being changed: ask again".to_owned()
        } else if self.adopted.contains(&key) {
            "it is one of an earlier run, and waits for its neighbour".to_owned()
        } else if self.observed.contains_key(&key) {
            String::new()
        } else {
            "no path of a neighbour is the best".to_owned()
        };
        KernelRoute { installed: why.is_empty(), why }
    }

    /// What is not there: why, how many, one of them.
    pub(super) fn problems(&self) -> BTreeMap<Failure, (usize, Prefix)> {
        let mut problems = BTreeMap::new();
        for (prefix, why) in &self.failed {
            problems.entry(*why).or_insert((0, *prefix)).0 += 1;
        }
        problems
    }
}

fn contains(prefix: &Prefix, address: IpAddr) -> bool {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Prefix::new(address, bits).is_some_and(|host| prefix.contains(&host))
}

fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::SRCH | Errno::NOENT | Errno::NODEV))
}
