//! The agents' stream.

use crate::rig::{Agent, PATIENCE, Rig, endpoint, eventually, hello};
use isthmus_api::{
    local::{AgentStatus, Flow, LocalWhy},
    rest::{EndpointSpec, List, NodeSpec, Resource, Rollout, Why},
    stream::{self, from_agent, reply, request, to_agent},
};
use isthmus_store::{Operation, Txn};
use std::{collections::BTreeMap, sync::Arc};

#[tokio::test]
async fn an_agent_gets_what_its_node_needs_and_no_more() {
    let rig = Rig::with_clusters().await;
    let mut one = rig.agent("n1", 1).await;
    assert_eq!(one.number, 1);
    let keys: Vec<&str> = one.view.keys().map(String::as_str).collect();
    assert_eq!(keys, ["cluster/green", "cluster/red", "node/n1", "pool/green/green-1", "pool/red/red-1"]);
    let web = one.resolve("red", "shop/web").await;
    let db = one.resolve("red", "shop/db").await;
    assert!(web.identity >= 0x1_0000 && web.identity != db.identity);
    assert_eq!(web.name, "k8s:shop/web@red");
    one.scope(&[db.identity]).await;
    one.until("the table", |agent| agent.table(db.identity).is_some()).await;
    assert!(one.table(db.identity).unwrap().closed);
    assert!(one.table(web.identity).is_none());
    // A peer that a rule names comes with its name.
    assert!(!one.view.contains_key(&format!("workload/{:06x}", web.identity)));
    rig.allow("web-to-db", &[("web", "db", "tcp:5432")]).await;
    one.until("the rule", |agent| agent.rules(db.identity) == 1).await;
    one.synced().await;
    assert!(one.view.contains_key(&format!("workload/{:06x}", web.identity)));
    let rule = &one.table(db.identity).unwrap().rules[0];
    assert_eq!((rule.peer, rule.protocol, rule.first_port, rule.last_port), (web.identity, 6, 5432, 5432));
    // Another node's view does not have the table.
    let two = rig.agent("n2", 2).await;
    assert_eq!(two.number, 2);
    assert!(two.view.keys().all(|key| !key.starts_with("table/") && !key.starts_with("workload/")));
}

#[tokio::test]
async fn what_is_held_is_not_sent_again_and_what_went_is_deleted() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await.identity;
    let db = agent.resolve("red", "shop/db").await.identity;
    rig.allow("web-to-db", &[("web", "db", "tcp:5432")]).await;
    agent.scope(&[db]).await;
    agent.until("the rule", |agent| agent.rules(db) == 1).await;
    agent.synced().await;
    let view = agent.view.clone();
    drop(agent);
    let mut resumed = hello("n1", 1);
    resumed.identities = vec![db];
    let agent = Agent::resume(&rig, resumed.clone(), view.clone()).await.unwrap();
    assert_eq!(agent.sent, Vec::<String>::new());
    assert_eq!(agent.view, view);
    drop(agent);
    // Changes while it was away: exactly those come.
    rig.client.delete::<()>("/api/v1/policies/web-to-db").await.unwrap();
    rig.pool("red-2", "red", &["10.65.0.0/24"]).await;
    let mut stale = view;
    stale.insert("node/gone".to_owned(), stale["node/n1"].clone());
    stale.insert("bgp/x".to_owned(), stale["node/n1"].clone());
    let agent = Agent::resume(&rig, resumed, stale).await.unwrap();
    let mut sent = agent.sent.clone();
    sent.sort();
    let gone = format!("-workload/{web:06x}");
    let table = format!("table/{db:06x}");
    assert_eq!(sent, ["-bgp/x", "-node/gone", gone.as_str(), "pool/red/red-2", table.as_str()]);
}

#[tokio::test]
async fn a_restarted_server_sends_nothing_that_is_held() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let db = agent.resolve("red", "shop/db").await.identity;
    let _ = agent.resolve("red", "shop/web").await;
    rig.allow("web-to-db", &[("web", "db", "tcp:5432")]).await;
    agent.scope(&[db]).await;
    agent.until("the rule", |agent| agent.rules(db) == 1).await;
    agent.synced().await;
    let view = agent.view.clone();
    let store = Arc::clone(&rig.store);
    rig.running.stop().await;
    let rig = Rig::on(store).await;
    let mut resumed = hello("n1", 1);
    resumed.identities = vec![db];
    let agent = Agent::resume(&rig, resumed, view).await.unwrap();
    assert_eq!(agent.sent, Vec::<String>::new());
}

#[tokio::test]
async fn an_identity_that_leaves_the_scope_takes_its_table_and_peers_along() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await.identity;
    let db = agent.resolve("red", "shop/db").await.identity;
    let cache = agent.resolve("red", "shop/cache").await.identity;
    rig.allow("p", &[("web", "db", "tcp:1"), ("web", "cache", "tcp:2")]).await;
    agent.scope(&[db, cache]).await;
    agent.until("both", |agent| agent.rules(db) == 1 && agent.rules(cache) == 1).await;
    agent.scope(&[cache]).await;
    agent.until("one left", |agent| agent.table(db).is_none()).await;
    agent.synced().await;
    // web is still named by the table of cache.
    assert!(agent.view.contains_key(&format!("workload/{web:06x}")));
    assert!(!agent.view.contains_key(&format!("workload/{db:06x}")));
    agent.scope(&[]).await;
    agent.until("none left", |agent| agent.table(cache).is_none()).await;
    agent.synced().await;
    assert!(agent.view.keys().all(|key| !key.starts_with("workload/")), "{:?}", agent.view.keys());
}

#[tokio::test]
async fn a_revoked_rule_reaches_the_node_in_one_batch() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let _ = agent.resolve("red", "shop/web").await;
    let db = agent.resolve("red", "shop/db").await.identity;
    agent.scope(&[db]).await;
    rig.allow("p", &[("web", "db", "tcp:1"), ("web", "db", "tcp:2")]).await;
    agent.until("the rules", |agent| agent.rules(db) == 2).await;
    agent.synced().await;
    agent.sent.clear();
    let started = std::time::Instant::now();
    rig.client.delete::<()>("/api/v1/policies/p").await.unwrap();
    agent.synced().await;
    assert_eq!(agent.rules(db), 0);
    assert_eq!(agent.sent.len(), 2, "the table, and the name of its only peer: {:?}", agent.sent);
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn changes_that_come_together_are_sent_together() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    agent.sent.clear();
    // Nobody else gets a turn between these.
    for number in 0..50 {
        let value = format!(
            r#"{{"uuid":"00000000-0000-0000-0000-000000000000","cluster":"red","cidrs":["10.100.{number}.0/24"],"block_len":26}}"#
        );
        let put = Operation::put(format!("/isthmus/v1/pool/p{number}"), value);
        assert!(rig.store.commit(Txn::new().then(put)).await.unwrap().is_done());
    }
    let mut batches = 0;
    while agent.sent.len() < 50 {
        agent.synced().await;
        batches += 1;
    }
    assert!(batches <= 3, "{batches} batches");
    assert_eq!(agent.sent.len(), 50);
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_same_one_replaces_its_old_call() {
    let rig = Rig::with_clusters().await;
    let mut first = rig.agent("n1", 1).await;
    let mut other = hello("n1", 1);
    other.instance = "another".to_owned();
    let refused = Agent::join(&rig, other.clone()).await.err().unwrap();
    assert!(refused.message().starts_with("ISE-0401"), "{refused}");
    let again = rig.agent("n1", 1).await;
    assert_eq!(first.end().await.code(), tonic::Code::Aborted);
    assert_eq!(again.number, 1);
    drop(again);
    drop(first);
    // The node is free as soon as the call has ended.
    Agent::join(&rig, other).await.unwrap();
}

#[tokio::test]
async fn hellos_that_cannot_be_are_refused_with_the_reason() {
    let rig = Rig::with_clusters().await;
    let _first = rig.agent("n1", 1).await;
    for (change, part) in [
        (stream::Hello { protocol: 9, ..hello("n2", 2) }, "ISE-0402"),
        (stream::Hello { node: "a/b".to_owned(), ..hello("n2", 2) }, "node"),
        (stream::Hello { addresses: vec!["x".to_owned()], ..hello("n2", 2) }, "address"),
        (stream::Hello { addresses: vec![], ..hello("n2", 2) }, "no address"),
        (stream::Hello { instance: String::new(), ..hello("n2", 2) }, "instance"),
        (hello("n2", 1), "ISE-0403"),
        (stream::Hello { addresses: vec!["10.64.0.9".to_owned()], ..hello("n2", 2) }, "ISE-0201"),
    ] {
        let refused = Agent::join(&rig, change).await.err().unwrap();
        assert!(refused.message().contains(part), "{refused}");
    }
    let nodes: List<Resource<NodeSpec>> = rig.client.get("/api/v1/nodes").await.unwrap();
    assert_eq!(nodes.items.len(), 1);
}

#[tokio::test]
async fn a_node_may_change_its_address_and_keeps_its_number() {
    let rig = Rig::with_clusters().await;
    drop(rig.agent("n1", 1).await);
    let moved = Agent::join(&rig, hello("n1", 7)).await.unwrap();
    assert_eq!(moved.number, 1);
    // Its old address is free for another.
    assert_eq!(Agent::join(&rig, hello("n2", 1)).await.unwrap().number, 2);
}

#[tokio::test]
async fn blocks_are_leased_in_order_told_to_all_and_returned() {
    let rig = Rig::with_clusters().await;
    let mut one = rig.agent("n1", 1).await;
    let mut two = rig.agent("n2", 2).await;
    assert_eq!(one.lease("red").await.unwrap(), "10.64.0.0/26");
    assert_eq!(two.lease("red").await.unwrap(), "10.64.0.64/26");
    assert_eq!(one.lease("red").await.unwrap(), "10.64.0.128/26");
    assert_eq!(two.lease("red").await.unwrap(), "10.64.0.192/26");
    let exhausted = two.lease("red").await.unwrap_err();
    assert_eq!((exhausted.code.as_str(), exhausted.retryable), ("ISE-0202", true));
    assert!(exhausted.message.contains("pool red-1 has no free block"), "{}", exhausted.message);
    let unknown = two.lease("violet").await.unwrap_err();
    assert_eq!(unknown.code, "ISE-0101");
    two.until("all blocks", |agent| agent.view.keys().filter(|key| key.starts_with("block/")).count() == 4)
        .await;
    let give = |block: &str| request::Body::ReturnBlock(stream::ReturnBlock { block: block.to_owned() });
    assert!(
        matches!(one.request(give("10.64.0.64/26")).await, reply::Body::Problem(problem) if problem.code == "ISE-0003")
    );
    assert!(
        matches!(one.request(give("nonsense")).await, reply::Body::Problem(problem) if problem.code == "ISE-0001")
    );
    assert!(matches!(one.request(give("10.64.0.0/26")).await, reply::Body::Empty(_)));
    assert!(matches!(one.request(give("10.64.0.0/26")).await, reply::Body::Empty(_)));
    two.until("one less", |agent| !agent.view.contains_key("block/10.64.0.0/26")).await;
    assert_eq!(two.lease("red").await.unwrap(), "10.64.0.0/26");
}

#[tokio::test]
async fn a_block_with_endpoints_does_not_return() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    let block = agent.lease("red").await.unwrap();
    agent.endpoint(&web, "cni:net/c1/eth0", "10.64.0.1").await;
    let give = request::Body::ReturnBlock(stream::ReturnBlock { block: block.clone() });
    let reply = agent.request(give.clone()).await;
    assert!(matches!(reply, reply::Body::Problem(problem) if problem.code == "ISE-0203"));
    agent
        .say(from_agent::Body::EndpointGone(stream::EndpointGone { id: "cni:net/c1/eth0".to_owned() }))
        .await;
    assert!(matches!(agent.request(give).await, reply::Body::Empty(_)));
}

#[tokio::test]
async fn endpoints_follow_what_the_agent_says() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    agent.endpoint(&web, "cni:net/c1/eth0", "10.64.0.1").await;
    agent.endpoint(&web, "cni:net/c2/eth0", "10.64.0.2").await;
    let path = "/api/v1/endpoints";
    let two = eventually::<List<Resource<EndpointSpec>>>(&rig, path, |list| list.items.len() == 2).await;
    assert_eq!(two.items[0].name, "n1/cni:net/c1/eth0");
    assert_eq!(two.items[0].spec.workload_name, "k8s:shop/web@red");
    let one: Resource<EndpointSpec> = rig.client.get("/api/v1/endpoints/n1/cni:net/c1/eth0").await.unwrap();
    assert_eq!(one, two.items[0]);
    let sync = stream::EndpointSync { endpoints: vec![endpoint(&web, "cni:net/c3/eth0", "10.64.0.3")] };
    agent.say(from_agent::Body::EndpointSync(sync)).await;
    let left = eventually::<List<Resource<EndpointSpec>>>(&rig, path, |list| list.items.len() == 1).await;
    assert_eq!(left.items[0].name, "n1/cni:net/c3/eth0");
}

#[tokio::test]
async fn names_and_labels_of_a_workload_may_change() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let guid = crate::rig::unseen(1);
    let resolve = |app: &str, labels: &[(&str, &str)]| {
        request::Body::ResolveWorkload(stream::ResolveWorkload {
            cluster: "green".to_owned(),
            id: guid.clone(),
            group: "acme/prod".to_owned(),
            app: app.to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        })
    };
    let workload = |reply: reply::Body| match reply {
        reply::Body::Workload(workload) => workload,
        other => panic!("{other:?}"),
    };
    let first = workload(agent.request(resolve("cart", &[])).await);
    assert_eq!((first.name.as_str(), first.uuid.as_str()), ("cf:acme/prod/cart@green", guid.as_str()));
    assert!(first.identity < 0x1_0000, "Cloud Foundry's are below the tag limit");
    agent.scope(&[first.identity]).await;
    let key = format!("workload/{:06x}", first.identity);
    agent.until("its name", |agent| agent.view.contains_key(&key)).await;
    let renamed = workload(agent.request(resolve("basket", &[])).await);
    assert_eq!(renamed.identity, first.identity);
    agent.until("its new name", |agent| {
        matches!(&agent.view[&key].1, stream::upsert::Value::Workload(held) if held.name == "cf:acme/prod/basket@green")
    })
    .await;
    let labelled = workload(agent.request(resolve("basket", &[("tier", "front")])).await);
    assert_ne!(labelled.identity, first.identity);
    let rollout = workload(agent.request(resolve("basket", &[("pod-template-hash", "x")])).await);
    assert_eq!(rollout.identity, first.identity);
    let named = agent
        .request(request::Body::NameIdentity(stream::NameIdentity { identity: labelled.identity }))
        .await;
    assert_eq!(workload(named).name, "cf:acme/prod/basket@green");
    let nobody =
        agent.request(request::Body::NameIdentity(stream::NameIdentity { identity: 0x00ab_cdef })).await;
    assert!(matches!(nobody, reply::Body::Problem(problem) if problem.code == "ISE-0002"));
}

#[tokio::test]
async fn a_rollout_tells_where_a_policy_is_in_force() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let _bystander = rig.agent("n2", 2).await;
    let _ = agent.resolve("red", "shop/web").await;
    let db = agent.resolve("red", "shop/db").await.identity;
    agent.scope(&[db]).await;
    agent.until("the table", |agent| agent.table(db).is_some()).await;
    rig.allow("p", &[("web", "db", "tcp:1")]).await;
    agent.until("the rule", |agent| agent.rules(db) == 1).await;
    agent.synced().await;
    let before: Rollout = rig.client.get("/api/v1/policies/p/rollout").await.unwrap();
    assert_eq!((before.nodes, before.loaded, before.waiting), (1, 0, vec!["n1".to_owned()]));
    agent
        .say(from_agent::Body::InForce(stream::InForce { revision: agent.revision, problem: String::new() }))
        .await;
    let after: Rollout = rig.client.get("/api/v1/policies/p/rollout?wait=10").await.unwrap();
    assert_eq!((after.nodes, after.loaded), (1, 1));
    let node = eventually::<Resource<NodeSpec>>(&rig, "/api/v1/nodes/n1", |node| {
        node.spec.revision_in_force >= before.revision
    })
    .await;
    assert!(node.spec.connected);
}

#[tokio::test]
async fn why_asks_the_agent_of_the_destination() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    let db = agent.resolve("red", "shop/db").await;
    agent.lease("red").await.unwrap();
    agent.scope(&[db.identity]).await;
    agent.endpoint(&web, "cni:net/c1/eth0", "10.64.0.1").await;
    agent.endpoint(&db, "cni:net/c2/eth0", "10.64.0.2").await;
    eventually::<List<Resource<EndpointSpec>>>(&rig, "/api/v1/endpoints", |list| list.items.len() == 2).await;
    let asking = rig.client.get::<Why>("/api/v1/why?from=web&to=db&port=tcp:5432");
    let answering = async {
        agent
            .until("the question", |agent| {
                agent.other.iter().any(|body| matches!(body, to_agent::Body::Ask(_)))
            })
            .await;
        let Some(to_agent::Body::Ask(ask)) = agent.other.pop_front() else { panic!("no question") };
        let Some(stream::ask::Body::Why(why)) = ask.body else { panic!("another question") };
        assert_eq!((why.from, why.to, why.protocol, why.port), (web.identity, db.identity, 6, 5432));
        let answer = LocalWhy {
            known: true,
            allowed: false,
            reason: "no-rule".to_owned(),
            rule: 0,
            rules: 3,
            denied_packets: 132,
        };
        let json = serde_json::to_string(&answer).unwrap();
        agent
            .say(from_agent::Body::Answer(stream::Answer { id: ask.id, json, problem: String::new() }))
            .await;
    };
    let (why, ()) = tokio::join!(asking, answering);
    let why = why.unwrap();
    assert!(!why.allowed);
    assert_eq!(why.reason, "no-rule");
    assert_eq!(why.fix.as_deref(), Some("isthmus policy allow k8s:shop/web@red k8s:shop/db@red tcp:5432"));
    let steps: BTreeMap<&str, (bool, &str)> =
        why.steps.iter().map(|step| (step.step.as_str(), (step.ok, step.text.as_str()))).collect();
    assert!(steps["source"].0 && steps["route"].0 && !steps["ingress"].0, "{steps:?}");
    assert!(steps["ingress"].1.contains("132 packets"), "{steps:?}");
}

#[tokio::test]
async fn why_without_an_agent_judges_by_the_compiled_table() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let _ = agent.resolve("red", "shop/web").await;
    let _ = agent.resolve("red", "shop/db").await;
    drop(agent);
    rig.allow("p", &[("web", "db", "tcp:1-9")]).await;
    let why: Why = rig.client.get("/api/v1/why?from=web&to=db&port=tcp:5").await.unwrap();
    assert!(why.allowed);
    assert!(why.steps[2].text.contains("of policy p decides"), "{:?}", why.steps);
    let why: Why = rig.client.get("/api/v1/why?from=web&to=db&port=tcp:10").await.unwrap();
    assert!(!why.allowed);
    let why: Why = rig.client.get("/api/v1/why?from=world&to=db&port=tcp:5").await.unwrap();
    assert!(!why.allowed && why.fix.is_none());
}

#[tokio::test]
async fn flows_are_collected_while_somebody_watches() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    let client = rig.client.clone();
    let (seen, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::spawn(async move {
        client
            .lines("/api/v1/flows?follow=true&verdict=denied&from=web", |line| {
                line.is_empty() || {
                    seen.send(line.to_owned()).unwrap();
                    false
                }
            })
            .await
    });
    let watching = |on| {
        move |agent: &Agent| agent.other.contains(&to_agent::Body::WatchFlows(stream::WatchFlows { on }))
    };
    agent.until("watching", watching(true)).await;
    let flow = |verdict: &str, identity: u32| {
        serde_json::to_string(&Flow {
            time_unix_ms: 1,
            node: "n1".to_owned(),
            verdict: verdict.to_owned(),
            reason: "no-rule".to_owned(),
            from_identity: format!("{identity:06x}"),
            from: String::new(),
            to_identity: "000004".to_owned(),
            to: String::new(),
            source: "10.64.0.1".parse().unwrap(),
            destination: "10.64.0.2".parse().unwrap(),
            protocol: 6,
            source_port: 1,
            destination_port: 2,
            rule: 0,
        })
        .unwrap()
    };
    let json = vec![
        flow("allowed", web.identity),
        flow("denied", 0x00ab_cdef),
        "{".to_owned(),
        flow("denied", web.identity),
    ];
    agent.say(from_agent::Body::Flows(stream::Flows { json, lost: 3 })).await;
    let line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
    let flow: Flow = serde_json::from_str(&line).unwrap();
    assert_eq!((flow.from.as_str(), flow.to.as_str()), ("k8s:shop/web@red", "world"));
    reader.await.unwrap().unwrap();
    agent.other.clear();
    // The reader left; the server notices when it next writes, or by itself.
    let again = flow_until_off(&mut agent, &web);
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

async fn flow_until_off(agent: &mut Agent, web: &stream::Workload) {
    let off = to_agent::Body::WatchFlows(stream::WatchFlows { on: false });
    while !agent.other.contains(&off) {
        // Anything that makes the server write to the reader, and answer us.
        let json = format!(
            "{{\"timeUnixMs\":1,\"node\":\"n1\",\"verdict\":\"denied\",\"reason\":\"no-rule\",\"fromIdentity\":\"{:06x}\",\"from\":\"\",\"toIdentity\":\"000004\",\"to\":\"\",\"source\":\"10.0.0.1\",\"destination\":\"10.0.0.2\",\"protocol\":6,\"sourcePort\":1,\"destinationPort\":2,\"rule\":0}}",
            web.identity
        );
        agent.say(from_agent::Body::Flows(stream::Flows { json: vec![json], lost: 0 })).await;
        let _ = agent.resolve("red", "shop/web").await;
    }
}

#[tokio::test]
async fn the_agents_own_status_is_asked_for() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let asking = rig.client.get::<AgentStatus>("/api/v1/nodes/n1/agent");
    let answering = async {
        agent
            .until("the question", |agent| {
                agent.other.iter().any(|body| matches!(body, to_agent::Body::Ask(_)))
            })
            .await;
        let Some(to_agent::Body::Ask(ask)) = agent.other.pop_front() else { panic!("no question") };
        let json =
            serde_json::to_string(&AgentStatus { node: "n1".to_owned(), rules: 7, ..AgentStatus::default() })
                .unwrap();
        agent
            .say(from_agent::Body::Answer(stream::Answer { id: ask.id, json, problem: String::new() }))
            .await;
    };
    let (status, ()) = tokio::join!(asking, answering);
    assert_eq!(status.unwrap().rules, 7);
    drop(agent);
    eventually::<Resource<NodeSpec>>(&rig, "/api/v1/nodes/n1", |node| !node.spec.connected).await;
    let away = rig.refusal::<()>(http::Method::GET, "/api/v1/nodes/n1/agent", None).await;
    assert_eq!((away.code.as_str(), away.status), ("ISE-0005", 503));
    assert_eq!(rig.refusal::<()>(http::Method::GET, "/api/v1/nodes/n9/agent", None).await.code, "ISE-0002");
}

#[tokio::test]
async fn of_a_large_scope_only_the_table_that_changed_is_sent() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let mut scope = Vec::new();
    for app in ["a", "b", "c", "d"] {
        scope.push(agent.resolve("red", app).await.identity);
    }
    agent.scope(&scope).await;
    agent.until("all tables", |agent| scope.iter().all(|identity| agent.table(*identity).is_some())).await;
    agent.synced().await;
    agent.sent.clear();
    rig.allow("p", &[("a", "b", "tcp:1")]).await;
    agent.synced().await;
    assert_eq!(agent.sent, [format!("table/{:06x}", scope[1])]);
    assert_eq!(agent.rules(scope[1]), 1);
}
