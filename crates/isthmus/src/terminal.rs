//! What the terminal can show: colour, marks, and whether a person is there.

use std::{
    env,
    io::{IsTerminal, stderr, stdin, stdout},
};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb` says no.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What can be shown. Colour only repeats what a word or a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five facts about a terminal, none of which follows from another"
)]
pub struct Terminal {
    color_out: bool,
    color_err: bool,
    ascii: bool,
    person: bool,
    live: bool,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Passed, allowed.
    Good,
    /// Failed, denied.
    Bad,
    /// To be looked at.
    Doubtful,
    /// A heading.
    Head,
}

impl Tone {
    /// Select Graphic Rendition parameter (ECMA-48 section 8.3.117).
    const fn parameter(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Doubtful => "33",
            Self::Head => "1",
        }
    }
}

impl Terminal {
    /// What this process's terminal can show.
    pub fn of_process(color: Color, ascii: bool) -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        let decide = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !plain,
        };
        Self {
            color_out: decide(stdout().is_terminal()),
            color_err: decide(stderr().is_terminal()),
            ascii: ascii || !speaks_unicode(),
            person: stdin().is_terminal() && stderr().is_terminal(),
            live: stdout().is_terminal() && env::var_os("TERM").is_none_or(|value| value != "dumb"),
        }
    }

    /// Shows text only, as into a file.
    pub const fn plain() -> Self {
        Self { color_out: false, color_err: false, ascii: false, person: false, live: false }
    }

    /// Whether there is a person who can be asked.
    pub const fn has_person(self) -> bool {
        self.person
    }

    /// Whether what stands on standard output can be replaced.
    pub const fn is_live(self) -> bool {
        self.live
    }

    /// `text` in `tone`, for standard output.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        paint(self.color_out, tone, text)
    }

    /// `text` in `tone`, for standard error.
    pub fn paint_err(self, tone: Tone, text: &str) -> String {
        paint(self.color_err, tone, text)
    }

    /// Says that something passed or not.
    pub const fn mark(self, ok: bool) -> &'static str {
        match (self.ascii, ok) {
            (false, true) => "✔",
            (false, false) => "✖",
            (true, true) => "ok",
            (true, false) => "FAIL",
        }
    }

    /// Leads to a command that helps.
    pub const fn arrow(self) -> &'static str {
        if self.ascii { "->" } else { "→" }
    }
}

fn paint(color: bool, tone: Tone, text: &str) -> String {
    if color { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.parameter()) } else { text.to_owned() }
}

/// Whether the locale's characters are UTF-8; no locale at all is taken for a modern one.
fn speaks_unicode() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env::var(name).ok().filter(|v| !v.is_empty()));
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8") || locale == "c" || locale == "posix"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_has_words_instead_of_marks() {
        let ascii = Terminal { ascii: true, ..Terminal::plain() };
        assert_eq!((ascii.mark(true), ascii.mark(false), ascii.arrow()), ("ok", "FAIL", "->"));
        assert_eq!(Terminal::plain().mark(false), "✖");
    }

    #[test]
    fn without_colour_a_text_stays_as_it_is() {
        assert_eq!(Terminal::plain().paint(Tone::Bad, "denied"), "denied");
        let colour = Terminal { color_out: true, ..Terminal::plain() };
        assert_eq!(colour.paint(Tone::Bad, "denied"), "\u{1b}[31mdenied\u{1b}[0m");
        assert_eq!(colour.paint_err(Tone::Bad, "denied"), "denied");
    }
}
