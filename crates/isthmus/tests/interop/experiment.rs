//! Two platforms in one AS behind our reflector, asked by the stock tools; then the story that `make demo-bgp` tells.

use crate::{matrix::can_run, speaker::wait};
use isthmus_testbed::leftovers;
use std::{path::Path, process::Command};
use tempfile::TempDir;

/// Blocks and the nodes that have them.
const BLOCKS: [(&str, &str, &str); 6] = [
    ("k8s-1", "172.16.18.11", "192.168.0.0/26"),
    ("k8s-2", "172.16.18.12", "192.168.0.64/26"),
    ("k8s-3", "172.16.18.13", "192.168.0.128/26"),
    ("dcos-1", "172.16.18.14", "192.168.128.0/26"),
    ("dcos-2", "172.16.18.15", "192.168.128.64/26"),
    ("dcos-3", "172.16.18.16", "192.168.128.128/26"),
];

/// Takes everything away, also after a failure; if this process is killed, another one does, as long as the directory is there.
struct Down(TempDir);

impl Down {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        leftovers::at_end(&format!("rm -rf {path}")).unwrap();
        let isthmus = env!("CARGO_BIN_EXE_isthmus");
        leftovers::at_end(&format!("test -e {path} && {isthmus} demo bgp down")).unwrap();
        Self(directory)
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        let _ = Command::new(env!("CARGO_BIN_EXE_isthmus")).args(["demo", "bgp", "down"]).output();
        let _ = std::fs::remove_dir(self.0.path());
    }
}

fn demo(words: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_isthmus")).args(["demo", "bgp"]).args(words).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "isthmus demo bgp {words:?}: {text}");
    text
}

fn inside(place: &str, program: &str, line: &str) -> String {
    let namespace = format!("isb-{place}");
    let output = Command::new("ip")
        .args(["netns", "exec", &namespace, program])
        .args(line.split_whitespace())
        .env("PATH", crate::speaker::PATH)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Without the reflector: each node is the neighbour of every other.
fn mesh() {
    let isthmus = |line: &str| {
        inside("server", env!("CARGO_BIN_EXE_isthmus"), &format!("--server 127.0.0.1:7480 {line}"))
    };
    isthmus("bgp peer delete reflector");
    for cluster in ["k8s", "dcos"] {
        isthmus(&format!("cluster set {cluster} --topology full-mesh"));
    }
    for (node, ..) in BLOCKS {
        let ask = format!("--target unix:/run/isthmus-demo-bgp/{node}/run/bgp.sock neighbor");
        let what = format!("five sessions and five routes of {node}");
        let look = || (inside(node, "gobgp", &ask), inside(node, "ip", "route show table main proto 99"));
        let is_so = |(neighbors, table): &(String, String)| {
            let has =
                |(_, via, block): &(&str, &str, &str)| table.contains(&format!("{block} via {via} dev eth0"));
            neighbors.matches(" Establ ").count() == 5
                && !neighbors.contains("172.16.18.1 ")
                && BLOCKS.iter().filter(|(name, ..)| *name != node).all(has)
        };
        wait(&what, look, is_so).unwrap();
    }
    let get = "demo-app get http://192.168.0.128:8080/";
    let page = inside("dcos-2-web", env!("CARGO_BIN_EXE_isthmus"), get);
    assert!(page.contains("\"caller\":\"192.168.128.64\""), "{page}");
}

#[test]
fn containers_of_two_platforms_find_each_other_through_our_reflector() {
    if !can_run() {
        return;
    }
    let down = Down::new();
    demo(&["up"]);
    let neighbors = inside("reflector", "gobgp", "neighbor");
    let rib = inside("reflector", "gobgp", "global rib");
    for (node, address, block) in BLOCKS {
        let is_up = |line: &str| line.starts_with(&format!("{address} ")) && line.contains(" Establ ");
        assert!(neighbors.lines().any(is_up), "{node}: {neighbors}");
        let words = |line: &str| line.split_whitespace().take(3).eq(["*>", block, address]);
        assert!(rib.lines().any(words), "{node}: {rib}");
        let table = inside(node, "ip", "route show table main proto 99");
        for (_, via, other) in BLOCKS.iter().filter(|(name, ..)| *name != node) {
            let wanted = format!("{other} via {via} dev eth0");
            assert!(table.lines().any(|line| line.starts_with(&wanted)), "{node} to {other}: {table}");
        }
        assert!(!table.contains(block), "{node} has a route to itself: {table}");
        let ask = format!("bgp summary --api unix:/run/isthmus-demo-bgp/{node}/run/bgp.sock");
        let summary = inside(node, env!("CARGO_BIN_EXE_isthmus"), &ask);
        assert!(summary.contains("172.16.18.1") && summary.contains("64511"), "{node}: {summary}");
    }
    let get = "demo-app get http://192.168.0.128:8080/";
    let page = inside("dcos-2-web", env!("CARGO_BIN_EXE_isthmus"), get);
    assert!(
        page.contains("\"app\":\"k8s-3-web\"") && page.contains("\"caller\":\"192.168.128.64\""),
        "{page}"
    );
    // With one node of BIRD's, and a reflector that dies.
    let told = demo(&["tour", "--check"]);
    assert!(told.contains("checks as expected"), "{told}");
    mesh();
    drop(down);
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(!left.contains("isb-") && !Path::new("/run/isthmus-demo-bgp").exists(), "{left}");
}
