//! The log of denied and new connections, in the words that Cloud Foundry's operators search for, and its JSON twin.
//!
//! A line begins with `DENY_C2C_` or `OK_C2C_` where both ends are containers, else with `DENY_` or `OK_`; then both
//! identities and the rule, then what the kernel's own log lines have. Denials are written once a second for each pair of
//! identities, with how many were left out; allowed connections are written each once.

use isthmus_api::local::Flow;
use isthmus_core::Identity;
use isthmus_dataplane::model::Event;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    time::{Duration, Instant},
};

/// A pair's denials are written this often.
const DENIAL_INTERVAL: Duration = Duration::from_secs(1);
/// Pairs whose denials are counted; of more, denials are left out.
const PAIRS_MAX: usize = 4_096;
/// How often it is looked whether the file was moved away (log rotation).
const ROTATION_INTERVAL: Duration = Duration::from_secs(5);

/// The log's two files.
#[derive(Debug)]
pub(super) struct FlowLog {
    text: LogFile,
    json: LogFile,
    denials: BTreeMap<(Identity, Identity), (Instant, u64)>,
}

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the flow log {path} cannot be written: {source}")]
pub(super) struct FlowLogError {
    path: PathBuf,
    source: io::Error,
}

impl FlowLog {
    /// A log at `path` and `path.json`.
    pub(super) fn new(path: PathBuf) -> Self {
        let mut json = path.clone().into_os_string();
        json.push(".json");
        Self { text: LogFile::new(path), json: LogFile::new(json.into()), denials: BTreeMap::new() }
    }

    /// Writes a flow, unless its pair was written just now.
    pub(super) fn write(&mut self, flow: &Flow, event: &Event) -> Result<(), FlowLogError> {
        let left_out = if event.allowed { Some(0) } else { self.denial(event, Instant::now()) };
        let Some(left_out) = left_out else { return Ok(()) };
        self.text.append(&line(flow, event, left_out))?;
        let json = serde_json::to_string(flow).unwrap_or_default();
        self.json.append(&format!("{json}\n"))
    }

    /// Whether a denial is written: how many of its pair were left out since the last.
    fn denial(&mut self, event: &Event, now: Instant) -> Option<u64> {
        let pair = (event.from, event.to);
        if let Some((written, left_out)) = self.denials.get_mut(&pair) {
            if now.duration_since(*written) < DENIAL_INTERVAL {
                *left_out += 1;
                return None;
            }
            *written = now;
            return Some(std::mem::take(left_out));
        }
        if self.denials.len() >= PAIRS_MAX {
            self.denials.retain(|_, (written, _)| now.duration_since(*written) < DENIAL_INTERVAL);
        }
        if self.denials.len() >= PAIRS_MAX {
            return None;
        }
        self.denials.insert(pair, (now, 0));
        Some(0)
    }
}

/// One line, in the shape of the kernel's.
fn line(flow: &Flow, event: &Event, left_out: u64) -> String {
    let verdict = if event.allowed { "OK_" } else { "DENY_" };
    let kind = if event.from.is_workload() && event.to.is_workload() { "C2C_" } else { "" };
    let protocol = match event.protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        other => other.to_string(),
    };
    let ports = match event.protocol {
        6 | 17 => format!(" SPT={} DPT={}", event.source_port, event.destination_port),
        1 => format!(" TYPE={}", event.destination_port),
        _ => String::new(),
    };
    format!(
        "{verdict}{kind} s={} d={} r={} SRC={} DST={} PROTO={protocol}{ports} REASON={} FROM={:?} TO={:?} NODE={} \
         TIME={} LEFT_OUT={left_out}\n",
        event.from,
        event.to,
        event.rule,
        event.source,
        event.destination,
        event.reason,
        flow.from,
        flow.to,
        flow.node,
        flow.time_unix_ms,
    )
}

/// A file that is opened again when somebody moved it away.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    open: Option<(File, Instant)>,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn append(&mut self, line: &str) -> Result<(), FlowLogError> {
        let written = self.file().and_then(|mut file| file.write_all(line.as_bytes()));
        if written.is_err() {
            self.open = None;
        }
        written.map_err(|source| FlowLogError { path: self.path.clone(), source })
    }

    fn file(&mut self) -> io::Result<&File> {
        if let Some((file, checked)) = &mut self.open
            && checked.elapsed() >= ROTATION_INTERVAL
        {
            *checked = Instant::now();
            let same = std::fs::metadata(&self.path)
                .is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino()));
            if !same {
                self.open = None;
            }
        }
        if self.open.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            self.open = Some((file, Instant::now()));
        }
        self.open.as_ref().map(|(file, _)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(allowed: bool, to: Identity) -> (Flow, Event) {
        let event = Event {
            time_ns: 0,
            source: "10.64.0.1".parse().unwrap(),
            destination: "10.64.0.2".parse().unwrap(),
            from: Identity::new(0x11f).unwrap(),
            to,
            protocol: 6,
            source_port: 40_000,
            destination_port: 8080,
            allowed,
            reason: if allowed { "rule" } else { "no-rule" },
            rule: u32::from(allowed) * 7,
        };
        let flow = Flow {
            time_unix_ms: 5,
            node: "n1".to_owned(),
            verdict: String::new(),
            reason: event.reason.to_owned(),
            from_identity: event.from.to_string(),
            from: "k8s:shop/web@red".to_owned(),
            to_identity: event.to.to_string(),
            to: "cf:acme/prod/cart@green".to_owned(),
            source: event.source,
            destination: event.destination,
            protocol: 6,
            source_port: 40_000,
            destination_port: 8080,
            rule: event.rule,
        };
        (flow, event)
    }

    #[test]
    fn lines_begin_with_cloud_foundrys_words() {
        let (flow, denied) = event(false, Identity::new(0x120).unwrap());
        assert_eq!(
            line(&flow, &denied, 3),
            "DENY_C2C_ s=00011f d=000120 r=0 SRC=10.64.0.1 DST=10.64.0.2 PROTO=TCP SPT=40000 DPT=8080 REASON=no-rule \
             FROM=\"k8s:shop/web@red\" TO=\"cf:acme/prod/cart@green\" NODE=n1 TIME=5 LEFT_OUT=3\n"
        );
        let (flow, allowed) = event(true, Identity::new(0x120).unwrap());
        assert!(line(&flow, &allowed, 0).starts_with("OK_C2C_ s=00011f d=000120 r=7 "));
        let (flow, outside) = event(false, Identity::WORLD);
        assert!(line(&flow, &outside, 0).starts_with("DENY_ s=00011f d=000004 "));
    }

    #[test]
    fn denials_of_a_pair_are_written_once_a_second() {
        let mut log = FlowLog::new("/nonexistent/flows".into());
        let (_, denied) = event(false, Identity::new(0x120).unwrap());
        let (_, other) = event(false, Identity::new(0x121).unwrap());
        let start = Instant::now();
        assert_eq!(log.denial(&denied, start), Some(0));
        assert_eq!(log.denial(&denied, start), None);
        assert_eq!(log.denial(&denied, start), None);
        assert_eq!(log.denial(&other, start), Some(0));
        assert_eq!(log.denial(&denied, start + DENIAL_INTERVAL), Some(2));
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named() {
        let mut log = FlowLog::new("/nonexistent/flows".into());
        let (flow, allowed) = event(true, Identity::new(0x120).unwrap());
        assert!(log.write(&flow, &allowed).unwrap_err().to_string().contains("/nonexistent/flows"));
    }

    #[test]
    fn both_files_are_written_and_a_moved_one_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.log");
        let mut log = FlowLog::new(path.clone());
        let (flow, allowed) = event(true, Identity::new(0x120).unwrap());
        log.write(&flow, &allowed).unwrap();
        std::fs::rename(&path, directory.path().join("flows.1")).unwrap();
        let (file, checked) = log.text.open.take().unwrap();
        log.text.open = Some((file, checked.checked_sub(ROTATION_INTERVAL).unwrap()));
        log.write(&flow, &allowed).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        let twin = std::fs::read_to_string(directory.path().join("flows.log.json")).unwrap();
        assert_eq!(serde_json::from_str::<Flow>(twin.lines().next().unwrap()).unwrap(), flow);
    }
}
