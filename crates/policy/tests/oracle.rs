//! The compiler against a naive one, over random histories, and at the size that was promised.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint only knows functions marked as tests")]

use isthmus_core::{ClusterName, DefaultVerdict, DenyAnswer, Identity, PolicyName, PortMatch};
use isthmus_policy::{ClusterDefault, Compiler, Decision, PolicyError, RULES_MAX, Rule, Table};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What was fed last: the truth that every compiler must agree with.
#[derive(Clone, Debug, Default)]
struct World {
    policies: BTreeMap<u8, Vec<Rule>>,
    identities: BTreeMap<u8, (u8, u8)>,
    clusters: BTreeMap<u8, ClusterDefault>,
}

#[derive(Clone, Debug)]
enum Change {
    Policy(u8, Option<Vec<Rule>>),
    Identity(u8, Option<(u8, u8)>),
    Cluster(u8, Option<ClusterDefault>),
}

const IDENTITIES: u8 = 8;
const WORKLOADS: u8 = 5;
const CLUSTERS: u8 = 3;
const PORTS: [&str; 7] = ["any", "icmp", "tcp", "tcp:80", "tcp:80-90", "udp:53", "tcp:85"];

fn identity(n: u8) -> Identity {
    Identity::new(Identity::FIRST_WORKLOAD + u32::from(n)).unwrap()
}

fn workload(n: u8) -> Uuid {
    Uuid::from_u128(1000 + u128::from(n))
}

fn cluster(n: u8) -> ClusterName {
    format!("c{n}").parse().unwrap()
}

fn policy(n: u8) -> PolicyName {
    format!("p{n}").parse().unwrap()
}

fn rule() -> impl Strategy<Value = Rule> {
    (1u32..6, 0..WORKLOADS, 0..WORKLOADS, 0..PORTS.len()).prop_map(|(number, from, to, port)| Rule {
        number,
        from: workload(from),
        to: workload(to),
        port: PORTS[port].parse().unwrap(),
    })
}

fn cluster_default() -> impl Strategy<Value = ClusterDefault> {
    (any::<bool>(), any::<bool>()).prop_map(|(open, reject)| ClusterDefault {
        verdict: if open { DefaultVerdict::Open } else { DefaultVerdict::Closed },
        answer: if reject { DenyAnswer::Reject } else { DenyAnswer::Drop },
    })
}

fn change() -> impl Strategy<Value = Change> {
    let rules = prop::option::weighted(0.8, prop::collection::vec(rule(), 0..5));
    let record = prop::option::weighted(0.8, (0..WORKLOADS, 0..CLUSTERS));
    prop_oneof![
        4 => (0u8..6, rules).prop_map(|(n, rules)| Change::Policy(n, rules)),
        4 => (0..IDENTITIES, record).prop_map(|(n, record)| Change::Identity(n, record)),
        1 => (0..CLUSTERS, prop::option::weighted(0.8, cluster_default())).prop_map(|(n, default)| Change::Cluster(n, default)),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..60)
}

fn set<T>(map: &mut BTreeMap<u8, T>, key: u8, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl World {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Policy(n, rules) => set(&mut self.policies, n, rules),
            Change::Identity(n, record) => set(&mut self.identities, n, record),
            Change::Cluster(n, default) => set(&mut self.clusters, n, default),
        }
    }

    /// The changes that make this world from nothing.
    fn changes(&self) -> Vec<Change> {
        let policies = self.policies.iter().map(|(n, rules)| Change::Policy(*n, Some(rules.clone())));
        let identities = self.identities.iter().map(|(n, record)| Change::Identity(*n, Some(*record)));
        let clusters = self.clusters.iter().map(|(n, default)| Change::Cluster(*n, Some(*default)));
        policies.chain(identities).chain(clusters).collect()
    }

    /// Whether a packet may pass, and by which rules, straight from the words of the policies.
    fn judge(&self, from: u8, to: u8, protocol: u8, port: u16) -> Option<(bool, BTreeSet<u32>)> {
        let (to_workload, to_cluster) = *self.identities.get(&to)?;
        let sender = self.identities.get(&from).map(|(sender, _)| workload(*sender));
        let numbers: BTreeSet<u32> = self
            .policies
            .values()
            .flatten()
            .filter(|rule| Some(rule.from) == sender && rule.to == workload(to_workload))
            .filter(|rule| rule.port.matches(protocol, port))
            .map(|rule| rule.number)
            .collect();
        let open =
            self.clusters.get(&to_cluster).is_some_and(|default| default.verdict == DefaultVerdict::Open);
        Some((open || !numbers.is_empty(), numbers))
    }
}

fn feed(compiler: &mut Compiler, change: &Change) {
    match change {
        Change::Policy(n, Some(rules)) => compiler.upsert_policy(&policy(*n), rules).unwrap(),
        Change::Policy(n, None) => compiler.remove_policy(&policy(*n)),
        Change::Identity(n, Some((w, c))) => {
            compiler.upsert_identity(identity(*n), workload(*w), &cluster(*c)).unwrap();
        }
        Change::Identity(n, None) => compiler.remove_identity(identity(*n)),
        Change::Cluster(n, Some(default)) => compiler.upsert_cluster(&cluster(*n), *default),
        Change::Cluster(n, None) => compiler.remove_cluster(&cluster(*n)),
    }
}

fn tables(compiler: &Compiler) -> BTreeMap<Identity, Table> {
    (0..IDENTITIES).filter_map(|n| compiler.table(identity(n))).map(|table| (table.identity, table)).collect()
}

fn fed(changes: &[Change]) -> Compiler {
    let mut compiler = Compiler::new();
    for change in changes {
        feed(&mut compiler, change);
    }
    compiler
}

fn world(changes: &[Change]) -> World {
    let mut world = World::default();
    for change in changes {
        world.apply(change);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn compiled_verdict_equals_naive_verdict(changes in changes()) {
        let (compiler, world) = (fed(&changes), world(&changes));
        for (from, to) in (0..IDENTITIES).flat_map(|from| (0..IDENTITIES).map(move |to| (from, to))) {
            for (protocol, port) in [(1, 0), (6, 79), (6, 80), (6, 85), (6, 91), (17, 53), (17, 80), (132, 0)] {
                let verdict = compiler.table(identity(to)).map(|table| table.verdict(identity(from), protocol, port));
                let naive = world.judge(from, to, protocol, port);
                prop_assert_eq!(verdict.map(|verdict| verdict.allowed), naive.as_ref().map(|naive| naive.0));
                let (Some(verdict), Some((_, numbers))) = (verdict, naive) else { continue };
                match verdict.decision {
                    Decision::Rule(number) => prop_assert!(numbers.contains(&number)),
                    Decision::Default => prop_assert!(numbers.is_empty()),
                }
            }
        }
    }

    #[test]
    fn any_history_ends_in_the_tables_of_a_fresh_compile(changes in changes()) {
        prop_assert_eq!(tables(&fed(&changes)), tables(&fed(&world(&changes).changes())));
    }

    #[test]
    fn order_and_repetition_do_not_matter(
        (changes, shuffled) in changes()
            .prop_map(|changes| world(&changes).changes())
            .prop_flat_map(|changes| {
                let doubled = [changes.clone(), changes.clone()].concat();
                (Just(changes), Just(doubled).prop_shuffle())
            })
    ) {
        prop_assert_eq!(tables(&fed(&changes)), tables(&fed(&shuffled)));
    }

    #[test]
    fn every_table_that_changes_is_told_and_only_those_of_one_change(changes in changes()) {
        let mut compiler = Compiler::new();
        for change in &changes {
            let before = tables(&compiler);
            feed(&mut compiler, change);
            let after = tables(&compiler);
            let told = compiler.take_changed();
            for n in 0..IDENTITIES {
                let differs = before.get(&identity(n)) != after.get(&identity(n));
                prop_assert!(!differs || told.contains(&identity(n)), "{} changed and was not told", identity(n));
            }
            feed(&mut compiler, change);
            prop_assert!(compiler.take_changed().is_empty(), "saying the same again changes nothing");
        }
    }

    #[test]
    fn what_is_removed_leaves_nothing(changes in changes()) {
        let mut compiler = fed(&changes);
        for n in 0..6 {
            compiler.remove_policy(&policy(n));
        }
        for table in tables(&compiler).into_values() {
            prop_assert!(table.rules.is_empty());
            prop_assert!(compiler.peers(table.identity).is_empty());
        }
        prop_assert_eq!(compiler.rule_count(), 0);
        for n in 0..IDENTITIES {
            compiler.remove_identity(identity(n));
        }
        prop_assert!(tables(&compiler).is_empty());
        prop_assert_eq!(compiler.identities().count(), 0);
    }

    #[test]
    fn peers_are_those_that_the_table_names(changes in changes()) {
        let compiler = fed(&changes);
        for table in tables(&compiler).into_values() {
            let named: BTreeSet<Identity> = table.rules.iter().map(|rule| rule.peer).collect();
            prop_assert_eq!(compiler.peers(table.identity), named);
            prop_assert!(table.rules.is_sorted_by(|one, next| (one.peer, one.port) < (next.peer, next.port)));
        }
    }
}

fn path(number: u32, from: u8, to: u8) -> Rule {
    Rule { number, from: workload(from), to: workload(to), port: PortMatch::ANY }
}

fn two_workloads() -> Compiler {
    let mut compiler = Compiler::new();
    compiler.upsert_identity(identity(0), workload(0), &cluster(0)).unwrap();
    compiler.upsert_identity(identity(1), workload(1), &cluster(0)).unwrap();
    compiler.take_changed();
    compiler
}

#[test]
fn a_policy_touches_only_the_tables_of_its_destinations() {
    let mut compiler = two_workloads();
    compiler.upsert_policy(&policy(0), &[path(1, 0, 1)]).unwrap();
    assert_eq!(compiler.take_changed(), [identity(1)].into());
    compiler.upsert_policy(&policy(1), &[path(2, 0, 1)]).unwrap();
    assert!(compiler.take_changed().is_empty(), "the same path under a higher number changes nothing");
    compiler.remove_policy(&policy(0));
    assert_eq!(compiler.take_changed(), [identity(1)].into());
    assert_eq!(compiler.table(identity(1)).unwrap().rules[0].number, 2);
    compiler.upsert_policy(&policy(2), &[path(3, 4, 1), path(3, 1, 4)]).unwrap();
    assert!(compiler.take_changed().is_empty(), "nobody has an identity of workload 4");
}

#[test]
fn a_cluster_that_is_not_known_is_closed() {
    let mut compiler = two_workloads();
    let closed = compiler.table(identity(0)).unwrap();
    assert_eq!((closed.default, closed.answer), (DefaultVerdict::Closed, DenyAnswer::Drop));
    let open = ClusterDefault { verdict: DefaultVerdict::Open, answer: DenyAnswer::Reject };
    compiler.upsert_cluster(&cluster(0), open);
    assert_eq!(compiler.take_changed(), [identity(0), identity(1)].into());
    let table = compiler.table(identity(0)).unwrap();
    assert_eq!((table.default, table.answer), (DefaultVerdict::Open, DenyAnswer::Reject));
    compiler.upsert_cluster(&cluster(1), open);
    assert!(compiler.take_changed().is_empty());
}

#[test]
fn reserved_identities_and_the_number_zero_are_refused() {
    let mut compiler = Compiler::new();
    let error = compiler.upsert_identity(Identity::WORLD, workload(0), &cluster(0)).unwrap_err();
    assert_eq!(error.identity, Identity::WORLD);
    let error = compiler.upsert_policy(&policy(0), &[path(0, 0, 1)]).unwrap_err();
    assert_eq!(error, PolicyError::NumberZero { policy: policy(0) });
    assert_eq!(compiler.rule_count(), 0);
}

#[test]
fn more_rules_than_the_limit_are_refused() {
    let mut compiler = two_workloads();
    compiler.upsert_policy(&policy(0), &[path(1, 0, 1)]).unwrap();
    let rules = vec![path(1, 0, 1); RULES_MAX];
    let error = compiler.upsert_policy(&policy(1), &rules).unwrap_err();
    assert_eq!(error, PolicyError::TooManyRules { policy: policy(1), total: RULES_MAX + 1 });
    assert!(compiler.upsert_policy(&policy(0), &rules).is_ok(), "replacing counts once");
    assert_eq!(compiler.rule_count(), 1);
}

/// One table of 10,000 rules and a million rules in all; then a change of one policy recompiles one table.
#[test]
fn a_million_rules_compile_and_one_change_stays_small() {
    let mut compiler = Compiler::new();
    let destinations = 100;
    let senders = 10_000;
    let number = |n: u32| Identity::new(Identity::FIRST_WORKLOAD + n).unwrap();
    let uuid = |n: u32| Uuid::from_u128(u128::from(n));
    for n in 0..destinations + senders {
        compiler.upsert_identity(number(n), uuid(n), &cluster(0)).unwrap();
    }
    for to in 0..destinations {
        let rules: Vec<Rule> = (0..senders)
            .map(|sender| Rule {
                number: 1 + to * senders + sender,
                from: uuid(destinations + sender),
                to: uuid(to),
                port: "tcp:8080".parse().unwrap(),
            })
            .collect();
        compiler.upsert_policy(&format!("p{to}").parse().unwrap(), &rules).unwrap();
    }
    assert_eq!(compiler.rule_count(), 1_000_000);
    assert_eq!(compiler.table(number(0)).unwrap().rules.len(), 10_000);
    compiler.take_changed();

    let one = Rule { number: 1_000_001, from: uuid(0), to: uuid(1), port: PortMatch::ANY };
    compiler.upsert_policy(&"one".parse().unwrap(), &[one]).unwrap();
    assert_eq!(compiler.take_changed(), [number(1)].into());
    assert_eq!(compiler.table(number(1)).unwrap().rules.len(), 10_001);
    assert_eq!(compiler.peers(number(1)).len(), 10_001);
}
