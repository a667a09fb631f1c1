//! An agent is killed: a reflector, and a neighbour of a router outside. Nobody may notice.

use crate::{
    lab::{Lab, Node, PATIENCE},
    outside::{Router, session},
    packets::Talk,
};
use isthmus_testbed::{running::Running, wait};

/// Port of the echo that takes the datagrams.
const PORT: u16 = 9001;
/// Datagrams a second, and for how many seconds.
const RATE: u32 = 1000;
const SECONDS: u32 = 7;

pub(crate) fn a_killed_agent_loses_no_packet_and_no_route(lab: &mut Lab, bird: &Router) {
    lab.tell("policy allow bill front udp:9001 --name probe");
    lab.tell("policy allow bill front tcp:7000 --name talk-bill");
    lab.tell("policy allow mesos:external/dc@dc front tcp:7000 --name talk-dc");
    let (front, bill) = (lab.app("front").clone(), lab.app("bill").clone());
    let _echo = Running::start(&front.client(&format!("echo 0.0.0.0:{PORT}"))).unwrap();
    let talks = [bill.container_space(), &lab.router].map(|space| Talk::start(space, &front));
    let probe = format!("probe {}:{PORT} --rate {RATE} --seconds {SECONDS}", front.container);
    let mut probe = Running::start(&bill.client(&probe)).unwrap();
    wait::until_true("the probe", PATIENCE, || probe.lines.any(|line| line == "started")).unwrap();
    let watchers = [&lab.router, front.space(), lab.node("red-3").space(), bill.space()].map(Clone::clone);
    let monitors =
        watchers.each_ref().map(|space| Running::start(&space.call("ip").words("-o monitor route")).unwrap());
    let before = kept(&front.routes(""));

    lab.kill("red-1");
    lab.wait("BIRD to notice", || {
        let told = bird.says(&format!("show protocols {}", session("red-1")));
        told.contains("Established").then_some(told)
    });
    // A change passes by the other reflector meanwhile.
    lab.tell("cluster set blue --announce-endpoints yes");
    wait_single(lab, "red-3", &bill, true);
    for node in ["red-2", "red-3", "blue-1", "blue-2"] {
        let routes = lab.node(node).routes(&format!("{} proto 99", front.block()));
        assert_eq!(routes.lines().count(), 1, "{node} without red-1: {routes}");
    }
    assert_eq!(kept(&front.routes("")), before, "the kernel of the killed agent's node");
    lab.start_agent("red-1");
    lab.wait_agent("red-1");
    lab.wait("all sessions of the new agent", || {
        let neighbours = front.neighbours();
        let is_up = neighbours.len() == 5 && neighbours.values().all(|is_up| *is_up);
        (!is_up).then(|| format!("{neighbours:?}"))
    });
    wait_single(lab, "red-1", &bill, true);
    for talk in &talks {
        talk.goes_on();
    }
    wait::until_true("the probe's end", PATIENCE, || probe.has_ended()).unwrap();
    let lost = probe.lines.with(|lines| format!("{lines:?}"));
    assert!(probe.lines.any(|line| line.contains("\"packets_lost\":0")), "{lost}");
    for (space, monitor) in watchers.iter().zip(monitors) {
        let changes: String =
            monitor.lines.with(|lines| lines.iter().map(|(_, line)| line.clone() + "\n").collect());
        let changes: Vec<_> = kept(&changes).into_iter().filter(|line| line.contains(" via ")).collect();
        assert!(changes.is_empty(), "routes moved in {}: {changes:?}", space.name());
    }
    lab.tell("cluster set blue --announce-endpoints no");
    wait_single(lab, "red-1", &bill, false);
}

/// Waits until a node has a route to another's container alone, or has it no longer.
fn wait_single(lab: &Lab, name: &str, other: &Node, is_there: bool) {
    lab.wait(&format!("{name} to know a route to {} alone: {is_there}", other.app), || {
        let routes = lab.node(name).routes(&format!("exact {} proto 99", other.container));
        (routes.is_empty() == is_there).then_some(routes)
    });
}

/// Lines in any order, but for routes to single containers of the other cluster, which are what changes.
fn kept(routes: &str) -> Vec<String> {
    let is_block = |line: &&str| {
        let prefix = line.split(" via ").next().unwrap_or_default();
        !prefix.contains("10.65.") || prefix.contains('/')
    };
    let mut lines: Vec<_> = routes.lines().filter(is_block).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
