//! What one can see of the routes.

use super::{
    Bits, Peer, Router, Source, Teller,
    decision::{Contender, Step, compare},
    export::Exporter,
    peer::{Counts, PeerId},
    table::{Exclusion, Path, Slot, Staleness},
    teller,
};
use crate::{
    attributes::Attributes,
    number::Family,
    prefix::{Nlri, PathId, Prefix},
};
use std::{cmp::Ordering, sync::Arc, time::Duration};

/// A path to a destination.
#[derive(Clone, Copy, Debug)]
pub struct PathView<'a> {
    /// What it carries, after the import policy.
    pub attributes: &'a Arc<Attributes>,
    /// What it carried when it came.
    pub received: &'a Arc<Attributes>,
    /// Who announced it; `None` for our own.
    pub source: Option<PeerId>,
    /// The number that the peer gave it.
    pub path_id: PathId,
    /// The number that we give it.
    pub local_id: PathId,
    /// When it came, in whole seconds.
    pub since: Duration,
    /// Why it cannot be used.
    pub exclusion: Option<Exclusion>,
    /// Whether its peer stands by it.
    pub staleness: Staleness,
    /// It is the best.
    pub best: bool,
    /// It is used: the best, or as good.
    pub used: bool,
    /// What makes the best one better; `None` for the best and for excluded ones.
    pub worse_by: Option<Step>,
}

/// A destination with all paths to it, the best first.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    /// Where it is.
    pub prefix: Prefix,
    /// All paths, excluded ones too.
    pub paths: Vec<PathView<'a>>,
}

/// A destination whose used paths are others than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it is.
    pub prefix: Prefix,
    /// The paths that are used now, the best first: who announced it (`None` for our own), and what it carries. None at
    /// all: it cannot be reached any longer.
    pub used: Vec<(Option<PeerId>, Arc<Attributes>)>,
}

impl Router {
    /// Says whether anybody wants to know of changes; at first somebody does. Those from before are forgotten where nobody
    /// does.
    pub fn watch_changes(&mut self, is_watched: bool) {
        if self.is_watched && !is_watched {
            self.changed = Bits::default();
        }
        self.is_watched = is_watched;
    }

    /// The next destination that changed, each once however often it did. Ask until `None`, and again after each input: a
    /// destination that is gone keeps its place until it was told here. `None` while waiting for the peers' routes
    /// after a restart, so that nothing is taken from the kernel too early.
    pub fn poll_change(&mut self) -> Option<Change> {
        if self.is_deferring() || !self.is_watched {
            return None;
        }
        let number = self.changed.next_from(self.changed_from).or_else(|| self.changed.next_from(0))?;
        self.changed.remove(number);
        self.changed_from = number + 1;
        let slot = self.table.slot(number)?;
        let used = slot.paths.as_slice().iter().take(slot.used.into());
        let used = used.map(|path| (path.source.peer(), Arc::clone(&path.attributes))).collect();
        Some(Change { prefix: slot.prefix, used })
    }

    /// All destinations of a family that have a path, in no particular order.
    pub fn destinations(&self, family: Family) -> impl Iterator<Item = Destination<'_>> {
        self.table
            .iter()
            .map(|(_, slot)| slot)
            .filter(move |slot| slot.prefix.family() == family && !slot.paths.as_slice().is_empty())
            .map(|slot| self.destination(slot))
    }

    /// Destinations that have a path, among the `count` places from `place` on, and the place to go on at; `None`: there
    /// are no more. Whoever goes from 0 to the end finds each destination that is there all the while, once.
    pub fn destinations_from(
        &self,
        place: u32,
        count: u32,
    ) -> (impl Iterator<Item = Destination<'_>>, Option<u32>) {
        let end = self.table.end();
        let until = place.saturating_add(count).min(end);
        let slots = (place..until).filter_map(|number| self.table.slot(number));
        let with_paths = slots.filter(|slot| !slot.paths.as_slice().is_empty());
        (with_paths.map(|slot| self.destination(slot)), (until < end).then_some(until))
    }

    /// One destination, if it has a path.
    pub fn lookup(&self, prefix: &Prefix) -> Option<Destination<'_>> {
        let slot = self.table.slot(self.table.find(prefix)?)?;
        (!slot.paths.as_slice().is_empty()).then(|| self.destination(slot))
    }

    /// How many destinations have a path, and how many paths there are.
    pub fn totals(&self, family: Family) -> (usize, usize) {
        let slots = self.table.iter().map(|(_, slot)| slot).filter(|slot| slot.prefix.family() == family);
        slots
            .map(|slot| slot.paths.as_slice().len())
            .filter(|paths| *paths > 0)
            .fold((0, 0), |(destinations, all), paths| (destinations + 1, all + paths))
    }

    /// How many destinations of a family have a best path: the size of Loc-RIB.
    pub fn reachable(&self, family: Family) -> u32 {
        self.reachable[family as usize]
    }

    /// How many different attribute sets are kept.
    pub fn attribute_sets(&self) -> usize {
        self.interner.len()
    }

    /// What a peer announced, excluded paths too: its Adj-RIB-In.
    pub fn adj_in(&self, id: PeerId) -> impl Iterator<Item = (Prefix, PathView<'_>)> {
        let source = Source::from(id);
        self.table.iter().flat_map(move |(_, slot)| {
            let own = slot.paths.as_slice().iter().enumerate().filter(move |(_, path)| path.source == source);
            own.map(move |(place, path)| (slot.prefix, self.path_view(slot, place, path)))
        })
    }

    /// What a peer was told, or will be once it has taken what waits for it: its Adj-RIB-Out.
    pub fn adj_out(&self, id: PeerId) -> Vec<(Nlri, Attributes)> {
        let group = self.peer(id).and_then(|peer| self.groups.get(peer.group?.0)?.as_ref());
        let Some(group) = group else { return Vec::new() };
        let exporter = Exporter {
            key: &group.key,
            policy: &*group.policy,
            peers: &self.peers,
            client_to_client: self.config.client_to_client,
        };
        let mut told = Vec::new();
        for (number, slot) in self.table.iter() {
            for (path, local_id) in group.told_paths(number, slot, id) {
                let Some(admitted) = exporter.admit(&slot.prefix, path) else { continue };
                let dressed = exporter.dress(path, admitted.changed.as_deref(), slot.prefix.family());
                told.extend(dressed.map(|attributes| (slot.nlri(local_id), attributes)));
            }
        }
        told
    }

    /// How many paths of a family a peer announced.
    pub fn counts(&self, id: PeerId, family: Family) -> Counts {
        self.peer(id).map_or(Counts::default(), |peer| peer.counts[family as usize])
    }

    /// How many destinations of a family a peer was told, or will be. Looks at all destinations where paths have ids.
    pub fn advertised(&self, id: PeerId, family: Family) -> usize {
        let group = self.peer(id).and_then(|peer| self.groups.get(peer.group?.0)?.as_ref());
        group.map_or(0, |group| {
            if !group.key.encode.add_path.contains(family) {
                return group.told_count(family, id) as usize;
            }
            let of_family = self.table.iter().filter(|(_, slot)| slot.prefix.family() == family);
            of_family.filter(|(number, _)| group.told(*number, id)).count()
        })
    }

    fn destination<'a>(&'a self, slot: &'a Slot) -> Destination<'a> {
        let paths = slot.paths.as_slice().iter().enumerate();
        let paths = paths.map(|(place, path)| self.path_view(slot, place, path)).collect();
        Destination { prefix: slot.prefix, paths }
    }

    fn path_view<'a>(&'a self, slot: &'a Slot, place: usize, path: &'a Path) -> PathView<'a> {
        let best = slot.best().filter(|_| place > 0 && path.exclusion.is_none());
        PathView {
            attributes: &path.attributes,
            received: path.received(),
            source: path.source.peer(),
            path_id: path.path_id,
            local_id: PathId(path.local_id.into()),
            since: Duration::from_secs(path.since.into()),
            exclusion: path.exclusion,
            staleness: path.staleness,
            best: place == 0 && slot.used > 0,
            used: place < usize::from(slot.used),
            worse_by: best.and_then(|best| worse_by(best, path, &self.peers, self.config.decision)),
        }
    }
}

/// What makes `best` better than another path. Where it is only better than a third one that is better than `path`,
/// because of a MED, the MED is the reason.
fn worse_by(best: &Path, path: &Path, peers: &[Option<Peer>], config: super::DecisionConfig) -> Option<Step> {
    let contender = |path| -> Contender<'_> {
        let teller: Teller = teller(path, peers);
        Contender { path, teller }
    };
    match compare(&contender(best), &contender(path), true, config)? {
        (Ordering::Less, step) => Some(step),
        _ => Some(Step::Med),
    }
}
