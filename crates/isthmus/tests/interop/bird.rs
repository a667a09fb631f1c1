//! BIRD 2.

use crate::{
    lab::Node,
    plan::{Carried, Family, MANY, Own, Path, Plan, SOURCE, Session},
    speaker::{Daemon, Speaker, output, wait, words},
};
use std::{fmt::Write as _, net::IpAddr};

pub(crate) struct Bird {
    plan: Plan,
    node: Node,
    daemon: Option<Daemon>,
}

impl Bird {
    pub(crate) fn new(plan: Plan, node: Node) -> Self {
        Self { plan, node, daemon: None }
    }

    fn control(&self, line: &str) -> String {
        let socket = self.node.file("bird.ctl");
        output(&self.node, "birdc", &[&["-s", &socket], words(line).as_slice()].concat())
    }

    /// How many routes it has in all.
    pub(crate) fn routes(&self) -> u64 {
        let text = self.control("show route count");
        let line = text.lines().find(|line| line.contains(" routes for "));
        line.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// The protocol of a session, which must be no keyword. BIRD names those of dynamic neighbours itself.
    fn protocol(&self, session: &str) -> String {
        let dynamic = self.plan.session(session).dynamic;
        if dynamic { format!("s_{session}_1") } else { format!("s_{session}") }
    }

    fn protocol_of(&self, own: &Own) -> String {
        let number = self.plan.own.iter().position(|other| other.prefix == own.prefix).unwrap();
        format!("own{number}_0")
    }
}

impl Speaker for Bird {
    fn title(&self) -> &'static str {
        "BIRD"
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn start(&mut self, restarted: bool) -> Result<(), String> {
        let (file, socket) = (self.node.write("bird.conf", &config(&self.plan)), self.node.file("bird.ctl"));
        let mut args = vec!["-f", "-s", &socket, "-c", &file];
        if restarted {
            args.push("-R");
        }
        self.daemon = Some(Daemon::start(&self.node, "bird", "bird", &args));
        let answers =
            wait("birdc answers", || self.control("show status"), |text| text.contains("Daemon is up"));
        answers.map(drop).map_err(|why| why + &self.log())
    }

    fn kill(&mut self) {
        self.daemon = None;
    }

    fn is_up(&self, session: &str) -> bool {
        self.control(&format!("show protocols {}", self.protocol(session))).contains("Established")
    }

    fn paths(&self, prefix: &str) -> Vec<Path> {
        let text = self.control(&format!("show route {prefix} all"));
        read(&text, |protocol| {
            let name = protocol.strip_prefix("s_")?;
            let name = name.strip_suffix("_1").unwrap_or(name);
            self.plan.sessions.iter().find(|session| session.name == name).map(|session| session.remote)
        })
    }

    fn withdraw(&self, own: &Own) {
        self.control(&format!("disable {}", self.protocol_of(own)));
    }

    fn ask_again(&self, session: &str) {
        self.control(&format!("reload in {}", self.protocol(session)));
    }

    fn updates(&self, session: &str) -> u64 {
        let text = self.control(&format!("show protocols all {}", self.protocol(session)));
        let line = text.lines().find(|line| line.trim().starts_with("Import updates:"));
        line.and_then(|line| line.split_whitespace().nth(2)?.parse().ok()).unwrap_or(0)
    }

    fn shut_down(&self, session: &str, text: &str) {
        let (socket, quoted) = (self.node.file("bird.ctl"), format!("\"{text}\""));
        output(&self.node, "birdc", &["-s", &socket, "disable", &self.protocol(session), &quoted]);
    }

    fn about(&self, session: &str) -> String {
        let name = self.protocol(session);
        let said = self.control(&format!("show protocols all {name}")) + &self.control("show bfd sessions");
        let log = self.log();
        let own = log.lines().filter(|line| line.contains(&format!("> {name}: ")));
        own.fold(said, |said, line| said + line + "\n")
    }

    fn bfd_is_up(&self, session: &str) -> bool {
        let remote = self.plan.session(session).remote.to_string();
        let text = self.control("show bfd sessions");
        text.lines().any(|line| line.starts_with(&format!("{remote} ")) && line.contains(" Up "))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.node.file("bird.log")).unwrap_or_default()
    }
}

fn config(plan: &Plan) -> String {
    let mut text = format!(
        "router id {};\nlog stderr all;\ngraceful restart wait 5;\nprotocol device {{ scan time 5; }}\n\
         protocol direct {{ ipv4; ipv6; }}\n",
        plan.router_id()
    );
    if plan.has(|session| session.bfd) {
        text.push_str("protocol bfd { interface \"eth0\" { interval 200 ms; multiplier 3; }; }\n");
    }
    if plan.multipath {
        text.push_str("protocol kernel { merge paths on; ipv4 { export where source = RTS_BGP; }; }\n");
    }
    for (number, own) in plan.own.iter().enumerate() {
        text.push_str(&statics(number, own));
    }
    for session in &plan.sessions {
        text.push_str(&protocol(session, plan));
    }
    text
}

/// One static protocol for each path, so that each can be taken back by itself.
fn statics(number: usize, own: &Own) -> String {
    let channel = if own.family() == Family::V4 { "ipv4" } else { "ipv6" };
    let mut set = "bgp_origin = ORIGIN_IGP; ".to_owned();
    if own.full {
        set.push_str(
            "bgp_med = 7; bgp_local_pref = 200; bgp_community.add((64511,1)); \
             bgp_ext_community.add((rt,64511,9)); bgp_large_community.add((4200000001,2,3)); \
             bgp_path.prepend(4200000001); ",
        );
    }
    if own.no_export {
        set.push_str("bgp_community.add((65535,65281)); ");
    }
    if own.many {
        for number in 0..MANY {
            let _ = write!(set, "bgp_large_community.add(({SOURCE},1,{number})); ");
        }
    }
    let vias: Vec<String> = if own.next_hops.is_empty() {
        vec!["blackhole".to_owned()]
    } else {
        own.next_hops.iter().map(|hop| format!("via {hop}")).collect()
    };
    let one = |(path, via): (usize, String)| {
        let prefix = &own.prefix;
        format!("protocol static own{number}_{path} {{ {channel}; route {prefix} {via} {{ {set} }}; }}\n")
    };
    vias.into_iter().enumerate().map(one).collect()
}

fn protocol(session: &Session, plan: &Plan) -> String {
    let Session { name, local, remote, remote_as, .. } = session;
    let mut text = format!("protocol bgp s_{name} {{\n  local {local} as {};\n", plan.asn);
    if session.dynamic {
        let range = crate::gobgp::range(session);
        let _ = writeln!(
            text,
            "  neighbor range {range} as {remote_as}; dynamic name \"s_{name}_\"; dynamic name digits 1;"
        );
    } else {
        let _ = writeln!(text, "  neighbor {remote} as {remote_as};");
    }
    text.push_str(
        "  direct; hold time 30; connect delay time 1; connect retry time 1; error wait time 1, 2;\n  \
         error forget time 1; enable extended messages on;\n",
    );
    let mut say = |when: bool, line: &str| {
        if when {
            let _ = writeln!(text, "  {line}");
        }
    };
    say(session.client, &format!("rr client; rr cluster id {};", plan.router_id()));
    say(session.passive, "passive on;");
    say(session.password.is_some(), &format!("password \"{}\";", session.password.unwrap_or_default()));
    say(session.secured, "ttl security on;");
    say(session.bfd, "bfd on;");
    say(session.graceful.is_none(), "graceful restart off;");
    if let Some(time) = session.graceful {
        say(true, &format!("graceful restart on; graceful restart time {time};"));
    }
    if let Some(time) = session.long_lived {
        say(true, &format!("long lived graceful restart on; long lived stale time {time};"));
    }
    for family in &session.families {
        let channel = if *family == Family::V4 { "ipv4" } else { "ipv6" };
        let export = if session.remote_as == SOURCE || plan.asn != SOURCE {
            // To other ASes BIRD only tells a MED that the export filter sets.
            let full: Vec<_> = plan.own.iter().filter(|own| own.full && own.family() == *family).collect();
            let med = full.iter().map(|own| format!("if net = {} then bgp_med = 7; ", own.prefix));
            let med: String = med.collect();
            format!("export filter {{ {med}if source ~ [RTS_STATIC, RTS_BGP] then accept; reject; }};")
        } else {
            // The source has routes for each of its neighbours.
            let IpAddr::V4(remote) = remote else { panic!("the source speaks IPv4") };
            format!("export where net ~ [10.3{}.0.0/16+];", remote.octets()[3])
        };
        let add_path = if session.add_path { "add paths on;" } else { "" };
        let next_hop = if session.extended_next_hop { "extended next hop on;" } else { "" };
        let limit =
            session.prefixes_max.map(|max| format!("import limit {max} action disable;")).unwrap_or_default();
        let _ = writeln!(text, "  {channel} {{ import all; {export} {add_path} {next_hop} {limit} }};");
    }
    text.push_str("}\n");
    text
}

/// Reads `show route all`. A path begins with a line that has its protocol in brackets.
fn read(text: &str, remote: impl Fn(&str) -> Option<IpAddr>) -> Vec<Path> {
    let mut paths: Vec<Path> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once('[').filter(|_| !line.starts_with('\t')) {
            let protocol = rest.split(' ').next().unwrap_or_default();
            paths.push(Path { from: remote(protocol), ..Path::default() });
            continue;
        }
        let (Some(path), Some((key, value))) = (paths.last_mut(), line.trim().split_once(": ")) else {
            continue;
        };
        attribute(path, key, value);
    }
    paths
}

fn attribute(path: &mut Path, key: &str, value: &str) {
    let Carried { as_path, med, local_pref, communities, targets, large } = &mut path.carried;
    match key {
        "BGP.as_path" => *as_path = value.split(' ').filter_map(|word| word.parse().ok()).collect(),
        "BGP.med" => *med = value.parse().ok(),
        "BGP.local_pref" => *local_pref = value.parse().ok(),
        // Of two addresses the first is the global one.
        "BGP.next_hop" => path.next_hop = value.split(' ').next().and_then(|word| word.parse().ok()),
        "BGP.community" => {
            *communities = tuples(value);
            path.stale |= communities.contains(crate::plan::LLGR_STALE);
        }
        "BGP.ext_community" => {
            *targets = tuples::<Vec<String>>(value)
                .into_iter()
                .filter_map(|text| Some(text.strip_prefix("rt:")?.to_owned()))
                .collect();
        }
        "BGP.large_community" => *large = tuples(value),
        "BGP.originator_id" => path.originator = value.parse().ok(),
        "BGP.cluster_list" => {
            path.cluster_list = value.split(' ').filter_map(|word| word.parse().ok()).collect();
        }
        _ => {}
    }
}

/// `(1,2) (3, 4)` as `1:2` and `3:4`.
fn tuples<C: FromIterator<String>>(value: &str) -> C {
    let parts =
        value.split(')').map(|part| part.trim().trim_start_matches('(').replace(", ", ":").replace(',', ":"));
    parts.filter(|part| !part.is_empty()).collect()
}
