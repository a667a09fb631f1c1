//! Which next hops the kernel has a way to, by a thread of its own: asked once, and again whenever the kernel's routes or
//! links change. Routes with our protocol are no ways: what BGP brought must not lean on itself.

use super::{
    KernelRoutes, Via,
    fib::Netlink,
    plan::{Event, Resolution},
    worker::Fib,
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, read, write},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tokio::sync::mpsc;

/// Pause before all are asked about again, because routes change in bursts.
const PAUSE: Duration = Duration::from_millis(50);
/// Answers that may wait for the owner of the routes; the thread waits then.
const ANSWERS_MAX: usize = 16;

/// What is told of next hops: whether the kernel has a way there.
pub(crate) type Answers = Vec<(IpAddr, bool)>;

/// The owner's end. The thread ends with it.
#[derive(Debug)]
pub(crate) struct Reach {
    shared: Arc<Shared>,
    answers: mpsc::Receiver<Answers>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Table {
    wanted: BTreeSet<IpAddr>,
    unwanted: Vec<IpAddr>,
    is_over: bool,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Each holder only moves values, so a panic leaves nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        while write(&self.wake, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }
}

impl Reach {
    /// Starts the thread, in the caller's network namespace.
    pub(crate) fn start(settings: &KernelRoutes) -> io::Result<Self> {
        let netlink = Netlink::open(settings)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { table: Mutex::default(), wake });
        let (tell, answers) = mpsc::channel(ANSWERS_MAX);
        let worker = Worker { fib: netlink, known: BTreeMap::new() };
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().name("next-hops".to_owned()).spawn(move || run(worker, &for_thread, &tell))?;
        Ok(Self { shared, answers })
    }

    /// Tells of these from now on.
    pub(crate) fn ask(&self, next_hops: impl Iterator<Item = IpAddr>) {
        let mut table = self.shared.table();
        let before = table.wanted.len();
        table.wanted.extend(next_hops);
        if table.wanted.len() != before {
            drop(table);
            self.shared.wake();
        }
    }

    /// Nobody wants to know of these any longer.
    pub(crate) fn forget(&self, next_hops: Vec<IpAddr>) {
        if !next_hops.is_empty() {
            self.shared.table().unwanted.extend(next_hops);
            self.shared.wake();
        }
    }

    /// What is new.
    pub(crate) async fn next(&mut self) -> Option<Answers> {
        self.answers.recv().await
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.shared.table().is_over = true;
        // Who waits for room for an answer finds nobody there.
        self.answers.close();
        self.shared.wake();
    }
}

struct Worker<F> {
    fib: F,
    known: BTreeMap<IpAddr, bool>,
}

fn run<F: Fib>(mut worker: Worker<F>, shared: &Shared, tell: &mpsc::Sender<Answers>) {
    loop {
        let mut count = [0; 8];
        let _ = read(&shared.wake, &mut count);
        let (wanted, unwanted) = {
            let mut table = shared.table();
            if table.is_over {
                return;
            }
            (std::mem::take(&mut table.wanted), std::mem::take(&mut table.unwanted))
        };
        let answers = worker.answers(wanted, &unwanted);
        if !answers.is_empty() && tell.blocking_send(answers).is_err() {
            return;
        }
        worker.sleep(shared);
    }
}

impl<F: Fib> Worker<F> {
    fn answers(&mut self, wanted: BTreeSet<IpAddr>, unwanted: &[IpAddr]) -> Answers {
        for next_hop in unwanted {
            self.known.remove(next_hop);
        }
        let mut answers = Vec::new();
        if self.is_another() {
            let known: Vec<(IpAddr, bool)> = self.known.iter().map(|(hop, leads)| (*hop, *leads)).collect();
            let new = known.into_iter().filter_map(|(next_hop, before)| {
                let leads = self.leads(next_hop);
                (leads != before).then_some((next_hop, leads))
            });
            answers.extend(new);
        }
        for next_hop in wanted {
            answers.push((next_hop, self.leads(next_hop)));
        }
        self.known.extend(answers.iter().copied());
        answers
    }

    /// Whether the kernel's routes may be others than before.
    fn is_another(&mut self) -> bool {
        match self.fib.events() {
            Ok(events) => events.iter().any(|event| !matches!(event, Event::Ours { .. })),
            // It told more than could be read.
            Err(_missed) => true,
        }
    }

    fn leads(&mut self, next_hop: IpAddr) -> bool {
        match self.fib.resolve(Via::from(next_hop)) {
            Ok(resolution) => matches!(resolution, Resolution::Hops(_)),
            Err(why) => {
                tracing::warn!(%next_hop, %why, "kernel cannot be asked about a next hop: it stays as it was");
                self.known.get(&next_hop).copied().unwrap_or(true)
            }
        }
    }

    /// Until somebody asks, or a short while after the kernel told something.
    fn sleep(&self, shared: &Shared) {
        let wake = PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN);
        let kernel = self.fib.wakes().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut waited_for: Vec<PollFd<'_>> = [wake].into_iter().chain(kernel).collect();
        let result = poll(&mut waited_for, None);
        let is_asked = waited_for.first().is_some_and(|wake| wake.revents().contains(PollFlags::IN));
        if result.is_err() || !is_asked {
            let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.as_nanos() as i64 };
            let _ = poll(&mut [PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN)], Some(&pause));
        }
    }
}
