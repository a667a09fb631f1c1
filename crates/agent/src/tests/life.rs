//! Attach, detach, restart, and everything that can be away.

use super::*;
use isthmus_api::{
    adapter::{Check, Collect, FailureKind},
    stream::Rule,
};
use isthmus_core::Identity;
use std::collections::BTreeSet;

fn identity(number: u32) -> Identity {
    Identity::new(number).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_an_address_a_link_and_its_rules() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let attached = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    assert_eq!(attached.addresses, ["10.64.0.0".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(attached.mtu, 1_450);
    assert_eq!(attached.node_address, "192.0.2.1".parse::<std::net::IpAddr>().unwrap());
    let link = node.kernel.link(&attached.host_interface).unwrap();
    assert_eq!(link.identity, identity(256));
    assert!(node.kernel.table(identity(256)).is_some());
    until("the server knows the endpoint", || node.server.endpoints().contains_key("cni:isthmus/c1/eth0"))
        .await;
    assert_eq!(node.server.endpoints()["cni:isthmus/c1/eth0"].mac, attached.mac);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_container_twice_gets_the_same_answer() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let netns = Netns::new();
    let first = agent.attach(attach("c1", "web"), &netns).await.unwrap();
    assert_eq!(agent.attach(attach("c1", "web"), &netns).await, Ok(first.clone()));
    node.kernel.remove_link(&first.host_interface);
    let again = agent.attach(attach("c1", "web"), &netns).await.unwrap();
    assert_eq!(again.addresses, first.addresses, "made anew with its address");
    assert!(node.kernel.link(&first.host_interface).is_some());
    let elsewhere = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    assert_eq!(elsewhere.addresses, first.addresses, "a new namespace under the same key");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detach_succeeds_for_what_is_there_and_for_what_is_not() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.detach("never-seen").await.unwrap();
    let attached = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    for _ in 0..2 {
        agent.detach("c1").await.unwrap();
    }
    assert!(node.kernel.link(&attached.host_interface).is_none());
    until("the server forgot it", || node.server.endpoints().is_empty()).await;
    let next = agent.attach(attach("c2", "web"), &Netns::new()).await.unwrap();
    assert_ne!(next.addresses, attached.addresses, "an address rests before it comes again");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_and_is_sent_nothing_that_is_held() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let netns = Netns::new();
    let first = agent.attach(attach("c1", "web"), &netns).await.unwrap();
    // The second block is leased ahead.
    let settled = || node.server.leases() == 2 && node.server.in_force() == node.server.revision();
    until("all is in force", settled).await;
    agent.stop().await;
    assert!(node.kernel.link(&first.host_interface).is_some(), "a stop leaves the dataplane in place");

    let agent = node.start_connected().await;
    assert_eq!(node.server.sent_on_last_join(), Vec::<String>::new());
    assert!(node.server.scope().contains(&256));
    assert_eq!(agent.attach(attach("c1", "web"), &netns).await, Ok(first.clone()));
    until("the server knows the endpoint", || node.server.endpoints().len() == 1).await;
    assert_eq!(node.server.endpoints()["cni:isthmus/c1/eth0"].mac, first.mac);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_and_doubles_nothing() {
    let node = Node::new().await;
    let mut given = BTreeSet::new();
    for round in 0..5 {
        let agent = node.start_connected().await;
        for n in 0..3 {
            let attached =
                agent.attach(attach(&format!("c{round}-{n}"), "web"), &Netns::new()).await.unwrap();
            assert!(given.insert(attached.addresses.clone()), "{:?} was given twice", attached.addresses);
        }
        agent.kill().await;
    }
    let agent = node.start_connected().await;
    until("the server knows all", || node.server.endpoints().len() == 15).await;
    for round in 0..5 {
        for n in 0..3 {
            agent.detach(&format!("c{round}-{n}")).await.unwrap();
        }
    }
    assert!(node.kernel.all_links().is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_known_workloads_work_and_others_are_told_to_try_again() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    agent.attach(attach("c2", "api"), &Netns::new()).await.unwrap();
    agent.detach("c2").await.unwrap();
    node.server.leave().await;
    agent.attach(attach("c3", "web"), &Netns::new()).await.unwrap();
    agent.attach(attach("c4", "api"), &Netns::new()).await.unwrap();
    let failure = agent.attach(attach("c5", "db"), &Netns::new()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TryAgain);
    assert!(failure.message.contains("shop/db"), "{failure:?}");
    assert_eq!(node.kernel.all_links().len(), 3, "a refused attach leaves nothing");
    agent.kill().await;

    let agent = node.start().await;
    agent.attach(attach("c6", "web"), &Netns::new()).await.unwrap();
    node.server.come_back();
    until("the server knows all", || node.server.endpoints().len() == 4).await;
    agent.attach(attach("c5", "db"), &Netns::new()).await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_changed_while_the_server_was_away_is_set_again() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    agent.detach("c1").await.unwrap();
    node.server.leave().await;
    let attached = agent.attach(attach("c2", "web"), &Netns::new()).await.unwrap();
    node.server.set_identity("web", 300);
    node.server.come_back();
    let now = || node.kernel.link(&attached.host_interface).unwrap().identity;
    until("the link has the new identity", || now() == identity(300)).await;
    assert!(node.kernel.table(identity(300)).is_some());
    until("the server hears it", || node.server.endpoints()["cni:isthmus/c2/eth0"].identity == 300).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_told_by_name_and_works_again_after_a_release() {
    let node = Node::new().await;
    node.server.limit_leases(1);
    let agent = node.start_connected().await;
    for n in 0..8 {
        agent.attach(attach(&format!("c{n}"), "web"), &Netns::new()).await.unwrap();
    }
    let failure = agent.attach(attach("c8", "web"), &Netns::new()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TryAgain);
    assert!(failure.message.contains("pool main") && failure.message.contains("ISE-0202"), "{failure:?}");
    agent.detach("c3").await.unwrap();
    agent.attach(attach("c8", "web"), &Netns::new()).await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_callers_at_once_share_requests_and_get_addresses_of_their_own() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let calls = (0..48).map(|n| {
        let socket = agent.socket.clone();
        tokio::spawn(async move {
            let body = RequestBody::Attach(Box::new(attach(&format!("c{n}"), "web")));
            match call_agent(&socket, body, Some(&Netns::new())).await {
                ResponseBody::Attached(attached) => attached.addresses,
                other => panic!("{other:?}"),
            }
        })
    });
    let mut given = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        assert!(given.insert(call.await.unwrap()));
    }
    assert_eq!(given.len(), 48);
    until("further blocks are leased ahead", || node.server.leases() >= 7).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_a_node_is_refused() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let second = node.start_with(node.config());
    let error = second.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("ISE-0504"), "{error}");
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_rule_is_out_of_force_at_once_and_the_server_hears_it() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let rule = Rule { peer: 300, protocol: 6, first_port: 80, last_port: 80, number: 9, ..Rule::default() };
    let allowed = node.server.set_rules(256, vec![rule]);
    until("the rule is in force", || node.server.in_force() >= allowed).await;
    let judged = || crate::kernel::Kernel::judge(&node.kernel, identity(300), identity(256), 6, 80).unwrap();
    assert!(judged().allowed);
    let started = Instant::now();
    let revoked = node.server.set_rules(256, Vec::new());
    until("the rule is gone", || !judged().allowed).await;
    assert!(started.elapsed() < Duration::from_millis(100), "took {:?}", started.elapsed());
    until("the server hears it", || node.server.in_force() >= revoked).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_are_not_used_and_told() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let bad = Rule { peer: 300, protocol: 200, last_port: 65_535, ..Rule::default() };
    let revision = node.server.set_rules(256, vec![bad]);
    until("the server hears of it", || node.server.in_force() >= revision).await;
    assert!(node.server.last_problem().contains("protocol 200"), "{}", node.server.last_problem());
    assert!(node.kernel.table(identity(256)).unwrap().rules.is_empty(), "the old table stays");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_asks_wrongly_is_refused_with_a_reason() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let netns = Netns::new();
    let refused = |change: fn(&mut Attach)| {
        let mut attach = attach("c1", "web");
        change(&mut attach);
        agent.attach(attach, &netns)
    };
    for (expected, failure) in [
        ("cluster", refused(|attach| attach.cluster = "blue".to_owned()).await),
        ("MAC", refused(|attach| attach.mac = Some("01:00:00:00:00:00".to_owned())).await),
        ("one IPv4", refused(|attach| attach.addresses = vec!["::1".parse().unwrap()]).await),
        ("no block", refused(|attach| attach.addresses = vec!["10.9.9.9".parse().unwrap()]).await),
        ("container", refused(|attach| attach.key.container = String::new()).await),
        ("workload", refused(|attach| attach.workload.app = String::new()).await),
        (
            "protocol",
            refused(|attach| {
                attach.port_mappings = vec![PortMapping { protocol: "x".to_owned(), ..mapping(1) }];
            })
            .await,
        ),
    ] {
        let failure = failure.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains(expected), "{expected}: {failure:?}");
    }
    let body = RequestBody::Attach(Box::new(attach("c1", "web")));
    assert!(matches!(
        agent.call(body, None).await,
        ResponseBody::Failed(Failure { kind: FailureKind::Invalid, .. })
    ));
    assert!(node.kernel.all_links().is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_refuses_leaves_nothing() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let fault = crate::kernel::Fault::Caller;
    let message = "the container has an interface eth0 already".to_owned();
    node.kernel.refuse_next_attach(crate::kernel::KernelError { fault, message });
    let mut wanting = attach("c1", "web");
    wanting.port_mappings = vec![mapping(80)];
    let failure = agent.attach(wanting.clone(), &Netns::new()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    wanting.key = key("c2");
    agent.attach(wanting, &Netns::new()).await.unwrap();
    until("the server knows one", || node.server.endpoints().len() == 1).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_another_host_borrowed_is_not_given_out() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    node.kernel.lend(BTreeSet::from([address("10.64.0.0"), address("10.64.0.2")]));
    let attached = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    assert_eq!(attached.addresses, [address("10.64.0.1")]);
    let wanting = Attach { addresses: vec![address("10.64.0.2")], ..attach("c2", "web") };
    let refused = agent.attach(wanting.clone(), &Netns::new()).await.unwrap_err();
    assert!(refused.message.contains("10.64.0.2 of this node's blocks is in use elsewhere"), "{refused:?}");
    // Given back, it is free; and whoever has an address keeps it, whatever others say.
    node.kernel.lend(BTreeSet::from([address("10.64.0.1")]));
    assert_eq!(agent.attach(wanting, &Netns::new()).await.unwrap().addresses, [address("10.64.0.2")]);
    node.kernel.remove_link(&attached.host_interface);
    let again = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    assert_eq!(again.addresses, attached.addresses);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wanted_addresses_and_macs_are_given() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let mut wanting = attach("c2", "web");
    wanting.addresses = vec!["10.64.0.5".parse().unwrap()];
    wanting.mac = Some("02:11:22:33:44:55".to_owned());
    let attached = agent.attach(wanting.clone(), &Netns::new()).await.unwrap();
    assert_eq!(
        (attached.addresses, attached.mac),
        (wanting.addresses.clone(), "02:11:22:33:44:55".to_owned())
    );
    wanting.key = key("c3");
    let failure = agent.attach(wanting, &Netns::new()).await.unwrap_err();
    assert!(failure.message.contains("in use by cni:isthmus/c2/eth0"), "{failure:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_chosen_mapped_and_survive_a_restart() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let mut garden = attach("c1", "web");
    garden.port_mappings = vec![mapping(0), mapping(0)];
    let attached = agent.attach(garden, &Netns::new()).await.unwrap();
    let ports =
        |attached: &Attached| attached.port_mappings.iter().map(|one| one.host_port).collect::<Vec<_>>();
    assert_eq!(ports(&attached), [61_000, 61_001]);
    assert_eq!(node.kernel.ports().len(), 2);
    agent.kill().await;

    let agent = node.start_connected().await;
    assert_eq!(node.kernel.ports().len(), 2);
    let mut clash = attach("c2", "web");
    clash.port_mappings = vec![mapping(61_001)];
    assert!(agent.attach(clash, &Netns::new()).await.unwrap_err().message.contains("61001"));
    agent.detach("c1").await.unwrap();
    assert!(node.kernel.ports().is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_is_not_as_it_was_made() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let attached = agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    let check = |container: &str, addresses: Vec<std::net::IpAddr>| {
        let body = RequestBody::Check(Check { key: key(container), addresses });
        async { done(agent.call(body, None).await).map_err(|failure| failure.kind) }
    };
    assert_eq!(check("c1", attached.addresses.clone()).await, Ok(()));
    assert_eq!(check("c1", vec!["10.64.0.7".parse().unwrap()]).await, Err(FailureKind::Differs));
    assert_eq!(check("c2", Vec::new()).await, Err(FailureKind::Unknown));
    node.kernel.remove_link(&attached.host_interface);
    assert_eq!(check("c1", Vec::new()).await, Err(FailureKind::Differs));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collect_detaches_what_the_runtime_has_no_more() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    for container in ["c1", "c2", "c3"] {
        agent.attach(attach(container, "web"), &Netns::new()).await.unwrap();
    }
    let mut other = attach("c9", "web");
    other.key.runtime = "garden".to_owned();
    agent.attach(other, &Netns::new()).await.unwrap();
    let valid = vec![("c2".to_owned(), "eth0".to_owned())];
    let collect = Collect { runtime: "cni:isthmus".to_owned(), valid };
    done(agent.call(RequestBody::Collect(collect), None).await).unwrap();
    until("two are left", || node.server.endpoints().len() == 2).await;
    assert_eq!(node.kernel.all_links().len(), 2);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_whether_an_attach_could_succeed() {
    let node = Node::new().await;
    node.server.leave().await;
    let agent = node.start().await;
    let status = |cluster: &str| {
        let body = RequestBody::Status { cluster: cluster.to_owned() };
        async { done(agent.call(body, None).await).map_err(|failure| failure.kind) }
    };
    assert_eq!(status("").await, Err(FailureKind::Unavailable));
    assert_eq!(status("blue").await, Err(FailureKind::Invalid));
    node.server.come_back();
    until("the agent is in sync", || node.server.in_force() > 0).await;
    assert_eq!(status("red").await, Ok(()));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_understood_get_an_answer() {
    use std::io::Write;
    let node = Node::new().await;
    let agent = node.start_connected().await;
    let socket = agent.socket.clone();
    let answers = tokio::task::spawn_blocking(move || {
        let texts = ["{}", "nonsense", "{\"version\":9,\"body\":{\"do\":\"status\",\"cluster\":\"\"}}"];
        texts.map(|text| {
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            stream.write_all(&(text.len() as u32).to_be_bytes()).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let (response, _) =
                isthmus_api::adapter::read_frame::<isthmus_api::adapter::Response>(&stream).unwrap();
            response.body
        })
    });
    for body in answers.await.unwrap() {
        assert!(matches!(body, ResponseBody::Failed(Failure { kind: FailureKind::Invalid, .. })), "{body:?}");
    }
    agent.detach("c1").await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_the_server_leases_to_us_is_adopted_when_the_journal_is_lost() {
    let node = Node::new().await;
    let agent = node.start_connected().await;
    agent.attach(attach("c1", "web"), &Netns::new()).await.unwrap();
    agent.detach("c1").await.unwrap();
    until("the second block is leased ahead", || node.server.leases() == 2).await;
    let blocks = node.server.blocks();
    agent.stop().await;
    std::fs::remove_file(node.path("data/addresses")).unwrap();
    let agent = node.start_connected().await;
    let client = isthmus_api::client::Client::new(isthmus_api::client::Place::Unix(agent.people.clone()));
    let held = async || -> Vec<isthmus_api::local::LocalBlock> { client.get("/ipam").await.unwrap() };
    let end = Instant::now() + DEADLINE;
    while held().await.len() < blocks.len() {
        assert!(Instant::now() < end, "the blocks are not adopted");
    }
    agent.stop().await;
}
