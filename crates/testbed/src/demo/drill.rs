//! `isthmus demo drill agent-kill`: what is lost when every agent of the network dies at once.

use super::{
    instance::Container,
    plan::Node,
    record::Record,
    up::{agent_name, agent_plan},
};
use crate::{
    app::{
        ECHO_PORT, UDP_PORT,
        probe::{Probed, Rested},
    },
    command::Call,
    process::Process,
    progress::{Progress, answer, say},
    rest::Rest,
    table::table,
    wait,
};
use anyhow::{Context as _, bail};
use isthmus_api::rest::{PolicySpec, RuleSpec};
use serde::Serialize;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

/// Longest time for anything in the drill.
const PATIENCE: Duration = Duration::from_secs(30);
/// Port of the echo that the probe is sent to; the apps' own has too small a buffer for a busy machine.
const PROBE_PORT: u16 = 9001;
/// Name of the policy that opens what the drill needs.
const POLICY: &str = "demo-drill";
/// Who probes whom: across platforms and across nodes.
const PAIRS: [(&str, &str); 3] = [("ledger-0", "cart-0"), ("cart-0", "web-0"), ("web-0", "ledger-0")];

/// Arguments of `isthmus demo drill agent-kill`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AgentKillArgs {
    /// How long datagrams are sent, 1,000 a second.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(10..=600))]
    seconds: u32,
    /// How many idle TCP connections are open meanwhile.
    #[arg(long, default_value_t = 1000)]
    flows: usize,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What was lost.
#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    packets_sent: u64,
    packets_lost: u64,
    flows: u64,
    flows_reset: u64,
    agents_killed: u64,
    agents_ready_ms: u64,
}

/// Runs the drill; 1 if anything was lost.
pub(super) fn agent_kill(args: &AgentKillArgs) -> anyhow::Result<u8> {
    let _lock = super::lock()?;
    let mut record = Record::of_running()?;
    let rest = Rest::new(record.rest)?;
    open_paths(&rest, &record)?;
    let outcome = under_traffic(&mut record, args);
    let closed = rest.delete(&format!("/api/v1/policies/{POLICY}"));
    let outcome = outcome?;
    closed.context("cannot remove the drill's policy")?;
    report(&outcome, args.output)?;
    Ok(u8::from(outcome.packets_lost + outcome.flows_reset > 0))
}

fn open_paths(rest: &Rest, record: &Record) -> anyhow::Result<()> {
    // A drill that was interrupted may have left it.
    let _absent = rest.delete(&format!("/api/v1/policies/{POLICY}"));
    let mut rules = Vec::new();
    for (from, to) in PAIRS {
        let name = |app| -> anyhow::Result<String> { Ok(record.container(app)?.instance.full_name()) };
        for port in [format!("udp:{UDP_PORT}"), format!("udp:{PROBE_PORT}"), format!("tcp:{ECHO_PORT}")] {
            rules.push(RuleSpec { from: name(from)?, to: name(to)?, port });
        }
    }
    let spec = PolicySpec { rules, reason: Some("isthmus demo drill".to_owned()) };
    rest.create("/api/v1/policies", POLICY, spec)?;
    Ok(())
}

fn under_traffic(record: &mut Record, args: &AgentKillArgs) -> anyhow::Result<Outcome> {
    let mut progress = Progress::new();
    for pair in PAIRS {
        wait_until_open(record, pair)?;
    }
    let mut idle = Vec::new();
    for (index, pair) in PAIRS.into_iter().enumerate() {
        let count = args.flows / PAIRS.len() + usize::from(index < args.flows % PAIRS.len());
        let address = format!("{}:{ECHO_PORT}", record.container(pair.1)?.address);
        idle.push(Client::start(
            record,
            pair.0,
            &["flows", &address, "--count", &count.to_string()],
            "open",
        )?);
    }
    progress.done(&format!("{} idle connections across nodes", args.flows));
    let address = format!("{}:{PROBE_PORT}", record.container(PAIRS[0].1)?.address);
    let _echo = Client::start(record, PAIRS[0].1, &["echo", &address], "started")?;
    let seconds = args.seconds.to_string();
    let probe = Client::start(record, PAIRS[0].0, &["probe", &address, "--seconds", &seconds], "started")?;
    progress.done("a probe of 1,000 datagrams a second across nodes");
    let start = Instant::now();
    let killed = kill_agents(record, &mut progress)?;
    let agents_ready_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let probed: Probed = probe.finish("")?;
    let mut outcome = Outcome {
        packets_sent: probed.packets_sent,
        packets_lost: probed.packets_lost,
        flows: 0,
        flows_reset: 0,
        agents_killed: killed,
        agents_ready_ms,
    };
    for client in idle {
        let rested: Rested = client.finish("check\n")?;
        outcome.flows += rested.flows;
        outcome.flows_reset += rested.flows_reset;
    }
    progress.done("all datagrams and connections counted");
    Ok(outcome)
}

fn wait_until_open(record: &Record, (from, to): (&str, &str)) -> anyhow::Result<()> {
    let address = format!("{}:{UDP_PORT}", record.container(to)?.address);
    let call = inside(record, record.container(from)?, &["udp", &address, "--timeout-ms", "500"]);
    wait::until(&format!("the path from {from} to {to}"), PATIENCE, || call.run().map(Some))?;
    Ok(())
}

/// The demo's client in a container's network namespace.
fn inside(record: &Record, container: &Container, arguments: &[&str]) -> Call {
    Call::new(&record.binary).in_namespace(&container.netns).arg("demo-app").args(arguments)
}

/// Kills every agent and starts it again; returns when all are ready.
fn kill_agents(record: &mut Record, progress: &mut Progress) -> anyhow::Result<u64> {
    let nodes: Vec<Node> = record.nodes.clone();
    for node in &nodes {
        let name = agent_name(node);
        record.process(&name).with_context(|| format!("{name} is not in the record"))?.kill()?;
    }
    progress.done(&format!("{} agents killed with SIGKILL", nodes.len()));
    for node in &nodes {
        restart(record, node)?;
    }
    for node in &nodes {
        let agent = record.process(&agent_name(node)).context("an agent is not in the record")?;
        agent_plan(record, node).wait_ready(agent)?;
    }
    progress.done(&format!("{} agents started again and connected", nodes.len()));
    Ok(nodes.len() as u64)
}

fn restart(record: &mut Record, node: &Node) -> anyhow::Result<()> {
    let name = agent_name(node);
    let log = Path::new(super::RUN).join("logs").join(format!("{name}.log"));
    let process = Process::start(&name, &agent_plan(record, node).call(&record.binary), &log)?;
    for known in record.made.processes.iter_mut().filter(|known| known.name == name) {
        known.clone_from(&process);
    }
    Ok(record.save()?)
}

/// A client that says when it is ready, and its result when it ends.
struct Client {
    child: Child,
    output: BufReader<ChildStdout>,
    line: String,
}

impl Client {
    fn start(record: &Record, from: &str, arguments: &[&str], ready: &str) -> anyhow::Result<Self> {
        let call = inside(record, record.container(from)?, arguments);
        let mut child = call.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("a client has no output")?;
        let mut client = Self { child, output: BufReader::new(output), line: call.line() };
        let first = client.read()?;
        if !first.starts_with(ready) {
            bail!("`{}` did not begin: {first}", client.line);
        }
        Ok(client)
    }

    fn read(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).with_context(|| format!("lost contact with `{}`", self.line))?;
        Ok(line.trim().to_owned())
    }

    fn finish<T: serde::de::DeserializeOwned>(mut self, input: &str) -> anyhow::Result<T> {
        if let Some(mut pipe) = self.child.stdin.take() {
            pipe.write_all(input.as_bytes()).with_context(|| format!("lost contact with `{}`", self.line))?;
        }
        let text = self.read()?;
        self.child.wait()?;
        serde_json::from_str(&text).with_context(|| format!("`{}` gave no result: {text}", self.line))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It has ended, or the drill has failed.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn report(outcome: &Outcome, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        answer(&serde_json::to_string_pretty(outcome)?);
        return Ok(());
    }
    let mut table = table(&["", "COUNT", "LOST"]);
    table.add_row(["datagrams", &outcome.packets_sent.to_string(), &outcome.packets_lost.to_string()]);
    table.add_row(["idle connections", &outcome.flows.to_string(), &outcome.flows_reset.to_string()]);
    answer(&table.trim_fmt());
    say(&format!("{} agents were away for {} ms at most", outcome.agents_killed, outcome.agents_ready_ms));
    Ok(())
}
