//! Two clusters on two subnets with a router between them, all of it real programs in network namespaces.
//!
//! ```text
//!   red-1 .11  red-2 .12  blue-1 .21        router: server, BIRD, the outside        red-3 .13  blue-2 .22
//!       └─────────┴───── 172.31.1.0/24, a ── .254 ───────┴─────── .254 ── b, 172.31.2.0/24 ──┴─────┘
//! ```
//!
//! Each node has one agent and one container behind it, which serves. Everything goes when the lab is dropped.

use isthmus_api::adapter::{self, Attach, AttachmentKey, RequestBody, ResponseBody, Workload};
use isthmus_testbed::{
    command::Call,
    namespace::{Namespace, with_prefix},
    process::{Process, tail},
    wait,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// How long anything may take that works at all: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait for an answer that must not come.
pub(crate) const SILENCE: &str = "300";

/// The program under test.
pub(crate) const ISTHMUS: &str = env!("CARGO_BIN_EXE_isthmus");
/// Programs of others.
const NEEDED: [&str; 6] = ["ip", "nsenter", "setsid", "tcpdump", "bird", "birdc"];

/// What each cluster is: name, AS, platform, pool.
pub(crate) const CLUSTERS: [(&str, u32, &str, &str); 2] =
    [("red", 64_512, "kubernetes", "10.64.0.0/16"), ("blue", 64_513, "nomad", "10.65.0.0/16")];

/// A node and the container on it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) cluster: &'static str,
    pub(crate) address: Ipv4Addr,
    /// Name of its workload, and of its container.
    pub(crate) app: &'static str,
    /// The container's address, from its attachment on.
    pub(crate) container: Ipv4Addr,
    space: Namespace,
    inside: Namespace,
    directory: PathBuf,
}

impl Node {
    fn new(lab: &str, directory: &Path, spec: (&'static str, u8, u8, &'static str)) -> Self {
        let (name, subnet, host, app) = spec;
        Self {
            name,
            cluster: name.split('-').next().unwrap(),
            address: Ipv4Addr::new(172, 31, subnet, host),
            app,
            container: Ipv4Addr::UNSPECIFIED,
            space: Namespace::named(format!("{lab}{name}")),
            inside: Namespace::named(format!("{lab}{app}")),
            directory: directory.join(name),
        }
    }

    /// Which of the two links it is on: the number in its address.
    pub(crate) fn subnet(&self) -> u8 {
        self.address.octets()[2]
    }

    /// Its first block: pools are cut into /26.
    pub(crate) fn block(&self) -> ipnet::Ipv4Net {
        ipnet::Ipv4Net::new(self.container, 26).unwrap().trunc()
    }

    /// An address of its block that nobody has.
    pub(crate) fn unused(&self, offset: u32) -> Ipv4Addr {
        (u32::from(self.block().network()) + offset).into()
    }

    /// `isthmus bgp …` with the node's speaker.
    pub(crate) fn bgp(&self, line: &str) -> String {
        let api = format!("unix:{}", self.directory.join("run/bgp.sock").display());
        let output = self.space.call(ISTHMUS).arg("bgp").words(line).args(["--api", &api]).output().unwrap();
        output.stdout + &output.stderr
    }

    fn ask(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.bgp(&format!("{line} -o json"))).unwrap_or_default()
    }

    /// Addresses of its neighbours, and which are up.
    pub(crate) fn neighbours(&self) -> BTreeMap<String, bool> {
        let told = self.ask("summary");
        let rows = told.as_array().into_iter().flatten();
        rows.map(|row| (text(&row["address"]), row["state"] == "Established")).collect()
    }

    /// Paths to a prefix: from whom (`local`), what they are (`best`, `excluded` …), and why.
    pub(crate) fn paths(&self, prefix: &str) -> Vec<(String, String, String)> {
        let told = self.ask(&format!("why {prefix}"));
        let rows = told["paths"].as_array().into_iter().flatten();
        let from = |row: &serde_json::Value| row["from"].as_str().unwrap_or("local").to_owned();
        rows.map(|row| (from(row), text(&row["verdict"]), text(&row["why"]))).collect()
    }

    /// Routes of the kernel that `filter` picks, one a line.
    pub(crate) fn routes(&self, filter: &str) -> String {
        self.space.ip(&format!("-o route show {filter}")).unwrap()
    }

    /// `ip` in the node.
    pub(crate) fn ip(&self, line: &str) -> String {
        self.space.ip(line).unwrap()
    }

    /// `ip` in the container.
    pub(crate) fn ip_inside(&self, line: &str) -> String {
        self.inside.ip(line).unwrap()
    }

    /// What the agent writes down of packets: the last ones for which `is_it`.
    pub(crate) fn flow(&self, is_it: impl Fn(&serde_json::Value) -> bool) -> Option<serde_json::Value> {
        let text = fs::read_to_string(self.directory.join("flows.log.json")).unwrap_or_default();
        text.lines().rev().filter_map(|line| serde_json::from_str(line).ok()).find(is_it)
    }

    /// The program's client inside of the container.
    pub(crate) fn client(&self, line: &str) -> Call {
        self.inside.call(ISTHMUS).arg("demo-app").words(line)
    }

    pub(crate) fn space(&self) -> &Namespace {
        &self.space
    }

    pub(crate) fn container_space(&self) -> &Namespace {
        &self.inside
    }
}

pub(crate) struct Lab {
    pub(crate) nodes: Vec<Node>,
    pub(crate) router: Namespace,
    prefix: String,
    directory: TempDir,
    processes: BTreeMap<String, Process>,
}

impl Lab {
    /// `None` where tests like this cannot be; in CI that is a failure.
    pub(crate) fn open() -> Option<Self> {
        let missing = NEEDED.into_iter().find(|name| isthmus_testbed::command::find(name).is_none());
        if !rustix::process::geteuid().is_root() || missing.is_some() {
            let why = missing.map_or_else(|| "not root".to_owned(), |name| format!("no {name}: make setup"));
            assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
            eprintln!("skipped: {why}");
            return None;
        }
        let prefix = format!("nat{}-", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let specs = [
            ("red-1", 1, 11, "front"),
            ("red-2", 1, 12, "back"),
            ("red-3", 2, 13, "far"),
            ("blue-1", 1, 21, "bill"),
            ("blue-2", 2, 22, "mail"),
        ];
        let nodes = specs.map(|spec| Node::new(&prefix, directory.path(), spec)).into();
        let router = Namespace::named(format!("{prefix}router"));
        let mut lab = Self { nodes, router, prefix, directory, processes: BTreeMap::new() };
        lab.make_links();
        lab.start_server();
        lab.start_nodes();
        Some(lab)
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    /// The node that has this app's container.
    pub(crate) fn app(&self, app: &str) -> &Node {
        self.nodes.iter().find(|node| node.app == app).unwrap()
    }

    fn make_links(&self) {
        self.router.create().unwrap();
        self.router.sysctl("ipv4.ip_forward", "1").unwrap();
        let ip = |line: String| self.router.ip(&line).unwrap();
        for (bridge, subnet) in [("link-a", 1), ("link-b", 2)] {
            ip(format!("link add name {bridge} type bridge"));
            ip(format!("address add 172.31.{subnet}.254/24 dev {bridge}"));
            ip(format!("link set {bridge} up"));
        }
        for node in &self.nodes {
            node.space.create().unwrap();
            node.inside.create().unwrap();
            let (port, subnet) = (node.name, node.subnet());
            let bridge = if subnet == 1 { "link-a" } else { "link-b" };
            ip(format!("link add {port} type veth peer name eth0 netns {}", node.space.name()));
            ip(format!("link set {port} master {bridge} up"));
            node.ip(&format!("address add {}/24 dev eth0", node.address));
            node.ip("link set eth0 up");
            node.ip(&format!("route add default via 172.31.{subnet}.254"));
        }
    }

    fn bpffs(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// Starts a program, which ends with the lab.
    pub(crate) fn start(&mut self, name: &str, call: &Call) -> Process {
        let process = Process::start(name, call, &self.log(name)).unwrap();
        self.processes.insert(name.to_owned(), process.clone());
        process
    }

    fn start_server(&mut self) {
        let directory = self.directory.path().join("server");
        fs::create_dir_all(&directory).unwrap();
        let text = format!(
            "listen = \"127.0.0.1:7480\"\nagents = \"172.31.1.254:7443\"\ncf_policy = \"\"\ndata_dir = \"{}/data\"\n\
             plain_text_networks = [\"172.31.0.0/16\"]\n",
            directory.display()
        );
        let config = directory.join("server.toml");
        fs::write(&config, text).unwrap();
        let call = self.router.call(ISTHMUS).arg("server").arg("-c").arg(config);
        let process = self.start("server", &call);
        let is_up = || self.try_tell("network show").is_ok();
        process.wait_ready(PATIENCE, is_up).unwrap();
        for (name, asn, platform, pool) in CLUSTERS {
            self.tell(&format!("cluster create {name} --platform {platform} --as {asn}"));
            self.tell(&format!("cluster set {name} --default closed --deny drop"));
            self.tell(&format!("pool create {name} --cluster {name} --cidr {pool}"));
        }
        self.tell("network set --encapsulation cross-subnet");
    }

    fn start_nodes(&mut self) {
        fs::create_dir_all(self.bpffs()).unwrap();
        Call::new("mount").args(["-t", "bpf", "bpf"]).arg(self.bpffs()).run().unwrap();
        for node in self.nodes.clone() {
            self.write_config(&node);
            self.start_agent(node.name);
        }
        // They load their programs at the same time.
        for index in 0..self.nodes.len() {
            self.wait_agent(self.nodes[index].name);
            let node = &self.nodes[index];
            self.nodes[index].container = attach(node, node.app, &[]).unwrap();
            let node = self.nodes[index].clone();
            let serve = node.client(&format!("serve --name {}", node.app));
            self.start(node.app, &serve);
        }
    }

    fn write_config(&self, node: &Node) {
        fs::create_dir_all(&node.directory).unwrap();
        let directory = node.directory.display();
        let text = format!(
            "node = \"{}\"\nserver = \"172.31.1.254:7443\"\naddress = \"{}\"\nclusters = [\"{}\"]\n\
             data_dir = \"{directory}/data\"\nrun_dir = \"{directory}/run\"\nbpffs = \"{}\"\n\
             flow_log = \"{directory}/flows.log\"\n[limits]\nendpoints = 64\npolicy_entries = 4096\n\
             connections_tcp = 4096\nconnections_other = 4096\nblocks = 1024\nnodes = 64\n",
            node.name,
            node.address,
            node.cluster,
            self.bpffs().display()
        );
        fs::write(node.directory.join("agent.toml"), text).unwrap();
    }

    /// Starts a node's agent, and does not wait for it.
    pub(crate) fn start_agent(&mut self, name: &str) {
        let node = self.node(name);
        let config = node.directory.join("agent.toml");
        let call = node.space.call(ISTHMUS).args(["agent", "-c"]).arg(config);
        self.start(name, &call);
    }

    /// Waits until it serves and has its stream to the server.
    pub(crate) fn wait_agent(&self, name: &str) {
        let node = self.node(name);
        let is_connected = || {
            let nodes = self.try_tell(&format!("node show {name} -o json")).unwrap_or_default();
            nodes.contains("\"connected\": true")
                && std::os::unix::net::UnixStream::connect(node.directory.join("run/adapter.sock")).is_ok()
        };
        self.processes[name].wait_ready(PATIENCE, is_connected).unwrap();
    }

    /// Ends a program in the middle of everything.
    pub(crate) fn kill(&mut self, name: &str) {
        self.processes.remove(name).unwrap().kill().unwrap();
    }

    fn try_tell(&self, line: &str) -> Result<String, isthmus_testbed::command::CommandError> {
        self.router.call(ISTHMUS).args(["--server", "127.0.0.1:7480"]).words(line).run()
    }

    /// `isthmus …` as people type it; it must be done.
    pub(crate) fn tell(&self, line: &str) -> String {
        self.try_tell(line).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until `look` says nothing is missing; what it says last is in the failure.
    pub(crate) fn wait(&self, what: &str, look: impl Fn() -> Option<String>) {
        let mut last = String::new();
        let found = wait::until_true(what, PATIENCE, || match look() {
            Some(missing) => {
                last = missing;
                false
            }
            None => true,
        });
        if let Err(expired) = found {
            let status = self.try_tell("status").unwrap_or_else(|error| error.to_string());
            panic!("{expired}\n{last}\nisthmus status:\n{status}");
        }
    }

    /// Writes a file of the lab.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Asks the node's agent to put a container called `name` on the network, in the namespace of the node's own; returns its
/// address, or why not.
pub(crate) fn attach(node: &Node, name: &str, addresses: &[IpAddr]) -> Result<Ipv4Addr, String> {
    let attach = Attach {
        key: AttachmentKey {
            runtime: "cni:isthmus".to_owned(),
            container: name.to_owned(),
            interface: "eth0".to_owned(),
        },
        cluster: String::new(),
        workload: Workload {
            id: format!("shop/{name}"),
            group: "shop".to_owned(),
            app: name.to_owned(),
            ..Workload::default()
        },
        instance: name.to_owned(),
        addresses: addresses.to_vec(),
        mac: None,
        port_mappings: Vec::new(),
    };
    let netns = File::open(node.inside.path()).unwrap();
    let socket = node.directory.join("run/adapter.sock");
    let answer = adapter::call(&socket, RequestBody::Attach(Box::new(attach)), Some(netns.as_fd()), PATIENCE);
    match answer.unwrap() {
        ResponseBody::Attached(attached) => match attached.addresses.as_slice() {
            [IpAddr::V4(address)] => Ok(*address),
            other => panic!("{other:?}"),
        },
        ResponseBody::Failed(failure) => Err(failure.message),
        other @ ResponseBody::Done => panic!("{other:?}"),
    }
}

/// Runs `f` on a thread inside a network namespace.
pub(crate) fn inside<T: Send>(space: &Namespace, f: impl FnOnce() -> T + Send) -> T {
    let file = File::open(space.path()).unwrap();
    thread::scope(|scope| {
        let running = scope.spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).unwrap();
            f()
        });
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (name, process) in &self.processes {
            if thread::panicking() {
                eprintln!("{name}:\n{}", tail(&process.log));
            }
            let _ = process.kill();
        }
        let _ = Call::new("umount").arg(self.bpffs()).run();
        for space in with_prefix(&self.prefix) {
            let _ = space.delete();
        }
    }
}
