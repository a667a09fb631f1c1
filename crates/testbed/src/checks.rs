//! What a story expected and what it found; the table at the end.

use crate::{progress::answer, table::table};
use std::fmt::Display;

/// Results of a tour.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    rows: Vec<[String; 4]>,
    differences: usize,
}

impl Checks {
    /// `found` must equal `expected`.
    pub(crate) fn same<T: PartialEq + Display + ?Sized>(
        &mut self,
        what: &str,
        of: &str,
        expected: &T,
        found: &T,
    ) {
        self.that(what, &format!("{of}: {expected}"), expected == found, &found.to_string());
    }

    /// `good` must be so.
    pub(crate) fn that(&mut self, what: &str, expected: &str, good: bool, found: &str) {
        let mark = if good { "✔" } else { "✖" };
        self.differences += usize::from(!good);
        self.rows.push([mark, what, expected, found].map(str::to_owned));
    }

    /// The story could not be told to its end.
    pub(crate) fn broken(&mut self, error: &anyhow::Error) {
        self.that("the tour", "runs to its end", false, &format!("{error:#}"));
    }

    /// Prints the table and returns the exit code.
    pub(crate) fn summary(&self) -> u8 {
        let mut table = table(&["", "CHECK", "EXPECTED", "FOUND"]);
        for row in &self.rows {
            table.add_row(row);
        }
        answer(&format!("\n{}\n", table.trim_fmt()));
        let total = self.rows.len();
        if self.differences == 0 {
            answer(&format!("✔ tour: {total} of {total} checks as expected"));
        } else {
            answer(&format!("✖ tour: {} of {total} checks differ", self.differences));
        }
        u8::from(self.differences > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_is_the_exit_code() {
        let mut checks = Checks::default();
        checks.same("a", "number", &1, &1);
        assert_eq!(checks.summary(), 0);
        checks.same("b", "number", &1, &2);
        assert_eq!(checks.summary(), 1);
    }

    #[test]
    fn a_story_that_broke_is_a_difference() {
        let mut checks = Checks::default();
        checks.broken(&anyhow::anyhow!("no server"));
        assert_eq!(checks.summary(), 1);
    }
}
