//! One node with many endpoints: what its agent needs, and how soon it is back after SIGKILL.

use super::{Lab, PREFIX, RUN, say, subject::Plugin};
use crate::{
    daemon::AgentPlan, load::PluginFound, namespace::Namespace, process::Process, table::table, wait,
};
use anyhow::Context as _;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// What the names of the endpoints' namespaces begin with.
const CONTAINERS: &str = "isb-scale-";
/// Callers of the plugin at once.
const CALLERS: usize = 16;
/// For how long the agent's idle CPU time is taken: as long as lies between two looks at all that a node has.
const IDLE: Duration = Duration::from_secs(30);
/// Connections that a node without traffic may still track: other measurements leave many, which the agent sweeps.
const CONNECTIONS_IDLE_MAX: u64 = 1_000;
/// Longest time until they are forgotten.
const SWEPT: Duration = Duration::from_mins(3);
/// Longest time that the agent may take to be back.
const BACK: Duration = Duration::from_mins(1);
/// Largest resident memory of an agent with 1,000 endpoints, in MiB.
const MEMORY_MIB_MAX: f64 = 40.0;
/// Largest part of one core that an idle agent uses, in percent.
const IDLE_PERCENT_MAX: f64 = 0.5;
/// Longest time from start to ready with 1,000 endpoints, in milliseconds.
const RESTART_MS_MAX: f64 = 300.0;
/// Fewest ADDs a second from 16 callers.
const ADD_RATE_MIN: f64 = 200.0;

/// A node of Isthmus that may be filled.
#[derive(Clone, Debug)]
pub(super) struct Crowded {
    pub(super) binary: PathBuf,
    pub(super) agent: AgentPlan,
    pub(super) process: Process,
    pub(super) plugin: Plugin,
}

/// Fills the node, measures, prints, and empties it again.
pub(super) fn measure(lab: &mut Lab, node: &Crowded, endpoints: usize) -> anyhow::Result<()> {
    make_namespaces(lab, endpoints)?;
    let before = node.agent.status()?.endpoints;
    let added: PluginFound = node.plugin.call(CONTAINERS, endpoints, CALLERS, "add")?;
    let with_all = node.agent.status()?.endpoints;
    anyhow::ensure!(
        with_all == before + endpoints as u64,
        "the agent says {with_all} endpoints where {before} and {endpoints} new ones must be"
    );
    wait::until("the connections of other measurements to be forgotten", SWEPT, || {
        let connections = node.agent.status()?.connections;
        Ok::<_, anyhow::Error>((connections <= CONNECTIONS_IDLE_MAX).then_some(()))
    })?;
    let idle = idle_percent(&node.process)?;
    let memory = resident_mib(&node.process)?;
    let (process, restart) = restart(lab, node, with_all)?;
    let deleted: PluginFound = node.plugin.call(CONTAINERS, endpoints, CALLERS, "del")?;
    let left = node.agent.status()?.endpoints;
    anyhow::ensure!(left == before, "the agent says {left} endpoints after DEL of all but {before}");
    print(
        endpoints,
        &[
            ("CNI ADD, 16 callers", added.add_rate, "1/s", ADD_RATE_MIN, true),
            ("agent, resident memory", memory, "MiB", MEMORY_MIB_MAX, false),
            ("agent, idle CPU of a core", idle, "%", IDLE_PERCENT_MAX, false),
            ("agent, start to ready after SIGKILL", restart, "ms", RESTART_MS_MAX, false),
            ("CNI DEL, 16 callers", deleted.del_rate, "1/s", ADD_RATE_MIN, true),
        ],
    );
    anyhow::ensure!(process.lives(), "the agent ended while its endpoints were removed");
    Ok(())
}

fn make_namespaces(lab: &mut Lab, count: usize) -> anyhow::Result<()> {
    say(&format!("making {count} containers"));
    let all: Vec<_> = (0..count).map(|index| Namespace::named(format!("{CONTAINERS}{index}"))).collect();
    debug_assert!(CONTAINERS.starts_with(PREFIX), "an interrupted run is cleaned up by its prefix");
    lab.record(|made| made.namespaces.extend(all.clone()))?;
    let makers: Vec<_> = all
        .chunks(count.div_ceil(4).max(1))
        .map(<[Namespace]>::to_vec)
        .map(|part| thread::spawn(move || part.iter().try_for_each(Namespace::create)))
        .collect();
    for maker in makers {
        maker.join().map_err(|_panic| anyhow::anyhow!("a thread that makes namespaces broke"))??;
    }
    Ok(())
}

/// Kills the agent and starts it again; returns the time until it answers with all its endpoints, in milliseconds.
fn restart(lab: &mut Lab, node: &Crowded, endpoints: u64) -> anyhow::Result<(Process, f64)> {
    node.process.kill()?;
    let start = Instant::now();
    let log = Path::new(RUN).join("restarted.log");
    let process = Process::start("agent, restarted", &node.agent.call(&node.binary), &log)?;
    lab.record(|made| made.processes.push(process.clone()))?;
    wait::until("the agent with its endpoints", BACK, || {
        Ok::<_, anyhow::Error>((node.agent.status()?.endpoints == endpoints).then_some(()))
    })?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    node.agent.wait_ready(&process)?;
    Ok((process, took))
}

fn idle_percent(process: &Process) -> anyhow::Result<f64> {
    say(&format!("watching the idle agent for {} s", IDLE.as_secs()));
    let before = cpu_ticks(process)?;
    thread::sleep(IDLE);
    let ticks = cpu_ticks(process)?.saturating_sub(before);
    // 100 ticks are a second of one core.
    Ok(ticks as f64 / IDLE.as_secs_f64())
}

/// CPU time of a process in clock ticks (`proc(5)`, fields 14 and 15 of `stat`).
fn cpu_ticks(process: &Process) -> anyhow::Result<u64> {
    let path = format!("/proc/{}/stat", process.pid);
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
}

fn resident_mib(process: &Process) -> anyhow::Result<f64> {
    let path = format!("/proc/{}/status", process.pid);
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kib.with_context(|| format!("{path} has no VmRSS"))? / 1024.0)
}

/// Name, value, unit, bound, and whether the bound is the least that is wanted.
type Row = (&'static str, f64, &'static str, f64, bool);

fn print(endpoints: usize, rows: &[Row]) {
    let mut table = table(&["", &format!("one node, {endpoints} endpoints"), "MEASURED", "WANTED"]);
    for (name, value, unit, bound, least) in rows {
        let good = if *least { value >= bound } else { value <= bound };
        let mark = if good { "✔" } else { "✖" };
        let word = if *least { "≥" } else { "≤" };
        table.add_row([mark, name, &format!("{value:.1} {unit}"), &format!("{word} {bound} {unit}")]);
    }
    let _closed = writeln!(std::io::stdout(), "\n{}", table.trim_fmt());
}
