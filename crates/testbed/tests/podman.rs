//! Podman runs containers on our network through CNI: a real server, a real agent, and the list as we ship it.
//!
//! Podman keeps all that it has below the test's directory. Its network namespaces and the cache of its CNI library have
//! their place on the host; both are looked at, and taken away after a failure.
//!
//! Needs root, podman 4 with CNI, and the static programs (`make build`).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "platforms/bed.rs"]
mod bed;

use bed::{Bed, LIMIT, assert_answers};
use isthmus_testbed::{
    app::HTTP_PORT,
    cni::NETWORK,
    command::{self, Call, Finished},
    containerd::APP_IMAGE,
    image::{BINARY, Content},
    namespace::Namespace,
    process::Process,
    wait,
};
use serde_json::{Value, json};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The node's address, and that of a neighbour of it.
const NODE: &str = "192.0.2.11";
const NEIGHBOUR: &str = "192.0.2.12";
/// The list that packages install.
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/cni/10-isthmus.conflist");
/// Where podman's CNI library remembers results; it has no other place for them.
const CACHE: &str = "/var/lib/cni/results";

/// The static program with the plugin beside it, or nothing where the test cannot run.
fn isthmus() -> Option<PathBuf> {
    let Some(podman) = command::find("podman") else { return bed::skipped("no podman: make setup") };
    let version = Call::new(podman).arg("--version").run().unwrap();
    if !version.contains("version 4.") {
        return bed::skipped(&format!("CNI needs podman 4, this is {}", version.trim()));
    }
    bed::binary("no static programs: make build", |path| path.with_file_name("isthmus-cni").exists())
}

/// A node with a server, an agent and podman, and a neighbour outside of it.
struct Rig {
    isthmus: PathBuf,
    neighbour: Namespace,
    /// Containers that podman was asked for.
    containers: Vec<String>,
    bed: Bed,
}

impl Rig {
    fn new(isthmus: PathBuf) -> Self {
        let mut bed = Bed::new("podman");
        let neighbour = Namespace::named("ist-podman-next");
        bed.made.namespaces.push(neighbour.clone());
        let mut rig = Self { isthmus, neighbour, containers: Vec::new(), bed };
        rig.connect();
        rig.start_daemons();
        rig.prepare_podman();
        rig
    }

    /// Joins node and neighbour; what the node sends elsewhere has somewhere to go.
    fn connect(&self) {
        let (node, neighbour) = (&self.bed.node, &self.neighbour);
        neighbour.delete().unwrap();
        neighbour.create().unwrap();
        node.ip(&format!("link add eth0 type veth peer name eth0 netns {}", neighbour.name())).unwrap();
        for (space, address) in [(node, NODE), (neighbour, NEIGHBOUR)] {
            space.ip(&format!("address add {address}/24 dev eth0")).unwrap();
            space.ip("link set eth0 up").unwrap();
        }
        node.ip(&format!("route add default via {NEIGHBOUR}")).unwrap();
    }

    /// Starts a server and an agent on the node, as their manuals say.
    fn start_daemons(&mut self) {
        let directory = self.bed.directory().to_owned();
        let bpf = self.bed.path("bpf");
        self.bed.made.mounts.push(bpf.clone());
        fs::create_dir(&bpf).unwrap();
        Call::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf).run().unwrap();
        let directory = directory.display();
        self.start("server", &format!("cf_policy = \"\"\ndata_dir = \"{directory}/server\"\n"));
        self.until("a server", |rig| rig.ask("cluster list").is_ok());
        self.ask("cluster create edge --platform standalone").unwrap();
        self.ask("pool create edge --cluster edge --cidr 10.77.0.0/24").unwrap();
        let config = format!(
            "node = \"edge-1\"\naddress = \"{NODE}\"\nclusters = [\"edge\"]\ndata_dir = \"{directory}/agent\"\n\
             run_dir = \"{directory}/run\"\nbpffs = \"{directory}/bpf\"\n"
        );
        self.start("agent", &config);
        self.until("an agent", |rig| rig.bed.path("run/adapter.sock").exists());
    }

    fn start(&mut self, daemon: &str, config: &str) {
        let path = self.bed.path(&format!("{daemon}.toml"));
        fs::write(&path, config).unwrap();
        let call = self.bed.node.call(&self.isthmus).args([daemon, "-c"]).arg(path);
        let process = Process::start(daemon, &call, &self.bed.path(&format!("{daemon}.log"))).unwrap();
        self.bed.made.processes.push(process);
    }

    fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let logs = || {
            let tails =
                self.bed.made.processes.iter().map(|process| isthmus_testbed::process::tail(&process.log));
            tails.collect::<Vec<_>>().join("\n")
        };
        wait::until_true(what, LIMIT, || so(self)).unwrap_or_else(|error| panic!("{error}\n{}", logs()));
    }

    /// Gives podman the list and the plugin that packages install, with the agent's socket, and an image.
    fn prepare_podman(&self) {
        for name in ["net.d", "plugins", "tmp"] {
            fs::create_dir(self.bed.path(name)).unwrap();
        }
        let mut list: Value = serde_json::from_slice(&fs::read(LIST).unwrap()).unwrap();
        list["plugins"][0]["cluster"] = json!("edge");
        list["plugins"][0]["socket"] = json!(self.bed.path("run/adapter.sock"));
        fs::write(self.bed.path("net.d/10-isthmus.conflist"), list.to_string()).unwrap();
        let plugin = self.isthmus.with_file_name("isthmus-cni");
        fs::copy(plugin, self.bed.path("plugins/isthmus-cni")).unwrap();
        let directory = self.bed.directory().display();
        // Its own limits are above those that it may set where it has no CAP_SYS_RESOURCE.
        let config = format!(
            r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{directory}/plugins"]
network_config_dir = "{directory}/net.d"
"#
        );
        fs::write(self.bed.path("containers.conf"), config).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{directory}/runroot\"\ngraphroot = \"{directory}/root\"\n"
        );
        fs::write(self.bed.path("storage.conf"), storage).unwrap();
        let archive = self.bed.path("image.tar");
        let content = Content::of(&self.isthmus).unwrap();
        content.archive(&archive, &[(APP_IMAGE, &["demo-app", "serve"])]).unwrap();
        self.podman("load --input").arg(&archive).run().unwrap();
        fs::remove_file(archive).unwrap();
    }

    /// A run of podman with the words of `line`.
    fn podman(&self, line: &str) -> Call {
        let call = self.bed.node.call("podman").arg("--tmpdir").arg(self.bed.path("tmp/libpod"));
        call.words(line)
            .env("CONTAINERS_CONF", self.bed.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.bed.path("storage.conf"))
            .env("TMPDIR", self.bed.path("tmp"))
            .timeout(Duration::from_mins(3))
    }

    /// Asks podman for a container of an app with the options of a line.
    fn try_run(&mut self, app: &str, options: &str) -> Finished {
        let cgroup = self.bed.cgroup();
        let id = self.bed.path(&format!("{app}.id"));
        let call = self.podman(&format!("run -d --network {NETWORK} --name {app} --cgroup-parent /{cgroup}"));
        let call = call.arg("--cidfile").arg(&id).words(options);
        let finished = call.args([APP_IMAGE, "--name", app]).output().unwrap();
        // It is there as soon as podman knows the container, and must not be there for the next one.
        if let Ok(text) = fs::read_to_string(&id) {
            self.containers.push(text);
            fs::remove_file(id).unwrap();
        }
        finished
    }

    /// Runs a container, which must work, and returns its address and its network namespace.
    fn run(&mut self, app: &str, options: &str) -> (IpAddr, Namespace) {
        let finished = self.try_run(app, options);
        assert!(finished.status.success(), "{finished:?}");
        let inspected = self.podman(&format!("inspect {app}")).run().unwrap();
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        let settings = &inspected[0]["NetworkSettings"];
        let netns = Path::new(settings["SandboxKey"].as_str().unwrap()).file_name().unwrap();
        let netns = Namespace::named(netns.to_str().unwrap());
        self.bed.made.namespaces.push(netns.clone());
        (settings["Networks"][NETWORK]["IPAddress"].as_str().unwrap().parse().unwrap(), netns)
    }

    /// Runs our command line on the node.
    fn ask(&self, line: &str) -> Result<String, command::CommandError> {
        self.bed.node.call(&self.isthmus).words(line).run()
    }

    /// Names and addresses that the registry has, in order.
    fn endpoints(&self) -> Vec<(String, Value)> {
        let list: Vec<Value> = serde_json::from_str(&self.ask("endpoint list -o json").unwrap()).unwrap();
        let endpoint = |endpoint: &Value| {
            let spec = &endpoint["spec"];
            (spec["workloadName"].as_str().unwrap().to_owned(), spec["addresses"].clone())
        };
        let mut endpoints: Vec<_> = list.iter().map(endpoint).collect();
        endpoints.sort_by(|one, other| one.0.cmp(&other.0));
        endpoints
    }

    /// The registry has these, each with its one address, and nothing else.
    fn assert_registered(&self, expected: &[(&str, IpAddr)]) {
        let expected: Vec<_> =
            expected.iter().map(|(name, address)| ((*name).to_owned(), json!([address]))).collect();
        self.until(&format!("the endpoints {expected:?}"), |rig| rig.endpoints() == expected);
        let pools: Value = serde_json::from_str(&self.ask("ipam show -o json").unwrap()).unwrap();
        assert_eq!(pools[0]["used"], expected.len(), "{pools}");
    }

    /// A container reaches another by its address.
    fn assert_reaches(&self, from: &str, address: IpAddr, app: &str) {
        let get = self.podman(&format!("exec {from} {BINARY} demo-app get http://{address}:{HTTP_PORT}/"));
        let text = wait::until("an answer", LIMIT, || get.run().map(Some)).unwrap();
        assert!(text.contains(&format!("\"app\":\"{app}\"")), "{text}");
    }

    /// What is on the host of the containers that were asked for.
    fn leftovers(&self) -> Vec<String> {
        let links = self.bed.node.ip("-o link show type veth").unwrap();
        let mut left: Vec<_> =
            links.lines().filter(|line| line.contains(": ist")).map(str::to_owned).collect();
        left.extend(self.cached().iter().map(|path| path.display().to_string()));
        let netns = |space: &&Namespace| space.name().starts_with("netns-") && space.exists();
        left.extend(self.bed.made.namespaces.iter().filter(netns).map(|space| space.name().to_owned()));
        left
    }

    /// Results that the CNI library remembers.
    fn cached(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(CACHE).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let ours = |path: &PathBuf| self.containers.iter().any(|id| path.display().to_string().contains(id));
        files.filter(ours).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Of what podman cannot remove the bed removes processes, mounts, namespaces and files.
        let removed = self.podman("rm --all --force --time 0").output();
        for path in self.cached() {
            let _gone = fs::remove_file(path);
        }
        // Podman's monitors end after it, and are then forgotten by whoever inherited them: later tests compare processes.
        let _forgotten = wait::until_true("podman's monitors", Duration::from_mins(1), || !monitors_run());
        if !std::thread::panicking() {
            assert!(removed.unwrap().status.success());
        }
    }
}

/// Whether a monitor of podman is there, be it only to be forgotten.
fn monitors_run() -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let names = processes.filter_map(|process| fs::read_to_string(process.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim_end() == "conmon")
}

/// The interface that a container sees beside its loopback, with its addresses.
fn interfaces(netns: &Namespace) -> Vec<(String, String)> {
    let text = netns.ip("-o -4 address show scope global").unwrap();
    let word = |line: &str, index: usize| line.split_whitespace().nth(index).unwrap().to_owned();
    text.lines().map(|line| (word(line, 1), word(line, 3))).collect()
}

#[test]
fn podman_runs_containers_on_our_network_and_takes_them_off() {
    let Some(isthmus) = isthmus() else { return };
    let mut rig = Rig::new(isthmus);
    let mapped = format!("http://{NODE}:18080/");

    let (web, web_netns) = rig.run("web", &format!("-p {NODE}:18080:{HTTP_PORT}"));
    assert_eq!(interfaces(&web_netns), [("eth0".to_owned(), format!("{web}/32"))]);
    rig.assert_registered(&[("host:web@edge", web)]);
    rig.bed.assert_answers(web, "web");
    assert_answers(&rig.bed.node, &mapped, "web");
    assert_answers(&rig.neighbour, &mapped, "web");

    // An address that was asked for is given, once.
    let asked: IpAddr = "10.77.0.40".parse().unwrap();
    let (cart, cart_netns) = rig.run("cart", &format!("--ip {asked}"));
    assert_eq!(cart, asked);
    rig.assert_reaches("cart", web, "web");
    let refused = rig.try_run("thief", &format!("--ip {asked}"));
    assert!(refused.stderr.contains(&format!("address {asked} is in use")), "{refused:?}");
    rig.podman("rm --force thief").run().unwrap();
    let both = [("host:cart@edge", cart), ("host:web@edge", web)];
    rig.assert_registered(&both);

    // Podman names the address then, in one way or another.
    for app in ["web", "cart"] {
        rig.podman(&format!("network reload {app}")).run().unwrap();
    }
    rig.assert_registered(&both);
    assert_eq!(interfaces(&cart_netns), [("eth0".to_owned(), format!("{cart}/32"))]);
    rig.bed.assert_answers(cart, "cart");
    rig.assert_reaches("cart", web, "web");
    assert_answers(&rig.neighbour, &mapped, "web");

    rig.podman("rm --force --time 0 web cart").run().unwrap();
    rig.assert_registered(&[]);
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    // Address, port and name are free for the next one.
    let (again, _) = rig.run("cart", &format!("--ip {asked} -p {NODE}:18080:{HTTP_PORT}"));
    assert_eq!(again, asked);
    assert_answers(&rig.neighbour, &mapped, "cart");
    rig.podman("rm --force --time 0 cart").run().unwrap();
    rig.assert_registered(&[]);
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
