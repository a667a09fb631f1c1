//! The view that followed every change equals the one that was read at the end.

use super::*;
use crate::kinds::{
    StoredBlock, StoredCluster, StoredIdentity, StoredRule, StoredWorkload, block_key, cluster_key, encode,
    endpoint_key, identity_key, policy_key, pool_key, workload_key,
};
use isthmus_store::Revision;
use proptest::prelude::*;

/// One change of one of few keys, so that they meet often.
#[derive(Clone, Debug)]
enum Change {
    Cluster(u8, Option<bool>),
    Pool(u8, Option<u8>),
    Block(u8, Option<u8>),
    Identity(u8, Option<(u8, bool)>),
    Workload(u8, Option<(u8, u8)>),
    Endpoint(u8, Option<(u8, u8)>),
    Policy(u8, Option<Vec<(u8, u8, u8)>>),
}

fn change() -> impl Strategy<Value = Change> {
    let small = || 0..4_u8;
    prop_oneof![
        (small(), proptest::option::of(any::<bool>())).prop_map(|(key, value)| Change::Cluster(key, value)),
        (small(), proptest::option::of(small())).prop_map(|(key, value)| Change::Pool(key, value)),
        (small(), proptest::option::of(small())).prop_map(|(key, value)| Change::Block(key, value)),
        (small(), proptest::option::of((small(), any::<bool>())))
            .prop_map(|(key, value)| Change::Identity(key, value)),
        (small(), proptest::option::of((small(), small())))
            .prop_map(|(key, value)| Change::Workload(key, value)),
        (small(), proptest::option::of((small(), small())))
            .prop_map(|(key, value)| Change::Endpoint(key, value)),
        (small(), proptest::option::of(proptest::collection::vec((small(), small(), 1..9_u8), 0..4)))
            .prop_map(|(key, value)| Change::Policy(key, value)),
    ]
}

fn uuid(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

fn identity(number: u8) -> Identity {
    Identity::new(u32::from(number) + 256).unwrap()
}

fn block(number: u8) -> IpNet {
    format!("10.64.0.{}/26", number * 64).parse().unwrap()
}

/// The key of a change and its value.
#[expect(clippy::too_many_lines, reason = "a flat table: one arm for each kind")]
fn written(change: &Change) -> (String, Option<Vec<u8>>) {
    let cluster = |number: u8| format!("c{number}");
    match change {
        Change::Cluster(key, value) => {
            let value = value.map(|closed| StoredCluster {
                uuid: Uuid::nil(),
                labels: Labels::new(),
                platform: "nomad".to_owned(),
                closed: Some(closed),
                reject: None,
                asn: None,
                topology: None,
                announce_endpoints: false,
                paths_max: None,
                external: false,
            });
            (cluster_key(&cluster(*key)), value.map(|value| encode(&value)))
        }
        Change::Pool(key, value) => {
            let value = value.map(|number| StoredPool {
                uuid: Uuid::nil(),
                labels: Labels::new(),
                cluster: cluster(number),
                cidrs: vec!["10.64.0.0/24".parse().unwrap()],
                block_len: 26,
                world: false,
            });
            (pool_key(&format!("p{key}")), value.map(|value| encode(&value)))
        }
        Change::Block(key, value) => {
            let value = value.map(|node| StoredBlock {
                cidr: block(*key),
                pool: "p0".to_owned(),
                cluster: cluster(0),
                node: format!("n{node}"),
            });
            (block_key(block(*key)), value.map(|value| encode(&value)))
        }
        Change::Identity(key, value) => {
            let value = value.map(|(workload, retired)| StoredIdentity {
                workload: uuid(workload),
                labels: Labels::new(),
                retired: retired.then(|| kinds::Retired { at_unix: 0, nodes: BTreeSet::new() }),
            });
            (identity_key(identity(*key)), value.map(|value| encode(&value)))
        }
        Change::Workload(key, value) => {
            let value = value.map(|(of, app)| StoredWorkload {
                cluster: cluster(of),
                id: key.to_string(),
                group: String::new(),
                app: format!("a{app}"),
                labels: Labels::new(),
                used_day: 0,
            });
            (workload_key(uuid(*key)), value.map(|value| encode(&value)))
        }
        Change::Endpoint(key, value) => {
            let value = value.map(|(workload, address)| StoredEndpoint {
                node: "n0".to_owned(),
                cluster: cluster(0),
                workload: uuid(workload),
                identity: 256,
                // Each its own: two that say the same at once are a fault that the status tells.
                addresses: vec![format!("10.64.{key}.{address}").parse().unwrap()],
                mac: String::new(),
                host_interface: String::new(),
                instance: String::new(),
                labels: Labels::new(),
                created_unix: 0,
            });
            (endpoint_key("n0", &format!("e{key}")), value.map(|value| encode(&value)))
        }
        Change::Policy(key, value) => {
            let value = value.as_ref().map(|rules| StoredPolicy {
                uuid: Uuid::nil(),
                labels: Labels::new(),
                reason: None,
                rules: rules
                    .iter()
                    .map(|(from, to, port)| StoredRule {
                        from: uuid(*from),
                        to: uuid(*to),
                        port: format!("tcp:{port}"),
                        number: u32::from(*key) * 100 + u32::from(*port),
                    })
                    .collect(),
                cf: None,
            });
            (policy_key(&format!("y{key}")), value.map(|value| encode(&value)))
        }
    }
}

fn event(change: &Change, revision: Revision) -> Event {
    let (key, value) = written(change);
    match value {
        Some(value) => {
            Event::Put(Entry { key, value, create_revision: revision, mod_revision: revision, lease: None })
        }
        None => Event::Delete { key, mod_revision: revision },
    }
}

/// Everything that a view answers.
fn answers(view: &View) -> Vec<String> {
    let mut all = vec![
        format!("{:?}", view.clusters),
        format!("{:?}", view.pools),
        format!("{:?}", view.blocks),
        format!("{:?}", view.identities),
        format!("{:?}", view.workloads),
        format!("{:?}", view.endpoints),
        format!("{:?}", view.policies),
        format!("{:?}", view.addresses),
        format!("{}", view.tables.rule_count()),
    ];
    for number in 0..4 {
        let uuid = uuid(number);
        all.push(format!("{:?}", view.identities_of(uuid).collect::<Vec<_>>()));
        all.push(format!("{:?}", view.endpoints_of(uuid).collect::<Vec<_>>()));
        all.push(format!("{:?}", view.policies_of(uuid).collect::<Vec<_>>()));
        all.push(view.workload_text(uuid));
        all.push(format!("{:?}", view.tables.compiled(identity(number))));
        all.push(format!("{:?}", view.matching(&format!("a{number}").parse().unwrap())));
        all.push(format!("{}", view.used(block(number))));
    }
    all
}

proptest! {
    #[test]
    fn a_view_that_followed_equals_one_that_was_read(changes in proptest::collection::vec(change(), 0..60)) {
        let mut followed = View::default();
        let mut entries = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            let revision = index as u64 + 1;
            let event = event(change, revision);
            // Doubled, as after a read whose later pages were newer.
            followed.apply(revision, std::slice::from_ref(&event));
            followed.apply(revision, std::slice::from_ref(&event));
            match event {
                Event::Put(entry) => { entries.insert(entry.key.clone(), entry); }
                Event::Delete { key, .. } => { entries.remove(&key); }
            }
        }
        let mut read = View::default();
        let entries: Vec<Entry> = entries.into_values().collect();
        read.load(&entries);
        read.finish(changes.len() as u64, &mut Changes::default());
        prop_assert_eq!(answers(&followed), answers(&read));
    }

    #[test]
    fn a_table_that_changed_is_told(changes in proptest::collection::vec(change(), 0..60)) {
        let mut view = View::default();
        let mut tables: BTreeMap<Identity, _> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            let told = view.apply(index as u64 + 1, &[event(change, index as u64 + 1)]);
            for number in 0..4 {
                let identity = identity(number);
                let now = view.tables.compiled(identity);
                let before = tables.insert(identity, now.clone()).flatten();
                if now != before {
                    prop_assert!(told.tables.contains(&identity), "{:?}", change);
                }
            }
        }
    }
}

#[test]
fn the_block_of_an_address_is_the_one_that_holds_it() {
    let mut view = View::default();
    for number in [0, 2] {
        view.apply(1, &[event(&Change::Block(number, Some(1)), 1)]);
    }
    let of = |address: &str| view.block_of(address.parse().unwrap()).map(|block| block.cidr.to_string());
    assert_eq!(of("10.64.0.0").as_deref(), Some("10.64.0.0/26"));
    assert_eq!(of("10.64.0.63").as_deref(), Some("10.64.0.0/26"));
    assert_eq!(of("10.64.0.64"), None);
    assert_eq!(of("10.64.0.191").as_deref(), Some("10.64.0.128/26"));
    assert_eq!(of("10.63.0.1"), None);
    assert_eq!(of("fd00::1"), None);
}

#[test]
fn foreign_keys_and_values_are_passed_over() {
    let mut view = View::default();
    let put = |key: &str, value: &str| {
        Event::Put(Entry {
            key: key.to_owned(),
            value: value.as_bytes().to_vec(),
            create_revision: 1,
            mod_revision: 1,
            lease: None,
        })
    };
    let changes = view.apply(
        1,
        &[
            put("/other/x", "{}"),
            put("/isthmus/v1/cluster/red", "{"),
            put("/isthmus/v1/unknown/x", "{}"),
            put("/isthmus/v1/identity/zz", "{}"),
            put("/isthmus/v1/x", "{}"),
        ],
    );
    assert!(changes.is_empty());
    assert_eq!(view.revision, 1);
}
