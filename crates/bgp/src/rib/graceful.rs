//! Routes that outlive their session for a while: graceful restart (RFC 4724, 8538, 9494) on the helping side, and
//! routes that are sent again (RFC 7313).

use super::{
    Router, Source,
    peer::{PeerId, Stale},
    table::Staleness,
};
use crate::{
    attributes::{Attributes, Community},
    number::{Family, FamilySet},
    prefix::Prefix,
    session::{Negotiated, PeerGraceful},
};
use std::{sync::Arc, time::Duration};

/// Longest time between the begin and the end of routes that are sent again.
const REFRESH_MAX: Duration = Duration::from_mins(6);

impl Router {
    /// When to call [`Router::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let stale = self.peers.iter().flatten().filter_map(|peer| peer.stale.until);
        stale.chain(self.deferred_until).min()
    }

    /// Does what time asks for: stale routes go, silence after a restart ends.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.deferred_until.is_some_and(|until| until <= now) {
            self.deferred_until = None;
        }
        for place in 0..self.peers.len() {
            let id = PeerId(place as u32);
            let Some(peer) = self.peer(id) else { continue };
            if peer.stale.until.is_none_or(|until| until > now) {
                continue;
            }
            let away = peer.session.is_none() && !peer.stale.long_lived;
            let long_lived = peer.last.as_ref().and_then(|negotiated| negotiated.graceful.clone());
            match long_lived.filter(|graceful| away && !graceful.long_lived.is_empty()) {
                Some(graceful) => self.keep_long(id, &graceful, now),
                None => self.drop_all_stale(id),
            }
        }
    }

    /// Whether it says nothing yet because it waits for its peers' routes.
    pub fn is_deferring(&self) -> bool {
        self.deferred_until.is_some()
    }

    /// Whether every peer has a session and has sent all its routes. One that never says when it has (RFC 4724 section 2
    /// leaves that open without graceful restart) keeps this from being so.
    pub fn has_all_routes(&self) -> bool {
        self.peers.iter().flatten().all(|peer| {
            let families = peer.session.as_ref().map(|negotiated| negotiated.families);
            families.is_some_and(|families| families.and(peer.complete) == families)
        })
    }

    /// The session is gone: marks what is kept, and drops the rest.
    pub(super) fn keep_stale(&mut self, id: PeerId, negotiated: &Negotiated, now: Duration) {
        let Some(graceful) = &negotiated.graceful else { return self.remove_paths(id, |_| true) };
        let kept = graceful.families;
        self.remove_paths_of(id, |prefix, path| {
            // What was stale already has had its time (RFC 4724 section 4.2).
            !kept.contains(prefix.family()) || path.staleness != Staleness::Fresh
        });
        kept.iter().for_each(|family| self.mark_stale(id, family));
        if let Some(peer) = self.peer_mut(id) {
            let until = Some(now + graceful.restart_time).filter(|_| !kept.is_empty());
            peer.stale = Stale { families: kept, until, long_lived: false };
        }
    }

    fn mark_stale(&mut self, id: PeerId, family: Family) {
        let source = Source::from(id);
        for number in self.numbers_of(id) {
            let Some(slot) = self.table.slot_mut(number).filter(|slot| slot.prefix.family() == family) else {
                continue;
            };
            for path in slot.paths.as_mut_slice().iter_mut().filter(|path| path.source == source) {
                path.staleness = path.staleness.max(Staleness::Stale);
            }
        }
    }

    /// The peer did not come back in time. RFC 9494 section 4.2: what may stay is marked, and the last resort.
    fn keep_long(&mut self, id: PeerId, graceful: &PeerGraceful, now: Duration) {
        let kept = &graceful.long_lived;
        self.remove_paths_of(id, |prefix, path| {
            !kept.contains_key(&prefix.family()) || path.attributes.has_community(Community::NO_LLGR)
        });
        let source = Source::from(id);
        for number in self.numbers_of(id) {
            let Some(slot) = self.table.slot(number) else { continue };
            let own = slot.paths.as_slice().iter().filter(|path| path.source == source);
            let own: Vec<_> = own.map(|path| (path.path_id, Arc::clone(&path.attributes))).collect();
            for (path_id, attributes) in own {
                let marked =
                    self.interner.intern(Arc::new(with_community(&attributes, Community::LLGR_STALE)));
                self.edit(number, |slot| {
                    let position = slot.position(source, path_id);
                    if let Some(path) = position.and_then(|at| slot.paths.as_mut_slice().get_mut(at)) {
                        path.original.get_or_insert(attributes);
                        path.attributes = marked;
                        path.staleness = Staleness::LongLived;
                    }
                });
            }
            self.monitors.touch_source(source, number);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.stale.long_lived = true;
            peer.stale.until = kept.values().max().map(|time| now + *time);
        }
    }

    /// A session is there again. Routes stay only where the peer says that it went on forwarding.
    pub(super) fn peer_is_back(&mut self, id: PeerId, negotiated: &Negotiated, now: Duration) {
        let Some(stale) = self.peer(id).map(|peer| peer.stale) else { return };
        if stale.families.is_empty() {
            return;
        }
        let graceful = negotiated.graceful.as_ref();
        let kept = graceful.map_or(FamilySet::NONE, |graceful| graceful.families.and(graceful.forwarding));
        let kept = kept.and(stale.families);
        self.remove_paths_of(id, |prefix, path| {
            path.staleness != Staleness::Fresh && !kept.contains(prefix.family())
        });
        let time = graceful.map_or(Duration::ZERO, |graceful| graceful.stale_path_time);
        if let Some(peer) = self.peer_mut(id) {
            let until = Some(now + time).filter(|_| !kept.is_empty());
            peer.stale = Stale { families: kept, until, long_lived: false };
        }
    }

    /// The peer sends all routes of a family again: those that do not come are gone.
    pub(super) fn expect_again(&mut self, id: PeerId, family: Family, now: Duration) {
        let enhanced =
            |peer: &super::Peer| peer.session.as_ref().is_some_and(|negotiated| negotiated.enhanced_refresh);
        if !self.peer(id).is_some_and(enhanced) {
            return;
        }
        self.mark_stale(id, family);
        if let Some(peer) = self.peer_mut(id) {
            peer.stale.families.insert(family);
            peer.stale.until = peer.stale.until.max(Some(now + REFRESH_MAX));
        }
    }

    /// The peer has sent all routes of a family.
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        self.drop_stale(id, family);
        if let Some(peer) = self.peer_mut(id) {
            peer.complete.insert(family);
        }
        if self.is_deferring() && self.peers.iter().flatten().all(is_complete) {
            self.deferred_until = None;
        }
    }

    /// Drops what the peer no longer stands by.
    pub(super) fn drop_stale(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peer_mut(id).filter(|peer| peer.stale.families.contains(family)) else {
            return;
        };
        peer.stale.families.remove(family);
        if peer.stale.families.is_empty() {
            peer.stale = Stale::default();
        }
        self.remove_paths_of(id, |prefix: &Prefix, path| {
            path.staleness != Staleness::Fresh && prefix.family() == family
        });
    }

    fn drop_all_stale(&mut self, id: PeerId) {
        self.remove_paths(id, |path| path.staleness != Staleness::Fresh);
        if let Some(peer) = self.peer_mut(id) {
            peer.stale = Stale::default();
        }
    }
}

/// Whether a peer need not be waited for after our restart: it sent everything, it says nothing when it has, or it
/// restarts itself.
fn is_complete(peer: &super::Peer) -> bool {
    peer.session.as_ref().is_some_and(|negotiated| match &negotiated.graceful {
        Some(graceful) if !graceful.restarting => {
            negotiated.families.and(peer.complete) == negotiated.families
        }
        _ => true,
    })
}

/// The same with a community more.
pub(super) fn with_community(attributes: &Attributes, community: Community) -> Attributes {
    let mut communities = attributes.communities.to_vec();
    if let Err(place) = communities.binary_search(&community) {
        communities.insert(place, community);
    }
    Attributes { communities: communities.into(), ..attributes.clone() }
}
