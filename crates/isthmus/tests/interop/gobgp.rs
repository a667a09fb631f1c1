//! `isthmus bgp run` and gobgpd: they take the same file, and answer the same client.

use crate::{
    lab::Node,
    plan::{Family, MANY, Own, Path, Plan, Session},
    speaker::{Daemon, Speaker, by_family, output, wait, words},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Isthmus,
    Gobgpd,
}

pub(crate) struct Gobgp {
    program: Program,
    plan: Plan,
    node: Node,
    daemon: Option<Daemon>,
}

impl Gobgp {
    pub(crate) fn new(program: Program, plan: Plan, node: Node) -> Self {
        Self { program, plan, node, daemon: None }
    }

    fn client(&self, line: &str) -> String {
        output(&self.node, "gobgp", &words(line))
    }

    /// Starts a session anew at once, whatever it waits for.
    pub(crate) fn enable(&self, session: &str) {
        self.client(&format!("neighbor {} enable", self.remote(session)));
    }

    fn remote(&self, session: &str) -> IpAddr {
        self.plan.session(session).remote
    }

    fn neighbor(&self, session: &str) -> String {
        self.client(&format!("neighbor {}", self.remote(session)))
    }

    fn announce(&self, own: &Own) {
        let family = by_family(&own.prefix, "ipv4", "ipv6");
        let mut line = format!("global rib add -a {family} {} origin igp", own.prefix);
        if own.full {
            line.push_str(
                " med 7 local-pref 200 community 64511:1 large-community 4200000001:2:3 aspath 4200000001 rt 64511:9",
            );
        }
        assert!(own.next_hops.is_empty() && !own.many && !own.no_export, "only BIRD is the source");
        let said = self.client(&line);
        assert_eq!(said, "", "{line}");
    }
}

impl Speaker for Gobgp {
    fn title(&self) -> &'static str {
        match self.program {
            Program::Isthmus => "Isthmus",
            Program::Gobgpd => "GoBGP",
        }
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn start(&mut self, restarted: bool) -> Result<(), String> {
        let file = self.node.write("speaker.toml", &config(self.program, &self.plan));
        let (name, program, mut args) = match self.program {
            Program::Isthmus => (
                "isthmus",
                env!("CARGO_BIN_EXE_isthmus"),
                vec![
                    "bgp",
                    "run",
                    "--log",
                    "info,isthmus_speaker=debug",
                    "--log-format",
                    "text",
                    "-c",
                    &file,
                ],
            ),
            Program::Gobgpd => ("gobgpd", "gobgpd", vec!["-t", "toml", "-f", &file]),
        };
        if self.plan.multipath && self.program == Program::Isthmus {
            args.extend(["--kernel-table", "main"]);
        }
        if restarted {
            args.push(if self.program == Program::Isthmus { "--restarted" } else { "-r" });
        }
        self.daemon = Some(Daemon::start(&self.node, name, program, &args));
        let answers = |text: &String| text.contains("Router-ID");
        wait("the API answers", || self.client("global"), answers).map_err(|why| why + &self.log())?;
        self.plan.own.iter().for_each(|own| self.announce(own));
        Ok(())
    }

    fn kill(&mut self) {
        self.daemon = None;
    }

    fn is_up(&self, session: &str) -> bool {
        self.neighbor(session).contains("BGP state = ESTABLISHED")
    }

    fn paths(&self, prefix: &str) -> Vec<Path> {
        let family = by_family(prefix, "ipv4", "ipv6");
        let table: Value =
            serde_json::from_str(&self.client(&format!("global rib -a {family} -j"))).unwrap_or_default();
        table[prefix].as_array().into_iter().flatten().map(path).collect()
    }

    fn withdraw(&self, own: &Own) {
        let family = by_family(&own.prefix, "ipv4", "ipv6");
        let said = self.client(&format!("global rib del -a {family} {}", own.prefix));
        assert_eq!(said, "", "withdraw {own:?}");
    }

    fn ask_again(&self, session: &str) {
        self.client(&format!("neighbor {} softresetin", self.remote(session)));
    }

    fn updates(&self, session: &str) -> u64 {
        let text = self.neighbor(session);
        let line = text.lines().find(|line| line.trim().starts_with("Updates:"));
        line.and_then(|line| line.split_whitespace().last()?.parse().ok()).unwrap_or(0)
    }

    /// `disable` of the stock client forgets the word, `reset` does not; RFC 9003 has it for both.
    fn shut_down(&self, session: &str, text: &str) {
        let remote = self.remote(session).to_string();
        match self.program {
            Program::Isthmus => {
                let args = ["bgp", "reset", &remote, "--text", text];
                output(&self.node, env!("CARGO_BIN_EXE_isthmus"), &args)
            }
            Program::Gobgpd => output(&self.node, "gobgp", &["neighbor", &remote, "reset", "--reason", text]),
        };
    }

    fn about(&self, session: &str) -> String {
        let said = self.neighbor(session) + &self.log();
        if self.program == Program::Gobgpd {
            return said;
        }
        let remote = self.remote(session).to_string();
        said + &output(&self.node, env!("CARGO_BIN_EXE_isthmus"), &["bgp", "neighbor", &remote, "-o", "json"])
    }

    fn bfd_is_up(&self, session: &str) -> bool {
        self.program == Program::Isthmus && self.about(session).contains("\"bfd\": \"up,")
    }

    fn log(&self) -> String {
        let name = if self.program == Program::Isthmus { "isthmus.log" } else { "gobgpd.log" };
        std::fs::read_to_string(self.node.file(name)).unwrap_or_default()
    }
}

fn config(program: Program, plan: &Plan) -> String {
    let mut text = format!("[global.config]\nas = {}\nrouter-id = \"{}\"\n", plan.asn, plan.router_id());
    if program == Program::Isthmus {
        text.push_str("[global.graceful-restart.config]\nenabled = true\ndeferral-time = 3\n");
    }
    if plan.multipath {
        text.push_str("[global.use-multiple-paths.config]\nenabled = true\n");
    }
    for session in &plan.sessions {
        let (remote, asn) = (session.remote, session.remote_as);
        let password = session.password.map(|word| format!("auth-password = \"{word}\"\n"));
        let config = format!("peer-as = {asn}\n{}", password.unwrap_or_default());
        if session.dynamic {
            let (name, range) = (session.name, range(session));
            let _ = write!(
                text,
                "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"{name}\"\n{config}{}\
                 [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"{range}\"\npeer-group = \"{name}\"\n",
                neighbor("peer-groups", session, plan)
            );
        } else {
            let _ = write!(
                text,
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{remote}\"\n{config}{}",
                neighbor("neighbors", session, plan)
            );
        }
    }
    text
}

/// Where a dynamic neighbour comes from.
pub(crate) fn range(session: &Session) -> String {
    let IpAddr::V4(remote) = session.remote else { panic!("dynamic neighbours are of IPv4 here") };
    let [a, b, c, _] = remote.octets();
    format!("{a}.{b}.{c}.0/24")
}

fn neighbor(table: &str, session: &Session, plan: &Plan) -> String {
    let mut text = format!(
        "[{table}.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\nhold-time = 30\n\
         [{table}.transport.config]\nlocal-address = \"{}\"\npassive-mode = {}\n",
        session.local, session.passive
    );
    if session.client {
        let _ = write!(
            text,
            "[{table}.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"{}\"\n",
            plan.router_id()
        );
    }
    if session.secured {
        let _ = write!(text, "[{table}.ttl-security.config]\nenabled = true\nttl-min = 255\n");
    }
    if session.bfd {
        let _ = write!(
            text,
            "[{table}.bfd.config]\nenabled = true\ndesired-minimum-tx-interval = 200000\nrequired-minimum-receive = 200000\n"
        );
    }
    if let Some(time) = session.graceful {
        let long_lived = session.long_lived.is_some();
        let _ = write!(
            text,
            "[{table}.graceful-restart.config]\nenabled = true\nrestart-time = {time}\ndeferral-time = 3\n\
             long-lived-enabled = {long_lived}\n"
        );
    }
    for family in &session.families {
        text.push_str(&afi_safi(table, session, *family));
    }
    text
}

fn afi_safi(table: &str, session: &Session, family: Family) -> String {
    let name = match family {
        Family::V4 => "ipv4-unicast",
        Family::V6 => "ipv6-unicast",
    };
    let mut text = format!("[[{table}.afi-safis]]\n[{table}.afi-safis.config]\nafi-safi-name = \"{name}\"\n");
    if session.graceful.is_some() {
        let _ = write!(text, "[{table}.afi-safis.mp-graceful-restart.config]\nenabled = true\n");
    }
    if let Some(time) = session.long_lived {
        let _ = write!(
            text,
            "[{table}.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = {time}\n"
        );
    }
    if session.add_path {
        let _ = write!(text, "[{table}.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n");
    }
    if let Some(max) = session.prefixes_max {
        let _ = write!(text, "[{table}.afi-safis.prefix-limit.config]\nmax-prefixes = {max}\n");
    }
    text
}

fn path(value: &Value) -> Path {
    let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let mut path = Path {
        from: address(&value["neighbor-ip"]),
        stale: value["stale"].as_bool().unwrap_or(false),
        ..Path::default()
    };
    for attribute in value["attrs"].as_array().into_iter().flatten() {
        let number = |key: &str| attribute[key].as_u64().and_then(|number| u32::try_from(number).ok());
        let list = |key: &str| attribute[key].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64() {
            Some(2) => path.carried.as_path = list("as_paths").iter().flat_map(asns).collect(),
            // NEXT_HOP, and that in MP_REACH_NLRI.
            Some(3 | 14) => path.next_hop = address(&attribute["nexthop"]),
            Some(4) => path.carried.med = number("metric"),
            Some(5) => path.carried.local_pref = number("value"),
            Some(8) => path.carried.communities = list("communities").iter().filter_map(community).collect(),
            Some(9) => path.originator = attribute["value"].as_str().and_then(|text| text.parse().ok()),
            Some(10) => {
                let ids = list("value");
                path.cluster_list = ids.iter().filter_map(|id| id.as_str()?.parse().ok()).collect();
            }
            Some(16) => {
                let targets = list("value").into_iter().filter(|value| value["subtype"] == 2);
                path.carried.targets =
                    targets.filter_map(|value| Some(value["value"].as_str()?.to_owned())).collect();
            }
            Some(32) => path.carried.large = list("value").iter().map(large).collect(),
            _ => {}
        }
    }
    path
}

fn asns(segment: &Value) -> Vec<u32> {
    let numbers = segment["asns"].as_array().cloned().unwrap_or_default();
    numbers.iter().filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect()
}

fn community(value: &Value) -> Option<String> {
    let number = value.as_u64()?;
    Some(format!("{}:{}", number >> 16, number & 0xffff))
}

fn large(value: &Value) -> String {
    format!("{}:{}:{}", value["ASN"], value["LocalData1"], value["LocalData2"])
}

/// The many large communities of the source.
pub(crate) fn many() -> BTreeSet<String> {
    (0..MANY).map(|number| format!("65009:1:{number}")).collect()
}
