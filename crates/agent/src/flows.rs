//! Verdicts on their way to people: from the kernel's ring, with names, to whoever watches, and to a log.
//!
//! ```text
//! ring ─► reader (thread) ─► names (task) ─► subscribers: people's socket, server
//!                                        └─► log file and its JSON twin
//! ```
//!
//! Every queue is bounded, and what does not fit is counted.

mod log;
mod names;

use crate::{
    agent::{Agent, unix_now},
    kernel::Events,
};
use isthmus_api::{
    local::Flow,
    stream::{self, from_agent},
};
use isthmus_dataplane::model::Event;
use log::FlowLog;
use names::Names;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, watch};

/// Verdicts between the reader and the names.
const EVENTS_MAX: usize = 8_192;
/// Verdicts that a slow subscriber may be behind.
const SUBSCRIBER_MAX: usize = 4_096;
/// Verdicts that wait for names.
const WAITING_MAX: usize = 1_024;
/// Verdicts in one message to the server.
const BATCH_MAX: usize = 256;
/// How long a message to the server is filled.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// How long the reader waits before it looks whether it should stop.
const READ_WAIT: Duration = Duration::from_millis(500);

/// Where flows come out.
#[derive(Debug)]
pub(crate) struct Flows {
    subscribers: broadcast::Sender<Arc<Flow>>,
    watched: watch::Sender<bool>,
    lost_in_ring: AtomicU64,
    lost_here: AtomicU64,
}

impl Flows {
    /// Nobody watches.
    pub(crate) fn new() -> Self {
        Self {
            subscribers: broadcast::Sender::new(SUBSCRIBER_MAX),
            watched: watch::Sender::new(false),
            lost_in_ring: AtomicU64::new(0),
            lost_here: AtomicU64::new(0),
        }
    }

    /// Flows from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Flow>> {
        self.subscribers.subscribe()
    }

    /// The server watches, or does not.
    pub(crate) fn watch(&self, on: bool) {
        self.watched.send_replace(on);
    }

    /// Verdicts that nobody saw.
    pub(crate) fn lost(&self) -> u64 {
        self.lost_in_ring.load(Ordering::Relaxed) + self.lost_here.load(Ordering::Relaxed)
    }

    fn lose(&self, count: u64) {
        self.lost_here.fetch_add(count, Ordering::Relaxed);
    }
}

/// Starts the reader and the tasks. The reader stops soon after `stop` is set, the tasks with it or with the runtime.
pub(crate) fn start(
    agent: &Arc<Agent>,
    events: Box<dyn Events>,
    stop: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let reader = Arc::clone(agent);
    std::thread::Builder::new()
        .name("flows".to_owned())
        .spawn(move || read(&reader, events, &sender, &stop))?;
    agent.runtime.spawn(publish(Arc::clone(agent), receiver));
    agent.runtime.spawn(forward(Arc::clone(agent)));
    Ok(())
}

fn read(agent: &Agent, mut events: Box<dyn Events>, sender: &mpsc::Sender<Event>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = events.wait(READ_WAIT) {
            agent.problems.set("flows", Some(format!("the ring of verdicts cannot be read: {error}")));
            return;
        }
        while let Some(event) = events.next() {
            agent.metrics.flow(event.allowed, event.reason);
            if sender.try_send(event).is_err() {
                agent.flows.lose(1);
            }
        }
        agent.flows.lost_in_ring.store(events.lost(), Ordering::Relaxed);
    }
}

/// Gives verdicts their names and hands them out.
async fn publish(agent: Arc<Agent>, mut events: mpsc::Receiver<Event>) {
    let mut names = Names::new(Arc::clone(&agent));
    let mut log = agent.config.flow_log.clone().map(FlowLog::new);
    let mut waiting: VecDeque<Event> = VecDeque::new();
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let complete = names.know(event.from) & names.know(event.to);
                if complete || waiting.len() >= WAITING_MAX {
                    emit(&agent, &names, log.as_mut(), &event);
                } else {
                    waiting.push_back(event);
                }
            }
            () = names.answered() => {
                let (complete, rest): (VecDeque<_>, _) =
                    waiting.drain(..).partition(|event| !names.is_asking(event.from) && !names.is_asking(event.to));
                waiting = rest;
                for event in &complete {
                    emit(&agent, &names, log.as_mut(), event);
                }
            }
        }
    }
}

fn emit(agent: &Agent, names: &Names, log: Option<&mut FlowLog>, event: &Event) {
    let flow = Flow {
        time_unix_ms: unix_ms(event.time_ns),
        node: agent.config.node.to_string(),
        verdict: if event.allowed { "allowed" } else { "denied" }.to_owned(),
        reason: event.reason.to_owned(),
        from_identity: event.from.to_string(),
        from: names.name(event.from),
        to_identity: event.to.to_string(),
        to: names.name(event.to),
        source: event.source,
        destination: event.destination,
        protocol: event.protocol,
        source_port: event.source_port,
        destination_port: event.destination_port,
        rule: event.rule,
    };
    if let Some(log) = log {
        let written = log.write(&flow, event);
        agent.problems.set("flow log", written.err().map(|error| error.to_string()));
    }
    // No subscriber is no error.
    drop(agent.flows.subscribers.send(Arc::new(flow)));
}

/// The wall clock at a time of the monotonic clock that is not long ago.
fn unix_ms(monotonic_ns: u64) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let age = Duration::from_nanos(now_ns.saturating_sub(monotonic_ns));
    unix_now().saturating_sub(age).as_millis() as u64
}

/// Sends flows to the server while it watches.
async fn forward(agent: Arc<Agent>) {
    let mut watched = agent.flows.watched.subscribe();
    while watched.wait_for(|on| *on).await.is_ok() {
        let mut flows = agent.flows.subscribe();
        while *watched.borrow_and_update() {
            tokio::select! {
                changed = watched.changed() => if changed.is_err() { return },
                batch = batch(&mut flows) => {
                    agent.flows.lose(batch.lost);
                    agent.link.tell(from_agent::Body::Flows(batch));
                }
            }
        }
    }
}

/// The next flows: the first that comes, and what comes soon after it.
async fn batch(flows: &mut broadcast::Receiver<Arc<Flow>>) -> stream::Flows {
    let mut batch = stream::Flows::default();
    take(&mut batch, flows.recv().await);
    let filled = async {
        while batch.json.len() < BATCH_MAX {
            take(&mut batch, flows.recv().await);
        }
    };
    // Out of time is as good as full.
    drop(tokio::time::timeout(BATCH_TIME, filled).await);
    batch
}

fn take(batch: &mut stream::Flows, received: Result<Arc<Flow>, broadcast::error::RecvError>) {
    match received {
        Ok(flow) => batch.json.extend(serde_json::to_string(&*flow)),
        Err(broadcast::error::RecvError::Lagged(lost)) => batch.lost += lost,
        Err(broadcast::error::RecvError::Closed) => {}
    }
}
