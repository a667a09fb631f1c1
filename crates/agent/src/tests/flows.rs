//! Verdicts reach people, the server and the log, with names.

use super::*;
use isthmus_api::{
    client::{Client, Place},
    local::Flow,
    stream::{self, to_agent},
};
use isthmus_core::Identity;
use isthmus_dataplane::model::Event;
use std::sync::Mutex;

fn event(from: u32, to: u32, allowed: bool) -> Event {
    Event {
        time_ns: 0,
        source: "10.64.0.1".parse().unwrap(),
        destination: "10.64.0.2".parse().unwrap(),
        from: Identity::new(from).unwrap(),
        to: Identity::new(to).unwrap(),
        protocol: 6,
        source_port: 40_000,
        destination_port: 8080,
        allowed,
        reason: if allowed { "rule" } else { "no-rule" },
        rule: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_reaches_a_reader_with_names() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (client, kept) = (Client::new(Place::Unix(agent.people.clone())), Arc::clone(&seen));
    let reader = tokio::spawn(async move {
        let line = |line: &str| {
            kept.lock().unwrap().push(serde_json::from_str::<Flow>(line).unwrap());
            false
        };
        client.lines("/flows", line).await.unwrap();
    });
    until("a flow is seen", || {
        node.kernel.emit(event(300, 4, false));
        !seen.lock().unwrap().is_empty()
    })
    .await;
    reader.await.unwrap();
    let flow = seen.lock().unwrap()[0].clone();
    assert_eq!((flow.from.as_str(), flow.to.as_str()), ("k8s:far/away@red", "world"));
    assert_eq!((flow.verdict.as_str(), flow.from_identity.as_str()), ("denied", "00012c"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_gets_flows_while_it_watches() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    node.server.send(to_agent::Body::WatchFlows(stream::WatchFlows { on: true }));
    until("flows arrive", || {
        node.kernel.emit(event(300, 256, true));
        !node.server.flows().is_empty()
    })
    .await;
    let flow: Flow = serde_json::from_str(&node.server.flows()[0]).unwrap();
    assert_eq!(flow.destination_port, 8080);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_are_logged_in_cloud_foundrys_words() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    node.kernel.emit(event(300, 256, false));
    node.kernel.emit(event(300, 256, true));
    let text = || std::fs::read_to_string(node.path("flows.log")).unwrap_or_default();
    until("both are written", || text().lines().count() == 2).await;
    let log = text();
    assert!(
        log.contains("DENY_C2C_ s=00012c d=000100 r=0 ") && log.contains("OK_C2C_ s=00012c d=000100 "),
        "{log}"
    );
    let twin = std::fs::read_to_string(node.path("flows.log.json")).unwrap();
    assert_eq!(twin.lines().count(), 2);
    agent.stop().await;
}
