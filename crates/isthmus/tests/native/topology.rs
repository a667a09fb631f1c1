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

pub(crate) fn a_node_with_an_as_of_its_own_is_reached_as_before(lab: &Lab) {
    lab.tell("node set blue-2 --as 64602");
    wait_neighbours(lab, "blue-2", &["red-1", "red-2", "red-3", "blue-1"]);
    wait_for_routes(lab);
    let (observer, node) = (lab.node("red-3"), lab.node("blue-2"));
    lab.wait("the path of its block", || {
        let told = observer.bgp(&format!("routes {}", node.block()));
        (!told.contains("64602")).then_some(told)
    });
}

pub(crate) fn two_reflectors_carry_the_routes_of_both_clusters(lab: &Lab) {
    lab.tell("node set red-1 --reflector 10.0.0.1");
    lab.tell("node set red-2 --reflector 10.0.0.2");
    wait_neighbours(lab, "red-3", &["red-1", "red-2"]);
    wait_neighbours(lab, "blue-1", &["red-1", "red-2", "blue-2"]);
    wait_neighbours(lab, "red-1", &["red-2", "red-3", "blue-1", "blue-2"]);
    // Nobody is on the way of others' packets.
    wait_for_routes(lab);
    fetch(lab, lab.app("front"), lab.app("far"));
    let (client, node) = (lab.node("red-3"), lab.node("blue-1"));
    lab.wait("a path by each reflector", || {
        let paths = client.paths(&node.block().to_string());
        let by = |reflector: &str| paths.iter().any(|(from, _, _)| from == reflector);
        (!by("172.31.1.11") || !by("172.31.1.12")).then(|| format!("{paths:?}"))
    });
}
