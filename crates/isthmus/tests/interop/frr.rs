//! FRR: zebra, bgpd, and bfdd where it is needed.

use crate::{
    frr_daemons::FrrDaemons,
    lab::Node,
    plan::{Carried, Family, Own, Path, Plan, Session},
    speaker::{Daemon, Speaker, by_family, output, wait},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path as File};

pub(crate) struct Frr {
    plan: Plan,
    node: Node,
    bgpd: Option<Daemon>,
    /// zebra and bfdd, which live on when bgpd dies.
    others: Vec<Daemon>,
}

impl Frr {
    pub(crate) fn new(plan: Plan, node: Node) -> Self {
        Self { plan, node, bgpd: None, others: Vec::new() }
    }

    fn daemons(&self) -> FrrDaemons {
        FrrDaemons::at(File::new(&self.node.file("frr")))
    }

    fn run(&self, name: &str) -> Daemon {
        let mut args = self.daemons().arguments(name);
        args.push(self.node.file(&format!("{name}.conf")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Daemon::start(&self.node, name, &FrrDaemons::program(name), &args)
    }

    fn vtysh(&self, lines: &[&str]) -> String {
        output(&self.node, "vtysh", &self.daemons().asked(lines))
    }

    fn json(&self, line: &str) -> Value {
        let text = self.vtysh(&[line]);
        // vtysh may say first that it has no configuration of its own.
        let start = text.find('{').unwrap_or(text.len());
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        values.next().and_then(Result::ok).unwrap_or_default()
    }

    fn neighbor(&self, session: &str) -> Value {
        let remote = self.plan.session(session).remote.to_string();
        self.json(&format!("show bgp neighbors {remote} json"))[&remote].take()
    }
}

impl Speaker for Frr {
    fn title(&self) -> &'static str {
        "FRR"
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn start(&mut self, _restarted: bool) -> Result<(), String> {
        if self.others.is_empty() {
            self.daemons().make_directory();
            for name in ["zebra", "bfdd"] {
                self.node.write(&format!("{name}.conf"), "");
            }
            self.node.write("bgpd.conf", &config(&self.plan));
            self.others.push(self.run("zebra"));
            let socket = self.daemons().zebra();
            wait("zebra listens", || File::new(&socket).exists(), |there| *there)
                .map_err(|why| why + &self.log())?;
            if self.plan.has(|session| session.bfd) {
                self.others.push(self.run("bfdd"));
            }
        }
        self.bgpd = Some(self.run("bgpd"));
        let answers = wait(
            "vtysh answers",
            || self.vtysh(&["show bgp summary"]),
            |text| !text.contains("failed to connect"),
        );
        answers.map(drop).map_err(|why| why + &self.log())
    }

    fn kill(&mut self) {
        self.bgpd = None;
    }

    fn is_up(&self, session: &str) -> bool {
        self.neighbor(session)["bgpState"] == "Established"
    }

    fn paths(&self, prefix: &str) -> Vec<Path> {
        let family = by_family(prefix, "ipv4", "ipv6");
        let table = self.json(&format!("show bgp {family} unicast {prefix} json"));
        table["paths"].as_array().into_iter().flatten().map(path).collect()
    }

    fn withdraw(&self, own: &Own) {
        let family = format!("address-family {} unicast", by_family(&own.prefix, "ipv4", "ipv6"));
        let router = format!("router bgp {}", self.plan.asn);
        self.vtysh(&["configure terminal", &router, &family, &format!("no network {}", own.prefix)]);
    }

    fn ask_again(&self, session: &str) {
        let session = self.plan.session(session);
        let family = if session.families == [Family::V4] { "ipv4" } else { "ipv6" };
        self.vtysh(&[&format!("clear bgp {family} unicast {} soft in", session.remote)]);
    }

    fn updates(&self, session: &str) -> u64 {
        self.neighbor(session)["messageStats"]["updatesRecv"].as_u64().unwrap_or(0)
    }

    fn shut_down(&self, session: &str, text: &str) {
        let remote = self.plan.session(session).remote;
        let router = format!("router bgp {}", self.plan.asn);
        self.vtysh(&["configure terminal", &router, &format!("neighbor {remote} shutdown message {text}")]);
    }

    fn about(&self, session: &str) -> String {
        self.neighbor(session).to_string() + &self.log()
    }

    fn bfd_is_up(&self, session: &str) -> bool {
        self.neighbor(session)["peerBfdInfo"]["status"] == "Up"
    }

    fn log(&self) -> String {
        let text = |name: &str| fs::read_to_string(self.node.file(name)).unwrap_or_default();
        text("bgpd.log") + &text("zebra.log")
    }
}

fn config(plan: &Plan) -> String {
    let mut text = format!(
        "frr defaults datacenter\nlog stdout\nrouter bgp {}\n bgp router-id {}\n \
         no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         bgp cluster-id {1}\n bgp graceful-restart preserve-fw-state\n",
        plan.asn,
        plan.router_id()
    );
    let graceful = plan.sessions.iter().find_map(|session| session.graceful);
    if let Some(time) = graceful {
        let _ = write!(
            text,
            " bgp graceful-restart\n bgp graceful-restart restart-time {time}\n bgp graceful-restart select-defer-time 3\n"
        );
    }
    if let Some(time) = plan.sessions.iter().find_map(|session| session.long_lived) {
        let _ = writeln!(text, " bgp long-lived-graceful-restart stale-time {time}");
    }
    for session in &plan.sessions {
        text.push_str(&neighbor(session));
    }
    for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let _ = writeln!(text, " address-family {name} unicast");
        for own in plan.own.iter().filter(|own| own.family() == family) {
            let map = if own.full { " route-map full" } else { "" };
            let _ = writeln!(text, "  network {}{map}", own.prefix);
        }
        for session in plan.sessions.iter().filter(|session| session.families.contains(&family)) {
            text.push_str(&activate(session));
        }
        if plan.multipath {
            text.push_str("  maximum-paths 8\n  maximum-paths ibgp 8\n");
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str(
        "exit\nroute-map full permit 10\n set community 64511:1\n set extcommunity rt 64511:9\n \
         set large-community 4200000001:2:3\n set metric 7\n set local-preference 200\n \
         set as-path prepend 4200000001\nexit\n",
    );
    text
}

/// What the neighbour is called: its address, or its group if it comes by itself.
fn called(session: &Session) -> String {
    if session.dynamic { session.name.to_owned() } else { session.remote.to_string() }
}

fn neighbor(session: &Session) -> String {
    let name = called(session);
    let mut text = String::new();
    if session.dynamic {
        let _ = writeln!(text, " neighbor {name} peer-group");
    }
    let _ = writeln!(text, " neighbor {name} remote-as {}", session.remote_as);
    if session.dynamic {
        let _ = writeln!(text, " bgp listen range {} peer-group {name}", crate::gobgp::range(session));
    } else {
        let _ = writeln!(text, " neighbor {name} update-source {}", session.local);
    }
    let _ = writeln!(text, " neighbor {name} timers 10 30\n neighbor {name} timers connect 1");
    let mut say = |when: bool, line: &str| {
        if when {
            let _ = writeln!(text, " neighbor {name} {line}");
        }
    };
    say(session.passive, "passive");
    say(session.password.is_some(), &format!("password {}", session.password.unwrap_or_default()));
    say(session.secured, "ttl-security hops 1");
    say(session.bfd, "bfd 3 200 200");
    say(session.extended_next_hop, "capability extended-nexthop");
    text
}

fn activate(session: &Session) -> String {
    let name = called(session);
    let mut text = format!("  neighbor {name} activate\n");
    if session.client {
        let _ = writeln!(text, "  neighbor {name} route-reflector-client");
    }
    if session.add_path {
        let _ = writeln!(text, "  neighbor {name} addpath-tx-all-paths");
    }
    if let Some(max) = session.prefixes_max {
        let _ = writeln!(text, "  neighbor {name} maximum-prefix {max}");
    }
    text
}

fn path(value: &Value) -> Path {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |value: &Value| -> BTreeSet<String> {
        let words = value["list"].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(community).collect()
    };
    let segments = value["aspath"]["segments"].as_array().cloned().unwrap_or_default();
    let as_path = segments.iter().flat_map(|segment| segment["list"].as_array().cloned().unwrap_or_default());
    let targets = value["extendedCommunity"]["string"].as_str().unwrap_or_default();
    let hops = value["nexthops"].as_array().cloned().unwrap_or_default();
    let hop = hops.iter().find(|hop| hop["scope"] != "link-local").and_then(|hop| hop["ip"].as_str());
    let cluster_list = value["clusterList"]["list"].as_array().cloned().unwrap_or_default();
    Path {
        from: value["peer"]["peerId"].as_str().and_then(|id| id.parse().ok()),
        next_hop: hop.and_then(|hop| hop.parse().ok()),
        carried: Carried {
            as_path: as_path.filter_map(|asn| number(&asn)).collect(),
            med: number(&value["metric"]),
            local_pref: number(&value["locPrf"]),
            communities: list(&value["community"]),
            targets: targets
                .split(' ')
                .filter_map(|word| Some(word.strip_prefix("RT:")?.to_owned()))
                .collect(),
            large: list(&value["largeCommunity"]),
        },
        originator: value["originatorId"].as_str().and_then(|id| id.parse().ok()),
        cluster_list: cluster_list.iter().filter_map(|id| id.as_str()?.parse().ok()).collect(),
        stale: value["stale"].as_bool().unwrap_or(false),
    }
}

/// FRR has names for the well-known ones.
fn community(word: &str) -> String {
    match word {
        "noExport" | "no-export" => crate::plan::NO_EXPORT.to_owned(),
        "llgrStale" | "llgr-stale" => crate::plan::LLGR_STALE.to_owned(),
        other => other.to_owned(),
    }
}
