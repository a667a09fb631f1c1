//! A server, and an agent that says what a test tells it to.

use http::{Method, StatusCode};
use isthmus_api::{
    client::{Client, ClientError, Place},
    rest::{ClusterSpec, Draft, PolicySpec, PoolSpec, Problem, Resource, RuleSpec},
    stream::{
        self, FromAgent, Hello, Reply, Request, ToAgent, agents_client::AgentsClient, from_agent, reply,
        request, to_agent, upsert::Value,
    },
};
use isthmus_server::{Config, Running, Server};
use isthmus_store::{MemoryStore, Store};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Rig {
    pub(crate) running: Running,
    pub(crate) client: Client,
    pub(crate) store: Arc<dyn Store>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new())).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>) -> Self {
        let text = "listen = \"127.0.0.1:0\"\nagents = \"127.0.0.1:0\"\ncf_policy = \"127.0.0.1:0\"\n";
        let config = Config::from_toml(text, "test").unwrap();
        let running = Server::start(&config, Arc::clone(&store)).await.unwrap();
        let client = Client::new(Place::Tcp(running.rest_addr));
        Self { running, client, store }
    }

    /// Clusters red (kubernetes, closed) and green (Cloud Foundry), each with a pool.
    pub(crate) async fn with_clusters() -> Self {
        let rig = Self::start().await;
        rig.cluster("red", "kubernetes", Some("closed")).await;
        rig.cluster("green", "cloudfoundry", None).await;
        rig.pool("red-1", "red", &["10.64.0.0/24"]).await;
        rig.pool("green-1", "green", &["10.80.0.0/24"]).await;
        rig
    }

    pub(crate) async fn cluster(&self, name: &str, platform: &str, default: Option<&str>) {
        let spec = ClusterSpec {
            platform: platform.to_owned(),
            default: default.map(str::to_owned),
            ..ClusterSpec::default()
        };
        let _: Resource<ClusterSpec> =
            self.client.post("/api/v1/clusters", &draft(name, spec)).await.unwrap();
    }

    pub(crate) async fn pool(&self, name: &str, cluster: &str, cidrs: &[&str]) {
        let _: Resource<PoolSpec> =
            self.client.post("/api/v1/pools", &draft(name, pool_spec(cluster, cidrs))).await.unwrap();
    }

    pub(crate) async fn allow(&self, name: &str, rules: &[(&str, &str, &str)]) -> Resource<PolicySpec> {
        self.client.post("/api/v1/policies", &draft(name, policy_spec(rules))).await.unwrap()
    }

    /// The problem that a call is refused with.
    pub(crate) async fn refusal<B: serde::Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Problem {
        match self.client.call::<B, serde_json::Value>(method, path, body).await {
            Err(ClientError::Problem(problem)) => problem,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// An HTTP call with everything in sight.
    pub(crate) async fn raw(
        &self,
        place: std::net::SocketAddr,
        head: &str,
        body: &[u8],
    ) -> (StatusCode, String, String) {
        raw(place, head, body).await
    }

    pub(crate) async fn agent(&self, node: &str, number: u8) -> Agent {
        Agent::join(self, hello(node, number)).await.unwrap()
    }
}

pub(crate) async fn raw(
    place: std::net::SocketAddr,
    head: &str,
    body: &[u8],
) -> (StatusCode, String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(place).await.unwrap();
    let length = body.len();
    let head = format!("{head}\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that has seen enough may close before everything is written.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    if answer.is_empty() {
        read.unwrap();
    }
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

pub(crate) fn draft<S>(name: &str, spec: S) -> Draft<S> {
    Draft { name: name.to_owned(), labels: BTreeMap::new(), spec }
}

pub(crate) fn pool_spec(cluster: &str, cidrs: &[&str]) -> PoolSpec {
    let cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
    PoolSpec { cluster: cluster.to_owned(), cidrs, ..PoolSpec::default() }
}

pub(crate) fn policy_spec(rules: &[(&str, &str, &str)]) -> PolicySpec {
    let rule = |(from, to, port): &(&str, &str, &str)| RuleSpec {
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        port: (*port).to_owned(),
    };
    PolicySpec { rules: rules.iter().map(rule).collect(), reason: None }
}

pub(crate) fn hello(node: &str, number: u8) -> Hello {
    Hello {
        protocol: stream::PROTOCOL,
        agent_version: "test".to_owned(),
        node: node.to_owned(),
        instance: format!("instance-of-{node}"),
        addresses: vec![format!("192.0.2.{number}")],
        vxlan_port: 4789,
        mtu: 1450,
        clusters: vec!["red".to_owned()],
        ..Hello::default()
    }
}

/// Plays an agent: keeps a view as a real one does.
pub(crate) struct Agent {
    out: mpsc::Sender<FromAgent>,
    inbound: Streaming<ToAgent>,
    /// What it holds.
    pub(crate) view: BTreeMap<String, (u64, Value)>,
    /// Keys in the order in which they were sent, since the last look; deletes with a minus.
    pub(crate) sent: Vec<String>,
    pub(crate) number: u32,
    pub(crate) revision: u64,
    next_request: u64,
    replies: BTreeMap<u64, Reply>,
    pub(crate) other: VecDeque<to_agent::Body>,
}

impl Agent {
    /// Says hello, and waits until it is in sync.
    pub(crate) async fn join(rig: &Rig, hello: Hello) -> Result<Self, Status> {
        let held = hello.held.clone();
        assert!(held.is_empty(), "use resume");
        Self::resume(rig, hello, BTreeMap::new()).await
    }

    /// Says hello with what it holds.
    pub(crate) async fn resume(
        rig: &Rig,
        mut hello: Hello,
        view: BTreeMap<String, (u64, Value)>,
    ) -> Result<Self, Status> {
        hello.held = view
            .iter()
            .map(|(key, (revision, _))| stream::Held { key: key.clone(), revision: *revision })
            .collect();
        let endpoint = format!("http://{}", rig.running.agents_addr);
        let mut client = AgentsClient::connect(endpoint).await.unwrap();
        let (out, messages) = mpsc::channel(64);
        out.send(FromAgent { body: Some(from_agent::Body::Hello(hello)) }).await.unwrap();
        let inbound = client.join(ReceiverStream::new(messages)).await?.into_inner();
        let mut agent = Self {
            out,
            inbound,
            view,
            sent: Vec::new(),
            number: 0,
            revision: 0,
            next_request: 1,
            replies: BTreeMap::new(),
            other: VecDeque::new(),
        };
        agent.try_synced().await?;
        Ok(agent)
    }

    pub(crate) async fn say(&self, body: from_agent::Body) {
        self.out.send(FromAgent { body: Some(body) }).await.unwrap();
    }

    /// Takes in one message.
    pub(crate) async fn step(&mut self) -> Result<bool, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("a message in time");
        let body = message?.ok_or_else(|| Status::cancelled("end"))?.body.unwrap();
        match body {
            to_agent::Body::Welcome(welcome) => self.number = welcome.node_number,
            to_agent::Body::Upsert(upsert) => {
                self.sent.push(upsert.key.clone());
                self.view.insert(upsert.key, (upsert.revision, upsert.value.unwrap()));
            }
            to_agent::Body::Delete(delete) => {
                self.sent.push(format!("-{}", delete.key));
                self.view.remove(&delete.key);
            }
            to_agent::Body::Synced(synced) => {
                self.revision = synced.revision;
                return Ok(true);
            }
            to_agent::Body::Reply(reply) => {
                self.replies.insert(reply.id, reply);
            }
            other => self.other.push_back(other),
        }
        Ok(false)
    }

    pub(crate) async fn try_synced(&mut self) -> Result<(), Status> {
        while !self.step().await? {}
        Ok(())
    }

    pub(crate) async fn synced(&mut self) {
        self.try_synced().await.unwrap();
    }

    /// Takes in messages until something holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                self.step().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "not in time: {what}");
    }

    /// How the server ends the call.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.step().await {
                return status;
            }
        }
    }

    pub(crate) async fn request(&mut self, body: request::Body) -> reply::Body {
        let id = self.next_request;
        self.next_request += 1;
        self.say(from_agent::Body::Request(Request { id, body: Some(body) })).await;
        loop {
            if let Some(reply) = self.replies.remove(&id) {
                return reply.body.unwrap();
            }
            self.step().await.unwrap();
        }
    }

    pub(crate) async fn lease(&mut self, cluster: &str) -> Result<String, stream::Problem> {
        match self
            .request(request::Body::LeaseBlock(stream::LeaseBlock { cluster: cluster.to_owned() }))
            .await
        {
            reply::Body::Block(block) => Ok(block.cidr),
            reply::Body::Problem(problem) => Err(problem),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn resolve(&mut self, cluster: &str, id: &str) -> stream::Workload {
        let (group, app) = id.rsplit_once('/').unwrap_or(("", id));
        let request = stream::ResolveWorkload {
            cluster: cluster.to_owned(),
            id: id.to_owned(),
            group: group.to_owned(),
            app: app.to_owned(),
            labels: std::collections::HashMap::new(),
        };
        match self.request(request::Body::ResolveWorkload(request)).await {
            reply::Body::Workload(workload) => workload,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn scope(&mut self, identities: &[u32]) {
        self.say(from_agent::Body::Scope(stream::Scope { identities: identities.to_vec() })).await;
    }

    pub(crate) fn table(&self, identity: u32) -> Option<&stream::VerdictTable> {
        match self.view.get(&format!("table/{identity:06x}")) {
            Some((_, Value::Table(table))) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn rules(&self, identity: u32) -> usize {
        self.table(identity).map_or(0, |table| table.rules.len())
    }

    pub(crate) async fn endpoint(&self, workload: &stream::Workload, id: &str, address: &str) {
        self.say(from_agent::Body::Endpoint(endpoint(workload, id, address))).await;
    }
}

pub(crate) fn endpoint(workload: &stream::Workload, id: &str, address: &str) -> stream::Endpoint {
    stream::Endpoint {
        id: id.to_owned(),
        cluster: workload.cluster.clone(),
        identity: workload.identity,
        workload: workload.uuid.clone(),
        addresses: vec![address.to_owned()],
        mac: "02:00:00:00:00:01".to_owned(),
        host_interface: "ist0".to_owned(),
        instance: "i".to_owned(),
        created_unix: 1,
        ..stream::Endpoint::default()
    }
}

/// Waits until something over REST holds.
pub(crate) async fn eventually<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    rig: &Rig,
    path: &str,
    holds: impl Fn(&T) -> bool,
) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found: T = rig.client.get(path).await.unwrap();
        if holds(&found) {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "not in time: {path}: {found:?}");
        tokio::task::yield_now().await;
    }
}

/// A UUID that no app has.
pub(crate) fn unseen(number: u128) -> String {
    Uuid::from_u128(0xb000_0000_0000_4000_8000_0000_0000_0000 + number).to_string()
}
