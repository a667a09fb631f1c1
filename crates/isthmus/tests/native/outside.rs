//! A router that is not ours: BIRD, in AS 65000, on both links. It leads to the outside, and forwards between the links.

use crate::lab::{Lab, Node, PATIENCE};
use isthmus_testbed::command::Call;
use std::{fmt::Write as _, net::Ipv4Addr, path::PathBuf};

/// Its addresses outside: a network that is declared, one that is the world's, and one that nobody declared.
pub(crate) const DECLARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const UNDECLARED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// What neighbours may take from it.
const IMPORT: &str = "198.51.100.0/22=24";

/// BIRD in the router's namespace.
pub(crate) struct Router {
    control: PathBuf,
}

impl Router {
    /// Starts it, and declares it as a neighbour of the nodes on each link.
    pub(crate) fn start(lab: &mut Lab) -> Self {
        for address in [DECLARED, WORLD, UNDECLARED] {
            lab.router.ip(&format!("address add {address}/32 dev lo")).unwrap();
        }
        let config = lab.write("bird.conf", &config(lab));
        let control = config.with_file_name("bird.sock");
        let call = lab.router.call("bird").arg("-f").arg("-s").arg(&control).arg("-c").arg(config);
        let process = lab.start("bird", &call);
        let router = Self { control };
        process.wait_ready(PATIENCE, || router.ask("show status").run().is_ok()).unwrap();
        for node in &lab.nodes {
            let rack = rack(node.subnet());
            lab.tell(&format!("node set {} --label rack={rack}", node.name));
        }
        for subnet in [1, 2] {
            declare(lab, subnet, "");
        }
        router
    }

    fn ask(&self, line: &str) -> Call {
        Call::new("birdc").arg("-s").arg(&self.control).words(line)
    }

    /// What `birdc` says.
    pub(crate) fn says(&self, line: &str) -> String {
        self.ask(line).run().unwrap()
    }

    /// Waits until it forwards to every node's block, as that node told.
    pub(crate) fn wait_for_blocks(&self, lab: &Lab) {
        for node in &lab.nodes {
            lab.wait(&format!("BIRD to lead to {}", node.name), || {
                let routes = lab.router.ip(&format!("route show {} proto bird", node.block())).unwrap();
                let is_so = routes.contains(&format!("via {} ", node.address));
                (!is_so).then(|| routes + &self.says("show protocols"))
            });
        }
    }
}

fn rack(subnet: u8) -> &'static str {
    if subnet == 1 { "a" } else { "b" }
}

fn declare(lab: &Lab, subnet: u8, more: &str) {
    let rack = rack(subnet);
    lab.tell(&format!(
        "bgp peer create tor-{rack} --address 172.31.{subnet}.254 --as 65000 --node-label rack={rack} \
         --import {IMPORT} {more}"
    ));
}

/// Static tables, of which only `said` is announced from the start, and a session with each node.
fn config(lab: &Lab) -> String {
    let (red_1, front) = (lab.node("red-1"), lab.app("front").container);
    let lent = crate::borrowed::lent(lab);
    let mut text = format!(
        "router id 172.31.1.254;\nlog stderr all;\nprotocol device {{ scan time 2; }}\n\
         protocol kernel {{ persist; ipv4 {{ import none;\n  \
         export filter {{ if source = RTS_BGP then {{ krt_prefsrc = {DECLARED}; accept; }} reject; }}; }}; }}\n\
         filter ours {{ if source = RTS_STATIC then accept; reject; }}\n"
    );
    for (name, state, prefixes) in [
        ("said", "", vec!["198.51.100.0/24".to_owned()]),
        (
            "evil",
            "disabled; ",
            vec!["0.0.0.0/0".to_owned(), "10.64.0.0/16".to_owned(), red_1.block().to_string()],
        ),
        ("lends", "disabled; ", vec![format!("{lent}/32"), format!("{front}/32")]),
    ] {
        let routes: Vec<_> = prefixes.iter().map(|prefix| format!("route {prefix} blackhole;")).collect();
        let _infallible = writeln!(text, "protocol static {name} {{ {state}ipv4; {} }}", routes.join(" "));
    }
    for node in &lab.nodes {
        let (name, subnet) = (session(node.name), node.subnet());
        let _infallible = writeln!(
            text,
            "protocol bgp {name} {{\n  local 172.31.{subnet}.254 as 65000; neighbor {} external;\n  \
             graceful restart on; connect delay time 1; connect retry time 1; error wait time 1, 2;\n  \
             ipv4 {{ import all; export filter ours; }};\n}}",
            node.address
        );
    }
    text
}

/// What its session with a node is called.
pub(crate) fn session(node: &str) -> String {
    node.replace('-', "_")
}

pub(crate) fn a_neighbour_is_of_the_nodes_that_its_labels_pick(lab: &Lab) {
    for node in &lab.nodes {
        let here = format!("172.31.{}.254", node.subnet());
        let there = format!("172.31.{}.254", 3 - node.subnet());
        lab.wait(&format!("the session of {} with its router", node.name), || {
            let neighbours = node.neighbours();
            let is_so = neighbours.get(&here) == Some(&true) && !neighbours.contains_key(&there);
            (!is_so).then(|| format!("{neighbours:?}"))
        });
    }
    // A label that goes takes its neighbour along, and comes with it.
    let node = lab.node("blue-2");
    let knows = |is_known: bool| {
        lab.wait("a session to follow the label", || {
            let neighbours = node.neighbours();
            (neighbours.contains_key("172.31.2.254") != is_known).then(|| format!("{neighbours:?}"))
        });
    };
    lab.tell("node set blue-2 --unlabel rack");
    knows(false);
    lab.tell("node set blue-2 --label rack=b");
    knows(true);
}

/// Waits until a node hears of a prefix from the router, and refuses it by this statement of its policy.
pub(crate) fn wait_refused(lab: &Lab, node: &Node, prefix: &str, statement: &str) {
    lab.wait(&format!("{prefix} to be heard and refused"), || {
        let paths = node.paths(prefix);
        let is_refused = paths.iter().any(|(from, verdict, why)| {
            from == "172.31.1.254" && verdict == "excluded" && why.contains(&format!("\"{statement}\""))
        });
        (!is_refused).then(|| format!("{paths:?}"))
    });
    let routes = node.routes(&format!("exact {prefix} proto 99"));
    assert!(!routes.contains(" 172.31.1.254 "), "{prefix}: {routes}");
}

pub(crate) fn a_router_outside_is_believed_what_is_listed_and_nothing_else(lab: &Lab, bird: &Router) {
    let node = lab.node("red-1");
    let (block, via) = (node.block().to_string(), "via 172.31.1.254 dev eth0");
    let has = |prefix: &str| node.routes(&format!("exact {prefix} proto 99")).contains(via);
    lab.wait("the listed route", || {
        (!has("198.51.100.0/24")).then(|| node.routes("") + &bird.says("show protocols"))
    });
    bird.says("enable evil");
    wait_refused(lab, node, "0.0.0.0/0", "tor-a default");
    wait_refused(lab, node, "10.64.0.0/16", "tor-a pools");
    wait_refused(lab, node, &block, "tor-a own");
    // Only when told, and own pools are guarded even then.
    let default_to = |more: &str, is_taken: bool| {
        lab.tell("bgp peer delete tor-a");
        declare(lab, 1, more);
        lab.wait(&format!("the default route with \"{more}\""), || {
            let is_back = has("198.51.100.0/24");
            (!is_back || has("default") != is_taken).then(|| node.routes("") + &node.bgp("why 0.0.0.0/0"))
        });
    };
    default_to("--import-default-route", true);
    assert!(!has("10.64.0.0/16") && !has(&block), "{}", node.routes(""));
    default_to("", false);
    bird.says("disable evil");
}
