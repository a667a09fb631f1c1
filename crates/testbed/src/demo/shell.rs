//! `isthmus demo shell APP`.

use super::record::Record;
use anyhow::Context as _;
use std::io::IsTerminal as _;

/// Runs a shell or `command` in an app's container and returns its exit code.
pub(super) fn shell(app: &str, command: &[String]) -> anyhow::Result<u8> {
    let record = Record::of_running()?;
    let container = record.container(app)?;
    let node = record.node(&container.instance.node).context("the container's node is not in the record")?;
    let words: Vec<_> =
        if command.is_empty() { vec!["sh"] } else { command.iter().map(String::as_str).collect() };
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let name = format!("shell-{}", std::process::id());
    let call = container.exec(node, &name, terminal, &words);
    let status = call.command().status().with_context(|| format!("cannot run `{}`", call.line()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
}
