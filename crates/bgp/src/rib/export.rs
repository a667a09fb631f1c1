//! What of a route goes to which kind of peer, and how it looks there (RFC 4271 section 5.1, RFC 4456, RFC 1997).

use super::{
    explain::Withheld,
    peer::{Peer, PeerId},
    table::{Path, Source},
};
use crate::{
    attributes::{Attributes, Community, LOCAL_PREF_DEFAULT, NextHop},
    config::RemovePrivateAs,
    number::{Asn, Family, FamilySet, RouterId},
    policy::{Candidate, Neighbor, Policy, Verdict},
    prefix::Prefix,
    session::PeerKind,
    wire::EncodeContext,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Type of the attribute with segments of a path through a domain (RFC 8669), which stays within it.
const PREFIX_SID: u8 = 40;

/// All that decides what peers hear. Those that have it in common hear the same, encoded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of a peer by itself")]
pub(super) struct GroupKey {
    pub(super) kind: PeerKind,
    pub(super) client: bool,
    pub(super) cluster_id: RouterId,
    pub(super) local_as: Asn,
    /// Replaced by ours in paths.
    replaced_as: Option<Asn>,
    remove_private_as: Option<RemovePrivateAs>,
    pub(super) next_hop_self: bool,
    third_party_next_hop: bool,
    route_server_client: bool,
    self_v4: Option<Ipv4Addr>,
    self_v6: Option<Ipv6Addr>,
    extended_next_hop: bool,
    long_lived: bool,
    pub(super) families: FamilySet,
    pub(super) add_path_max: u8,
    pub(super) encode: EncodeContext,
    /// The address of the policy in memory, which the group keeps alive.
    policy: usize,
    /// The only member, where the policy wants to know who it is.
    target: Option<PeerId>,
}

impl GroupKey {
    /// What decides for this peer; `None` while it has no session.
    pub(super) fn of(id: PeerId, peer: &Peer, cluster_id: RouterId) -> Option<Self> {
        let negotiated = peer.session.as_ref()?;
        let config = &peer.config;
        let internal = negotiated.kind == PeerKind::Internal;
        let (own_v4, own_v6) = match negotiated.local_address {
            IpAddr::V4(address) => (Some(address), None),
            IpAddr::V6(address) => (None, Some(address)),
        };
        let graceful = negotiated.graceful.as_ref();
        Some(Self {
            kind: negotiated.kind,
            client: internal && config.reflector_client,
            cluster_id: config.cluster_id.unwrap_or(cluster_id),
            local_as: negotiated.local_as,
            replaced_as: config.replace_peer_as.then_some(negotiated.peer_as),
            remove_private_as: config.remove_private_as,
            next_hop_self: config.next_hop_self,
            third_party_next_hop: !internal && config.third_party_next_hop,
            route_server_client: !internal && config.route_server_client,
            self_v4: config.next_hop_v4.or(own_v4),
            self_v6: config.next_hop_v6.or(own_v6),
            extended_next_hop: negotiated.extended_next_hop,
            long_lived: graceful.is_some_and(|graceful| !graceful.long_lived.is_empty()),
            families: negotiated.families,
            add_path_max: config.add_path_send_max.max(1),
            encode: negotiated.encode_context(),
            policy: Arc::as_ptr(&config.export).cast::<()>() as usize,
            target: config.export.needs_target().then_some(id),
        })
    }

    /// Ourselves as next hop for a family, if we have an address that can be one.
    fn own_next_hop(&self, family: Family) -> Option<NextHop> {
        let v6 = self.self_v6.map(|global| NextHop::V6 { global, link_local: None });
        match family {
            Family::Ipv4Unicast => self.self_v4.map(NextHop::V4).or(v6.filter(|_| self.extended_next_hop)),
            Family::Ipv6Unicast => v6,
        }
    }

    /// Why a route may not go to these peers at all, whatever the policy says.
    #[inline]
    fn withheld(
        &self,
        prefix: &Prefix,
        path: &Path,
        origin: &Origin,
        client_to_client: bool,
    ) -> Option<Withheld> {
        let attributes = &path.attributes;
        let external = self.kind == PeerKind::External;
        if !self.families.contains(prefix.family()) {
            return Some(Withheld::Family);
        }
        if attributes.has_community(Community::NO_ADVERTISE) {
            return Some(Withheld::NoAdvertise);
        }
        // Confederations are not spoken, so both mean the AS.
        let stays = attributes.has_community(Community::NO_EXPORT)
            || attributes.has_community(Community::NO_EXPORT_SUBCONFED);
        if external && stays {
            return Some(Withheld::NoExport);
        }
        if !self.long_lived && attributes.has_community(Community::LLGR_STALE) {
            return Some(Withheld::LongLivedStale);
        }
        // RFC 4456 section 6.
        match origin.internal {
            Some(Reflected { client, .. }) if !external => match (client, self.client) {
                (false, false) => Some(Withheld::NotClient),
                (true, true) if !client_to_client => Some(Withheld::ClientsMeshed),
                _ => None,
            },
            _ => None,
        }
    }

    /// How the route looks to these peers; `None` where nothing can be its next hop. `original` is from before the
    /// export policy, whose word counts.
    fn dress(
        &self,
        attributes: &Attributes,
        original: &Attributes,
        family: Family,
        origin: &Origin,
    ) -> Option<Attributes> {
        let mut dressed = attributes.clone();
        let set_next_hop = attributes.next_hop != original.next_hop;
        let own = match self.kind {
            PeerKind::External => {
                let keeps = self.third_party_next_hop && origin.internal.is_some();
                !self.route_server_client && !keeps
            }
            PeerKind::Internal => self.next_hop_self && origin.internal.is_none(),
        };
        // RFC 2545 section 3: a link-local address is for who is on the link, and it is not known who is.
        let is_elsewhere = dressed.next_hop.is_some_and(|next_hop| next_hop.is_link_local());
        if attributes.next_hop.is_none() || is_elsewhere || own && !set_next_hop {
            dressed.next_hop = Some(self.own_next_hop(family)?);
        }
        if family == Family::Ipv4Unicast
            && !self.extended_next_hop
            && matches!(dressed.next_hop, Some(NextHop::V6 { .. }))
        {
            return None;
        }
        match self.kind {
            PeerKind::Internal => self.dress_internal(&mut dressed, origin),
            PeerKind::External => self.dress_external(&mut dressed, original, origin),
        }
        Some(dressed)
    }

    fn dress_internal(&self, dressed: &mut Attributes, origin: &Origin) {
        dressed.local_pref.get_or_insert(LOCAL_PREF_DEFAULT);
        // RFC 4456 section 8. Towards non-clients too.
        if let Some(Reflected { router_id, .. }) = origin.internal {
            dressed.originator_id.get_or_insert(router_id);
            dressed.cluster_list =
                std::iter::once(self.cluster_id).chain(dressed.cluster_list.iter().copied()).collect();
        }
    }

    fn dress_external(&self, dressed: &mut Attributes, original: &Attributes, origin: &Origin) {
        dressed.local_pref = None;
        dressed.originator_id = None;
        dressed.cluster_list = Box::default();
        if dressed.ext_communities.iter().any(|community| !community.is_transitive()) {
            dressed.ext_communities = dressed
                .ext_communities
                .iter()
                .copied()
                .filter(|community| community.is_transitive())
                .collect();
        }
        if dressed.other.iter().any(|raw| raw.kind == PREFIX_SID) {
            dressed.other = dressed.other.iter().filter(|raw| raw.kind != PREFIX_SID).cloned().collect();
        }
        if self.route_server_client {
            return;
        }
        // RFC 4271 section 5.1.4: the MED of another AS is not for a third one. Ours is, also where it has a path.
        let foreign = origin.neighbor.is_some() && !original.as_path.is_empty();
        if foreign && dressed.med == original.med {
            dressed.med = None;
        }
        let mut path = dressed.as_path.without_confederation();
        if let Some(remove) = self.remove_private_as {
            path = path.map(|asn| match (asn.is_private(), remove) {
                (false, _) => Some(asn),
                (true, RemovePrivateAs::All) => None,
                (true, RemovePrivateAs::Replace) => Some(self.local_as),
            });
        }
        if let Some(replaced) = self.replaced_as {
            path = path.map(|asn| Some(if asn == replaced { self.local_as } else { asn }));
        }
        dressed.as_path = path.prepend(self.local_as);
    }
}

/// Where a path is from, as far as it changes how it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// From inside of our AS.
    internal: Option<Reflected>,
    /// `None` for our own.
    neighbor: Option<Neighbor>,
}

/// Who announced a path from inside of our AS.
#[derive(Clone, Copy, Debug)]
struct Reflected {
    client: bool,
    router_id: RouterId,
}

impl Origin {
    /// Where paths of this source are from. A peer that is gone is as it was.
    pub(super) fn of(source: Source, peers: &[Option<Peer>]) -> Self {
        let peer = source.peer().and_then(|id| peers.get(id.index())?.as_ref());
        let Some((peer, negotiated)) = peer.and_then(|peer| Some((peer, peer.last.as_ref()?))) else {
            return Self { internal: None, neighbor: None };
        };
        let reflected = Reflected { client: peer.config.reflector_client, router_id: negotiated.peer_id };
        Self {
            internal: (negotiated.kind == PeerKind::Internal).then_some(reflected),
            neighbor: peer.neighbor(),
        }
    }
}

/// A route that some peers may have, before it is dressed for them.
pub(super) struct Admitted {
    /// What the policy made of it, if it changed anything.
    pub(super) changed: Option<Box<Attributes>>,
}

/// Decides about a route for the members of a group.
pub(super) struct Exporter<'a> {
    pub(super) key: &'a GroupKey,
    pub(super) policy: &'a dyn Policy,
    pub(super) peers: &'a [Option<Peer>],
    pub(super) client_to_client: bool,
}

impl Exporter<'_> {
    /// Whether the route may go, and what the policy makes of it.
    pub(super) fn admit(&self, prefix: &Prefix, path: &Path) -> Option<Admitted> {
        let origin = Origin::of(path.source, self.peers);
        if self.key.withheld(prefix, path, &origin, self.client_to_client).is_some() {
            return None;
        }
        match self.policy.verdict(&self.candidate(prefix, path, &origin)) {
            Verdict::Accept => Some(Admitted { changed: None }),
            Verdict::Change(changed) => Some(Admitted { changed: Some(changed) }),
            Verdict::Reject => None,
        }
    }

    /// Why the route may not go, whatever the policy says.
    pub(super) fn withheld(&self, prefix: &Prefix, path: &Path) -> Option<Withheld> {
        self.key.withheld(prefix, path, &Origin::of(path.source, self.peers), self.client_to_client)
    }

    /// Which part of the policy decides, where that is known.
    pub(super) fn decided_by(&self, prefix: &Prefix, path: &Path) -> Option<String> {
        self.policy.decided_by(&self.candidate(prefix, path, &Origin::of(path.source, self.peers)))
    }

    fn candidate<'c>(&self, prefix: &'c Prefix, path: &'c Path, origin: &Origin) -> Candidate<'c> {
        let target = self.key.target.and_then(|id| self.peers.get(id.index())?.as_ref()?.neighbor());
        Candidate { prefix, attributes: &path.attributes, source: origin.neighbor, target }
    }

    /// How the route looks to the members.
    pub(super) fn dress(
        &self,
        path: &Path,
        changed: Option<&Attributes>,
        family: Family,
    ) -> Option<Attributes> {
        let origin = Origin::of(path.source, self.peers);
        self.key.dress(changed.unwrap_or(&path.attributes), &path.attributes, family, &origin)
    }
}
