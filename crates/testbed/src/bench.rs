//! `isthmus bench`: our dataplane beside others, in one interleaved run on one machine.
//!
//! Each subject has two nodes of its own (namespaces joined by one veth, the bare wire), so that no subject's hooks are in
//! another's way. A round measures every subject once for each place and measure. Latencies are the best median of the
//! rounds, throughputs the median; all are told as ratios to the limit of the same place.

mod isthmus;
mod measure;
mod pair;
mod report;
mod scale;
mod silk;
mod subject;

pub(crate) use crate::lab::Lab;
use crate::{interrupt, lab};
use anyhow::{Context as _, bail};
use measure::{Measure, Place};
use std::{collections::BTreeSet, fs, io::Write as _, path::PathBuf};
use subject::Subject;

/// Directory of everything that the benchmark writes, but for its result.
pub(crate) const RUN: &str = "/run/isthmus-bench";
/// Other builds that are measured at once; each has a pair of nodes with addresses of its own.
const BUILDS_MAX: usize = 16;
/// What the names of its namespaces begin with.
pub(crate) const PREFIX: &str = "isb-";
const LAB: lab::Place = lab::Place { run: RUN, prefix: PREFIX };

/// Arguments of `isthmus bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// How often everything is measured.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 400)]
    time_ms: u64,
    /// Subjects to measure, `limit` always; all if none is named.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Measures: rr, crr, tcp1, tcp4, udp, cni, scale; all if none is named.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<String>,
    /// Other builds of `isthmus`, whose agents run a subject of their own: what a change is worth.
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_build)]
    beside: Vec<Build>,
    /// Endpoints of the node that is filled for `scale`.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1500))]
    endpoints: u16,
    /// Where the result goes, as JSON.
    #[arg(long, default_value = "target/bench/dataplane.json")]
    output: PathBuf,
}

/// Another build of ours, to be measured beside this one.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    /// What the report calls it; also the name of its nodes: `build-` and a word.
    name: String,
    /// Its `isthmus`.
    binary: PathBuf,
}

fn parse_build(text: &str) -> Result<Build, String> {
    let (word, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    // With it nodes are named, and with those interfaces, whose names have 15 letters at most.
    let is_plain = word.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit());
    if word.is_empty() || word.len() > 7 || !is_plain {
        return Err(format!("{word:?} is no name for a build: take 1 to 7 lower-case letters and digits"));
    }
    let binary = fs::canonicalize(path).map_err(|error| format!("cannot find {path}: {error}"))?;
    Ok(Build { name: format!("build-{word}"), binary })
}

/// Refuses what would be built over one another.
fn check_builds(builds: &[Build]) -> anyhow::Result<()> {
    if builds.len() > BUILDS_MAX {
        bail!("{} builds with --beside: at most {BUILDS_MAX} are measured at once", builds.len());
    }
    let mut names = BTreeSet::new();
    match builds.iter().find(|build| !names.insert(&build.name)) {
        Some(twice) => bail!("two builds with --beside are called {}: name each by itself", twice.name),
        None => Ok(()),
    }
}

/// Runs the benchmark and returns its exit code: 0 done, 2 a failure.
///
/// Blocks; starts its own async runtimes, so it must not be called from inside one.
#[expect(clippy::needless_pass_by_value, reason = "the arguments are used up")]
pub fn run(args: BenchArgs) -> u8 {
    let outcome = bench(&args);
    let _turn = interrupt::turn();
    let left = LAB.clear();
    match outcome.and(left) {
        Ok(()) => 0,
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

fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the benchmark makes network namespaces and loads programs into the kernel: run it as root (sudo)"
        );
    }
    check_builds(&args.beside)?;
    LAB.clear()?;
    interrupt::clean_up_with(|| {
        say("interrupted: removing what was made");
        if let Err(error) = LAB.clear() {
            say(&format!("! {error:#}"));
        }
    });
    let mut lab = Lab::new(LAB);
    let wanted = |name: &str| {
        args.subjects.is_empty() || name == "limit" || args.subjects.iter().any(|one| one == name)
    };
    let (subjects, crowded) = subject::build(&mut lab, &wanted, &args.beside)?;
    let mut results = report::Results::default();
    for round in 1..=args.rounds {
        say(&format!("round {round} of {}", args.rounds));
        measure_round(args, &subjects, &mut results)?;
    }
    results.write(&args.output)?;
    results.print();
    if let Some(node) =
        crowded.filter(|_| args.measures.is_empty() || args.measures.iter().any(|one| one == "scale"))
    {
        scale::measure(&mut lab, &node, args.endpoints.into()).context("cannot measure a crowded node")?;
    }
    say(&format!("written to {}", args.output.display()));
    Ok(())
}

fn measure_round(
    args: &BenchArgs,
    subjects: &[Subject],
    results: &mut report::Results,
) -> anyhow::Result<()> {
    let wanted = |word: &str| args.measures.is_empty() || args.measures.iter().any(|one| one == word);
    for place in [Place::SameNode, Place::CrossNode] {
        for measure in Measure::WIRE.into_iter().filter(|measure| wanted(measure.word())) {
            for subject in subjects {
                let Some(ends) = subject.ends(place) else { continue };
                let (value, is_disturbed) = measure::on_wire(&subject.name, ends, measure, args.time_ms)?;
                results.add(place, measure, &subject.name, value);
                results.disturbed += u32::from(is_disturbed);
            }
        }
    }
    if wanted("cni") {
        for subject in subjects {
            let Some(plugin) = &subject.plugin else { continue };
            for (measure, value) in measure::plugin(&subject.name, plugin)? {
                results.add(Place::Node, measure, &plugin.name, value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_need_names_that_nodes_can_have() {
        let own = std::env::current_exe().unwrap();
        let own = own.display();
        assert_eq!(parse_build(&format!("a1={own}")).unwrap().name, "build-a1");
        for wrong in ["", "=", "a", "a=", "a=/no/such/file"] {
            assert!(parse_build(wrong).is_err(), "{wrong}");
        }
        for name in ["", "A", "a-b", "a/b", "abcdefgh"] {
            assert!(parse_build(&format!("{name}={own}")).is_err(), "{name}");
        }
    }

    #[test]
    fn builds_are_few_and_told_apart() {
        let build = |number: usize| Build { name: format!("build-{number}"), binary: PathBuf::new() };
        let builds = |count: usize| (0..count).map(build).collect::<Vec<_>>();
        assert!(check_builds(&builds(BUILDS_MAX)).is_ok());
        assert!(check_builds(&builds(BUILDS_MAX + 1)).is_err());
        assert!(check_builds(&[build(1), build(1)]).is_err());
    }
}
