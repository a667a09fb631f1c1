//! One agent's call.
//!
//! The reader takes in what the agent says and never waits for the agent; the pusher sends, and is the only one that
//! knows what the agent holds. A scope is the newest one only, so that neither waits for the other.

use super::{Agents, Live, LiveState, Question, WireError, endpoints, requests, wire};
use crate::{
    problem::{Code, chain},
    registry::lock,
    view::{
        Changes, View, ViewKey,
        plan::{self, Plan},
    },
};
use isthmus_api::{
    local::Flow,
    stream::{self, FromAgent, ToAgent, from_agent, to_agent},
};
use isthmus_core::{Identity, NodeName};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot, watch},
    time::Instant,
};
use tonic::{Status, Streaming};

/// Longest wait for the first message.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Longest that an agent may leave its messages unread; then it is cut, and comes again.
const SLOW: Duration = Duration::from_secs(20);
/// Shortest time between two batches of changes; what comes meanwhile is sent together.
const BATCH: Duration = Duration::from_millis(10);
/// Keys looked at under one lock of the view.
const CHUNK: usize = 512;
/// Requests of one agent that are worked on at once; further ones wait.
const REQUESTS_MAX: usize = 64;

/// How a call ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The agent hung up.
    Left,
    /// We did, and say why.
    Cut(Status),
}

pub(super) struct Session {
    agents: Arc<Agents>,
    out: mpsc::Sender<ToAgent>,
}

/// What both halves share.
pub(super) struct Shared {
    pub(super) agents: Arc<Agents>,
    pub(super) node: NodeName,
    pub(super) live: Arc<Live>,
    pub(super) out: mpsc::Sender<ToAgent>,
    pub(super) endpoints: mpsc::Sender<endpoints::Change>,
    answers: Mutex<HashMap<u64, oneshot::Sender<stream::Answer>>>,
}

impl Session {
    pub(super) fn new(agents: Arc<Agents>, out: mpsc::Sender<ToAgent>) -> Self {
        Self { agents, out }
    }

    /// Serves the call until it ends.
    pub(super) async fn run(self, mut inbound: Streaming<FromAgent>) -> Ending {
        let hello = match first_message(&mut inbound).await {
            Ok(hello) => hello,
            Err(status) => return Ending::Cut(status),
        };
        let words = match wire::hello(&hello) {
            Ok(words) => words,
            Err(error) => return Ending::Cut(bad(&error)),
        };
        let node = words.node.name.clone();
        let (asks, questions) = mpsc::channel(super::ASKS_QUEUED);
        let live = Arc::new(Live {
            instance: words.instance.clone(),
            cut: self.agents.stop.child_token(),
            asks,
            state: Mutex::new(LiveState { scope: words.scope.clone(), ..LiveState::default() }),
        });
        if let Err(status) = self.agents.claim(&node, &live).await {
            tracing::warn!(%node, reason = status.message(), "agent refused");
            return Ending::Cut(status);
        }
        tracing::info!(%node, version = hello.agent_version, "agent connected");
        let ending = self.serve(inbound, &hello, &words, &live, questions).await;
        self.agents.leave(&node, &live).await;
        match &ending {
            Ending::Left => tracing::info!(%node, "agent disconnected"),
            Ending::Cut(status) => tracing::info!(%node, reason = status.message(), "agent disconnected"),
        }
        ending
    }

    async fn serve(
        &self,
        inbound: Streaming<FromAgent>,
        hello: &stream::Hello,
        words: &wire::HelloWords,
        live: &Arc<Live>,
        questions: mpsc::Receiver<Question>,
    ) -> Ending {
        let registry = &self.agents.registry;
        let number = match registry.register_node(&words.node).await {
            Ok(number) => number,
            Err(error) => {
                let code = crate::problem::Fault::code(&error);
                let text = format!("{}: {}", code.as_str(), chain(&error));
                tracing::warn!(node = %words.node.name, error = text, "node not registered");
                return Ending::Cut(if crate::problem::Fault::retryable(&error) {
                    Status::unavailable(text)
                } else {
                    Status::failed_precondition(text)
                });
            }
        };
        let (endpoint_changes, endpoint_queue) = mpsc::channel(endpoints::QUEUED);
        let shared = Arc::new(Shared {
            agents: Arc::clone(&self.agents),
            node: words.node.name.clone(),
            live: Arc::clone(live),
            out: self.out.clone(),
            endpoints: endpoint_changes,
            answers: Mutex::default(),
        });
        let (scope, scopes) = watch::channel(words.scope.clone());
        let pusher = Pusher {
            shared: Arc::clone(&shared),
            changes: registry.subscribe(),
            scopes,
            questions,
            scope: BTreeSet::new(),
            sent: HashMap::new(),
            peers: HashMap::new(),
            named: HashMap::new(),
            plan: Plan::default(),
        };
        let mut writer = self.agents.tasks.spawn(endpoints::write(Arc::clone(&shared), endpoint_queue));
        let mut written = false;
        let ending = tokio::select! {
            ending = read(Arc::clone(&shared), inbound, scope) => ending,
            status = pusher.run(number, hello) => Ending::Cut(status),
            status = &mut writer => {
                written = true;
                Ending::Cut(status.unwrap_or_else(|_gone| Status::internal("endpoints cannot be written")))
            }
            () = live.cut.cancelled() => Ending::Cut(self.why_cut()),
        };
        live.cut.cancel();
        if !written {
            // An error here is the writer's own panic, which the runtime has told already.
            let _ = writer.await;
        }
        ending
    }

    fn why_cut(&self) -> Status {
        if self.agents.stop.is_cancelled() {
            Status::unavailable("the server is stopping")
        } else {
            Status::aborted("this agent has opened a newer call")
        }
    }
}

fn bad(error: &WireError) -> Status {
    Status::invalid_argument(format!("{}: {error}", Code::BadRequest.as_str()))
}

async fn first_message(inbound: &mut Streaming<FromAgent>) -> Result<stream::Hello, Status> {
    let first = tokio::time::timeout(HELLO_WAIT, inbound.message()).await;
    let first = first.map_err(|_late| Status::deadline_exceeded("no hello within 10 seconds"))??;
    let Some(FromAgent { body: Some(from_agent::Body::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message must be hello"));
    };
    if hello.protocol != stream::PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "{}: the agent of node {} speaks protocol {}, this server speaks {}: upgrade the older one",
            Code::Protocol.as_str(),
            hello.node,
            hello.protocol,
            stream::PROTOCOL
        )));
    }
    Ok(hello)
}

/// Takes in what the agent says until it hangs up.
async fn read(
    shared: Arc<Shared>,
    mut inbound: Streaming<FromAgent>,
    scope: watch::Sender<BTreeSet<Identity>>,
) -> Ending {
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let message = match inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ending::Left,
            Err(status) => {
                tracing::debug!(node = %shared.node, %status, "agent's call broke");
                return Ending::Left;
            }
        };
        match message.body {
            Some(from_agent::Body::Hello(_)) => {
                return Ending::Cut(Status::invalid_argument("hello came twice"));
            }
            Some(from_agent::Body::Scope(message)) => {
                let wanted = wire::scope(&message.identities);
                shared.live.state(|state| state.scope.clone_from(&wanted));
                scope.send_replace(wanted);
            }
            Some(from_agent::Body::InForce(message)) => shared.live.state(|state| {
                state.in_force = message.revision;
                state.problem =
                    (!message.problem.is_empty()).then(|| message.problem.chars().take(1_024).collect());
            }),
            Some(from_agent::Body::Request(request)) => {
                let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { return Ending::Left };
                let shared = Arc::clone(&shared);
                shared.agents.tasks.clone().spawn(async move {
                    requests::answer(&shared, request).await;
                    drop(permit);
                });
            }
            Some(from_agent::Body::Answer(answer)) => {
                if let Some(waiting) = lock(&shared.answers).remove(&answer.id) {
                    let _ = waiting.send(answer);
                }
            }
            Some(from_agent::Body::Flows(flows)) => take_flows(&shared, &flows),
            Some(
                body @ (from_agent::Body::Endpoint(_)
                | from_agent::Body::EndpointGone(_)
                | from_agent::Body::EndpointSync(_)),
            ) => match endpoints::read(&shared.node, body) {
                Ok(change) => {
                    if shared.endpoints.send(change).await.is_err() {
                        return Ending::Left;
                    }
                }
                Err(error) => return Ending::Cut(bad(&error)),
            },
            // A newer agent may say what this server does not know.
            None => {}
        }
    }
}

fn take_flows(shared: &Shared, message: &stream::Flows) {
    let flows = message.json.iter().filter_map(|json| match serde_json::from_str::<Flow>(json) {
        Ok(flow) => Some(flow),
        Err(error) => {
            tracing::debug!(node = %shared.node, %error, "flow cannot be read");
            None
        }
    });
    let view = shared.agents.registry.view();
    shared.agents.flows.publish(flows.map(|flow| crate::flows::with_names(&view, flow)), message.lost);
}

/// Sends, and knows what the agent holds.
struct Pusher {
    shared: Arc<Shared>,
    changes: broadcast::Receiver<Arc<Changes>>,
    scopes: watch::Receiver<BTreeSet<Identity>>,
    questions: mpsc::Receiver<Question>,
    /// The scope that `sent` was made for.
    scope: BTreeSet<Identity>,
    /// What the agent holds, with versions.
    sent: HashMap<ViewKey, u64>,
    /// Whom the table of an identity in the scope names.
    peers: HashMap<Identity, Arc<[Identity]>>,
    /// By how many tables of the scope an identity is named.
    named: HashMap<Identity, u32>,
    /// What is the node's own.
    plan: Plan,
}

/// Something wakes the pusher.
enum Wake {
    Changes(Arc<Changes>),
    Behind,
    Scope,
    Question(Question),
    Flows(bool),
    Batch,
}

impl Pusher {
    /// Sends until the agent is too slow or something ends. Dropped when the call ends otherwise.
    async fn run(mut self, number: u32, hello: &stream::Hello) -> Status {
        match self.push(number, hello).await {
            Ok(never) => match never {},
            Err(status) => status,
        }
    }

    async fn push(&mut self, number: u32, hello: &stream::Hello) -> Result<std::convert::Infallible, Status> {
        let revision = self.shared.agents.registry.view().network_revision;
        self.send(to_agent::Body::Welcome(stream::Welcome {
            protocol: stream::PROTOCOL,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            node_number: number,
            revision,
        }))
        .await?;
        self.take_held(hello).await?;
        self.compare_all().await?;
        self.synced().await?;
        let mut watched = self.shared.agents.flows.watched();
        if *watched.borrow_and_update() {
            self.send(to_agent::Body::WatchFlows(stream::WatchFlows { on: true })).await?;
        }
        let mut dirty = Dirty::default();
        let mut next_batch = Instant::now();
        loop {
            let wake = tokio::select! {
                changes = self.changes.recv() => match changes {
                    Ok(changes) => Wake::Changes(changes),
                    Err(broadcast::error::RecvError::Lagged(_)) => Wake::Behind,
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(Status::unavailable("the server is stopping"));
                    }
                },
                Ok(()) = self.scopes.changed() => Wake::Scope,
                Some(question) = self.questions.recv() => Wake::Question(question),
                Ok(()) = watched.changed() => Wake::Flows(*watched.borrow_and_update()),
                () = tokio::time::sleep_until(next_batch), if dirty.is_some() => Wake::Batch,
            };
            match wake {
                Wake::Changes(changes) => self.note(&changes, &mut dirty),
                Wake::Behind => dirty.all = true,
                Wake::Scope => dirty.scope = true,
                Wake::Question(question) => self.ask(question).await?,
                Wake::Flows(on) => self.send(to_agent::Body::WatchFlows(stream::WatchFlows { on })).await?,
                Wake::Batch => {
                    self.batch(std::mem::take(&mut dirty)).await?;
                    next_batch = Instant::now() + BATCH;
                }
            }
        }
    }

    /// Notes which of the changes concern this agent.
    fn note(&self, changes: &Changes, dirty: &mut Dirty) {
        dirty.seen = dirty.seen.max(changes.revision);
        if changes.all {
            dirty.all = true;
            return;
        }
        dirty.plan |= changes.plans;
        dirty.keys.extend(changes.shared.iter().cloned());
        let addresses = changes
            .addresses
            .iter()
            .map(|(address, identity)| (ViewKey::PeerAddress(*address), self.named.contains_key(identity)));
        dirty.keys.extend(
            addresses.filter(|(key, named)| *named || self.sent.contains_key(key)).map(|(key, _)| key),
        );
        // Whichever of the two sets is smaller is walked.
        if changes.tables.len() < self.scope.len() {
            let own = changes.tables.iter().filter(|identity| self.scope.contains(identity));
            dirty.tables.extend(own);
        } else {
            let own = self.scope.iter().filter(|identity| changes.tables.contains(identity));
            dirty.tables.extend(own);
        }
        let named = changes.workloads.iter().filter(|identity| self.wants_name(**identity));
        dirty.keys.extend(named.map(|identity| ViewKey::Workload(*identity)));
        if dirty.is_nothing() {
            // Nothing for this agent: it is as far as the change.
            let seen = dirty.seen;
            self.shared.live.state(|state| state.seen = state.seen.max(seen));
        }
    }

    fn wants_name(&self, identity: Identity) -> bool {
        self.scope.contains(&identity) || self.named.contains_key(&identity)
    }

    async fn batch(&mut self, dirty: Dirty) -> Result<(), Status> {
        if dirty.all {
            self.compare_all().await?;
        } else {
            let mut keys = dirty.keys;
            let mut tables = dirty.tables;
            if dirty.scope {
                let wanted = self.scopes.borrow_and_update().clone();
                tables.extend(wanted.symmetric_difference(&self.scope));
                self.scope = wanted;
            }
            for identity in tables {
                self.retable(identity, &mut keys);
            }
            if dirty.plan {
                self.replan(&mut keys);
            }
            self.send_keys(keys.into_iter().collect()).await?;
        }
        self.synced().await
    }

    /// Keys that the agent said it holds. What this server does not know goes at once.
    async fn take_held(&mut self, hello: &stream::Hello) -> Result<(), Status> {
        for held in &hello.held {
            match held.key.parse::<ViewKey>() {
                Ok(key) => {
                    self.sent.insert(key, held.revision);
                }
                Err(_unknown) => {
                    self.send(to_agent::Body::Delete(stream::Delete { key: held.key.clone() })).await?;
                }
            }
        }
        Ok(())
    }

    /// Compares everything that the agent holds with everything that it should.
    async fn compare_all(&mut self) -> Result<(), Status> {
        let wanted = self.scopes.borrow_and_update().clone();
        self.scope = wanted.clone();
        self.peers.clear();
        self.named.clear();
        let mut keys: BTreeSet<ViewKey> = self.sent.keys().cloned().collect();
        keys.extend(self.shared.agents.registry.view().shared_keys());
        for identity in wanted {
            self.retable(identity, &mut keys);
        }
        self.replan(&mut keys);
        self.send_keys(keys.into_iter().collect()).await
    }

    /// Works out anew what is the node's own.
    fn replan(&mut self, keys: &mut BTreeSet<ViewKey>) {
        keys.extend(self.plan.keys().cloned());
        self.plan = plan::of_node(&self.shared.agents.registry.view(), self.shared.node.as_str());
        keys.extend(self.plan.keys().cloned());
    }

    /// An identity came, went or has another table: notes its keys, and those of the peers that its table names.
    fn retable(&mut self, identity: Identity, keys: &mut BTreeSet<ViewKey>) {
        keys.insert(ViewKey::Table(identity));
        keys.insert(ViewKey::Workload(identity));
        let peers = if self.scope.contains(&identity) {
            self.shared
                .agents
                .registry
                .view()
                .tables
                .compiled(identity)
                .map(|compiled| Arc::clone(&compiled.peers))
        } else {
            None
        };
        let before = match &peers {
            Some(peers) => self.peers.insert(identity, Arc::clone(peers)),
            None => self.peers.remove(&identity),
        };
        for peer in peers.iter().flat_map(|peers| peers.iter()) {
            let count = self.named.entry(*peer).or_default();
            *count += 1;
            if *count == 1 {
                self.note_members(*peer, keys);
            }
            if !self.sent.contains_key(&ViewKey::Workload(*peer)) {
                keys.insert(ViewKey::Workload(*peer));
            }
        }
        for peer in before.iter().flat_map(|peers| peers.iter()) {
            let Some(count) = self.named.get_mut(peer) else { continue };
            *count -= 1;
            if *count == 0 {
                self.named.remove(peer);
                keys.insert(ViewKey::Workload(*peer));
                self.note_members(*peer, keys);
            }
        }
    }

    /// An identity is named now, or no longer: so are its members.
    fn note_members(&self, identity: Identity, keys: &mut BTreeSet<ViewKey>) {
        let view = self.shared.agents.registry.view();
        if view.is_native() {
            keys.extend(view.addresses_of(identity).map(ViewKey::PeerAddress));
        }
    }

    /// Sends what differs for these keys.
    async fn send_keys(&mut self, keys: Vec<ViewKey>) -> Result<(), Status> {
        for chunk in keys.chunks(CHUNK) {
            let messages = {
                let shared = Arc::clone(&self.shared);
                let view = shared.agents.registry.view();
                chunk.iter().filter_map(|key| self.difference(&view, key)).collect::<Vec<_>>()
            };
            for message in messages {
                self.send(message).await?;
            }
        }
        Ok(())
    }

    /// The message that makes the agent hold what it should for a key, if it does not.
    fn difference(&mut self, view: &View, key: &ViewKey) -> Option<to_agent::Body> {
        let wanted = match key {
            ViewKey::Table(identity) => self.scope.contains(identity),
            ViewKey::Workload(identity) => self.wants_name(*identity),
            ViewKey::PeerAddress(address) => {
                view.is_native()
                    && view.holder_of(*address).is_some_and(|(identity, node)| {
                        node != self.shared.node.as_str() && self.named.contains_key(&identity)
                    })
            }
            _ => true,
        };
        let planned = self.plan.get(key);
        let version = match planned {
            Some((version, _)) => Some(*version),
            None if wanted => wire::version(view, key),
            None => None,
        };
        if version == self.sent.get(key).copied() {
            return None;
        }
        if let Some(version) = version {
            let upsert = match planned {
                Some((revision, value)) => {
                    stream::Upsert { key: key.to_string(), revision: *revision, value: Some(value.clone()) }
                }
                None => wire::upsert(view, key)?,
            };
            self.sent.insert(key.clone(), version);
            Some(to_agent::Body::Upsert(upsert))
        } else {
            self.sent.remove(key);
            Some(to_agent::Body::Delete(stream::Delete { key: key.to_string() }))
        }
    }

    async fn synced(&self) -> Result<(), Status> {
        let revision = self.shared.agents.registry.view().network_revision;
        // Before it is sent: from now on the agent is behind until it says otherwise.
        self.shared.live.state(|state| {
            state.sent = revision;
            state.seen = state.seen.max(revision);
        });
        self.send(to_agent::Body::Synced(stream::Synced { revision })).await
    }

    async fn ask(&self, question: Question) -> Result<(), Status> {
        {
            let mut answers = lock(&self.shared.answers);
            answers.retain(|_, waiting| !waiting.is_closed());
            answers.insert(question.id, question.answer);
        }
        self.send(to_agent::Body::Ask(stream::Ask { id: question.id, body: Some(question.body) })).await
    }

    async fn send(&self, body: to_agent::Body) -> Result<(), Status> {
        send(&self.shared, body).await
    }
}

/// Sends a message; an agent that does not read is told and cut.
pub(super) async fn send(shared: &Shared, body: to_agent::Body) -> Result<(), Status> {
    let message = ToAgent { body: Some(body) };
    match shared.out.send_timeout(message, SLOW).await {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
            tracing::warn!(node = %shared.node, "agent does not read its messages and is cut");
            Err(Status::resource_exhausted(
                "the agent left its messages unread for 20 seconds; connect again",
            ))
        }
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Status::cancelled("the agent hung up")),
    }
}

/// What a batch must look at.
#[derive(Default)]
struct Dirty {
    all: bool,
    scope: bool,
    keys: BTreeSet<ViewKey>,
    tables: BTreeSet<Identity>,
    plan: bool,
    seen: u64,
}

impl Dirty {
    fn is_nothing(&self) -> bool {
        !self.all && !self.scope && !self.plan && self.keys.is_empty() && self.tables.is_empty()
    }

    fn is_some(&self) -> bool {
        !self.is_nothing()
    }
}

#[cfg(test)]
mod tests;
