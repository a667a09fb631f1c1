//! The REST API's documents.
//!
//! Everything stored is a kind: a [`Resource`] with a name, a UUID, a revision, labels, what is wanted (`spec`) and what
//! is (`status`, where the server knows more than was asked for).

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

/// One object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resource<S> {
    /// Kind: `cluster`, `pool`, `node`, `block`, `identity`, `workload`, `endpoint`, `policy`, `bgpPeer` or `network`.
    pub kind: String,
    /// Name, unique within the kind.
    pub name: String,
    /// UUID, for good.
    pub uuid: Uuid,
    /// Store revision of the last change.
    pub revision: u64,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is.
    pub spec: S,
}

/// A page of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// Store revision at which the page was read.
    pub revision: u64,
    /// The objects, by name.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What one writes to create or replace an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Draft<S> {
    /// Name, unique within the kind.
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it shall be.
    pub spec: S,
}

/// One installation of a platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterSpec {
    /// `kubernetes`, `cloudfoundry`, `nomad`, `swarm`, `mesos` or `standalone`.
    pub platform: String,
    /// `open` or `closed`: towards its workloads, where no rule decides. Absent: as the platform's users expect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// `drop` or `reject`: how a denied packet is answered. Absent: as the platform's users expect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<String>,
    /// AS number of its nodes. Absent: they speak no BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// `full-mesh` or `none`: which of its nodes are BGP neighbours by themselves. Absent: `full-mesh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// Its nodes announce single containers too, not only their blocks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announce_endpoints: bool,
    /// Equal paths that its nodes use at once, from 1 to 255. Absent: as many as the kernel takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths_max: Option<u8>,
    /// Has no agents of ours: its pools are ranges of another network, which enter as one workload.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
}

/// An address range of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PoolSpec {
    /// The cluster.
    pub cluster: String,
    /// CIDRs, which overlap with no other pool's.
    pub cidrs: Vec<String>,
    /// Prefix length of the blocks leased to nodes; 26 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_len: Option<u8>,
    /// Of an external cluster only: packets from there are `world`'s, not the cluster's workload's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub world: bool,
}

/// A host with an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Number for good; what maps carry.
    pub number: u32,
    /// Underlay addresses; the first is the tunnel's.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// Clusters that it serves.
    pub clusters: Vec<String>,
    /// Version of its agent.
    pub agent_version: String,
    /// UDP port of its overlay.
    pub vxlan_port: u16,
    /// MTU of its containers.
    pub mtu: u32,
    /// Whether its agent is connected now.
    pub connected: bool,
    /// Revision that it has in force.
    pub revision_in_force: u64,
    /// What stops it from applying the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When the server last heard of it, seconds since 1970.
    pub last_seen_unix: u64,
    /// Endpoints that live on it.
    pub endpoints: u64,
    /// Its own AS number, where it is another than its cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Cluster id as a route reflector, a dotted quad; absent: it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflector: Option<String>,
}

/// What people set of a node; the rest its agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeSettings {
    /// Its own AS number, where it is another than its cluster's: one for each node, or each rack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Cluster id as a route reflector (RFC 4456), a dotted quad; absent: it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflector: Option<String>,
}

/// How packets travel in the whole network: both ends of a way must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkSpec {
    /// `always`, `cross-subnet` or `never`. Absent: `always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<String>,
    /// `strict` or `loose`: by which interface a packet without encapsulation may come in. Absent: `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_check: Option<String>,
}

/// A text that is written and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A BGP neighbour of some nodes: a router, another speaker, or a range of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, as people write them")]
pub struct BgpPeerSpec {
    /// Address; or a CIDR: whoever connects from there is a neighbour.
    pub address: String,
    /// AS number of the neighbour. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Only nodes of this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Only nodes with these names. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Only nodes that have all these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, String>,
    /// TCP MD5 (RFC 2385), at most 80 bytes. Written, never returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    pub password: Option<Secret>,
    /// Whether it has a password. Written back without `password`, it keeps the one that it has.
    pub password_set: bool,
    /// Hold time in seconds, from 3. Absent: the speaker's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u32>,
    /// Waits for the neighbour to connect.
    pub passive: bool,
    /// The neighbour may be up to so many hops away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multihop_ttl: Option<u32>,
    /// Packets must arrive with TTL 255 (RFC 5082).
    pub ttl_security: bool,
    /// Watches the neighbour with BFD (RFC 5882).
    pub bfd: bool,
    /// Graceful restart: how long routes are kept, in seconds; 0 is off. Absent: 120.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_seconds: Option<u32>,
    /// Gets reflected routes (RFC 4456).
    pub reflector_client: bool,
    /// What is accepted. Nothing else is (RFC 8212).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub import: Vec<PrefixMatch>,
    /// Also accepts routes into our own pools.
    pub import_own_pools: bool,
    /// Also accepts a default route.
    pub import_default_route: bool,
    /// What is announced besides our blocks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export: Vec<PrefixMatch>,
    /// Whether our blocks are announced. Absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_blocks: Option<bool>,
    /// Communities added to what is announced, `a:b` (RFC 1997).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Prefixes from the neighbour at most. Absent: 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixes_max: Option<u32>,
    /// `ipv4-unicast`, `ipv6-unicast`. Empty: that of the address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
    /// `LOCAL_PREF` given to what is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// TCP port. Absent: 179.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
}

/// Prefixes within a CIDR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PrefixMatch {
    /// The CIDR.
    pub cidr: String,
    /// Shortest prefix length. Absent: the CIDR's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len_min: Option<u8>,
    /// Longest prefix length. Absent: the shortest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len_max: Option<u8>,
}

/// A slice of a pool, leased to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlockSpec {
    /// The slice.
    pub cidr: String,
    /// Its pool.
    pub pool: String,
    /// The pool's cluster.
    pub cluster: String,
    /// The node.
    pub node: String,
    /// Addresses of it that endpoints have.
    pub used: u64,
}

/// The number of one workload with one set of labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct IdentitySpec {
    /// Six hex digits; also the name.
    pub identity: String,
    /// UUID of the workload.
    pub workload: Uuid,
    /// Full name of the workload.
    pub workload_name: String,
    /// Labels that tell it from other identities of the workload.
    pub labels: BTreeMap<String, String>,
}

/// What a user deploys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// The cluster.
    pub cluster: String,
    /// The platform's own id, or the path of names.
    pub id: String,
    /// `platform:group/app@cluster`.
    pub full_name: String,
    /// Its identities, six hex digits each.
    pub identities: Vec<String>,
    /// Live endpoints.
    pub endpoints: u64,
}

/// One instance of a workload on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EndpointSpec {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: String,
    /// UUID of the workload.
    pub workload: Uuid,
    /// Full name of the workload.
    pub workload_name: String,
    /// Six hex digits.
    pub identity: String,
    /// Addresses.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// MAC address inside the container.
    pub mac: String,
    /// Host side of its veth pair.
    pub host_interface: String,
    /// What people call the instance.
    pub instance: String,
    /// When it was attached, seconds since 1970.
    pub created_unix: u64,
}

/// Who may reach whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicySpec {
    /// Rules; a packet is allowed if one of them matches. At most 10,000.
    pub rules: Vec<RuleSpec>,
    /// Why it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One clause of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleSpec {
    /// Source workload: UUID, or a name that means one workload when it is written (stored as UUID).
    pub from: String,
    /// Destination workload, likewise.
    pub to: String,
    /// `tcp:8080`, `udp:8000-8010`, `icmp`, `any`.
    pub port: String,
}

/// `GET /api/v1/policies/NAME/rollout`: where a policy is in force. `?wait=SECONDS` waits until it is everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Revision of the policy.
    pub revision: u64,
    /// Connected nodes that need it.
    pub nodes: u64,
    /// Those of them on which it is in force.
    pub loaded: u64,
    /// Names of the others.
    pub waiting: Vec<String>,
}

/// RFC 9457 problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{title}: {detail}")]
pub struct Problem {
    /// `/docs/errors/ISE-nnnn`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Stable code, `ISE-nnnn`.
    pub code: String,
    /// What kind of thing went wrong.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What, where, why.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// `GET /api/v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// Version of the server.
    pub version: String,
    /// Store revision.
    pub revision: u64,
    /// By cluster.
    pub clusters: Vec<ClusterStatus>,
    /// What is wrong, with what to do.
    pub problems: Vec<StatusProblem>,
}

/// One row of `isthmus status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Kind of orchestrator.
    pub platform: String,
    /// Name.
    pub cluster: String,
    /// Nodes whose agent is connected.
    pub nodes_connected: u64,
    /// All nodes.
    pub nodes: u64,
    /// Workloads.
    pub apps: u64,
    /// Endpoints.
    pub endpoints: u64,
    /// Lowest revision in force on its nodes.
    pub revision_lowest: u64,
    /// Highest revision in force on its nodes.
    pub revision_highest: u64,
    /// `ok` or `degraded`.
    pub state: String,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusProblem {
    /// Where: `node NAME`, `pool NAME`.
    pub place: String,
    /// What and why.
    pub text: String,
    /// The command that mends or explains it.
    pub help: String,
}

/// `GET /api/v1/why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The verdict.
    pub allowed: bool,
    /// A word of the closed list of reasons.
    pub reason: String,
    /// Full name of the source.
    pub from: String,
    /// Full name of the destination.
    pub to: String,
    /// As asked: `tcp:8080`.
    pub port: String,
    /// The steps of the path, in order.
    pub steps: Vec<WhyStep>,
    /// The command that would open the path, if it is shut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// One step of [`Why`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WhyStep {
    /// `source`, `route`, `ingress`.
    pub step: String,
    /// What was found.
    pub text: String,
    /// Whether the packet passes here.
    pub ok: bool,
}
