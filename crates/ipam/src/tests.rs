//! The engine's promises, alone and under crashes.

use crate::{AllocateError, Family, Ipam, LeaseError, Owner, Record, Request, ReturnError, journal};
use ipnet::IpNet;
use isthmus_core::ClusterName;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

fn owner(id: &str) -> Owner {
    Owner::new(id).unwrap()
}

fn block(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn request(id: &str) -> Request {
    Request {
        owner: owner(id),
        cluster: cluster("red"),
        family: Family::V4,
        wanted: None,
        avoid: BTreeSet::new(),
        detail: Vec::new(),
    }
}

fn wanting(id: &str, address: &str) -> Request {
    Request { wanted: Some(address.parse().unwrap()), ..request(id) }
}

fn with_block(text: &str) -> Ipam {
    let mut ipam = Ipam::default();
    ipam.lease(cluster("red"), block(text)).unwrap();
    ipam
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_are_given_in_order_and_the_last_released_comes_last() {
    let mut ipam = with_block("10.0.0.0/30");
    for (id, expected) in [("a", "10.0.0.0"), ("b", "10.0.0.1"), ("c", "10.0.0.2")] {
        assert_eq!(ipam.allocate(request(id)), Ok(address(expected)));
    }
    assert_eq!(ipam.release(&owner("b")), Some(address("10.0.0.1")));
    assert_eq!(ipam.release(&owner("a")), Some(address("10.0.0.0")));
    assert_eq!(ipam.allocate(request("d")), Ok(address("10.0.0.3")), "never used before released");
    assert_eq!(ipam.allocate(request("e")), Ok(address("10.0.0.1")), "released first");
    assert_eq!(ipam.allocate(request("f")), Ok(address("10.0.0.0")));
    let full = AllocateError::NoRoom { cluster: cluster("red"), family: Family::V4 };
    assert_eq!(ipam.allocate(request("g")), Err(full));
}

#[test]
fn the_order_of_release_survives_a_snapshot() {
    let mut ipam = with_block("10.0.0.0/30");
    for id in ["a", "b", "c", "d"] {
        ipam.allocate(request(id)).unwrap();
    }
    for id in ["c", "a", "b"] {
        ipam.release(&owner(id));
    }
    let mut again = Ipam::replay(&ipam.snapshot()).unwrap();
    assert_eq!(again.allocate(request("e")), Ok(address("10.0.0.2")));
    assert_eq!(again.allocate(request("f")), Ok(address("10.0.0.0")));
}

#[test]
fn a_wanted_address_is_given_once() {
    let mut ipam = with_block("10.0.0.0/26");
    assert_eq!(ipam.allocate(wanting("a", "10.0.0.9")), Ok(address("10.0.0.9")));
    let taken = AllocateError::Taken { address: address("10.0.0.9"), by: owner("a") };
    assert_eq!(ipam.allocate(wanting("b", "10.0.0.9")), Err(taken));
    let outside = AllocateError::NotHere { address: address("10.0.0.64"), cluster: cluster("red") };
    assert_eq!(ipam.allocate(wanting("b", "10.0.0.64")), Err(outside));
}

#[test]
fn what_is_elsewhere_is_not_given_out() {
    let mut ipam = with_block("10.0.0.0/30");
    let avoid = BTreeSet::from([address("10.0.0.0"), address("10.0.0.2")]);
    let but = |request: Request| Request { avoid: avoid.clone(), ..request };
    assert_eq!(ipam.allocate(but(request("a"))), Ok(address("10.0.0.1")));
    let refused = ipam.allocate(but(wanting("b", "10.0.0.2")));
    assert_eq!(refused, Err(AllocateError::Elsewhere(address("10.0.0.2"))));
    assert_eq!(ipam.allocate(but(request("b"))), Ok(address("10.0.0.3")));
    let full = ipam.allocate(but(request("c")));
    assert!(matches!(full, Err(AllocateError::NoRoom { .. })), "{full:?}");
    // A released one may be elsewhere meanwhile, and a fuller block may have nothing else.
    ipam.lease(cluster("red"), block("10.0.1.0/30")).unwrap();
    assert_eq!(ipam.allocate(but(request("c"))), Ok(address("10.0.1.0")));
    assert_eq!(ipam.release(&owner("a")), Some(address("10.0.0.1")));
    let more =
        Request { avoid: avoid.iter().copied().chain([address("10.0.0.1")]).collect(), ..request("d") };
    assert_eq!(ipam.allocate(more), Ok(address("10.0.1.1")));
    assert_eq!(ipam.allocate(wanting("e", "10.0.0.0")), Ok(address("10.0.0.0")), "it is back");
}

#[test]
fn a_wanted_address_of_another_cluster_is_not_here() {
    let mut ipam = with_block("10.0.0.0/26");
    ipam.lease(cluster("blue"), block("10.0.1.0/26")).unwrap();
    assert!(matches!(ipam.allocate(wanting("a", "10.0.1.1")), Err(AllocateError::NotHere { .. })));
}

#[test]
fn an_owner_has_one_address() {
    let mut ipam = with_block("10.0.0.0/26");
    let first = ipam.allocate(request("a")).unwrap();
    assert_eq!(ipam.allocate(request("a")), Err(AllocateError::Owned { owner: owner("a"), address: first }));
    assert_eq!(ipam.owner_of(first), Some(&owner("a")));
}

#[test]
fn a_detail_has_a_limit() {
    let mut ipam = with_block("10.0.0.0/26");
    let request = Request { detail: vec![0; crate::DETAIL_BYTES_MAX + 1], ..request("a") };
    assert!(matches!(ipam.allocate(request), Err(AllocateError::DetailTooLong { .. })));
    assert!(Owner::new("x".repeat(crate::OWNER_BYTES_MAX + 1)).is_err());
    assert!(Owner::new("").is_err());
}

#[test]
fn the_fullest_block_is_filled_first() {
    let mut ipam = with_block("10.0.0.0/30");
    ipam.lease(cluster("red"), block("10.0.1.0/30")).unwrap();
    ipam.allocate(wanting("a", "10.0.1.0")).unwrap();
    assert_eq!(ipam.allocate(request("b")), Ok(address("10.0.1.1")));
}

#[test]
fn a_further_block_is_wanted_before_the_last_address_is_gone() {
    let mut ipam = with_block("10.0.0.0/28");
    for id in 0..8 {
        assert!(!ipam.wants_block(&cluster("red"), Family::V4));
        ipam.allocate(request(&id.to_string())).unwrap();
    }
    assert!(!ipam.wants_block(&cluster("red"), Family::V4));
    ipam.allocate(request("8")).unwrap();
    assert!(ipam.wants_block(&cluster("red"), Family::V4));
    assert!(ipam.wants_block(&cluster("red"), Family::V6));
}

#[test]
fn release_of_the_last_address_makes_a_block_surplus_but_one_is_kept() {
    let mut ipam = with_block("10.0.0.0/30");
    ipam.lease(cluster("red"), block("10.0.1.0/30")).unwrap();
    ipam.lease(cluster("blue"), block("10.0.2.0/30")).unwrap();
    ipam.allocate(wanting("a", "10.0.1.0")).unwrap();
    assert_eq!(ipam.surplus(), Vec::<IpNet>::new());
    ipam.release(&owner("a"));
    assert_eq!(ipam.surplus(), vec![block("10.0.1.0/30")]);
    assert_eq!(ipam.give_back(block("10.0.1.0/30")), Ok(()));
    assert_eq!(ipam.give_back(block("10.0.1.0/30")), Err(ReturnError::Unknown(block("10.0.1.0/30"))));
}

#[test]
fn a_block_in_use_is_not_given_back() {
    let mut ipam = with_block("10.0.0.0/30");
    ipam.allocate(request("a")).unwrap();
    assert_eq!(
        ipam.give_back(block("10.0.0.0/30")),
        Err(ReturnError::InUse { block: block("10.0.0.0/30"), used: 1 })
    );
}

#[test]
fn blocks_never_overlap() {
    let mut ipam = with_block("10.0.0.0/26");
    for text in ["10.0.0.0/24", "10.0.0.16/28", "10.0.0.0/26"] {
        let refused = ipam.lease(cluster("blue"), block(text));
        assert!(matches!(refused, Err(LeaseError::Overlaps { .. })), "{text}");
    }
    assert_eq!(ipam.lease(cluster("red"), block("10.0.0.0/26")), Ok(()), "the same again");
    assert_eq!(ipam.lease(cluster("red"), block("fd00::/63")), Err(LeaseError::TooLarge(block("fd00::/63"))));
}

#[test]
fn a_node_holds_a_limited_number_of_blocks() {
    let mut ipam = Ipam::default();
    let nth = |n: usize| IpNet::from(IpAddr::from((n as u32).to_be_bytes()));
    for n in 0..crate::BLOCKS_MAX {
        ipam.lease(cluster("red"), nth(n)).unwrap();
    }
    assert_eq!(ipam.lease(cluster("red"), nth(crate::BLOCKS_MAX)), Err(LeaseError::TooMany));
}

#[test]
fn ipv6_blocks_give_addresses_without_listing_them() {
    let mut ipam = with_block("fd00:0:0:1::/64");
    let v6 = |id: &str| Request { family: Family::V6, ..request(id) };
    assert_eq!(ipam.allocate(v6("a")), Ok(address("fd00:0:0:1::")));
    assert_eq!(
        ipam.allocate(Request { wanted: Some(address("fd00:0:0:1::1")), ..v6("b") }),
        Ok(address("fd00:0:0:1::1"))
    );
    assert_eq!(ipam.allocate(v6("c")), Ok(address("fd00:0:0:1::2")));
    assert!(matches!(ipam.allocate(request("d")), Err(AllocateError::NoRoom { family: Family::V4, .. })));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let leased =
        Record::Leased { block: block("10.0.0.0/30"), cluster: cluster("red"), fresh: 0, released: vec![] };
    let allocated =
        |id: &str| Record::Allocated { owner: owner(id), address: address("10.0.0.1"), detail: vec![] };
    let bad_order =
        Record::Leased { block: block("10.0.0.0/30"), cluster: cluster("red"), fresh: 0, released: vec![9] };
    let leased_again =
        Record::Leased { block: block("10.0.0.0/30"), cluster: cluster("red"), fresh: 2, released: vec![1] };
    for (records, index) in [
        (vec![allocated("a")], 0),
        (vec![leased.clone(), allocated("a"), allocated("b")], 2),
        (vec![leased.clone(), Record::Released { owner: owner("a") }], 1),
        (vec![leased.clone(), Record::Detailed { owner: owner("a"), detail: vec![] }], 1),
        (vec![leased.clone(), allocated("a"), Record::Returned { block: block("10.0.0.0/30") }], 2),
        (vec![bad_order], 0),
        // The second one would say that the address of "a" is free.
        (vec![leased, allocated("a"), leased_again], 2),
    ] {
        assert_eq!(Ipam::replay(&records).unwrap_err().index, index, "{records:?}");
    }
}

/// What a caller does, on small ranges so that everything meets.
#[derive(Clone, Debug)]
enum Step {
    Lease(u8),
    GiveBack(u8),
    Allocate {
        owner: u8,
        wanted: Option<u8>,
    },
    Detail {
        owner: u8,
        detail: u8,
    },
    Release(u8),
    /// All that was written becomes durable.
    Sync,
    /// A snapshot is written beside the file and renamed over it.
    Compact,
    /// The machine stops; of what was not durable, this part (of 255) is left, and perhaps a wrong byte.
    Crash {
        part: u8,
        flip: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..4).prop_map(Step::Lease),
        1 => (0u8..4).prop_map(Step::GiveBack),
        8 => (0u8..12, proptest::option::weighted(0.3, 0u8..32)).prop_map(|(owner, wanted)| Step::Allocate { owner, wanted }),
        1 => (0u8..12, any::<u8>()).prop_map(|(owner, detail)| Step::Detail { owner, detail }),
        6 => (0u8..12).prop_map(Step::Release),
        4 => Just(Step::Sync),
        1 => Just(Step::Compact),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(part, flip)| Step::Crash { part, flip }),
    ]
}

/// The naive model: who has what, in the order of the writes. A crash may take back what was not durable.
type Naive = BTreeMap<Owner, (IpAddr, Vec<u8>)>;

struct Machine {
    ipam: Ipam,
    file: Vec<u8>,
    durable: usize,
    now: Naive,
    /// The naive state after each record that is written but not durable, the durable state first.
    history: Vec<Naive>,
}

impl Machine {
    fn new() -> Self {
        let file = journal::encode_all(&[]);
        let durable = file.len();
        Self { ipam: Ipam::default(), file, durable, now: Naive::new(), history: vec![Naive::new()] }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Lease(n) => drop(self.ipam.lease(cluster("red"), nth_block(*n))),
            Step::GiveBack(n) => drop(self.ipam.give_back(nth_block(*n))),
            Step::Allocate { owner: id, wanted } => self.allocate(*id, *wanted),
            Step::Detail { owner: id, detail } => {
                let id = owner(&id.to_string());
                let known = self.ipam.set_detail(&id, vec![*detail]).is_ok();
                assert_eq!(known, self.now.contains_key(&id));
                if let Some((_, kept)) = self.now.get_mut(&id) {
                    *kept = vec![*detail];
                }
            }
            Step::Release(id) => {
                let id = owner(&id.to_string());
                assert_eq!(self.ipam.release(&id), self.now.remove(&id).map(|(address, _)| address));
            }
            Step::Sync => self.sync(),
            Step::Compact => {
                self.file = journal::encode_all(&self.ipam.snapshot());
                self.sync();
            }
            Step::Crash { part, flip } => self.crash(*part, *flip),
        }
        self.write();
        self.check();
    }

    fn allocate(&mut self, id: u8, wanted: Option<u8>) {
        let wanted = wanted.map(|offset| IpAddr::from([10, 0, 0, offset]));
        let id = owner(&id.to_string());
        let request = Request { owner: id.clone(), wanted, ..request("x") };
        let in_use = |address: IpAddr| self.now.values().any(|(other, _)| *other == address);
        if let Ok(address) = self.ipam.allocate(request) {
            assert!(!in_use(address), "{address} was given twice");
            assert!(!self.now.contains_key(&id), "{id} had an address");
            assert!(wanted.is_none_or(|wanted| wanted == address));
            self.now.insert(id, (address, Vec::new()));
        }
    }

    fn write(&mut self) {
        for record in self.ipam.take_records() {
            journal::encode(&record, self.durable as u64, &mut self.file);
            self.history.push(self.now.clone());
        }
    }

    fn sync(&mut self) {
        self.durable = self.file.len();
        self.history = vec![self.now.clone()];
    }

    fn crash(&mut self, part: u8, flip: bool) {
        let left = (self.file.len() - self.durable) * usize::from(part) / 255;
        self.file.truncate(self.durable + left);
        if flip && left > 0 {
            *self.file.last_mut().unwrap() ^= 0x40;
        }
        let contents = journal::read(&self.file).unwrap();
        assert!(contents.valid_bytes >= self.durable, "durable records were lost");
        self.file.truncate(contents.valid_bytes);
        self.ipam = Ipam::replay(&contents.records).unwrap();
        self.now = self.held();
        assert!(
            self.history.contains(&self.now),
            "{:?} is no state that ever was: {:?}",
            self.now,
            self.history
        );
        self.sync();
    }

    fn held(&self) -> Naive {
        let held = self.ipam.allocations();
        held.map(|held| (held.owner.clone(), (held.address, held.detail.to_vec()))).collect()
    }

    /// The engine holds exactly what the model holds, and every other address is free.
    fn check(&self) {
        assert_eq!(self.held(), self.now);
        let size: u128 = self.ipam.blocks().map(|_| 8).sum();
        let free: u128 = self.ipam.blocks().map(|block| block.free()).sum();
        assert_eq!(free + self.now.len() as u128, size, "an address is lost");
        for (id, (address, _)) in &self.now {
            assert_eq!(self.ipam.owner_of(*address), Some(id));
        }
    }

    /// Every free address can really be given out, once.
    fn drain(&mut self) {
        let free: u128 = self.ipam.blocks().map(|block| block.free()).sum();
        for n in 0..free {
            let request = request(&format!("drain-{n}"));
            let address = self.ipam.allocate(request.clone()).unwrap();
            assert!(!self.now.values().any(|(other, _)| *other == address), "{address} was given twice");
            self.now.insert(request.owner, (address, Vec::new()));
        }
        assert!(self.ipam.allocate(request("one-more")).is_err());
    }
}

fn nth_block(n: u8) -> IpNet {
    IpNet::new(IpAddr::from([10, 0, 0, n * 8]), 29).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_lost_or_doubled_whenever_the_machine_stops(steps in proptest::collection::vec(step(), 1..80)) {
        let mut machine = Machine::new();
        for step in &steps {
            machine.step(step);
        }
        machine.drain();
    }

    #[test]
    fn a_journal_cut_anywhere_is_a_state_that_was(steps in proptest::collection::vec(step(), 1..24)) {
        let mut ipam = Ipam::default();
        let mut bytes = journal::encode_all(&[]);
        let mut states = vec![ipam.clone()];
        for step in &steps {
            match step {
                Step::Lease(n) => drop(ipam.lease(cluster("red"), nth_block(*n))),
                Step::GiveBack(n) => drop(ipam.give_back(nth_block(*n))),
                Step::Allocate { owner: id, .. } => drop(ipam.allocate(request(&id.to_string()))),
                Step::Release(id) => drop(ipam.release(&owner(&id.to_string()))),
                _ => {}
            }
            for record in ipam.take_records() {
                journal::encode(&record, 0, &mut bytes);
            }
            states.push(ipam.clone());
        }
        for length in journal::MAGIC.len()..=bytes.len() {
            let contents = journal::read(&bytes[..length]).unwrap();
            let state = Ipam::replay(&contents.records).unwrap();
            prop_assert!(states.contains(&state), "cut at {length}");
        }
    }

    #[test]
    fn a_snapshot_is_the_same_state(steps in proptest::collection::vec(step(), 1..60)) {
        let mut machine = Machine::new();
        for step in &steps {
            machine.step(step);
        }
        let again = Ipam::replay(&machine.ipam.snapshot()).unwrap();
        prop_assert_eq!(again, machine.ipam);
    }
}
