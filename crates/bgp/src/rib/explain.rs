//! Why a route is announced to a peer, or is not. Asked by people, one destination at a time.

use super::{Router, Source, export::Exporter, peer::PeerId, table::Path};
use crate::{policy::Candidate, prefix::Prefix};
use std::fmt;

/// Why nothing of a destination is announced to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// There is no path that can be used.
    NoPath,
    /// The session is down.
    NoSession,
    /// The session does not carry the family.
    Family,
    /// We wait for the routes of all peers after our restart (RFC 4724).
    Deferred,
    /// The peer sent it itself.
    SplitHorizon,
    /// It carries `NO_ADVERTISE` (RFC 1997).
    NoAdvertise,
    /// It carries `NO_EXPORT`, and the peer is in another AS (RFC 1997).
    NoExport,
    /// It has been stale for long, and the peer does not know such routes (RFC 9494).
    LongLivedStale,
    /// It is from inside of our AS, and neither its sender nor the peer is a client (RFC 4456).
    NotClient,
    /// Sender and peer are clients that hear from each other (RFC 4456).
    ClientsMeshed,
    /// The export policy rejects it; by which part, where that is known.
    Policy(Option<String>),
    /// Nothing of ours can be its next hop there.
    NoNextHop,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPath => "no path can be used",
            Self::NoSession => "its session is not established",
            Self::Family => "its session does not carry the address family",
            Self::Deferred => "we have restarted, and wait for the routes of all neighbours first",
            Self::SplitHorizon => "it sent the route itself (split horizon)",
            Self::NoAdvertise => "the route carries NO_ADVERTISE",
            Self::NoExport => "the route carries NO_EXPORT, and the neighbour is in another AS",
            Self::LongLivedStale => {
                "the route is stale for long, and the neighbour does not know such routes"
            }
            Self::NotClient => "neither who sent the route nor the neighbour is a client of ours",
            Self::ClientsMeshed => {
                "who sent the route and the neighbour are clients that hear from each other"
            }
            Self::Policy(Some(part)) => return write!(f, "export policy rejects it: {part}"),
            Self::Policy(None) => "export policy rejects it",
            Self::NoNextHop => "no address of ours can be its next hop there",
        })
    }
}

impl Router {
    /// Whether a peer is told a way to a destination, and why not.
    ///
    /// # Errors
    ///
    /// [`Withheld`] says why it is not. Where several paths are sent, it is why the best one is not.
    pub fn announced(&self, prefix: &Prefix, id: PeerId) -> Result<(), Withheld> {
        let peer = self.peer(id).ok_or(Withheld::NoSession)?;
        let negotiated = peer.session.as_ref().ok_or(Withheld::NoSession)?;
        if !negotiated.families.contains(prefix.family()) {
            return Err(Withheld::Family);
        }
        if self.is_deferring() {
            return Err(Withheld::Deferred);
        }
        let group =
            peer.group.and_then(|group| self.groups.get(group.0)?.as_ref()).ok_or(Withheld::NoSession)?;
        let exporter = Exporter {
            key: &group.key,
            policy: &*group.policy,
            peers: &self.peers,
            client_to_client: self.config.client_to_client,
        };
        let slot = self.table.find(prefix).and_then(|number| self.table.slot(number));
        let paths = slot.map(|slot| slot.paths.as_slice()).unwrap_or_default();
        let usable = paths.iter().filter(|path| path.exclusion.is_none());
        let several = negotiated.add_path_send.contains(prefix.family());
        let sent = usable.take(if several { usize::from(group.key.add_path_max) } else { 1 });
        let mut why = None;
        for path in sent {
            match exporter.check(prefix, path, id) {
                Ok(()) => return Ok(()),
                Err(withheld) => why = why.or(Some(withheld)),
            }
        }
        Err(why.unwrap_or(Withheld::NoPath))
    }

    /// Which part of the import policy decides about a path of a peer, where that is known.
    pub fn import_decided_by(
        &self,
        prefix: &Prefix,
        id: PeerId,
        received: &crate::Attributes,
    ) -> Option<String> {
        let peer = self.peer(id)?;
        let candidate = Candidate { prefix, attributes: received, source: peer.neighbor(), target: None };
        peer.config.import.decided_by(&candidate)
    }
}

impl Exporter<'_> {
    fn check(&self, prefix: &Prefix, path: &Path, to: PeerId) -> Result<(), Withheld> {
        if path.source == Source::from(to) {
            return Err(Withheld::SplitHorizon);
        }
        if let Some(withheld) = self.withheld(prefix, path) {
            return Err(withheld);
        }
        let Some(admitted) = self.admit(prefix, path) else {
            return Err(Withheld::Policy(self.decided_by(prefix, path)));
        };
        let dressed = self.dress(path, admitted.changed.as_deref(), prefix.family());
        dressed.map(drop).ok_or(Withheld::NoNextHop)
    }
}
