//! The routes of all peers: what came, which is the best, what each peer must hear (RFC 4271 sections 3.2 and 9).
//!
//! ```text
//!  receive ──► import policy ──► table: all paths of a destination, best first ──► log of changes
//!                                   │                                                │
//!                     kernel routes, watchers, monitors               groups: export policy, encoded once
//!                                                                                    │
//!                                                          next_updates of each member ◄── catching up
//! ```
//!
//! [`Router`] is the one owner of routes. A peer that takes its bytes more slowly than they come is not kept a copy of
//! everything: past a limit only the destinations are marked that it must hear about, and it hears their latest state.
//!
//! Invariants: no peer gets a route back that it sent itself; a path is never announced against `NO_ADVERTISE`,
//! `NO_EXPORT` or the rules of reflection, whatever a policy says; the best path does not depend on the order in which
//! paths came.

mod bits;
mod decision;
mod explain;
mod export;
mod feed;
mod graceful;
mod group;
mod intern;
mod monitor;
mod next_hops;
mod peer;
mod receive;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use decision::{DecisionConfig, Step};
pub use explain::Withheld;
pub use monitor::{MonitorId, News, Reported, RibView};
pub use peer::{Counts, PeerId};
pub use receive::LimitExceeded;
pub use table::{Exclusion, Staleness};
pub use view::{Change, Destination, PathView};

use crate::{
    attributes::Attributes,
    config::PeerConfig,
    number::{Asn, Family, RouterId},
    prefix::Nlri,
    session::Negotiated,
    wire::{RefreshKind, RouteRefresh},
};
use bits::Bits;
use decision::{Teller, select};
use group::Group;
use intern::Interner;
use monitor::Monitors;
use next_hops::NextHops;
use peer::Peer;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use table::{Path, Slot, Source, Table};

/// What is the same for all peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// Our AS. A session may show another one to its peer.
    pub asn: Asn,
    /// Our router id.
    pub router_id: RouterId,
    /// Our cluster (RFC 4456); `None` is the router id.
    pub cluster_id: Option<RouterId>,
    /// Clients hear from clients; off where they are meshed among themselves.
    pub client_to_client: bool,
    /// Paths whose next hop leads nowhere are not used (RFC 4271 section 9.1.2.1). Off for a reflector that no packet goes
    /// through: it need not reach what it tells of.
    pub resolve_next_hops: bool,
    /// How paths are compared.
    pub decision: DecisionConfig,
    /// After our own restart: say nothing until all peers have sent their routes, for at most this long from the start
    /// (RFC 4724 section 4.1).
    pub deferral: Option<Duration>,
}

impl RouterConfig {
    /// What is usual.
    pub fn new(asn: Asn, router_id: RouterId) -> Self {
        Self {
            asn,
            router_id,
            cluster_id: None,
            client_to_client: true,
            resolve_next_hops: false,
            decision: DecisionConfig::default(),
            deferral: None,
        }
    }

    fn cluster_id(&self) -> RouterId {
        self.cluster_id.unwrap_or(self.router_id)
    }
}

/// The routes of all peers, and of our own.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    peers: Vec<Option<Peer>>,
    table: Table,
    interner: Interner,
    log: Log,
    groups: Vec<Option<Group>>,
    next_hops: NextHops,
    /// Whether somebody asks [`Router::poll_change`].
    is_watched: bool,
    /// Destinations whose used paths changed, for [`Router::poll_change`].
    changed: Bits,
    changed_from: u32,
    monitors: Monitors,
    /// Destinations with a best path, by family.
    reachable: [u32; 2],
    /// While set, nothing is said.
    deferred_until: Option<Duration>,
    /// Where the log ended when empty destinations were last looked for.
    swept_at: u64,
}

/// Destinations that changed, in order. Each counts only where its slot says that it stands last.
#[derive(Debug, Default)]
struct Log {
    base: u64,
    numbers: VecDeque<u32>,
}

impl Log {
    fn end(&self) -> u64 {
        self.base + self.numbers.len() as u64
    }

    fn get(&self, at: u64) -> Option<u32> {
        self.numbers.get(usize::try_from(at.checked_sub(self.base)?).ok()?).copied()
    }

    /// Forgets what stands before `at`.
    fn trim(&mut self, at: u64) {
        while self.base < at && self.numbers.pop_front().is_some() {
            self.base += 1;
        }
    }
}

impl Router {
    /// A router without peers and routes. Time counts from 0 when it starts.
    pub fn new(config: RouterConfig) -> Self {
        let deferred_until = config.deferral;
        Self {
            config,
            peers: Vec::new(),
            table: Table::new(),
            interner: Interner::new(),
            // Position 0 is that of destinations that never changed.
            log: Log { base: 1, numbers: VecDeque::new() },
            groups: Vec::new(),
            next_hops: NextHops::default(),
            is_watched: true,
            changed: Bits::default(),
            changed_from: 0,
            monitors: Monitors::default(),
            reachable: [0; 2],
            deferred_until,
            swept_at: 0,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Adds a peer, which has no session yet.
    pub fn add_peer(&mut self, config: PeerConfig) -> PeerId {
        let free = self.peers.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        self.peers[place] = Some(Peer::new(config));
        PeerId(place as u32)
    }

    /// Changes what happens to a peer's routes. Both ways are decided anew, without a new session.
    pub fn change_peer(&mut self, id: PeerId, config: PeerConfig) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.config = config;
        self.import_again(id);
        // What others hear of its routes may depend on whether it is a client.
        self.log_all_of(id);
        self.regroup(id);
    }

    /// Forgets a peer and its routes.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.leave_group(id);
        self.remove_paths(id, |_| true);
        self.flush_all();
        self.monitors.forget(id);
        if let Some(place) = self.peers.get_mut(id.index()) {
            *place = None;
        }
    }

    /// A session is there: the peer gets all that it shall know, and an End-of-RIB for each family.
    pub fn session_up(&mut self, id: PeerId, negotiated: &Arc<Negotiated>, now: Duration) {
        self.leave_group(id);
        let Some(peer) = self.peer_mut(id) else { return };
        peer.clear_queue();
        peer.complete = crate::number::FamilySet::NONE;
        peer.session = Some(Arc::clone(negotiated));
        peer.last = Some(Arc::clone(negotiated));
        self.peer_is_back(id, negotiated, now);
        self.join_group(id);
    }

    /// The session is gone. If `graceful`, its routes are kept for a while where both agreed on that.
    pub fn session_down(&mut self, id: PeerId, graceful: bool, now: Duration) {
        self.leave_group(id);
        let Some(peer) = self.peer_mut(id) else { return };
        peer.clear_queue();
        let negotiated = peer.session.take();
        match negotiated.filter(|_| graceful) {
            Some(negotiated) => self.keep_stale(id, &negotiated, now),
            None => self.remove_paths(id, |_| true),
        }
    }

    /// Adds a route of our own, or changes it.
    pub fn announce(&mut self, nlri: impl Into<Nlri>, attributes: Attributes, now: Duration) {
        let attributes = self.interner.intern(Arc::new(attributes));
        self.insert(Source::LOCAL, nlri.into(), &attributes, None, now);
    }

    /// Takes back a route of our own; says whether there was one.
    pub fn withdraw(&mut self, nlri: impl Into<Nlri>) -> bool {
        self.remove(Source::LOCAL, &nlri.into())
    }

    /// A peer wants its routes again, or says that it sends its own again (RFC 2918, 7313).
    pub fn refresh(&mut self, id: PeerId, refresh: RouteRefresh, now: Duration) {
        let Some(family) = Family::from_afi_safi(refresh.family) else { return };
        match refresh.kind {
            RefreshKind::Request => self.send_again(id, Some(family)),
            RefreshKind::Begin => self.expect_again(id, family, now),
            RefreshKind::End => self.drop_stale(id, family),
            RefreshKind::Unknown(_) => {}
        }
    }

    /// Decides anew about all that the peer sent. Nothing is asked of the peer: what it sent was kept.
    pub fn soft_reset_in(&mut self, id: PeerId) {
        self.import_again(id);
    }

    /// Sends the peer all that it shall know again.
    pub fn soft_reset_out(&mut self, id: PeerId) {
        self.send_again(id, None);
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.index())?.as_ref()
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index())?.as_mut()
    }

    /// Changes the paths of a destination, chooses anew, and notes what that changed.
    fn edit(&mut self, number: u32, edit: impl FnOnce(&mut Slot)) {
        let Self { table, peers, config, log, changed, is_watched, monitors, reachable, .. } = self;
        let Some(slot) = table.slot_mut(number) else { return };
        let summary = |slot: &Slot| {
            let best = slot.best().map(|path| (Arc::as_ptr(&path.attributes), path.source, path.path_id));
            (best, slot.used, slot.paths.as_slice().is_empty())
        };
        let (best, used, was_empty) = summary(slot);
        edit(slot);
        slot.used = select(slot.paths.as_mut_slice(), |path| teller(path, peers), config.decision);
        let (new_best, new_used, is_empty) = summary(slot);
        let at = log.end();
        slot.logged = at as u32;
        if best != new_best {
            slot.best_logged = at as u32;
            monitors.touch(RibView::Best, number);
            let reachable = &mut reachable[slot.prefix.family() as usize];
            *reachable = *reachable + u32::from(new_best.is_some()) - u32::from(best.is_some());
        }
        log.numbers.push_back(number);
        if *is_watched && (best != new_best || used.max(new_used) > 1) {
            changed.insert(number);
        }
        match (was_empty, is_empty) {
            (true, false) => table.empty -= 1,
            (false, true) => table.empty += 1,
            _ => {}
        }
    }
}

/// What counts about who told us of a path.
fn teller(path: &Path, peers: &[Option<Peer>]) -> Teller {
    let peer = path.source.peer().and_then(|id| peers.get(id.index())?.as_ref()?.last.as_deref());
    peer.map_or(Teller { external: false, local: true, router_id: 0, address: None }, |negotiated| Teller {
        external: negotiated.kind == crate::session::PeerKind::External,
        local: false,
        router_id: negotiated.peer_id.0,
        address: Some(negotiated.peer_address),
    })
}
