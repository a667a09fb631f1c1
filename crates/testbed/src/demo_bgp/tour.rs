//! `isthmus demo bgp tour`: neighbours, routes, a page, the wire, a node of Calico's kind, a reflector that dies.

use super::{
    calico, node,
    plan::{Container, Node, REFLECTOR, wire},
    record::Record,
    reflector::{self, gobgp},
    stage::Stage,
};
use crate::{app::HTTP_PORT, app::probe::Probed, checks::Checks, running::Running, wait};
use anyhow::Context as _;
use serde_json::Value;
use std::time::Duration;

/// Longest time that anything in the story may take to become visible.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the flow of the last chapter lasts, in seconds, and its datagrams a second.
const FLOW_SECONDS: u32 = 12;
const FLOW_RATE: u32 = 500;
/// Port of the echo that takes the flow.
const FLOW_PORT: u16 = 9001;
/// What would carry packets of containers within others: VXLAN, IP in IP, GRE.
const TUNNELS: &str = "udp port 4789 or udp port 8472 or ip proto 4 or ip proto 47";

/// Plays the story; with `check` compares everything and returns 1 on a difference.
pub(super) fn tour(check: bool) -> anyhow::Result<u8> {
    let _lock = super::lock()?;
    let mut record = Record::of_running()?;
    let mut tale = Tale { stage: Stage::new(!check), checks: Checks::default(), record: &mut record };
    // Whatever happens, k8s-2 is as before, also after a tour that was ended halfway.
    let told = tale.give_back().and_then(|()| tale.tell());
    let cleaned = tale.give_back().context("cannot give k8s-2 back to our agent");
    let mut checks = tale.checks;
    if let Err(error) = told.and(cleaned) {
        checks.broken(&error);
    }
    Ok(checks.summary())
}

struct Tale<'a> {
    stage: Stage,
    checks: Checks,
    record: &'a mut Record,
}

impl Tale<'_> {
    fn tell(&mut self) -> anyhow::Result<()> {
        self.neighbours()?;
        self.routes()?;
        self.kernel()?;
        self.wire()?;
        self.calico()?;
        self.reflector_dies()?;
        self.page()
    }

    fn neighbours(&mut self) -> anyhow::Result<()> {
        self.stage.chapter("Six nodes of two platforms, one AS: each has one session, with the reflector")?;
        let (_, text) = self.stage.run("reflector", "gobgp neighbor", &gobgp("neighbor"))?;
        for node in &self.record.nodes {
            let start = format!("{} ", node.address());
            let line = text.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
            let good =
                line.contains(" Establ ") && line.split_whitespace().rev().take(2).all(|count| count == "1");
            self.checks.that(&format!("gobgp neighbor, {}", node.name), "Establ, one route", good, line);
        }
        Ok(())
    }

    fn routes(&mut self) -> anyhow::Result<()> {
        self.stage.chapter("Each announces one block of 64 addresses; where it leads is the node itself")?;
        let (_, text) = self.stage.run("reflector", "gobgp global rib", &gobgp("global rib"))?;
        let best = text.lines().filter(|line| line.starts_with("*>")).count();
        self.checks.same("gobgp global rib", "routes", &self.record.nodes.len(), &best);
        for node in &self.record.nodes {
            let wanted = format!("{} via {}", node.block, node.address());
            let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|words| words.get(1) == Some(&&*node.block.to_string()));
            let found = line.as_ref().and_then(|words| Some(format!("{} via {}", words[1], words.get(2)?)));
            self.checks.same(
                &format!("the route of {}", node.name),
                "block and next hop",
                &wanted,
                &found.unwrap_or_else(|| "none".to_owned()),
            );
        }
        Ok(())
    }

    fn kernel(&mut self) -> anyhow::Result<()> {
        self.stage
            .chapter("The reflector is in nobody's way: each node's kernel knows the others' blocks")?;
        let shown = self.record.node("dcos-1")?.clone();
        self.stage.run(&shown.name, "ip route", &shown.namespace().call("ip").arg("route"))?;
        self.tables("all nodes");
        Ok(())
    }

    /// Every node's kernel has the others' blocks, and each by the node that has it.
    fn tables(&mut self, when: &str) {
        for node in &self.record.nodes {
            let others: Vec<_> = self.record.nodes.iter().filter(|other| *other != node).collect();
            let has_all = || -> anyhow::Result<bool> {
                let table = node::kernel_routes(node)?;
                let has = |other: &&Node| {
                    let wanted = format!("{} via {} dev eth0", other.block, other.address());
                    table.lines().any(|line| line.starts_with(&wanted))
                };
                Ok(others.iter().all(has))
            };
            let found =
                wait::until("the others' blocks", PATIENCE, || has_all().map(|all| all.then_some(())));
            let said = found.err().map_or_else(|| "all five".to_owned(), |error| error.to_string());
            let what = format!("kernel routes of {}, {when}", node.name);
            self.checks.that(&what, "the five others' blocks", said == "all five", &said);
        }
    }

    /// A container asks another by its own address, and is seen by its own.
    fn fetch(&mut self, from: &Container, to: &Container, show: bool) -> anyhow::Result<()> {
        let url = format!("http://{}:{HTTP_PORT}/", to.address);
        let call = self.record.client(from, &["get", &url]);
        // Right after a change of routes the first try may be early.
        let last = wait::until("a page", PATIENCE, || call.run().map(Some));
        let text = if show {
            self.stage.run(&from.name, &format!("isthmus demo-app get {url}"), &call)?.1
        } else {
            last.unwrap_or_default()
        };
        let page: Value = serde_json::from_str(&text).unwrap_or_default();
        let seen = page["caller"].as_str().unwrap_or("nobody").to_owned();
        let what = format!("{} fetches a page of {}", from.name, to.name);
        self.checks.same(&what, "caller that it sees", &from.address.to_string(), &seen);
        Ok(())
    }

    fn wire(&mut self) -> anyhow::Result<()> {
        self.stage.chapter(
            "A container of DC/OS asks one of Kubernetes. On the wire are their own addresses: no NAT, no tunnel",
        )?;
        let (asking, asked) = (self.container("dcos-1")?, self.container("k8s-1")?);
        let plain = format!("host {} and host {}", asking.address, asked.address);
        let packets = Capture::start(&plain)?;
        let tunnels = Capture::start(TUNNELS)?;
        self.fetch(&asking, &asked, true)?;
        let between = format!("IP {}", asking.address);
        packets.wait_for(&between);
        let lines = packets.lines();
        let shown: Vec<_> = lines.iter().take(3).map(String::as_str).collect();
        self.stage.show(&shown.join("\n"));
        let is_plain = |line: &String| {
            line.starts_with(&between) && line.contains(&format!("> {}.{HTTP_PORT}", asked.address))
        };
        let good = lines.iter().any(is_plain);
        self.checks.that("packets on the wire", &plain, good, lines.first().map_or("none", String::as_str));
        self.checks.same("packets within others", "number", &0, &tunnels.lines().len());
        self.fetch(&asked, &asking, false)
    }

    fn container(&self, node: &str) -> anyhow::Result<Container> {
        Ok(self.record.node(node)?.container())
    }

    fn calico(&mut self) -> anyhow::Result<()> {
        self.stage.chapter("k8s-2 gets another master: BIRD, configured as Calico does it")?;
        let (swapped, lender) = (self.record.node("k8s-2")?.clone(), self.record.node("k8s-3")?.clone());
        let lent = calico::borrowed(&lender, &swapped);
        self.end(&node::agent_name(&swapped))?;
        // It leaves its routes to its next start, as it should; the node gets another master.
        swapped.namespace().ip("route flush proto 99")?;
        self.record.made.namespaces.push(lent.namespace());
        self.record.save()?;
        calico::start(self.record, &swapped)?;
        calico::attach(self.record, &swapped, &lent)?;
        reflector::wait_for_clients(self.record.nodes.len(), PATIENCE)?;
        self.tables("with BIRD");
        let birdc = calico::birdc(&swapped, "show route");
        self.stage.run(&swapped.name, "birdc show route", &birdc)?;
        let (_, table) =
            self.stage.run(&swapped.name, "ip route", &swapped.namespace().call("ip").arg("route"))?;
        let routes =
            table.lines().filter(|line| line.contains(" proto bird ") && line.contains(" via ")).count();
        self.checks.same("routes that BIRD wrote into the kernel", "number", &5, &routes);
        self.stage.show(&format!(
            "{} is an address of {}'s block that k8s-2 borrowed: it goes by itself",
            lent.address, lender.name
        ));
        let (_, rib) = self.stage.run("reflector", "gobgp global rib", &gobgp("global rib"))?;
        let lent_route = format!("{}/32", lent.address);
        let single =
            rib.lines().find(|line| line.split_whitespace().nth(1) == Some(&lent_route)).unwrap_or("none");
        let good = single.split_whitespace().nth(2) == Some(&swapped.address().to_string());
        self.checks.that("the borrowed address", &format!("via {}", swapped.address()), good, single);
        for (from, to) in [("dcos-2", "k8s-2"), ("k8s-2", "dcos-3"), ("k8s-1", "k8s-2")] {
            let (from, to) = (self.container(from)?, self.container(to)?);
            self.fetch(&from, &to, false)?;
        }
        // The node that lent the address has to look for it elsewhere.
        for from in ["dcos-1", &lender.name] {
            let asking = self.container(from)?;
            self.fetch(&asking, &lent, true)?;
        }
        Ok(())
    }

    /// Ends a process of the record, if it is there.
    fn end(&mut self, name: &str) -> anyhow::Result<()> {
        if let Ok(process) = self.record.process(name).cloned() {
            process.stop()?;
            self.record.forget(&process)?;
        }
        Ok(())
    }

    /// BIRD leaves k8s-2, with all that it wrote there, and our agent is back.
    fn give_back(&mut self) -> anyhow::Result<()> {
        let (swapped, lender) = (self.record.node("k8s-2")?.clone(), self.record.node("k8s-3")?.clone());
        let lent = calico::borrowed(&lender, &swapped);
        self.end(&calico::name(&swapped))?;
        self.end(&lent.name)?;
        lent.namespace().delete()?;
        self.record.made.namespaces.retain(|space| *space != lent.namespace());
        self.record.save()?;
        if self.record.process(&node::agent_name(&swapped)).is_err() {
            // BIRD leaves its routes in the kernel (`persist`), as Calico wants it.
            swapped.namespace().ip("route flush proto bird")?;
            node::start(self.record, &swapped)?;
        }
        reflector::wait_for_clients(self.record.nodes.len(), PATIENCE)
    }

    fn reflector_dies(&mut self) -> anyhow::Result<()> {
        self.stage.chapter(
            "The reflector is killed while a flow runs, and comes back (graceful restart): nothing is lost",
        )?;
        let (from, to) = (self.container("dcos-1")?, self.container("k8s-1")?);
        let place = format!("{}:{FLOW_PORT}", to.address);
        let echo = Running::start(&self.record.client(&to, &["echo", &format!("0.0.0.0:{FLOW_PORT}")]))?;
        wait::until_true("the echo", PATIENCE, || has_line(&echo, "started"))?;
        let (rate, seconds) = (FLOW_RATE.to_string(), FLOW_SECONDS.to_string());
        let probe = ["probe", &place, "--rate", &rate, "--seconds", &seconds];
        let mut flow = Running::start(&self.record.client(&from, &probe))?;
        wait::until_true("the flow", PATIENCE, || has_line(&flow, "started"))?;
        let watched = self.record.node("dcos-1")?.clone();
        let monitor = Running::start(&watched.namespace().call("ip").words("monitor route"))?;
        let before = node::kernel_routes(&watched)?;

        let process = self.record.process(reflector::NAME)?.clone();
        process.kill()?;
        self.record.forget(&process)?;
        self.stage.show(&format!("kill -9 {}", process.pid));
        let gone = || node::gobgp(&watched, "neighbor").run().is_ok_and(|text| !text.contains("Establ"));
        let noticed = wait::until_true("the node to notice", PATIENCE, gone);
        self.checks.that(
            "the node's session",
            "is gone",
            noticed.is_ok(),
            if noticed.is_ok() { "gone" } else { "up" },
        );
        self.stage.run(&watched.name, "gobgp neighbor", &node::gobgp(&watched, "neighbor"))?;
        let alone = node::kernel_routes(&watched)?;
        let count = format!("{} routes", alone.lines().count());
        self.checks.that("kernel routes without reflector", "as before", before == alone, &count);
        reflector::start(self.record, true)?;
        reflector::wait_for_clients(self.record.nodes.len(), Duration::from_mins(1))?;
        self.stage.run("reflector", "gobgp neighbor", &gobgp("neighbor"))?;
        wait::until_true("the flow's end", Duration::from_mins(1), || flow.has_ended())?;
        let result = flow
            .lines
            .with(|lines| lines.iter().find_map(|(_, line)| serde_json::from_str::<Probed>(line).ok()));
        let probed = result.context("the flow ended without a result")?;
        self.stage.show(&format!(
            "{} datagrams sent and echoed, {} lost",
            probed.packets_sent, probed.packets_lost
        ));
        self.checks.same("datagrams lost", "number", &0, &probed.packets_lost);
        self.tables("after the restart");
        let changes =
            monitor.lines.with(|lines| lines.iter().filter(|(_, line)| line.contains(" via ")).count());
        self.checks.same("changes of routes on the node meanwhile", "number", &0, &changes);
        let mut after: Vec<_> = before.lines().collect();
        let now = node::kernel_routes(&watched)?;
        let mut now: Vec<_> = now.lines().collect();
        after.sort_unstable();
        now.sort_unstable();
        self.checks.that(
            "kernel routes after the restart",
            "as before",
            after == now,
            &format!("{} routes", now.len()),
        );
        Ok(())
    }

    fn page(&mut self) -> anyhow::Result<()> {
        self.stage.chapter(&format!(
            "The page, once more: the reflector at {REFLECTOR} is new, the way is the same"
        ))?;
        let (from, to) = (self.container("dcos-1")?, self.container("k8s-1")?);
        self.fetch(&from, &to, true)
    }
}

fn has_line(program: &Running, wanted: &str) -> bool {
    program.lines.with(|lines| lines.iter().any(|(_, line)| line.contains(wanted)))
}

/// tcpdump where all packets between nodes pass.
struct Capture(Running);

impl Capture {
    fn start(filter: &str) -> anyhow::Result<Self> {
        let call = wire().call("tcpdump").words("-i dcos-1 -n -l -t -q").words(filter);
        let running = Running::start(&call).context("the tour captures packets with tcpdump")?;
        wait::until_true("tcpdump to listen", PATIENCE, || has_line(&running, "listening on"))?;
        Ok(Self(running))
    }

    /// Packets, one a line.
    fn lines(&self) -> Vec<String> {
        let is_packet = |line: &&(std::time::Instant, String)| line.1.starts_with("IP ");
        self.0.lines.with(|lines| lines.iter().filter(is_packet).map(|(_, line)| line.clone()).collect())
    }

    /// Waits for a packet that begins so; one that never comes is missed later.
    fn wait_for(&self, start: &str) {
        let _missing = wait::until_true("a packet", PATIENCE, || {
            self.lines().iter().any(|line| line.starts_with(start))
        });
    }
}
