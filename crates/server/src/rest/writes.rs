//! Writing kinds: `POST`, `PUT`, `DELETE`, each with `?dryRun=true`.

use super::{
    App, Refusal, Shared, documents,
    extract::{Body, Params, precondition, wanted_revision},
    kinds::with_etag,
};
use crate::{problem::Code, registry::resolve_name, view::Versioned};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use isthmus_api::rest::{
    BgpPeerSpec, ClusterSpec, Draft, NetworkSpec, NodeSettings, PolicySpec, PoolSpec, Resource,
};
use isthmus_core::{BgpPeerName, ClusterName, Identity, NodeName, PolicyName, PoolName};
use serde::Serialize;
use std::collections::HashSet;
use uuid::Uuid;

/// How many connected nodes need the policy that was written.
const NODES_NEEDING: HeaderName = HeaderName::from_static("isthmus-nodes-needing");

fn dry(params: Params) -> Result<bool, Refusal> {
    params.only(&["dryRun"])?.switch("dryRun")
}

/// The path and the body name the same object.
fn same_name(path: &str, body: &str) -> Result<(), Refusal> {
    if path == body {
        Ok(())
    } else {
        Err(Refusal::bad(format!("the path names {path}, the body {body}: names do not change")))
    }
}

fn created<S: Serialize>(object: &Resource<S>) -> Response {
    (StatusCode::CREATED, with_etag(object)).into_response()
}

/// What a dry run would have made.
fn proposed<S: Serialize>(kind: &str, draft: Draft<S>) -> Response {
    let Draft { name, labels, spec } = draft;
    with_etag(&Resource { kind: kind.to_owned(), name, uuid: Uuid::nil(), revision: 0, labels, spec })
}

fn deleted() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Somebody deleted the object between the write and the answer.
fn vanished(kind: &str, name: &str) -> Refusal {
    Refusal::new(Code::Conflict, format!("{kind} {name} was written, and deleted by somebody else at once"))
}

pub(super) async fn create_cluster(
    State(app): Shared,
    params: Params,
    Body(draft): Body<Draft<ClusterSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    app.registry.create_cluster(&documents::cluster_draft(&draft)?, dry).await?;
    if dry {
        return Ok(proposed("cluster", draft));
    }
    tracing::info!(cluster = draft.name, platform = draft.spec.platform, "cluster created");
    let made = documents::cluster(&app.registry.view(), &draft.name);
    made.map(|made| created(&made)).ok_or_else(|| vanished("cluster", &draft.name))
}

pub(super) async fn replace_cluster(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(draft): Body<Draft<ClusterSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    same_name(&name, &draft.name)?;
    let wanted = wanted_revision(&headers)?;
    let replaced = app.registry.replace_cluster(&documents::cluster_draft(&draft)?, wanted, dry).await;
    replaced.map_err(|error| precondition(error.into(), wanted))?;
    if dry {
        return Ok(proposed("cluster", draft));
    }
    tracing::info!(cluster = name, "cluster replaced");
    let made = documents::cluster(&app.registry.view(), &name);
    made.map(|made| with_etag(&made)).ok_or_else(|| vanished("cluster", &name))
}

pub(super) async fn delete_cluster(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let wanted = wanted_revision(&headers)?;
    let name: ClusterName = documents::name(&name)?;
    let done = app.registry.delete_cluster(&name, wanted, dry).await;
    done.map_err(|error| precondition(error.into(), wanted))?;
    if !dry {
        tracing::info!(cluster = %name, "cluster deleted");
    }
    Ok(deleted())
}

pub(super) async fn create_pool(
    State(app): Shared,
    params: Params,
    Body(draft): Body<Draft<PoolSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    app.registry.create_pool(&documents::pool_draft(&draft)?, dry).await?;
    if dry {
        return Ok(proposed("pool", draft));
    }
    tracing::info!(pool = draft.name, cluster = draft.spec.cluster, "pool created");
    let made = documents::pool(&app.registry.view(), &draft.name);
    made.map(|made| created(&made)).ok_or_else(|| vanished("pool", &draft.name))
}

pub(super) async fn replace_pool(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(draft): Body<Draft<PoolSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    same_name(&name, &draft.name)?;
    let wanted = wanted_revision(&headers)?;
    let replaced = app.registry.replace_pool(&documents::pool_draft(&draft)?, wanted, dry).await;
    replaced.map_err(|error| precondition(error.into(), wanted))?;
    if dry {
        return Ok(proposed("pool", draft));
    }
    tracing::info!(pool = name, "pool replaced");
    let made = documents::pool(&app.registry.view(), &name);
    made.map(|made| with_etag(&made)).ok_or_else(|| vanished("pool", &name))
}

pub(super) async fn delete_pool(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let wanted = wanted_revision(&headers)?;
    let name: PoolName = documents::name(&name)?;
    let done = app.registry.delete_pool(&name, wanted, dry).await;
    done.map_err(|error| precondition(error.into(), wanted))?;
    if !dry {
        tracing::info!(pool = %name, "pool deleted");
    }
    Ok(deleted())
}

pub(super) async fn create_policy(
    State(app): Shared,
    params: Params,
    Body(draft): Body<Draft<PolicySpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let words = documents::policy_draft(&draft)?;
    let policy = app.registry.create_policy(&words, dry).await?;
    if dry {
        let spec = documents::policy_spec(&app.registry.view(), &policy, false);
        return Ok(proposed("policy", Draft { spec, ..draft }));
    }
    tracing::info!(policy = draft.name, rules = policy.rules.len(), "policy created");
    let made = documents::policy(&app.registry.view(), &draft.name, false);
    let made = made.ok_or_else(|| vanished("policy", &draft.name))?;
    Ok(with_nodes(&app, &draft.name, created(&made)))
}

pub(super) async fn replace_policy(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(draft): Body<Draft<PolicySpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    same_name(&name, &draft.name)?;
    let wanted = wanted_revision(&headers)?;
    let words = documents::policy_draft(&draft)?;
    let replaced = app.registry.replace_policy(&words, wanted, dry).await;
    let policy = replaced.map_err(|error| precondition(error.into(), wanted))?;
    if dry {
        let spec = documents::policy_spec(&app.registry.view(), &policy, false);
        return Ok(proposed("policy", Draft { spec, ..draft }));
    }
    tracing::info!(policy = name, rules = policy.rules.len(), "policy replaced");
    let made =
        documents::policy(&app.registry.view(), &name, false).ok_or_else(|| vanished("policy", &name))?;
    Ok(with_nodes(&app, &name, with_etag(&made)))
}

pub(super) async fn delete_policy(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let wanted = wanted_revision(&headers)?;
    let name: PolicyName = documents::name(&name)?;
    let nodes = nodes_needing(&app, name.as_str());
    let done = app.registry.delete_policy(&name, wanted, dry).await;
    done.map_err(|error| precondition(error.into(), wanted))?;
    if !dry {
        tracing::info!(policy = %name, "policy deleted");
    }
    let mut response = deleted();
    response.headers_mut().insert(NODES_NEEDING, HeaderValue::from(nodes));
    Ok(response)
}

pub(super) async fn create_bgp_peer(
    State(app): Shared,
    params: Params,
    Body(draft): Body<Draft<BgpPeerSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let words = documents::bgp_peer_draft(draft)?;
    let peer = app.registry.create_bgp_peer(&words, dry).await?;
    let name = words.name.as_str();
    if dry {
        let spec = documents::bgp_peer_spec(&peer);
        return Ok(proposed("bgpPeer", Draft { name: name.to_owned(), labels: words.labels, spec }));
    }
    tracing::info!(bgp_peer = name, address = %peer.address, "bgpPeer created");
    let made = documents::bgp_peer(&app.registry.view(), name);
    made.map(|made| created(&made)).ok_or_else(|| vanished("bgpPeer", name))
}

pub(super) async fn replace_bgp_peer(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(draft): Body<Draft<BgpPeerSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    same_name(&name, &draft.name)?;
    let wanted = wanted_revision(&headers)?;
    let words = documents::bgp_peer_draft(draft)?;
    let replaced = app.registry.replace_bgp_peer(&words, wanted, dry).await;
    let peer = replaced.map_err(|error| precondition(error.into(), wanted))?;
    if dry {
        let spec = documents::bgp_peer_spec(&peer);
        return Ok(proposed("bgpPeer", Draft { name, labels: words.labels, spec }));
    }
    tracing::info!(bgp_peer = name, address = %peer.address, "bgpPeer replaced");
    let made = documents::bgp_peer(&app.registry.view(), &name);
    made.map(|made| with_etag(&made)).ok_or_else(|| vanished("bgpPeer", &name))
}

pub(super) async fn delete_bgp_peer(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let wanted = wanted_revision(&headers)?;
    let name: BgpPeerName = documents::name(&name)?;
    let done = app.registry.delete_bgp_peer(&name, wanted, dry).await;
    done.map_err(|error| precondition(error.into(), wanted))?;
    if !dry {
        tracing::info!(bgp_peer = %name, "bgpPeer deleted");
    }
    Ok(deleted())
}

pub(super) async fn replace_network(
    State(app): Shared,
    params: Params,
    headers: HeaderMap,
    Body(draft): Body<Draft<NetworkSpec>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    same_name("network", &draft.name)?;
    let wanted = wanted_revision(&headers)?;
    let words = documents::network_draft(&draft)?;
    let replaced = app.registry.replace_network(&words, wanted, dry).await;
    replaced.map_err(|error| precondition(error.into(), wanted))?;
    if dry {
        return Ok(proposed("network", draft));
    }
    let (encapsulation, source_check) = (words.encapsulation, words.source_check);
    tracing::info!(%encapsulation, %source_check, "network replaced");
    Ok(with_etag(&documents::network(&app.registry.view())))
}

pub(super) async fn replace_node(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(draft): Body<Draft<NodeSettings>>,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    same_name(&name, &draft.name)?;
    let wanted = wanted_revision(&headers)?;
    let words = documents::node_settings_draft(&draft)?;
    let replaced = app.registry.replace_node_settings(&words, wanted, dry).await;
    replaced.map_err(|error| precondition(error.into(), wanted))?;
    if dry {
        return Ok(proposed("node", draft));
    }
    tracing::info!(node = name, "node set");
    let made = documents::node(&app.registry.view(), &app.agents, &name);
    made.map(|made| with_etag(&made)).ok_or_else(|| vanished("node", &name))
}

pub(super) async fn delete_node(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let name: NodeName = documents::name(&name)?;
    if app.agents.is_connected(&name) {
        return Err(crate::registry::NodeError::Connected(name).into());
    }
    app.registry.delete_node(&name, dry).await?;
    Ok(deleted())
}

pub(super) async fn delete_workload(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    let dry = dry(params)?;
    let uuid = {
        let view = app.registry.fresh_view().await?;
        let uuid = resolve_name(&view, &name)?;
        let endpoints = view.endpoint_count(uuid);
        let policies: Vec<&String> = view.policies_of(uuid).take(3).collect();
        let scopes = app.agents.scopes();
        if endpoints > 0 || view.identities_of(uuid).any(|identity| scopes.contains(&identity)) {
            let detail = format!("{} runs: it has {endpoints} endpoints", view.workload_text(uuid));
            return Err(Refusal::new(Code::Conflict, detail).with_help("stop it first"));
        }
        if let Some(cluster) = view.workloads.get(&uuid).map(|held| &held.value.cluster)
            && view.is_external(cluster)
        {
            let detail = format!("{} stands for external cluster {cluster}", view.workload_text(uuid));
            return Err(Refusal::new(Code::Conflict, detail).with_help("it goes with its cluster"));
        }
        if let Some(policy) = policies.first() {
            let detail = format!("{} is named by policy {policy}", view.workload_text(uuid));
            return Err(Refusal::new(Code::Conflict, detail).with_help("delete its policies first"));
        }
        uuid
    };
    if !dry {
        app.registry.delete_workload(uuid).await?;
    }
    Ok(deleted())
}

fn with_nodes(app: &App, policy: &str, mut response: Response) -> Response {
    response.headers_mut().insert(NODES_NEEDING, HeaderValue::from(nodes_needing(app, policy)));
    response
}

fn nodes_needing(app: &App, policy: &str) -> u64 {
    let Some((identities, revision)) = destinations(app, policy) else { return 0 };
    app.agents.needing(&identities, revision).len() as u64
}

/// The identities that a policy's rules lead to, and its revision.
pub(super) fn destinations(app: &App, policy: &str) -> Option<(HashSet<Identity>, u64)> {
    let view = app.registry.view();
    let Versioned { value, revision } = view.policies.get(policy)?;
    let workloads: HashSet<Uuid> = value.rules.iter().map(|rule| rule.to).collect();
    let identities =
        workloads.into_iter().flat_map(|uuid| view.identities_of(uuid).collect::<Vec<_>>()).collect();
    Some((identities, *revision))
}
