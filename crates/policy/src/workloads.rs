//! Workloads as small numbers, so that a million rules stay small.

use isthmus_core::Identity;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Stands for a workload as long as a rule or an identity names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const MIN: Self = Self(0);
    pub(crate) const MAX: Self = Self(u32::MAX);
}

/// All workloads that a rule or an identity names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workloads {
    slots: BTreeMap<Uuid, Slot>,
    held: Vec<Workload>,
    free: Vec<Slot>,
}

#[derive(Clone, Debug, Default)]
struct Workload {
    uuid: Uuid,
    /// Sorted; nearly always one.
    identities: Vec<Identity>,
    /// How often rules name it.
    named: u32,
}

impl Workloads {
    /// A rule names this workload.
    pub(crate) fn hold(&mut self, uuid: Uuid) -> Slot {
        let slot = self.slot(uuid);
        self.held[slot.0 as usize].named += 1;
        slot
    }

    /// A rule does not name it any more.
    pub(crate) fn release(&mut self, slot: Slot) {
        self.held[slot.0 as usize].named -= 1;
        self.free_if_unused(slot);
    }

    /// The workload has this identity.
    pub(crate) fn add_identity(&mut self, uuid: Uuid, identity: Identity) -> Slot {
        let slot = self.slot(uuid);
        let identities = &mut self.held[slot.0 as usize].identities;
        if let Err(place) = identities.binary_search(&identity) {
            identities.insert(place, identity);
        }
        slot
    }

    /// The workload has it no more.
    pub(crate) fn remove_identity(&mut self, slot: Slot, identity: Identity) {
        self.held[slot.0 as usize].identities.retain(|held| *held != identity);
        self.free_if_unused(slot);
    }

    /// The identities of a workload, sorted.
    pub(crate) fn identities(&self, slot: Slot) -> &[Identity] {
        &self.held[slot.0 as usize].identities
    }

    pub(crate) fn uuid(&self, slot: Slot) -> Uuid {
        self.held[slot.0 as usize].uuid
    }

    /// Whether no rule and no identity names any.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.free.len() == self.held.len()
    }

    fn slot(&mut self, uuid: Uuid) -> Slot {
        if let Some(slot) = self.slots.get(&uuid) {
            return *slot;
        }
        let workload = Workload { uuid, ..Workload::default() };
        let slot = if let Some(slot) = self.free.pop() {
            self.held[slot.0 as usize] = workload;
            slot
        } else {
            self.held.push(workload);
            Slot(self.held.len() as u32 - 1)
        };
        self.slots.insert(uuid, slot);
        slot
    }

    fn free_if_unused(&mut self, slot: Slot) {
        let workload = &self.held[slot.0 as usize];
        if workload.named == 0 && workload.identities.is_empty() {
            self.slots.remove(&workload.uuid);
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_that_nothing_names_gives_its_slot_to_the_next() {
        let mut workloads = Workloads::default();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let identity = Identity::new(256).unwrap();
        let slot = workloads.hold(a);
        assert_eq!(workloads.hold(a), slot);
        assert_eq!(workloads.add_identity(a, identity), slot);
        workloads.release(slot);
        workloads.release(slot);
        assert_eq!(workloads.identities(slot), [identity]);
        workloads.remove_identity(slot, identity);
        assert_eq!(workloads.hold(b), slot);
        assert_eq!((workloads.uuid(slot), workloads.identities(slot)), (b, &[][..]));
        assert_ne!(workloads.hold(a), slot);
    }
}
