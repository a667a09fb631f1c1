//! Each program by itself, under `BPF_PROG_TEST_RUN`: a packet in, a verdict and a reason out, malformed ones too.
//!
//! The programs run in the node's namespace, on the real maps of a rig.

use crate::rig::{Rig, inside};
use aya::{
    maps::{HashMap, Map, MapData, PerCpuArray},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use isthmus_core::{DefaultVerdict, DenyAnswer};
use isthmus_dataplane::{AttachMode, GATEWAY_MAC, pins};
use isthmus_dataplane_common::{ConnectionKey, ConnectionValue};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{
    fs,
    mem::offset_of,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

pub(crate) const REDIRECT: i32 = 7;
pub(crate) const SHOT: i32 = 2;
pub(crate) const NEXT: i32 = -1;

/// A packet under construction.
#[derive(Clone, Debug)]
pub(crate) struct Frame(pub(crate) Vec<u8>);

impl Frame {
    pub(crate) fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Self {
        let mut bytes = destination.to_vec();
        bytes.extend(source);
        bytes.extend(ethertype.to_be_bytes());
        Self(bytes)
    }

    /// IPv4 with the payload of `protocol`.
    pub(crate) fn ipv4(
        mut self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        payload: &[u8],
    ) -> Self {
        let total = 20 + payload.len() as u16;
        let mut header = vec![0x45, 0];
        header.extend(total.to_be_bytes());
        header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        self.0.extend(header);
        self.0.extend(payload);
        self
    }

    pub(crate) fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn cut(mut self, length: usize) -> Self {
        self.0.truncate(length);
        self
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

pub(crate) fn tcp(source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = source_port.to_be_bytes().to_vec();
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

pub(crate) fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = source_port.to_be_bytes().to_vec();
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

pub(crate) fn vxlan(vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend((vni << 8).to_be_bytes());
    bytes.extend(inner);
    bytes
}

/// Runs one program of the first node.
pub(crate) struct Bench<'a> {
    rig: &'a Rig,
    program: SchedClassifier,
    ifindex: u32,
    /// Of the interface.
    pub(crate) mac: [u8; 6],
}

impl<'a> Bench<'a> {
    pub(crate) fn new(rig: &'a Rig, program: &str, interface: &str) -> Self {
        let node = &rig.nodes[0];
        let directory = pins(&node.options.bpffs, &node.options.node).join("programs");
        let directory = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
        let program = SchedClassifier::from_pin(directory.join(program)).unwrap();
        // sysfs shows the namespace of its mount, so `ip` has to tell.
        let text = crate::rig::output(&format!("ip -n {} -o link show {interface}", node.namespace));
        let ifindex = text.split(':').next().unwrap().trim().parse().unwrap();
        let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        let mac: Vec<_> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Self { rig, program, ifindex, mac: mac.try_into().unwrap() }
    }

    pub(crate) fn run(&self, frame: &Frame) -> (i32, Vec<u8>) {
        // `struct __sk_buff`, whose 11th field is `ifindex`.
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&self.ifindex.to_ne_bytes());
        let mut out = vec![0; frame.0.len() + 256];
        let result = inside(&self.rig.nodes[0].namespace, || {
            let mut options = TestRunOptions::new();
            options.data_in = Some(&frame.0);
            options.data_out = Some(&mut out);
            options.ctx_in = Some(&context);
            self.program.test_run(options).unwrap()
        });
        out.truncate(result.data_size_out as usize);
        (result.return_value as i32, out)
    }

    /// Whether a processor remembers a flow: its addresses and ports as in a packet.
    fn remembers(&self, flow: &[u8]) -> bool {
        let ids = self.program.info().unwrap().map_ids().unwrap().unwrap();
        let flows = ids.into_iter().map(|id| MapData::from_id(id).unwrap());
        let flows = flows.into_iter().find(|map| map.info().unwrap().name_as_str() == Some("FLOW")).unwrap();
        let flows = PerCpuArray::<_, [u8; 256 * 64]>::try_from(Map::PerCpuArray(flows)).unwrap();
        flows.get(&0, 0).unwrap().iter().any(|lines| lines.chunks(64).any(|line| line.starts_with(flow)))
    }

    /// Sends a frame until its flow is remembered, by whichever processor runs the program.
    pub(crate) fn run_until_known(&self, frame: &Frame) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            assert_eq!(self.run(frame).0, REDIRECT);
        }
    }

    /// Checks a verdict and that exactly this reason was counted.
    pub(crate) fn check(&self, frame: &Frame, verdict: i32, reason: &str) {
        let before = self.rig.counter(0, reason);
        let (returned, _) = self.run(frame);
        let counted = self.rig.counter(0, reason) - before;
        assert_eq!((returned, counted), (verdict, 1), "{reason}: {frame:02x?}");
    }
}

/// A rig whose second container on the first node is closed.
fn rig() -> Rig {
    let rig = Rig::open_trio(AttachMode::Tcx);
    rig.table(0, 500, DefaultVerdict::Closed, DenyAnswer::Drop, &[(300, "tcp:8080"), (300, "udp:8080")]);
    rig
}

#[test]
fn a_container_sends_only_as_itself() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_container", "istc0");
    let (mac, own) = (rig.containers[0].link.mac, rig.containers[0].address);
    let (target, remote) = (rig.containers[2].address, rig.containers[1].address);
    let frame = |ethertype| Frame::ethernet(GATEWAY_MAC, mac, ethertype);
    let syn = tcp(40_000, 8080, 2);
    let good = frame(0x0800).ipv4(own, target, 6, &syn);

    bench.check(&good, REDIRECT, "rule");
    bench.check(&good, REDIRECT, "established");
    bench.check(&frame(0x0800).ipv4(own, remote, 6, &syn), REDIRECT, "outbound");
    bench.check(&frame(0x0800).ipv4(own, target, 6, &tcp(1, 81, 2)), SHOT, "no-rule");
    bench.check(&frame(0x0800).ipv4(target, own, 6, &syn), SHOT, "spoofed-address");
    bench.check(&good.clone().with(6, &[2, 1, 1, 1, 1, 1]), SHOT, "spoofed-mac");
    bench.check(&good.clone().with(0, &[0xff; 6]), SHOT, "multicast");
    bench.check(
        &frame(0x0800).ipv4(own, Ipv4Addr::new(224, 0, 0, 1), 17, &udp(1, 1, &[])),
        SHOT,
        "multicast",
    );
    bench.check(&frame(0x86dd).ipv4(own, target, 6, &syn), SHOT, "ipv6");
    bench.check(&frame(0x8847).ipv4(own, target, 6, &syn), SHOT, "not-ip");
    bench.check(&frame(0x0800).ipv4(own, Ipv4Addr::new(10, 64, 0, 60), 6, &syn), SHOT, "unknown-endpoint");
    bench.check(&frame(0x0800).ipv4(own, Ipv4Addr::new(10, 64, 9, 9), 6, &syn), SHOT, "no-route");
    let overlay = udp(50_000, 4789, &vxlan(400, &good.0));
    for node in &rig.nodes {
        bench.check(&frame(0x0800).ipv4(own, node.address, 17, &overlay), SHOT, "overlay-from-container");
    }
    bench.check(&frame(0x0800).ipv4(own, rig.nodes[0].address, 6, &syn), NEXT, "node");
    bench.check(&frame(0x0800).ipv4(own, Ipv4Addr::new(198, 51, 100, 1), 6, &syn), NEXT, "outbound");
    rig.finish();
}

/// Short connections too: nothing but their first packets and their last ones ask the table.
#[test]
fn a_flow_is_remembered_once_its_handshake_is_over() {
    let rig = rig();
    let there = Bench::new(&rig, "from_container", "istc0");
    let back = Bench::new(&rig, "from_container", "istc2");
    let (here, peer) = (&rig.containers[0], &rig.containers[2]);
    let ports = |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let flow = |source: Ipv4Addr, destination: Ipv4Addr, ports: &[u8]| {
        [&source.octets()[..], &destination.octets()[..], ports].concat()
    };
    let (forward, backward) = (
        flow(here.address, peer.address, &ports(40_000, 8080)),
        flow(peer.address, here.address, &ports(8080, 40_000)),
    );
    let send = |flags: u8| {
        let header = Frame::ethernet(GATEWAY_MAC, here.link.mac, 0x0800);
        there.run(&header.ipv4(here.address, peer.address, 6, &tcp(40_000, 8080, flags))).0
    };
    let answer = |flags: u8| {
        let header = Frame::ethernet(GATEWAY_MAC, peer.link.mac, 0x0800);
        back.run(&header.ipv4(peer.address, here.address, 6, &tcp(8080, 40_000, flags))).0
    };
    let (fin, syn, ack) = (1, 2, 16);

    assert_eq!((send(syn), answer(syn | ack)), (REDIRECT, REDIRECT));
    assert!(!there.remembers(&forward) && !there.remembers(&backward), "the handshake goes on");
    assert_eq!((send(ack), answer(ack)), (REDIRECT, REDIRECT));
    assert!(there.remembers(&forward) && there.remembers(&backward));
    assert_eq!((send(fin | ack), answer(fin | ack)), (REDIRECT, REDIRECT));
    rig.finish();
}

/// Else the sweep would take its entry away.
#[test]
fn a_busy_connection_is_seen_again_and_again() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_container", "istc0");
    let frame = |flags: u8| {
        let header = Frame::ethernet(GATEWAY_MAC, rig.containers[0].link.mac, 0x0800);
        header.ipv4(rig.containers[0].address, rig.containers[2].address, 6, &tcp(40_000, 8080, flags))
    };
    let options = &rig.nodes[0].options;
    let pin = pins(&options.bpffs, &options.node).join("maps/CONNECTION_TCP");
    let table = Map::LruHashMap(MapData::from_pin(pin).unwrap());
    let table =
        HashMap::<_, [u8; size_of::<ConnectionKey>()], [u8; size_of::<ConnectionValue>()]>::try_from(table)
            .unwrap();
    let seen = || {
        let (_, value) = table.iter().next().unwrap().unwrap();
        value[offset_of!(ConnectionValue, seen)..][..4].to_vec()
    };
    let (syn, ack) = (2, 16);

    bench.check(&frame(syn), REDIRECT, "rule");
    let (first, begun) = (seen(), Instant::now());
    while seen() == first {
        assert_eq!(bench.run(&frame(ack)).0, REDIRECT);
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "a connection in use looks as old as its first packet"
        );
    }
    rig.finish();
}

#[test]
fn malformed_packets_are_dropped_with_a_reason() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_container", "istc0");
    let (mac, own, target) =
        (rig.containers[0].link.mac, rig.containers[0].address, rig.containers[2].address);
    let frame = Frame::ethernet(GATEWAY_MAC, mac, 0x0800);
    let good = frame.clone().ipv4(own, target, 6, &tcp(40_000, 8080, 2));

    bench.check(&good.clone().cut(38), SHOT, "malformed");
    bench.check(&good.clone().cut(44), SHOT, "malformed");
    bench.check(&good.clone().with(14, &[0x44]), SHOT, "malformed");
    bench.check(&good.clone().with(14, &[0x65]), SHOT, "malformed");
    bench.check(&good.clone().with(16, &[0xff, 0xff]), SHOT, "malformed");
    bench.check(&good.clone().with(16, &[0, 10]), SHOT, "malformed");
    // A later fragment whose first never came.
    bench.check(&good.clone().with(20, &[0x20, 0x10]), SHOT, "fragment-lost");
    // Options: loose source route, and a length that does not move on.
    let mut routed =
        frame.clone().ipv4(own, target, 6, &[&[131, 7, 4, 0, 0, 0, 0, 0][..], &tcp(1, 8080, 2)].concat());
    routed = routed.with(14, &[0x47]);
    bench.check(&routed, SHOT, "source-route");
    let mut stuck = frame.clone().ipv4(own, target, 6, &[&[7, 0, 0, 0][..], &tcp(1, 8080, 2)].concat());
    stuck = stuck.with(14, &[0x46]);
    bench.check(&stuck, SHOT, "source-route");
    // Router alert (RFC 2113) is legal, and the ports are found behind it.
    let alert = frame.clone().ipv4(own, target, 6, &[&[148, 4, 0, 0][..], &tcp(1, 8080, 2)].concat());
    bench.check(&alert.with(14, &[0x46]), REDIRECT, "rule");
    // An error about a connection that nobody has.
    let quoted = Frame(Vec::new()).ipv4(target, own, 6, &tcp(1, 2, 0));
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted.0].concat();
    bench.check(&frame.ipv4(own, target, 1, &error), SHOT, "no-connection");
    rig.finish();
}

#[test]
fn arp_is_answered_for_the_gateway_and_forged_arp_is_told() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_container", "istc0");
    let (mac, own) = (rig.containers[0].link.mac, rig.containers[0].address);
    let arp = |sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr, operation: u8| {
        let mut frame = Frame::ethernet([0xff; 6], mac, 0x0806);
        frame.0.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.0.extend(sender_mac);
        frame.0.extend(sender.octets());
        frame.0.extend([0; 6]);
        frame.0.extend(target.octets());
        frame
    };
    let gateway = isthmus_dataplane::GATEWAY;
    let (verdict, answer) = bench.run(&arp(mac, own, gateway, 1));
    assert_eq!(verdict, REDIRECT);
    assert_eq!(&answer[20..22], &[0, 2], "a reply");
    assert_eq!(&answer[22..28], &GATEWAY_MAC);
    // Nobody else is answered for, nothing is flooded, and a probe for the own address hears nothing.
    for silent in [arp(mac, own, Ipv4Addr::new(10, 64, 0, 9), 1), arp(mac, Ipv4Addr::UNSPECIFIED, own, 1)] {
        assert_eq!(bench.run(&silent).0, SHOT);
    }
    bench.check(&arp(mac, Ipv4Addr::new(10, 64, 0, 9), gateway, 1), SHOT, "spoofed-arp");
    bench.check(&arp([2, 9, 9, 9, 9, 9], own, gateway, 1), SHOT, "spoofed-arp");
    rig.finish();
}

#[test]
fn the_wire_is_believed_only_from_nodes_and_only_for_their_own_addresses() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_wire", "eth0");
    let (here, there) = (rig.nodes[0].address, rig.nodes[1].address);
    let (target, remote) = (rig.containers[0].address, rig.containers[1].address);
    let inner = |source, destination: Ipv4Addr| {
        Frame::ethernet(GATEWAY_MAC, [2, 0, 0, 0, 0, 1], 0x0800).ipv4(source, destination, 6, &tcp(1, 80, 2))
    };
    let outer = |sender, vni, inner: &Frame| {
        Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(
            sender,
            here,
            17,
            &udp(50_000, 4789, &vxlan(vni, &inner.0)),
        )
    };
    let good = outer(there, 400, &inner(remote, target));

    bench.check(&good, REDIRECT, "default-open");
    bench.check(&outer(Ipv4Addr::new(192, 0, 2, 77), 400, &inner(remote, target)), SHOT, "unknown-node");
    // A node that claims to be this one.
    bench.check(&outer(here, 400, &inner(remote, target)), SHOT, "unknown-node");
    bench.check(&outer(there, 400, &inner(rig.containers[2].address, target)), SHOT, "foreign-source");
    bench.check(&outer(there, 400, &inner(Ipv4Addr::new(203, 0, 113, 1), target)), SHOT, "foreign-source");
    bench.check(&outer(there, 3, &inner(remote, target)), SHOT, "foreign-source");
    for vni in [0, 1, 2, 4, 255, 0x00ff_ffff] {
        bench.check(&outer(there, vni, &inner(remote, target)), SHOT, "bad-vni");
    }
    bench.check(&outer(there, 400, &inner(remote, Ipv4Addr::new(10, 64, 0, 60))), SHOT, "unknown-endpoint");
    // A merged packet, a checksum, a wrong outer checksum, fragments, other ports: the stack's affair.
    assert_eq!(bench.run(&good.clone().with(40, &[1, 1])).0, NEXT);
    assert_eq!(bench.run(&good.clone().with(24, &[0, 0])).0, NEXT);
    assert_eq!(bench.run(&good.clone().with(20, &[0x20, 0])).0, NEXT);
    assert_eq!(bench.run(&good.clone().with(36, &[0, 53])).0, NEXT);
    assert_eq!(bench.run(&outer(there, 400, &inner(remote, here))).0, NEXT, "for the node itself");
    rig.finish();
}

#[test]
fn a_path_that_a_router_calls_too_short_is_told_to_the_container() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_wire", "eth0");
    let (here, there) = (rig.nodes[0].address, rig.nodes[1].address);
    let router = Ipv4Addr::new(192, 0, 2, 254);
    let told = |quoted_source, port, mtu: u16| {
        let quoted = Frame(Vec::new()).ipv4(quoted_source, there, 17, &udp(50_000, port, &[]));
        let mut error = vec![3, 4, 0, 0, 0, 0];
        error.extend(mtu.to_be_bytes());
        error.extend(quoted.0);
        Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(router, here, 1, &error)
    };
    let ping = |size: u32, fragment: &str| {
        let (from, to) = (rig.ns(0), rig.address(1));
        crate::rig::output(&format!("ip netns exec {from} ping -c1 -W2 -M {fragment} -s {size} {to}"))
    };
    // Not about what this node sent, not about our port, or nonsense: not believed, and left to the stack.
    for forged in [told(there, 4789, 1400), told(here, 53, 1400), told(here, 4789, 100)] {
        assert_eq!(bench.run(&forged).0, NEXT);
    }
    assert!(ping(1372, "do").contains(" 0% packet loss"));
    assert_eq!(bench.run(&told(here, 4789, 1400)).0, NEXT);
    let answer = ping(1372, "do");
    assert!(answer.contains("mtu = 1350") || answer.contains("mtu=1350"), "{answer}");
    // Without DF the device cuts it, and it arrives.
    let answer = ping(1372, "dont");
    assert!(answer.contains(" 0% packet loss"), "{answer}");
    rig.finish();
}

/// Whatever a container sends: it goes on only with the container's own MAC and address, and nothing crashes.
#[test]
fn no_bytes_get_through_as_another() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_container", "istc0");
    let (mac, own, target) =
        (rig.containers[0].link.mac, rig.containers[0].address, rig.containers[2].address);
    let ethernet = || Frame::ethernet(GATEWAY_MAC, mac, 0x0800);
    let new = ethernet().ipv4(own, target, 6, &tcp(40_000, 8080, 2));
    let known = ethernet().ipv4(own, target, 17, &udp(40_000, 8080, b"of a connection"));
    for good in [new, known] {
        bench.run_until_known(&good);
        no_bytes_get_through_beside(&bench, &good, mac, own);
    }
    rig.finish();
}

fn no_bytes_get_through_beside(bench: &Bench<'_>, good: &Frame, mac: [u8; 6], own: Ipv4Addr) {
    let mutation = (proptest::collection::vec((0..good.0.len(), any::<u8>()), 0..6), 34..=good.0.len());
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&mutation, |(changes, length)| {
        let mut frame = good.clone();
        for (offset, byte) in changes {
            frame.0[offset] = byte;
        }
        let frame = frame.cut(length);
        let (verdict, _) = bench.run(&frame);
        prop_assert!([REDIRECT, SHOT, NEXT].contains(&verdict), "{}", verdict);
        if verdict != SHOT {
            prop_assert_eq!(&frame.0[6..12], &mac);
            prop_assert_eq!(&frame.0[12..14], &[8, 0]);
            prop_assert_eq!(&frame.0[26..30], &own.octets());
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Whatever arrives by wire: it enters a container only from a known node and one of its addresses.
#[test]
fn no_bytes_enter_from_the_wire_as_another() {
    let rig = rig();
    let bench = Bench::new(&rig, "from_wire", "eth0");
    let (here, there) = (rig.nodes[0].address, rig.nodes[1].address);
    let (target, remote) = (rig.containers[0].address, rig.containers[1].address);
    let inner = || Frame::ethernet(GATEWAY_MAC, [2, 0, 0, 0, 0, 1], 0x0800);
    let new = inner().ipv4(remote, target, 6, &tcp(1, 80, 2));
    let known = inner().ipv4(remote, target, 17, &udp(1, 80, b"of a connection"));
    for inner in [new, known] {
        let datagram = udp(50_000, 4789, &vxlan(400, &inner.0));
        let good = Frame::ethernet(bench.mac, [4; 6], 0x0800).ipv4(there, here, 17, &datagram);
        bench.run_until_known(&good);
        no_bytes_enter_beside(&rig, &bench, &good);
    }
    rig.finish();
}

fn no_bytes_enter_beside(rig: &Rig, bench: &Bench<'_>, good: &Frame) {
    let there = rig.nodes[1].address;
    let mutation = (proptest::collection::vec((14..good.0.len(), any::<u8>()), 0..6), 34..=good.0.len());
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&mutation, |(changes, length)| {
        let mut frame = good.clone();
        for (offset, byte) in changes {
            frame.0[offset] = byte;
        }
        let header = frame.0[14..34].to_vec();
        frame.0[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&frame.0[14..34]);
        // Half of them with a right outer checksum, so that they get past it.
        frame.0[24..26].copy_from_slice(if length % 2 == 0 { &header[10..12] } else { &[0, 0] });
        if length % 2 == 1 {
            frame.0[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let frame = frame.cut(length);
        let (verdict, _) = bench.run(&frame);
        prop_assert!([REDIRECT, SHOT, NEXT].contains(&verdict), "{}", verdict);
        if verdict == REDIRECT {
            prop_assert_eq!(&frame.0[26..30], &there.octets());
            prop_assert!(rig.nodes[1].block.contains(&Ipv4Addr::new(
                frame.0[76],
                frame.0[77],
                frame.0[78],
                frame.0[79]
            )));
        }
        Ok(())
    });
    outcome.unwrap();
}
