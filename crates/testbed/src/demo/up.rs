//! `isthmus demo up`.

use super::{
    CGROUP, HOST_LINK, PREFIX, RUN, SERVER_FILE, down,
    instance::{self, Container, Programs, containerd, plugins},
    plan::{CLUSTERS, Instance, Node, Platform, plan},
    record::{Record, node_directory},
};
use crate::{
    cni::{self, REFERENCE_PLUGINS},
    command::{self, Call},
    containerd::{APP_IMAGE, PAUSE_IMAGE},
    daemon::{AgentPlan, ServerPlan, program},
    garden,
    image::Content,
    interrupt,
    namespace::Namespace,
    process::Process,
    progress::{Progress, answer, say},
    rest::Rest,
    state::Made,
    underlay::free_range,
    wait,
};
use anyhow::{Context as _, bail};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Longest time that the server, an agent or an app may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// Port of the server's REST API where the CLI looks for it.
const REST_PORT: u16 = 7480;
/// Port of the Cloud Foundry policy API.
const CF_POLICY_PORT: u16 = 4002;
/// Port at which agents reach the server.
const AGENTS_PORT: u16 = 7443;
/// Other ports to try where one is taken.
const PORTS_TRIED: u16 = 50;
/// Programs of other people that the demo runs.
const NEEDED: [&str; 8] = ["ip", "nsenter", "setsid", "containerd", "ctr", "runc", "mount", "sha256sum"];
/// Directories that containerd makes outside of its own and leaves behind; removed if they were not there before.
const SIDE_EFFECTS: [&str; 2] = ["/run/containerd", "/var/lib/cni"];

/// Namespace of the wire between the nodes.
pub(super) fn underlay_namespace() -> Namespace {
    Namespace::named(format!("{PREFIX}underlay"))
}

/// Starts everything, or says that it is up.
pub(super) fn up(small: bool) -> anyhow::Result<u8> {
    let lock = super::lock()?;
    if let Some(record) = Record::load()? {
        if is_whole(&record) {
            say("the demo is up already");
            advise(&record);
            return Ok(0);
        }
        Progress::warn("an earlier demo is broken or incomplete: removing it first");
        down::remove(Some(&record)).context("cannot remove the earlier demo: see `isthmus demo down`")?;
    }
    interrupt::clean_up_with(|| {
        say("interrupted: removing what was made");
        remove_incomplete();
    });
    let mut progress = Progress::new();
    let outcome = begin(small).and_then(|record| build(record, &mut progress));
    let _turn = interrupt::turn();
    match outcome {
        Ok(record) => {
            let apps = record.containers.len();
            let nodes = record.nodes.len();
            progress.end(&format!(
                "{} clusters, {nodes} nodes, {apps} containers, closed by default",
                CLUSTERS.len()
            ));
            advise(&record);
            drop(lock);
            Ok(0)
        }
        Err(error) => {
            say("the demo did not come up: removing what was made");
            remove_incomplete();
            Err(error)
        }
    }
}

/// Takes away what an `up` has made that did not come to its end.
fn remove_incomplete() {
    let record = Record::load().ok().flatten();
    if let Err(left) = down::remove(record.as_ref()) {
        Progress::warn(&format!("{left:#}"));
    }
}

fn is_whole(record: &Record) -> bool {
    record.complete && record.made.processes.iter().all(Process::lives)
}

fn advise(record: &Record) {
    if record.rest.port() != REST_PORT {
        answer(&format!("export ISTHMUS_SERVER={}", record.rest));
    }
    say(
        "try: isthmus status     isthmus why cart web tcp:8080     isthmus demo tour     clean up: isthmus demo down",
    );
}

/// Looks at what is there, and writes down what will be made.
fn begin(small: bool) -> anyhow::Result<Record> {
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| command::find(name).is_none()).collect();
    if !missing.is_empty() {
        bail!("the demo needs {}: `make setup` installs them", missing.join(", "));
    }
    let (nodes, instances) = plan(small);
    let mut made = Made {
        namespaces: nodes.iter().map(Node::namespace).chain([underlay_namespace()]).collect(),
        links: vec![HOST_LINK.to_owned()],
        cgroups: vec![CGROUP.to_owned()],
        mounts: vec![bpffs()],
        directories: SIDE_EFFECTS.iter().map(PathBuf::from).filter(|path| !path.exists()).collect(),
        ..Made::default()
    };
    let allocations = instances.iter().filter(|instance| instance.cluster().platform == Platform::Nomad);
    made.namespaces.extend(allocations.map(|instance| instance::allocation(instance).netns()));
    made.directories.push(RUN.into());
    let record = Record {
        made,
        complete: false,
        binary: fs::canonicalize(std::env::current_exe()?)?,
        range: free_range()?,
        rest: free_port(REST_PORT)?,
        cf_policy: free_port(CF_POLICY_PORT)?,
        nodes,
        containers: Vec::new(),
    };
    record.save()?;
    Ok(record)
}

/// A loopback port that nobody has, the wanted one first.
fn free_port(wanted: u16) -> anyhow::Result<SocketAddr> {
    let mut tried = (wanted..=wanted + PORTS_TRIED).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let free = tried.find(|address| TcpListener::bind(address).is_ok());
    let free = free.with_context(|| format!("ports {wanted} to {} are all taken", wanted + PORTS_TRIED))?;
    if free.port() != wanted {
        Progress::warn(&format!("port {wanted} is taken: using {}", free.port()));
    }
    Ok(free)
}

fn bpffs() -> PathBuf {
    Path::new(RUN).join("bpf")
}

fn build(mut record: Record, progress: &mut Progress) -> anyhow::Result<Record> {
    let programs = Programs {
        isthmus: record.binary.clone(),
        cni: program("isthmus-cni")?,
        garden: program("isthmus-garden")?,
        content: Content::of(&record.binary)?,
    };
    make_wire(&record)?;
    progress.done(&format!("the wire {} and {} node namespaces", record.range, record.nodes.len()));
    let archive = Path::new(RUN).join("image.tar");
    let images: [(&str, &[&str]); 2] =
        [(PAUSE_IMAGE, &["demo-app", "pause"]), (APP_IMAGE, &["demo-app", "serve"])];
    programs.content.archive(&archive, &images)?;
    start_containerds(&mut record, &programs)?;
    let rest = start_server(&mut record)?;
    for cluster in CLUSTERS {
        let fail = || format!("cannot create cluster {}", cluster.name);
        rest.create_cluster(cluster.name, cluster.platform.word()).with_context(fail)?;
        rest.create_pool(cluster.name, cluster.name, cluster.pool).with_context(fail)?;
    }
    progress
        .done(&format!("server at http://{}, clusters red, green and blue with their pools", record.rest));
    start_agents(&mut record)?;
    progress.done(&format!("{} agents", record.nodes.len()));
    import_images(&record, &archive)?;
    progress.done("containerd on each node of red, with our images");
    start_apps(&mut record, &programs)?;
    wait_for_apps(&record)?;
    progress.done(&format!("{} containers, each with one address", record.containers.len()));
    fs::write(SERVER_FILE, format!("{}\n", record.rest))?;
    record.complete = true;
    record.save()?;
    Ok(record)
}

fn make_wire(record: &Record) -> anyhow::Result<()> {
    let underlay = record.underlay();
    fs::create_dir_all(Path::new(RUN).join("logs"))?;
    underlay.create().context("cannot make the wire between the nodes")?;
    for node in &record.nodes {
        node.namespace().create()?;
        underlay.join(&node.namespace(), &node.name, node.number)?;
    }
    fs::create_dir_all(bpffs())?;
    Call::new("mount")
        .args(["-t", "bpf", "bpf"])
        .arg(bpffs())
        .run()
        .context("cannot mount a BPF file system")?;
    Ok(())
}

fn start(record: &mut Record, name: &str, call: &Call) -> anyhow::Result<Process> {
    let log = Path::new(RUN).join("logs").join(format!("{name}.log"));
    let process = Process::start(name, call, &log)?;
    record.made.processes.push(process.clone());
    record.save()?;
    Ok(process)
}

fn start_server(record: &mut Record) -> anyhow::Result<Rest> {
    let plan = ServerPlan {
        rest: record.rest,
        agents: agents_address(record),
        cf_policy: Some(record.cf_policy),
        directory: Path::new(RUN).join("registry"),
        network: record.range,
    };
    let server = start(record, "server", &plan.prepare(&record.binary)?)?;
    plan.wait_ready(&server)
}

fn agents_address(record: &Record) -> SocketAddr {
    (record.underlay().host_address(), AGENTS_PORT).into()
}

fn start_agents(record: &mut Record) -> anyhow::Result<()> {
    for node in record.nodes.clone() {
        let call = agent_plan(record, &node).prepare(&record.binary)?;
        start(record, &agent_name(&node), &call)?;
    }
    for node in &record.nodes {
        let Some(agent) = record.process(&agent_name(node)) else { continue };
        agent_plan(record, node).wait_ready(agent)?;
    }
    Ok(())
}

/// What the agent of a node is called in the record.
pub(super) fn agent_name(node: &Node) -> String {
    format!("agent-{}", node.name)
}

/// The agent of a node; its limits are those of a small node, because six of them share one machine.
pub(super) fn agent_plan(record: &Record, node: &Node) -> AgentPlan {
    AgentPlan {
        node: node.name.clone(),
        namespace: node.namespace(),
        address: record.address(node).into(),
        server: agents_address(record),
        cluster: node.cluster.clone(),
        directory: node_directory(&node.name),
        bpffs: bpffs(),
        policy_entries: 131_072,
        connections: 32_768,
    }
}

/// Nodes of a platform.
fn nodes_of(record: &Record, platform: Platform) -> Vec<Node> {
    record.nodes.iter().filter(|node| node.cluster().platform == platform).cloned().collect()
}

fn start_containerds(record: &mut Record, programs: &Programs) -> anyhow::Result<()> {
    let loopback = Path::new(REFERENCE_PLUGINS).join("loopback");
    for node in nodes_of(record, Platform::Kubernetes) {
        let daemon = containerd(&node);
        let config = cni::isthmus_config(&node.cluster, &instance::adapter_socket(&node.name));
        fs::create_dir_all(node_directory(&node.name).join("containerd"))?;
        daemon.prepare(&config, &[programs.cni.clone(), loopback.clone()])?;
        let name = format!("containerd-{}", node.name);
        let process = daemon.start(&name, &Path::new(RUN).join("logs").join(format!("{name}.log")))?;
        record.made.processes.push(process);
        record.save()?;
    }
    prepare_others(record, programs)
}

/// Writes what Garden and Nomad would have on their nodes.
fn prepare_others(record: &Record, programs: &Programs) -> anyhow::Result<()> {
    for node in nodes_of(record, Platform::CloudFoundry) {
        let directory = node_directory(&node.name);
        fs::create_dir_all(&directory)?;
        let config = garden::config(&node.cluster, &instance::adapter_socket(&node.name), &directory);
        fs::write(directory.join("garden.json"), config.to_string())?;
    }
    for node in nodes_of(record, Platform::Nomad) {
        let directory = plugins(&node);
        fs::create_dir_all(&directory)?;
        fs::copy(&programs.cni, directory.join("isthmus-cni"))?;
    }
    Ok(())
}

fn import_images(record: &Record, archive: &Path) -> anyhow::Result<()> {
    let nodes = nodes_of(record, Platform::Kubernetes);
    each(&nodes, |node| {
        let name = format!("containerd-{}", node.name);
        let process = record.process(&name).with_context(|| format!("{name} was not started"))?;
        let daemon = containerd(node);
        daemon.wait_ready(process)?;
        daemon.import(archive).with_context(|| format!("cannot import our images on {}", node.name))
    })?;
    Ok(())
}

/// Starts the apps: one after the other on a node, all nodes at once.
fn start_apps(record: &mut Record, programs: &Programs) -> anyhow::Result<()> {
    let (_, instances) = plan(record.nodes.len() == CLUSTERS.len());
    let nodes = record.nodes.clone();
    let started = each(&nodes, |node| {
        let own = instances.iter().filter(|instance| instance.node == node.name);
        own.map(|instance| instance::start(instance, node, programs))
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    });
    let started: Vec<Vec<Container>> = started?;
    record.containers = started.into_iter().flatten().collect();
    record.containers.sort_by_key(|container| position(&instances, &container.instance));
    let tasks = record.containers.iter().filter_map(|container| container.task.clone());
    record.made.processes.extend(tasks);
    record.save()?;
    Ok(())
}

fn position(instances: &[Instance], instance: &Instance) -> Option<usize> {
    instances.iter().position(|other| other == instance)
}

fn wait_for_apps(record: &Record) -> anyhow::Result<()> {
    for container in &record.containers {
        let Some(node) = record.node(&container.instance.node) else { continue };
        let what = format!("{} at {} to answer its node", container.instance.full_name(), container.address);
        wait::until_true(&what, READY, || container.answers(node, &record.binary))?;
    }
    Ok(())
}

/// Does `work` for all nodes at once and returns the first error, if any.
fn each<T: Send>(nodes: &[Node], work: impl Fn(&Node) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = nodes.iter().map(|node| scope.spawn(move || work(node))).collect();
        let joined = workers.into_iter().map(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker of the demo broke").into()))
        });
        joined.collect::<Vec<_>>().into_iter().collect()
    })
}
