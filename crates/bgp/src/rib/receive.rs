//! What comes in: loop checks, import policy, limits.

use super::{
    Peer, Router, Source,
    graceful::with_community,
    peer::PeerId,
    table::{Exclusion, Path, Staleness},
};
use crate::{
    attributes::{Attributes, Community},
    number::{Asn, Family},
    policy::{Candidate, Verdict},
    prefix::{Nlri, Prefix},
    wire::Update,
};
use std::{sync::Arc, time::Duration};

/// Changes after which peers are served although nobody asked, so that the log stays short.
const LOG_MAX: u64 = if cfg!(test) { 4 } else { 65_536 };

/// A peer sent more prefixes than it may. The session shall end (RFC 4486, Cease 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {max} prefixes of {family}: raise the limit or let the peer send fewer")]
pub struct LimitExceeded {
    /// Of which family.
    pub family: Family,
    /// How many it may send.
    pub max: u32,
}

/// What a peer has in a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    Excluded,
    Usable,
}

impl From<Option<Exclusion>> for Held {
    fn from(exclusion: Option<Exclusion>) -> Self {
        if exclusion.is_some() { Self::Excluded } else { Self::Usable }
    }
}

/// A path as the import policy leaves it.
struct Imported {
    attributes: Arc<Attributes>,
    original: Option<Arc<Attributes>>,
    exclusion: Option<Exclusion>,
}

impl Router {
    /// Takes an UPDATE of a peer that has a session.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`]: routes up to the limit were taken.
    pub fn receive(&mut self, id: PeerId, update: Update, now: Duration) -> Result<(), LimitExceeded> {
        let source = Source::from(id);
        for nlri in &update.withdrawn {
            self.remove(source, nlri);
        }
        for announcement in update.announced {
            let attributes = self.interner.intern(announcement.attributes);
            let exclusion = self.exclusion(id, &attributes);
            for nlri in announcement.nlri {
                self.insert(source, nlri, &attributes, exclusion, now);
                self.check_limit(id, nlri.prefix.family())?;
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(id, family);
        }
        self.shorten_log();
        Ok(())
    }

    /// Serves peers where many changes wait for them.
    fn shorten_log(&mut self) {
        if self.log.numbers.len() as u64 > LOG_MAX {
            self.flush_all();
        }
    }

    fn check_limit(&self, id: PeerId, family: Family) -> Result<(), LimitExceeded> {
        let Some(peer) = self.peer(id) else { return Ok(()) };
        match peer.config.prefix_limits.get(&family) {
            Some(limit) if peer.counts[family as usize].received > limit.max => {
                Err(LimitExceeded { family, max: limit.max })
            }
            _ => Ok(()),
        }
    }

    /// What is wrong with a route whatever the policy says.
    fn exclusion(&self, id: PeerId, attributes: &Attributes) -> Option<Exclusion> {
        let peer = self.peer(id)?;
        let local_as = peer.last.as_ref().map_or(Asn::ZERO, |negotiated| negotiated.local_as);
        let times = |asn: Asn| attributes.as_path.count(asn);
        let allowed = usize::from(peer.config.allow_own_as);
        if times(local_as) > allowed || times(self.config.asn) > allowed {
            return Some(Exclusion::OwnAs);
        }
        if attributes.originator_id == Some(self.config.router_id) {
            return Some(Exclusion::OwnOriginator);
        }
        // RFC 4456 section 8, for each cluster that we are in.
        let own = |cluster| {
            cluster == self.config.cluster_id()
                || self.peers.iter().flatten().any(|peer| peer.config.cluster_id == Some(cluster))
        };
        attributes.cluster_list.iter().any(|cluster| own(*cluster)).then_some(Exclusion::OwnCluster)
    }

    /// What the import policy makes of a route. Our own pass no policy.
    fn import(
        &mut self,
        source: Source,
        prefix: &Prefix,
        attributes: &Arc<Attributes>,
        exclusion: Option<Exclusion>,
    ) -> Imported {
        let plain = |exclusion| Imported { attributes: Arc::clone(attributes), original: None, exclusion };
        let peer = source.peer().and_then(|id| self.peer(id));
        let Some(peer) = peer.filter(|_| exclusion.is_none()) else { return plain(exclusion) };
        let candidate = Candidate { prefix, attributes, source: peer.neighbor(), target: None };
        match peer.config.import.verdict(&candidate) {
            Verdict::Accept => plain(None),
            Verdict::Reject => plain(Some(Exclusion::Policy)),
            Verdict::Change(changed) => Imported {
                attributes: self.interner.intern(Arc::from(changed)),
                original: Some(Arc::clone(attributes)),
                exclusion: None,
            },
        }
    }

    /// Adds a path, or replaces the one that the source announced before.
    pub(super) fn insert(
        &mut self,
        source: Source,
        nlri: Nlri,
        attributes: &Arc<Attributes>,
        exclusion: Option<Exclusion>,
        now: Duration,
    ) {
        self.put(source, nlri, attributes, exclusion, (now, Staleness::Fresh));
    }

    /// Puts a path where it belongs, as the import policy leaves it now. `known`: since when, and how stale it is.
    fn put(
        &mut self,
        source: Source,
        nlri: Nlri,
        attributes: &Arc<Attributes>,
        exclusion: Option<Exclusion>,
        known: (Duration, Staleness),
    ) {
        let (since, staleness) = known;
        let mut imported = self.import(source, &nlri.prefix, attributes, exclusion);
        if imported.exclusion.is_none() {
            imported.exclusion = self.unresolved(source, &imported.attributes);
        }
        if staleness == Staleness::LongLived {
            let marked = with_community(&imported.attributes, Community::LLGR_STALE);
            imported.original.get_or_insert_with(|| Arc::clone(attributes));
            imported.attributes = self.interner.intern(Arc::new(marked));
        }
        let number = self.table.find_or_add(nlri.prefix);
        let Some(slot) = self.table.slot_mut(number) else { return };
        let position = slot.position(source, nlri.path_id);
        let old = position.and_then(|at| slot.paths.as_mut_slice().get_mut(at));
        let (local_id, before) = match old {
            Some(old) => {
                let same = Arc::ptr_eq(&old.attributes, &imported.attributes)
                    && Arc::ptr_eq(old.received(), attributes)
                    && old.exclusion == imported.exclusion;
                if same {
                    old.staleness = staleness;
                    return;
                }
                (old.local_id, Held::from(old.exclusion))
            }
            None => match slot.free_local_id() {
                Some(local_id) => (local_id, Held::Nothing),
                None => return,
            },
        };
        let path = Path {
            attributes: imported.attributes,
            original: imported.original,
            source,
            path_id: nlri.path_id,
            since: u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            local_id,
            exclusion: imported.exclusion,
            staleness,
        };
        self.count(source, nlri.prefix.family(), before, path.exclusion.into());
        self.edit(number, |slot| match position.and_then(|at| slot.paths.as_mut_slice().get_mut(at)) {
            Some(place) => *place = path,
            None => slot.paths.push(path),
        });
        self.monitors.touch_source(source, number);
    }

    /// Takes a path away; says whether there was one.
    pub(super) fn remove(&mut self, source: Source, nlri: &Nlri) -> bool {
        let Some(number) = self.table.find(&nlri.prefix) else { return false };
        self.remove_from(number, |path| path.source == source && path.path_id == nlri.path_id)
    }

    /// Takes the paths away from a peer's that `goes` says.
    pub(super) fn remove_paths(&mut self, id: PeerId, goes: impl Fn(&Path) -> bool) {
        let source = Source::from(id);
        self.remove_paths_of(id, |_, path| path.source == source && goes(path));
    }

    /// Takes the paths away from a peer's that `goes` says, which sees the destination too.
    pub(super) fn remove_paths_of(&mut self, id: PeerId, goes: impl Fn(&Prefix, &Path) -> bool) {
        for number in self.numbers_of(id) {
            let Some(prefix) = self.table.slot(number).map(|slot| slot.prefix) else { continue };
            let source = Source::from(id);
            self.remove_from(number, |path| path.source == source && goes(&prefix, path));
            self.shorten_log();
        }
    }

    fn remove_from(&mut self, number: u32, goes: impl Fn(&Path) -> bool) -> bool {
        let Some(slot) = self.table.slot(number) else { return false };
        let family = slot.prefix.family();
        let gone = slot.paths.as_slice().iter().filter(|path| goes(path));
        let mut gone = gone.map(|path| (path.source, path.exclusion));
        let Some(first) = gone.next() else { return false };
        // Mostly there is no other, and nothing to allocate.
        let others: Vec<_> = gone.collect();
        for (source, exclusion) in std::iter::once(first).chain(others) {
            self.count(source, family, exclusion.into(), Held::Nothing);
            self.monitors.touch_source(source, number);
        }
        self.edit(number, |slot| {
            slot.paths.remove(goes);
        });
        true
    }

    /// Destinations to which a peer has a path.
    pub(super) fn numbers_of(&self, id: PeerId) -> Vec<u32> {
        let counts = self.peer(id).map_or(0, |peer| peer.counts.iter().map(|counts| counts.received).sum());
        if counts == 0 {
            return Vec::new();
        }
        let source = Source::from(id);
        let has = |paths: &[Path]| paths.iter().any(|path| path.source == source);
        let mut numbers = Vec::with_capacity(counts.min(self.table.len() as u32) as usize);
        let own = self.table.iter().filter(|(_, slot)| has(slot.paths.as_slice()));
        numbers.extend(own.map(|(number, _)| number));
        numbers
    }

    /// Decides anew about everything that a peer sent. What is stale stays so: the peer said nothing.
    pub(super) fn import_again(&mut self, id: PeerId) {
        let source = Source::from(id);
        for number in self.numbers_of(id) {
            let Some(slot) = self.table.slot(number) else { continue };
            let prefix = slot.prefix;
            let own = slot.paths.as_slice().iter().filter(|path| path.source == source);
            let own: Vec<_> = own
                .map(|path| (path.path_id, Arc::clone(path.received()), path.since, path.staleness))
                .collect();
            for (path_id, received, since, staleness) in own {
                let exclusion = self.exclusion(id, &received);
                let known = (Duration::from_secs(since.into()), staleness);
                self.put(source, Nlri { prefix, path_id }, &received, exclusion, known);
            }
        }
    }

    /// Notes that all destinations of a peer may look different to others.
    pub(super) fn log_all_of(&mut self, id: PeerId) {
        for number in self.numbers_of(id) {
            let at = self.log.end();
            if let Some(slot) = self.table.slot_mut(number) {
                (slot.logged, slot.best_logged) = (at as u32, at as u32);
                self.log.numbers.push_back(number);
            }
        }
    }

    /// Counts a path that changed.
    pub(super) fn count(&mut self, source: Source, family: Family, before: Held, after: Held) {
        let peer = source.peer().and_then(|id| self.peer_mut(id));
        let Some(counts) = peer.and_then(|peer: &mut Peer| peer.counts.get_mut(family as usize)) else {
            return;
        };
        let received = |held| u32::from(held != Held::Nothing);
        let accepted = |held| u32::from(held == Held::Usable);
        counts.received = counts.received + received(after) - received(before);
        counts.accepted = counts.accepted + accepted(after) - accepted(before);
    }
}
