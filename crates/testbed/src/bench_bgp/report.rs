//! The tables of figures and ratios, and the file.

use super::{case::Case, daemon::Daemon, load::Found};
use crate::{load::median, table::table};
use anyhow::Context as _;
use serde::Serialize;
use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

/// What is told of each run.
type Figure = (&'static str, fn(&Found) -> Option<f64>, usize);

/// Names of the columns, where each is found, and digits behind the point.
const FIGURES: [Figure; 7] = [
    ("wall s", |found| found.wall_s, 2),
    ("CPU s", |found| found.cpu_s, 2),
    ("peak MiB", |found| found.peak_rss_mib, 1),
    ("change ms", |found| found.change_p50_ms, 2),
    ("… while fed", |found| found.change_fed_p50_ms, 2),
    ("late join s", |found| found.late_join_s, 3),
    ("withdraw s", |found| found.withdraw_s, 3),
];

/// What all rounds found.
#[derive(Debug, Default)]
pub(super) struct Results {
    rounds: BTreeMap<(Case, Daemon), Vec<Found>>,
    /// Runs that others disturbed each time they were repeated.
    pub(super) disturbed: u32,
}

/// One line of the file.
#[derive(Debug, Serialize)]
struct Line {
    case: &'static str,
    daemon: &'static str,
    wall_s: Option<f64>,
    cpu_s: Option<f64>,
    peak_rss_mib: Option<f64>,
    change_p50_ms: Option<f64>,
    change_fed_p50_ms: Option<f64>,
    late_join_s: Option<f64>,
    withdraw_s: Option<f64>,
    rounds: usize,
    bad: u64,
    lost: u32,
}

impl Results {
    pub(super) fn add(&mut self, case: Case, daemon: Daemon, found: Found) {
        self.rounds.entry((case, daemon)).or_default().push(found);
    }

    /// What was found so far of a daemon in a case.
    pub(super) fn of(&self, case: Case, daemon: Daemon) -> &[Found] {
        self.rounds.get(&(case, daemon)).map_or(&[], Vec::as_slice)
    }

    /// Routes that were wrong, and sessions that were lost, of one daemon.
    pub(super) fn faults(&self, daemon: Daemon) -> (u64, u32) {
        let own = self.rounds.iter().filter(|((_, other), _)| *other == daemon);
        own.flat_map(|(_, rounds)| rounds)
            .fold((0, 0), |(bad, lost), found| (bad + found.bad, lost + found.lost))
    }

    fn lines(&self) -> Vec<Line> {
        let line = |((case, daemon), rounds): (&(Case, Daemon), &Vec<Found>)| Line {
            case: case.name(),
            daemon: daemon.name(),
            wall_s: middle(rounds, |found| found.wall_s),
            cpu_s: middle(rounds, |found| found.cpu_s),
            peak_rss_mib: middle(rounds, |found| found.peak_rss_mib),
            change_p50_ms: middle(rounds, |found| found.change_p50_ms),
            change_fed_p50_ms: middle(rounds, |found| found.change_fed_p50_ms),
            late_join_s: middle(rounds, |found| found.late_join_s),
            withdraw_s: middle(rounds, |found| found.withdraw_s),
            rounds: rounds.len(),
            bad: rounds.iter().map(|found| found.bad).sum(),
            lost: rounds.iter().map(|found| found.lost).sum(),
        };
        self.rounds.iter().map(line).collect()
    }

    /// Writes the file.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let fail = || format!("cannot write {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(fail)?;
        }
        fs::write(path, serde_json::to_string_pretty(&self.lines())?).with_context(fail)
    }

    /// Prints a table for each case: a row for each daemon, each figure with its ratio to BIRD's.
    pub(super) fn print(&self) {
        let mut out = std::io::stdout().lock();
        let cases: std::collections::BTreeSet<Case> = self.rounds.keys().map(|(case, _)| *case).collect();
        for case in cases {
            let base = self.of(case, Daemon::Bird);
            let columns = FIGURES.iter().map(|(name, ..)| *name);
            let header: Vec<_> = std::iter::once(case.name()).chain(columns).chain(["rounds"]).collect();
            let mut rows = table(&header);
            for daemon in Daemon::ALL {
                let rounds = self.of(case, daemon);
                if rounds.is_empty() {
                    continue;
                }
                let cells = FIGURES
                    .iter()
                    .map(|(_, figure, digits)| cell(middle(rounds, *figure), middle(base, *figure), *digits));
                let count = rounds.len().to_string();
                rows.add_row(std::iter::once(daemon.name().to_owned()).chain(cells).chain([count]));
            }
            let _closed = writeln!(out, "\n{}", rows.trim_fmt());
        }
        let _closed = writeln!(
            out,
            "\nmedians; in brackets the ratio to BIRD 2, less is better. CPU: of the daemon's processes until all routes are there."
        );
        if self.disturbed > 0 {
            let _closed = writeln!(
                out,
                "! {} runs were disturbed by other processes each time: trust the figures less",
                self.disturbed
            );
        }
    }
}

/// The middle of what was measured, if anything was.
fn middle(rounds: &[Found], figure: impl Fn(&Found) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = rounds.iter().filter_map(figure).collect();
    (!values.is_empty()).then(|| median(&mut values))
}

fn cell(value: Option<f64>, base: Option<f64>, digits: usize) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match base.map(|base| value / base).filter(|ratio| ratio.is_finite()) {
        Some(ratio) => format!("{value:.digits$} ({ratio:.2})"),
        None => format!("{value:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_rounds_is_told_with_its_ratio() {
        let mut results = Results::default();
        for (ours, theirs) in [(1.0, 3.0), (5.0, 4.0), (2.0, 5.0)] {
            let found = |wall_s| Found { wall_s: Some(wall_s), ..Found::default() };
            results.add(Case::Million, Daemon::Isthmus, found(ours));
            results.add(Case::Million, Daemon::Bird, found(theirs));
        }
        results.add(Case::Million, Daemon::Frr, Found { bad: 2, lost: 1, ..Found::default() });
        let lines = results.lines();
        assert_eq!((lines[0].wall_s, lines[0].rounds), (Some(2.0), 3));
        assert_eq!((lines[2].wall_s, lines[2].bad, lines[2].lost), (None, 2, 1));
        assert_eq!(results.faults(Daemon::Frr), (2, 1));
        assert_eq!(cell(lines[0].wall_s, lines[1].wall_s, 2), "2.00 (0.50)");
        assert_eq!(cell(None, Some(1.0), 2), "-");
        assert_eq!(cell(Some(1.0), None, 1), "1.0");
    }
}
