//! What is stored of each kind, and under which key.
//!
//! Every value is JSON below [`ROOT`]. Only these types are written to the store; whoever reads one gets words of
//! `isthmus-core` from its accessors, so that a stored text is parsed in one place. A value that cannot be read is
//! reported and passed over: one bad entry must not stop a network.

use ipnet::IpNet;
use isthmus_core::{
    Asn, ClusterName, DefaultVerdict, DenyAnswer, Identity, Labels, Platform, PortMatch, Topology,
    WorkloadKey, WorkloadName,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};
use uuid::Uuid;

mod bgp;
pub(crate) use bgp::{PeerAddress, StoredBgpPeer, StoredNetwork, StoredPrefixMatch};

/// What all keys begin with. The number is the version of the values.
pub(crate) const ROOT: &str = "/isthmus/v1/";
/// Changes with every write of any pool, so that two that overlap cannot be made at once.
pub(crate) const POOLS_GUARD: &str = "/isthmus/v1/guard/pools";
/// The next rule number that nobody has reserved.
pub(crate) const RULE_COUNTER: &str = "/isthmus/v1/counter/rule";

/// The setting of the whole network.
pub(crate) const NETWORK_KEY: &str = "/isthmus/v1/network/network";

/// Group of the workloads that stand for external clusters.
pub(crate) const EXTERNAL_GROUP: &str = "external";

/// Id of the workload that stands for an external cluster.
pub(crate) fn external_id(cluster: &str) -> String {
    format!("{EXTERNAL_GROUP}/{cluster}")
}

/// Prefixes of the kinds.
pub(crate) mod prefix {
    pub(crate) const CLUSTER: &str = "/isthmus/v1/cluster/";
    pub(crate) const POOL: &str = "/isthmus/v1/pool/";
    pub(crate) const NODE: &str = "/isthmus/v1/node/";
    pub(crate) const NODE_STATUS: &str = "/isthmus/v1/node-status/";
    pub(crate) const BLOCK: &str = "/isthmus/v1/block/";
    pub(crate) const IDENTITY: &str = "/isthmus/v1/identity/";
    pub(crate) const WORKLOAD: &str = "/isthmus/v1/workload/";
    pub(crate) const ENDPOINT: &str = "/isthmus/v1/endpoint/";
    pub(crate) const POLICY: &str = "/isthmus/v1/policy/";
    pub(crate) const BGP_PEER: &str = "/isthmus/v1/bgp-peer/";
    pub(crate) const NETWORK: &str = "/isthmus/v1/network/";
    /// Index: (workload, labels) to number.
    pub(crate) const IDENTITY_OF: &str = "/isthmus/v1/identity-of/";
    /// Index: node number to name.
    pub(crate) const NODE_NUMBER: &str = "/isthmus/v1/node-number/";
    /// Index: tunnel address to node name.
    pub(crate) const TUNNEL: &str = "/isthmus/v1/tunnel/";
}

pub(crate) fn cluster_key(name: &str) -> String {
    format!("{}{name}", prefix::CLUSTER)
}

pub(crate) fn pool_key(name: &str) -> String {
    format!("{}{name}", prefix::POOL)
}

pub(crate) fn node_key(name: &str) -> String {
    format!("{}{name}", prefix::NODE)
}

pub(crate) fn node_status_key(name: &str) -> String {
    format!("{}{name}", prefix::NODE_STATUS)
}

pub(crate) fn node_number_key(number: u32) -> String {
    format!("{}{number}", prefix::NODE_NUMBER)
}

pub(crate) fn tunnel_key(address: IpAddr) -> String {
    format!("{}{address}", prefix::TUNNEL)
}

pub(crate) fn block_key(block: IpNet) -> String {
    format!("{}{}", prefix::BLOCK, block_name(block))
}

/// Name of a block in keys and URLs: its CIDR with a hyphen, `10.64.0.0-26`.
pub(crate) fn block_name(block: IpNet) -> String {
    format!("{}-{}", block.addr(), block.prefix_len())
}

/// Reads [`block_name`], or a CIDR.
pub(crate) fn parse_block_name(name: &str) -> Option<IpNet> {
    name.parse().ok().or_else(|| {
        let (address, len) = name.rsplit_once('-')?;
        IpNet::new(address.parse().ok()?, len.parse().ok()?).ok()
    })
}

pub(crate) fn identity_key(identity: Identity) -> String {
    format!("{}{identity}", prefix::IDENTITY)
}

/// Key of the index from a workload and its labels to the number.
pub(crate) fn identity_of_key(workload: Uuid, labels: &Labels) -> String {
    format!("{}{workload}/{}", prefix::IDENTITY_OF, label_set_id(labels))
}

/// A short text for a set of labels: equal sets have equal ids (a version-5 UUID over the sorted labels).
pub(crate) fn label_set_id(labels: &Labels) -> Uuid {
    let mut text = String::new();
    for (name, value) in labels {
        for part in [name, value] {
            text.push_str(&part.len().to_string());
            text.push(':');
            text.push_str(part);
        }
    }
    Uuid::new_v5(&LABELS_NAMESPACE, text.as_bytes())
}

/// Namespace of [`label_set_id`].
const LABELS_NAMESPACE: Uuid = Uuid::from_u128(0x6973_7468_6d75_7300_8000_6c61_6265_6c73);
/// Namespace of the UUIDs of objects that have no other (endpoints, identities, blocks).
const OBJECT_NAMESPACE: Uuid = Uuid::from_u128(0x6973_7468_6d75_7300_8000_6f62_6a65_6374);

/// The UUID of an object that is made from its kind and name.
pub(crate) fn object_uuid(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&OBJECT_NAMESPACE, format!("{kind}\0{name}").as_bytes())
}

pub(crate) fn workload_key(uuid: Uuid) -> String {
    format!("{}{uuid}", prefix::WORKLOAD)
}

pub(crate) fn endpoint_key(node: &str, id: &str) -> String {
    format!("{}{node}/{id}", prefix::ENDPOINT)
}

pub(crate) fn policy_key(name: &str) -> String {
    format!("{}{name}", prefix::POLICY)
}

pub(crate) fn bgp_peer_key(name: &str) -> String {
    format!("{}{name}", prefix::BGP_PEER)
}

/// Writes a value. Our own types always can be.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("stored types have text keys and no failing serialiser")
}

/// Reads a value; what cannot be read is reported and is nothing.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    match serde_json::from_slice(value) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(key, %error, "stored value cannot be read and is passed over");
            None
        }
    }
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredCluster {
    pub(crate) uuid: Uuid,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) platform: String,
    /// `None`: as the platform's users expect.
    #[serde(default)]
    pub(crate) closed: Option<bool>,
    /// `None`: as the platform's users expect.
    #[serde(default)]
    pub(crate) reject: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asn: Option<u32>,
    /// `None`: as [`Topology::default`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topology: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) announce_endpoints: bool,
    /// `None`: as many as the kernel takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paths_max: Option<u8>,
    /// Has no agents of ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) external: bool,
}

impl StoredCluster {
    pub(crate) fn asn(&self) -> Option<Asn> {
        self.asn.and_then(|number| Asn::new(number).ok())
    }

    pub(crate) fn topology(&self) -> Topology {
        self.topology.as_ref().and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    /// The platform; `standalone` if the text is none, which only a foreign writer can cause.
    pub(crate) fn platform(&self) -> Platform {
        self.platform.parse().unwrap_or(Platform::Standalone)
    }

    pub(crate) fn default_verdict(&self) -> DefaultVerdict {
        match self.closed {
            Some(true) => DefaultVerdict::Closed,
            Some(false) => DefaultVerdict::Open,
            None => self.platform().default_verdict(),
        }
    }

    pub(crate) fn deny_answer(&self) -> DenyAnswer {
        match self.reject {
            Some(true) => DenyAnswer::Reject,
            Some(false) => DenyAnswer::Drop,
            None => self.platform().deny_answer(),
        }
    }
}

/// An address range of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPool {
    pub(crate) uuid: Uuid,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) cluster: String,
    pub(crate) cidrs: Vec<IpNet>,
    pub(crate) block_len: u8,
    /// Of an external cluster: what comes from there is the world's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) world: bool,
}

/// A host with an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredNode {
    pub(crate) uuid: Uuid,
    pub(crate) number: u32,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) clusters: Vec<String>,
    pub(crate) agent_version: String,
    pub(crate) vxlan_port: u16,
    pub(crate) mtu: u32,
    /// What people set; a hello leaves it as it is.
    #[serde(flatten)]
    pub(crate) settings: StoredNodeSettings,
}

/// What people set of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredNodeSettings {
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(crate) labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asn: Option<u32>,
    /// Cluster id as a route reflector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reflector: Option<Ipv4Addr>,
}

/// What a node said of itself last. Apart from the node, so that it wakes nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredNodeStatus {
    pub(crate) revision_in_force: u64,
    #[serde(default)]
    pub(crate) problem: Option<String>,
    pub(crate) last_seen_unix: u64,
}

/// A slice of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredBlock {
    pub(crate) cidr: IpNet,
    pub(crate) pool: String,
    pub(crate) cluster: String,
    pub(crate) node: String,
}

/// A number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredIdentity {
    pub(crate) workload: Uuid,
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Absent while the number is in use. Otherwise it stands for nobody, and is kept until no node can know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retired: Option<Retired>,
}

/// When a number was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retired {
    /// Seconds since 1970.
    pub(crate) at_unix: u64,
    /// Nodes that had not yet said that they hold a newer revision.
    pub(crate) nodes: BTreeSet<String>,
}

/// What a user deploys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredWorkload {
    pub(crate) cluster: String,
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) group: String,
    pub(crate) app: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Day since 1970 on which a node last asked for it.
    #[serde(default)]
    pub(crate) used_day: u64,
}

impl StoredWorkload {
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        let cluster = self.cluster.parse().ok()?;
        Some(WorkloadKey { cluster, id: self.id.clone() }.uuid())
    }

    /// The name that people read; the platform is its cluster's.
    pub(crate) fn name(&self, platform: Platform) -> Option<WorkloadName> {
        let cluster: ClusterName = self.cluster.parse().ok()?;
        Some(WorkloadName { platform, group: self.group.clone(), app: self.app.clone(), cluster })
    }
}

/// One instance of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredEndpoint {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) workload: Uuid,
    pub(crate) identity: u32,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: String,
    pub(crate) host_interface: String,
    pub(crate) instance: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) created_unix: u64,
}

/// A list of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPolicy {
    pub(crate) uuid: Uuid,
    #[serde(default)]
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    pub(crate) rules: Vec<StoredRule>,
    /// Set if it came from Cloud Foundry's policy API: as written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cf: Option<CfPolicy>,
}

/// One clause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRule {
    pub(crate) from: Uuid,
    pub(crate) to: Uuid,
    pub(crate) port: String,
    /// What flows and counters name; stays with the rule while the policy keeps it.
    pub(crate) number: u32,
}

impl StoredRule {
    pub(crate) fn port(&self) -> Option<PortMatch> {
        self.port.parse().ok()
    }
}

/// A policy as Cloud Foundry's API knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct CfPolicy {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) protocol: String,
    pub(crate) start: i64,
    pub(crate) end: i64,
}

impl CfPolicy {
    /// The name of its policy: equal policies have equal names, so that creating one twice is one.
    pub(crate) fn policy_name(&self) -> String {
        let text = String::from_utf8(encode(self)).expect("JSON is UTF-8");
        format!("cf-{}", object_uuid("cf-policy", &text).simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_name_is_read_back_and_so_is_its_cidr() {
        for text in ["10.64.0.64/26", "fd00:1::/122"] {
            let block: IpNet = text.parse().unwrap();
            assert_eq!(parse_block_name(&block_name(block)), Some(block));
            assert_eq!(parse_block_name(text), Some(block));
        }
        assert_eq!(parse_block_name("10.64.0.0"), None);
        assert_eq!(parse_block_name("10.64.0.0-99"), None);
    }

    #[test]
    fn label_sets_are_told_apart_however_they_are_cut() {
        let set = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(label_set_id(&set(&[("a", "b")])), label_set_id(&set(&[("a", "b")])));
        assert_ne!(label_set_id(&set(&[("a", "bc")])), label_set_id(&set(&[("ab", "c")])));
        assert_ne!(label_set_id(&set(&[("a", "1:b")])), label_set_id(&set(&[("a", ""), ("b", "")])));
    }

    #[test]
    fn a_cluster_does_as_its_platform_unless_told() {
        let mut cluster = StoredCluster {
            uuid: Uuid::nil(),
            labels: Labels::new(),
            platform: "cloudfoundry".to_owned(),
            closed: None,
            reject: None,
            asn: None,
            topology: None,
            announce_endpoints: false,
            paths_max: None,
            external: false,
        };
        assert_eq!(cluster.default_verdict(), DefaultVerdict::Closed);
        assert_eq!(cluster.deny_answer(), DenyAnswer::Reject);
        cluster.closed = Some(false);
        cluster.reject = Some(false);
        assert_eq!(cluster.default_verdict(), DefaultVerdict::Open);
        assert_eq!(cluster.deny_answer(), DenyAnswer::Drop);
    }

    #[test]
    fn a_value_that_cannot_be_read_is_nothing() {
        assert_eq!(decode::<StoredCluster>("/isthmus/v1/cluster/x", b"{"), None);
        let node = StoredNodeStatus { revision_in_force: 7, problem: None, last_seen_unix: 1 };
        assert_eq!(decode("k", &encode(&node)), Some(node));
    }

    #[test]
    fn equal_cf_policies_have_one_name() {
        let policy = CfPolicy {
            source: "A".to_owned(),
            destination: "B".to_owned(),
            protocol: "tcp".to_owned(),
            start: 1,
            end: 2,
        };
        let other = CfPolicy { end: 3, ..policy.clone() };
        assert_eq!(policy.policy_name(), policy.clone().policy_name());
        assert_ne!(policy.policy_name(), other.policy_name());
        assert!(policy.policy_name().parse::<isthmus_core::PolicyName>().is_ok());
    }
}
