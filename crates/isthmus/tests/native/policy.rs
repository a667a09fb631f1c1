//! Rules without encapsulation, where a source address is an identity.

use crate::{
    lab::{Lab, Node},
    outside::{DECLARED, UNDECLARED, WORLD},
    packets::{Talk, denied, echoes, fetch, has_flow, now, wait_denied},
};
use isthmus_testbed::namespace::Namespace;
use std::net::Ipv4Addr;

/// Waits until such a datagram is denied for this reason, as from this sender (empty: whoever).
fn wait_dropped(
    lab: &Lab,
    (space, source): (&Namespace, Ipv4Addr),
    to: &Node,
    at: &Node,
    (reason, from): (&str, &str),
) {
    let since = now();
    lab.wait(&format!("{source} to be denied as {reason} of \"{from}\""), || {
        assert!(!echoes(space, source, to), "{source} reaches {}", to.app);
        (!has_flow(at, since, (reason, from), source)).then(|| format!("{:?}", at.flow(|_| true)))
    });
}

pub(crate) fn rules_decide_by_the_identity_of_the_source(lab: &Lab) {
    let [front, back, far, bill, mail] = ["front", "back", "far", "bill", "mail"].map(|app| lab.app(app));
    fetch(lab, front, bill);
    for (from, name) in [
        // A rule of this node names it, for another port.
        (bill, "nomad:shop/bill@blue"),
        // No rule of this node names these.
        (far, "unknown"),
        (mail, "unknown"),
    ] {
        wait_denied(lab, from, back, name);
    }
    // Of another cluster, on another subnet.
    lab.tell("policy allow mail back tcp:8080 --name mail-back");
    fetch(lab, mail, back);
    lab.tell("policy remove mail-back");
    denied(mail, back);
}

pub(crate) fn who_comes_from_another_network_is_that_network(lab: &Lab) {
    let back = lab.app("back");
    let from = |source| (&lab.router, source);
    lab.tell("cluster create dc --platform mesos --external");
    lab.tell("pool create dc --cluster dc --cidr 198.51.100.0/24");
    lab.tell("pool create office --cluster dc --cidr 192.0.2.0/24 --world");
    wait_dropped(lab, from(DECLARED), back, back, ("no-rule", "mesos:external/dc@dc"));
    wait_dropped(lab, from(WORLD), back, back, ("no-rule", "world"));
    wait_dropped(lab, from(UNDECLARED), back, back, ("not-mapped", ""));
    lab.tell("policy allow mesos:external/dc@dc back udp:9000 --name dc-back");
    wait_let_in(lab, back);
    assert!(!echoes(&lab.router, WORLD, back) && !echoes(&lab.router, UNDECLARED, back));
}

/// Waits until a datagram of the declared network is answered.
fn wait_let_in(lab: &Lab, to: &Node) {
    lab.wait("the declared network to be let in", || {
        (!echoes(&lab.router, DECLARED, to)).then(|| format!("{:?}", to.flow(|_| true)))
    });
}

pub(crate) fn nobody_sends_as_another(lab: &Lab) {
    let (front, back) = (lab.app("front"), lab.app("back"));
    let own = back.unused(50);
    lab.router.ip(&format!("address add {own}/32 dev lo")).unwrap();
    front.ip_inside(&format!("address add {}/32 dev eth0", lab.app("bill").container));
    for check in ["loose", "strict"] {
        lab.tell(&format!("network set --source-check {check}"));
        settle(lab);
        let inside = (front.container_space(), lab.app("bill").container);
        wait_dropped(lab, inside, back, front, ("spoofed-address", ""));
        wait_dropped(lab, (&lab.router, own), back, back, ("own-source", ""));
        wait_let_in(lab, back);
    }
    front.ip_inside(&format!("address delete {}/32 dev eth0", lab.app("bill").container));
    lab.router.ip(&format!("address delete {own}/32 dev lo")).unwrap();
}

/// Waits until every node has the network's setting in force.
fn settle(lab: &Lab) {
    let revision = |line: &str, key: &str| -> u64 {
        let value: serde_json::Value = serde_json::from_str(&lab.tell(line)).unwrap();
        let value = value.get(0).unwrap_or(&value).clone();
        value["spec"][key].as_u64().or_else(|| value[key].as_u64()).unwrap()
    };
    let wanted = revision("network show -o json", "revision");
    for node in &lab.nodes {
        lab.wait(&format!("{} to have revision {wanted} in force", node.name), || {
            let found = revision(&format!("node show {} -o json", node.name), "revisionInForce");
            (found < wanted).then(|| found.to_string())
        });
    }
}

pub(crate) fn a_revoked_rule_stops_its_connection(lab: &Lab) {
    let (front, back) = (lab.app("front"), lab.app("back"));
    lab.tell("policy allow front back tcp:7000 --name talk");
    let talk = Talk::start(front.container_space(), back);
    lab.tell("policy remove talk");
    lab.wait("the connection to stop", || (!talk.has_stopped()).then(|| "it goes on".to_owned()));
    fetch(lab, front, back);
}
