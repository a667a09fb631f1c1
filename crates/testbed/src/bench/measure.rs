//! One measurement, repeated when other processes used the machine meanwhile.

use super::{
    say,
    subject::{Ends, Plugin},
};
use crate::{
    command::Call,
    cpu::Cpu,
    load::{Found, PluginFound},
};
use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    thread,
};

/// Core of the sender, and of both ends of a request and its response.
const FIRST_CORE: usize = 0;
/// Port that the load's server listens on.
const PORT: u16 = 5001;
/// CPU time of others, as part of one core, above which a measurement is disturbed.
const DISTURBANCE_MAX: f64 = 0.10;
/// How often a disturbed measurement is repeated.
const REPEATS_MAX: usize = 2;

/// Where a path lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    SameNode,
    CrossNode,
    Node,
}

impl Place {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::SameNode => "same-node",
            Self::CrossNode => "cross-node",
            Self::Node => "node",
        }
    }

    /// The subject that ratios refer to.
    pub(super) fn base(self) -> &'static str {
        match self {
            Self::SameNode | Self::CrossNode => "limit",
            Self::Node => "bridge-host-local",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measure {
    RequestResponse,
    ConnectRequest,
    OneStream,
    FourStreams,
    SmallPackets,
    AddLatency,
    AddRate,
    DeleteLatency,
}

impl Measure {
    /// What is measured with packets.
    pub(super) const WIRE: [Self; 5] =
        [Self::RequestResponse, Self::ConnectRequest, Self::OneStream, Self::FourStreams, Self::SmallPackets];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::RequestResponse => "rr",
            Self::ConnectRequest => "crr",
            Self::OneStream => "tcp1",
            Self::FourStreams => "tcp4",
            Self::SmallPackets => "udp",
            Self::AddLatency => "cni-add-p50",
            Self::AddRate => "cni-add-rate",
            Self::DeleteLatency => "cni-del-p50",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::RequestResponse | Self::ConnectRequest => "us",
            Self::OneStream | Self::FourStreams => "bit/s",
            Self::SmallPackets => "packet/s",
            Self::AddLatency | Self::DeleteLatency => "ms",
            Self::AddRate => "1/s",
        }
    }

    /// Whether less is better.
    pub(super) fn is_latency(self) -> bool {
        matches!(self, Self::RequestResponse | Self::ConnectRequest | Self::AddLatency | Self::DeleteLatency)
    }

    fn arguments(self) -> (&'static str, u32) {
        match self {
            Self::ConnectRequest => ("crr", 1),
            Self::OneStream => ("tcp", 1),
            Self::FourStreams => ("tcp", 4),
            Self::SmallPackets => ("udp", 1),
            _ => ("rr", 1),
        }
    }

    fn value(self, server: &Found, client: &Found) -> f64 {
        match self {
            Self::OneStream | Self::FourStreams => server.rate * 8.0,
            Self::SmallPackets => server.rate,
            _ => client.p50_us,
        }
    }
}

/// Measures between two ends.
///
/// Returns the value, and whether others used the machine even at the last try.
pub(super) fn on_wire(
    subject: &str,
    ends: &Ends,
    measure: Measure,
    time_ms: u64,
) -> anyhow::Result<(f64, bool)> {
    let mut seen = Vec::new();
    loop {
        let before = Cpu::now();
        let (server, client) = exchange(ends, measure, time_ms)
            .with_context(|| format!("{subject}: {} failed", measure.word()))?;
        let others = before.others(&Cpu::now(), server.cpu_ms + client.cpu_ms);
        let is_disturbed = others > DISTURBANCE_MAX;
        if is_disturbed {
            seen.push(format!("{:.0} %", others * 100.0));
        }
        if is_disturbed && seen.len() <= REPEATS_MAX {
            continue;
        }
        if !seen.is_empty() {
            let end = if is_disturbed { "to no avail" } else { "then undisturbed" };
            let (measure, seen) = (measure.word(), seen.join(", "));
            say(&format!("  {subject} {measure}: repeated because others used {seen} of a core, {end}"));
        }
        return Ok((measure.value(&server, &client), is_disturbed));
    }
}

fn exchange(ends: &Ends, measure: Measure, time_ms: u64) -> anyhow::Result<(Found, Found)> {
    let (kind, streams) = measure.arguments();
    let address = format!("{}:{PORT}", ends.address);
    let own = std::env::current_exe().context("cannot find the running program's path")?;
    let side = |namespace: &std::path::Path, side: &str, core: usize| {
        Call::new(&own).in_namespace(namespace).args([
            "demo-app",
            "load",
            side,
            "--kind",
            kind,
            "--address",
            &address,
            "--core",
            &core.to_string(),
            "--streams",
            &streams.to_string(),
            "--time-ms",
            &time_ms.to_string(),
        ])
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let one_core = matches!(measure, Measure::RequestResponse | Measure::ConnectRequest);
    let other_core = if one_core { FIRST_CORE } else { (FIRST_CORE + 1) % cores };
    let server = Half::start(&side(&ends.server.path(), "serve", other_core), true)?;
    let client = Half::start(&side(&ends.client.path(), "drive", FIRST_CORE), false)?;
    let client = client.finish();
    // A server whose client failed waits for nothing; dropping it ends it.
    let client = client?;
    Ok((server.finish()?, client))
}

/// One of the two processes; it ends with this at the latest.
struct Half {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    line: String,
}

impl Half {
    fn start(call: &Call, waits: bool) -> anyhow::Result<Self> {
        let line = call.line();
        let mut child =
            call.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().with_context(|| format!("`{line}` has no output"))?;
        let mut half = Self { child, output: BufReader::new(output), line };
        if waits {
            let mut first = String::new();
            half.output.read_line(&mut first)?;
            if first.trim() != "ready" {
                return Err(half.failure(&first));
            }
        }
        Ok(half)
    }

    fn finish<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        self.child.wait()?;
        serde_json::from_str(&text).map_err(|_not_json| self.failure(&text))
    }

    fn failure(&mut self, text: &str) -> anyhow::Error {
        let _ended = self.child.kill();
        let mut errors = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            // What can be read is all there is.
            let _partial = pipe.read_to_string(&mut errors);
        }
        anyhow::anyhow!("`{}` failed: {} {}", self.line, text.trim(), errors.trim())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Containers of one run of a plugin.
const CONTAINERS: usize = 64;
/// Callers at once for the rate.
const CALLERS: usize = 16;

/// Measures a CNI plugin: one caller for the latencies, many for the rate.
pub(super) fn plugin(subject: &str, plugin: &Plugin) -> anyhow::Result<Vec<(Measure, f64)>> {
    let run = |callers| plugin.call(super::subject::CHURN, CONTAINERS, callers, "both");
    let one: PluginFound = run(1).with_context(|| format!("{subject}: calls of the plugin failed"))?;
    let many: PluginFound =
        run(CALLERS).with_context(|| format!("{subject}: parallel calls of the plugin failed"))?;
    if one.add_p50_ms <= 0.0 {
        bail!("{subject}: calls of the plugin took no time, which cannot be");
    }
    Ok(vec![
        (Measure::AddLatency, one.add_p50_ms),
        (Measure::AddRate, many.add_rate),
        (Measure::DeleteLatency, one.del_p50_ms),
    ])
}

/// Containers that plugins are called for.
pub(super) fn churned() -> std::ops::Range<usize> {
    0..CONTAINERS
}
