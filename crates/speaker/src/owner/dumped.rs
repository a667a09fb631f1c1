//! All routes page by page, for dumps: the owner looks at a bounded number of places at once.

use super::Owner;
use crate::{
    handle::PAGE_MAX,
    view::{DestinationView, PathView, RoutesPage, SourceView},
};
use isthmus_bgp::rib;
use std::net::IpAddr;

impl Owner {
    /// The paths of all neighbours as they came, and our own, from a place on.
    pub(super) fn page(&self, place: u32) -> RoutesPage {
        let (found, next) = self.router.destinations_from(place, PAGE_MAX as u32);
        let destinations = found.map(|one| DestinationView {
            prefix: one.prefix,
            paths: one.paths.iter().map(|path| self.received_view(&one, path)).collect(),
        });
        RoutesPage { destinations: destinations.collect(), next }
    }

    fn received_view(&self, of: &rib::Destination<'_>, path: &rib::PathView<'_>) -> PathView {
        PathView { attributes: path.received.clone(), ..self.path_view(of.prefix, path) }
    }

    /// All neighbours that have a session, or had one: what names each, and who it is, with the address of the connection.
    pub(super) fn sources(&self) -> Vec<(IpAddr, SourceView)> {
        let sources = self.peers.values().filter_map(|peer| {
            let address = peer.last.as_ref()?.peer_address;
            Some((peer.address, SourceView { address, ..self.source_view(peer.id)? }))
        });
        sources.collect()
    }
}
