//! Who goes plain, and who in the overlay.

use crate::{
    lab::{Lab, Node},
    outside::Router,
    packets::{Capture, fetch, wait_denied},
};

/// Rules of the first chapters. Each name of an app is unique.
const RULES: [(&str, &str, &str); 4] = [
    ("front", "back", "tcp:8080"),
    ("front", "bill", "tcp:8080"),
    ("front", "far", "tcp:8080"),
    // So that the node of `back` knows who `bill` is.
    ("bill", "back", "tcp:7000"),
];

/// Every node's kernel has one way to each other node's block, and it is the node itself.
pub(crate) fn wait_for_routes(lab: &Lab) {
    for node in &lab.nodes {
        for other in lab.nodes.iter().filter(|other| other.name != node.name) {
            lab.wait(&format!("{} to have a route to {}", node.name, other.name), || {
                let routes = node.routes(&format!("{} proto 99", other.block()));
                (!is_direct(node, other, &routes)).then_some(routes)
            });
        }
    }
}

fn is_direct(node: &Node, other: &Node, routes: &str) -> bool {
    let via = if node.subnet() == other.subnet() {
        other.address.to_string()
    } else {
        format!("172.31.{}.254", node.subnet())
    };
    routes.lines().count() == 1
        && routes.matches(" via ").count() == 1
        && routes.contains(&format!(" via {via} dev eth0"))
}

pub(crate) fn within_a_subnet_packets_are_plain_and_across_they_are_not(lab: &Lab) {
    for (from, to, port) in RULES {
        lab.tell(&format!("policy allow {from} {to} {port} --name {from}-{to}"));
    }
    wait_for_routes(lab);
    let [front, back, far, bill] = ["front", "back", "far", "bill"].map(|app| lab.app(app));
    let capture = Capture::start(lab);
    fetch(lab, front, back);
    fetch(lab, front, bill);
    fetch(lab, front, far);
    capture.end(lab, &[(front, back), (front, bill)], &[(front, far)]);
    // Who sends is known both ways: by the VNI, and by the source address.
    for (from, name) in [(far, "k8s:shop/far@red"), (bill, "nomad:shop/bill@blue")] {
        wait_denied(lab, from, back, name);
    }
}

pub(crate) fn without_encapsulation_all_packets_are_plain(lab: &Lab, bird: &Router) {
    bird.wait_for_blocks(lab);
    lab.tell("network set --encapsulation never");
    for node in &lab.nodes {
        lab.wait(&format!("{} to go without encapsulation", node.name), || {
            let routes = node.routes("type unreachable");
            (!routes.contains(&node.block().to_string())).then_some(routes)
        });
    }
    let [front, back, far] = ["front", "back", "far"].map(|app| lab.app(app));
    let capture = Capture::start(lab);
    fetch(lab, front, back);
    fetch(lab, front, far);
    capture.end(lab, &[(front, back), (front, far)], &[]);
}
