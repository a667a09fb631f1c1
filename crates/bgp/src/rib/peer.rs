//! A peer as the routes see it.

use super::{bits::Bits, group::GroupId};
use crate::{
    config::PeerConfig,
    number::{Family, FamilySet},
    policy::Neighbor,
    session::{Negotiated, PeerKind},
    wire::{RefreshKind, RouteRefresh},
};
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

/// Names a peer of a [`super::Router`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(super) u32);

impl PeerId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many paths of a family a peer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// It announced.
    pub received: u32,
    /// Of them can be used.
    pub accepted: u32,
}

/// What says that a feed is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedEnd {
    EndOfRib(Family),
    Refresh(RouteRefresh),
}

impl FeedEnd {
    /// The end of what a peer asked for.
    pub(super) fn refresh(family: Family) -> Self {
        Self::Refresh(RouteRefresh { family: family.afi_safi(), kind: RefreshKind::End })
    }
}

/// How a peer gets its routes.
#[derive(Debug)]
pub(super) enum Feed {
    /// It has what its group has, and gets each change.
    Synced,
    /// It gets, destination by destination, what it lacks. Changes meanwhile only mark what it lacks.
    CatchingUp {
        /// Destinations that it must be told about.
        lacks: Bits,
        /// Destinations of which it was told something that may still hold.
        knows: Bits,
        /// Where the round through the destinations stands.
        from: u32,
        /// What is said after this round.
        ends: Vec<FeedEnd>,
    },
}

/// Routes that are kept although nobody stands by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    /// Families with such routes.
    pub(super) families: FamilySet,
    /// When they go, or become long-lived.
    pub(super) until: Option<Duration>,
    /// They are long-lived.
    pub(super) long_lived: bool,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    /// What was agreed on, while there is a session.
    pub(super) session: Option<Arc<Negotiated>>,
    /// What was agreed on last.
    pub(super) last: Option<Arc<Negotiated>>,
    pub(super) counts: [Counts; 2],
    pub(super) stale: Stale,
    /// Families of which the peer has sent all routes in this session.
    pub(super) complete: FamilySet,
    pub(super) group: Option<GroupId>,
    pub(super) feed: Feed,
    pub(super) queue: VecDeque<Arc<[u8]>>,
    pub(super) queued_bytes: usize,
}

impl Peer {
    pub(super) fn new(config: PeerConfig) -> Self {
        Self {
            config,
            session: None,
            last: None,
            counts: [Counts::default(); 2],
            stale: Stale::default(),
            complete: FamilySet::NONE,
            group: None,
            feed: Feed::Synced,
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    /// The peer as policies see it.
    pub(super) fn neighbor(&self) -> Option<Neighbor> {
        let negotiated = self.last.as_ref()?;
        Some(Neighbor {
            address: negotiated.peer_address,
            asn: negotiated.peer_as,
            external: negotiated.kind == PeerKind::External,
        })
    }

    pub(super) fn push(&mut self, bytes: Arc<[u8]>) {
        self.queued_bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    pub(super) fn pop(&mut self) -> Option<Arc<[u8]>> {
        let bytes = self.queue.pop_front()?;
        self.queued_bytes -= bytes.len();
        Some(bytes)
    }

    /// Forgets what is still to be sent.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
    }
}
