//! Real packets between namespaces, for every promise of the dataplane, with tcx and with clsact.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod native;
mod programs;
mod rig;

use aya::programs::{
    SchedClassifier,
    tc::TcAttachType::{Egress, Ingress},
};
use isthmus_core::{
    DefaultVerdict::{Closed, Open},
    DenyAnswer::{Drop, Reject},
};
use isthmus_dataplane::AttachMode;
use rig::{Echo, PATIENCE, Rig, SILENCE, UdpEcho, carries, connect, udp_echo};
use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

#[test]
fn containers_reach_each_other_on_one_node_and_across() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    reach(&rig);
    rig.finish();
}

#[test]
fn containers_reach_each_other_with_clsact() {
    let rig = Rig::open_trio(AttachMode::Clsact);
    reach(&rig);
    rig.finish();
}

fn reach(rig: &Rig) {
    for (from, to) in [(0, 2), (2, 0), (0, 1), (1, 0), (1, 2)] {
        assert!(rig.ping(rig.ns(from), rig.address(to)), "ping {from} to {to}");
    }
    for to in [1, 2] {
        let _echo = Echo::start(rig.ns(to), rig.address(to), 8080);
        let mut stream = connect(rig.ns(0), rig.address(to), 8080, PATIENCE).unwrap();
        assert!(carries(&mut stream, PATIENCE), "tcp to {to}");
        assert_eq!(udp_echo(rig.ns(0), rig.address(to), 8080, b"hello", PATIENCE).unwrap(), 5);
    }
}

/// The verifier gives up at 1,000,000 instructions. Printed, so that growth shows.
#[test]
fn programs_stay_far_from_the_verifiers_limit() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    let mut counts = Vec::new();
    rig::inside(&rig.nodes[0].namespace, || {
        let hooks = [
            ("istc0", Ingress),
            ("istc0", Egress),
            ("eth0", Ingress),
            ("ist-vxlan", Ingress),
            ("ist-vxlan", Egress),
        ];
        for (interface, direction) in hooks {
            let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
            let name = programs[0].name_as_str().unwrap().to_owned();
            counts.push((name, programs[0].verified_instruction_count().unwrap()));
        }
    });
    println!("verified instructions: {counts:?}");
    assert!(counts.iter().all(|(_, count)| *count < 500_000), "{counts:?}");
    rig.finish();
}

/// Both ends' node, policy and the fate of what it denies, on one node and across.
fn policy(mode: AttachMode) {
    let mut rig = Rig::open_trio(mode);
    for (to, node) in [(2, 0), (1, 1)] {
        let number = rig.containers[to].identity.number();
        rig.table(node, number, Closed, Drop, &[]);
        let _echo = Echo::start(rig.ns(to), rig.address(to), 8080);
        let refused = connect(rig.ns(0), rig.address(to), 8080, SILENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        let told = rig.wait_event(node, |event| event.reason == "no-rule");
        assert_eq!((told.from.number(), told.to.number(), told.destination_port), (300, number, 8080));

        rig.table(node, number, Closed, Drop, &[(300, "tcp:8080")]);
        let mut stream = connect(rig.ns(0), rig.address(to), 8080, PATIENCE).unwrap();
        assert!(carries(&mut stream, PATIENCE));
        assert!(udp_echo(rig.ns(0), rig.address(to), 8080, b"x", SILENCE).is_err(), "only tcp is allowed");
        let allowed = rig.wait_event(node, |event| event.allowed && event.reason == "rule");
        assert_eq!(allowed.rule, 1);

        rig.table(node, number, Closed, Drop, &[]);
        assert!(!carries(&mut stream, SILENCE), "the open connection goes on without a rule");
        rig.wait_event(node, |event| event.reason == "revoked");

        rig.table(node, number, Closed, Drop, &[(300, "tcp:8000-8090")]);
        let mut again = connect(rig.ns(0), rig.address(to), 8080, PATIENCE).unwrap();
        assert!(carries(&mut again, PATIENCE), "a range allows the port in it");

        // Rejected instead of dropped: the sender hears at once.
        rig.table(node, number, Closed, Reject, &[]);
        let refused = connect(rig.ns(0), rig.address(to), 8081, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        let refused = udp_echo(rig.ns(0), rig.address(to), 8081, b"x", PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        rig.table(node, number, Open, Drop, &[]);
    }
    rig.finish();
}

#[test]
fn policy_decides_and_a_removed_rule_stops_its_connections() {
    policy(AttachMode::Tcx);
}

#[test]
fn policy_decides_with_clsact() {
    policy(AttachMode::Clsact);
}

/// What busy connections are remembered by must not outlive what they were judged by.
#[test]
fn a_busy_connection_stops_with_its_rule_and_goes_on_with_it() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    for (to, node) in [(2, 0), (1, 1)] {
        let number = rig.containers[to].identity.number();
        let rules = [(300, "tcp:8080"), (300, "udp:8080")];
        rig.table(node, number, Closed, Drop, &rules);
        let _echo = Echo::start(rig.ns(to), rig.address(to), 8080);
        let mut stream = connect(rig.ns(0), rig.address(to), 8080, PATIENCE).unwrap();
        let datagrams = UdpEcho::connect(rig.ns(0), rig.address(to), 8080);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            assert!(carries(&mut stream, PATIENCE) && datagrams.carries(PATIENCE));
        }

        rig.table(node, number, Closed, Drop, &[]);
        assert!(!datagrams.carries(SILENCE), "datagrams go on without a rule");
        assert!(!carries(&mut stream, SILENCE), "the stream goes on without a rule");
        rig.wait_event(node, |event| event.reason == "revoked");

        rig.table(node, number, Closed, Drop, &rules);
        assert!(datagrams.carries(PATIENCE), "datagrams stay away though they are allowed again");
        rig.table(node, number, Open, Drop, &[]);
    }
    rig.finish();
}

#[test]
fn nodes_reach_containers_and_containers_reach_nodes() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    let node_addresses: Vec<std::net::IpAddr> = rig.nodes.iter().map(|node| node.address.into()).collect();
    for node in &rig.nodes {
        for container in 0..3 {
            assert!(rig.ping(&node.namespace, rig.address(container)), "{} to {container}", node.namespace);
        }
    }
    for container in 0..3 {
        for address in &node_addresses {
            assert!(rig.ping(rig.ns(container), *address), "{container} to {address}");
        }
    }
    // Without NAT: the node sees the container's own address.
    let listener = rig::inside(&rig.nodes[1].namespace, || {
        std::net::TcpListener::bind((rig.nodes[1].address, 9999)).unwrap()
    });
    let _stream = connect(rig.ns(0), node_addresses[1], 9999, PATIENCE).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), rig.address(0));
    rig.finish();
}

#[test]
fn next_hops_of_nodes_are_kept_resolved_as_long_as_they_are_nodes() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    let (here, there) = (&rig.nodes[0], rig.nodes[1].address);
    let neighbours = || rig::output(&format!("ip -n {} neighbour show dev eth0", here.namespace));
    let text = neighbours();
    assert!(
        text.contains(&there.to_string()) && text.contains("managed") && text.contains("proto 98"),
        "{text}"
    );
    let alone = isthmus_dataplane::Network {
        nodes: rig.network().nodes.into_iter().filter(|node| node.addresses[0] == here.address).collect(),
        ..rig.network()
    };
    rig.on(0, |dataplane| dataplane.set_network(&alone).unwrap());
    assert!(!neighbours().contains("managed"), "{}", neighbours());
    rig.on(0, |dataplane| dataplane.set_network(&rig.network()).unwrap());
    assert!(neighbours().contains("managed"), "{}", neighbours());
    let (namespace, options) = (here.namespace.clone(), here.options.clone());
    rig::inside(&namespace, || isthmus_dataplane::cleanup(&options.bpffs, &options.node));
    assert!(!neighbours().contains("managed"), "{}", neighbours());
    rig.finish();
}

#[test]
fn own_node_is_allowed_whatever_the_rules_say_and_other_nodes_are_not() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    rig.table(0, 300, Closed, Drop, &[]);
    assert!(rig.ping(&rig.nodes[0].namespace, rig.address(0)));
    assert!(!rig.ping(&rig.nodes[1].namespace, rig.address(0)));
    let told = rig.wait_event(0, |event| event.reason == "no-rule");
    assert_eq!(told.from, isthmus_core::Identity::REMOTE_NODE);
    rig.table(0, 300, Closed, Drop, &[(3, "icmp")]);
    assert!(rig.ping(&rig.nodes[1].namespace, rig.address(0)));
    rig.finish();
}

#[test]
fn containers_reach_the_outside_masqueraded_and_it_reaches_only_mapped_ports() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    let outside = rig.underlay();
    let listener = rig::inside(&outside, || std::net::TcpListener::bind("192.0.2.254:9999").unwrap());
    let _stream = connect(rig.ns(0), "192.0.2.254".parse().unwrap(), 9999, PATIENCE).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "192.0.2.1", "masqueraded behind the node");

    let _echo = Echo::start(rig.ns(0), rig.address(0), 8080);
    rig::sh(&format!("ip -n {outside} route add 10.64.0.0/26 via 192.0.2.1"));
    assert!(connect(&outside, rig.address(0), 8080, SILENCE).is_err(), "not mapped");
    rig.wait_event(0, |event| event.reason == "not-mapped");
    let port = isthmus_dataplane::MappedPort {
        host_address: None,
        host_port: 61000,
        protocol: 6,
        target: std::net::SocketAddr::new(rig.address(0), 8080),
    };
    rig.on(0, |dataplane| dataplane.set_ports(&[port]).unwrap());
    // The rules of the container do not matter: a mapped port is open to the outside.
    rig.table(0, 300, Closed, Drop, &[]);
    let node = std::net::IpAddr::from(rig.nodes[0].address);
    for from in [
        outside.clone(),
        rig.nodes[1].namespace.clone(),
        rig.nodes[0].namespace.clone(),
        rig.ns(2).to_owned(),
    ] {
        let mut stream =
            connect(&from, node, 61000, PATIENCE).unwrap_or_else(|error| panic!("{from}: {error}"));
        assert!(carries(&mut stream, PATIENCE), "{from}");
    }
    let mut stream = connect(&rig.nodes[0].namespace, "127.0.0.1".parse().unwrap(), 61000, PATIENCE).unwrap();
    assert!(carries(&mut stream, PATIENCE), "the node's own loopback address");
    let to_loopback = connect(rig.ns(0), "127.0.0.2".parse().unwrap(), 61000, SILENCE);
    assert!(to_loopback.is_err(), "a container reaches no loopback address of the node");
    rig.on(0, |dataplane| dataplane.set_ports(&[]).unwrap());
    assert!(connect(&outside, node, 61000, SILENCE).is_err());
    rig.finish();
}

#[test]
fn large_segments_and_fragments_arrive_whole() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    for to in [1, 2] {
        let _echo = Echo::start(rig.ns(to), rig.address(to), 8080);
        assert_eq!(
            udp_echo(rig.ns(0), rig.address(to), 8080, &[7; 8000], PATIENCE).unwrap(),
            8000,
            "fragments to {to}"
        );
        let mut stream = connect(rig.ns(0), rig.address(to), 8080, PATIENCE).unwrap();
        let sent = vec![5_u8; 4 << 20];
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent, "bytes to {to}");
    }
    rig.finish();
}

#[test]
fn a_restart_or_kill_of_the_agent_breaks_nothing() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    rig.table(1, 400, Closed, Drop, &[(300, "tcp:8080")]);
    let mut stream = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap();
    for node in [0, 1, 0, 1] {
        rig.restart(node);
        assert!(carries(&mut stream, PATIENCE), "after a restart of node {node}");
        let links = rig.on(node, |dataplane| dataplane.links().unwrap());
        assert!(links.iter().all(|link| link.whole), "{links:?}");
    }
    assert_eq!(rig.on(1, isthmus_dataplane::Dataplane::rules), 1, "the rules are adopted");
    rig.table(1, 400, Closed, Drop, &[]);
    assert!(!carries(&mut stream, SILENCE));
    rig.finish();
}

#[test]
fn a_detached_container_is_gone_and_its_address_meets_no_old_connection() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    assert!(rig.ping(rig.ns(0), rig.address(2)));
    let address = rig.address(2);
    rig.on(0, |dataplane| dataplane.detach("istc2", address).unwrap());
    rig.on(0, |dataplane| dataplane.detach("istc2", address).unwrap());
    assert!(!rig.ping(rig.ns(0), address));
    rig.wait_event(0, |event| event.reason == "unknown-endpoint");
    assert_eq!(rig.on(0, |dataplane| dataplane.links().unwrap().len()), 1);
    rig.finish();
}

#[test]
fn a_taken_port_is_named_with_its_owner() {
    let mut rig = Rig::new(1, AttachMode::Tcx);
    let mut options = rig.nodes[0].options.clone();
    rig.nodes[0].events = None;
    rig.nodes[0].dataplane = None;
    let namespace = rig.nodes[0].namespace.clone();
    rig::inside(&namespace, || isthmus_dataplane::cleanup(&options.bpffs, &options.node));
    rig::sh(&format!(
        "ip -n {namespace} link add flannel.1 type vxlan id 1 dstport 4789 dev eth0 && ip -n {namespace} link set flannel.1 up"
    ));
    let open = |options: &isthmus_dataplane::Options| {
        let options = options.clone();
        rig::inside(&namespace, || {
            isthmus_dataplane::Dataplane::open(options).map(|_| ()).map_err(|e| e.to_string())
        })
    };
    let error = open(&options).unwrap_err();
    assert!(error.contains("4789") && error.contains("the VXLAN device flannel.1"), "{error}");
    assert!(
        !rig::output(&format!("ip -n {namespace} -o link")).contains("ist-vxlan"),
        "nothing is left behind"
    );
    options.vxlan_port = 8473;
    open(&options).unwrap();
    rig.finish();
}

#[test]
fn an_underlay_too_small_for_the_overlay_is_refused() {
    let mut rig = Rig::new(1, AttachMode::Tcx);
    rig.nodes[0].events = None;
    rig.nodes[0].dataplane = None;
    let (namespace, options) = (rig.nodes[0].namespace.clone(), rig.nodes[0].options.clone());
    rig::sh(&format!("ip -n {namespace} link set eth0 mtu 600"));
    let error =
        rig::inside(&namespace, || isthmus_dataplane::Dataplane::open(options).map(|_| ()).unwrap_err());
    assert!(error.to_string().contains("eth0 has an MTU of 600"), "{error}");
    rig.finish();
}

#[test]
fn a_veth_removed_behind_our_back_is_seen_and_detached() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    rig::sh(&format!("ip -n {} link delete istc0", rig.nodes[0].namespace));
    let links = rig.on(0, |dataplane| dataplane.links().unwrap());
    let gone: Vec<_> = links.iter().filter(|link| !link.whole).collect();
    assert_eq!((gone.len(), gone[0].address), (1, rig.address(0)), "{links:?}");
    rig.on(0, |dataplane| dataplane.detach("istc0", rig.address(0)).unwrap());
    assert!(rig.on(0, |dataplane| dataplane.links().unwrap()).iter().all(|link| link.whole));
    rig.finish();
}

#[test]
fn vxlan_from_a_host_that_is_no_node_is_dropped() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    let outside = rig.underlay();
    rig::sh(&format!(
        "ip -n {outside} link add vx type vxlan id 300 dstport 4789 remote 192.0.2.1 local 192.0.2.254 dev br0 && \
         ip -n {outside} address add 10.64.0.70/16 dev vx && ip -n {outside} link set vx up && \
         ip -n {outside} neighbour add {} lladdr 02:69:73:74:68:6d dev vx",
        rig.address(0)
    ));
    assert!(!rig.ping(&outside, rig.address(0)));
    let told = rig.wait_event(0, |event| event.reason == "unknown-node");
    assert_eq!(told.source.to_string(), "192.0.2.254");
    rig.finish();
}

#[test]
fn a_foreign_program_on_our_hook_is_named() {
    let rig = Rig::open_trio(AttachMode::Tcx);
    // Another node's programs, put on our interface, stand for a stranger's.
    let link = rig::inside(&rig.nodes[0].namespace, || {
        let directory =
            isthmus_dataplane::pins(&rig.nodes[1].options.bpffs, &rig.nodes[1].options.node).join("programs");
        let directory = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
        let mut stranger = SchedClassifier::from_pin(directory.join("to_overlay")).unwrap();
        let id = stranger.attach("istc0", Ingress).unwrap();
        stranger.take_link(id).unwrap()
    });
    assert!(rig.ping(rig.ns(0), rig.address(2)), "ours is first");
    let named = || rig.on(0, isthmus_dataplane::Dataplane::foreign_programs);
    assert_eq!(named(), [("istc0".to_owned(), "to_overlay".to_owned())]);
    drop(link);
    assert_eq!(named(), []);
    rig.finish();
}

#[test]
fn an_agent_that_remembers_too_little_takes_nothing_away() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    rig.restart(0);
    let old = isthmus_dataplane::Network { blocks: Vec::new(), ..rig.network() };
    let old = isthmus_dataplane::Network { nodes: old.nodes[..1].to_vec(), ..old };
    rig.on(0, |dataplane| dataplane.widen_network(&old).unwrap());
    rig.on(0, |dataplane| dataplane.sweep().unwrap());
    assert!(rig.ping(rig.ns(0), rig.address(1)), "the other node was forgotten");
    rig.on(0, |dataplane| dataplane.set_network(&old).unwrap());
    assert!(!rig.ping(rig.ns(0), rig.address(1)), "the server says that it is gone");
    rig.set_network();
    assert!(rig.ping(rig.ns(0), rig.address(1)));
    rig.finish();
}
