//! The reflector: `isthmus bgp run` with a file that gobgpd would take too.

use super::{
    RUN,
    plan::{AS, CLUSTER_ID, Node, REFLECTOR, reflector},
    record::Record,
};
use crate::{command::Call, process::Process, wait};
use anyhow::Context as _;
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Its name in the record.
pub(super) const NAME: &str = "reflector";
/// Longest time until it answers its API.
const READY: Duration = Duration::from_secs(20);

/// Where its configuration is.
pub(super) fn file() -> PathBuf {
    Path::new(RUN).join("reflector.toml")
}

/// Starts it. `restarted`: its clients kept its routes meanwhile.
pub(super) fn start(record: &mut Record, restarted: bool) -> anyhow::Result<Process> {
    let text = config(&record.nodes);
    fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))?;
    let mut call =
        reflector().call(&record.binary).args(["bgp", "run", "--log-format", "text", "-c"]).arg(file());
    if restarted {
        call = call.arg("--restarted");
    }
    let process = record.start(NAME, &call)?;
    process.wait_ready(READY, || gobgp("global").run().is_ok())?;
    Ok(process)
}

/// The stock client, asking the reflector.
pub(super) fn gobgp(line: &str) -> Call {
    reflector().call("gobgp").words(line)
}

/// Waits until all nodes are up there.
pub(super) fn wait_for_clients(count: usize, limit: Duration) -> anyhow::Result<()> {
    let what = format!("{count} sessions at the reflector");
    let up = || gobgp("neighbor").run().is_ok_and(|text| text.matches("Establ").count() == count);
    Ok(wait::until_true(&what, limit, up)?)
}

fn config(nodes: &[Node]) -> String {
    let mut text = format!(
        r#"[global.config]
as = {AS}
router-id = "{REFLECTOR}"
[global.graceful-restart.config]
enabled = true
deferral-time = 15

[[peer-groups]]
[peer-groups.config]
peer-group-name = "nodes"
peer-as = {AS}
[peer-groups.timers.config]
connect-retry = 1
hold-time = 30
[peer-groups.route-reflector.config]
route-reflector-client = true
route-reflector-cluster-id = "{CLUSTER_ID}"
[peer-groups.graceful-restart.config]
enabled = true
restart-time = 120
"#
    );
    for node in nodes {
        let _infallible = write!(
            text,
            "\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-group = \"nodes\"\npeer-as = {AS}\n\
             description = \"{}\"\n",
            node.address(),
            node.name
        );
    }
    text
}
