//! The subjects: networks that are built to be measured.

use super::{
    Build, Lab, PREFIX, RUN, isthmus,
    measure::{Place, churned},
    pair::{Pair, WIRE},
    say,
    scale::Crowded,
    silk,
};
use crate::{
    cni::{self, REFERENCE_PLUGINS},
    load::PluginFound,
    namespace::Namespace,
};
use anyhow::Context as _;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What the names of the namespaces begin with that plugins are called for.
pub(super) const CHURN: &str = "isb-churn-";
/// Longest time of all calls of a plugin.
const CALLS: Duration = Duration::from_mins(5);
/// MTU of the bare wire.
const WIRE_MTU: u32 = 1500;
/// MTU of containers behind VXLAN.
pub(super) const OVERLAY_MTU: u32 = 1450;

/// Two namespaces and how one reaches the other.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) server: Namespace,
    pub(super) address: IpAddr,
    pub(super) client: Namespace,
}

/// A CNI plugin that is called for many containers.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    /// What the report calls it.
    pub(super) name: String,
    pub(super) node: Namespace,
    pub(super) directory: PathBuf,
    /// File with its configuration.
    pub(super) config: PathBuf,
}

impl Plugin {
    /// Calls it for the containers 0 to `count` of a prefix; `calls` is `add`, `del` or `both`.
    pub(super) fn call(
        &self,
        prefix: &str,
        count: usize,
        callers: usize,
        calls: &str,
    ) -> anyhow::Result<PluginFound> {
        let own = std::env::current_exe().context("cannot find the running program's path")?;
        let call = self
            .node
            .call(own)
            .timeout(CALLS)
            .args(["demo-app", "load", "cni", "--prefix", prefix, "--calls", calls])
            .args(["--count", &count.to_string(), "--callers", &callers.to_string(), "--directory"])
            .arg(&self.directory)
            .arg("--config")
            .arg(&self.config);
        Ok(serde_json::from_str(&call.run()?)?)
    }
}

/// A network.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) same: Option<Ends>,
    pub(super) cross: Option<Ends>,
    pub(super) plugin: Option<Plugin>,
}

impl Subject {
    pub(super) fn ends(&self, place: Place) -> Option<&Ends> {
        match place {
            Place::SameNode => self.same.as_ref(),
            Place::CrossNode => self.cross.as_ref(),
            Place::Node => None,
        }
    }

    /// A subject with both places.
    pub(super) fn of(name: &str, same: Ends, cross: Ends) -> Self {
        Self { name: name.to_owned(), same: Some(same), cross: Some(cross), plugin: None }
    }
}

/// Builds the wanted subjects and the other builds of ours; with Isthmus among them a node that may be filled.
pub(super) fn build(
    lab: &mut Lab,
    wanted: &dyn Fn(&str) -> bool,
    beside: &[Build],
) -> anyhow::Result<(Vec<Subject>, Option<Crowded>)> {
    let mut subjects = Vec::new();
    let mut add = |name: &str, subject: anyhow::Result<Subject>| -> anyhow::Result<()> {
        subjects.push(subject.with_context(|| format!("cannot build {name}"))?);
        say(&format!("✔ {name} is built"));
        Ok(())
    };
    add("limit", limit(lab))?;
    if wanted("routed") {
        add("routed", routed(lab))?;
    }
    if wanted("bridge-vxlan") {
        add("bridge-vxlan", bridge_vxlan(lab, "bridge-vxlan", 3).map(|(subject, _)| subject))?;
    }
    if wanted("flannel") {
        add("flannel", flannel(lab))?;
    }
    for (number, policies) in [(4, 1), (5, 100), (6, 1000)] {
        let name = format!("silk-{policies}");
        if wanted(&name) {
            add(&name, silk::build(lab, &name, number, policies))?;
        }
    }
    if wanted("bridge-host-local") {
        add("bridge-host-local", reference_plugin(lab))?;
    }
    let (ours, crowded) = isthmus::build(lab, wanted, beside)?;
    subjects.extend(ours);
    Ok((subjects, crowded))
}

/// Nothing between the sockets but one veth, and the bare wire.
fn limit(lab: &mut Lab) -> anyhow::Result<Subject> {
    let pair = Pair::create(lab, "limit", 1)?;
    let (left, right) = (pair.empty_container(lab, 0, "a")?, pair.empty_container(lab, 0, "b")?);
    left.ip(&format!("link add eth0 type veth peer name eth0 netns {}", right.name()))?;
    for (namespace, number) in [(&left, 2), (&right, 3)] {
        namespace.ip(&format!("address add {}/24 dev eth0", pair.container_address(0, number)))?;
        namespace.ip("link set eth0 up")?;
    }
    let same = Ends { server: left, address: pair.container_address(0, 2).into(), client: right };
    let cross = Ends {
        server: pair.nodes[0].clone(),
        address: pair.address(0).into(),
        client: pair.nodes[1].clone(),
    };
    Ok(Subject::of("limit", same, cross))
}

/// Kernel routing between veths and over the wire, without encapsulation and without rules.
fn routed(lab: &mut Lab) -> anyhow::Result<Subject> {
    let pair = Pair::create(lab, "routed", 2)?;
    let mut make = |node: usize, name: &str, number: u8| -> anyhow::Result<Namespace> {
        let (container, side) = pair.container(lab, node, name, WIRE_MTU)?;
        pair.route_container(node, &container, &side, pair.container_address(node, number))?;
        Ok(container)
    };
    let (server, near, far) = (make(0, "a", 2)?, make(0, "b", 3)?, make(1, "c", 2)?);
    for (node, other) in [(0, 1), (1, 0)] {
        pair.nodes[node].ip(&format!(
            "route add {} via {} dev {WIRE}",
            pair.block(other),
            pair.address(other)
        ))?;
    }
    Ok(three_ends("routed", &pair, server, near, far))
}

/// A server on the first node, asked from beside it and from the other node.
pub(super) fn three_ends(
    name: &str,
    pair: &Pair,
    server: Namespace,
    near: Namespace,
    far: Namespace,
) -> Subject {
    let address: IpAddr = pair.container_address(0, 2).into();
    let same = Ends { server: server.clone(), address, client: near };
    Subject::of(name, same, Ends { server, address, client: far })
}

/// A bridge on each node and the kernel's VXLAN between them, set up as flannel does; no rules at all.
fn bridge_vxlan(lab: &mut Lab, name: &str, number: u8) -> anyhow::Result<(Subject, Pair)> {
    let pair = Pair::create(lab, name, number)?;
    for (node, namespace) in pair.nodes.iter().enumerate() {
        namespace.ip("link add cni0 type bridge")?;
        namespace.ip(&format!("address add {}/24 dev cni0", pair.container_address(node, 1)))?;
        namespace.ip(&format!("link set cni0 mtu {OVERLAY_MTU} up"))?;
        let local = pair.address(node);
        namespace.ip(&format!(
            "link add flannel.1 type vxlan id 1 dev {WIRE} local {local} dstport 8472 nolearning"
        ))?;
        namespace.ip(&format!("link set flannel.1 address {} mtu {OVERLAY_MTU} up", vtep_mac(node)))?;
        namespace.ip(&format!("address add {}/32 dev flannel.1", pair.container_address(node, 0)))?;
    }
    for (node, other) in [(0, 1), (1, 0)] {
        connect_vteps(&pair, node, other, "flannel.1")?;
        let gateway = pair.container_address(other, 0);
        pair.nodes[node]
            .ip(&format!("route add {} via {gateway} dev flannel.1 onlink", pair.block(other)))?;
    }
    let mut make = |node: usize, name: &str, number: u8| -> anyhow::Result<Namespace> {
        let (container, side) = pair.container(lab, node, name, OVERLAY_MTU)?;
        pair.nodes[node].ip(&format!("link set {side} master cni0"))?;
        container.ip(&format!("address add {}/24 dev eth0", pair.container_address(node, number)))?;
        container.ip(&format!("route add default via {}", pair.container_address(node, 1)))?;
        Ok(container)
    };
    let (server, near, far) = (make(0, "a", 2)?, make(0, "b", 3)?, make(1, "c", 2)?);
    Ok((three_ends(name, &pair, server, near, far), pair))
}

/// The same with the rules of `flanneld -ip-masq`, as its manifest starts it (pkg/trafficmngr in flannel): what leaves the
/// network is masqueraded, and forwarding is open, so that the kernel tracks every connection.
fn flannel(lab: &mut Lab) -> anyhow::Result<Subject> {
    let (subject, pair) = bridge_vxlan(lab, "flannel", 9)?;
    for (node, namespace) in pair.nodes.iter().enumerate() {
        let (own, all) = (pair.block(node), pair.network());
        let rules = format!(
            "table ip flannel {{
               chain postrouting {{
                 type nat hook postrouting priority srcnat
                 meta mark & 0x4000 == 0x4000 counter return
                 ip saddr {own} ip daddr {all} counter return
                 ip saddr {all} ip daddr {own} counter return
                 ip saddr != {all} ip daddr {own} counter return
                 ip saddr {all} ip daddr != 224.0.0.0/4 counter masquerade fully-random
                 ip saddr != {all} ip daddr {all} counter masquerade fully-random
               }}
               chain forward {{
                 type filter hook forward priority filter
                 ip saddr {all} counter accept
                 ip daddr {all} counter accept
               }}
             }}"
        );
        namespace.call("nft").args(["-f", "-"]).input(rules).run()?;
    }
    Ok(subject)
}

/// MAC address of a node's VXLAN device.
pub(super) fn vtep_mac(node: usize) -> String {
    format!("ee:ee:0a:ff:00:{node:02x}")
}

/// Tells a node the other's VXLAN device: its MAC address, and the node behind it.
pub(super) fn connect_vteps(pair: &Pair, node: usize, other: usize, device: &str) -> anyhow::Result<()> {
    let (gateway, mac) = (pair.container_address(other, 0), vtep_mac(other));
    let namespace = &pair.nodes[node];
    namespace.ip(&format!("neighbour add {gateway} lladdr {mac} dev {device} nud permanent"))?;
    let words = format!("fdb append {mac} dev {device} dst {} self permanent", pair.address(other));
    namespace.call("bridge").words(&words).run()?;
    Ok(())
}

/// Makes the namespaces that plugins are called for.
pub(super) fn churn_namespaces(lab: &mut Lab) -> anyhow::Result<()> {
    let all: Vec<_> = churned().map(|index| Namespace::named(format!("{CHURN}{index}"))).collect();
    lab.record(|made| made.namespaces.extend(all.clone()))?;
    for namespace in all {
        namespace.create()?;
    }
    Ok(())
}

/// Debian's bridge plugin with host-local, to compare ADD and DEL with.
fn reference_plugin(lab: &mut Lab) -> anyhow::Result<Subject> {
    let node = Namespace::named(format!("{PREFIX}plugin"));
    lab.record(|made| made.namespaces.push(node.clone()))?;
    node.create()?;
    churn_namespaces(lab)?;
    let config = Path::new(RUN).join("bridge.json");
    let content = cni::bridge_config("bench0", "10.99.0.0/16", &Path::new(RUN).join("host-local"));
    fs::write(&config, content.to_string())?;
    let plugin =
        Plugin { name: "bridge-host-local".to_owned(), node, directory: REFERENCE_PLUGINS.into(), config };
    Ok(Subject { name: "bridge-host-local".to_owned(), same: None, cross: None, plugin: Some(plugin) })
}
