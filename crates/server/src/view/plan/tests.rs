//! What each node gets, from a registry written by hand.

use super::*;
use crate::kinds::{self, StoredIdentity, StoredNetwork, StoredNodeSettings, StoredPool, StoredWorkload};
use isthmus_api::rest::Secret;
use isthmus_core::{Labels, WorkloadKey};
use isthmus_store::{Entry, Event};
use serde::Serialize;
use uuid::Uuid;

#[derive(Default)]
struct Rig {
    view: View,
    revision: u64,
}

impl Rig {
    /// Clusters red (AS 64512) and blue (no AS); red-1 to red-3, blue-1.
    fn new() -> Self {
        let mut rig = Self::default();
        rig.cluster("red", Some(64_512), None, false);
        rig.cluster("blue", None, None, false);
        for (name, number) in [("red-1", 1), ("red-2", 2), ("red-3", 3)] {
            rig.node(name, number, "red", StoredNodeSettings::default());
        }
        rig.node("blue-1", 4, "blue", StoredNodeSettings::default());
        rig
    }

    fn put<T: Serialize>(&mut self, key: String, value: &T) -> bool {
        self.revision += 1;
        let revision = self.revision;
        let value = kinds::encode(value);
        let entry = Entry { key, value, create_revision: revision, mod_revision: revision, lease: None };
        let changes = self.view.apply(revision, &[Event::Put(entry)]);
        changes.plans || changes.all
    }

    fn delete(&mut self, key: String) -> bool {
        self.revision += 1;
        let changes = self.view.apply(self.revision, &[Event::Delete { key, mod_revision: self.revision }]);
        changes.plans || changes.all
    }

    fn cluster(&mut self, name: &str, asn: Option<u32>, topology: Option<&str>, external: bool) {
        self.put_cluster(name, &Self::stored(asn, topology, external));
    }

    fn put_cluster(&mut self, name: &str, cluster: &StoredCluster) {
        assert!(self.put(kinds::cluster_key(name), cluster));
    }

    fn stored(asn: Option<u32>, topology: Option<&str>, external: bool) -> StoredCluster {
        StoredCluster {
            uuid: Uuid::nil(),
            labels: Labels::new(),
            platform: "mesos".to_owned(),
            closed: None,
            reject: None,
            asn,
            topology: topology.map(str::to_owned),
            announce_endpoints: false,
            paths_max: None,
            external,
        }
    }

    fn node(&mut self, name: &str, number: u32, cluster: &str, settings: StoredNodeSettings) {
        let node = StoredNode {
            uuid: Uuid::nil(),
            number,
            addresses: vec![format!("192.0.2.{number}").parse().unwrap()],
            clusters: vec![cluster.to_owned()],
            agent_version: String::new(),
            vxlan_port: 4789,
            mtu: 1500,
            settings,
        };
        assert!(self.put(kinds::node_key(name), &node));
    }

    fn peer(&mut self, name: &str, peer: &StoredBgpPeer) {
        assert!(self.put(kinds::bgp_peer_key(name), peer));
    }

    fn plan(&self, node: &str) -> Plan {
        of_node(&self.view, node)
    }

    fn speaker(&self, node: &str) -> Option<stream::Bgp> {
        match self.plan(node).remove(&ViewKey::Bgp) {
            Some((_, Value::Bgp(message))) => Some(message),
            _ => None,
        }
    }

    fn peers(&self, node: &str) -> BTreeMap<String, stream::BgpPeer> {
        let peers = self.plan(node).into_values().filter_map(|(_, value)| match value {
            Value::BgpPeer(peer) => Some((peer.name.clone(), peer)),
            _ => None,
        });
        peers.collect()
    }

    fn names(&self, node: &str) -> Vec<String> {
        self.peers(node).into_keys().collect()
    }
}

fn reflector(id: &str) -> StoredNodeSettings {
    StoredNodeSettings { reflector: Some(id.parse().unwrap()), ..StoredNodeSettings::default() }
}

fn in_as(asn: u32) -> StoredNodeSettings {
    StoredNodeSettings { asn: Some(asn), ..StoredNodeSettings::default() }
}

fn labelled(name: &str, value: &str) -> StoredNodeSettings {
    let labels = Labels::from([(name.to_owned(), value.to_owned())]);
    StoredNodeSettings { labels, ..StoredNodeSettings::default() }
}

fn tor(address: &str) -> StoredBgpPeer {
    let address =
        address.parse().map_or_else(|_| PeerAddress::Range(address.parse().unwrap()), PeerAddress::One);
    StoredBgpPeer {
        uuid: Uuid::nil(),
        labels: Labels::new(),
        address,
        asn: Some(65_000),
        cluster: None,
        nodes: Vec::new(),
        node_labels: Labels::new(),
        password: Some(Secret("sesame".to_owned())),
        hold_seconds: None,
        passive: false,
        multihop_ttl: None,
        ttl_security: true,
        bfd: false,
        restart_seconds: 120,
        reflector_client: false,
        import: vec![StoredPrefixMatch { cidr: "10.0.0.0/8".parse().unwrap(), len_min: 8, len_max: 24 }],
        import_own_pools: false,
        import_default_route: false,
        export: Vec::new(),
        export_blocks: true,
        communities: Vec::new(),
        prefixes_max: 10_000,
        families: Vec::new(),
        local_pref: None,
        port: None,
    }
}

#[test]
fn nodes_of_a_cluster_with_an_as_are_a_full_mesh() {
    let rig = Rig::new();
    let speaker = rig.speaker("red-1").unwrap();
    assert_eq!(
        (speaker.asn, speaker.router_id.as_str(), speaker.cluster_id.as_str()),
        (64_512, "192.0.2.1", "")
    );
    assert_eq!(rig.names("red-1"), ["node/red-2", "node/red-3"]);
    let peer = &rig.peers("red-1")["node/red-2"];
    assert_eq!((peer.address.as_str(), peer.asn, peer.node.as_str()), ("192.0.2.2", 64_512, "red-2"));
    assert!(peer.export_blocks && peer.import.is_empty() && !peer.reflector_client);
    assert!(rig.plan("blue-1").is_empty(), "a cluster without an AS speaks no BGP");
    assert!(rig.plan("nobody").is_empty());
}

#[test]
fn a_topology_of_none_leaves_only_what_is_declared() {
    let mut rig = Rig::new();
    rig.cluster("red", Some(64_512), Some("none"), false);
    rig.peer("tor", &tor("198.51.100.1"));
    assert_eq!(rig.names("red-1"), ["tor"]);
    assert!(rig.names("blue-1").is_empty());
}

#[test]
fn what_nodes_announce_and_how_many_paths_they_use_is_their_clusters() {
    let mut rig = Rig::new();
    let speaker = rig.speaker("red-1").unwrap();
    assert!(!speaker.announce_endpoints && speaker.paths_max == 0);
    let set = |announce_endpoints, paths_max| StoredCluster {
        announce_endpoints,
        paths_max,
        ..Rig::stored(Some(64_512), None, false)
    };
    rig.put_cluster("red", &set(true, Some(4)));
    let speaker = rig.speaker("red-1").unwrap();
    assert_eq!((speaker.announce_endpoints, speaker.paths_max), (true, 4));
    // Of a node of several clusters: whoever wants it announced, and the fewest paths.
    rig.put_cluster("blue", &set(false, Some(2)));
    let both = StoredNode {
        clusters: vec!["red".to_owned(), "blue".to_owned()],
        ..rig.view.nodes["red-1"].value.clone()
    };
    rig.put(kinds::node_key("red-1"), &both);
    let speaker = rig.speaker("red-1").unwrap();
    assert_eq!((speaker.announce_endpoints, speaker.paths_max), (true, 2));
}

#[test]
fn clients_peer_with_reflectors_only() {
    let mut rig = Rig::new();
    rig.node("red-3", 3, "red", reflector("10.0.0.1"));
    rig.node("red-4", 5, "red", reflector("10.0.0.2"));
    assert_eq!(rig.names("red-1"), ["node/red-3", "node/red-4"]);
    assert!(rig.peers("red-1").values().all(|peer| !peer.reflector_client));
    let peers = rig.peers("red-3");
    assert_eq!(rig.names("red-3"), ["node/red-1", "node/red-2", "node/red-4"]);
    assert!(peers["node/red-1"].reflector_client && peers["node/red-2"].reflector_client);
    assert!(!peers["node/red-4"].reflector_client, "reflectors are no clients of each other");
    assert_eq!(rig.speaker("red-3").unwrap().cluster_id, "10.0.0.1");
    // Without them, all peer with all again.
    rig.node("red-3", 3, "red", StoredNodeSettings::default());
    assert!(rig.delete(kinds::node_key("red-4")));
    assert_eq!(rig.names("red-1"), ["node/red-2", "node/red-3"]);
}

#[test]
fn racks_with_an_as_of_their_own_peer_from_as_to_as() {
    let mut rig = Rig::new();
    rig.node("red-3", 3, "red", in_as(64_600));
    assert_eq!(rig.speaker("red-3").unwrap().asn, 64_600);
    assert_eq!(rig.peers("red-1")["node/red-3"].asn, 64_600);
    // An AS that has a reflector speaks to others by it alone.
    rig.node("red-2", 2, "red", reflector("10.0.0.1"));
    assert_eq!(rig.names("red-1"), ["node/red-2"]);
    assert_eq!(rig.names("red-3"), ["node/red-2"]);
    assert_eq!(rig.names("red-2"), ["node/red-1", "node/red-3"]);
    let peers = rig.peers("red-2");
    assert!(peers["node/red-1"].reflector_client && !peers["node/red-3"].reflector_client);
}

#[test]
fn neighbours_are_symmetric() {
    for settings in 0..3_usize.pow(4) {
        let mut rig = Rig::default();
        rig.cluster("red", Some(64_512), None, false);
        let mut rest = settings;
        for number in 1..=4 {
            let choice = [StoredNodeSettings::default(), reflector("10.0.0.9"), in_as(64_600)];
            rig.node(&format!("n{number}"), number, "red", choice[rest % 3].clone());
            rest /= 3;
        }
        for one in 1..=4 {
            for other in 1..=4 {
                let has =
                    |node: u32, peer: u32| rig.names(&format!("n{node}")).contains(&format!("node/n{peer}"));
                assert_eq!(has(one, other), has(other, one), "settings {settings}: {one}, {other}");
            }
        }
    }
}

#[test]
fn a_declared_neighbour_is_of_the_nodes_that_its_selector_picks() {
    let mut rig = Rig::new();
    rig.node("red-2", 2, "red", labelled("rack", "a"));
    rig.peer("by-label", &StoredBgpPeer { node_labels: labelled("rack", "a").labels, ..tor("198.51.100.1") });
    rig.peer("by-name", &StoredBgpPeer { nodes: vec!["red-3".to_owned()], ..tor("198.51.100.2") });
    rig.peer("of-blue", &StoredBgpPeer { cluster: Some("blue".to_owned()), ..tor("198.51.100.3") });
    rig.peer("range", &tor("198.51.100.0/24"));
    assert_eq!(rig.names("red-1"), ["node/red-2", "node/red-3", "range"]);
    assert_eq!(rig.names("red-2"), ["by-label", "node/red-1", "node/red-3", "range"]);
    assert_eq!(rig.names("red-3"), ["by-name", "node/red-1", "node/red-2", "range"]);
    let peer = &rig.peers("red-2")["by-label"];
    assert_eq!((peer.password.as_str(), peer.restart_seconds, peer.prefixes_max), ("sesame", 120, 10_000));
    assert_eq!((peer.import[0].len_min, peer.import[0].len_max), (8, 24));
    // A label that goes takes the neighbour along.
    rig.node("red-2", 2, "red", StoredNodeSettings::default());
    assert!(!rig.names("red-2").contains(&"by-label".to_owned()));
    assert!(rig.delete(kinds::bgp_peer_key("range")));
    assert_eq!(rig.names("red-1"), ["node/red-2", "node/red-3"]);
}

#[test]
fn a_node_that_is_declared_is_not_repeated_and_nobody_peers_with_itself() {
    let mut rig = Rig::new();
    rig.peer("second", &tor("192.0.2.2"));
    rig.peer("third", &StoredBgpPeer { nodes: vec!["red-1".to_owned()], ..tor("192.0.2.2") });
    assert_eq!(rig.names("red-1"), ["node/red-3", "second"]);
    assert_eq!(rig.peers("red-1")["second"].node, "red-2");
    assert_eq!(rig.names("red-2"), ["node/red-1", "node/red-3"]);
}

#[test]
fn ranges_of_external_clusters_come_with_their_identity() {
    let mut rig = Rig::new();
    rig.cluster("dcos", None, None, true);
    let pool = |cidr: &str, world| StoredPool {
        uuid: Uuid::nil(),
        labels: Labels::new(),
        cluster: "dcos".to_owned(),
        cidrs: vec![cidr.parse().unwrap()],
        block_len: 32,
        world,
    };
    rig.put(kinds::pool_key("apps"), &pool("192.168.128.0/17", false));
    rig.put(kinds::pool_key("office"), &pool("10.9.0.0/16", true));
    let ranges = |rig: &Rig| -> Vec<(String, u32)> {
        rig.plan("blue-1")
            .into_values()
            .filter_map(|(_, value)| match value {
                Value::Foreign(range) => Some((range.cidr, range.identity)),
                _ => None,
            })
            .collect()
    };
    assert_eq!(ranges(&rig), [("10.9.0.0/16".to_owned(), 4)], "the cluster has no identity yet");
    let key = WorkloadKey { cluster: "dcos".parse().unwrap(), id: kinds::external_id("dcos") };
    let workload = StoredWorkload {
        cluster: "dcos".to_owned(),
        id: key.id.clone(),
        group: "external".to_owned(),
        app: "dcos".to_owned(),
        labels: Labels::new(),
        used_day: 0,
    };
    rig.put(kinds::workload_key(key.uuid()), &workload);
    let identity = StoredIdentity { workload: key.uuid(), labels: Labels::new(), retired: None };
    assert!(rig.put(kinds::identity_key(Identity::new(0x1_0000).unwrap()), &identity));
    assert_eq!(ranges(&rig), [("10.9.0.0/16".to_owned(), 4), ("192.168.128.0/17".to_owned(), 0x1_0000)]);
    let shared: Vec<String> = rig.view.shared_keys().map(|key| key.to_string()).collect();
    assert!(!shared.iter().any(|key| key.starts_with("pool/")), "{shared:?}: no pool of ours");
}

#[test]
fn the_networks_setting_is_every_nodes_and_equal_plans_have_equal_versions() {
    let mut rig = Rig::new();
    assert!(!rig.plan("red-1").contains_key(&ViewKey::Network));
    let setting = |encapsulation: &str| StoredNetwork {
        uuid: Uuid::nil(),
        labels: Labels::new(),
        encapsulation: encapsulation.to_owned(),
        source_check: "loose".to_owned(),
    };
    assert!(rig.put(kinds::NETWORK_KEY.to_owned(), &setting("never")));
    let before = rig.plan("blue-1");
    let message = stream::Network { encapsulation: "never".to_owned(), source_check: "loose".to_owned() };
    assert_eq!(before[&ViewKey::Network].1, Value::Network(message));
    // Written again, the revision differs and the version does not.
    rig.put(kinds::NETWORK_KEY.to_owned(), &setting("never"));
    assert_eq!(rig.plan("blue-1"), before);
    rig.put(kinds::NETWORK_KEY.to_owned(), &setting("always"));
    assert_ne!(rig.plan("blue-1")[&ViewKey::Network].0, before[&ViewKey::Network].0);
    assert!(rig.delete(kinds::NETWORK_KEY.to_owned()));
    assert!(!rig.plan("red-1").contains_key(&ViewKey::Network));
}
