//! The reflectors that are measured: their configurations, and their processes.

use super::{
    PLACE,
    case::{CLIENTS, GATEWAY, REFLECTOR, SENDERS},
    load::AS,
};
use crate::{
    command::{self, Call},
    lab::Lab,
    namespace::Namespace,
    process::Process,
};
use anyhow::Context as _;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a daemon may take until it listens.
const READY: Duration = Duration::from_secs(20);
/// Where Debian has FRR's daemons.
const FRR: &str = "/usr/lib/frr";

/// A reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Daemon {
    /// `isthmus bgp run`.
    Isthmus,
    /// BIRD 2: what ratios refer to.
    Bird,
    /// FRR: bgpd, and zebra for its next hops.
    Frr,
    /// gobgpd, at most with 100,000 routes: more takes it minutes.
    Gobgp,
}

impl Daemon {
    pub(super) const ALL: [Self; 4] = [Self::Isthmus, Self::Bird, Self::Frr, Self::Gobgp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Isthmus => "isthmus",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Isthmus => std::env::current_exe().ok(),
            Self::Bird => command::find("bird"),
            Self::Frr => Some(Path::new(FRR).join("bgpd")).filter(|path| path.is_file()),
            Self::Gobgp => command::find("gobgpd"),
        }
    }

    /// What it says of its version, in one line; an error where it is not installed.
    pub(super) fn version(self) -> anyhow::Result<String> {
        let program = self
            .program()
            .with_context(|| format!("{} is not installed: `make setup` installs it", self.name()))?;
        let mut call = Call::new(&program);
        call = if self == Self::Isthmus { call.arg("version") } else { call.arg("--version") };
        let finished = call.output()?;
        // BIRD says it on standard error.
        let said = [finished.stdout, finished.stderr].concat();
        Ok(said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
    }

    /// Starts it in `namespace`, with its files in `directory`, and waits until it listens.
    pub(super) fn start(
        self,
        lab: &mut Lab,
        namespace: &Namespace,
        directory: &Path,
    ) -> anyhow::Result<Vec<Process>> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let program = self.program().with_context(|| format!("{} is not installed", self.name()))?;
        let mut processes = Vec::new();
        let mut start = |name: &str, call: &Call| -> anyhow::Result<()> {
            let process = Process::start(name, call, &directory.join(format!("{name}.log")))?;
            lab.record(|made| made.processes.push(process.clone()))?;
            processes.push(process);
            Ok(())
        };
        let config = directory.join("config");
        fs::write(&config, self.config()).with_context(|| format!("cannot write {}", config.display()))?;
        let call = namespace.call(&program);
        match self {
            Self::Isthmus => {
                let call = call.words("bgp run --log warn --api 127.0.0.1:50051 -c").arg(&config);
                start("isthmus", &call)?;
            }
            Self::Bird => {
                let socket = directory.join("bird.ctl");
                start("bird", &call.arg("-f").arg("-s").arg(socket).arg("-c").arg(&config))?;
            }
            Self::Frr => {
                // They run as their own user.
                Call::new("chown").args(["-R", "frr:frr"]).arg(directory).run()?;
                let zebra = directory.join("zebra.conf");
                let common = |call: Call, name: &str| {
                    let pid = directory.join(format!("{name}.pid"));
                    let call = call.words("-u frr -g frr -A 127.0.0.1 -P 0 --log stdout --log-level errors");
                    let call = call.arg("-i").arg(pid).arg("-z").arg(directory.join("zserv.api"));
                    call.arg("--vty_socket").arg(directory)
                };
                let zebra_call = namespace.call(Path::new(FRR).join("zebra"));
                start("zebra", &common(zebra_call, "zebra").arg("-f").arg(&zebra))?;
                // A reflector forwards nothing: no routes for the kernel.
                start("bgpd", &common(call, "bgpd").arg("-n").arg("-f").arg(&config))?;
            }
            Self::Gobgp => {
                start("gobgpd", &call.words("-t toml --log-level error -f").arg(&config))?;
            }
        }
        let last = processes.last().context("nothing was started")?;
        last.wait_ready(READY, || listens(namespace))?;
        Ok(processes)
    }

    /// Senders are no clients, receivers are; both may come from a range.
    fn config(self) -> String {
        match self {
            Self::Isthmus | Self::Gobgp => gobgp(self == Self::Gobgp),
            Self::Bird => bird(),
            Self::Frr => frr(),
        }
    }
}

/// Whether somebody listens on BGP's port in a namespace.
fn listens(namespace: &Namespace) -> bool {
    let listening = Call::new("ss").args(["-N", namespace.name()]).words("-Hltn sport = :179").run();
    listening.is_ok_and(|text| !text.trim().is_empty())
}

/// The file of gobgpd, which is ours too.
fn gobgp(needs_families: bool) -> String {
    // gobgpd does not take a family from an address that it does not know yet.
    let families = if needs_families {
        "[[peer-groups.afi-safis]]\n[peer-groups.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n"
    } else {
        ""
    };
    let group = |name: &str, range: &str, reflect: &str| {
        format!(
            "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"{name}\"\npeer-as = {AS}\n{reflect}{families}\
             [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"{range}\"\npeer-group = \"{name}\"\n"
        )
    };
    let reflect = "[peer-groups.route-reflector.config]\nroute-reflector-client = true\n";
    let (senders, clients) = (group("senders", SENDERS, ""), group("clients", CLIENTS, reflect));
    format!("[global.config]\nas = {AS}\nrouter-id = \"{REFLECTOR}\"\n{senders}{clients}")
}

fn bird() -> String {
    let protocol = |name: &str, range: &str, client: &str| {
        format!(
            "protocol bgp {name} {{\n  local {REFLECTOR} as {AS};\n  neighbor range {range} as {AS};\n  {client}\n  \
             ipv4 {{ igp table hops; import all; export all; }};\n}}\n"
        )
    };
    let senders = protocol("senders", SENDERS, "");
    let clients = protocol("clients", CLIENTS, "rr client;");
    // Next hops are the peers, which are behind the gateway: known in a table of its own, so that nobody hears of it.
    format!(
        "router id {REFLECTOR};\nlog stderr {{ warning, error, fatal, bug }};\nprotocol device {{ }}\n\
         ipv4 table hops;\nprotocol direct {{ ipv4 {{ table hops; }}; }}\n\
         protocol static {{\n  ipv4 {{ table hops; }};\n  route {SENDERS} via {GATEWAY};\n  route {CLIENTS} via {GATEWAY};\n}}\n\
         {senders}{clients}"
    )
}

fn frr() -> String {
    let group = |name: &str, range: &str| {
        format!(
            " neighbor {name} peer-group\n neighbor {name} remote-as {AS}\n bgp listen range {range} peer-group {name}\n"
        )
    };
    let (senders, clients) = (group("senders", SENDERS), group("clients", CLIENTS));
    format!(
        "router bgp {AS}\n bgp router-id {REFLECTOR}\n no bgp default ipv4-unicast\n bgp listen limit 5000\n\
         {senders}{clients} address-family ipv4 unicast\n  neighbor senders activate\n  neighbor clients activate\n  \
         neighbor clients route-reflector-client\n exit-address-family\n"
    )
}

/// The namespaces of one daemon: its own, and that of its peers, joined by one wire.
pub(super) fn namespaces(daemon: Daemon) -> [Namespace; 2] {
    ["daemon", "peers"].map(|side| Namespace::named(format!("{}{}-{side}", PLACE.prefix, daemon.name())))
}

/// Makes them. All addresses of the peers' ranges are behind one wire.
pub(super) fn make_namespaces(lab: &mut Lab, daemon: Daemon) -> anyhow::Result<[Namespace; 2]> {
    let both = namespaces(daemon);
    lab.record(|made| made.namespaces.extend(both.clone()))?;
    for namespace in &both {
        namespace.create()?;
        namespace.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("ipv4.conf.all.rp_filter", "0")?;
        namespace.sysctl("ipv4.conf.default.rp_filter", "0")?;
    }
    let [own, peers] = &both;
    own.ip(&format!("link add wire type veth peer name wire netns {}", peers.name()))?;
    for (namespace, address) in [(own, REFLECTOR), (peers, GATEWAY)] {
        namespace.ip(&format!("address add {address}/24 dev wire"))?;
        namespace.ip("link set wire up")?;
    }
    for range in [SENDERS, CLIENTS] {
        own.ip(&format!("route add {range} via {GATEWAY}"))?;
        peers.ip(&format!("route add local {range} dev lo"))?;
    }
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_are_clients() {
        for (daemon, word) in [
            (Daemon::Isthmus, "route-reflector-client = true"),
            (Daemon::Bird, "rr client"),
            (Daemon::Frr, "clients route-reflector-client"),
            (Daemon::Gobgp, "route-reflector-client = true"),
        ] {
            let config = daemon.config();
            assert_eq!(config.matches(word).count(), 1, "{config}");
            assert!(config.contains(SENDERS) && config.contains(CLIENTS), "{config}");
        }
    }
}
