//! How the network is.

use super::{App, Refusal, Shared, extract::Params, writes::destinations};
use crate::{problem::Code, view::View};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::header;
use isthmus_api::{
    local::AgentStatus,
    rest::{ClusterStatus, NetworkStatus, Rollout, StatusProblem},
    stream::{AskStatus, ask},
};
use isthmus_core::NodeName;
use std::time::Duration;
use tokio::time::Instant;

/// Longest `?wait=` in seconds.
const WAIT_MAX: u64 = 30;
/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Free blocks of a pool below which it is told, as a part of all.
const FREE_BLOCKS_LOW: u64 = 20;

/// `GET /api/v1/status`
pub(super) async fn network(State(app): Shared, params: Params) -> Result<Json<NetworkStatus>, Refusal> {
    params.only(&[])?;
    let view = app.registry.fresh_view().await?;
    let problems = problems(&app, &view);
    let clusters = view.clusters.keys().map(|name| cluster(&app, &view, name)).collect();
    let status = NetworkStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: view.network_revision,
        clusters,
        problems,
    };
    drop(view);
    Ok(Json(status))
}

fn cluster(app: &App, view: &View, name: &str) -> ClusterStatus {
    let serving =
        view.nodes.iter().filter(|(_, held)| held.value.clusters.iter().any(|cluster| cluster == name));
    let lives: Vec<_> = serving.map(|(node, _)| app.agents.life(view, node)).collect();
    let connected = lives.iter().filter(|life| life.connected).count();
    let revisions = || lives.iter().map(|life| life.revision_in_force);
    let degraded = lives.iter().any(|life| !life.connected || life.problem.is_some());
    ClusterStatus {
        platform: view.platform(name).prefix().to_owned(),
        cluster: name.to_owned(),
        nodes_connected: connected as u64,
        nodes: lives.len() as u64,
        apps: view.workloads.values().filter(|held| held.value.cluster == name).count() as u64,
        endpoints: view.endpoints.values().filter(|held| held.value.cluster == name).count() as u64,
        revision_lowest: revisions().min().unwrap_or(view.network_revision),
        revision_highest: revisions().max().unwrap_or(view.network_revision),
        state: if degraded { "degraded" } else { "ok" }.to_owned(),
    }
}

fn problems(app: &App, view: &View) -> Vec<StatusProblem> {
    let now = crate::registry::unix_now();
    let mut problems = Vec::new();
    let mut problem =
        |place: String, text: String, help: String| problems.push(StatusProblem { place, text, help });
    for (node, held) in &view.nodes {
        let life = app.agents.life(view, node);
        let place = || format!("node {node}");
        if !life.connected {
            let silent = match life.last_seen_unix {
                0 => "not connected".to_owned(),
                seen => format!("silent for {} s", now.saturating_sub(seen)),
            };
            let text = format!("{silent}; its rules stay in force");
            problem(place(), text, format!("isthmus node show {node}"));
        }
        if let Some(text) = life.problem {
            let text = format!("cannot apply the newest revision: {text}");
            problem(place(), text, format!("isthmus node show {node}"));
        }
        for cluster in held.value.clusters.iter().filter(|cluster| !view.clusters.contains_key(*cluster)) {
            let help = format!("isthmus cluster create {cluster} --platform PLATFORM");
            problem(place(), format!("serves cluster {cluster}, which is not there"), help);
        }
    }
    for (name, pool) in &view.pools {
        let usage = view.usage(name, &pool.value);
        let all = usage.blocks_leased.saturating_add(usage.blocks_free);
        if usage.blocks_free.saturating_mul(FREE_BLOCKS_LOW) < all || usage.blocks_free == 0 {
            let text = format!("{} of {all} blocks are left", usage.blocks_free);
            problem(format!("pool {name}"), text, "add a CIDR to it, or a further pool".to_owned());
        }
    }
    for (name, endpoint) in &view.endpoints {
        let strange = endpoint.value.addresses.iter().find(|address| {
            view.endpoint_at(**address) != Some(name)
                || view.block_of(**address).is_none_or(|block| block.node != endpoint.value.node)
        });
        if let Some(address) = strange {
            let text =
                format!("has {address}, which is not its node's to give or which another endpoint has too");
            problem(
                format!("endpoint {name}"),
                text,
                format!("isthmus ipam show --node {}", endpoint.value.node),
            );
        }
    }
    problems
}

/// `GET /api/v1/policies/NAME/rollout?wait=SECONDS`
pub(super) async fn rollout(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Rollout>, Refusal> {
    let params = params.only(&["wait"])?;
    let wait = params.read::<u64>("wait")?.unwrap_or(0);
    if wait > WAIT_MAX {
        return Err(Refusal::bad(format!("wait={wait} is more than {WAIT_MAX} seconds")));
    }
    drop(app.registry.fresh_view().await?);
    let until = Instant::now() + Duration::from_secs(wait);
    loop {
        let (identities, revision) =
            destinations(&app, &name).ok_or_else(|| Refusal::missing("policy", &name))?;
        let needing = app.agents.needing(&identities, revision);
        let waiting: Vec<String> =
            needing.iter().filter(|(_, loaded)| !loaded).map(|(node, _)| node.as_str().to_owned()).collect();
        if waiting.is_empty() || Instant::now() >= until {
            let nodes = needing.len() as u64;
            let loaded = nodes - waiting.len() as u64;
            return Ok(Json(Rollout { revision, nodes, loaded, waiting }));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `GET /api/v1/nodes/NAME/agent`: what the node's agent says of itself now.
pub(super) async fn agent(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<AgentStatus>, Refusal> {
    params.only(&[])?;
    if !app.registry.fresh_view().await?.nodes.contains_key(&name) {
        return Err(Refusal::missing("node", &name));
    }
    let node: NodeName = super::documents::name(&name)?;
    let json = app.agents.ask(&node, ask::Body::Status(AskStatus {})).await?;
    serde_json::from_str(&json).map(Json).map_err(|error| {
        Refusal::new(
            Code::Internal,
            format!("the agent of node {name} answered something unexpected: {error}"),
        )
    })
}

/// `GET /readyz`: whether the store can be read and the view follows it.
pub(super) async fn ready(State(app): Shared) -> Result<&'static str, Refusal> {
    let fresh = tokio::time::timeout(Duration::from_secs(2), app.registry.fresh_view()).await;
    match fresh {
        Ok(view) => {
            drop(view?);
            Ok("ready\n")
        }
        Err(_late) => Err(Refusal::new(Code::Unavailable, "the view has not caught up with the store")),
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): Shared) -> Response {
    let text = app.metrics.render(&app.registry, &app.agents, &app.flows);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
