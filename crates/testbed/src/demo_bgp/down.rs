//! `isthmus demo bgp down`.

use super::{PREFIX, RUN, record::Record, server};
use crate::{
    namespace,
    progress::{Progress, say},
    state,
};
use anyhow::bail;
use std::{path::Path, time::Duration};

/// Longest time that the end waits for the system to forget the demo's processes.
const COLLECTED: Duration = Duration::from_secs(10);

/// Removes the demo; finding none is fine.
pub(super) fn down() -> anyhow::Result<u8> {
    let existed = Path::new(RUN).exists();
    let _lock = super::lock()?;
    let record = Record::load().unwrap_or_else(|error| {
        Progress::warn(&format!("{error}; removing what the demo's names show"));
        None
    });
    let any = existed || !namespace::with_prefix(PREFIX).is_empty();
    let progress = Progress::new();
    remove(record.as_ref())?;
    if any {
        progress.end("the demo is gone");
    } else {
        say("there is no demo");
    }
    Ok(0)
}

/// Removes what `record` names, and what has the demo's names.
pub(super) fn remove(record: Option<&Record>) -> anyhow::Result<()> {
    let mut made = record.map(|record| record.made.clone()).unwrap_or_default();
    for namespace in namespace::with_prefix(PREFIX) {
        if !made.namespaces.contains(&namespace) {
            made.namespaces.push(namespace);
        }
    }
    if !made.directories.iter().any(|path| path == Path::new(RUN)) {
        made.directories.push(RUN.into());
    }
    if !made.mounts.contains(&server::bpffs()) {
        made.mounts.push(server::bpffs());
    }
    let members = made.members();
    let left = made.remove();
    state::wait_until_collected(&members, COLLECTED);
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<_> = left.iter().map(|left| format!("\n  {left}")).collect();
    bail!("could not remove everything; run it again after looking at:{}", left.concat())
}
