//! All destinations and the paths to them: Adj-RIB-In of every peer and Loc-RIB in one.
//!
//! A destination has a number, which is its place. Numbers are reused once nobody can still mean the old destination.

use super::{PeerId, bits::Bits};
use crate::{
    attributes::Attributes,
    prefix::{Nlri, PathId, Prefix},
};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::{hash::BuildHasher, sync::Arc};

/// Destinations that share an allocation, so that growing moves none of them. Memory that was not written to is not there.
const CHUNK: usize = 16_384;

/// Who told us of a path. Small, as there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source(u32);

impl Source {
    /// Ourselves.
    pub(super) const LOCAL: Self = Self(u32::MAX);
    /// Nobody: nothing was sent.
    pub(super) const NONE: Self = Self(u32::MAX - 1);

    pub(super) fn peer(self) -> Option<PeerId> {
        (self < Self::NONE).then_some(PeerId(self.0))
    }
}

impl From<PeerId> for Source {
    fn from(peer: PeerId) -> Self {
        Self(peer.0)
    }
}

/// Why a path cannot be used although the peer announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exclusion {
    /// Our own AS is in the path (RFC 4271 section 9.1.2).
    OwnAs,
    /// We announced it first (RFC 4456 section 8).
    OwnOriginator,
    /// It went through our cluster (RFC 4456 section 8).
    OwnCluster,
    /// The import policy rejects it.
    Policy,
    /// Its next hop leads nowhere (RFC 4271 section 9.1.2.1).
    Unresolved,
}

/// How long a path has been without its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Staleness {
    /// The peer stands by it.
    #[default]
    Fresh,
    /// The peer is restarting, or sends its routes again (RFC 4724, 7313).
    Stale,
    /// The peer has been away for long (RFC 9494): used only if there is nothing else.
    LongLived,
}

/// A path to a destination.
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "path id is the word of RFC 7911")]
pub(super) struct Path {
    /// After the import policy.
    pub(super) attributes: Arc<Attributes>,
    /// As they came, where the policy changed them.
    pub(super) original: Option<Arc<Attributes>>,
    pub(super) source: Source,
    /// The peer's number for it.
    pub(super) path_id: PathId,
    /// Seconds since the start when it came.
    pub(super) since: u32,
    /// Our number for it, from 1, unique within the destination.
    pub(super) local_id: u16,
    pub(super) exclusion: Option<Exclusion>,
    pub(super) staleness: Staleness,
}

impl Path {
    /// The attributes as they came.
    pub(super) fn received(&self) -> &Arc<Attributes> {
        self.original.as_ref().unwrap_or(&self.attributes)
    }
}

/// The paths of a destination: mostly one, which needs no allocation.
#[derive(Clone, Debug, Default)]
pub(super) enum Paths {
    #[default]
    None,
    One(Path),
    Many(Vec<Path>),
}

impl Paths {
    pub(super) fn as_slice(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::None => &mut [],
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }

    pub(super) fn push(&mut self, path: Path) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(path),
            Self::One(first) => Self::Many(vec![first, path]),
            Self::Many(mut paths) => {
                paths.push(path);
                Self::Many(paths)
            }
        };
    }

    /// Takes out what `goes` says, and says whether that was anything.
    pub(super) fn remove(&mut self, goes: impl Fn(&Path) -> bool) -> bool {
        let before = self.as_slice().len();
        *self = match std::mem::take(self) {
            Self::None => Self::None,
            Self::One(path) if goes(&path) => Self::None,
            Self::One(path) => Self::One(path),
            Self::Many(mut paths) => {
                paths.retain(|path| !goes(path));
                match paths.len() {
                    0 | 1 => paths.pop().map_or(Self::None, Self::One),
                    _ => Self::Many(paths),
                }
            }
        };
        before != self.as_slice().len()
    }
}

/// A destination and what is known about it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) prefix: Prefix,
    /// The best one first, then those that are as good, then the rest.
    pub(super) paths: Paths,
    /// How many paths are used at once; 0 where none can be.
    pub(super) used: u8,
    /// The highest number that a path ever had here.
    pub(super) local_id_max: u16,
    /// Where the last change stands in the log, and the last one of the best path: the low half of the positions, which
    /// come around only after more changes than a log ever holds.
    pub(super) logged: u32,
    pub(super) best_logged: u32,
}

impl Slot {
    /// The path that is used and announced.
    pub(super) fn best(&self) -> Option<&Path> {
        if self.used == 0 { None } else { self.paths.as_slice().first() }
    }

    /// A number for a new path; `None` where all are taken.
    pub(super) fn free_local_id(&mut self) -> Option<u16> {
        let paths = self.paths.as_slice();
        if paths.len() >= usize::from(self.local_id_max) {
            self.local_id_max = self.local_id_max.checked_add(1)?;
            return Some(self.local_id_max);
        }
        let mut taken = Bits::default();
        for path in paths {
            taken.insert(path.local_id.into());
        }
        (1..=self.local_id_max).find(|id| !taken.contains((*id).into()))
    }

    /// The path of this source with this number.
    pub(super) fn position(&self, source: Source, path_id: PathId) -> Option<usize> {
        self.paths.as_slice().iter().position(|path| path.source == source && path.path_id == path_id)
    }

    /// How a peer is told of a path.
    pub(super) fn nlri(&self, local_id: u16) -> Nlri {
        Nlri { prefix: self.prefix, path_id: PathId(local_id.into()) }
    }
}

/// All destinations.
#[derive(Debug)]
pub(super) struct Table {
    chunks: Vec<Vec<Slot>>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    free: Vec<u32>,
    /// Destinations without paths that still have their number.
    pub(super) empty: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        let hasher = DefaultHashBuilder::default();
        Self { chunks: Vec::new(), numbers: HashTable::new(), hasher, free: Vec::new(), empty: 0 }
    }

    /// One more than the highest number.
    pub(super) fn end(&self) -> u32 {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len()) as u32
    }

    /// Destinations that have a number.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn slot(&self, number: u32) -> Option<&Slot> {
        self.chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)
    }

    pub(super) fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)
    }

    /// All destinations with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let slots = self.chunks.iter().flatten();
        (0_u32..).zip(slots)
    }

    pub(super) fn find(&self, prefix: &Prefix) -> Option<u32> {
        self.find_hashed(self.hasher.hash_one(prefix), prefix)
    }

    fn find_hashed(&self, hash: u64, prefix: &Prefix) -> Option<u32> {
        let same = |number: &u32| self.slot(*number).is_some_and(|slot| slot.prefix == *prefix);
        self.numbers.find(hash, same).copied()
    }

    /// The number of a destination, a new one if need be.
    pub(super) fn find_or_add(&mut self, prefix: Prefix) -> u32 {
        let hash = self.hasher.hash_one(prefix);
        if let Some(number) = self.find_hashed(hash, &prefix) {
            return number;
        }
        if self.numbers.len() == self.numbers.capacity() {
            self.grow();
        }
        let slot = Slot { prefix, paths: Paths::None, used: 0, local_id_max: 0, logged: 0, best_logged: 0 };
        let number = self.free.pop().unwrap_or_else(|| self.end());
        if let Some(place) = self.slot_mut(number) {
            *place = slot;
        } else {
            if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            if let Some(last) = self.chunks.last_mut() {
                last.push(slot);
            }
        }
        self.empty += 1;
        let Self { chunks, numbers, hasher, .. } = self;
        let prefix_of = |number: u32| chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK);
        let rehash = |number: &u32| prefix_of(*number).map_or(0, |slot| hasher.hash_one(slot.prefix));
        numbers.insert_unique(hash, number, rehash);
        number
    }

    /// Doubles the room for numbers. The table would do so by itself, but in the order of the hashes, where each look at a
    /// destination misses the caches, and with the old one still there.
    fn grow(&mut self) {
        let room = (self.numbers.len() * 2).max(CHUNK);
        self.numbers = HashTable::new();
        let mut numbers = HashTable::with_capacity(room);
        let mut unused = Bits::default();
        self.free.iter().for_each(|number| unused.insert(*number));
        for (number, slot) in self.iter().filter(|(number, _)| !unused.contains(*number)) {
            // There is room for all: nothing is moved.
            numbers.insert_unique(self.hasher.hash_one(slot.prefix), number, |_| 0);
        }
        self.numbers = numbers;
    }

    /// Gives up the numbers of destinations without paths that nobody needs; their memory too where that is all of them.
    pub(super) fn sweep(&mut self, needed: impl Fn(u32, &Slot) -> bool) {
        let Self { chunks, numbers, hasher, free, empty } = self;
        for (number, slot) in (0_u32..).zip(chunks.iter().flatten()) {
            if !slot.paths.as_slice().is_empty() || needed(number, slot) {
                continue;
            }
            // One that was given up before is not found.
            if let Ok(entry) = numbers.find_entry(hasher.hash_one(slot.prefix), |other| *other == number) {
                entry.remove();
                free.push(number);
                *empty -= 1;
            }
        }
        if numbers.is_empty() {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: u32) -> Prefix {
        Prefix::new(std::net::Ipv4Addr::from(n << 8).into(), 24).unwrap()
    }

    #[test]
    fn destinations_keep_their_numbers_until_swept() {
        let mut table = Table::new();
        for n in 0..10_000 {
            assert_eq!(table.find_or_add(prefix(n)), n);
        }
        assert_eq!((table.len(), table.end(), table.empty), (10_000, 10_000, 10_000));
        table.sweep(|number, _| number != 77 && number != 5_000);
        assert_eq!(table.find(&prefix(77)), None);
        assert_eq!(table.find(&prefix(76)), Some(76));
        let new = table.find_or_add(prefix(20_000));
        assert!(new == 77 || new == 5_000);
        assert_eq!(table.find(&prefix(20_000)), Some(new));
        assert_eq!(table.end(), 10_000);
    }

    #[test]
    fn a_table_that_is_swept_whole_holds_nothing() {
        let mut table = Table::new();
        for n in 0..40_000 {
            table.find_or_add(prefix(n));
        }
        table.sweep(|_, _| false);
        assert_eq!((table.len(), table.end(), table.empty, table.chunks.capacity()), (0, 0, 0, 0));
        assert_eq!(table.find_or_add(prefix(7)), 0);
    }

    #[test]
    fn growing_forgets_nothing_and_brings_nothing_back() {
        let mut table = Table::new();
        for n in 0..20_000 {
            table.find_or_add(prefix(n));
        }
        table.sweep(|number, _| number % 2 == 0);
        for n in 20_000..60_000 {
            table.find_or_add(prefix(n));
        }
        table.grow();
        for n in 0..60_000 {
            let is_there = n % 2 == 0 || n >= 20_000;
            let found = table.find(&prefix(n));
            assert_eq!(found.is_some(), is_there, "{n}");
            assert_eq!(
                found.and_then(|number| table.slot(number)).map(|slot| slot.prefix),
                found.map(|_| prefix(n))
            );
        }
        assert_eq!(table.len(), 50_000);
    }

    #[test]
    fn a_path_is_small() {
        assert!(size_of::<Path>() <= 32, "{}", size_of::<Path>());
        assert!(size_of::<Slot>() <= 64, "{}", size_of::<Slot>());
    }
}
