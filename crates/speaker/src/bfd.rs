//! The sockets and the clock of BFD (RFC 5881), in a thread of their own: however long routes take, packets go out in time.
//!
//! ```text
//!  tasks of neighbours ── want a session, as long as they hold its Watched ──▶ table ─▶ thread: engines, timers
//!          ▲                                                                            │  ▲
//!          └───────────── status: state, how often the path broke ◀─────────────────────┘  └── UDP 3784
//! ```
//!
//! Packets come to shared sockets, which drop what came through a router: the TTL must be 255. Each session sends from a
//! port of its own.

#[cfg(test)]
mod tests;
mod worker;

use crate::{config::PeerSettings, peer::PeerKey};
use isthmus_bgp::bfd::{Reason, Remote, State, Timing};
use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use worker::Worker;

/// Where packets are received (RFC 5881 section 4).
pub(crate) const PORT: u16 = 3_784;

/// What is set for the BFD session with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdSettings {
    /// How often packets go, and how many may be missing.
    pub timing: Timing,
    /// Where the neighbour receives; we receive on 3784.
    pub port: u16,
}

impl Default for BfdSettings {
    /// As GoBGP's: a packet each second, and three may be missing.
    fn default() -> Self {
        let interval = Duration::from_secs(1);
        Self {
            timing: Timing { desired_min_tx: interval, required_min_rx: interval, multiplier: 3 },
            port: PORT,
        }
    }
}

/// How a BFD session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdStatus {
    /// Its state.
    pub state: State,
    /// What the neighbour said last; `None`: it is not heard.
    pub remote: Option<Remote>,
    /// How long silence lasts until the path is taken for broken.
    pub detection_time: Option<Duration>,
    /// Packets to the neighbour.
    pub sent: u64,
    /// Packets from it.
    pub received: u64,
    /// How often the path broke while it was up; stops by an administrator do not count.
    pub failures: u64,
    /// Why it was last no longer up.
    pub last_down: Option<Reason>,
    /// Its BFD went on while its control plane restarts, when it was heard last (RFC 5882 section 4.3).
    pub is_peer_independent: bool,
    /// What keeps us from sending or receiving.
    pub fault: Option<Arc<str>>,
}

impl BfdStatus {
    fn new() -> Self {
        Self {
            state: State::Down,
            remote: None,
            detection_time: None,
            sent: 0,
            received: 0,
            failures: 0,
            last_down: None,
            is_peer_independent: false,
            fault: None,
        }
    }
}

impl fmt::Display for BfdStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        match (self.state, self.detection_time) {
            (State::Up, Some(time)) => write!(f, ", silence of {time:?} is a broken path")?,
            (State::Up, None) => {}
            (_, None) if self.last_down.is_none() => f.write_str(", nothing ever came")?,
            _ => {}
        }
        if let Some(reason) = self.last_down {
            let kind = if self.state == State::Up { "was down" } else { "went down" };
            write!(f, ", {kind}: {reason}")?;
        }
        self.fault.iter().try_for_each(|fault| write!(f, ", {fault}"))
    }
}

/// Starts BFD sessions. The thread comes with the first, and ends with this.
#[derive(Debug)]
pub(crate) struct Bfd {
    /// Where packets are received.
    addresses: Vec<IpAddr>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and everybody else know.
#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// The table is another.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// At most one for each neighbour.
    wanted: BTreeMap<PeerKey, Wanted>,
    is_over: bool,
}

#[derive(Clone, Debug)]
struct Wanted {
    address: IpAddr,
    settings: BfdSettings,
    local_address: Option<IpAddr>,
    interface: Option<String>,
    status: watch::Sender<BfdStatus>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nobody panics with the table in an odd state: each change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bfd {
    /// BFD that receives on these addresses.
    pub(crate) fn new(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, shared: Arc::default(), thread: None }
    }

    /// Starts the session with a neighbour, where one is configured. It lasts as long as what is returned.
    pub(crate) fn watch(
        &mut self,
        key: PeerKey,
        address: IpAddr,
        settings: &PeerSettings,
    ) -> Option<Watched> {
        let bfd = settings.bfd?;
        let (publish, status) = watch::channel(BfdStatus::new());
        let wanted = Wanted {
            address,
            settings: bfd,
            local_address: settings.transport.local_address,
            interface: settings.transport.bind_interface.clone(),
            status: publish,
        };
        if self.thread.is_none() {
            let worker = Worker::new(self.addresses.clone(), self.shared.clone());
            let thread = thread::Builder::new().name("bfd".to_owned()).spawn(move || worker.run());
            match thread {
                Ok(thread) => self.thread = Some(thread),
                Err(why) => {
                    tracing::error!(%why, "there is no thread for BFD: broken paths are found by hold timers alone");
                    let fault = Arc::from(format!("there is no thread for it: {why}"));
                    wanted.status.send_modify(|status| status.fault = Some(fault));
                }
            }
        }
        self.shared.table().wanted.insert(key, wanted);
        self.shared.changed.notify_one();
        Some(Watched { key, shared: self.shared.clone(), status })
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.shared.table().is_over = true;
        self.shared.changed.notify_one();
        // It says goodbye to who is left, which takes no time.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A BFD session that somebody wants.
#[derive(Debug)]
pub(crate) struct Watched {
    key: PeerKey,
    shared: Arc<Shared>,
    /// How it is. Counters alone wake nobody.
    pub(crate) status: watch::Receiver<BfdStatus>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.table().wanted.remove(&self.key);
        self.shared.changed.notify_one();
    }
}
