//! Isthmus: a server, agents, and endpoints made by CNI ADD.
//!
//! One pair of nodes has a destination with one rule and one with 10,000; another pair has one with 10,000 rules among
//! 1,000,000 on the node. A third pair has a server of its own, whose network does not encapsulate, and a destination with
//! 10,000 rules. All rules go through the server's API and the agents, as users' rules do.

use super::{
    Build, Lab, PREFIX, RUN,
    pair::{Pair, WIRE},
    say,
    scale::Crowded,
    subject::{Ends, Plugin, Subject, churn_namespaces},
};
use crate::{
    cni,
    daemon::{AgentPlan, ServerPlan, program},
    namespace::Namespace,
    process::Process,
    rest::Rest,
    underlay::{Underlay, free_range},
    wait,
};
use anyhow::Context as _;
use isthmus_api::rest::{PolicySpec, RuleSpec};
use serde_json::json;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

/// The benchmark's cluster; also the group of its workloads.
const CLUSTER: &str = "bench";
/// Addresses of its endpoints.
const POOL: &str = "10.64.0.0/16";
/// The servers. How packets travel is a setting of the whole network, hence one for each way.
const OVERLAY: Seat = Seat { name: "server", rest_port: 17480, agents_port: 17443, first_node: 0 };
const NATIVE: Seat = Seat { name: "native-server", rest_port: 17481, agents_port: 17444, first_node: 100 };
/// The host's interface to the nodes, for management alone.
const HOST_LINK: &str = "isb-host";
/// Rules of one destination; also the most that one policy may hold.
const MANY: usize = 10_000;
/// Destinations with [`MANY`] rules each that make a million.
const FILLERS: usize = 99;
/// Workloads that rules name as sources.
const PEERS: usize = 10;
/// Entries that the tables of a node with a million rules may need, twice during a swap.
const ENTRIES: u32 = 4 << 20;
/// Connections that a node tracks.
const CONNECTIONS: u32 = 262_144;
/// Longest time for a setting to reach a node.
const SETTLED: Duration = Duration::from_secs(10);
/// Longest time for a million rules to be loaded.
const LOADED: Duration = Duration::from_mins(3);

/// Where a server is.
#[derive(Clone, Copy)]
struct Seat {
    name: &'static str,
    /// On loopback.
    rest_port: u16,
    /// On the management network.
    agents_port: u16,
    /// Of its nodes on the management network.
    first_node: u8,
}

/// What servers and agents share.
#[derive(Clone)]
struct Ground {
    binary: PathBuf,
    plugins: PathBuf,
    /// The management network.
    underlay: Underlay,
}

/// A running server with its agents.
struct Bed {
    ground: Ground,
    rest: Rest,
    agents_port: u16,
    joined: u8,
}

/// A node and its agent.
#[derive(Clone)]
struct Node {
    pair: Pair,
    index: usize,
    agent: AgentPlan,
    process: Process,
}

/// Number of the first pair of nodes of other builds; the numbers below are other subjects'.
const FIRST_BESIDE: u8 = 20;

/// Builds the wanted ones of `isthmus-1`, `isthmus-10000`, `isthmus-1000000` and `isthmus-native`, and other builds with one
/// rule.
pub(super) fn build(
    lab: &mut Lab,
    wanted: &dyn Fn(&str) -> bool,
    beside: &[Build],
) -> anyhow::Result<(Vec<Subject>, Option<Crowded>)> {
    let few = wanted("isthmus-1") || wanted("isthmus-10000");
    let million = wanted("isthmus-1000000");
    let native = wanted("isthmus-native");
    let mut subjects = Vec::new();
    let mut crowded = None;
    if !few && !million && !native && beside.is_empty() {
        return Ok((subjects, crowded));
    }
    let ground = Ground::prepare(lab)?;
    if native {
        // A server or agents that cannot do without encapsulation are no reason to measure nothing else.
        match native_subject(lab, &ground) {
            Ok(subject) => {
                say("✔ isthmus-native is built");
                subjects.push(subject);
            }
            Err(error) => say(&format!("! isthmus-native is left out: {error:#}")),
        }
    }
    if !few && !million && beside.is_empty() {
        return Ok((subjects, crowded));
    }
    let mut bed = Bed::start(lab, &ground, OVERLAY)?;
    if few {
        let nodes = bed.add_pair(lab, "one", 7, None)?;
        for (name, rules) in [("isthmus-1", 1), ("isthmus-10000", MANY)] {
            subjects.push(bed.subject(lab, &nodes, name, rules)?);
            say(&format!("✔ {name} is built"));
        }
        let plugin = bed.plugin(lab, &nodes[0])?;
        for one in subjects.iter_mut().filter(|subject| subject.name == "isthmus-1") {
            one.plugin = Some(plugin.clone());
        }
        let (agent, process) = (nodes[0].agent.clone(), nodes[0].process.clone());
        crowded = Some(Crowded { binary: ground.binary.clone(), agent, process, plugin });
        subjects.retain(|subject| wanted(&subject.name));
    }
    if million {
        let nodes = bed.add_pair(lab, "mega", 8, None)?;
        bed.fill(lab, &nodes)?;
        subjects.push(bed.subject(lab, &nodes, "isthmus-1000000", MANY)?);
        let rules = wait::until("1,000,000 rules on the node", LOADED, || {
            let rules = nodes[0].agent.status()?.rules;
            Ok::<_, anyhow::Error>((rules >= 1_000_000).then_some(rules))
        })?;
        say(&format!("✔ isthmus-1000000 is built: {rules} rules are loaded on its node"));
    }
    for (number, build) in (FIRST_BESIDE..).zip(beside) {
        let nodes = bed.add_pair(lab, &build.name, number, Some(&build.binary))?;
        subjects.push(bed.subject(lab, &nodes, &build.name, 1)?);
        say(&format!("✔ {} is built", build.name));
    }
    Ok((subjects, crowded))
}

/// Two nodes without encapsulation between them, and a destination with many rules.
fn native_subject(lab: &mut Lab, ground: &Ground) -> anyhow::Result<Subject> {
    let mut bed = Bed::start(lab, ground, NATIVE)?;
    bed.rest
        .put(
            "/api/v1/network",
            &json!({ "name": "network", "labels": {}, "spec": { "encapsulation": "never" } }),
        )
        .context("cannot have the network not encapsulate")?;
    let nodes = bed.add_pair(lab, "native", 10, None)?;
    // A node leases its block for its first endpoint, and routes lead to blocks.
    bed.endpoint(lab, &nodes[0], "first")?;
    bed.route_blocks(&nodes)?;
    for node in &nodes {
        wait_until_native(node)?;
    }
    let subject = bed.subject(lab, &nodes, "isthmus-native", MANY)?;
    // Between containers of one node nothing is different.
    Ok(Subject { same: None, ..subject })
}

impl Ground {
    fn prepare(lab: &mut Lab) -> anyhow::Result<Self> {
        let binary = fs::canonicalize(std::env::current_exe()?)?;
        let plugins = program("isthmus-cni")?.with_file_name("");
        let wire = Namespace::named(format!("{PREFIX}underlay"));
        let underlay = Underlay::new(wire.clone(), free_range()?, HOST_LINK);
        let bpffs = bpffs();
        lab.record(|made| {
            made.namespaces.push(wire);
            made.links.push(HOST_LINK.to_owned());
            made.mounts.push(bpffs.clone());
        })?;
        underlay.create()?;
        fs::create_dir_all(&bpffs)?;
        crate::command::Call::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs).run()?;
        Ok(Self { binary, plugins, underlay })
    }
}

impl Bed {
    fn start(lab: &mut Lab, ground: &Ground, seat: Seat) -> anyhow::Result<Self> {
        let plan = ServerPlan {
            rest: (Ipv4Addr::LOCALHOST, seat.rest_port).into(),
            agents: (ground.underlay.host_address(), seat.agents_port).into(),
            cf_policy: None,
            directory: Path::new(RUN).join(seat.name),
            network: ground.underlay.range(),
        };
        let log = Path::new(RUN).join(format!("{}.log", seat.name));
        let process = Process::start(seat.name, &plan.prepare(&ground.binary)?, &log)
            .context("cannot start Isthmus's server")?;
        lab.record(|made| made.processes.push(process.clone()))?;
        let rest = plan.wait_ready(&process)?;
        rest.create_cluster(CLUSTER, "nomad")?;
        rest.create_pool(CLUSTER, CLUSTER, POOL)?;
        Ok(Self { ground: ground.clone(), rest, agents_port: seat.agents_port, joined: seat.first_node })
    }

    /// Has each node's kernel route the other's blocks, as the speaker does (protocol 99).
    fn route_blocks(&self, nodes: &[Node; 2]) -> anyhow::Result<()> {
        let blocks = self.rest.blocks()?;
        for (node, other) in [(0, 1), (1, 0)] {
            let via = nodes[other].pair.address(other);
            let theirs = blocks.iter().filter(|block| block.spec.node == nodes[other].agent.node);
            for block in theirs {
                let cidr = &block.spec.cidr;
                nodes[node]
                    .agent
                    .namespace
                    .ip(&format!("route replace {cidr} via {via} dev {WIRE} proto 99"))?;
            }
        }
        Ok(())
    }

    /// Two nodes with agents, of this build if no other is named, and the workloads that their rules name.
    fn add_pair(
        &mut self,
        lab: &mut Lab,
        name: &str,
        number: u8,
        other: Option<&Path>,
    ) -> anyhow::Result<[Node; 2]> {
        let pair = Pair::create(lab, name, number)?;
        let binary = other.unwrap_or(&self.ground.binary).to_owned();
        let first = self.add_node(lab, &pair, &binary, 0)?;
        let second = self.add_node(lab, &pair, &binary, 1)?;
        for peer in 0..PEERS {
            self.endpoint(lab, &second, &format!("peer-{peer}"))?;
        }
        Ok([first, second])
    }

    fn add_node(&mut self, lab: &mut Lab, pair: &Pair, binary: &Path, index: usize) -> anyhow::Result<Node> {
        let node = format!("{}-{}", pair.name(), index + 1);
        let namespace = pair.nodes[index].clone();
        self.joined += 1;
        self.ground.underlay.join(&namespace, &node, self.joined)?;
        let agent = AgentPlan {
            node: node.clone(),
            namespace,
            address: pair.address(index).into(),
            server: (self.ground.underlay.host_address(), self.agents_port).into(),
            cluster: CLUSTER.to_owned(),
            directory: Path::new(RUN).join(&node),
            bpffs: bpffs(),
            policy_entries: ENTRIES,
            connections: CONNECTIONS,
        };
        let log = Path::new(RUN).join(format!("{node}.log"));
        let process = Process::start(&format!("agent {node}"), &agent.prepare(binary)?, &log)?;
        lab.record(|made| made.processes.push(process.clone()))?;
        agent.wait_ready(&process)?;
        Ok(Node { pair: pair.clone(), index, agent, process })
    }

    /// A container of `workload`, put on the network by CNI ADD.
    fn endpoint(&self, lab: &mut Lab, node: &Node, workload: &str) -> anyhow::Result<(Namespace, IpAddr)> {
        let container = node.pair.empty_container(lab, node.index, workload)?;
        let plugin = cni::Plugin {
            node: node.agent.namespace.path(),
            directory: self.ground.plugins.clone(),
            config: cni::isthmus_config(CLUSTER, &node.agent.adapter_socket()),
            container: container.name().to_owned(),
            netns: container.path().display().to_string(),
            interface: "eth0".to_owned(),
            arguments: format!(
                "IgnoreUnknown=1;NOMAD_NAMESPACE={CLUSTER};NOMAD_JOB_ID={workload};NOMAD_GROUP_NAME={workload}"
            ),
        };
        let result =
            plugin.add().with_context(|| format!("cannot attach {workload} on {}", node.agent.node))?;
        let address =
            cni::address(&result).with_context(|| format!("{workload} got no address: {result}"))?;
        Ok((container, address))
    }

    /// A destination with `rules` rules, one of which allows its callers beside it and on the other node.
    fn subject(&self, lab: &mut Lab, nodes: &[Node; 2], name: &str, rules: usize) -> anyhow::Result<Subject> {
        let target = format!("target-{name}");
        let (server, address) = self.endpoint(lab, &nodes[0], &target)?;
        // One workload for the callers of each subject, so that its rule is its own.
        let caller = format!("caller-{name}");
        let (near, _) = self.endpoint(lab, &nodes[0], &caller)?;
        let (far, _) = self.endpoint(lab, &nodes[1], &caller)?;
        let first = RuleSpec { from: full(&caller), to: full(&target), port: "any".to_owned() };
        let rest = self.rules(&target, rules - 1)?;
        self.allow(name, std::iter::once(first).chain(rest).collect())?;
        let same = Ends { server: server.clone(), address, client: near };
        let cross = Ends { server, address, client: far };
        for ends in [&same, &cross] {
            wait_until_open(ends)?;
        }
        Ok(Subject::of(name, same, cross))
    }

    /// `count` rules to a destination: the peers, port by port.
    fn rules(&self, target: &str, count: usize) -> anyhow::Result<Vec<RuleSpec>> {
        let peers = self.rest.workloads()?;
        let uuid = |workload: &str| {
            let name = full(workload);
            let found = peers.iter().find(|known| known.spec.full_name == name);
            found.map(|known| known.uuid.to_string()).with_context(|| format!("the server knows no {name}"))
        };
        let sources =
            (0..PEERS).map(|peer| uuid(&format!("peer-{peer}"))).collect::<anyhow::Result<Vec<_>>>()?;
        let to = uuid(target)?;
        let rule = |index: usize| RuleSpec {
            from: sources[index % PEERS].clone(),
            to: to.clone(),
            port: format!("tcp:{}", 10_000 + index / PEERS),
        };
        Ok((0..count).map(rule).collect())
    }

    fn allow(&self, name: &str, rules: Vec<RuleSpec>) -> anyhow::Result<()> {
        let spec = PolicySpec { rules, reason: Some("isthmus bench".to_owned()) };
        self.rest.create("/api/v1/policies", &format!("bench-{name}"), spec)?;
        Ok(())
    }

    /// Destinations whose rules make a million with those of the measured one.
    fn fill(&self, lab: &mut Lab, nodes: &[Node; 2]) -> anyhow::Result<()> {
        for filler in 0..FILLERS {
            let workload = format!("filler-{filler}");
            self.endpoint(lab, &nodes[0], &workload)?;
            self.allow(&workload, self.rules(&workload, MANY)?)?;
        }
        Ok(())
    }

    /// Our plugin, to be called for many containers.
    fn plugin(&self, lab: &mut Lab, node: &Node) -> anyhow::Result<Plugin> {
        churn_namespaces(lab)?;
        let config = Path::new(RUN).join("isthmus.json");
        fs::write(&config, cni::isthmus_config(CLUSTER, &node.agent.adapter_socket()).to_string())?;
        Ok(Plugin {
            name: "isthmus-1".to_owned(),
            node: node.agent.namespace.clone(),
            directory: self.ground.plugins.clone(),
            config,
        })
    }
}

fn bpffs() -> PathBuf {
    Path::new(RUN).join("bpf")
}

/// Full name of a workload of the benchmark.
fn full(workload: &str) -> String {
    format!("nomad:{CLUSTER}/{workload}@{CLUSTER}")
}

/// Waits until a node's agent has heard that nothing is encapsulated: it then has its own blocks unreachable but for its
/// containers, and no route into the overlay.
fn wait_until_native(node: &Node) -> anyhow::Result<()> {
    let namespace = &node.agent.namespace;
    wait::until_true(&format!("{} to go without encapsulation", node.agent.node), SETTLED, || {
        let blocks = namespace.ip("route show type unreachable proto 98");
        let overlay = namespace.ip("route show dev ist-vxlan proto 98");
        blocks.is_ok_and(|routes| !routes.is_empty()) && overlay.is_ok_and(|routes| routes.is_empty())
    })?;
    Ok(())
}

/// Waits until the client's packets come through; a refusal by the closed port shows that they do.
fn wait_until_open(ends: &Ends) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let call = ends.client.call(own).args(["demo-app", "get", &format!("http://{}:9/", ends.address)]);
    wait::until_true(&format!("the path to {}", ends.address), LOADED, || {
        call.output().is_ok_and(|output| output.stderr.contains("refused"))
    })?;
    Ok(())
}
