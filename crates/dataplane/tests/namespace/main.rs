//! Real packets between namespaces, for every promise of the dataplane, with tcx and with clsact.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod rig;

use isthmus_core::{DefaultVerdict::{Closed, Open}, DenyAnswer::{Drop, Reject}};
use isthmus_dataplane::AttachMode;
use aya::programs::{SchedClassifier, tc::TcAttachType::{Egress, Ingress}};
use rig::{Echo, PATIENCE, Rig, SILENCE, carries, connect, udp_echo};
use std::io::ErrorKind;

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
        let hooks = [("istc0", Ingress), ("istc0", Egress), ("eth0", Ingress), ("ist-vxlan", Ingress), ("ist-vxlan", Egress)];
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
