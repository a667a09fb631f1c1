//! BGP neighbours, the network's setting and external clusters: what people write, and what agents get of it.

use super::rig::{Agent, Rig, draft, hello, pool_spec, raw};
use http::Method;
use isthmus_api::{
    rest::{
        BgpPeerSpec, ClusterSpec, Draft, List, NetworkSpec, NodeSettings, NodeSpec, PoolSpec, PrefixMatch,
        Resource, Secret, WorkloadSpec,
    },
    stream::{BgpPeer, upsert::Value},
};
use std::collections::BTreeMap;

const PEERS: &str = "/api/v1/bgp/peers";

fn tor() -> BgpPeerSpec {
    BgpPeerSpec {
        address: "198.51.100.1".to_owned(),
        asn: Some(65_000),
        password: Some(Secret("sesame-street".to_owned())),
        import: vec![PrefixMatch { cidr: "10.0.0.0/8".to_owned(), len_min: None, len_max: Some(24) }],
        ..BgpPeerSpec::default()
    }
}

async fn set_cluster(rig: &Rig, asn: Option<u32>, topology: Option<&str>) {
    let spec = ClusterSpec {
        platform: "kubernetes".to_owned(),
        asn,
        topology: topology.map(str::to_owned),
        ..ClusterSpec::default()
    };
    let _: Resource<ClusterSpec> = rig.client.put("/api/v1/clusters/red", &draft("red", spec)).await.unwrap();
}

async fn set_network(rig: &Rig, encapsulation: &str) {
    let spec = NetworkSpec { encapsulation: Some(encapsulation.to_owned()), source_check: None };
    let _: Resource<NetworkSpec> = rig.client.put("/api/v1/network", &draft("network", spec)).await.unwrap();
}

async fn set_node(rig: &Rig, node: &str, labels: &[(&str, &str)], spec: NodeSettings) {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let body = Draft { name: node.to_owned(), labels, spec };
    let _: Resource<NodeSpec> = rig.client.put(&format!("/api/v1/nodes/{node}"), &body).await.unwrap();
}

fn peer<'a>(agent: &'a Agent, name: &str) -> Option<&'a BgpPeer> {
    match agent.view.get(&format!("bgp-peer/{name}")) {
        Some((_, Value::BgpPeer(peer))) => Some(peer),
        _ => None,
    }
}

#[tokio::test]
async fn a_password_is_written_and_never_returned() {
    let rig = Rig::with_clusters().await;
    let place = rig.running.rest_addr;
    let body = serde_json::to_vec(&draft("tor", tor())).unwrap();
    for (head, status) in [
        ("POST /api/v1/bgp/peers?dryRun=true HTTP/1.1", 200),
        ("POST /api/v1/bgp/peers HTTP/1.1", 201),
        ("POST /api/v1/bgp/peers HTTP/1.1", 409),
        ("PUT /api/v1/bgp/peers/tor?dryRun=true HTTP/1.1", 200),
        ("PUT /api/v1/bgp/peers/tor HTTP/1.1", 200),
        ("GET /api/v1/bgp/peers HTTP/1.1", 200),
        ("GET /api/v1/bgp/peers/tor HTTP/1.1", 200),
    ] {
        let (found, _, text) = raw(place, head, if head.starts_with("GET") { b"" } else { &body }).await;
        assert_eq!(found, status, "{head}: {text}");
        assert!(!text.contains("sesame"), "{head}: {text}");
    }
    let read: Resource<BgpPeerSpec> = rig.client.get(&format!("{PEERS}/tor")).await.unwrap();
    assert!(read.spec.password_set);
    assert_eq!((read.kind.as_str(), read.spec.prefixes_max), ("bgpPeer", Some(10_000)));
    // What was read can be written back, and keeps the password.
    set_cluster(&rig, Some(64_512), None).await;
    let changed = draft("tor", BgpPeerSpec { bfd: true, ..read.spec });
    let path = format!("{PEERS}/tor");
    let made: Resource<BgpPeerSpec> = rig.client.replace(&path, &changed, read.revision).await.unwrap();
    assert!(made.spec.bfd && made.spec.password_set);
    let agent = rig.agent("n1", 1).await;
    assert_eq!(peer(&agent, "tor").unwrap().password, "sesame-street");
    // Somebody else wrote meanwhile.
    let stale = rig.client.replace::<_, Resource<BgpPeerSpec>>(&path, &changed, read.revision).await;
    assert!(format!("{stale:?}").contains("ISE-0003"), "{stale:?}");
    let open = draft("tor", BgpPeerSpec { password: None, password_set: false, ..changed.spec });
    let open: Resource<BgpPeerSpec> = rig.client.put(&path, &open).await.unwrap();
    assert!(!open.spec.password_set);
    let _: serde_json::Value = rig.client.delete(&path).await.unwrap();
    assert_eq!(rig.refusal::<()>(Method::GET, &path, None).await.code, "ISE-0002");
}

#[tokio::test]
async fn a_cluster_says_what_its_nodes_announce_and_how_many_paths_they_use() {
    let rig = Rig::with_clusters().await;
    let spec = |paths_max| ClusterSpec {
        platform: "kubernetes".to_owned(),
        asn: Some(64_512),
        announce_endpoints: true,
        paths_max,
        ..ClusterSpec::default()
    };
    let path = "/api/v1/clusters/red";
    let made: Resource<ClusterSpec> = rig.client.put(path, &draft("red", spec(Some(4)))).await.unwrap();
    assert!(made.spec.announce_endpoints && made.spec.paths_max == Some(4));
    let agent = rig.agent("n1", 1).await;
    match agent.view.get("bgp") {
        Some((_, Value::Bgp(bgp))) => assert_eq!((bgp.announce_endpoints, bgp.paths_max), (true, 4)),
        other => panic!("{other:?}"),
    }
    let problem = rig.refusal(Method::PUT, path, Some(&draft("red", spec(Some(0))))).await;
    assert!(problem.status == 400 && problem.detail.contains("pathsMax is 0"), "{problem:?}");
}

#[tokio::test]
async fn a_neighbour_with_faults_is_refused_with_all_of_them() {
    let rig = Rig::with_clusters().await;
    let bad = BgpPeerSpec {
        asn: Some(0),
        cluster: Some("violet".to_owned()),
        hold_seconds: Some(1),
        password: Some(Secret("sesame\n".to_owned())),
        ..tor()
    };
    let problem = rig.refusal(Method::POST, PEERS, Some(&draft("tor", bad))).await;
    assert_eq!((problem.code.as_str(), problem.status), ("ISE-0801", 400));
    for part in ["asn: AS 0", "there is no cluster violet", "holdSeconds: 1", "password: it has control"] {
        assert!(problem.detail.contains(part), "{part}: {}", problem.detail);
    }
    assert!(!problem.detail.contains("sesame"), "{}", problem.detail);
    let page: List<Resource<BgpPeerSpec>> = rig.client.get(PEERS).await.unwrap();
    assert!(page.items.is_empty());
    // Two at one address of one node.
    let _n1 = rig.agent("n1", 1).await;
    let _: Resource<BgpPeerSpec> = rig.client.post(PEERS, &draft("tor", tor())).await.unwrap();
    let problem = rig.refusal(Method::POST, PEERS, Some(&draft("twin", tor()))).await;
    assert!(problem.detail.contains("bgpPeer tor's already on node n1"), "{}", problem.detail);
    let elsewhere = BgpPeerSpec { nodes: vec!["n2".to_owned()], ..tor() };
    let _: Resource<BgpPeerSpec> = rig.client.post(PEERS, &draft("twin", elsewhere)).await.unwrap();
}

#[tokio::test]
async fn agents_get_their_speaker_and_neighbours_as_they_change() {
    let rig = Rig::with_clusters().await;
    let mut one = rig.agent("n1", 1).await;
    assert!(!one.view.contains_key("bgp"));
    set_cluster(&rig, Some(64_512), None).await;
    one.until("a speaker", |agent| agent.view.contains_key("bgp")).await;
    let two = rig.agent("n2", 2).await;
    assert_eq!(peer(&two, "node/n1").unwrap().address, "192.0.2.1");
    one.until("n2", |agent| peer(agent, "node/n2").is_some()).await;
    // A selector by labels.
    let by_label = BgpPeerSpec { node_labels: BTreeMap::from([("rack".into(), "a".into())]), ..tor() };
    let _: Resource<BgpPeerSpec> = rig.client.post(PEERS, &draft("tor", by_label)).await.unwrap();
    set_node(&rig, "n1", &[("rack", "a")], NodeSettings { reflector: Some("10.0.0.1".into()), asn: None })
        .await;
    one.until("tor", |agent| peer(agent, "tor").is_some()).await;
    one.until("a reflector", |agent| {
        peer(agent, "node/n2").is_some_and(|peer| peer.reflector_client)
            && matches!(&agent.view["bgp"].1, Value::Bgp(bgp) if bgp.cluster_id == "10.0.0.1")
    })
    .await;
    one.synced().await;
    // The hello of an agent leaves what people set, and nothing that is held is sent again.
    let held = one.view.clone();
    drop(one);
    let mut again = Agent::resume(&rig, hello("n1", 1), held).await.unwrap();
    assert!(again.sent.is_empty(), "{:?}", again.sent);
    set_node(&rig, "n1", &[], NodeSettings::default()).await;
    again.until("tor is gone", |agent| peer(agent, "tor").is_none()).await;
    set_cluster(&rig, Some(64_512), Some("none")).await;
    again.until("no mesh", |agent| peer(agent, "node/n2").is_none()).await;
    set_cluster(&rig, None, None).await;
    again.until("no speaker", |agent| !agent.view.contains_key("bgp")).await;
}

#[tokio::test]
async fn the_networks_setting_is_always_there() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let read: Resource<NetworkSpec> = rig.client.get("/api/v1/network").await.unwrap();
    assert_eq!((read.revision, read.spec.encapsulation.as_deref()), (0, Some("always")));
    set_network(&rig, "never").await;
    agent.until("native", |agent| agent.view.contains_key("network")).await;
    let bad = draft("network", NetworkSpec { encapsulation: Some("maybe".into()), source_check: None });
    let problem = rig.refusal(Method::PUT, "/api/v1/network", Some(&bad)).await;
    assert!(problem.detail.contains("always or cross-subnet or never"), "{}", problem.detail);
    let old = draft("network", read.spec);
    let stale = rig.client.replace::<_, Resource<NetworkSpec>>("/api/v1/network", &old, 0);
    assert!(format!("{:?}", stale.await).contains("ISE-0003"));
}

#[tokio::test]
async fn in_native_mode_agents_get_the_members_that_their_rules_name() {
    let rig = Rig::with_clusters().await;
    let (mut one, mut two) = (rig.agent("n1", 1).await, rig.agent("n2", 2).await);
    let (web, cart, other) = (
        two.resolve("red", "shop/web").await,
        one.resolve("red", "shop/cart").await,
        two.resolve("red", "shop/other").await,
    );
    two.endpoint(&web, "web-1", "10.64.0.66").await;
    two.endpoint(&other, "other-1", "10.64.0.67").await;
    one.endpoint(&web, "web-0", "10.64.0.2").await;
    one.scope(&[cart.identity]).await;
    rig.allow("p", &[("web", "cart", "tcp:80")]).await;
    one.until("its table", |agent| agent.rules(cart.identity) == 1).await;
    let members = |agent: &Agent| -> Vec<String> {
        agent.view.keys().filter(|key| key.starts_with("peer/")).cloned().collect()
    };
    assert!(members(&one).is_empty());
    set_network(&rig, "cross-subnet").await;
    one.until("members elsewhere", |agent| members(agent) == ["peer/10.64.0.66"]).await;
    two.endpoint(&web, "web-2", "10.64.0.70").await;
    one.until("a new member", |agent| members(agent) == ["peer/10.64.0.66", "peer/10.64.0.70"]).await;
    let gone = isthmus_api::stream::EndpointGone { id: "web-1".to_owned() };
    two.say(isthmus_api::stream::from_agent::Body::EndpointGone(gone)).await;
    one.until("a member less", |agent| members(agent) == ["peer/10.64.0.70"]).await;
    // Another's address now.
    two.endpoint(&other, "web-2", "10.64.0.70").await;
    one.until("no member", |agent| members(agent).is_empty()).await;
    two.endpoint(&web, "web-3", "10.64.0.71").await;
    one.until("one again", |agent| members(agent).len() == 1).await;
    // The rule goes, and with it who is named by it.
    let _: serde_json::Value = rig.client.delete("/api/v1/policies/p").await.unwrap();
    one.until("nobody is named", |agent| members(agent).is_empty()).await;
    assert!(members(&two).is_empty(), "no rule of its own names anybody");
    rig.allow("p", &[("web", "cart", "tcp:80")]).await;
    one.until("named again", |agent| members(agent).len() == 1).await;
    set_network(&rig, "always").await;
    one.until("encapsulated", |agent| members(agent).is_empty()).await;
}

#[tokio::test]
async fn an_external_cluster_is_one_workload_and_ranges() {
    let rig = Rig::with_clusters().await;
    let mut agent = rig.agent("n1", 1).await;
    let spec = ClusterSpec { platform: "mesos".to_owned(), external: true, ..ClusterSpec::default() };
    let _: Resource<ClusterSpec> =
        rig.client.post("/api/v1/clusters", &draft("dcos", spec.clone())).await.unwrap();
    let path = "/api/v1/workloads/mesos:external%2Fdcos@dcos";
    let workload: Resource<WorkloadSpec> = rig.client.get(path).await.unwrap();
    assert_eq!(workload.name, "mesos:external/dcos@dcos");
    rig.pool("dcos", "dcos", &["192.168.128.0/17"]).await;
    let small = PoolSpec { world: true, ..pool_spec("dcos", &["172.16.18.1/32"]) };
    let _: Resource<PoolSpec> = rig.client.post("/api/v1/pools", &draft("router", small)).await.unwrap();
    agent
        .until("ranges", |agent| {
            let identity = |key: &str| match agent.view.get(key) {
                Some((_, Value::Foreign(range))) => format!("{:06x}", range.identity),
                _ => String::new(),
            };
            identity("foreign/192.168.128.0/17") == workload.spec.identities[0]
                && identity("foreign/172.16.18.1/32") == "000004"
        })
        .await;
    assert!(!agent.view.keys().any(|key| key.starts_with("pool/dcos")), "{:?}", agent.view.keys());
    // Policies name it like any other.
    let cart = agent.resolve("red", "shop/cart").await;
    agent.scope(&[cart.identity]).await;
    rig.allow("p", &[("mesos:external/dcos@dcos", "cart", "tcp:80")]).await;
    agent.until("its rule", |agent| agent.rules(cart.identity) == 1).await;
    // Its addresses are not ours to give, ours are nobody else's.
    assert!(agent.lease("dcos").await.unwrap_err().message.contains("external"));
    let ours = draft("x", PoolSpec { world: true, ..pool_spec("red", &["10.99.0.0/24"]) });
    assert_eq!(rig.refusal(Method::POST, "/api/v1/pools", Some(&ours)).await.code, "ISE-0001");
    let inner = draft("dcos", ClusterSpec { external: false, ..spec });
    assert_eq!(rig.refusal(Method::PUT, "/api/v1/clusters/dcos", Some(&inner)).await.code, "ISE-0003");
    assert_eq!(rig.refusal::<()>(Method::DELETE, path, None).await.code, "ISE-0003");
    for path in ["policies/p", "pools/dcos", "pools/router", "clusters/dcos"] {
        let _: serde_json::Value = rig.client.delete(&format!("/api/v1/{path}")).await.unwrap();
    }
    agent.until("no ranges", |agent| !agent.view.keys().any(|key| key.starts_with("foreign/"))).await;
}
