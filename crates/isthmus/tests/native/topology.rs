//! Who is whose neighbour: AS numbers of nodes, and reflectors.

use crate::{encapsulation::wait_for_routes, lab::Lab, packets::fetch};
use std::collections::BTreeMap;

/// Waits until a node's sessions with other nodes are these, and up.
fn wait_neighbours(lab: &Lab, node: &str, neighbours: &[&str]) {
    let node = lab.node(node);
    let wanted: BTreeMap<_, _> =
        neighbours.iter().map(|name| (lab.node(name).address.to_string(), true)).collect();
    lab.wait(&format!("the neighbours of {}", node.name), || {
        let mut found = node.neighbours();
        found.retain(|address, _| !address.ends_with(".254"));
        (found != wanted).then(|| format!("{found:?}"))
    });
}

pub(crate) fn two_reflectors_carry_the_routes_of_all_ases(lab: &Lab) {
    lab.tell("node set blue-2 --as 64602");
    lab.tell("node set red-1 --reflector 10.0.0.1");
    lab.tell("node set red-2 --reflector 10.0.0.2");
    wait_neighbours(lab, "red-3", &["red-1", "red-2"]);
    wait_neighbours(lab, "blue-1", &["red-1", "red-2", "blue-2"]);
    wait_neighbours(lab, "blue-2", &["red-1", "red-2", "blue-1"]);
    wait_neighbours(lab, "red-1", &["red-2", "red-3", "blue-1", "blue-2"]);
    // Nobody is on the way of others' packets.
    wait_for_routes(lab);
    fetch(lab, lab.app("front"), lab.app("far"));
    let client = lab.node("red-3");
    for name in ["blue-1", "blue-2"] {
        lab.wait(&format!("a path to {name} by each reflector"), || {
            let paths = client.paths(&lab.node(name).block().to_string());
            let by = |reflector: &str| paths.iter().any(|(from, _, _)| from == reflector);
            (!by("172.31.1.11") || !by("172.31.1.12")).then(|| format!("{paths:?}"))
        });
    }
    // A node's own AS is in the path to it.
    let told = client.bgp(&format!("routes {}", lab.node("blue-2").block()));
    assert!(told.contains("64602") && !told.contains("64513"), "{told}");
}
