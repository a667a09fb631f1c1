//! MRT dumps that the speaker makes by itself (`[[mrt-dump]]`): what neighbours send as it comes, and all routes now and then.
//!
//! ```text
//!  neighbours' tasks ──► Tap ──► a bounded queue for each dump ──► updates: one file, then the next
//!  owner of the routes ◀── page by page ── table: NAME.part, fsync, then NAME
//! ```
//!
//! **Invariants.** Nobody waits for a dump: a neighbour's task drops what a full queue does not take, and the dump begins a
//! new file. A disk that is full, or a directory that cannot be written, ends no dump: it is told, and tried again. A file of a
//! table is whole or not there.
//!
//! [`open`] and the codec ([`isthmus_bgp::mrt`], here as [`mod@format`]) are for who reads such files.

mod clock;
mod file;
mod input;
mod table;
mod tap;
#[cfg(test)]
mod tests;
mod updates;

pub use clock::Date;
pub use input::{Input, OpenError, open};
pub use isthmus_bgp::mrt as format;
pub use table::{DumpError, TableWalk};
pub(crate) use tap::Tap;

use crate::{
    Handle,
    config::{MrtDump, MrtKind},
};
use clock::{format_date, unix_seconds};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a dump may take to finish its file when it shall end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the same problem is logged.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(1);

/// How a dump is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpStatus {
    /// What it was told.
    pub dump: MrtDump,
    /// The file that is written, or was written last.
    pub file: Option<PathBuf>,
    /// When something was written last.
    pub written_at: Option<SystemTime>,
    /// Records in files since it began.
    pub records: u64,
    /// Bytes in files since it began.
    pub bytes: u64,
    /// Messages that are in no file, because it could not be written, or not fast enough.
    pub lost: u64,
    /// What is wrong at present.
    pub problem: Option<String>,
}

/// All dumps of a speaker.
#[derive(Debug)]
pub(crate) struct Dumps {
    speaker: Handle,
    tap: Tap,
    running: Running,
}

/// Dumps that run, by the names of their files.
#[derive(Debug, Default)]
pub(crate) struct Running(BTreeMap<String, Task>);

#[derive(Debug)]
struct Task {
    dump: MrtDump,
    stop: CancellationToken,
    ended: JoinHandle<()>,
    status: watch::Receiver<DumpStatus>,
}

impl Dumps {
    pub(crate) fn new(speaker: Handle) -> Self {
        Self { speaker, tap: Tap::default(), running: Running::default() }
    }

    /// Where neighbours' tasks put what comes.
    pub(crate) fn tap(&self) -> Tap {
        self.tap.clone()
    }

    /// Starts and ends dumps, until there are those that are wanted. Those that are so already do not notice.
    pub(crate) fn adopt(&mut self, wanted: &BTreeMap<String, MrtDump>) {
        let running = std::mem::take(&mut self.running.0);
        let mut ending: BTreeMap<String, Task> = BTreeMap::new();
        for (name, task) in running {
            let is_same = wanted.get(&name) == Some(&task.dump);
            let place = if is_same { &mut self.running.0 } else { &mut ending };
            place.insert(name, task);
        }
        for task in ending.values() {
            task.stop.cancel();
        }
        for (name, dump) in wanted {
            if !self.running.0.contains_key(name) {
                let before = ending.remove(name).map(|task| task.ended);
                self.running.0.insert(name.clone(), self.start(dump.clone(), before));
            }
        }
    }

    /// `before` has the same file, and finishes it first.
    fn start(&self, dump: MrtDump, before: Option<JoinHandle<()>>) -> Task {
        tracing::info!(file = %dump.file_name, kind = dump.kind.word(), "MRT dump begins");
        let stop = CancellationToken::new();
        let (sender, status) = watch::channel(DumpStatus::of(dump.clone()));
        let reporter = Reporter::new(sender);
        let stopped = stop.clone();
        let work: futures::future::BoxFuture<'static, ()> = match dump.kind {
            MrtKind::Updates => Box::pin(updates::run(dump.clone(), self.tap.open(), reporter, stopped)),
            MrtKind::Table => Box::pin(table::run(dump.clone(), self.speaker.clone(), reporter, stopped)),
        };
        let ended = tokio::spawn(async move {
            if let Some(before) = before {
                // However it ended, the file is free.
                let _ = before.await;
            }
            work.await;
        });
        Task { dump, stop, ended, status }
    }

    pub(crate) fn statuses(&self) -> Vec<DumpStatus> {
        self.running.0.values().map(|task| task.status.borrow().clone()).collect()
    }

    /// Takes the dumps out, so that they can be ended when everything else has.
    pub(crate) fn take_running(&mut self) -> Running {
        std::mem::take(&mut self.running)
    }
}

impl Running {
    /// Ends all of them, and waits until their files are finished.
    pub(crate) async fn stop(self) {
        for task in self.0.values() {
            task.stop.cancel();
        }
        for (name, task) in self.0 {
            let abort = task.ended.abort_handle();
            if timeout(STOP_TIMEOUT, task.ended).await.is_err() {
                tracing::warn!(file = %name, "MRT dump did not end in time: its file may lack its end");
                abort.abort();
            }
        }
    }
}

impl DumpStatus {
    fn of(dump: MrtDump) -> Self {
        Self { dump, file: None, written_at: None, records: 0, bytes: 0, lost: 0, problem: None }
    }
}

/// Tells how a dump is: in its status, and in the log, where the same problem is told now and then only.
struct Reporter {
    status: watch::Sender<DumpStatus>,
    told_at: Option<Instant>,
}

impl Reporter {
    fn new(status: watch::Sender<DumpStatus>) -> Self {
        Self { status, told_at: None }
    }

    /// Something was written; all is well.
    fn wrote(&mut self, file: &std::path::Path, records: u64, bytes: u64) {
        self.status.send_modify(|status| {
            status.file = Some(file.to_owned());
            if records > 0 {
                status.written_at = Some(SystemTime::now());
            }
            status.records += records;
            status.bytes += bytes;
            if status.problem.take().is_some() {
                let lost = status.lost;
                tracing::info!(file = %file.display(), lost, "MRT dump can be written again");
            }
        });
        self.told_at = None;
    }

    fn lost(&self, messages: u64) {
        self.status.send_modify(|status| status.lost += messages);
    }

    fn problem(&mut self, why: String) {
        let is_new = self.status.borrow().problem.as_ref() != Some(&why);
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE);
        if is_new || is_due {
            self.told_at = Some(Instant::now());
            tracing::warn!(file = %self.status.borrow().dump.file_name, %why, "MRT dump cannot be written: it is tried again");
        }
        self.status.send_modify(|status| status.problem = Some(why));
    }
}

/// The file that a dump writes at this time.
fn file_at(dump: &MrtDump, now: SystemTime) -> PathBuf {
    match dump.rotation {
        Some(_) => format_date(&dump.file_name, &Date::of(unix_seconds(now))).into(),
        // As in GoBGP a name without rotation is no layout: `table-1.mrt` stays what it is.
        None => dump.file_name.clone().into(),
    }
}

/// How long until the next whole interval begins, and when that is, in seconds since 1970.
fn until_tick(interval: Duration) -> (Duration, u64) {
    let now = SystemTime::now();
    let tick = clock::next_tick(unix_seconds(now), interval.as_secs());
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(tick);
    (at.duration_since(now).unwrap_or_default(), tick)
}
