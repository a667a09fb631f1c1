//! The routes that are sent, made from numbers so that what comes back can be checked without keeping it.

use super::wire::{self, Prefix, kind};
use std::net::Ipv4Addr;

/// Prefixes that share attributes: these sizes, picked at random, are 6.1 on average.
const SET_SIZES: [u32; 10] = [1, 1, 1, 2, 2, 3, 4, 6, 10, 31];
/// Lengths of eight neighbouring prefixes of a full table.
const LENGTHS: [u8; 8] = [22, 24, 23, 24, 24, 24, 23, 24];
/// Where a full table starts, and blocks of nodes.
const TABLE_BASE: u32 = 0x1400_0000;
const BLOCKS_BASE: u32 = 0x0a80_0000;
/// Has no common divisor with any number of prefixes that is used.
const STRIDE: u64 = 387_420_489;

/// Who sends routes: its address is their next hop, and its router id.
pub(super) type Owner = u32;

/// Routes that share attributes.
#[derive(Clone, Copy, Debug)]
struct Set {
    owner: Owner,
    first: u32,
    end: u32,
}

/// All routes of a case.
#[derive(Debug)]
pub(super) struct Table {
    /// Numbers of prefixes in the order in which they are sent.
    order: Vec<u32>,
    sets: Vec<Set>,
    /// By number of the prefix.
    set_of: Vec<u32>,
    shift: u32,
    base: u32,
    lengths: &'static [u8],
    owners: Vec<Ipv4Addr>,
}

impl Table {
    /// A full table of one owner. Prefixes with the same attributes lie apart, as they do in the world.
    pub(super) fn full(prefixes: u32, owner: Ipv4Addr) -> Self {
        let order =
            (0..u64::from(prefixes)).map(|at| (at * STRIDE % u64::from(prefixes.max(1))) as u32).collect();
        let mut random = Random(1);
        let mut sets = Vec::new();
        let mut first = 0;
        while first < prefixes {
            let size = SET_SIZES[random.below(SET_SIZES.len() as u32) as usize];
            let end = prefixes.min(first + size);
            sets.push(Set { owner: 0, first, end });
            first = end;
        }
        Self::of(order, sets, (TABLE_BASE, 8, &LENGTHS), vec![owner])
    }

    /// Each owner has some blocks of 64 addresses, all with the same attributes.
    pub(super) fn blocks(owners: Vec<Ipv4Addr>, each: u32) -> Self {
        let sets = (0..owners.len() as u32)
            .map(|owner| Set { owner, first: owner * each, end: (owner + 1) * each })
            .collect();
        Self::of((0..owners.len() as u32 * each).collect(), sets, (BLOCKS_BASE, 6, &[26]), owners)
    }

    fn of(
        order: Vec<u32>,
        sets: Vec<Set>,
        (base, shift, lengths): (u32, u32, &'static [u8]),
        owners: Vec<Ipv4Addr>,
    ) -> Self {
        let mut set_of = vec![0; order.len()];
        for (set, Set { first, end, .. }) in (0..).zip(&sets) {
            for number in &order[*first as usize..*end as usize] {
                set_of[*number as usize] = set;
            }
        }
        Self { order, sets, set_of, shift, base, lengths, owners }
    }

    /// How many prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn prefix(&self, number: u32) -> Prefix {
        let len = self.lengths[number as usize % self.lengths.len()];
        Prefix { address: self.base + (number << self.shift), len }
    }

    /// The number of a prefix, if it is one of ours.
    pub(super) fn number(&self, prefix: Prefix) -> Option<u32> {
        let number = prefix.address.checked_sub(self.base)? >> self.shift;
        ((number as usize) < self.order.len() && self.prefix(number) == prefix).then_some(number)
    }

    pub(super) fn owner(&self, number: u32) -> Owner {
        self.sets[self.set_of[number as usize] as usize].owner
    }

    /// UPDATEs with all routes of an owner.
    pub(super) fn announcements(&self, owner: Owner) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, set) in (0..).zip(&self.sets).filter(|(_, set)| set.owner == owner) {
            let numbers = &self.order[set.first as usize..set.end as usize];
            let attributes = self.attributes(index, None);
            wire::put_update(&mut out, &attributes, numbers.iter().map(|number| self.prefix(*number)));
        }
        out
    }

    /// UPDATEs that take back all routes of an owner.
    pub(super) fn withdrawals(&self, owner: Owner) -> Vec<u8> {
        let numbers = (0..self.order.len() as u32).filter(|number| self.owner(*number) == owner);
        let prefixes: Vec<_> = numbers.map(|number| self.prefix(number)).collect();
        let mut out = Vec::new();
        wire::put_withdrawals(&mut out, &prefixes);
        out
    }

    /// An UPDATE that gives one prefix another MED.
    pub(super) fn change(&self, number: u32, med: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let attributes = self.attributes(self.set_of[number as usize], Some(med));
        wire::put_update(&mut out, &attributes, std::iter::once(self.prefix(number)));
        out
    }

    /// Whether a reflected route has the attributes that were sent, and those that its reflector must add. A MED is
    /// not looked at: some change it, and some send 0 for none (FRR).
    pub(super) fn is_as_sent(&self, number: u32, attributes: &[u8], reflector: Ipv4Addr) -> bool {
        let sent = self.attributes(self.set_of[number as usize], None);
        let find = |kind: u8| wire::attributes(attributes).find(|(other, _)| *other == kind);
        let owner = self.owners[self.owner(number) as usize];
        let whole = |kind| wire::attributes(&sent).any(|(other, _)| other == kind) == find(kind).is_some();
        wire::attributes(&sent).all(|(kind, value)| find(kind) == Some((kind, value)))
            && whole(kind::COMMUNITIES)
            && find(kind::ORIGINATOR_ID).map(|found| found.1) == Some(&owner.octets()[..])
            && find(kind::CLUSTER_LIST).map(|found| found.1) == Some(&reflector.octets()[..])
    }

    /// The attributes of a set: a path of 2 to 6 ASes, 0 to 8 communities.
    fn attributes(&self, set: u32, med: Option<u32>) -> Vec<u8> {
        let mut random = Random(u64::from(set) + 1);
        let mut out = Vec::with_capacity(96);
        wire::put_attribute(&mut out, kind::ORIGIN, &[0]);
        let count = 2 + random.below(5) as u8;
        let mut path = vec![2, count];
        path.extend((0..count).flat_map(|_| (1 + random.below(400_000)).to_be_bytes()));
        wire::put_attribute(&mut out, kind::AS_PATH, &path);
        let owner = self.owners[self.sets[set as usize].owner as usize];
        wire::put_attribute(&mut out, kind::NEXT_HOP, &owner.octets());
        if let Some(med) = med {
            wire::put_attribute(&mut out, kind::MED, &med.to_be_bytes());
        }
        wire::put_attribute(&mut out, kind::LOCAL_PREF, &100_u32.to_be_bytes());
        // In order, as some put them in order.
        let mut communities: Vec<u32> =
            (0..random.below(9)).map(|_| random.below(60_000) << 16 | random.below(60_000)).collect();
        communities.sort_unstable();
        communities.dedup();
        if !communities.is_empty() {
            let value: Vec<u8> = communities.into_iter().flat_map(u32::to_be_bytes).collect();
            wire::put_attribute(&mut out, kind::COMMUNITIES, &value);
        }
        out
    }
}

/// Numbers that look random and are the same each time (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % u64::from(bound)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const OWNER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const REFLECTOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn messages(mut bytes: &[u8]) -> Vec<wire::Message<'_>> {
        let mut all = Vec::new();
        while let Some(message) = wire::take_message(&mut bytes) {
            all.push(message);
        }
        assert!(bytes.is_empty());
        all
    }

    #[test]
    fn a_full_table_has_each_prefix_once_and_six_to_a_set() {
        let table = Table::full(100_000, OWNER);
        let bytes = table.announcements(0);
        let updates: Vec<_> =
            messages(&bytes).iter().map(|message| wire::Update::of(message.body).unwrap()).collect();
        let mut numbers = BTreeSet::new();
        for update in &updates {
            for prefix in wire::prefixes(update.announced) {
                assert!(numbers.insert(table.number(prefix).unwrap()));
            }
        }
        assert_eq!(numbers.len(), 100_000);
        let mean = 100_000.0 / updates.len() as f64;
        assert!((5.9..6.3).contains(&mean), "{mean}");
    }

    #[test]
    fn prefixes_that_were_not_sent_have_no_number() {
        let table = Table::full(1_000, OWNER);
        assert_eq!(table.number(table.prefix(999)), Some(999));
        let Prefix { address, len } = table.prefix(5);
        for (address, len) in [(address, len - 1), (address + 1, len), (address + (1_000 << 8), len), (0, 0)]
        {
            assert_eq!(table.number(Prefix { address, len }), None);
        }
    }

    #[test]
    fn blocks_belong_to_their_owners() {
        let table = Table::blocks(vec![OWNER, REFLECTOR], 10);
        assert_eq!((table.len(), table.owner(9), table.owner(10)), (20, 0, 1));
        let updates = table.announcements(1);
        let [message] = messages(&updates)[..] else { panic!("more than one message") };
        let announced = wire::Update::of(message.body).unwrap().announced;
        assert_eq!(wire::prefixes(announced).map(|prefix| table.number(prefix)).next(), Some(Some(10)));
        let withdrawn = table.withdrawals(0);
        let update = wire::Update::of(messages(&withdrawn)[0].body).unwrap();
        assert_eq!(wire::prefixes(update.withdrawn).count(), 10);
    }

    /// The attributes of prefix 3 as a reflector sends them on, some left out or changed.
    fn reflected(table: &Table, change: impl Fn(u8, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
        let mut out = Vec::new();
        let sent = table.attributes(table.set_of[3], None);
        let added = [(kind::ORIGINATOR_ID, OWNER.octets()), (kind::CLUSTER_LIST, REFLECTOR.octets())];
        let sent = wire::attributes(&sent).map(|(kind, value)| (kind, value.to_vec()));
        for (kind, value) in sent.chain(added.map(|(kind, value)| (kind, value.to_vec()))) {
            if let Some(value) = change(kind, value) {
                wire::put_attribute(&mut out, kind, &value);
            }
        }
        out
    }

    #[test]
    fn a_route_that_was_changed_on_its_way_is_found() {
        let table = Table::full(1_000, OWNER);
        assert!(table.is_as_sent(3, &reflected(&table, |_, value| Some(value)), REFLECTOR));
        for spoiled in [
            kind::ORIGIN,
            kind::AS_PATH,
            kind::NEXT_HOP,
            kind::LOCAL_PREF,
            kind::ORIGINATOR_ID,
            kind::CLUSTER_LIST,
        ] {
            let without = reflected(&table, |kind, value| (kind != spoiled).then_some(value));
            assert!(!table.is_as_sent(3, &without, REFLECTOR), "without {spoiled}");
            let other = reflected(&table, |kind, mut value| {
                if let Some(last) = value.last_mut().filter(|_| kind == spoiled) {
                    *last ^= 1;
                }
                Some(value)
            });
            assert!(!table.is_as_sent(3, &other, REFLECTOR), "other {spoiled}");
        }
    }
}
