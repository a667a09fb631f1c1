//! What people's tools are told, over the real socket.

use super::*;
use isthmus_api::{
    client::{Client, ClientError, Place},
    local::{AgentStatus, LocalBlock, LocalEndpoint, LocalTable, LocalWhy},
    stream::{self, Rule, ask, to_agent},
};
use std::collections::BTreeMap;

fn client(agent: &RunningAgent) -> Client {
    Client::new(Place::Unix(agent.people.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_described() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let attached = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let client = client(&agent);
    let status: AgentStatus = client.get("/status").await.unwrap();
    assert_eq!((status.node.as_str(), status.endpoints, status.attach_mode.as_str()), ("n1", 1, "tcx"));
    assert!(status.connected && status.problems.is_empty(), "{status:?}");
    let endpoints: Vec<LocalEndpoint> = client.get("/endpoints").await.unwrap();
    assert_eq!(endpoints[0].addresses, attached.addresses);
    assert_eq!(endpoints[0].identity, "000100");
    let blocks: Vec<LocalBlock> = client.get("/ipam").await.unwrap();
    assert_eq!(blocks[0].allocations[&attached.addresses[0]], "cni:isthmus/c1/eth0");
    assert_eq!(blocks[0].free, 7);
    let counters: BTreeMap<String, u64> = client.get("/counters").await.unwrap();
    assert_eq!(counters["no-rule"], 3);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_and_tables_say_what_is_loaded() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let rule = Rule { peer: 300, protocol: 6, first_port: 80, last_port: 80, number: 9, ..Rule::default() };
    let revision = node.server.set_rules(256, vec![rule]);
    until("the rule is in force", || node.server.in_force() >= revision).await;
    let client = client(&agent);
    let why: LocalWhy = client.get("/why?from=00012c&to=000100&protocol=6&port=80").await.unwrap();
    assert!(why.known && why.allowed && why.rule == 9, "{why:?}");
    let why: LocalWhy = client.get("/why?from=00012c&to=000100&protocol=6&port=81").await.unwrap();
    assert_eq!((why.allowed, why.reason.as_str()), (false, "no-rule"));
    let why: LocalWhy = client.get("/why?from=00012c&to=0003e7").await.unwrap();
    assert!(!why.known);
    let table: LocalTable = client.get("/tables/000100").await.unwrap();
    assert_eq!(
        (table.rules[0].port.as_str(), table.default.as_str(), table.loaded),
        ("tcp:80", "closed", true)
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_a_problem_document() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let client = client(&agent);
    for (path, status) in [
        ("/nothing", 404),
        ("/tables/000999", 404),
        ("/tables/xyz", 400),
        ("/why?from=1", 400),
        ("/why?from=x&to=y", 400),
    ] {
        match client.get::<serde_json::Value>(path).await {
            Err(ClientError::Problem(problem)) => assert_eq!(problem.status, status, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    assert!(
        matches!(client.delete::<()>("/status").await, Err(ClientError::Problem(problem)) if problem.status == 405)
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_promised_names() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    until("a revision is in force", || node.server.in_force() > 0).await;
    let mut lines = Vec::new();
    let client = client(&agent);
    let read = client.lines("/metrics", |line| {
        lines.push(line.to_owned());
        true
    });
    read.await.unwrap();
    for expected in [
        "isthmus_endpoints 1",
        "isthmus_ipam_addresses{cluster=\"red\",state=\"used\"} 1",
        "isthmus_drops_total{reason=\"no-rule\"} 3",
        "isthmus_flow_events_lost_total 0",
        "isthmus_server_connected 1",
        "isthmus_build_info{version=",
        "isthmus_policy_apply_seconds_count ",
        "isthmus_policy_revision ",
        "isthmus_attach_seconds_count 1",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected} is not in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("reason=\"rule\"")), "what was let through is no drop");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_ask() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let why = stream::AskWhy { from: 300, to: 256, protocol: 6, port: 80 };
    node.server.send(to_agent::Body::Ask(stream::Ask { id: 1, body: Some(ask::Body::Why(why)) }));
    node.server.send(to_agent::Body::Ask(stream::Ask {
        id: 2,
        body: Some(ask::Body::Status(stream::AskStatus {})),
    }));
    let wrong = stream::AskWhy { from: 1, to: 256, protocol: 6, port: 80 };
    node.server.send(to_agent::Body::Ask(stream::Ask { id: 3, body: Some(ask::Body::Why(wrong)) }));
    node.server.send(to_agent::Body::Ask(stream::Ask { id: 4, body: None }));
    until("all are answered", || node.server.answers().len() == 4).await;
    let answers: BTreeMap<u64, stream::Answer> =
        node.server.answers().into_iter().map(|answer| (answer.id, answer)).collect();
    let why: LocalWhy = serde_json::from_str(&answers[&1].json).unwrap();
    assert_eq!(why.reason, "no-rule");
    let status: AgentStatus = serde_json::from_str(&answers[&2].json).unwrap();
    assert_eq!(status.node, "n1");
    assert!(answers[&3].problem.contains("000001") && !answers[&4].problem.is_empty(), "{answers:?}");
    agent.stop().await;
}
