//! The agents' stream: who is connected, and what the server asks of them.
//!
//! ```text
//!  agent == Join ==> reader: scope, endpoints, requests, answers, flows
//!               <=== pusher: upserts, deletes, synced, replies, asks    (one session each, see `session`)
//! ```
//!
//! One node has one live agent. A second one is refused; the same one that connects again replaces its old call.

mod endpoints;
mod requests;
mod session;
mod wire;

pub(crate) use wire::WireError;

use crate::{
    flows::Flows,
    kinds::StoredNodeStatus,
    metrics::Metrics,
    problem::{Code, Fault, chain},
    registry::{Registry, lock, unix_now},
    view::View,
};
use futures::Stream;
use isthmus_api::stream::{self, agents_server};
use isthmus_core::{Identity, NodeName};
use session::{Ending, Session};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

/// Messages that wait for an agent; then whoever sends waits.
const OUTBOX: usize = 256;
/// Questions that wait for one agent.
const ASKS_QUEUED: usize = 64;
/// Longest wait for an agent's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long a second agent waits for the first one's call to end before it is refused: long enough for the kernel to
/// tell us that a killed process closed its socket.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
/// How often what agents said of themselves is written down.
const RECORD_EVERY: Duration = Duration::from_secs(5);

/// All connected agents.
pub(crate) struct Agents {
    registry: Arc<Registry>,
    flows: Arc<Flows>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
    live: Mutex<BTreeMap<NodeName, Arc<Live>>>,
    /// Counts ends of sessions, so that whoever waits for one looks again.
    ended: watch::Sender<u64>,
    next_ask: AtomicU64,
}

/// One connected agent.
#[derive(Debug)]
pub(crate) struct Live {
    instance: String,
    /// Ends the session.
    cut: CancellationToken,
    asks: mpsc::Sender<Question>,
    state: Mutex<LiveState>,
}

/// How far one agent is.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveState {
    /// Changes up to here were looked at.
    seen: u64,
    /// Revision of the last `synced`.
    sent: u64,
    /// Revision that it said is in force.
    in_force: u64,
    problem: Option<String>,
    scope: BTreeSet<Identity>,
    /// What was written down last.
    recorded: Option<StoredNodeStatus>,
}

/// A question to an agent.
#[derive(Debug)]
pub(crate) struct Question {
    id: u64,
    body: stream::ask::Body,
    answer: oneshot::Sender<stream::Answer>,
}

/// Why an agent did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the agent of node {0} is not connected")]
    Away(NodeName),
    #[error("the agent of node {0} did not answer in time")]
    Late(NodeName),
    #[error("the agent of node {node} cannot answer: {why}")]
    Refused { node: NodeName, why: String },
}

impl Fault for AskError {
    fn code(&self) -> Code {
        Code::Unavailable
    }

    fn help(&self) -> Option<String> {
        let Self::Away(node) = self else { return None };
        Some(format!("start it: systemctl start isthmus-agent on {node}; its rules stay in force meanwhile"))
    }
}

/// What REST tells of a node's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeLife {
    pub(crate) connected: bool,
    pub(crate) revision_in_force: u64,
    pub(crate) problem: Option<String>,
    pub(crate) last_seen_unix: u64,
}

impl Agents {
    pub(crate) fn new(
        registry: Arc<Registry>,
        flows: Arc<Flows>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            flows,
            metrics,
            tasks,
            stop,
            live: Mutex::default(),
            ended: watch::Sender::new(0),
            next_ask: AtomicU64::new(1),
        })
    }

    /// Asks a connected agent.
    pub(crate) async fn ask(&self, node: &NodeName, body: stream::ask::Body) -> Result<String, AskError> {
        let live = self.live(node).ok_or_else(|| AskError::Away(node.clone()))?;
        let (answer, answered) = oneshot::channel();
        let question = Question { id: self.next_ask.fetch_add(1, Ordering::Relaxed), body, answer };
        let exchange = async {
            live.asks.send(question).await.map_err(|_closed| AskError::Away(node.clone()))?;
            answered.await.map_err(|_closed| AskError::Away(node.clone()))
        };
        let answer = tokio::time::timeout(ANSWER_WAIT, exchange)
            .await
            .map_err(|_late| AskError::Late(node.clone()))??;
        if answer.problem.is_empty() {
            Ok(answer.json)
        } else {
            Err(AskError::Refused { node: node.clone(), why: answer.problem })
        }
    }

    /// Whether the node's agent is connected, and how far it is.
    pub(crate) fn life(&self, view: &View, node: &str) -> NodeLife {
        let live = node.parse().ok().and_then(|name| self.live(&name));
        if let Some(live) = live {
            let state = lock(&live.state);
            return NodeLife {
                connected: true,
                revision_in_force: state.effective(view.network_revision),
                problem: state.problem.clone(),
                last_seen_unix: unix_now(),
            };
        }
        let status = view.node_status.get(node).cloned().unwrap_or_default();
        NodeLife {
            connected: false,
            revision_in_force: status.revision_in_force,
            problem: status.problem,
            last_seen_unix: status.last_seen_unix,
        }
    }

    /// Whether the node's agent is connected.
    pub(crate) fn is_connected(&self, node: &NodeName) -> bool {
        self.live(node).is_some()
    }

    /// How many agents are connected.
    pub(crate) fn connected(&self) -> usize {
        lock(&self.live).len()
    }

    /// Connected nodes that hold one of these identities, each with whether `revision` is in force there.
    pub(crate) fn needing(&self, identities: &HashSet<Identity>, revision: u64) -> Vec<(NodeName, bool)> {
        let network = self.registry.view().network_revision;
        let live: Vec<(NodeName, Arc<Live>)> =
            lock(&self.live).iter().map(|(name, live)| (name.clone(), Arc::clone(live))).collect();
        let mut needing = Vec::new();
        for (name, live) in live {
            let state = lock(&live.state);
            if state.scope.iter().any(|identity| identities.contains(identity)) {
                needing.push((name, state.has(revision, network)));
            }
        }
        needing
    }

    /// Identities in the scope of any connected agent.
    pub(crate) fn scopes(&self) -> HashSet<Identity> {
        let live: Vec<Arc<Live>> = lock(&self.live).values().cloned().collect();
        live.iter().flat_map(|live| lock(&live.state).scope.iter().copied().collect::<Vec<_>>()).collect()
    }

    /// Connected nodes that hold everything that this server knows.
    pub(crate) fn up_to_date(&self) -> BTreeSet<String> {
        let network = self.registry.view().network_revision;
        let live: Vec<(NodeName, Arc<Live>)> =
            lock(&self.live).iter().map(|(name, live)| (name.clone(), Arc::clone(live))).collect();
        let current = live.into_iter().filter(|(_, live)| lock(&live.state).has(network, network));
        current.map(|(name, _)| name.as_str().to_owned()).collect()
    }

    /// Writes down what agents say of themselves, from time to time.
    pub(crate) async fn record(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RECORD_EVERY) => {}
                () = self.stop.cancelled() => return,
            }
            let live: Vec<(NodeName, Arc<Live>)> =
                lock(&self.live).iter().map(|(name, live)| (name.clone(), Arc::clone(live))).collect();
            for (node, live) in live {
                self.record_one(&node, &live, false).await;
            }
        }
    }

    async fn record_one(&self, node: &NodeName, live: &Live, last: bool) {
        let status = {
            let mut state = lock(&live.state);
            let status = StoredNodeStatus {
                revision_in_force: state.in_force,
                problem: state.problem.clone(),
                last_seen_unix: 0,
            };
            if !last && state.recorded.as_ref() == Some(&status) {
                return;
            }
            state.recorded = Some(status.clone());
            status
        };
        if let Err(error) = self.registry.record_node_status(node, status).await {
            lock(&live.state).recorded = None;
            tracing::warn!(%node, error = %chain(&error), "node status not recorded");
        }
    }

    fn live(&self, node: &NodeName) -> Option<Arc<Live>> {
        lock(&self.live).get(node).map(Arc::clone)
    }

    /// Makes `live` the agent of `node`.
    async fn claim(&self, node: &NodeName, live: &Arc<Live>) -> Result<(), Status> {
        let mut ended = self.ended.subscribe();
        let claim = async {
            loop {
                ended.borrow_and_update();
                {
                    let mut all = lock(&self.live);
                    match all.get(node) {
                        Some(held) if held.instance != live.instance => {}
                        // The same agent: its old call is dead, whether we have noticed or not. It ends what it
                        // writes before this one begins.
                        Some(held) => held.cut.cancel(),
                        None => {
                            all.insert(node.clone(), Arc::clone(live));
                            return;
                        }
                    }
                }
                // The sender lives as long as we do.
                let _ = ended.changed().await;
            }
        };
        tokio::time::timeout(CLAIM_WAIT, claim).await.map_err(|_late| {
            let code = Code::NodeServed.as_str();
            Status::already_exists(format!(
                "{code}: node {node} is served by another live agent: stop that one, or give this one another node name"
            ))
        })
    }

    /// Takes `live` out if it is still the node's agent.
    async fn leave(&self, node: &NodeName, live: &Arc<Live>) {
        let left = {
            let mut all = lock(&self.live);
            let own = all.get(node).is_some_and(|held| Arc::ptr_eq(held, live));
            own.then(|| all.remove(node)).is_some()
        };
        if left {
            self.record_one(node, live, true).await;
        }
        self.ended.send_modify(|count| *count += 1);
    }
}

impl Live {
    fn state(&self, change: impl FnOnce(&mut LiveState)) {
        change(&mut lock(&self.state));
    }
}

impl LiveState {
    /// Whether everything up to `revision` that this agent needs is in force there.
    fn has(&self, revision: u64, network: u64) -> bool {
        self.in_force >= revision || (self.seen >= revision.min(network) && self.in_force >= self.sent)
    }

    /// The revision in force; an agent that needed nothing of the newest ones has them all.
    fn effective(&self, network: u64) -> u64 {
        if self.has(network, network) { network.max(self.in_force) } else { self.in_force }
    }
}

/// The gRPC service.
pub(crate) struct Service(pub(crate) Arc<Agents>);

type ToAgentStream = Pin<Box<dyn Stream<Item = Result<stream::ToAgent, Status>> + Send>>;

#[tonic::async_trait]
impl agents_server::Agents for Service {
    type JoinStream = ToAgentStream;

    async fn join(
        &self,
        request: Request<Streaming<stream::FromAgent>>,
    ) -> Result<Response<ToAgentStream>, Status> {
        let (out, messages) = mpsc::channel(OUTBOX);
        let (ending, ended) = oneshot::channel();
        let session = Session::new(Arc::clone(&self.0), out);
        let inbound = request.into_inner();
        self.0.tasks.spawn(async move {
            let end = session.run(inbound).await;
            let _ = ending.send(end);
        });
        // What waits is sent first, then why the call ends.
        let last = futures::stream::once(async move {
            match ended.await {
                Ok(Ending::Left) => None,
                Ok(Ending::Cut(status)) => Some(Err(status)),
                Err(_gone) => {
                    Some(Err(Status::internal("the session ended without a reason; see the server's log")))
                }
            }
        });
        let last = futures::StreamExt::filter_map(last, std::future::ready);
        let messages = futures::StreamExt::map(ReceiverStream::new(messages), Ok);
        Ok(Response::new(Box::pin(futures::StreamExt::chain(messages, last))))
    }
}
