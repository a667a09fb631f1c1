//! The table of ratios, and the file.

use super::measure::{Measure, Place};
use crate::{load::median, table::table};
use anyhow::Context as _;
use serde::Serialize;
use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

/// Values of each subject's rounds, in the order of the subjects.
type Rounds = Vec<(String, Vec<f64>)>;

/// Values of all rounds.
#[derive(Debug, Default)]
pub(super) struct Results {
    values: BTreeMap<(Place, Measure), Rounds>,
    /// Measurements that others disturbed each time they were repeated.
    pub(super) disturbed: u32,
}

/// One line of the file.
#[derive(Debug, Serialize)]
struct Line {
    place: &'static str,
    measure: &'static str,
    subject: String,
    unit: &'static str,
    value: f64,
    ratio: Option<f64>,
    base: &'static str,
    rounds: usize,
}

impl Results {
    /// A round's value.
    pub(super) fn add(&mut self, place: Place, measure: Measure, subject: &str, value: f64) {
        let subjects = self.values.entry((place, measure)).or_default();
        match subjects.iter_mut().find(|(name, _)| name == subject) {
            Some((_, values)) => values.push(value),
            None => subjects.push((subject.to_owned(), vec![value])),
        }
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for ((place, measure), subjects) in &self.values {
            let base = subjects.iter().find(|(name, _)| name == place.base());
            let base = base.map(|(_, values)| summarize(*measure, values));
            for (subject, values) in subjects {
                let value = summarize(*measure, values);
                let ratio = base.map(|base| if measure.is_latency() { base / value } else { value / base });
                lines.push(Line {
                    place: place.word(),
                    measure: measure.word(),
                    subject: subject.clone(),
                    unit: measure.unit(),
                    value,
                    ratio: ratio.filter(|ratio| ratio.is_finite()),
                    base: place.base(),
                    rounds: values.len(),
                });
            }
        }
        lines
    }

    /// Writes the file.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let fail = || format!("cannot write {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(fail)?;
        }
        fs::write(path, serde_json::to_string_pretty(&self.lines())?).with_context(fail)
    }

    /// Prints a table for each place: a row for each subject, a column for each measure.
    pub(super) fn print(&self) {
        let lines = self.lines();
        for place in [Place::SameNode, Place::CrossNode, Place::Node] {
            let here: Vec<_> = lines.iter().filter(|line| line.place == place.word()).collect();
            if here.is_empty() {
                continue;
            }
            let mut measures: Vec<&str> = Vec::new();
            let mut subjects: Vec<&str> = Vec::new();
            for line in &here {
                push_new(&mut measures, line.measure);
                push_new(&mut subjects, &line.subject);
            }
            let header: Vec<_> = std::iter::once(place.word()).chain(measures.iter().copied()).collect();
            let mut table = table(&header);
            for subject in subjects {
                let find = |measure: &&str| {
                    here.iter().find(|line| line.subject == subject && line.measure == *measure)
                };
                let cells =
                    measures.iter().map(|measure| find(measure).map_or_else(String::new, |line| cell(line)));
                table.add_row(std::iter::once(subject.to_owned()).chain(cells));
            }
            let _closed = writeln!(std::io::stdout(), "\n{}", table.trim_fmt());
        }
        let _closed = writeln!(
            std::io::stdout(),
            "\nratios: 1 is the base's own figure (limit, or bridge-host-local), more is better; in brackets the value"
        );
        if self.disturbed > 0 {
            let _closed = writeln!(
                std::io::stdout(),
                "! {} measurements were disturbed by other processes each time: trust the figures less",
                self.disturbed
            );
        }
    }
}

fn push_new<'a>(list: &mut Vec<&'a str>, word: &'a str) {
    if !list.contains(&word) {
        list.push(word);
    }
}

/// The best of the rounds for a latency, their middle for a rate.
fn summarize(measure: Measure, values: &[f64]) -> f64 {
    if measure.is_latency() {
        values.iter().copied().fold(f64::INFINITY, f64::min)
    } else {
        median(&mut values.to_vec())
    }
}

fn cell(line: &Line) -> String {
    let value = match line.unit {
        "bit/s" => format!("{:.1} Gbit/s", line.value / 1e9),
        "packet/s" => format!("{:.0} k/s", line.value / 1e3),
        "us" => format!("{:.1} µs", line.value),
        unit => format!("{:.1} {unit}", line.value),
    };
    match line.ratio {
        Some(ratio) => format!("{ratio:.2} ({value})"),
        None => format!("- ({value})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_better_in_every_ratio() {
        let mut results = Results::default();
        for value in [10.0, 12.0, 11.0] {
            results.add(Place::SameNode, Measure::RequestResponse, "limit", value);
            results.add(Place::SameNode, Measure::RequestResponse, "slow", value * 2.0);
            results.add(Place::SameNode, Measure::SmallPackets, "limit", value);
            results.add(Place::SameNode, Measure::SmallPackets, "slow", value / 2.0);
        }
        let lines = results.lines();
        let slow: Vec<_> = lines.iter().filter(|line| line.subject == "slow").collect();
        assert_eq!(slow.len(), 2);
        for line in slow {
            assert!(line.ratio.is_some_and(|ratio| (ratio - 0.5).abs() < 1e-9), "{line:?}");
            assert_eq!((line.rounds, line.base), (3, "limit"));
        }
        // The best latency, the middle rate.
        let value = |measure: &str| lines.iter().find(|line| line.measure == measure).map(|line| line.value);
        assert_eq!((value("rr"), value("udp")), (Some(10.0), Some(11.0)));
    }

    #[test]
    fn without_a_base_there_is_no_ratio() {
        let mut results = Results::default();
        results.add(Place::Node, Measure::AddRate, "isthmus-1", 200.0);
        assert_eq!(results.lines()[0].ratio, None);
    }
}
