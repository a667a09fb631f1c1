//! What neighbours send, for those who watch it. Nothing is copied while nobody does.

use super::{Owner, PeerKey};
use crate::{
    handle::Watch,
    view::{Event, PathView},
};
use isthmus_bgp::{Attributes, Nlri, wire::Update};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::mpsc;

/// A copy of an UPDATE, if somebody watches what comes.
pub(super) fn seen(watchers: &[(Watch, mpsc::Sender<Event>)], update: &Update) -> Option<Update> {
    let is_watched = watchers.iter().any(|(watch, _)| watch.adj_in || watch.accepted || watch.end_of_rib);
    is_watched.then(|| update.clone())
}

impl Owner {
    /// Tells what a neighbour sent, and what policy made of it.
    pub(super) fn tell_seen(&mut self, key: PeerKey, update: &Update) {
        let Some((address, id)) = self.peers.get(&key).map(|peer| (peer.address, peer.id)) else { return };
        let source = self.source_view(id);
        let now = SystemTime::now();
        let view = |nlri: Nlri, attributes: Option<&Arc<Attributes>>| PathView {
            prefix: nlri.prefix,
            path_id: nlri.path_id,
            attributes: attributes.cloned().unwrap_or_default(),
            source,
            received_at: Some(now),
            best: false,
            filtered: false,
            unresolved: false,
            stale: false,
            withdrawn: attributes.is_none(),
            uuid: None,
        };
        let announced = update.announced.iter().flat_map(|announcement| {
            announcement.nlri.iter().map(|nlri| (*nlri, Some(&announcement.attributes)))
        });
        let all = update.withdrawn.iter().map(|nlri| (*nlri, None)).chain(announced);
        if self.watchers.iter().any(|(watch, _)| watch.adj_in) {
            let paths: Vec<_> = all.clone().map(|(nlri, attributes)| view(nlri, attributes)).collect();
            self.tell(|watch| watch.adj_in, paths, Event::AdjIn);
        }
        if self.watchers.iter().any(|(watch, _)| watch.accepted) {
            let accepted = |(nlri, attributes): (Nlri, Option<_>)| {
                let found = attributes.and_then(|_: &Arc<Attributes>| self.accepted_view(id, &nlri.prefix));
                let mut paths = found.into_iter().flat_map(|found| found.paths);
                paths.find(|path| path.path_id == nlri.path_id).unwrap_or_else(|| view(nlri, None))
            };
            let paths: Vec<_> = all.map(accepted).collect();
            self.tell(|watch| watch.accepted, paths, Event::Accepted);
        }
        if let Some(family) = update.end_of_rib {
            let event = Event::EndOfRib(address, family);
            self.watchers
                .retain(|(watch, events)| !watch.end_of_rib || events.try_send(event.clone()).is_ok());
        }
    }

    fn tell(
        &mut self,
        is_meant: fn(&Watch) -> bool,
        paths: Vec<PathView>,
        event: fn(Vec<PathView>) -> Event,
    ) {
        if !paths.is_empty() {
            let event = event(paths);
            self.watchers
                .retain(|(watch, events)| !is_meant(watch) || events.try_send(event.clone()).is_ok());
        }
    }
}
