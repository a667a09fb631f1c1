//! What records say, path by path, whatever kind of file they are of.

use super::{Body, PeerEntry, PeerIndex, Record, SessionMessage, StateNumber, Time};
use crate::{
    attributes::Attributes,
    number::{Asn, Family, RouterId},
    prefix::Nlri,
    wire::{Disposition, Fault, Message, MessageKind, Notification, Update},
};
use std::{net::IpAddr, sync::Arc};

/// One thing that a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When the record was written.
    pub time: Time,
    /// Of whom it is.
    pub origin: Origin,
    /// What it says.
    pub item: Item,
}

/// A peer of who wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its address; the unspecified one for routes of the writer's own.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Its router id, where the file tells it.
    pub id: Option<RouterId>,
    /// It was sent to the peer, not by it.
    pub is_sent: bool,
}

/// What a record says of one path, or of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A path stands in a table.
    Path {
        /// Where it leads.
        nlri: Nlri,
        /// When it came, in seconds since 1970, UTC.
        originated: u32,
        /// What it carries.
        attributes: Arc<Attributes>,
        /// Why it should not be used: an attribute that cannot be read.
        fault: Option<Fault>,
    },
    /// A path was announced.
    Announced {
        /// Where it leads.
        nlri: Nlri,
        /// What it carries.
        attributes: Arc<Attributes>,
    },
    /// A path was withdrawn.
    Withdrawn {
        /// Where it led.
        nlri: Nlri,
        /// Why that is so, if it was announced with an attribute that cannot be read (RFC 7606).
        fault: Option<Fault>,
    },
    /// All paths of a family were told.
    EndOfRib(Family),
    /// A session changed its state.
    State {
        /// Before.
        old: StateNumber,
        /// After.
        new: StateNumber,
    },
    /// Another message than an UPDATE.
    Message(MessageKind),
    /// A message that cannot be read, and what a speaker would have answered.
    Broken(Notification),
}

/// Takes records apart, in the order of the file.
#[derive(Debug, Default)]
pub struct Unfolder {
    peers: Arc<[PeerEntry]>,
}

impl Unfolder {
    /// Whom paths of the following tables are from.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one record; what is passed over says nothing.
    pub fn unfold(&mut self, record: Record) -> Vec<Seen> {
        let time = record.time;
        let seen = |origin, item| Seen { time, origin, item };
        match record.body {
            Body::PeerIndex(PeerIndex { peers, .. }) => {
                self.peers = peers.into();
                Vec::new()
            }
            Body::Rib(rib) => {
                let paths = rib.entries.into_iter().filter_map(|entry| {
                    let peer = self.peers.get(usize::from(entry.peer))?;
                    let nlri = Nlri { prefix: rib.prefix, path_id: entry.path_id };
                    let fault = spoils(&entry.faults);
                    let (originated, attributes) = (entry.originated, entry.attributes);
                    Some(seen((*peer).into(), Item::Path { nlri, originated, attributes, fault }))
                });
                paths.collect()
            }
            Body::Entry(entry) => {
                let (originated, attributes) = (entry.originated, entry.attributes);
                let (nlri, fault) = (entry.prefix.into(), spoils(&entry.faults));
                let peer = Origin { id: None, ..entry.peer.into() };
                vec![seen(peer, Item::Path { nlri, originated, attributes, fault })]
            }
            Body::State(change) => {
                let origin =
                    Origin { address: change.ends.peer, asn: change.ends.peer_as, id: None, is_sent: false };
                vec![seen(origin, Item::State { old: change.old, new: change.new })]
            }
            Body::Message(message) => {
                message_items(&message).into_iter().map(|item| seen(sender(&message), item)).collect()
            }
            Body::Skipped => Vec::new(),
        }
    }
}

impl From<PeerEntry> for Origin {
    fn from(peer: PeerEntry) -> Self {
        Self { address: peer.address, asn: peer.asn, id: Some(peer.id), is_sent: false }
    }
}

fn sender(message: &SessionMessage) -> Origin {
    let ends = &message.ends;
    Origin { address: ends.peer, asn: ends.peer_as, id: None, is_sent: message.is_local }
}

/// The fault that makes a path unusable, if there is one.
fn spoils(faults: &[Fault]) -> Option<Fault> {
    faults.iter().find(|fault| fault.disposition == Disposition::TreatAsWithdraw).copied()
}

fn message_items(message: &SessionMessage) -> Vec<Item> {
    let kind = match message.decode() {
        Ok(Message::Update(update)) => return update_items(update),
        Ok(Message::Open(_)) => MessageKind::Open,
        Ok(Message::Notification(_)) => MessageKind::Notification,
        Ok(Message::Keepalive) => MessageKind::Keepalive,
        Ok(Message::RouteRefresh(_)) => MessageKind::RouteRefresh,
        Err(notification) => return vec![Item::Broken(notification)],
    };
    vec![Item::Message(kind)]
}

/// Withdrawals first: what stands in both is announced.
fn update_items(update: Update) -> Vec<Item> {
    let fault = spoils(&update.faults);
    let withdrawn = update.withdrawn.into_iter().map(|nlri| Item::Withdrawn { nlri, fault });
    let announced = update.announced.into_iter().flat_map(|announcement| {
        let attributes = announcement.attributes;
        announcement
            .nlri
            .into_iter()
            .map(move |nlri| Item::Announced { nlri, attributes: Arc::clone(&attributes) })
    });
    withdrawn.chain(announced).chain(update.end_of_rib.map(Item::EndOfRib)).collect()
}
