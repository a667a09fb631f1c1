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
use std::{io::Write as _, path::PathBuf};
use subject::Subject;

/// Directory of everything that the benchmark writes, but for its result.
pub(crate) const RUN: &str = "/run/isthmus-bench";
/// What the names of its namespaces begin with.
pub(crate) const PREFIX: &str = "isb-";
const LAB: lab::Place = lab::Place { run: RUN, prefix: PREFIX };

/// Arguments of `isthmus bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 700)]
    time_ms: u64,
    /// Subjects to measure, `limit` always; all if none is named.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Measures: rr, crr, tcp1, tcp4, udp, cni, scale; all if none is named.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<String>,
    /// Endpoints of the node that is filled for `scale`.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1500))]
    endpoints: u16,
    /// Where the result goes, as JSON.
    #[arg(long, default_value = "target/bench/dataplane.json")]
    output: PathBuf,
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
    let (subjects, crowded) = subject::build(&mut lab, &wanted)?;
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
