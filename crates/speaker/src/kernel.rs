//! Best routes in the kernel's table: desired minus observed, by a thread of its own.
//!
//! ```text
//!  owner ─▶ inbox (the latest of each prefix) ─▶ worker ─▶ plan ─▶ operations ─▶ kernel
//!                                                  ▲                               │
//!                                                  └── what the kernel tells ──────┘
//! ```
//!
//! [`plan`] decides, [`fib`] speaks netlink, this file joins them. The owner of the routes never waits: it leaves what
//! changed in the inbox, where the latest word about a prefix replaces the one before.
//!
//! **Invariants.** Routes of other protocols are never changed, as far as the kernel has told of them: it replaces by prefix
//! and metric, and between a loss of its notifications and the next look, what we believe to be ours may be another's. Routes that an earlier run left stay until the neighbours
//! have sent theirs, or the time for that is over. However the kernel refuses, it is asked again after growing pauses.

mod fib;
mod inbox;
mod plan;
mod reach;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use fib::messages;
pub(crate) use inbox::Leave;
pub(crate) use reach::{Answers, Reach};

use fib::Netlink;
use inbox::Inbox;
use isthmus_bgp::{NextHop, Prefix};
use plan::Operation;
use std::{fmt, io, net::IpAddr, sync::Arc, thread, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use worker::{Fib, Worker};

/// How long who asks about a route waits for the thread, which may be busy with many others.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the thread may take to remove all routes.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Which routes the speaker keeps in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoutes {
    /// Table; 254 is `main`.
    pub table: u32,
    /// Protocol number, by which our routes are known. Nobody else may use it in this table.
    pub protocol: u8,
    /// Metric. A route that a person sets has 0 and wins.
    pub metric: u32,
    /// How long routes of an earlier run are kept for neighbours that do not come back.
    pub stale_time: Duration,
}

impl Default for KernelRoutes {
    fn default() -> Self {
        // 20 is what FRR gives routes of BGP; 98 are the dataplane's own.
        Self { table: 254, protocol: 99, metric: 20, stale_time: Duration::from_mins(2) }
    }
}

/// A next hop as BGP says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Via {
    pub(crate) address: IpAddr,
    /// The number of the link that a link-local address is on; 0 for all others.
    pub(crate) link: u32,
}

impl Via {
    /// The next hop of a route that came over a link, or with 0 from anywhere. Of two addresses the one on the link counts
    /// (RFC 2545 section 2), as the other may be reached through it alone.
    pub(crate) fn new(next_hop: NextHop, link: u32) -> Self {
        let on_link = match next_hop {
            NextHop::V6 { global, link_local } => {
                link_local.or(Some(global)).filter(|address| link != 0 && address.is_unicast_link_local())
            }
            NextHop::V4(_) => None,
        };
        match on_link {
            Some(address) => Self { address: address.into(), link },
            None => next_hop.address().into(),
        }
    }
}

impl From<IpAddr> for Via {
    fn from(address: IpAddr) -> Self {
        Self { address, link: 0 }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link {
            0 => self.address.fmt(f),
            link => write!(f, "{}%{link}", self.address),
        }
    }
}

/// How the kernel's routes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStatus {
    /// Routes that are as they shall be.
    pub installed: usize,
    /// Routes of an earlier run that nobody has announced again yet.
    pub stale: usize,
    /// Why others are not there, by reason.
    pub problems: Vec<KernelProblem>,
}

/// Routes that are not in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelProblem {
    /// What is wrong, and what to do.
    pub why: String,
    /// How many.
    pub routes: usize,
    /// One of them.
    pub example: Prefix,
}

/// How the kernel's route to one prefix is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// It is there, as it shall be.
    pub installed: bool,
    /// Why it is not, and what to do.
    pub why: String,
}

/// Asks the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    inbox: Arc<Inbox>,
    status: watch::Receiver<KernelStatus>,
}

impl Asker {
    /// How all routes are.
    pub(crate) fn status(&self) -> KernelStatus {
        self.status.borrow().clone()
    }

    /// How one is; `None`: the thread has ended, or takes too long.
    pub(crate) async fn route(&self, prefix: Prefix) -> Option<KernelRoute> {
        timeout(ASK_TIMEOUT, self.inbox.ask(prefix)).await.ok()?.ok()
    }
}

/// Removes all routes that speakers with these settings left in the kernel, and says how many there were.
///
/// # Errors
///
/// What the kernel said of the first that stayed; the others are gone nevertheless.
pub fn remove_kernel_routes(settings: &KernelRoutes) -> io::Result<usize> {
    let mut netlink = Netlink::open(settings)?;
    let (mut removed, mut failure) = (0, None);
    let remove = |route: plan::Route| Operation::Remove { prefix: route.prefix, metric: route.metric };
    let operations: Vec<_> = netlink.routes()?.into_iter().map(remove).collect();
    for some in operations.chunks(worker::BATCH_MAX) {
        for result in netlink.apply(some)? {
            match result {
                Ok(()) => removed += 1,
                Err(why) => failure = failure.or(Some(why)),
            }
        }
    }
    failure.map_or(Ok(removed), Err)
}

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Kernel {
    inbox: Arc<Inbox>,
    status: watch::Receiver<KernelStatus>,
    ended: oneshot::Receiver<()>,
}

impl Kernel {
    /// Starts the thread, in the caller's network namespace. Routes of an earlier run are taken over.
    pub(crate) fn start(settings: &KernelRoutes) -> io::Result<Self> {
        let netlink = Netlink::open(settings)?;
        let inbox = Arc::new(Inbox::new()?);
        let (publish, status) = watch::channel(KernelStatus::default());
        let (told, ended) = oneshot::channel();
        let worker = Worker::new(netlink, settings, publish);
        let for_thread = Arc::clone(&inbox);
        thread::Builder::new().name("kernel-routes".to_owned()).spawn(move || {
            worker::run(worker, &for_thread);
            // Nobody waits where the speaker was dropped.
            let _ = told.send(());
        })?;
        Ok(Self { inbox, status, ended })
    }

    /// Which next hops a prefix has now; none: it has no route.
    pub(crate) fn set(&self, changes: impl Iterator<Item = (Prefix, Vec<Via>)>) {
        self.inbox.put(changes);
    }

    /// The neighbours have sent their routes: what an earlier run left and nobody announced goes.
    pub(crate) fn complete(&self) {
        self.inbox.complete();
    }

    /// What asks how the routes are.
    pub(crate) fn asker(&self) -> Asker {
        Asker { inbox: Arc::clone(&self.inbox), status: self.status.clone() }
    }

    /// Ends the thread.
    pub(crate) async fn stop(mut self, leave: Leave) {
        self.inbox.stop(leave);
        if timeout(STOP_TIMEOUT, &mut self.ended).await.is_err() {
            tracing::warn!("kernel routes are not all removed: the kernel takes too long");
        }
    }
}

impl Drop for Kernel {
    /// A speaker that is dropped is like one that was killed: routes stay, the thread ends.
    fn drop(&mut self) {
        self.inbox.stop(Leave::Keep);
    }
}
