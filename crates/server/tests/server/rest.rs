//! The REST API.

use crate::rig::{Agent, PATIENCE, Rig, draft, eventually, hello, policy_spec, pool_spec, raw, unseen};
use http::Method;
use isthmus_api::rest::{
    BlockSpec, ClusterSpec, EndpointSpec, IdentitySpec, List, NetworkStatus, NodeSpec, PolicySpec, PoolSpec,
    Problem, Resource, WorkloadSpec,
};
use std::time::Instant;

fn cluster_spec(platform: &str) -> ClusterSpec {
    ClusterSpec { platform: platform.to_owned(), ..ClusterSpec::default() }
}

#[tokio::test]
async fn a_cluster_is_made_read_replaced_and_deleted() {
    let rig = Rig::start().await;
    let path = "/api/v1/clusters/green";
    let made: Resource<ClusterSpec> =
        rig.client.post("/api/v1/clusters", &draft("green", cluster_spec("cf"))).await.unwrap();
    assert_eq!((made.kind.as_str(), made.name.as_str()), ("cluster", "green"));
    assert_eq!(made.spec.platform, "cloudfoundry");
    // What the platform's users expect is said, not left out.
    assert_eq!((made.spec.default.as_deref(), made.spec.deny.as_deref()), (Some("closed"), Some("reject")));
    let read: Resource<ClusterSpec> = rig.client.get(path).await.unwrap();
    assert_eq!(read, made);
    let open = ClusterSpec { default: Some("open".to_owned()), ..cluster_spec("cloudfoundry") };
    let put: Resource<ClusterSpec> = rig.client.put(path, &draft("green", open)).await.unwrap();
    assert_eq!((put.spec.default.as_deref(), put.uuid), (Some("open"), made.uuid));
    assert!(put.revision > made.revision);
    rig.client.delete::<()>(path).await.unwrap();
    assert_eq!(rig.refusal::<()>(Method::GET, path, None).await.code, "ISE-0002");
    assert_eq!(rig.refusal::<()>(Method::DELETE, path, None).await.code, "ISE-0002");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a flat table")]
async fn refusals_are_problem_documents_with_codes() {
    let rig = Rig::with_clusters().await;
    let place = rig.running.rest_addr;
    let checks: [(&str, &str, u16, &str, &str); 22] = [
        ("GET /nothing", "", 404, "ISE-0002", "there is no path /nothing"),
        ("GET /api/v1/nothing", "", 404, "ISE-0002", "there is no path"),
        ("GET /api/v1/clusters/", "", 404, "ISE-0002", "there is no path"),
        ("POST /api/v1/nodes", "{}", 405, "ISE-0007", "POST"),
        ("PATCH /api/v1/clusters/red", "{}", 405, "ISE-0007", "PATCH"),
        ("POST /api/v1/clusters", "", 400, "ISE-0001", "empty"),
        ("POST /api/v1/clusters", "{", 400, "ISE-0001", "line 1 column 1"),
        (
            "POST /api/v1/clusters",
            r#"{"name":"x","spec":{"platform":"nomad","color":1}}"#,
            400,
            "ISE-0001",
            "color",
        ),
        ("POST /api/v1/clusters", r#"{"name":"a/b","spec":{"platform":"nomad"}}"#, 400, "ISE-0103", "'/'"),
        ("POST /api/v1/clusters", r#"{"name":"x","spec":{"platform":"borg"}}"#, 400, "ISE-0001", "borg"),
        (
            "POST /api/v1/clusters",
            r#"{"name":"x","spec":{"platform":"nomad","default":"ajar"}}"#,
            400,
            "ISE-0001",
            "write open or closed",
        ),
        (
            "POST /api/v1/clusters",
            r#"{"name":"red","spec":{"platform":"nomad"}}"#,
            409,
            "ISE-0003",
            "already",
        ),
        (
            "PUT /api/v1/clusters/red",
            r#"{"name":"blue","spec":{"platform":"nomad"}}"#,
            400,
            "ISE-0001",
            "names do not change",
        ),
        (
            "PUT /api/v1/clusters/blue",
            r#"{"name":"blue","spec":{"platform":"nomad"}}"#,
            404,
            "ISE-0002",
            "blue",
        ),
        ("GET /api/v1/clusters?colour=red", "", 400, "ISE-0001", "unknown parameter colour"),
        ("GET /api/v1/clusters?limit=0", "", 400, "ISE-0001", "limit=0"),
        ("GET /api/v1/clusters?limit=x", "", 400, "ISE-0001", "limit=x"),
        ("GET /api/v1/clusters?limit=1&limit=2", "", 400, "ISE-0001", "twice"),
        ("GET /api/v1/workloads?after=x", "", 400, "ISE-0001", "no cursor"),
        ("GET /api/v1/clusters/red?names=1", "", 400, "ISE-0001", "takes none"),
        ("DELETE /api/v1/clusters/red", "", 409, "ISE-0204", "pool red-1"),
        ("GET /api/v1/why?from=a&to=b", "", 400, "ISE-0001", "port is missing"),
    ];
    for (request, body, status, code, part) in checks {
        let (found, head, text) = raw(place, &format!("{request} HTTP/1.1"), body.as_bytes()).await;
        let problem: Problem = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{request}: {text}"));
        assert_eq!(
            (found.as_u16(), problem.status, problem.code.as_str()),
            (status, status, code),
            "{request} {body}: {text}"
        );
        assert!(problem.detail.contains(part), "{request} {body}: {text}");
        assert_eq!(problem.kind, format!("/docs/errors/{code}"));
        assert!(head.contains("application/problem+json"), "{head}");
    }
    let big = vec![b' '; (10 << 20) + 1];
    let (status, _, text) = raw(place, "POST /api/v1/policies HTTP/1.1", &big).await;
    assert_eq!(status, 413);
    assert!(text.contains("ISE-0004"), "{text}");
}

#[tokio::test]
async fn pools_never_overlap() {
    let rig = Rig::with_clusters().await;
    for cidr in ["10.64.0.0/24", "10.64.0.128/25", "10.64.0.0/12"] {
        let body = draft("other", pool_spec("green", &[cidr]));
        let problem = rig.refusal(Method::POST, "/api/v1/pools", Some(&body)).await;
        assert_eq!(problem.code, "ISE-0201");
        assert!(problem.detail.contains("other") && problem.detail.contains("red-1"), "{}", problem.detail);
    }
    let dry = draft("dry", pool_spec("green", &["10.64.0.0/24"]));
    let problem = rig.refusal(Method::POST, "/api/v1/pools?dryRun=true", Some(&dry)).await;
    assert_eq!(problem.code, "ISE-0201");
    let nowhere = draft("x", pool_spec("violet", &["10.66.0.0/24"]));
    assert_eq!(rig.refusal(Method::POST, "/api/v1/pools", Some(&nowhere)).await.code, "ISE-0101");
    let _agent = rig.agent("n1", 1).await;
    let node = draft("x", pool_spec("red", &["192.0.2.0/24"]));
    let problem = rig.refusal(Method::POST, "/api/v1/pools", Some(&node)).await;
    assert_eq!(problem.code, "ISE-0201");
    assert!(problem.detail.contains("node n1"), "{}", problem.detail);
}

#[tokio::test]
async fn of_pools_that_overlap_and_are_made_at_once_one_wins() {
    let rig = Rig::with_clusters().await;
    let names: Vec<String> = (0..16).map(|number| format!("p{number}")).collect();
    let attempts = names.iter().map(|name| async {
        let body = draft(name, pool_spec("red", &["10.70.0.0/16"]));
        rig.client.post::<_, Resource<PoolSpec>>("/api/v1/pools", &body).await.is_ok()
    });
    let made = futures::future::join_all(attempts).await.into_iter().filter(|made| *made).count();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_pool_in_use_keeps_what_its_blocks_need() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    agent.lease("red").await.unwrap();
    let path = "/api/v1/pools/red-1";
    assert_eq!(rig.refusal::<()>(Method::DELETE, path, None).await.code, "ISE-0203");
    let moved = draft("red-1", pool_spec("red", &["10.71.0.0/24"]));
    assert_eq!(rig.refusal(Method::PUT, path, Some(&moved)).await.code, "ISE-0203");
    let shorter = draft("red-1", PoolSpec { block_len: Some(27), ..pool_spec("red", &["10.64.0.0/24"]) });
    assert_eq!(rig.refusal(Method::PUT, path, Some(&shorter)).await.code, "ISE-0203");
    let grown = draft("red-1", pool_spec("red", &["10.64.0.0/24", "10.71.0.0/24"]));
    let grown: Resource<PoolSpec> = rig.client.put(path, &grown).await.unwrap();
    assert_eq!(grown.spec.cidrs.len(), 2);
    let blocks: List<Resource<BlockSpec>> = rig.client.get("/api/v1/blocks?node=n1").await.unwrap();
    assert_eq!(blocks.items[0].name, "10.64.0.0-26");
    let block: Resource<BlockSpec> = rig.client.get("/api/v1/blocks/10.64.0.0-26").await.unwrap();
    assert_eq!(block, blocks.items[0]);
    let same: Resource<BlockSpec> = rig.client.get("/api/v1/blocks/10.64.0.0/26").await.unwrap();
    assert_eq!(same, block);
}

#[tokio::test]
async fn an_etag_guards_against_lost_changes() {
    let rig = Rig::with_clusters().await;
    let place = rig.running.rest_addr;
    let (_, head, _) = raw(place, "GET /api/v1/clusters/red HTTP/1.1", b"").await;
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let body = br#"{"name":"red","spec":{"platform":"kubernetes","default":"open"}}"#;
    let put = |etag: &str| format!("PUT /api/v1/clusters/red HTTP/1.1\r\nIf-Match: {etag}");
    let (status, head, _) = raw(place, &put(&etag), body).await;
    assert_eq!(status, 200);
    assert!(!head.contains(&format!("etag: {etag}\r")), "{head}");
    let other = br#"{"name":"red","spec":{"platform":"kubernetes","default":"closed"}}"#;
    let (status, _, text) = raw(place, &put(&etag), other).await;
    assert_eq!(status, 412);
    assert!(text.contains("ISE-0003") && text.contains("somebody changed it"), "{text}");
    let (status, _, _) = raw(place, &put("*"), other).await;
    assert_eq!(status, 200);
    let (status, _, _) = raw(place, &put("nonsense"), other).await;
    assert_eq!(status, 400);
    let delete = format!("DELETE /api/v1/clusters/red HTTP/1.1\r\nIf-Match: {etag}");
    assert_eq!(raw(place, &delete, b"").await.0, 412);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let _ = agent.resolve("red", "shop/web").await;
    let before = rig.store.revision().unwrap();
    let cluster: Resource<ClusterSpec> =
        rig.client.post("/api/v1/clusters?dryRun=true", &draft("blue", cluster_spec("nomad"))).await.unwrap();
    assert_eq!(cluster.revision, 0);
    let _: Resource<PoolSpec> = rig
        .client
        .post("/api/v1/pools?dryRun=true", &draft("red-2", pool_spec("red", &["10.65.0.0/24"])))
        .await
        .unwrap();
    let policy: Resource<PolicySpec> = rig
        .client
        .post("/api/v1/policies?dryRun=true", &draft("p", policy_spec(&[("web", &unseen(1), "tcp:1")])))
        .await
        .unwrap();
    assert_eq!(policy.spec.rules[0].to, unseen(1));
    rig.client.delete::<()>("/api/v1/pools/red-1?dryRun=true").await.unwrap();
    drop(agent);
    assert_eq!(rig.store.revision().unwrap(), before);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let rig = Rig::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        rig.cluster(name, "nomad", None).await;
    }
    let mut names = Vec::new();
    let mut path = "/api/v1/clusters?limit=2".to_owned();
    loop {
        let page: List<Resource<ClusterSpec>> = rig.client.get(&path).await.unwrap();
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|item| item.name));
        let Some(next) = page.next else { break };
        path = format!("/api/v1/clusters?limit=2&after={next}");
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn labels_are_kept_and_selected() {
    let rig = Rig::start().await;
    for (name, tier) in [("a", "gold"), ("b", "tin")] {
        let mut body = draft(name, cluster_spec("nomad"));
        body.labels.insert("tier".to_owned(), tier.to_owned());
        let _: Resource<ClusterSpec> = rig.client.post("/api/v1/clusters", &body).await.unwrap();
    }
    let gold: List<Resource<ClusterSpec>> =
        rig.client.get("/api/v1/clusters?labelSelector=tier%3Dgold").await.unwrap();
    assert_eq!(gold.items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let problem = rig.refusal::<()>(Method::GET, "/api/v1/clusters?labelSelector=%3Dx", None).await;
    assert_eq!(problem.code, "ISE-0001");
}

#[tokio::test]
async fn unknown_and_ambiguous_names_list_what_there_is() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    for id in ["shop/web", "batch/web", "shop/db"] {
        let _ = agent.resolve("red", id).await;
    }
    let post = |from: &str, to: &str, port: &str| {
        let body = draft("p", policy_spec(&[("shop/web", "db", "tcp:1"), (from, to, port)]));
        let rig = &rig;
        async move { rig.refusal(Method::POST, "/api/v1/policies", Some(&body)).await }
    };
    let ambiguous = post("web", "db", "tcp:1").await;
    assert_eq!((ambiguous.code.as_str(), ambiguous.status), ("ISE-0102", 422));
    assert!(ambiguous.detail.contains("rule 2"), "{}", ambiguous.detail);
    assert!(ambiguous.detail.contains("k8s:batch/web@red, k8s:shop/web@red"), "{}", ambiguous.detail);
    let unknown = post("wep", "db", "tcp:1").await;
    assert_eq!(unknown.code, "ISE-0101");
    let near = post("shop/web@blue", "db", "tcp:1").await;
    assert!(near.detail.contains("k8s:shop/web@red"), "{}", near.detail);
    assert_eq!(post("x:y:z@", "db", "tcp:1").await.code, "ISE-0103");
    let rule = post("shop/web", "db", "tcp:9-8").await;
    assert_eq!(rule.code, "ISE-0301");
    assert!(rule.detail.contains("rule 2") && rule.detail.contains("9-8"), "{}", rule.detail);
    let empty = rig.refusal(Method::POST, "/api/v1/policies", Some(&draft("p", policy_spec(&[])))).await;
    assert_eq!(empty.code, "ISE-0301");
}

#[tokio::test]
async fn ten_thousand_rules_are_written_at_once_and_keep_their_numbers() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let _ = agent.resolve("red", "shop/web").await;
    let db = agent.resolve("red", "shop/db").await.identity;
    agent.scope(&[db]).await;
    agent.until("the table", |agent| agent.table(db).is_some()).await;
    let ports: Vec<String> = (1..=10_000).map(|port| format!("tcp:{port}")).collect();
    let rules: Vec<(&str, &str, &str)> = ports.iter().map(|port| ("web", "db", port.as_str())).collect();
    let started = Instant::now();
    rig.allow("many", &rules).await;
    let took = started.elapsed();
    assert!(took < PATIENCE, "{took:?}");
    agent.until("the rules", |agent| agent.rules(db) == 10_000).await;
    let number = |agent: &Agent, port: u32| {
        agent.table(db).unwrap().rules.iter().find(|rule| rule.first_port == port).map(|rule| rule.number)
    };
    let before = number(&agent, 9_000);
    assert!(before.is_some_and(|number| number > 0));
    let fewer = draft("many", policy_spec(&rules[5_000..]));
    let _: Resource<PolicySpec> = rig.client.put("/api/v1/policies/many", &fewer).await.unwrap();
    agent.until("fewer rules", |agent| agent.rules(db) == 5_000).await;
    assert_eq!(number(&agent, 9_000), before);
    let more: Vec<(&str, &str, &str)> = rules.iter().copied().chain([("web", "db", "udp:1")]).collect();
    let problem =
        rig.refusal(Method::PUT, "/api/v1/policies/many", Some(&draft("many", policy_spec(&more)))).await;
    assert_eq!(problem.code, "ISE-0004");
}

#[tokio::test]
async fn writing_a_policy_tells_how_many_nodes_need_it() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let _other = rig.agent("n2", 2).await;
    let _ = agent.resolve("red", "shop/web").await;
    let db = agent.resolve("red", "shop/db").await.identity;
    agent.scope(&[db]).await;
    agent.until("the table", |agent| agent.table(db).is_some()).await;
    let body = serde_json::to_vec(&draft("p", policy_spec(&[("web", "db", "tcp:1")]))).unwrap();
    let (status, head, _) = rig.raw(rig.running.rest_addr, "POST /api/v1/policies HTTP/1.1", &body).await;
    assert_eq!(status, 201);
    assert!(head.contains("isthmus-nodes-needing: 1"), "{head}");
}

#[tokio::test]
async fn workloads_are_found_by_name_and_uuid() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    let one: Resource<WorkloadSpec> =
        rig.client.get(&format!("/api/v1/workloads/{}", web.uuid)).await.unwrap();
    assert_eq!(one.spec.full_name, "k8s:shop/web@red");
    assert_eq!(one.spec.identities, [format!("{:06x}", web.identity)]);
    for name in ["web", "k8s:shop/web@red", "shop/web"] {
        let same: Resource<WorkloadSpec> =
            rig.client.get(&format!("/api/v1/workloads/{name}")).await.unwrap();
        assert_eq!(same, one);
    }
    let identity: Resource<IdentitySpec> =
        rig.client.get(&format!("/api/v1/identities/{:06x}", web.identity)).await.unwrap();
    assert_eq!(identity.spec.workload_name, "k8s:shop/web@red");
    assert_eq!(rig.refusal::<()>(Method::GET, "/api/v1/workloads/wep", None).await.code, "ISE-0002");
    // What a policy names stays; then it can go, and its number with it.
    let _ = agent.resolve("red", "shop/db").await;
    rig.allow("p", &[("web", "db", "any")]).await;
    assert_eq!(rig.refusal::<()>(Method::DELETE, "/api/v1/workloads/web", None).await.code, "ISE-0003");
    rig.client.delete::<()>("/api/v1/policies/p").await.unwrap();
    rig.client.delete::<()>("/api/v1/workloads/web").await.unwrap();
    let path = format!("/api/v1/identities/{:06x}", web.identity);
    assert_eq!(rig.refusal::<()>(Method::GET, &path, None).await.code, "ISE-0002");
    // It comes back with another number: this one rests.
    let again = agent.resolve("red", "shop/web").await;
    assert_eq!(again.uuid, web.uuid);
    assert_ne!(again.identity, web.identity);
}

#[tokio::test]
async fn a_node_is_deleted_with_what_it_had_once_its_agent_is_away() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    agent.lease("red").await.unwrap();
    agent.endpoint(&web, "cni:net/c1/eth0", "10.64.0.1").await;
    eventually::<List<Resource<EndpointSpec>>>(&rig, "/api/v1/endpoints", |list| list.items.len() == 1).await;
    let path = "/api/v1/nodes/n1";
    assert_eq!(rig.refusal::<()>(Method::DELETE, path, None).await.code, "ISE-0404");
    drop(agent);
    eventually::<Resource<NodeSpec>>(&rig, path, |node| !node.spec.connected).await;
    rig.client.delete::<()>(path).await.unwrap();
    let nodes: List<Resource<NodeSpec>> = rig.client.get("/api/v1/nodes").await.unwrap();
    let blocks: List<Resource<BlockSpec>> = rig.client.get("/api/v1/blocks").await.unwrap();
    let endpoints: List<Resource<EndpointSpec>> = rig.client.get("/api/v1/endpoints").await.unwrap();
    assert_eq!((nodes.items.len(), blocks.items.len(), endpoints.items.len()), (0, 0, 0));
    // Number and address are free again.
    let mut other = hello("n2", 1);
    other.instance = "x".to_owned();
    assert_eq!(Agent::join(&rig, other).await.unwrap().number, 1);
}

#[tokio::test]
async fn status_tells_what_a_person_should_look_at() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    agent.endpoint(&web, "cni:net/c1/eth0", "10.99.0.1").await;
    let status =
        eventually::<NetworkStatus>(&rig, "/api/v1/status", |status| !status.problems.is_empty()).await;
    assert!(status.problems[0].place.starts_with("endpoint n1/"), "{:?}", status.problems);
    let red = status.clusters.iter().find(|cluster| cluster.cluster == "red").unwrap();
    assert_eq!((red.platform.as_str(), red.nodes, red.nodes_connected, red.apps), ("k8s", 1, 1, 1));
    agent
        .say(isthmus_api::stream::from_agent::Body::InForce(isthmus_api::stream::InForce {
            revision: 1,
            problem: "map full".to_owned(),
        }))
        .await;
    let degraded = |status: &NetworkStatus| status.clusters.iter().any(|cluster| cluster.state == "degraded");
    eventually::<NetworkStatus>(&rig, "/api/v1/status", degraded).await;
    drop(agent);
    let away = |status: &NetworkStatus| status.problems.iter().any(|problem| problem.text.contains("silent"));
    eventually::<NetworkStatus>(&rig, "/api/v1/status", away).await;
}

#[tokio::test]
async fn health_metrics_and_the_document_are_served() {
    let rig = Rig::with_clusters().await;
    let _agent = rig.agent("n1", 1).await;
    let place = rig.running.rest_addr;
    assert_eq!(raw(place, "GET /healthz HTTP/1.1", b"").await.0, 200);
    assert_eq!(raw(place, "GET /readyz HTTP/1.1", b"").await.0, 200);
    let (_, _, text) = raw(place, "GET /metrics HTTP/1.1", b"").await;
    for part in [
        "isthmus_build_info{version=",
        "isthmus_agents_connected 1",
        "isthmus_ipam_blocks{pool=\"red-1\",state=\"free\"} 4",
        "isthmus_nodes{cluster=\"red\"} 1",
        "isthmus_policy_revision ",
        "isthmus_http_answers_total{",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let document: serde_json::Value = rig.client.get("/api/v1/openapi.json").await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    // Every path and method of the document is there, and says so by anything but 404 (path) or 405.
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            if path.ends_with("/flows") {
                continue;
            }
            let request = format!("{} {} HTTP/1.1", method.to_uppercase(), path.replace("{name}", "x"));
            let (status, _, text) = raw(place, &request, b"").await;
            assert!(status != 405 && !text.contains("there is no path"), "{request}: {status} {text}");
        }
    }
}

#[tokio::test]
async fn a_public_address_is_refused_at_start_too() {
    let config =
        isthmus_server::Config { listen: "0.0.0.0:0".parse().unwrap(), ..isthmus_server::Config::default() };
    let store = std::sync::Arc::new(isthmus_store::MemoryStore::new());
    let error = isthmus_server::Server::start(&config, store).await.unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_its_key() {
    let rig = Rig::start().await;
    let config = isthmus_server::Config {
        listen: rig.running.rest_addr,
        agents: "127.0.0.1:0".parse().unwrap(),
        cf_policy: None,
        ..isthmus_server::Config::default()
    };
    let store = std::sync::Arc::new(isthmus_store::MemoryStore::new());
    let error = isthmus_server::Server::start(&config, store).await.unwrap_err();
    assert!(error.to_string().contains("key listen"), "{error}");
}

#[tokio::test]
async fn a_server_on_a_file_has_everything_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let open = || std::sync::Arc::new(isthmus_store::RedbStore::open(&path).unwrap());
    let rig = Rig::on(open()).await;
    rig.cluster("red", "kubernetes", None).await;
    let mut agent = rig.agent("n1", 1).await;
    let web = agent.resolve("red", "shop/web").await;
    drop(agent);
    let Rig { running, client, store } = rig;
    drop(client);
    drop(store);
    running.stop().await;
    let rig = Rig::on(open()).await;
    let mut agent = rig.agent("n1", 1).await;
    assert_eq!(agent.resolve("red", "shop/web").await, web);
}
