//! One copy of each attribute set.

use crate::attributes::Attributes;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::{hash::BuildHasher, sync::Arc};

/// Sets below which nobody looks for unused ones.
const SWEEP_MIN: usize = 4_096;

/// Keeps one copy of each attribute set, so that equal ones have one address.
#[derive(Debug)]
pub(super) struct Interner {
    /// With their hashes, which take long to make.
    sets: HashTable<(u64, Arc<Attributes>)>,
    hasher: DefaultHashBuilder,
    sweep_at: usize,
}

impl Interner {
    pub(super) fn new() -> Self {
        Self { sets: HashTable::new(), hasher: DefaultHashBuilder::default(), sweep_at: SWEEP_MIN }
    }

    /// The one copy that equals `attributes`.
    pub(super) fn intern(&mut self, attributes: Arc<Attributes>) -> Arc<Attributes> {
        if self.sets.len() >= self.sweep_at {
            self.sets.retain(|(_, set)| Arc::strong_count(set) > 1);
            self.sweep_at = (self.sets.len() * 2).max(SWEEP_MIN);
        }
        let hash = self.hasher.hash_one(&attributes);
        let same = |(other, set): &(u64, Arc<Attributes>)| *other == hash && *set == attributes;
        let entry = self.sets.entry(hash, same, |(hash, _)| *hash);
        Arc::clone(&entry.or_insert((hash, attributes)).get().1)
    }

    /// How many sets are kept.
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_one_address_and_unused_ones_go() {
        let mut interner = Interner::new();
        let set = |med| Arc::new(Attributes { med: Some(med), ..Attributes::default() });
        let kept = interner.intern(set(1));
        assert!(Arc::ptr_eq(&kept, &interner.intern(set(1))));
        for med in 0..100_000 {
            interner.intern(set(med));
        }
        assert!(interner.len() <= SWEEP_MIN + 1);
        assert!(Arc::ptr_eq(&kept, &interner.intern(set(1))));
    }
}
