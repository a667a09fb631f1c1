//! Real packets between namespaces, for every promise of the dataplane, with tcx and with clsact.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod rig;

use isthmus_core::{DefaultVerdict::{Closed, Open}, DenyAnswer::{Drop, Reject}};
use isthmus_dataplane::AttachMode;
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
