//! The stream to the server: opens it, keeps the view, answers questions, and opens it again when it breaks.
//!
//! ```text
//! Hello(held) ─► Welcome ─► upserts, deletes ─► synced: applied, in force ─► changes, each applied at once
//!             └► EndpointSync, once the server welcomed us
//! ```
//!
//! Until the first `synced` of a stream the changes are kept aside, so that nobody acts on half a view. After it each
//! change goes into the view and to the applying thread as it comes.

use crate::{
    agent::Agent,
    apply::Pending,
    attachment::{Attachment, is_announced},
    link::QUEUE_MAX,
    view::{Change, View},
};
use isthmus_api::stream::{
    self, Answer, Ask, EndpointSync, FromAgent, Hello, MESSAGE_BYTES_MAX, PROTOCOL, ToAgent, Upsert, Welcome,
    agents_client::AgentsClient, ask, from_agent, to_agent,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

/// First pause before the stream is opened again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is asked whether it is alive, and how long an answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A stream that lived as long as this is opened again without a pause.
const STEADY: Duration = Duration::from_secs(30);
/// Most changes that are kept aside before the first `synced`.
const ASIDE_MAX: usize = 1 << 21;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no connection: {0}")]
    Connect(String),
    #[error("the server ended the stream: {0}")]
    Status(String),
    #[error("the server ended the stream")]
    Ended,
    #[error(
        "the server speaks version {0} of the agents' protocol, this agent {PROTOCOL}: upgrade the older (ISE-0402)"
    )]
    Protocol(u32),
    #[error("the server sent more than {ASIDE_MAX} changes before it was in sync")]
    TooMuch,
    #[error("the queue to the server was full")]
    Slow,
}

/// Keeps a stream open, for ever.
pub(crate) async fn keep_open(agent: Arc<Agent>) {
    let mut pause = PAUSE_MIN;
    loop {
        let started = Instant::now();
        let error = run(&agent).await;
        agent.link.close();
        agent.flows.watch(false);
        agent.view_changed.notify_all();
        agent.problems.set("server", Some(format!("server {}: {error}", agent.config.server)));
        if started.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        tokio::time::sleep(jittered(pause, &agent)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Half to whole of a pause, so that the agents of a network do not come back all at once.
fn jittered(pause: Duration, agent: &Agent) -> Duration {
    let clock = u64::from(crate::agent::unix_now().subsec_nanos());
    let random = (clock ^ agent.instance.as_u64_pair().0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    pause / 2 + (pause / 2).mul_f64(random as f64 / f64::from(u32::MAX))
}

async fn run(agent: &Arc<Agent>) -> StreamError {
    match converse(agent).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn converse(agent: &Arc<Agent>) -> Result<std::convert::Infallible, StreamError> {
    let connect = |error: tonic::transport::Error| StreamError::Connect(crate::chain(&error));
    let endpoint = Endpoint::from_shared(format!("http://{}", agent.config.server)).map_err(connect)?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    let channel = endpoint.keep_alive_while_idle(true).connect().await.map_err(connect)?;
    let mut client = AgentsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let hello = FromAgent { body: Some(from_agent::Body::Hello(hello(agent))) };
    sender.try_send(hello).map_err(|_source| StreamError::Slow)?;
    let status = |status: tonic::Status| StreamError::Status(status.message().to_owned());
    let incoming = client.join(ReceiverStream::new(receiver)).await.map_err(status)?.into_inner();
    let mut conversation = Conversation { agent, sender: Some(sender), aside: Some(Vec::new()) };
    conversation.listen(incoming).await
}

fn hello(agent: &Agent) -> Hello {
    let view = agent.view();
    Hello {
        protocol: PROTOCOL,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        node: agent.config.node.to_string(),
        instance: agent.instance.to_string(),
        addresses: vec![agent.tunnel_address.to_string()],
        vxlan_port: u32::from(agent.config.vxlan_port),
        mtu: agent.kernel.mtu(),
        revision: view.revision,
        held: view.held(),
        identities: agent.tables.scope(),
        clusters: agent.config.clusters.iter().map(ToString::to_string).collect(),
    }
}

/// One stream, once it is open.
struct Conversation<'a> {
    agent: &'a Arc<Agent>,
    /// Until the welcome; then the link has it.
    sender: Option<mpsc::Sender<FromAgent>>,
    /// Changes before the first `synced`; `None` after it.
    aside: Option<Vec<to_agent::Body>>,
}

impl Conversation<'_> {
    async fn listen(
        &mut self,
        mut incoming: Streaming<ToAgent>,
    ) -> Result<std::convert::Infallible, StreamError> {
        loop {
            let message = incoming.message().await;
            let message = message.map_err(|status| StreamError::Status(status.message().to_owned()))?;
            let Some(body) = message.ok_or(StreamError::Ended)?.body else { continue };
            self.hear(body)?;
        }
    }

    fn hear(&mut self, body: to_agent::Body) -> Result<(), StreamError> {
        match body {
            to_agent::Body::Welcome(welcome) => self.welcomed(&welcome)?,
            to_agent::Body::Upsert(_) | to_agent::Body::Delete(_) => match &mut self.aside {
                Some(aside) if aside.len() >= ASIDE_MAX => return Err(StreamError::TooMuch),
                Some(aside) => aside.push(body),
                None => self.take([body]),
            },
            to_agent::Body::Synced(synced) => self.synced(synced.revision),
            to_agent::Body::Reply(reply) => self.agent.link.reply(reply),
            to_agent::Body::Ask(ask) => answer(self.agent, ask),
            to_agent::Body::WatchFlows(watch) => self.agent.flows.watch(watch.on),
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: &Welcome) -> Result<(), StreamError> {
        if welcome.protocol != PROTOCOL {
            return Err(StreamError::Protocol(welcome.protocol));
        }
        let Some(sender) = self.sender.take() else { return Ok(()) };
        let agent = self.agent;
        agent.view().node_number = welcome.node_number;
        let attachments = agent.attachments();
        let announced = attachments.values().filter(|attachment| is_announced(attachment));
        let endpoints = announced.map(Attachment::endpoint).collect();
        let sync = FromAgent { body: Some(from_agent::Body::EndpointSync(EndpointSync { endpoints })) };
        sender.try_send(sync).map_err(|_source| StreamError::Slow)?;
        // While the attachments are locked: what changes from here on is told after the whole list.
        agent.link.open(sender);
        drop(attachments);
        // The scope may have changed since the hello.
        agent.tell_scope();
        agent.problems.set("server", None);
        tracing::info!(server = %agent.config.server, version = %welcome.server_version, "stream to the server is up");
        Ok(())
    }

    fn take(&self, bodies: impl IntoIterator<Item = to_agent::Body>) {
        let mut view = self.agent.view();
        for body in bodies {
            self.agent.take_change(&mut view, body);
        }
        drop(view);
        self.agent.view_changed.notify_all();
    }

    fn synced(&mut self, revision: u64) {
        let aside = self.aside.take();
        let first = aside.is_some();
        self.take(aside.unwrap_or_default());
        let agent = self.agent;
        {
            let mut view = agent.view();
            view.revision = revision;
            if first {
                // Whatever the kernel was left with, it gets what the server says now.
                agent.pending.network();
                agent.pending.tables(agent.tables.loaded());
            }
            agent.pending.synced(revision);
        }
        if first {
            let agent = Arc::clone(agent);
            agent.runtime.clone().spawn_blocking(move || {
                agent.compare_blocks();
                agent.confirm_workloads();
            });
        }
    }
}

impl Agent {
    /// One change goes into the view and to the applying thread.
    fn take_change(&self, view: &mut View, body: to_agent::Body) {
        let change = match body {
            to_agent::Body::Upsert(upsert) => self.take_upsert(view, upsert),
            to_agent::Body::Delete(delete) => view.delete(&delete.key),
            _ => None,
        };
        if let Some(change) = change {
            Pending::change(&self.pending, change);
            if matches!(change, Change::Bgp | Change::Network) {
                self.bgp.changed.notify_one();
            }
        }
    }

    fn take_upsert(&self, view: &mut View, upsert: Upsert) -> Option<Change> {
        let place = format!("key {}", upsert.key);
        let taken = view.upsert(upsert);
        if let Err(error) = &taken {
            self.problems.set(&place, Some(error.to_string()));
        }
        taken.ok()
    }
}

/// Answers a question of the server, beside the stream.
fn answer(agent: &Arc<Agent>, ask: Ask) {
    let agent = Arc::clone(agent);
    agent.runtime.clone().spawn_blocking(move || {
        let answer = match ask.body {
            Some(ask::Body::Why(why)) => agent.answer_why(why),
            Some(ask::Body::Status(_)) => {
                serde_json::to_string(&agent.agent_status()).map_err(|error| error.to_string())
            }
            None => Err("this agent does not know the question: upgrade it".to_owned()),
        };
        let (json, problem) =
            answer.map_or_else(|problem| (String::new(), problem), |json| (json, String::new()));
        agent.link.tell(from_agent::Body::Answer(Answer { id: ask.id, json, problem }));
    });
}

impl Agent {
    fn answer_why(&self, why: stream::AskWhy) -> Result<String, String> {
        let identity = |number| isthmus_core::Identity::new(number).map_err(|error| error.to_string());
        let protocol =
            u8::try_from(why.protocol).map_err(|_source| format!("protocol {} is unknown", why.protocol))?;
        let port = u16::try_from(why.port).map_err(|_source| format!("port {} is too large", why.port))?;
        let answer = self.local_why(identity(why.from)?, identity(why.to)?, protocol, port);
        serde_json::to_string(&answer).map_err(|error| error.to_string())
    }
}
