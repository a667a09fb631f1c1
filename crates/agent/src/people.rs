//! What people's tools ask the agent: HTTP on a Unix socket, as `isthmus_api::local` says.

use crate::{
    agent::Agent,
    attachment::{Attachment, id},
    desired,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use isthmus_api::{
    local::{AgentStatus, LocalBlock, LocalEndpoint, LocalRule, LocalTable, LocalWhy},
    rest::Problem,
};
use isthmus_core::{DefaultVerdict, DenyAnswer, Identity};
use isthmus_dataplane::model::AttachMode;
use serde::Deserialize;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, sync::atomic::Ordering};
use tokio::sync::broadcast::error::RecvError;

/// The routes.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/endpoints", get(endpoints))
        .route("/ipam", get(ipam))
        .route("/tables/{identity}", get(table))
        .route("/why", get(why))
        .route("/flows", get(flows))
        .route("/counters", get(counters))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(only_get)
        .with_state(agent)
}

/// The routes of the TCP listener.
pub(crate) fn metrics_router(agent: Arc<Agent>) -> Router {
    Router::new().route("/metrics", get(metrics)).fallback(unknown).with_state(agent)
}

type Answer<T> = Result<Json<T>, Refusal>;

/// An RFC 9457 problem.
struct Refusal(Box<Problem>);

impl Refusal {
    fn new(status: StatusCode, code: &str, title: &str, detail: String, help: &str) -> Self {
        Self(Box::new(Problem {
            kind: format!("/docs/errors/{code}"),
            code: code.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            help: Some(help.to_owned()),
        }))
    }

    fn internal(detail: String) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "ISE-0006", "the agent could not answer", detail, "see the agent's log")
    }

    fn bad(detail: String) -> Self {
        let help = "see: isthmus help ISE-0001";
        Self::new(StatusCode::BAD_REQUEST, "ISE-0001", "the request cannot be understood", detail, help)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = serde_json::to_vec(&*self.0).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], json).into_response()
    }
}

/// Runs what may block in the kernel beside the runtime's threads.
async fn blocking<T: Send + 'static>(
    agent: Arc<Agent>,
    ask: impl FnOnce(&Agent) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let answer = tokio::task::spawn_blocking(move || ask(&agent)).await;
    answer.map_err(|error| Refusal::internal(error.to_string()))
}

async fn status(State(agent): State<Arc<Agent>>) -> Answer<AgentStatus> {
    blocking(agent, Agent::agent_status).await.map(Json)
}

async fn endpoints(State(agent): State<Arc<Agent>>) -> Answer<Vec<LocalEndpoint>> {
    blocking(agent, Agent::local_endpoints).await.map(Json)
}

async fn ipam(State(agent): State<Arc<Agent>>) -> Answer<Vec<LocalBlock>> {
    blocking(agent, Agent::local_blocks).await.map(Json)
}

async fn table(State(agent): State<Arc<Agent>>, Path(identity): Path<String>) -> Answer<LocalTable> {
    let identity = parse_identity(&identity)?;
    let table = blocking(agent, move |agent| agent.local_table(identity)).await?;
    let missing = || {
        let detail = format!("no rules towards {identity} are known on this node");
        Refusal::new(StatusCode::NOT_FOUND, "ISE-0002", "not found", detail, "see: isthmus endpoint list")
    };
    table.map_err(Refusal::internal)?.map(Json).ok_or_else(missing)
}

#[derive(Deserialize)]
struct WhyQuery {
    from: String,
    to: String,
    #[serde(default)]
    protocol: u8,
    #[serde(default)]
    port: u16,
}

async fn why(
    State(agent): State<Arc<Agent>>,
    query: Result<Query<WhyQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<LocalWhy> {
    let Query(query) = query.map_err(|error| Refusal::bad(error.body_text()))?;
    let (from, to) = (parse_identity(&query.from)?, parse_identity(&query.to)?);
    blocking(agent, move |agent| agent.local_why(from, to, query.protocol, query.port)).await.map(Json)
}

fn parse_identity(text: &str) -> Result<Identity, Refusal> {
    text.parse().map_err(|error: isthmus_core::IdentityError| Refusal::bad(error.to_string()))
}

async fn counters(State(agent): State<Arc<Agent>>) -> Answer<BTreeMap<&'static str, u64>> {
    let counters = blocking(agent, |agent| agent.kernel.counters()).await?;
    counters
        .map(|counters| Json(counters.into_iter().collect()))
        .map_err(|error| Refusal::internal(error.to_string()))
}

async fn metrics(State(agent): State<Arc<Agent>>) -> Result<Response, Refusal> {
    let text = blocking(agent, |agent| agent.metrics.render(agent)).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// A line of JSON for each flow, until the reader leaves.
async fn flows(State(agent): State<Arc<Agent>>) -> Response {
    let receiver = agent.flows.subscribe();
    let lines = stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(flow) => {
                    let mut line = serde_json::to_vec(&*flow).unwrap_or_default();
                    line.push(b'\n');
                    return Some((Ok::<_, Infallible>(Bytes::from(line)), receiver));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn unknown(uri: axum::http::Uri) -> Refusal {
    let detail = format!("the agent has nothing at {}", uri.path());
    let help = "there are /status /endpoints /ipam /tables/IDENTITY /why /flows /counters /metrics";
    Refusal::new(StatusCode::NOT_FOUND, "ISE-0002", "not found", detail, help)
}

async fn only_get() -> Refusal {
    let detail = "this path is only read".to_owned();
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "ISE-0001",
        "the request cannot be understood",
        detail,
        "use GET",
    )
}

impl Agent {
    /// How the node is.
    pub(crate) fn agent_status(&self) -> AgentStatus {
        // Locks that are taken within the literal would be held to its end.
        let foreign = self.kernel.foreign_programs();
        let revision = self.view().revision;
        let endpoints = self.attachments().len() as u64;
        AgentStatus {
            node: self.config.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connected: self.link.is_up(),
            revision,
            attach_mode: if self.kernel.attach_mode() == AttachMode::Clsact { "clsact" } else { "tcx" }
                .to_owned(),
            endpoints,
            connections: self.connections.load(Ordering::Relaxed),
            rules: self.kernel.rules(),
            uptime_s: self.started.elapsed().as_secs(),
            problems: self.problem_texts(),
            foreign_programs: foreign
                .into_iter()
                .map(|(interface, name)| format!("{interface}: {name}"))
                .collect(),
        }
    }

    fn local_endpoints(&self) -> Vec<LocalEndpoint> {
        let attachments: Vec<Attachment> = self.attachments().values().cloned().collect();
        attachments.iter().map(|attachment| self.local_endpoint(attachment)).collect()
    }

    fn local_endpoint(&self, attachment: &Attachment) -> LocalEndpoint {
        let workload = self.name_of(attachment.identity);
        LocalEndpoint {
            id: id(&attachment.request.key),
            workload: workload.unwrap_or_else(|| {
                let workload = &attachment.request.workload;
                let slash = if workload.group.is_empty() { "" } else { "/" };
                format!("{}{slash}{}@{}", workload.group, workload.app, attachment.cluster)
            }),
            identity: attachment.identity.to_string(),
            addresses: vec![attachment.address],
            host_interface: attachment.host_interface.clone(),
            instance: attachment.request.instance.clone(),
        }
    }

    fn local_blocks(&self) -> Vec<LocalBlock> {
        self.addresses.read(|ipam| {
            let block = |block: isthmus_ipam::BlockView<'_>| LocalBlock {
                cidr: block.range().to_string(),
                cluster: block.cluster().to_string(),
                allocations: block
                    .allocations()
                    .map(|(address, owner)| (address, owner.to_string()))
                    .collect(),
                free: u64::try_from(block.free()).unwrap_or(u64::MAX),
            };
            ipam.blocks().map(block).collect()
        })
    }

    fn local_table(&self, identity: Identity) -> Result<Option<LocalTable>, String> {
        let loaded = self.tables.loaded().contains(&identity);
        let sent = self.view().table(identity);
        let Some(sent) = sent else { return Ok(None) };
        let table = desired::table(&sent)?;
        let name = |identity: Identity| self.name_of(identity).unwrap_or_default();
        let rules = table.rules.iter().map(|rule| LocalRule {
            number: rule.number,
            peer: rule.peer.to_string(),
            peer_name: name(rule.peer),
            port: rule.port.to_string(),
            deny: rule.deny,
            precedence: rule.precedence,
        });
        Ok(Some(LocalTable {
            identity: identity.to_string(),
            name: name(identity),
            loaded,
            default: if table.default == DefaultVerdict::Open { "open" } else { "closed" }.to_owned(),
            deny: if table.answer == DenyAnswer::Drop { "drop" } else { "reject" }.to_owned(),
            rules: rules.collect(),
        }))
    }

    /// How the loaded tables judge a new connection.
    pub(crate) fn local_why(&self, from: Identity, to: Identity, protocol: u8, port: u16) -> LocalWhy {
        let judgement = self.kernel.judge(from, to, protocol, port);
        let denied_packets = self.kernel.denied_packets(from, to);
        judgement.map_or(
            LocalWhy {
                known: false,
                allowed: false,
                reason: "no-table".to_owned(),
                rule: 0,
                rules: 0,
                denied_packets,
            },
            |judgement| LocalWhy {
                known: true,
                allowed: judgement.allowed,
                reason: judgement.reason.to_owned(),
                rule: judgement.rule,
                rules: judgement.rules,
                denied_packets,
            },
        )
    }
}
