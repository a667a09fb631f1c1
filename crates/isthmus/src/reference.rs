//! `docs/reference/cli.md`, made from the definitions that also parse the command line.

use clap::{Arg, Command};
use std::fmt::Write;

/// The page for `command` and everything below it.
pub fn markdown(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let mut page = String::from(
        "# Command line\n\n<!-- Made by `isthmus reference`; a test compares. Write into crates/isthmus/src, not here. -->\n\n",
    );
    section(&mut page, &command, "isthmus");
    page
}

fn section(page: &mut String, command: &Command, path: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "## `{path}`\n");
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = writeln!(page, "{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let _ = writeln!(page, "```text\n{usage}\n```\n");
    let shown: Vec<_> = command.get_arguments().filter(|arg| is_own(arg, path)).collect();
    if !shown.is_empty() {
        let _ = writeln!(page, "| argument | meaning |\n| --- | --- |");
        for arg in shown {
            let _ = writeln!(page, "| `{}` | {} |", words(arg), meaning(arg));
        }
        page.push('\n');
    }
    if let Some(examples) = command.get_after_help() {
        let _ = writeln!(page, "```text\n{}\n```\n", examples.to_string().trim());
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        section(page, below, &format!("{path} {}", below.get_name()));
    }
}

/// Help and the options of every command are told once, at the top.
fn is_own(arg: &Arg, path: &str) -> bool {
    let id = arg.get_id().as_str();
    !arg.is_hide_set() && id != "help" && (path == "isthmus" || !arg.is_global_set())
}

fn words(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string);
    let value =
        if arg.get_action().takes_values() { names.collect::<Vec<_>>().join(" ") } else { String::new() };
    let mut words: Vec<_> = arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
    words.extend(arg.get_long().map(|long| format!("--{long}")));
    if words.is_empty() { value } else { format!("{} {value}", words.join(", ")).trim_end().to_owned() }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = help.replace('\n', " ").replace('|', "\\|");
    let values: Vec<_> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() && arg.get_action().takes_values() {
        let _ = write!(text, " One of {}.", values.join(", "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        let _ = write!(text, " Default `{}`.", defaults.join(","));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, " Also `{}`.", variable.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::{fs, path::Path};

    /// `ISTHMUS_BLESS=1 cargo test -p isthmus` writes the page anew.
    #[test]
    fn the_page_in_docs_is_the_one_that_the_definitions_make() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
        let page = markdown(&crate::args::Cli::command());
        if std::env::var_os("ISTHMUS_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &page).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/reference/cli.md is stale: run ISTHMUS_BLESS=1 cargo test -p isthmus reference"
        );
    }
}
