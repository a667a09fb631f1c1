//! `GET /api/v1/why?from=&to=&port=`: may A reach B, and what says so.
//!
//! The verdict is that of the tables which the destination's agents have loaded. Where no agent can answer, it is that
//! of the table which the server would give them, and the step says so.

use super::{App, Refusal, Shared, extract::Params};
use crate::{
    agents::AskError,
    problem::Code,
    registry::{CommitError, resolve_name},
    view::View,
};
use axum::{Json, extract::State};
use futures::future::join_all;
use isthmus_api::{
    local::LocalWhy,
    rest::{Why, WhyStep},
    stream::{AskWhy, ask},
};
use isthmus_core::{Identity, NodeName, PortMatch};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// Nodes that are asked; of an app that runs on more, these speak for all.
const NODES_ASKED_MAX: usize = 16;

/// One end of the path.
struct End {
    name: String,
    workload: Option<Uuid>,
    identities: Vec<Identity>,
    /// Address, node and identity of each endpoint.
    endpoints: Vec<(IpAddr, String, Identity)>,
}

/// A verdict, and who says so.
struct Ingress {
    node: Option<String>,
    identity: Identity,
    allowed: bool,
    reason: String,
    rule: u32,
    rules: u64,
    denied_packets: u64,
}

pub(super) async fn why(State(app): Shared, params: Params) -> Result<Json<Why>, Refusal> {
    let params = params.only(&["from", "to", "port"])?;
    let port_text = params.required("port")?.to_owned();
    let port: PortMatch =
        port_text.parse().map_err(|why: isthmus_core::PortError| Refusal::bad(why.to_string()))?;
    let (from, to, routes) = {
        let view = app.registry.fresh_view().await?;
        let from = end(&view, params.required("from")?)?;
        let to = end(&view, params.required("to")?)?;
        let routes = route(&app, &view, &from, &to);
        (from, to, routes)
    };
    let judged = judge(&app, &from, &to, port).await?;
    let source = source(&from);
    let ingress = ingress(&app, &to, &judged);
    let worst = judged.iter().find(|ingress| !ingress.allowed).or(judged.first());
    let (verdict, reason) = match worst {
        Some(ingress) => (ingress.allowed, ingress.reason.clone()),
        None => (false, "unknown-endpoint".to_owned()),
    };
    let steps = vec![source, routes, ingress];
    let fix = (!verdict && from.workload.is_some() && to.workload.is_some())
        .then(|| format!("isthmus policy allow {} {} {port_text}", from.name, to.name));
    Ok(Json(Why { allowed: verdict, reason, from: from.name, to: to.name, port: port_text, steps, fix }))
}

fn end(view: &View, text: &str) -> Result<End, Refusal> {
    if let Some(identity) = reserved(text) {
        return Ok(End {
            name: text.to_owned(),
            workload: None,
            identities: vec![identity],
            endpoints: Vec::new(),
        });
    }
    let uuid = resolve_name(view, text)?;
    let endpoints = view.endpoints_of(uuid).filter_map(|(_, endpoint)| {
        let identity = Identity::new(endpoint.identity).ok()?;
        Some((*endpoint.addresses.first()?, endpoint.node.clone(), identity))
    });
    Ok(End {
        name: view.workload_text(uuid),
        workload: Some(uuid),
        identities: view.identities_of(uuid).collect(),
        endpoints: endpoints.collect(),
    })
}

/// The words for senders that are no workload.
fn reserved(text: &str) -> Option<Identity> {
    [Identity::REMOTE_NODE, Identity::WORLD]
        .into_iter()
        .find(|identity| identity.reserved_name() == Some(text))
}

fn step(step: &str, ok: bool, text: String) -> WhyStep {
    WhyStep { step: step.to_owned(), text, ok }
}

fn source(from: &End) -> WhyStep {
    let Some(identity) = from.identities.first() else {
        let text = format!("{} has no identity yet: no node has run it", from.name);
        return step("source", false, text);
    };
    if from.workload.is_none() {
        return step(
            "source",
            true,
            format!("{} is no app; its packets come as identity {identity}", from.name),
        );
    }
    match from.endpoints.first() {
        Some((address, node, identity)) => {
            let more = match from.endpoints.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            step("source", true, format!("{}, identity {identity}, {address} on {node}{more}", from.name))
        }
        None => step("source", false, format!("{}, identity {identity}, runs nowhere now", from.name)),
    }
}

fn route(app: &App, view: &View, from: &End, to: &End) -> WhyStep {
    let Some((address, node, _)) = to.endpoints.first() else {
        return step("route", false, format!("{} runs nowhere now, so there is nowhere to go", to.name));
    };
    let Some(block) = view.block_of(*address) else {
        return step("route", false, format!("{address} on {node} is in no leased block"));
    };
    let life = app.agents.life(view, node);
    let tunnel = view.nodes.get(node).and_then(|held| held.value.addresses.first());
    let local = from.endpoints.iter().any(|(_, source, _)| source == node);
    let way = match tunnel {
        _ if local => "on the same node for at least one sender".to_owned(),
        Some(tunnel) => format!("over the overlay to {tunnel}"),
        None => "its node has no address".to_owned(),
    };
    let agent = if life.connected { "" } else { "; its agent is away, its rules stay in force" };
    let text = format!("{address} in block {} of {node}, {way}{agent}", block.cidr);
    step("route", block.node == *node && (tunnel.is_some() || local), text)
}

/// Asks the agents of the destination's nodes; without any, judges by the compiled tables.
async fn judge(app: &App, from: &End, to: &End, port: PortMatch) -> Result<Vec<Ingress>, CommitError> {
    let mut places = BTreeMap::<String, BTreeSet<Identity>>::new();
    for (_, node, identity) in &to.endpoints {
        places.entry(node.clone()).or_default().insert(*identity);
    }
    let sources = if from.identities.is_empty() { vec![Identity::UNKNOWN] } else { from.identities.clone() };
    let mut questions = Vec::new();
    for (node, identities) in places.into_iter().take(NODES_ASKED_MAX) {
        for identity in identities {
            questions
                .extend(sources.iter().map(|source| ask_node(app, node.clone(), *source, identity, port)));
        }
    }
    let answers: Vec<Ingress> = join_all(questions).await.into_iter().flatten().collect();
    if !answers.is_empty() {
        return Ok(answers);
    }
    let view = app.registry.fresh_view().await?;
    let mut judged = Vec::new();
    for identity in &to.identities {
        let Some(compiled) = view.tables.compiled(*identity) else { continue };
        for source in &sources {
            let verdict = compiled.table.verdict(*source, port.protocol().number(), port.ports().first());
            judged.push(Ingress {
                node: None,
                identity: *identity,
                allowed: verdict.allowed,
                reason: verdict.reason().to_owned(),
                rule: match verdict.decision {
                    isthmus_policy::Decision::Rule(number) => number,
                    isthmus_policy::Decision::Default => 0,
                },
                rules: compiled.table.rules.len() as u64,
                denied_packets: 0,
            });
        }
    }
    Ok(judged)
}

async fn ask_node(app: &App, node: String, from: Identity, to: Identity, port: PortMatch) -> Option<Ingress> {
    let name: NodeName = node.parse().ok()?;
    let question = AskWhy {
        from: from.number(),
        to: to.number(),
        protocol: u32::from(port.protocol().number()),
        port: u32::from(port.ports().first()),
    };
    let answer = match app.agents.ask(&name, ask::Body::Why(question)).await {
        Ok(json) => serde_json::from_str::<LocalWhy>(&json).map_err(|error| error.to_string()),
        Err(AskError::Away(_)) => return None,
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(answer) if answer.known => Some(Ingress {
            node: Some(node),
            identity: to,
            allowed: answer.allowed,
            reason: answer.reason,
            rule: answer.rule,
            rules: answer.rules,
            denied_packets: answer.denied_packets,
        }),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(node, error, code = Code::Internal.as_str(), "agent did not explain");
            None
        }
    }
}

fn ingress(app: &App, to: &End, judged: &[Ingress]) -> WhyStep {
    let Some(worst) = judged.iter().find(|ingress| !ingress.allowed).or(judged.first()) else {
        return step("ingress", false, format!("{} has no identity yet, so there is no table", to.name));
    };
    let place = match &worst.node {
        Some(node) => format!("as loaded on {node}"),
        None => "as compiled by the server; no agent that runs it could be asked".to_owned(),
    };
    let decision = match (worst.rule, worst.allowed) {
        (0, true) => format!("no rule decides, the default is open ({})", worst.reason),
        (0, false) => format!("none of {} rules allows it ({})", worst.rules, worst.reason),
        (rule, _) => format!("rule {rule}{} decides ({})", policy_of(app, to, rule), worst.reason),
    };
    let mut text = format!("{decision}, identity {}, {place}", worst.identity);
    if worst.denied_packets > 0 {
        text = format!("{text}; {} packets were denied since the agent's start", worst.denied_packets);
    }
    let nodes: BTreeSet<&String> = judged
        .iter()
        .filter(|other| other.allowed != worst.allowed)
        .filter_map(|other| other.node.as_ref())
        .collect();
    if !nodes.is_empty() {
        let nodes: Vec<&str> = nodes.into_iter().map(String::as_str).collect();
        text = format!("{text}; but it is allowed on {}", nodes.join(", "));
    }
    step("ingress", worst.allowed, text)
}

/// ` of policy NAME`, if a policy of the destination has the rule.
fn policy_of(app: &App, to: &End, rule: u32) -> String {
    let view = app.registry.view();
    let Some(workload) = to.workload else { return String::new() };
    let holds = |name: &&String| {
        let policy = view.policies.get(*name);
        policy.is_some_and(|policy| policy.value.rules.iter().any(|held| held.number == rule))
    };
    view.policies_of(workload).find(holds).map_or_else(String::new, |name| format!(" of policy {name}"))
}
