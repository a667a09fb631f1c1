//! The stage: runs commands for the audience to see.

use crate::{command::Call, progress::answer};
use anyhow::Context as _;
use std::io::{BufRead as _, IsTerminal as _};

/// Where the story is told.
pub(super) struct Stage {
    waits: bool,
    chapters: u32,
}

impl Stage {
    pub(super) fn new(audience: bool) -> Self {
        let waits = audience && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        Self { waits, chapters: 0 }
    }

    /// Begins a chapter; a person presses Enter first.
    pub(super) fn chapter(&mut self, title: &str) -> anyhow::Result<()> {
        if self.waits && self.chapters > 0 {
            answer("\n[Enter]");
            std::io::stdin().lock().read_line(&mut String::new()).context("cannot read from the terminal")?;
        }
        self.chapters += 1;
        answer(&format!("\n{}. {title}", self.chapters));
        Ok(())
    }

    /// Shows text as the output of something.
    #[expect(clippy::unused_self, reason = "everything that is shown goes through the stage")]
    pub(super) fn show(&self, text: &str) {
        for line in text.trim_end().lines() {
            answer(&format!("   {line}"));
        }
    }

    /// Runs and shows a command as somebody on `place` would type it; what it printed, and whether it went well.
    pub(super) fn run(&self, place: &str, line: &str, call: &Call) -> anyhow::Result<(bool, String)> {
        answer(&format!("   {place}$ {line}"));
        let output = call.output()?;
        self.show(&output.stdout);
        self.show(&output.stderr);
        Ok((output.status.success(), output.stdout))
    }
}
