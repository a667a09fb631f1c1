//! Packets without encapsulation: by the kernel's routes, which tests write as the speaker does (protocol 99).

use crate::{
    programs::{Bench, Frame, NEXT, REDIRECT, SHOT, tcp, udp, vxlan},
    rig::{self, Echo, PATIENCE, Rig, SILENCE, UdpEcho, carries, connect, identity, output, sh, udp_echo},
};
use aya::maps::{Array, Map, MapData};
use isthmus_core::{
    DefaultVerdict::{Closed, Open},
    DenyAnswer::{Drop, Reject},
    Identity,
};
use isthmus_dataplane::{
    AttachMode, Encapsulation, ForeignEntry, GATEWAY_MAC, Network, PeerEntry, SourceCheck,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

/// The trio, its nodes' blocks routed to each other, nothing encapsulated.
fn native_trio(mode: AttachMode) -> Rig {
    let mut rig = Rig::open_trio(mode);
    rig.rest.encapsulation = Encapsulation::Never;
    rig.rest.peers = peers(&rig);
    route_blocks(&rig);
    rig.set_network();
    rig
}

fn peers(rig: &Rig) -> Vec<PeerEntry> {
    let entry = |container: &rig::Container| PeerEntry {
        address: container.address.into(),
        identity: container.identity,
    };
    rig.containers.iter().map(entry).collect()
}

/// Each node's routes to the blocks of those on its link, and of others by its default gateway.
fn route_blocks(rig: &Rig) {
    for node in &rig.nodes {
        for other in rig.nodes.iter().filter(|other| other.number != node.number) {
            let on_link = node.address.octets()[..3] == other.address.octets()[..3];
            let [a, b, c, _] = node.address.octets();
            let via = if on_link { other.address } else { Ipv4Addr::new(a, b, c, 254) };
            sh(&format!("ip -n {} route replace {} via {via} proto 99", node.namespace, other.block));
        }
    }
}

/// Counts what the first node sends by a link of the underlay.
struct Wire {
    namespace: String,
    link: &'static str,
}

impl Wire {
    fn watch(rig: &Rig, link: &'static str) -> Self {
        let namespace = rig.underlay();
        sh(&format!(
            "ip netns exec {namespace} nft 'table netdev {link} {{ counter tunnel {{ }}; counter plain {{ }}; \
             chain seen {{ type filter hook ingress device {link} priority 0; \
             udp dport 4789 counter name tunnel; ip saddr 10.64.0.0/16 counter name plain; }}; }}'"
        ));
        Self { namespace, link }
    }

    /// Packets in the overlay, and packets of containers as they are, since the last call.
    fn packets(&self) -> (u64, u64) {
        let count = |counter: &str| -> u64 {
            let text = output(&format!(
                "ip netns exec {} nft reset counter netdev {} {counter}",
                self.namespace, self.link
            ));
            let packets = text.split("packets ").nth(1).unwrap_or_else(|| panic!("{text}"));
            packets.split(' ').next().unwrap().parse().unwrap()
        };
        (count("tunnel"), count("plain"))
    }
}

fn reach(mode: AttachMode) {
    let rig = native_trio(mode);
    let wire = Wire::watch(&rig, "p1");
    crate::reach(&rig);
    let (tunnel, plain) = wire.packets();
    assert!(tunnel == 0 && plain > 5, "{tunnel} encapsulated, {plain} plain");
    rig.finish();
}

#[test]
fn containers_reach_each_other_without_encapsulation() {
    reach(AttachMode::Tcx);
}

#[test]
fn containers_reach_each_other_without_encapsulation_with_clsact() {
    reach(AttachMode::Clsact);
}

/// As in the overlay: denial, permission, revocation, rejection, by the identity of who has the source address.
#[test]
fn policy_decides_by_the_identity_of_the_source_address() {
    let mut rig = native_trio(AttachMode::Tcx);
    rig.table(1, 400, Closed, Drop, &[]);
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    let refused = connect(rig.ns(0), rig.address(1), 8080, SILENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TimedOut);
    let told = rig.wait_event(1, |event| event.reason == "no-rule");
    assert_eq!((told.from.number(), told.to.number(), told.destination_port), (300, 400, 8080));

    let rules = [(300, "tcp:8080"), (300, "udp:8080")];
    rig.table(1, 400, Closed, Drop, &rules);
    let mut stream = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap();
    let datagrams = UdpEcho::connect(rig.ns(0), rig.address(1), 8080);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(60) {
        assert!(carries(&mut stream, PATIENCE) && datagrams.carries(PATIENCE));
    }
    assert!(connect(rig.ns(2), rig.address(1), 8080, SILENCE).is_err(), "500 is not allowed");
    rig.table(1, 400, Closed, Drop, &[]);
    assert!(!datagrams.carries(SILENCE), "datagrams go on without a rule");
    assert!(!carries(&mut stream, SILENCE), "the stream goes on without a rule");
    rig.wait_event(1, |event| event.reason == "revoked");
    rig.table(1, 400, Closed, Drop, &rules);
    assert!(datagrams.carries(PATIENCE), "datagrams stay away though they are allowed again");

    rig.table(1, 400, Closed, Reject, &[]);
    let refused = connect(rig.ns(0), rig.address(1), 8081, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    let refused = udp_echo(rig.ns(0), rig.address(1), 8081, b"x", PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    rig.finish();
}

#[test]
fn who_is_in_no_rule_of_this_node_is_unknown_and_judged_as_anybody() {
    let mut rig = native_trio(AttachMode::Tcx);
    rig.rest.peers = Vec::new();
    rig.set_network();
    rig.table(1, 400, Closed, Drop, &[(300, "icmp")]);
    assert!(!rig.ping(rig.ns(0), rig.address(1)));
    let told = rig.wait_event(1, |event| event.reason == "no-rule");
    assert_eq!(told.from, Identity::UNKNOWN);
    rig.table(1, 400, Closed, Drop, &[(0, "icmp")]);
    assert!(rig.ping(rig.ns(0), rig.address(1)), "a rule for everybody");
    rig.table(1, 400, Closed, Drop, &[(300, "icmp")]);
    rig.rest.peers = peers(&rig);
    rig.set_network();
    assert!(rig.ping(rig.ns(0), rig.address(1)), "it is known now");
    rig.finish();
}

#[test]
fn nodes_reach_containers_and_containers_reach_nodes_without_encapsulation() {
    let mut rig = native_trio(AttachMode::Tcx);
    let wire = Wire::watch(&rig, "p1");
    let node_addresses: Vec<IpAddr> = rig.nodes.iter().map(|node| node.address.into()).collect();
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
    let listener =
        rig::inside(&rig.nodes[1].namespace, || TcpListener::bind((rig.nodes[1].address, 9999)).unwrap());
    let _stream = connect(rig.ns(0), node_addresses[1], 9999, PATIENCE).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), rig.address(0), "without NAT");
    assert_eq!(wire.packets().0, 0, "encapsulated");

    rig.table(1, 400, Closed, Drop, &[]);
    assert!(!rig.ping(&rig.nodes[0].namespace, rig.address(1)));
    let told = rig.wait_event(1, |event| event.reason == "no-rule");
    assert_eq!((told.from, told.source), (Identity::REMOTE_NODE, node_addresses[0]));
    rig.table(1, 400, Closed, Drop, &[(3, "icmp")]);
    assert!(rig.ping(&rig.nodes[0].namespace, rig.address(1)));
    rig.finish();
}

#[test]
fn without_a_route_the_container_hears_so_at_once_and_the_overlay_is_not_taken() {
    let mut rig = native_trio(AttachMode::Tcx);
    let wire = Wire::watch(&rig, "p1");
    let here = rig.nodes[0].namespace.clone();
    sh(&format!("ip -n {here} route delete default && ip -n {here} route delete {}", rig.nodes[1].block));
    let refused = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "{refused}");
    let told = rig.wait_event(0, |event| event.reason == "unrouted");
    assert_eq!(told.destination, rig.address(1));
    sh(&format!("ip -n {here} route add unreachable {} proto 99", rig.nodes[1].block));
    let refused = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "{refused}");
    assert_eq!(wire.packets(), (0, 0));
    rig.finish();
}

#[test]
fn large_segments_and_fragments_arrive_whole_without_encapsulation() {
    let rig = native_trio(AttachMode::Tcx);
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    assert_eq!(udp_echo(rig.ns(0), rig.address(1), 8080, &[7; 8000], PATIENCE).unwrap(), 8000, "fragments");
    let mut stream = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap();
    let sent = vec![5_u8; 4 << 20];
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent);
    rig.finish();
}

#[test]
fn a_live_connection_survives_changes_of_mode_and_restarts() {
    let mut rig = native_trio(AttachMode::Tcx);
    rig.table(1, 400, Closed, Drop, &[(300, "tcp:8080"), (300, "udp:8080")]);
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    let mut stream = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap();
    let datagrams = UdpEcho::connect(rig.ns(0), rig.address(1), 8080);
    let wire = Wire::watch(&rig, "p1");
    for mode in
        [Encapsulation::Always, Encapsulation::Never, Encapsulation::CrossSubnet, Encapsulation::Always]
    {
        rig.rest.encapsulation = mode;
        rig.set_network();
        wire.packets();
        for _ in 0..10 {
            assert!(carries(&mut stream, PATIENCE), "{mode:?}");
            assert!(datagrams.carries(PATIENCE), "{mode:?}");
        }
        let (tunnel, plain) = wire.packets();
        assert_eq!((tunnel == 0, plain == 0), (mode != Encapsulation::Always, mode == Encapsulation::Always));
        rig.restart(0);
        rig.set_network();
        assert!(carries(&mut stream, PATIENCE), "{mode:?}, after a restart");
    }
    rig.finish();
}

/// Nodes hear of another mode one after the other.
#[test]
fn nodes_of_different_modes_understand_the_overlay() {
    let mut rig = native_trio(AttachMode::Tcx);
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    rig.rest.encapsulation = Encapsulation::Always;
    let overlay = rig.network();
    rig.on(0, |dataplane| dataplane.set_network(&overlay).unwrap());
    // The first encapsulates, the second does not and answers as it is asked.
    let mut stream = connect(rig.ns(0), rig.address(1), 8080, PATIENCE).unwrap();
    assert!(carries(&mut stream, PATIENCE));
    // What the second begins comes plain to a node that expects the overlay: not believed, and told.
    assert!(!rig.ping(rig.ns(1), rig.address(0)));
    rig.wait_event(0, |event| event.reason == "not-mapped");
    rig.finish();
}

#[test]
fn across_subnets_only_the_overlay_is_taken_and_on_the_link_the_kernels_route() {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    rig.rest.encapsulation = Encapsulation::CrossSubnet;
    let far = rig.add_routed_node(3, AttachMode::Tcx);
    rig.table(far, 600, Open, Drop, &[]);
    let remote = rig.container(far, 600);
    route_blocks(&rig);
    rig.rest.peers = peers(&rig);
    rig.set_network();
    let wire = Wire::watch(&rig, "p1");
    assert!(rig.ping(rig.ns(0), rig.address(1)));
    let (tunnel, plain) = wire.packets();
    assert!(tunnel == 0 && plain > 0, "on the link: {tunnel} encapsulated, {plain} plain");
    assert!(rig.ping(rig.ns(0), rig.address(remote)) && rig.ping(rig.ns(remote), rig.address(0)));
    let (tunnel, plain) = wire.packets();
    assert!(tunnel > 0 && plain == 0, "behind the router: {tunnel} encapsulated, {plain} plain");
    // As long as the kernel has no route for the block of a node on the link, the overlay carries it.
    sh(&format!("ip -n {} route delete {}", rig.nodes[0].namespace, rig.nodes[1].block));
    assert!(rig.ping(rig.ns(0), rig.address(1)) && rig.ping(rig.ns(1), rig.address(0)));
    assert!(wire.packets().0 > 0);
    rig.finish();
}

#[test]
fn an_address_of_the_node_that_nobody_has_is_unreachable_and_not_sent_out() {
    let mut rig = native_trio(AttachMode::Tcx);
    let here = rig.nodes[0].namespace.clone();
    let nobody: IpAddr = "10.64.0.60".parse().unwrap();
    let wire = Wire::watch(&rig, "p1");
    let refused = connect(&here, nobody, 8080, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::HostUnreachable, "{refused}");
    let sent =
        rig::inside(&here, || std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (nobody, 9)));
    assert!(sent.is_err());
    assert_eq!(wire.packets(), (0, 0));
    // The route is ours alone: another of the same range stays, and ours goes with the mode.
    let routes = || output(&format!("ip -n {here} route show {}", rig.nodes[0].block));
    sh(&format!("ip -n {here} route add blackhole {} proto bird", rig.nodes[0].block));
    assert_eq!(routes().lines().count(), 2, "{}", routes());
    let overlay = Network { encapsulation: Encapsulation::Always, ..rig.network() };
    rig.on(0, |dataplane| dataplane.set_network(&overlay).unwrap());
    assert!(routes().starts_with("blackhole") && routes().lines().count() == 1, "{}", routes());
    rig.rest.encapsulation = Encapsulation::Never;
    rig.set_network();
    rig.finish();
}

/// Whatever arrives by wire: it enters a container only with a source that may come so.
#[test]
fn no_bytes_enter_without_encapsulation_as_another() {
    let rig = native_trio(AttachMode::Tcx);
    let bench = Bench::new(&rig, "from_wire", "eth0");
    let (target, remote) = (rig.containers[0].address, rig.containers[1].address);
    let frame = || Frame::ethernet(bench.mac, [4; 6], 0x0800);
    let new = frame().ipv4(remote, target, 6, &tcp(1, 80, 2));
    let known = frame().ipv4(remote, target, 17, &udp(1, 80, b"of a connection"));
    for good in [new, known] {
        bench.run_until_known(&good);
        no_bytes_enter_beside(&rig, &bench, &good);
    }
    rig.finish();
}

fn no_bytes_enter_beside(rig: &Rig, bench: &Bench<'_>, good: &Frame) {
    let mutation = (proptest::collection::vec((14..good.0.len(), any::<u8>()), 0..6), 34..=good.0.len());
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&mutation, |(changes, length)| {
        let mut frame = good.clone();
        for (offset, byte) in changes {
            frame.0[offset] = byte;
        }
        let frame = frame.cut(length);
        let (verdict, _) = bench.run(&frame);
        prop_assert!([REDIRECT, SHOT, NEXT].contains(&verdict), "{}", verdict);
        if verdict == REDIRECT {
            let address =
                |at: usize| Ipv4Addr::new(frame.0[at], frame.0[at + 1], frame.0[at + 2], frame.0[at + 3]);
            let is_remote = rig.nodes[1].block.contains(&address(26)) || rig.nodes[1].address == address(26);
            prop_assert!(is_remote, "from {}", address(26));
            prop_assert!(rig.containers.iter().any(|container| container.address == address(30)));
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Spoofed and malformed packets, one by one.
#[test]
fn the_wire_is_believed_without_encapsulation_only_the_way_that_answers_go() {
    let mut rig = native_trio(AttachMode::Tcx);
    let far = rig.add_routed_node(3, AttachMode::Tcx);
    rig.table(0, 500, Closed, Drop, &[(400, "tcp:8080")]);
    let foreign =
        |prefix: &str, number| ForeignEntry { prefix: prefix.parse().unwrap(), identity: identity(number) };
    rig.rest.foreign = vec![foreign("203.0.113.0/24", 900), foreign("203.0.113.128/25", 4)];
    rig.set_network();
    let bench = Bench::new(&rig, "from_wire", "eth0");
    let (here, there) = (rig.nodes[0].address, rig.nodes[1].address);
    let (open, closed, remote) =
        (rig.containers[0].address, rig.containers[2].address, rig.containers[1].address);
    let frame = |source, destination| {
        Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(source, destination, 6, &tcp(1, 80, 2))
    };
    bench.check(&frame(remote, open), REDIRECT, "default-open");
    bench.check(&frame(remote, open), REDIRECT, "established");
    bench.check(&frame(remote, closed), SHOT, "no-rule");
    let allowed = Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(remote, closed, 6, &tcp(1, 8080, 2));
    bench.check(&allowed, REDIRECT, "rule");
    bench.check(&frame(there, open), REDIRECT, "default-open");
    bench.check(&frame(Ipv4Addr::new(203, 0, 113, 9), open), REDIRECT, "default-open");
    for own in [here, rig.containers[2].address, Ipv4Addr::new(10, 64, 0, 60)] {
        bench.check(&frame(own, open), SHOT, "own-source");
    }
    // A pool's range that nobody has leased.
    bench.check(&frame(Ipv4Addr::new(10, 64, 9, 9), open), SHOT, "not-encapsulated");
    bench.check(&frame(remote, Ipv4Addr::new(10, 64, 0, 60)), SHOT, "unknown-endpoint");
    // From outside: the stack's affair, as are other nodes' addresses.
    assert_eq!(bench.run(&frame(Ipv4Addr::new(8, 8, 8, 8), open)).0, NEXT);
    assert_eq!(bench.run(&frame(remote, here)).0, NEXT);
    assert_eq!(bench.run(&frame(remote, Ipv4Addr::new(10, 64, 0, 70))).0, NEXT);
    let good = frame(remote, open);
    bench.check(&good.clone().cut(38), SHOT, "malformed");
    bench.check(&good.clone().with(14, &[0x44]), SHOT, "malformed");
    bench.check(&good.clone().with(16, &[0xff, 0xff]), SHOT, "malformed");
    bench.check(&good.clone().with(20, &[0x20, 0x10]), SHOT, "fragment-lost");
    let quoted = Frame(Vec::new()).ipv4(open, remote, 6, &tcp(1, 2, 0));
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted.0].concat();
    bench.check(
        &Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(remote, open, 1, &error),
        SHOT,
        "no-connection",
    );
    // The overlay is still understood.
    let inner =
        Frame::ethernet(GATEWAY_MAC, [2, 0, 0, 0, 0, 1], 0x0800).ipv4(remote, open, 6, &tcp(2, 80, 2));
    let outer = Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(
        there,
        here,
        17,
        &udp(50_000, 4789, &vxlan(400, &inner.0)),
    );
    bench.check(&outer, REDIRECT, "default-open");

    // No route back at all, then a node that is reached through the overlay alone.
    sh(&format!("ip -n {} route delete default", rig.nodes[0].namespace));
    let beyond = frame(Ipv4Addr::new(203, 0, 113, 9), open).with(34, &[9, 9]);
    bench.check(&beyond, SHOT, "reverse-path");
    sh(&format!("ip -n {} route add default via 192.0.2.254", rig.nodes[0].namespace));
    let across = Network { encapsulation: Encapsulation::CrossSubnet, ..rig.network() };
    rig.on(0, |dataplane| dataplane.set_network(&across).unwrap());
    let block = rig.nodes[far].block.network();
    let behind = frame(Ipv4Addr::from(u32::from(block) + 5), open);
    bench.check(&behind, SHOT, "not-encapsulated");
    bench.check(&frame(rig.nodes[far].address, open), SHOT, "not-encapsulated");
    rig.finish();
}

/// A second link between the nodes of the trio: 192.0.3.NUMBER on `eth1`, `q1` in the underlay for the first node.
fn second_link(rig: &Rig) {
    let underlay = rig.underlay();
    sh(&format!("ip -n {underlay} link add br1 type bridge && ip -n {underlay} link set br1 up"));
    for node in &rig.nodes {
        let (number, namespace) = (node.number, &node.namespace);
        sh(&format!(
            "ip -n {namespace} link add eth1 type veth peer name q{number} netns {underlay} && \
             ip -n {underlay} link set q{number} master br1 up && \
             ip -n {namespace} address add 192.0.3.{number}/24 dev eth1 && ip -n {namespace} link set eth1 up && \
             ip -n {namespace} route add 198.18.0.0/15 via 192.0.3.254"
        ));
    }
    // The agent's sweep attaches to an interface that a new route leaves by.
    for node in 0..rig.nodes.len() {
        rig.on(node, |dataplane| {
            let deadline = Instant::now() + PATIENCE;
            let attached = || output(&format!("ls {}", links(rig, node))).contains("from_wire+eth1");
            while Instant::now() < deadline && !attached() {
                dataplane.sweep().unwrap();
            }
            assert!(attached(), "from_wire is not on eth1");
        });
    }
}

fn links(rig: &Rig, node: usize) -> String {
    let options = &rig.nodes[node].options;
    isthmus_dataplane::pins(&options.bpffs, &options.node).join("links").display().to_string()
}

#[test]
fn a_strict_check_drops_what_answers_would_not_go_by_and_a_loose_one_does_not() {
    let mut rig = native_trio(AttachMode::Tcx);
    second_link(&rig);
    sh(&format!(
        "ip -n {} route replace {} via 192.0.3.1 proto 99",
        rig.nodes[1].namespace, rig.nodes[0].block
    ));
    assert!(!rig.ping(rig.ns(1), rig.address(0)));
    let told = rig.wait_event(0, |event| event.reason == "reverse-path");
    assert_eq!(told.source, rig.address(1));
    rig.rest.source_check = SourceCheck::Loose;
    rig.set_network();
    assert!(rig.ping(rig.ns(1), rig.address(0)), "asymmetric, and loose");
    let _echo = Echo::start(rig.ns(0), rig.address(0), 8080);
    let mut stream = connect(rig.ns(1), rig.address(0), 8080, PATIENCE).unwrap();
    assert!(carries(&mut stream, PATIENCE));
    rig.finish();
}

#[test]
fn connections_spread_over_several_next_hops_each_of_which_is_a_way_back() {
    let rig = native_trio(AttachMode::Tcx);
    second_link(&rig);
    for (node, other) in [(0, 1), (1, 0)] {
        let (namespace, block, number) = (&rig.nodes[node].namespace, rig.nodes[other].block, other + 1);
        // The kernel's hash is the same for both directions: in another order, answers take the other link.
        let (first, second) = if node == 0 { (2, 3) } else { (3, 2) };
        sh(&format!(
            "ip netns exec {namespace} sysctl -qw net.ipv4.fib_multipath_hash_policy=1 && \
             ip -n {namespace} route replace {block} proto 99 \
             nexthop via 192.0.{first}.{number} nexthop via 192.0.{second}.{number}"
        ));
    }
    let wires = [Wire::watch(&rig, "p1"), Wire::watch(&rig, "q1")];
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    for flow in 0..32 {
        let datagrams = UdpEcho::connect(rig.ns(0), rig.address(1), 8080);
        for packet in 0..4 {
            assert!(datagrams.carries(PATIENCE), "packet {packet} of flow {flow}");
        }
    }
    for wire in &wires {
        let (tunnel, plain) = wire.packets();
        // Each flow stays on its link: a multiple of its packets.
        assert!(tunnel == 0 && plain >= 4 && plain % 4 == 0, "{}: {plain}", wire.link);
    }
    rig.finish();
}

/// What connections are believed under, from the pinned map: the fifth word of the configuration.
fn epoch(rig: &Rig, node: usize) -> u32 {
    let options = &rig.nodes[node].options;
    let pin = isthmus_dataplane::pins(&options.bpffs, &options.node).join("maps/CONFIG");
    let config = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    Array::<_, [u32; 8]>::try_from(config).unwrap().get(&0, 0).unwrap()[4]
}

#[test]
fn a_changed_route_begins_an_epoch_and_one_of_ours_does_not() {
    let mut rig = native_trio(AttachMode::Tcx);
    let here = rig.nodes[0].namespace.clone();
    rig.table(0, 700, Open, Drop, &[]);
    let before = epoch(&rig, 0);
    let container = rig.container(0, 700);
    assert!(rig.ping(rig.ns(container), rig.address(1)));
    assert_eq!(epoch(&rig, 0), before, "a container's own route is no change");
    for change in ["route add 198.18.0.0/15 via 192.0.2.254", "rule add to 198.18.0.0/15 lookup 100"] {
        let last = epoch(&rig, 0);
        sh(&format!("ip -n {here} {change}"));
        let deadline = Instant::now() + PATIENCE;
        while epoch(&rig, 0) == last {
            assert!(Instant::now() < deadline, "nothing happened after `ip {change}`");
            std::thread::yield_now();
        }
    }
    rig.finish();
}

#[test]
fn connections_follow_a_changed_route_also_while_nobody_watches() {
    let mut rig = native_trio(AttachMode::Tcx);
    second_link(&rig);
    let wires = [Wire::watch(&rig, "p1"), Wire::watch(&rig, "q1")];
    let _echo = Echo::start(rig.ns(1), rig.address(1), 8080);
    let datagrams = UdpEcho::connect(rig.ns(0), rig.address(1), 8080);
    let follows = |rig: &Rig, link: usize| {
        for (node, other) in [(0, 1), (1, 0)] {
            let (namespace, block, number) = (&rig.nodes[node].namespace, rig.nodes[other].block, other + 1);
            sh(&format!("ip -n {namespace} route replace {block} via 192.0.{}.{number} proto 99", 2 + link));
        }
        for wire in &wires {
            wire.packets();
        }
        let deadline = Instant::now() + PATIENCE;
        while wires[link].packets().1 == 0 {
            assert!(Instant::now() < deadline, "packets stay on the other link");
            // One or the other direction may be dropped while only one of both nodes has followed.
            datagrams.carries(SILENCE);
        }
        assert!(datagrams.carries(PATIENCE));
    };
    let begun = Instant::now();
    follows(&rig, 1);
    println!("followed after {:?}", begun.elapsed());
    for node in &mut rig.nodes {
        node.events = None;
        node.dataplane = None;
    }
    let begun = Instant::now();
    follows(&rig, 0);
    println!("followed unwatched after {:?}", begun.elapsed());
    rig.finish();
}

#[test]
fn a_path_shorter_than_packets_is_told_to_the_container_without_encapsulation() {
    let mut rig = native_trio(AttachMode::Tcx);
    let far = rig.add_routed_node(3, AttachMode::Tcx);
    rig.table(far, 600, Open, Drop, &[]);
    let remote = rig.container(far, 600);
    route_blocks(&rig);
    rig.rest.peers = peers(&rig);
    rig.set_network();
    let underlay = rig.underlay();
    for node in &rig.nodes {
        sh(&format!("ip -n {underlay} route add {} via {}", node.block, node.address));
    }
    let ping = |to: usize, fragment: &str| {
        output(&format!(
            "ip netns exec {} ping -c2 -i0.2 -W2 -M {fragment} -s 1372 {}",
            rig.ns(0),
            rig.address(to)
        ))
    };
    assert!(ping(remote, "do").contains(" 0% packet loss"), "{}", ping(remote, "do"));
    // A router on the way has a short link.
    sh(&format!(
        "ip -n {underlay} link set p3 mtu 1300 && ip -n {} link set eth0 mtu 1300",
        rig.nodes[far].namespace
    ));
    let answer = ping(remote, "do");
    assert!(answer.contains("mtu = 1300") || answer.contains("mtu=1300"), "{answer}");
    assert!(ping(remote, "dont").contains(" 0% packet loss"));
    // This node's own route has a short one.
    sh(&format!(
        "ip -n {} route replace {} via {} mtu lock 1200 proto 99",
        rig.nodes[0].namespace, rig.nodes[1].block, rig.nodes[1].address
    ));
    let answer = ping(1, "do");
    assert!(answer.contains("mtu = 1200") || answer.contains("mtu=1200"), "{answer}");
    assert!(ping(1, "dont").contains(" 0% packet loss"));
    rig.finish();
}

/// A network that is not ours, behind the underlay's router, whatever our own nodes do between each other.
fn foreign(encapsulation: Encapsulation) {
    let mut rig = Rig::open_trio(AttachMode::Tcx);
    let outside = rig.underlay();
    sh(&format!(
        "ip -n {outside} address add 203.0.113.1/24 dev br0 && ip -n {outside} route add {} via {}",
        rig.nodes[0].block, rig.nodes[0].address
    ));
    let there: IpAddr = "203.0.113.1".parse().unwrap();
    let listener = rig::inside(&outside, || TcpListener::bind((there, 9999)).unwrap());
    let seen = |rig: &Rig| {
        let _stream = connect(rig.ns(0), there, 9999, PATIENCE).unwrap();
        listener.accept().unwrap().1.ip()
    };
    assert_eq!(seen(&rig), IpAddr::from(rig.nodes[0].address), "masqueraded, as long as it is just outside");

    if encapsulation == Encapsulation::Never {
        route_blocks(&rig);
    }
    rig.rest.encapsulation = encapsulation;
    rig.rest.foreign = vec![
        ForeignEntry { prefix: "203.0.113.0/24".parse().unwrap(), identity: identity(900) },
        // Nodes may lie in it.
        ForeignEntry { prefix: "192.0.2.0/24".parse().unwrap(), identity: Identity::WORLD },
    ];
    rig.set_network();
    assert_eq!(seen(&rig), rig.address(0), "no NAT towards a network that is known");
    assert!(
        rig.ping(rig.ns(0), rig.nodes[0].address.into()) && rig.ping(rig.ns(0), rig.nodes[1].address.into())
    );

    rig.table(0, 300, Closed, Drop, &[]);
    let _echo = Echo::start(rig.ns(0), rig.address(0), 8080);
    let from_there = |rig: &Rig, patience| {
        rig::inside(&outside, || {
            let socket = std::net::UdpSocket::bind((there, 0)).unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            socket.send_to(b"hello", (rig.address(0), 8080)).unwrap();
            socket.recv(&mut [0; 16]).is_ok()
        })
    };
    assert!(!from_there(&rig, SILENCE));
    rig.table(0, 300, Closed, Drop, &[(900, "udp:8080")]);
    assert!(from_there(&rig, PATIENCE), "a rule names the network");
    let denied = rig.wait_event(0, |event| event.reason == "no-rule");
    assert_eq!((denied.from, denied.source), (identity(900), there));
    // Its router has an address in the other range, whose packets are the world's.
    rig.table(0, 300, Closed, Drop, &[(4, "icmp")]);
    assert!(rig.ping(&outside, rig.address(0)));
    rig.rest.foreign.pop();
    rig.set_network();
    assert!(!rig.ping(&outside, rig.address(0)), "not declared any more");
    rig.wait_event(0, |event| event.reason == "not-mapped");
    rig.finish();
}

#[test]
fn a_foreign_network_is_reached_without_nat_and_judged_by_its_identity() {
    foreign(Encapsulation::Never);
}

#[test]
fn a_foreign_network_is_reached_beside_an_overlay() {
    foreign(Encapsulation::Always);
}

/// Waits until these addresses of the first node's block are elsewhere, as its dataplane sees it.
fn wait_borrowed(rig: &Rig, addresses: &[Ipv4Addr]) {
    let wanted: BTreeSet<_> = addresses.iter().copied().collect();
    let deadline = Instant::now() + 6 * PATIENCE;
    loop {
        let borrowed = rig.on(0, isthmus_dataplane::Dataplane::borrowed);
        if borrowed == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{borrowed:?} are elsewhere, not {wanted:?}");
        std::thread::yield_now();
    }
}

/// The underlay's namespace as a node of Calico's kind, which has these addresses of the first node's block.
fn borrow(rig: &Rig, addresses: &[Ipv4Addr]) -> String {
    let borrower = rig.underlay();
    for address in addresses {
        sh(&format!("ip -n {borrower} address add {address}/32 dev lo"));
    }
    for node in &rig.nodes {
        sh(&format!("ip -n {borrower} route add {} via {}", node.block, node.address));
    }
    borrower
}

#[test]
fn an_address_that_another_host_borrowed_is_reached_there_and_judged_as_unknown() {
    let mut rig = native_trio(AttachMode::Tcx);
    let here = rig.nodes[0].namespace.clone();
    let lent: Ipv4Addr = "10.64.0.50".parse().unwrap();
    let borrower = borrow(&rig, &[lent]);
    assert!(!rig.ping(rig.ns(0), lent.into()), "nobody has it");
    rig.wait_event(0, |event| event.reason == "unknown-endpoint");

    let route = format!("{lent}/32 via 192.0.2.254 metric 20 proto 99");
    sh(&format!("ip -n {here} route add {route}"));
    wait_borrowed(&rig, &[lent]);
    assert!(rig.ping(rig.ns(0), lent.into()) && rig.ping(&here, lent.into()));
    assert!(rig.ping(rig.ns(1), lent.into()), "a node that knows of the block alone sends it by its owner");
    let says = |rig: &Rig, patience| {
        rig::inside(&borrower, || {
            let socket = std::net::UdpSocket::bind((lent, 0)).unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            socket.send_to(b"hello", (rig.address(0), 8080)).unwrap();
            socket.recv(&mut [0; 16]).is_ok()
        })
    };
    let _echo = Echo::start(rig.ns(0), rig.address(0), 8080);
    rig.table(0, 300, Closed, Drop, &[(400, "udp:8080"), (500, "udp:8080")]);
    assert!(!says(&rig, SILENCE));
    let denied = rig.wait_event(0, |event| event.reason == "no-rule");
    assert_eq!((denied.from, denied.source), (Identity::UNKNOWN, lent.into()));
    rig.table(0, 300, Closed, Drop, &[(0, "udp:8080")]);
    assert!(says(&rig, PATIENCE), "a rule for everybody");

    sh(&format!("ip -n {here} route delete {route}"));
    wait_borrowed(&rig, &[]);
    assert!(!rig.ping(rig.ns(0), lent.into()), "given back");
    // Also what an earlier agent wrote goes, and nothing stays in the overlay, which asks no routes.
    sh(&format!("ip -n {here} route add {route}"));
    wait_borrowed(&rig, &[lent]);
    sh(&format!("ip -n {here} route delete {route}"));
    rig.restart(0);
    rig.set_network();
    assert!(!rig.ping(rig.ns(0), lent.into()), "given back while nobody watched");
    sh(&format!("ip -n {here} route add {route}"));
    wait_borrowed(&rig, &[lent]);
    rig.rest.encapsulation = Encapsulation::Always;
    rig.set_network();
    wait_borrowed(&rig, &[]);
    assert!(!rig.ping(rig.ns(0), lent.into()));
    sh(&format!("ip -n {here} route delete {route}"));
    rig.finish();
}

#[test]
fn an_address_that_a_container_has_is_nobody_elses_whatever_routes_say() {
    let rig = native_trio(AttachMode::Tcx);
    let here = rig.nodes[0].namespace.clone();
    let (taken, lent): (Ipv4Addr, Ipv4Addr) = (rig.containers[2].address, "10.64.0.50".parse().unwrap());
    let thief = borrow(&rig, &[taken, lent]);
    let _echo = Echo::start(rig.ns(2), taken.into(), 8080);
    let lead =
        |address| sh(&format!("ip -n {here} route add {address}/32 via 192.0.2.254 metric 20 proto 99"));
    let all_reach_it = |rig: &Rig| {
        for from in [rig.ns(0), rig.ns(1), &here] {
            assert!(connect(from, taken.into(), 8080, PATIENCE).is_ok(), "{from}");
        }
    };
    let pretends = |rig: &Rig| {
        let before = rig.counter(0, "own-source");
        let sent = rig::inside(&thief, || {
            std::net::UdpSocket::bind((taken, 0)).unwrap().send_to(b"x", (rig.address(0), 8080))
        });
        assert_eq!(sent.unwrap(), 1);
        let deadline = Instant::now() + PATIENCE;
        while rig.counter(0, "own-source") == before {
            assert!(Instant::now() < deadline, "not dropped as own-source");
            std::thread::yield_now();
        }
    };
    lead(taken);
    // When this one is seen, so is the one before it.
    lead(lent);
    wait_borrowed(&rig, &[lent]);
    all_reach_it(&rig);
    pretends(&rig);
    // Even without the container's own route in the kernel programs know better.
    sh(&format!("ip -n {here} route delete {taken}/32 dev istc2"));
    let other = "10.64.0.51".parse().unwrap();
    lead(other);
    wait_borrowed(&rig, &[taken, lent, other]);
    assert!(connect(rig.ns(0), taken.into(), 8080, PATIENCE).is_ok());
    pretends(&rig);
    rig.finish();
}
