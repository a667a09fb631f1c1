//! `isthmus bench-bgp`: our speaker as a route reflector beside BIRD 2, FRR and GoBGP, in one interleaved run.
//!
//! Each daemon has two namespaces: its own, and one in which a load generator plays all of its peers (`load`). Each run
//! starts the daemon anew, so that nothing is warm. A round measures every daemon once in every case.

mod case;
mod daemon;
mod load;
mod report;

use crate::{
    cpu, interrupt,
    lab::{self, Lab},
    namespace::Namespace,
    process::Process,
};
use anyhow::{Context as _, bail};
use case::Case;
use daemon::Daemon;
use load::Found;
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(crate) use load::{LoadArgs, run as load};

/// What it makes on the host.
const PLACE: lab::Place = lab::Place { run: "/run/isthmus-bench-bgp", prefix: "isbb-" };
/// Held while one runs. It stays, as it is empty and others may wait for it.
const LOCK: &str = "/run/isthmus-bench-bgp.lock";
/// CPU time of others, as part of one core, above which a run is disturbed.
const DISTURBANCE_MAX: f64 = 0.15;
/// How often a disturbed run is repeated.
const REPEATS_MAX: usize = 1;
/// A daemon that takes longer for one run of a case is not asked again.
const SLOW: Duration = Duration::from_secs(45);
/// More than any step may take, all steps together.
const RUN_MAX: Duration = Duration::from_mins(20);

/// Arguments of `isthmus bench-bgp`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchBgpArgs {
    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Cases to measure; all if none is named.
    #[arg(long, value_delimiter = ',', value_enum)]
    cases: Vec<Case>,
    /// Daemons to measure; all if none is named.
    #[arg(long, value_delimiter = ',', value_enum)]
    daemons: Vec<Daemon>,
    /// Hold time in seconds that the peers propose.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..))]
    hold: u16,
    /// Seconds that one step of a run may take.
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Where the result goes, as JSON.
    #[arg(long, default_value = "target/bench/bgp.json")]
    output: PathBuf,
}

/// Runs the benchmark and returns its exit code: 0 done, 1 ours sent something wrong or lost a session, 2 a failure.
///
/// Blocks; must not be called from inside an async runtime.
#[expect(clippy::needless_pass_by_value, reason = "the arguments are used up")]
pub fn run(args: BenchBgpArgs) -> u8 {
    let outcome = lock().and_then(|_lock| {
        let outcome = bench(&args);
        let _turn = interrupt::turn();
        let left = PLACE.clear();
        outcome.and_then(|is_right| left.map(|()| is_right))
    });
    match outcome {
        Ok(is_right) => u8::from(!is_right),
        Err(error) => {
            say(&format!("error: {error:#}"));
            2
        }
    }
}

/// A line of talk. A terminal that is gone is no reason to stop.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

fn bench(args: &BenchBgpArgs) -> anyhow::Result<bool> {
    PLACE.clear()?;
    interrupt::clean_up_with(|| {
        say("interrupted: removing what was made");
        if let Err(error) = PLACE.clear() {
            say(&format!("! {error:#}"));
        }
    });
    let cases = if args.cases.is_empty() { Case::ALL.to_vec() } else { args.cases.clone() };
    let daemons = if args.daemons.is_empty() { Daemon::ALL.to_vec() } else { args.daemons.clone() };
    let mut stand = Stand { args, lab: Lab::new(PLACE), namespaces: BTreeMap::new() };
    for daemon in &daemons {
        say(&format!("✔ {}: {}", daemon.name(), daemon.version()?));
        let namespaces = daemon::make_namespaces(&mut stand.lab, *daemon)?;
        stand.namespaces.insert(*daemon, namespaces);
    }
    let mut results = report::Results::default();
    let mut slow = Vec::new();
    for round in 1..=args.rounds {
        say(&format!("round {round} of {}", args.rounds));
        for case in &cases {
            for daemon in daemons.iter().filter(|daemon| is_measured(*case, **daemon)) {
                if slow.contains(&(*case, *daemon)) {
                    continue;
                }
                let began = Instant::now();
                let (found, is_disturbed) = stand.measure(*case, *daemon)?;
                results.disturbed += u32::from(is_disturbed);
                if began.elapsed() > SLOW && *daemon != Daemon::Isthmus {
                    say(&format!("  {} {}: takes too long to be measured again", case.name(), daemon.name()));
                    slow.push((*case, *daemon));
                }
                results.add(*case, *daemon, found);
            }
        }
    }
    results.write(&args.output)?;
    results.print();
    say(&format!("written to {}", args.output.display()));
    Ok(results.faults(Daemon::Isthmus) == (0, 0))
}

/// Waits until no other benchmark runs, which would be measured too, and whose namespaces have the same names.
fn lock() -> anyhow::Result<fs::File> {
    use rustix::fs::{FlockOperation, flock};
    if !rustix::process::geteuid().is_root() {
        bail!("the benchmark makes network namespaces: run it as root (sudo)");
    }
    let file = fs::File::create(LOCK).with_context(|| format!("cannot make {LOCK}"))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        say("another benchmark runs: waiting for its end");
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {LOCK}"))?;
    }
    Ok(file)
}

/// gobgpd 3.10 sends one prefix a message: more than 100,000 take it minutes, and so do 300 clients.
fn is_measured(case: Case, daemon: Daemon) -> bool {
    match daemon {
        Daemon::Gobgp => matches!(case, Case::Small | Case::SmallToTen | Case::Smoke),
        Daemon::Frr => case != Case::Arrival,
        Daemon::Isthmus | Daemon::Bird => true,
    }
}

/// What a run needs.
struct Stand<'a> {
    args: &'a BenchBgpArgs,
    lab: Lab,
    namespaces: BTreeMap<Daemon, [Namespace; 2]>,
}

impl Stand<'_> {
    /// One run, again if others disturbed it; says whether they did even at the last try.
    fn measure(&mut self, case: Case, daemon: Daemon) -> anyhow::Result<(Found, bool)> {
        let name = format!("{} {}", case.name(), daemon.name());
        let mut tries = 0;
        loop {
            let (found, others) = self.run(case, daemon).with_context(|| format!("{name} failed"))?;
            tell(&name, &found);
            // Of little nobody wants to know how long it took.
            if others <= DISTURBANCE_MAX || case == Case::Smoke {
                return Ok((found, false));
            }
            let others = others * 100.0;
            if tries == REPEATS_MAX {
                say(&format!("  {name}: others used {others:.0} % of a core, again"));
                return Ok((found, true));
            }
            tries += 1;
            say(&format!("  {name}: repeated because others used {others:.0} % of a core"));
        }
    }

    /// Starts the daemon, lets the load generator measure, and ends the daemon.
    fn run(&mut self, case: Case, daemon: Daemon) -> anyhow::Result<(Found, f64)> {
        let [own, peers] = self.namespaces.get(&daemon).context("its namespaces were not made")?.clone();
        let directory = Path::new(PLACE.run).join(daemon.name());
        let before = cpu::Cpu::now();
        let processes = daemon.start(&mut self.lab, &own, &directory)?;
        let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
        let found = self.generate_load(case, &peers, &pids);
        let used_s = cpu::cpu_s(&pids);
        self.end(&processes, &directory)?;
        let found = found?;
        let own_ms = ((used_s + found.own_cpu_s) * 1e3) as u64;
        Ok((found, before.others(&cpu::Cpu::now(), own_ms)))
    }

    fn generate_load(&self, case: Case, peers: &Namespace, pids: &[u32]) -> anyhow::Result<Found> {
        let program = std::env::current_exe().context("cannot find the running program's path")?;
        let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
        let (hold, limit) = (self.args.hold.to_string(), self.args.limit.to_string());
        let call = peers
            .call(program)
            .args(["demo-app", "bgp-load", "--case", case.name(), "--pids", &pids.join(",")])
            .args(["--hold", &hold, "--limit", &limit])
            .timeout(RUN_MAX);
        Ok(serde_json::from_str(&call.run()?)?)
    }

    fn end(&mut self, processes: &[Process], directory: &Path) -> anyhow::Result<()> {
        for process in processes {
            // Nothing is measured of its end, and some take long for it.
            process.kill()?;
        }
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        self.lab.record(|made| made.processes.clear())
    }
}

/// Tells what one run found.
fn tell(name: &str, found: &Found) {
    let figures = [
        ("wall", found.wall_s, "s"),
        ("cpu", found.cpu_s, "s"),
        ("peak", found.peak_rss_mib, "MiB"),
        ("change", found.change_p50_ms, "ms"),
        ("while fed", found.change_fed_p50_ms, "ms"),
        ("late", found.late_join_s, "s"),
        ("withdraw", found.withdraw_s, "s"),
        ("(load generator", Some(found.own_cpu_s), "s CPU)"),
    ];
    let told = figures.iter().filter_map(|(word, value, unit)| {
        let value = (*value)?;
        Some(format!(" {word} {value:.3} {unit}"))
    });
    say(&format!("  {name}:{}", told.collect::<String>()));
    for (count, what) in [
        (found.bad, "routes were wrong"),
        (found.repeats, "routes came twice"),
        (found.lost.into(), "sessions were lost"),
    ] {
        if count > 0 {
            say(&format!("! {name}: {count} {what}"));
        }
    }
    if let Some(why) = &found.ended {
        say(&format!("! {name}: ended early: {why}"));
    }
}
