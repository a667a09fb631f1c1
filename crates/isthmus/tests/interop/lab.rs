//! Namespaces on one wire, and their end.

use isthmus_testbed::leftovers;
use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;

/// Subnets of the wire, one for each session between two nodes that wants addresses of its own.
pub(crate) const LINKS: u8 = 12;

/// A place for one speaker.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) namespace: String,
    directory: PathBuf,
}

impl Node {
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let file = self.file(name);
        fs::write(&file, text).unwrap();
        file
    }
}

/// One network. Everything of it goes when it is dropped.
pub(crate) struct Lab {
    prefix: String,
    nodes: u8,
    directory: TempDir,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// A wire with this many nodes, each with an address of both families in every subnet.
    pub(crate) fn new(nodes: u8) -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("bgi{}-{number}-", std::process::id());
        let lab = Self { prefix, nodes, directory: tempfile::tempdir().unwrap() };
        let directory = lab.directory.path().display();
        leftovers::at_end(&format!("rm -rf {directory}")).unwrap();
        for space in lab.spaces() {
            leftovers::remove_namespace_at_end(&space).unwrap();
        }
        // FRR runs as a user of its own.
        sh(&format!("chmod 755 {directory}"));
        let wire = lab.wire();
        sh(&format!(
            "ip netns add {wire}; ip -n {wire} link add wire type bridge; ip -n {wire} link set wire up"
        ));
        for node in 1..=nodes {
            lab.join(node);
        }
        lab
    }

    fn wire(&self) -> String {
        format!("{}w", self.prefix)
    }

    fn spaces(&self) -> Vec<String> {
        (1..=self.nodes).map(|node| self.node(node).namespace).chain([self.wire()]).collect()
    }

    /// From now on nothing of a node reaches the others, though its link stays up.
    pub(crate) fn cut(&self, node: u8) {
        sh(&format!("ip -n {} link set n{node} nomaster", self.wire()));
    }

    fn join(&self, node: u8) {
        let (wire, place) = (self.wire(), self.node(node));
        let space = &place.namespace;
        fs::create_dir(&place.directory).unwrap();
        let mut batch = format!("link set lo up\nlink add eth0 type veth peer name n{node} netns {wire}\n");
        for link in 0..LINKS {
            let _ = writeln!(
                batch,
                "address add 10.99.{link}.{node}/24 dev eth0\naddress add fd99:0:0:{link:x}::{node}/64 dev eth0 nodad"
            );
        }
        batch.push_str("link set eth0 up\n");
        let file = place.write("ip.batch", &batch);
        sh(&format!(
            "ip netns add {space}; ip -n {space} -batch {file}; \
             ip -n {wire} link set n{node} master wire; ip -n {wire} link set n{node} up"
        ));
    }

    pub(crate) fn node(&self, node: u8) -> Node {
        Node {
            namespace: format!("{}{node}", self.prefix),
            directory: self.directory.path().join(format!("n{node}")),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in self.spaces() {
            let _ = Command::new("ip").args(["netns", "del", &space]).output();
        }
    }
}

pub(crate) fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
