//! `isthmus demo bgp up`.

use super::{
    RUN, down, node,
    plan::{self, Node, REFLECTOR, SERVER, nodes, reflector, server, wire},
    record::Record,
    reflector as reflecting, server as serving,
};
use crate::{
    command, interrupt,
    namespace::Namespace,
    process::Process,
    progress::{Progress, say},
    state::Made,
};
use anyhow::{Context as _, bail};
use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

/// Longest time until all sessions are up.
const SESSIONS: Duration = Duration::from_mins(1);
/// Programs of other people that the demo runs.
const NEEDED: [&str; 7] = ["ip", "nsenter", "setsid", "tcpdump", "gobgp", "bird", "birdc"];
/// The bridge in the wire's namespace.
const BRIDGE: &str = "bridge";

/// Starts everything, or says that it is up.
pub(super) fn up() -> anyhow::Result<u8> {
    let _lock = super::lock()?;
    if let Some(record) = Record::load()? {
        if record.complete && record.made.processes.iter().all(Process::lives) {
            say("the demo is up already");
            return Ok(0);
        }
        Progress::warn("an earlier demo is broken or incomplete: removing it first");
        down::remove(Some(&record)).context("cannot remove the earlier demo: see `isthmus demo bgp down`")?;
    }
    interrupt::clean_up_with(|| {
        say("interrupted: removing what was made");
        remove_incomplete();
    });
    let mut progress = Progress::new();
    let outcome = begin().and_then(|record| build(record, &mut progress));
    let _turn = interrupt::turn();
    if outcome.is_err() {
        say("the demo did not come up: removing what was made");
        remove_incomplete();
    }
    outcome?;
    progress.end("two clusters, six nodes, one server, one reflector");
    say("try: isthmus demo bgp tour     look around: nsenter --net=/run/netns/isb-reflector gobgp neighbor");
    say("clean up: isthmus demo bgp down");
    Ok(0)
}

fn remove_incomplete() {
    let record = Record::load().ok().flatten();
    if let Err(left) = down::remove(record.as_ref()) {
        Progress::warn(&format!("{left:#}"));
    }
}

/// Looks at what is there, and writes down what will be made.
fn begin() -> anyhow::Result<Record> {
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| command::find(name).is_none()).collect();
    if !missing.is_empty() {
        bail!("the demo needs {}: `make setup` installs them", missing.join(", "));
    }
    let nodes = nodes();
    let containers = nodes.iter().map(|node| node.container().namespace());
    let namespaces =
        nodes.iter().map(Node::namespace).chain(containers).chain([wire(), reflector(), server()]).collect();
    let made =
        Made { namespaces, directories: vec![RUN.into()], mounts: vec![serving::bpffs()], ..Made::default() };
    let binary = fs::canonicalize(std::env::current_exe()?)?;
    let record = Record { made, complete: false, binary, nodes };
    record.save()?;
    Ok(record)
}

fn build(mut record: Record, progress: &mut Progress) -> anyhow::Result<()> {
    fs::create_dir_all(Path::new(RUN).join("logs"))?;
    make_wire(&record).context("cannot make the wire between the nodes")?;
    progress.done("the wire 172.16.18.0/24 and six nodes");
    reflecting::start(&mut record, false)?;
    progress.done(&format!("a reflector at {REFLECTOR}, AS {}", plan::AS));
    serving::start(&mut record).context("cannot start the server")?;
    progress.done(&format!("a server at {SERVER}: two clusters, no encapsulation"));
    for each in record.nodes.clone() {
        node::start(&mut record, &each)?;
        node::attach(&mut record, &each)?;
    }
    progress.done("an agent on each node, and a container behind it");
    reflecting::wait_for_clients(record.nodes.len(), SESSIONS)?;
    record.complete = true;
    record.save()?;
    Ok(())
}

fn make_wire(record: &Record) -> anyhow::Result<()> {
    let wire = wire();
    wire.create()?;
    // No router solicitations between the packets that a capture shows.
    wire.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
    wire.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
    wire.ip(&format!("link add {BRIDGE} type bridge"))?;
    wire.ip(&format!("link set {BRIDGE} up"))?;
    plug(&wire, &reflector(), "reflector", REFLECTOR)?;
    plug(&wire, &server(), "server", SERVER)?;
    for node in &record.nodes {
        plug(&wire, &node.namespace(), &node.name, node.address())?;
    }
    Ok(())
}

fn plug(wire: &Namespace, space: &Namespace, port: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    space.create()?;
    wire.ip(&format!("link add {port} type veth peer name eth0 netns {}", space.name()))?;
    wire.ip(&format!("link set {port} master {BRIDGE}"))?;
    wire.ip(&format!("link set {port} up"))?;
    space.ip(&format!("address add {address}/24 dev eth0"))?;
    space.ip("link set eth0 up")?;
    Ok(())
}
