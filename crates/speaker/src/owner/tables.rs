//! Copies of routes for who asks: first which prefixes there are, then the paths to some of them.

use super::{Owner, Peer};
use crate::{
    handle::Refusal,
    view::{DestinationView, FamilyCounts, Lookup, PathView, SourceView, Table, TableCounts},
};
use isthmus_bgp::{
    Family, Nlri, Prefix,
    rib::{self, Change, Exclusion, PeerId, Staleness},
    session::PeerKind,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

impl Owner {
    /// The prefixes of a table, in order.
    pub(super) fn prefixes(
        &self,
        table: Table,
        family: Family,
        lookups: &[Lookup],
    ) -> Result<Vec<Prefix>, Refusal> {
        self.check(table)?;
        let mut prefixes: Vec<Prefix> = if lookups.is_empty() {
            self.all_prefixes(table, family)?
        } else {
            let mut found = Vec::new();
            for lookup in lookups {
                self.look_up(table, family, *lookup, &mut found)?;
            }
            found
        };
        prefixes.sort_unstable();
        prefixes.dedup();
        Ok(prefixes)
    }

    fn all_prefixes(&self, table: Table, family: Family) -> Result<Vec<Prefix>, Refusal> {
        Ok(match table {
            Table::Global => self.router.destinations(family).map(|one| one.prefix).collect(),
            Table::AdjIn(address) | Table::Accepted(address) => {
                let paths = self.router.adj_in(self.peer(address)?.id);
                let is_meant =
                    |path: &rib::PathView<'_>| path.exclusion.is_none() || matches!(table, Table::AdjIn(_));
                let paths = paths.filter(|(_, path)| is_meant(path));
                paths.map(|(prefix, _)| prefix).filter(|prefix| prefix.family() == family).collect()
            }
            Table::AdjOut(address) => {
                let told = self.router.adj_out(self.peer(address)?.id);
                let prefixes = told.iter().map(|(nlri, _)| nlri.prefix);
                prefixes.filter(|prefix| prefix.family() == family).collect()
            }
        })
    }

    fn look_up(
        &self,
        table: Table,
        family: Family,
        lookup: Lookup,
        found: &mut Vec<Prefix>,
    ) -> Result<(), Refusal> {
        match lookup {
            Lookup::Exact(prefix) => found.push(prefix),
            Lookup::Longer(prefix) => {
                let all = self.all_prefixes(table, family)?;
                found.extend(all.into_iter().filter(|other| prefix.contains(other)));
            }
            Lookup::Shorter(prefix) => found.extend(around(prefix.address(), prefix.len())),
            Lookup::Covering(address) => {
                let all = around(address, Family::of(address).bits());
                let has_path =
                    |prefix: &Prefix| self.paths(table, &[*prefix]).is_ok_and(|found| !found.is_empty());
                found.extend(all.rev().find(has_path));
            }
        }
        Ok(())
    }

    /// The paths to these prefixes. Those to which there is none are left out.
    pub(super) fn paths(&self, table: Table, prefixes: &[Prefix]) -> Result<Vec<DestinationView>, Refusal> {
        let views = match table {
            Table::Global => prefixes.iter().filter_map(|prefix| self.global_view(prefix)).collect(),
            Table::AdjIn(address) => {
                let id = self.peer(address)?.id;
                prefixes.iter().filter_map(|prefix| self.adj_in_view(id, prefix)).collect()
            }
            Table::Accepted(address) => {
                let id = self.peer(address)?.id;
                prefixes.iter().filter_map(|prefix| self.accepted_view(id, prefix)).collect()
            }
            Table::AdjOut(address) => {
                let peer = self.peer(address)?;
                let mut told: BTreeMap<Prefix, Vec<PathView>> = BTreeMap::new();
                for (nlri, attributes) in self.router.adj_out(peer.id) {
                    if prefixes.binary_search(&nlri.prefix).is_ok() {
                        told.entry(nlri.prefix).or_default().push(self.adj_out_view(nlri, attributes));
                    }
                }
                told.into_iter().map(|(prefix, paths)| DestinationView { prefix, paths }).collect()
            }
        };
        Ok(views)
    }

    fn check(&self, table: Table) -> Result<(), Refusal> {
        match table {
            Table::Global => Ok(()),
            Table::AdjIn(address) | Table::Accepted(address) | Table::AdjOut(address) => {
                self.peer(address).map(drop)
            }
        }
    }

    fn global_view(&self, prefix: &Prefix) -> Option<DestinationView> {
        let destination = self.router.lookup(prefix)?;
        let usable = destination.paths.iter().filter(|path| path.exclusion.is_none());
        let paths: Vec<_> = usable.map(|path| self.path_view(*prefix, path)).collect();
        (!paths.is_empty()).then_some(DestinationView { prefix: *prefix, paths })
    }

    fn adj_in_view(&self, id: PeerId, prefix: &Prefix) -> Option<DestinationView> {
        let destination = self.router.lookup(prefix)?;
        let own = destination.paths.iter().filter(|path| path.source == Some(id));
        let paths: Vec<_> = own
            .map(|path| PathView {
                attributes: path.received.clone(),
                best: false,
                ..self.path_view(*prefix, path)
            })
            .collect();
        (!paths.is_empty()).then_some(DestinationView { prefix: *prefix, paths })
    }

    pub(super) fn accepted_view(&self, id: PeerId, prefix: &Prefix) -> Option<DestinationView> {
        let destination = self.router.lookup(prefix)?;
        let own = destination.paths.iter().filter(|path| path.source == Some(id) && path.exclusion.is_none());
        let paths: Vec<_> =
            own.map(|path| PathView { best: false, ..self.path_view(*prefix, path) }).collect();
        (!paths.is_empty()).then_some(DestinationView { prefix: *prefix, paths })
    }

    fn adj_out_view(&self, nlri: Nlri, attributes: isthmus_bgp::Attributes) -> PathView {
        let best = self.router.lookup(&nlri.prefix);
        let best = best.as_ref().and_then(|destination| destination.paths.first());
        PathView {
            prefix: nlri.prefix,
            path_id: nlri.path_id,
            attributes: Arc::new(attributes),
            source: best.and_then(|path| self.source_view(path.source?)),
            received_at: best.map(|path| self.at(path.since)),
            best: false,
            filtered: false,
            unresolved: false,
            stale: false,
            withdrawn: false,
            uuid: None,
        }
    }

    pub(super) fn path_view(&self, prefix: Prefix, path: &rib::PathView<'_>) -> PathView {
        let nlri = Nlri { prefix, path_id: path.path_id };
        let local = self.local.get(&nlri).filter(|_| path.source.is_none());
        PathView {
            prefix,
            path_id: path.path_id,
            attributes: path.attributes.clone(),
            source: path.source.and_then(|id| self.source_view(id)),
            received_at: Some(local.map_or_else(|| self.at(path.since), |local| local.since)),
            best: path.best,
            // By policy, or because our own AS or cluster is in it.
            filtered: path.exclusion.is_some_and(|why| why != Exclusion::Unresolved),
            unresolved: path.exclusion == Some(Exclusion::Unresolved),
            stale: path.staleness != Staleness::Fresh,
            withdrawn: false,
            uuid: local.map(|local| local.name),
        }
    }

    pub(super) fn source_view(&self, id: PeerId) -> Option<SourceView> {
        let peer = self.peers.get(self.by_id.get(&id)?)?;
        let negotiated = peer.last.as_ref()?;
        Some(SourceView {
            address: peer.address,
            asn: negotiated.peer_as,
            router_id: negotiated.peer_id,
            external: negotiated.kind == PeerKind::External,
        })
    }

    fn at(&self, since: Duration) -> std::time::SystemTime {
        self.started_at + since
    }

    /// How many routes a table has.
    pub(super) fn counts(&self, table: Table, family: Family) -> Result<TableCounts, Refusal> {
        let counts = |paths: usize, accepted: u64| TableCounts {
            destinations: paths as u64,
            paths: paths as u64,
            accepted,
        };
        Ok(match table {
            Table::Global => {
                // What cannot be used is not in this table, though the engine keeps it beside what can.
                let usable = |one: rib::Destination<'_>| {
                    one.paths.iter().filter(|path| path.exclusion.is_none()).count()
                };
                let destinations = self.router.destinations(family).map(usable).filter(|paths| *paths > 0);
                let (destinations, paths) =
                    destinations.fold((0, 0), |(all, sum), paths| (all + 1, sum + paths));
                TableCounts { destinations, ..counts(paths, 0) }
            }
            Table::Accepted(address) => {
                let found = self.router.counts(self.peer(address)?.id, family);
                counts(found.accepted as usize, u64::from(found.accepted))
            }
            Table::AdjIn(address) => {
                let found = self.router.counts(self.peer(address)?.id, family);
                counts(found.received as usize, u64::from(found.accepted))
            }
            Table::AdjOut(address) => counts(self.router.advertised(self.peer(address)?.id, family), 0),
        })
    }

    /// The routes of a neighbour by family. What it was sent is counted only if asked for, because all routes are looked at.
    pub(super) fn family_counts(&self, peer: &Peer, advertised: bool) -> Vec<FamilyCounts> {
        let negotiated = peer.last.as_ref().filter(|_| peer.epoch.is_some());
        let families = negotiated.map(|negotiated| negotiated.families).unwrap_or_default();
        let family_counts = families.iter().map(|family| {
            let counts = self.router.counts(peer.id, family);
            FamilyCounts {
                family,
                received: u64::from(counts.received),
                accepted: u64::from(counts.accepted),
                advertised: if advertised { self.router.advertised(peer.id, family) as u64 } else { 0 },
            }
        });
        family_counts.collect()
    }

    /// A change of the best path, for watchers.
    pub(super) fn change_view(&self, change: &Change) -> PathView {
        if let Some(best) = self.global_view(&change.prefix).and_then(|view| view.paths.into_iter().next()) {
            return best;
        }
        PathView {
            prefix: change.prefix,
            path_id: isthmus_bgp::PathId(0),
            attributes: Arc::default(),
            source: None,
            received_at: Some(std::time::SystemTime::now()),
            best: false,
            filtered: false,
            unresolved: false,
            stale: false,
            withdrawn: true,
            uuid: None,
        }
    }
}

/// The prefixes that hold an address, the widest first, none longer than `len`.
fn around(address: IpAddr, len: u8) -> impl DoubleEndedIterator<Item = Prefix> {
    (0..=len).filter_map(move |len| Prefix::new(address, len))
}
