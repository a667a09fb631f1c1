//! A server for one node, with behaviour: identities, blocks, a view with revisions, a scope.

use crate::locks::lock;
use isthmus_api::stream::{
    self, Block, Cluster, Delete, Endpoint, FromAgent, Held, Problem, Reply, Rule, Synced, ToAgent, Upsert,
    VerdictTable, Welcome, Workload,
    agents_server::{Agents, AgentsServer},
    from_agent, reply, request, to_agent, upsert,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

type Sender = mpsc::Sender<Result<ToAgent, Status>>;

pub(super) struct FakeServer {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    entries: BTreeMap<String, (u64, upsert::Value)>,
    identities: BTreeMap<(String, BTreeMap<String, String>), u32>,
    leases: u32,
    leases_max: u32,
    scope: BTreeSet<u32>,
    endpoints: BTreeMap<String, Endpoint>,
    in_force: Vec<(u64, String)>,
    sent_on_join: Vec<Vec<String>>,
    answers: Vec<stream::Answer>,
    flows: Vec<String>,
    sender: Option<Sender>,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
}

impl FakeServer {
    pub(super) async fn start() -> Self {
        let mut state = State { leases_max: 8, ..State::default() };
        let cluster = Cluster {
            name: "red".to_owned(),
            platform: "kubernetes".to_owned(),
            closed: true,
            reject: false,
        };
        state.put("cluster/red", upsert::Value::Cluster(cluster));
        let addresses = vec!["192.0.2.1".to_owned()];
        state.put(
            "node/n1",
            upsert::Value::Node(stream::Node { name: "n1".to_owned(), number: 1, addresses }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { state: Arc::new(Mutex::new(state)), address, task: Mutex::new(None) };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let service = AgentsServer::new(Service { state: Arc::clone(&self.state) });
        let incoming = TcpListenerStream::new(listener);
        let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        *lock(&self.task) = Some(tokio::spawn(async { drop(serving.await) }));
    }

    /// Goes away, and cuts the stream.
    pub(super) async fn leave(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            task.abort();
            drop(task.await);
        }
        lock(&self.state).sender = None;
    }

    /// Comes back with all that it knew.
    pub(super) fn come_back(&self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(16).unwrap());
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn limit_leases(&self, count: u32) {
        lock(&self.state).leases_max = count;
    }

    pub(super) fn leases(&self) -> u32 {
        lock(&self.state).leases
    }

    pub(super) fn joins(&self) -> usize {
        lock(&self.state).sent_on_join.len()
    }

    /// Keys that the last agent was sent when it joined.
    pub(super) fn sent_on_last_join(&self) -> Vec<String> {
        lock(&self.state).sent_on_join.last().cloned().unwrap_or_default()
    }

    /// Last revision that the agent has in force.
    pub(super) fn in_force(&self) -> u64 {
        lock(&self.state).in_force.last().map_or(0, |(revision, _)| *revision)
    }

    pub(super) fn revision(&self) -> u64 {
        lock(&self.state).revision
    }

    pub(super) fn last_problem(&self) -> String {
        lock(&self.state).in_force.last().map(|(_, problem)| problem.clone()).unwrap_or_default()
    }

    pub(super) fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        lock(&self.state).endpoints.clone()
    }

    pub(super) fn scope(&self) -> BTreeSet<u32> {
        lock(&self.state).scope.clone()
    }

    pub(super) fn answers(&self) -> Vec<stream::Answer> {
        lock(&self.state).answers.clone()
    }

    pub(super) fn flows(&self) -> Vec<String> {
        lock(&self.state).flows.clone()
    }

    pub(super) fn blocks(&self) -> Vec<String> {
        let state = lock(&self.state);
        state.entries.keys().filter_map(|key| key.strip_prefix("block/").map(str::to_owned)).collect()
    }

    /// The number that an app has, or gets when it is asked for.
    pub(super) fn set_identity(&self, app: &str, identity: u32) {
        lock(&self.state).identities.insert((format!("shop/{app}"), BTreeMap::new()), identity);
    }

    /// Who may reach an app, from now on.
    pub(super) fn set_rules(&self, identity: u32, rules: Vec<Rule>) -> u64 {
        let mut state = lock(&self.state);
        let table = VerdictTable { identity, closed: true, reject: false, rules };
        state.put(&format!("table/{identity:06x}"), upsert::Value::Table(table));
        state.push(&format!("table/{identity:06x}"));
        state.revision
    }

    pub(super) fn send(&self, body: to_agent::Body) {
        lock(&self.state).send(body);
    }
}

impl State {
    fn put(&mut self, key: &str, value: upsert::Value) {
        self.revision += 1;
        self.entries.insert(key.to_owned(), (self.revision, value));
    }

    fn send(&self, body: to_agent::Body) {
        if let Some(sender) = &self.sender {
            drop(sender.try_send(Ok(ToAgent { body: Some(body) })));
        }
    }

    fn push(&self, key: &str) {
        if let Some((revision, value)) = self.entries.get(key) {
            let upsert = Upsert { key: key.to_owned(), revision: *revision, value: Some(value.clone()) };
            self.send(to_agent::Body::Upsert(upsert));
        }
        self.send(to_agent::Body::Synced(Synced { revision: self.revision }));
    }

    fn in_scope(&self, key: &str) -> bool {
        let identity = key.strip_prefix("table/").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        identity.is_none_or(|identity| self.scope.contains(&identity))
    }

    fn join(&mut self, hello: &stream::Hello, sender: Sender) {
        self.sender = Some(sender);
        self.scope = hello.identities.iter().copied().collect();
        let welcome = Welcome {
            protocol: 1,
            server_version: "test".to_owned(),
            node_number: 1,
            revision: self.revision,
        };
        self.send(to_agent::Body::Welcome(welcome));
        let mut sent = Vec::new();
        for (key, (revision, value)) in &self.entries {
            let held = hello.held.contains(&Held { key: key.clone(), revision: *revision });
            if !held && self.in_scope(key) {
                sent.push(key.clone());
                let upsert = Upsert { key: key.clone(), revision: *revision, value: Some(value.clone()) };
                self.send(to_agent::Body::Upsert(upsert));
            }
        }
        for held in hello
            .held
            .iter()
            .filter(|held| !self.entries.contains_key(&held.key) || !self.in_scope(&held.key))
        {
            sent.push(format!("-{}", held.key));
            self.send(to_agent::Body::Delete(Delete { key: held.key.clone() }));
        }
        self.sent_on_join.push(sent);
        self.send(to_agent::Body::Synced(Synced { revision: self.revision }));
    }

    fn hear(&mut self, body: from_agent::Body) {
        match body {
            from_agent::Body::Scope(scope) => self.scope(&scope.identities),
            from_agent::Body::EndpointSync(sync) => {
                self.endpoints = sync.endpoints.into_iter().map(|one| (one.id.clone(), one)).collect();
            }
            from_agent::Body::Endpoint(endpoint) => {
                drop(self.endpoints.insert(endpoint.id.clone(), endpoint));
            }
            from_agent::Body::EndpointGone(gone) => drop(self.endpoints.remove(&gone.id)),
            from_agent::Body::InForce(in_force) => self.in_force.push((in_force.revision, in_force.problem)),
            from_agent::Body::Request(request) => {
                let body = request.body.map(|body| self.answer(body));
                self.send(to_agent::Body::Reply(Reply { id: request.id, body }));
            }
            from_agent::Body::Answer(answer) => self.answers.push(answer),
            from_agent::Body::Flows(flows) => self.flows.extend(flows.json),
            from_agent::Body::Hello(_) => {}
        }
    }

    fn scope(&mut self, identities: &[u32]) {
        let before = std::mem::replace(&mut self.scope, identities.iter().copied().collect());
        for identity in self.scope.clone().difference(&before) {
            let key = format!("table/{identity:06x}");
            if !self.entries.contains_key(&key) {
                let table =
                    VerdictTable { identity: *identity, closed: true, reject: false, rules: Vec::new() };
                self.put(&key, upsert::Value::Table(table));
            }
            self.push(&key);
        }
        for identity in before.difference(&self.scope.clone()) {
            self.send(to_agent::Body::Delete(Delete { key: format!("table/{identity:06x}") }));
        }
    }

    fn answer(&mut self, body: request::Body) -> reply::Body {
        match body {
            request::Body::ResolveWorkload(asked) => {
                let next = 256 + self.identities.len() as u32;
                let key = (asked.id.clone(), asked.labels.into_iter().collect());
                let identity = *self.identities.entry(key).or_insert(next);
                reply::Body::Workload(workload(identity, &asked.group, &asked.app))
            }
            request::Body::LeaseBlock(_) if self.leases >= self.leases_max => reply::Body::Problem(Problem {
                code: "ISE-0202".to_owned(),
                message: "pool main has no free block".to_owned(),
                retryable: true,
            }),
            request::Body::LeaseBlock(asked) => {
                let cidr = format!("10.64.0.{}/29", self.leases * 8);
                self.leases += 1;
                let block = Block {
                    cidr: cidr.clone(),
                    cluster: asked.cluster,
                    pool: "main".to_owned(),
                    node: "n1".to_owned(),
                };
                self.put(&format!("block/{cidr}"), upsert::Value::Block(block.clone()));
                self.push(&format!("block/{cidr}"));
                reply::Body::Block(block)
            }
            request::Body::ReturnBlock(asked) => {
                let key = format!("block/{}", asked.block);
                self.entries.remove(&key);
                self.send(to_agent::Body::Delete(Delete { key }));
                reply::Body::Empty(stream::Empty {})
            }
            request::Body::NameIdentity(asked) => {
                reply::Body::Workload(workload(asked.identity, "far", "away"))
            }
        }
    }
}

fn workload(identity: u32, group: &str, app: &str) -> Workload {
    Workload {
        identity,
        uuid: uuid::Uuid::from_u128(u128::from(identity)).to_string(),
        name: format!("k8s:{group}/{app}@red"),
        cluster: "red".to_owned(),
        id: format!("{group}/{app}"),
        ..Workload::default()
    }
}

#[tonic::async_trait]
impl Agents for Service {
    type JoinStream = ReceiverStream<Result<ToAgent, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(FromAgent { body: Some(from_agent::Body::Hello(hello)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (sender, receiver) = mpsc::channel(4_096);
        lock(&self.state).join(&hello, sender);
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            while let Ok(Some(FromAgent { body: Some(body) })) = incoming.message().await {
                lock(&state).hear(body);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
