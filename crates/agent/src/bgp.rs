//! The node's BGP speaker: as the server says, in the agent's process, with an API on a socket for root.
//!
//! ```text
//!  view ─▶ wanted (config) ─▶ speaker: start, reload, stop ─▶ neighbours, kernel routes (protocol 99)
//!                                │
//!                                └─▶ problems, metrics
//! ```
//!
//! An agent that stops leaves its neighbours without a word, so that they keep its routes (graceful restart), and its
//! kernel routes as they are; the next one says that it is back. A node that shall have no speaker any longer says goodbye
//! and removes its routes.

mod config;

use crate::{agent::Agent, locks::lock};
use config::{Local, Wanted};
use ipnet::IpNet;
use isthmus_speaker::{
    Config, Handle, KernelRoutes, KernelStatus, Options, Prefix,
    change::Change,
    handle::Withdrawal,
    view::{PeerView, SessionState, StationView},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Name of the speaker's socket in the run directory.
pub(crate) const SOCKET: &str = "bgp.sock";
/// How often sessions are looked at, and single containers announced where that is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a session may be down before that is a problem: what restarts is back by then.
const DOWN_MAX: Duration = Duration::from_secs(30);
/// Pause after the speaker could not start.
const START_PAUSE: Duration = Duration::from_secs(5);
/// How long neighbours may take to go when there shall be no speaker any longer; then it ends with those that are left.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// How often is looked whether they are gone.
const GOODBYE_LOOK: Duration = Duration::from_millis(10);
/// Where problems are told.
const PLACE: &str = "bgp";

/// What others see of the speaker.
#[derive(Debug, Default)]
pub(crate) struct Bgp {
    /// The view changed.
    pub(crate) changed: Notify,
    seen: Mutex<Seen>,
}

/// How the speaker was when it was looked at last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sessions: Vec<Session>,
    pub(crate) stations: Vec<StationView>,
    pub(crate) kernel: Option<KernelStatus>,
}

/// A neighbour's session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) peer: String,
    pub(crate) is_up: bool,
    pub(crate) received: u64,
    pub(crate) accepted: u64,
}

impl Bgp {
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

/// A speaker that runs.
struct Running {
    handle: Handle,
    wanted: Wanted,
    reloads: mpsc::Sender<Config>,
    stop: oneshot::Sender<()>,
    life: JoinHandle<()>,
    since: Instant,
}

/// Keeps the speaker as the server says, until `stop`.
pub(crate) async fn keep(agent: Arc<Agent>, mut stop: oneshot::Receiver<()>) {
    // The last agent had one: neighbours kept its routes.
    let restarted = agent.view().bgp().is_some();
    let mut keeper =
        Keeper { restarted, agent, running: None, start_at: Instant::now(), told: BTreeSet::new() };
    loop {
        keeper.follow().await;
        keeper.look().await;
        tokio::select! {
            () = keeper.agent.bgp.changed.notified() => {}
            () = sleep(LOOK_EVERY) => {}
            _ = &mut stop => break,
        }
    }
    if let Some(running) = keeper.running.take() {
        running.end().await;
    }
}

struct Keeper {
    agent: Arc<Agent>,
    running: Option<Running>,
    restarted: bool,
    /// After a failure, not before this.
    start_at: Instant,
    /// Places of problems that were told.
    told: BTreeSet<String>,
}

impl Keeper {
    /// Makes the speaker what it shall be now.
    async fn follow(&mut self) {
        let wanted = self.wanted();
        if self.running.as_ref().is_some_and(|running| running.life.is_finished()) {
            tracing::error!("the BGP speaker ended by itself; it is started again");
            self.running = None;
        }
        let Some(wanted) = wanted else {
            if let Some(running) = self.running.take() {
                tracing::info!("the node has no BGP speaker any longer");
                running.say_goodbye(GOODBYE_MAX).await;
            }
            self.restarted = false;
            for place in [PLACE, START_PLACE] {
                self.agent.problems.set(place, None);
            }
            return;
        };
        let problem =
            (!wanted.problems.is_empty()).then(|| format!("left out: {}", wanted.problems.join("; ")));
        self.agent.problems.set(PLACE, problem);
        match &mut self.running {
            Some(running) if running.wanted.config.global == wanted.config.global => {
                running.change(wanted).await;
            }
            _ => {
                if let Some(running) = self.running.take() {
                    tracing::info!("the BGP speaker is another one now: it is started anew");
                    running.end().await;
                }
                self.start(wanted).await;
            }
        }
    }

    /// What the server says, if it was ever heard.
    fn wanted(&self) -> Option<Wanted> {
        let agent = &self.agent;
        // Most nodes have none, and are asked each second.
        agent.view().bgp()?;
        let endpoints: Vec<IpAddr> =
            agent.attachments().values().map(|attachment| attachment.address).collect();
        let view = agent.view();
        let local = Local { node: &agent.config.node, address: agent.tunnel_address, endpoints: &endpoints };
        config::wanted(&view, local)
    }

    async fn start(&mut self, wanted: Wanted) {
        if Instant::now() < self.start_at || wanted.config.global.router_id.is_unspecified() {
            return;
        }
        let (reloads, to_reload) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let options = Options {
            restarted: self.restarted,
            kernel: Some(KernelRoutes::default()),
            routes: wanted.announced.clone().into_iter().collect(),
            leaves_quietly: true,
            socket: Some(self.agent.config.run_dir.join(SOCKET)),
            ..Options::default()
        };
        let stopped = async { drop(stopped.await) };
        match isthmus_speaker::start(wanted.config.clone(), options, to_reload, stopped).await {
            Ok((handle, life)) => {
                self.agent.problems.set(START_PLACE, None);
                self.restarted = true;
                let life = tokio::spawn(life);
                self.running = Some(Running { handle, wanted, reloads, stop, life, since: Instant::now() });
            }
            Err(error) => {
                self.start_at = Instant::now() + START_PAUSE;
                let text = format!("the BGP speaker cannot start: {}", crate::chain(&error));
                self.agent.problems.set(START_PLACE, Some(text));
            }
        }
    }

    /// Sees how sessions and kernel routes are, and tells what is wrong.
    async fn look(&mut self) {
        let mut problems = BTreeMap::new();
        let mut seen = Seen::default();
        if let Some(running) = &self.running {
            seen.kernel = running.handle.kernel();
            seen.stations = running.handle.stations().await.unwrap_or_default();
            let peers = running.handle.peers(None, false).await.unwrap_or_default();
            for peer in peers {
                let name = running.name_of(peer.address);
                if let Some(problem) = running.problem_of(&peer) {
                    problems.insert(
                        format!("{PLACE} {name}"),
                        format!("BGP neighbour {name} ({}): {problem}", peer.address),
                    );
                }
                seen.sessions.push(session(name, &peer));
            }
            for missing in seen.kernel.iter().flat_map(|kernel| &kernel.problems) {
                let text = format!(
                    "{} BGP route(s) are not in the kernel, for example {}: {}",
                    missing.routes, missing.example, missing.why
                );
                problems.insert(format!("{PLACE} routes: {}", missing.why), text);
            }
        }
        *lock(&self.agent.bgp.seen) = seen;
        for over in self.told.iter().filter(|place| !problems.contains_key(*place)) {
            self.agent.problems.set(over, None);
        }
        self.told = problems.keys().cloned().collect();
        for (place, text) in problems {
            self.agent.problems.set(&place, Some(text));
        }
    }
}

/// Where it is told that the speaker cannot start.
const START_PLACE: &str = "bgp start";

impl Running {
    /// Takes over another configuration, and announces and withdraws what differs.
    async fn change(&mut self, wanted: Wanted) {
        if wanted == self.wanted {
            return;
        }
        // New blocks are in the policy before they are announced, and old ones until they are withdrawn.
        let (before, after) = (&self.wanted.announced, &wanted.announced);
        let gone: Vec<Prefix> =
            before.keys().filter(|prefix| !after.contains_key(*prefix)).copied().collect();
        for prefix in gone {
            // Somebody may have taken it away through the API.
            drop(self.handle.withdraw(Withdrawal::Path(prefix.into())).await);
        }
        if wanted.config != self.wanted.config {
            // It ends only with the speaker, which is seen at the next look.
            drop(self.reloads.send(wanted.config.clone()).await);
        }
        for (prefix, attributes) in after.iter().filter(|(prefix, new)| before.get(*prefix) != Some(*new)) {
            drop(self.handle.announce(*prefix, attributes.clone()).await);
        }
        self.wanted = wanted;
    }

    fn name_of(&self, address: IpAddr) -> String {
        let names = self.wanted.names.iter().filter(|(network, _)| network.contains(&address));
        let narrowest = names.max_by_key(|(network, _): &(&IpNet, &String)| network.prefix_len());
        narrowest.map_or_else(|| address.to_string(), |(_, name)| name.clone())
    }

    /// Why a session is a problem; `None` while it is up, or has not been down for long.
    fn problem_of(&self, peer: &PeerView) -> Option<String> {
        if peer.status.state == SessionState::Established {
            return None;
        }
        let down = peer.status.down_at.and_then(|at| at.elapsed().ok());
        let down = down.unwrap_or(Duration::MAX).min(self.since.elapsed());
        (down >= DOWN_MAX).then(|| peer.status.why.clone())
    }

    /// Ends it so that neighbours keep our routes, and the kernel what it has.
    async fn end(self) {
        let _ = self.stop.send(());
        drop(self.life.await);
    }

    /// Ends it for good: neighbours are told, and kernel routes go. It ends after `longest` also where somebody is left, who
    /// then hears what is said when a speaker stops.
    async fn say_goodbye(self, longest: Duration) {
        if timeout(longest, self.part()).await.is_err() {
            tracing::warn!("the BGP speaker ends before all its neighbours are gone");
        }
        self.end().await;
    }

    /// Parts from all neighbours.
    async fn part(&self) {
        let mut config = self.wanted.config.clone();
        config.neighbors.clear();
        config.dynamic_neighbors.clear();
        drop(self.reloads.send(config).await);
        // The owner takes reloads and questions in any order.
        while let Ok(left) = self.handle.peers(None, false).await
            && !left.is_empty()
        {
            for peer in left {
                // Whom somebody added through the API a reload lets stay. It is refused where the reload was quicker, and for
                // who came by itself.
                drop(self.handle.change(Change::RemoveNeighbor(peer.address)).await);
            }
            sleep(GOODBYE_LOOK).await;
        }
    }
}

fn session(peer: String, view: &PeerView) -> Session {
    Session {
        peer,
        is_up: view.status.state == SessionState::Established,
        received: view.families.iter().map(|family| family.received).sum(),
        accepted: view.families.iter().map(|family| family.accepted).sum(),
    }
}

#[cfg(test)]
mod tests;
