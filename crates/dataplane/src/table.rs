//! Verdict tables in the kernel: which identity has which slot, and what its table holds.
//!
//! A change of one rule is one entry. A larger change builds a second table beside the first, under a new number, and the
//! slot changes over. A slot's value is written in steps of one field each, so that a program that reads it meanwhile sees
//! the old table or the new one, never a mixture: first the kinds of keys of both, then the number of the table, then the
//! kinds of the new one.

use crate::{
    error::ApplyError,
    model::{Judgement, Table, TableRule},
    program::Maps,
};
use isthmus_core::{DefaultVerdict, DenyAnswer, Identity};
use isthmus_dataplane_common::{
    PolicyKey, PolicyValue, SLOT_CLOSED, SLOT_REJECT, SlotValue,
    verdict::{judge, port_prefixes, tuple},
};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Changes up to this many entries are made in place.
const IN_PLACE_MAX: usize = 1;

/// The tables that are loaded.
pub(crate) struct Tables {
    inner: Mutex<Inner>,
    slots: u32,
    entries_max: u64,
}

struct Inner {
    by_identity: HashMap<Identity, Loaded>,
    free_slots: Vec<u32>,
    next_table: u32,
    next_generation: u32,
    entries: u64,
}

struct Loaded {
    slot: u32,
    value: SlotValue,
    /// Sorted by key. Keys have the table's number in `value`.
    entries: Vec<(PolicyKey, PolicyValue)>,
}

impl Tables {
    /// Reads what an earlier agent left in the kernel. Entries of tables that no slot names are removed.
    pub(crate) fn adopt(maps: &Maps, slots: u32, entries_max: u32) -> Result<Self, ApplyError> {
        let mut by_table = BTreeMap::<u32, Vec<(PolicyKey, PolicyValue)>>::new();
        maps.policy
            .for_each_batch(|keys, values| {
                for (key, value) in keys.iter().zip(values) {
                    by_table.entry(key.table).or_default().push((*key, *value));
                }
            })
            .map_err(ApplyError::of("read the loaded rules"))?;
        let next_table = by_table.keys().max().map_or(1, |last| last + 1);
        let mut inner = Inner {
            by_identity: HashMap::new(),
            free_slots: Vec::new(),
            next_table,
            next_generation: 1,
            entries: 0,
        };
        for slot in (0..slots).rev() {
            let value =
                maps.slot.value(&slot).map_err(ApplyError::of("read the loaded tables"))?.unwrap_or_default();
            inner.next_generation = inner.next_generation.max(value.generation.wrapping_add(1));
            inner.next_table = inner.next_table.max(value.table + 1);
            match Identity::new(value.identity) {
                Ok(identity) if value.table != 0 => {
                    let mut entries = by_table.remove(&value.table).unwrap_or_default();
                    entries.sort_unstable_by_key(|(key, _)| *key);
                    inner.entries += entries.len() as u64;
                    inner.by_identity.insert(identity, Loaded { slot, value, entries });
                }
                _ => inner.free_slots.push(slot),
            }
        }
        let stale: Vec<_> = by_table.into_values().flatten().map(|(key, _)| key).collect();
        maps.policy.remove_batch(&stale).map_err(ApplyError::of("remove rules of an unfinished change"))?;
        Ok(Self { inner: Mutex::new(inner), slots, entries_max: u64::from(entries_max) })
    }

    /// Slot of an identity's table.
    pub(crate) fn slot(&self, identity: Identity) -> Option<u32> {
        self.lock().by_identity.get(&identity).map(|loaded| loaded.slot)
    }

    /// Identities with a table.
    pub(crate) fn identities(&self) -> Vec<Identity> {
        self.lock().by_identity.keys().copied().collect()
    }

    /// Rules that are loaded.
    pub(crate) fn rules(&self) -> u64 {
        self.lock().by_identity.values().map(|loaded| u64::from(loaded.value.rules)).sum()
    }

    /// Puts a table into force, whole.
    pub(crate) fn set(&self, maps: &Maps, table: &Table) -> Result<(), ApplyError> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let flags = flags(table);
        if let Some(loaded) = inner.by_identity.get_mut(&table.identity) {
            let entries = compile(table, loaded.value.table);
            let rules = table.rules.len() as u32;
            if loaded.entries == entries && loaded.value.flags == flags && loaded.value.rules == rules {
                return Ok(());
            }
            let before = loaded.entries.len() as u64;
            let change = Change::between(&loaded.entries, &entries);
            self.check_room(table.identity, inner.entries + entries.len() as u64)?;
            let generation = inner.next_generation;
            let next_table = inner.next_table;
            let value = SlotValue { generation, flags, rules, ..loaded.value };
            if change.size() <= IN_PLACE_MAX {
                loaded.change_in_place(maps, entries, value, &change)?;
            } else {
                loaded.swap(maps, compile(table, next_table), SlotValue { table: next_table, ..value })?;
                inner.next_table = inner.next_table.wrapping_add(1).max(1);
            }
            inner.next_generation = inner.next_generation.wrapping_add(1);
            inner.entries = inner.entries - before + loaded.entries.len() as u64;
            return Ok(());
        }
        let entries = compile(table, inner.next_table);
        self.check_room(table.identity, inner.entries + entries.len() as u64)?;
        let Some(slot) = inner.free_slots.last().copied() else {
            return Err(full(
                table.identity,
                format!("all {} slots are in use: raise `limits.endpoints`", self.slots),
            ));
        };
        let value = SlotValue {
            tuples: 0,
            generation: inner.next_generation,
            table: inner.next_table,
            identity: table.identity.number(),
            flags,
            rules: table.rules.len() as u32,
            reserved: 0,
        };
        let mut loaded = Loaded { slot, value: SlotValue { table: 0, ..value }, entries: Vec::new() };
        loaded.swap(maps, entries, value)?;
        inner.free_slots.pop();
        inner.next_table = inner.next_table.wrapping_add(1).max(1);
        inner.next_generation = inner.next_generation.wrapping_add(1);
        inner.entries += loaded.entries.len() as u64;
        inner.by_identity.insert(table.identity, loaded);
        Ok(())
    }

    /// Takes a table out of force: whatever is judged by it is denied.
    pub(crate) fn remove(&self, maps: &Maps, identity: Identity) -> Result<(), ApplyError> {
        let mut inner = self.lock();
        let Some(loaded) = inner.by_identity.get(&identity) else { return Ok(()) };
        // The generation stays, so that the slot's next owner continues to count.
        let value = SlotValue { generation: inner.next_generation, ..SlotValue::default() };
        let what = || format!("remove the rules of {identity}");
        maps.slot.set(&loaded.slot, &value).map_err(ApplyError::of(what()))?;
        maps.begin_epoch().map_err(ApplyError::of(what()))?;
        let keys: Vec<_> = loaded.entries.iter().map(|(key, _)| *key).collect();
        maps.policy.remove_batch(&keys).map_err(ApplyError::of(what()))?;
        let slot = loaded.slot;
        inner.entries -= keys.len() as u64;
        inner.by_identity.remove(&identity);
        inner.free_slots.push(slot);
        inner.next_generation = inner.next_generation.wrapping_add(1);
        Ok(())
    }

    /// Judges by what the kernel has, with the kernel's own function.
    pub(crate) fn judge(
        &self,
        maps: &Maps,
        from: Identity,
        to: Identity,
        protocol: u8,
        port: u16,
    ) -> Option<Judgement> {
        let slot = self.slot(to)?;
        let value = maps.slot.value(&slot).ok().flatten()?;
        let verdict =
            judge(&value, from.number(), protocol, port, |key| maps.policy.value(key).ok().flatten());
        Some(Judgement {
            allowed: verdict.reason.allowed(),
            reason: verdict.reason.as_str(),
            rule: verdict.rule,
            rules: u64::from(value.rules),
        })
    }

    fn check_room(&self, identity: Identity, entries: u64) -> Result<(), ApplyError> {
        if entries <= self.entries_max {
            return Ok(());
        }
        let limit = self.entries_max;
        Err(full(identity, format!("{entries} entries of {limit} are needed: raise `limits.policy_entries`")))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    /// One entry more or less.
    fn change_in_place(
        &mut self,
        maps: &Maps,
        entries: Vec<(PolicyKey, PolicyValue)>,
        value: SlotValue,
        change: &Change,
    ) -> Result<(), ApplyError> {
        let failed =
            |source| ApplyError { what: format!("change a rule towards {:06x}", value.identity), source };
        let tuples = tuples(&entries);
        let wider = SlotValue { tuples: self.value.tuples | tuples, ..self.value };
        maps.slot.set(&self.slot, &wider).map_err(failed)?;
        for (key, entry) in &change.set {
            maps.policy.set(key, entry).map_err(failed)?;
        }
        maps.policy.remove_batch(&change.removed).map_err(failed)?;
        self.value = SlotValue { tuples, ..value };
        maps.slot.set(&self.slot, &self.value).map_err(failed)?;
        self.entries = entries;
        maps.begin_epoch().map_err(failed)
    }

    /// A new table beside the old one, then over.
    fn swap(
        &mut self,
        maps: &Maps,
        entries: Vec<(PolicyKey, PolicyValue)>,
        value: SlotValue,
    ) -> Result<(), ApplyError> {
        let failed =
            |source| ApplyError { what: format!("load the rules towards {:06x}", value.identity), source };
        let (keys, values): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        if let Err(source) = maps.policy.set_batch(&keys, &values) {
            // The old table is still in force; what was loaded of the new one goes.
            let _ = maps.policy.remove_batch(&keys);
            return Err(failed(source));
        }
        let tuples = tuples(&entries);
        let both = self.value.tuples | tuples;
        let steps = [
            SlotValue { tuples: both, ..self.value },
            SlotValue { tuples: both, table: value.table, ..self.value },
            SlotValue { tuples, ..value },
        ];
        for step in steps {
            maps.slot.set(&self.slot, &step).map_err(failed)?;
        }
        if self.value.table != 0 {
            maps.begin_epoch().map_err(failed)?;
        }
        self.value = SlotValue { tuples, ..value };
        let old = std::mem::replace(&mut self.entries, entries);
        let old: Vec<_> = old.into_iter().map(|(key, _)| key).collect();
        maps.policy.remove_batch(&old).map_err(failed)
    }
}

/// What two versions of a table differ in.
struct Change {
    set: Vec<(PolicyKey, PolicyValue)>,
    removed: Vec<PolicyKey>,
}

impl Change {
    fn between(old: &[(PolicyKey, PolicyValue)], new: &[(PolicyKey, PolicyValue)]) -> Self {
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(before), Some(after)) if before.0 == after.0 => {
                    if before.1 != after.1 {
                        set.push(**after);
                    }
                    old.next();
                    new.next();
                }
                (Some(before), after) if after.is_none_or(|after| before.0 < after.0) => {
                    removed.push(before.0);
                    old.next();
                }
                (_, Some(after)) => {
                    set.push(**after);
                    new.next();
                }
                _ => return Self { set, removed },
            }
        }
    }

    fn size(&self) -> usize {
        self.set.len() + self.removed.len()
    }
}

/// The entries of a table, sorted; of rules with one key the one that wins.
fn compile(table: &Table, number: u32) -> Vec<(PolicyKey, PolicyValue)> {
    let mut entries = Vec::with_capacity(table.rules.len());
    for rule in &table.rules {
        expand(rule, number, &mut entries);
    }
    entries.sort_unstable_by_key(|(key, value)| {
        let rank = (value.precedence, value.deny, std::cmp::Reverse(value.rule));
        (*key, std::cmp::Reverse(rank))
    });
    entries.dedup_by_key(|(key, _)| *key);
    entries
}

fn expand(rule: &TableRule, table: u32, entries: &mut Vec<(PolicyKey, PolicyValue)>) {
    let value = PolicyValue {
        rule: rule.number,
        precedence: rule.precedence,
        deny: u8::from(rule.deny),
        reserved: 0,
    };
    let key = PolicyKey {
        table,
        peer: rule.peer.number(),
        port: 0,
        protocol: rule.port.protocol().number(),
        port_bits: 0,
    };
    let ports = rule.port.ports();
    if ports.is_all() {
        entries.push((key, value));
    } else {
        port_prefixes(ports.first(), ports.last(), |port, port_bits| {
            entries.push((PolicyKey { port, port_bits, ..key }, value));
        });
    }
}

fn tuples(entries: &[(PolicyKey, PolicyValue)]) -> u64 {
    entries.iter().fold(0, |bits, (key, _)| bits | 1 << tuple(key))
}

fn flags(table: &Table) -> u32 {
    let closed = if table.default == DefaultVerdict::Closed { SLOT_CLOSED } else { 0 };
    let reject = if table.answer == DenyAnswer::Reject { SLOT_REJECT } else { 0 };
    closed | reject
}

fn full(identity: Identity, why: String) -> ApplyError {
    ApplyError {
        what: format!("load the rules towards {identity}"),
        source: io::Error::new(io::ErrorKind::StorageFull, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_core::{PortMatch, PortRange, Protocol};
    use isthmus_dataplane_common::Reason;
    use proptest::prelude::*;

    fn rule() -> impl Strategy<Value = TableRule> {
        let port = prop_oneof![
            Just(PortMatch::ANY),
            Just(PortMatch::new(Protocol::Icmp, PortRange::ALL).unwrap()),
            (prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)], 1u16..40, 0u16..40).prop_map(
                |(protocol, first, more)| {
                    PortMatch::new(protocol, PortRange::new(first, first + more).unwrap()).unwrap()
                }
            ),
            Just(PortMatch::new(Protocol::Tcp, PortRange::ALL).unwrap()),
        ];
        (prop_oneof![Just(0u32), 256u32..260], port, any::<bool>(), 0u16..3, 1u32..1000).prop_map(
            |(peer, port, deny, precedence, number)| TableRule {
                peer: Identity::new(peer).unwrap(),
                port,
                deny,
                precedence,
                number,
            },
        )
    }

    /// Looks at every rule.
    fn naive(table: &Table, peer: Identity, protocol: u8, port: u16) -> bool {
        let matching = table.rules.iter().filter(|rule| {
            (rule.peer == Identity::NONE || rule.peer == peer) && rule.port.matches(protocol, port)
        });
        let best = matching.max_by_key(|rule| (rule.precedence, rule.deny));
        best.map_or(table.default == DefaultVerdict::Open, |rule| !rule.deny)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn loaded_entries_judge_like_the_list_of_rules(
            rules in proptest::collection::vec(rule(), 0..12),
            closed in any::<bool>(),
            peer in 256u32..261,
            protocol in prop_oneof![Just(6u8), Just(17u8), Just(1u8), Just(47u8)],
            port in 0u16..90,
        ) {
            let default = if closed { DefaultVerdict::Closed } else { DefaultVerdict::Open };
            let table = Table { identity: Identity::new(300).unwrap(), default, answer: DenyAnswer::Drop, rules };
            let entries = compile(&table, 7);
            let slot = SlotValue { table: 7, tuples: tuples(&entries), flags: flags(&table), ..SlotValue::default() };
            let verdict = judge(&slot, peer, protocol, port, |key| {
                entries.binary_search_by_key(key, |(key, _)| *key).ok().map(|index| entries[index].1)
            });
            let expected = naive(&table, Identity::new(peer).unwrap(), protocol, port);
            prop_assert_eq!(verdict.reason.allowed(), expected, "{:?}", verdict);
            prop_assert_ne!(verdict.reason, Reason::NoTable);
        }

        #[test]
        fn a_change_turns_the_old_entries_into_the_new(
            old in proptest::collection::vec(rule(), 0..12),
            new in proptest::collection::vec(rule(), 0..12),
        ) {
            let table = |rules| Table {
                identity: Identity::new(300).unwrap(),
                default: DefaultVerdict::Open,
                answer: DenyAnswer::Drop,
                rules,
            };
            let (old, new) = (compile(&table(old), 7), compile(&table(new), 7));
            let change = Change::between(&old, &new);
            let mut map: BTreeMap<_, _> = old.iter().copied().collect();
            for key in &change.removed {
                prop_assert!(map.remove(key).is_some());
            }
            map.extend(change.set.iter().copied());
            prop_assert_eq!(map.into_iter().collect::<Vec<_>>(), new);
        }
    }
}
