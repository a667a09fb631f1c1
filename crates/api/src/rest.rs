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
    /// Kind: `cluster`, `pool`, `node`, `block`, `identity`, `workload`, `endpoint` or `policy`.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// An address range of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
